"""What a run's tables are made to say in words."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from uhlm_sim.analysis.measures.intervals import summarise
from uhlm_sim.analysis.report.sentences import answers
from uhlm_sim.analysis.results import Results

IDLE = {"uplink_utilisation": 0.2, "bs_utilisation": 0.2, "batch_jobs": 1.0, "skip_rate": 0.0}
NO_WAITS = {"uplink_wait_s": 0.0, "bs_wait_s": 0.0, "token_delay_s.mean": 0.1}
NOBODY = pd.DataFrame(
    columns=[
        *("point", "policy", "replication", "device", "request", "mean_snr_db", "arrived_s", "first_token_s"),
        *("finished_s", "tokens"),
    ],
    dtype=float,
)


def results(at, policies, *, replications=6, scenario=None, requests=None, noise=0.002):
    """Return the tables of a made-up run.

    `at` gives the swept values of each point, `policies` for each policy the values of its metrics: one for all points
    or one for each. Throughput varies by `noise` between replications, alike under all policies.
    """
    rows = []
    for point, swept in enumerate(at):
        rng = np.random.default_rng(point)
        shared = 1 + noise * rng.standard_normal(replications)
        for policy, metrics in policies.items():
            for metric, given in {**IDLE, **metrics}.items():
                mean = given[point] if isinstance(given, list) else given
                own = 1 + noise * rng.standard_normal(replications)
                moves = shared * own if metric.startswith(("token_throughput", "quality")) else np.ones(replications)
                rows += [(point, *swept.values(), policy, i, metric, mean * moves[i]) for i in range(replications)]
            for metric, mean in NO_WAITS.items():
                rows += [(point, *swept.values(), policy, i, metric, mean) for i in range(replications)]
    columns = ["point", *at[0], "policy", "replication", "metric", "value"]
    tidy = pd.DataFrame(rows, columns=columns)
    settings = {
        "name": "made-up",
        "traffic": {"kind": "closed"},
        "warmup_s": 0.0,
        "duration_s": 100.0,
        "base_station": {"max_batch": 8},
        "policy": [{"kind": name.partition("(")[0]} for name in policies],
    }
    return Results(
        summary=summarise(tidy, next(iter(policies))),
        replications=tidy,
        requests=NOBODY if requests is None else requests,
        tokens=None,
        stations=pd.DataFrame(),
        scenario={**settings, **(scenario or {})},
        provenance={
            "policies": [{"label": name, "kind": name.partition("(")[0], "exact": True} for name in policies],
            "closed_loop": {**settings, **(scenario or {})}["traffic"]["kind"] == "closed",
        },
    )


def users(*counts):
    return [{"traffic.devices": count} for count in counts]


def said(tables, beginning):
    """Return the one answer that begins so."""
    found = [sentence for sentence in answers(tables) if sentence.startswith(beginning)]
    assert len(found) == 1, answers(tables)
    return found[0]


def test_a_policy_is_faster_from_where_its_interval_leaves_one():
    throughput = {"hlm": {"token_throughput": [10.0, 50.0, 70.0]}, "u-hlm": {"token_throughput": [10.0, 60.0, 101.5]}}
    sentence = said(results(users(1, 10, 80), throughput), "u-hlm: ")
    assert "at 1 phone and 1.4" in sentence
    assert sentence.endswith("more from 10 phones on.")


def test_an_interval_wider_than_its_ratio_is_no_result_and_more_replications_are_proposed():
    """Student's t of two replications is 12.7 times the standard error."""
    policies = {"hlm": {"token_throughput": 10.0}, "u-hlm": {"token_throughput": 20.0}}
    few = results([{}], policies, replications=2, noise=0.3)
    assert re.search(r"commits ≈2\.\d \(too few replications\) times hlm's", said(few, "u-hlm: "))
    assert said(few, "Where it says too few").endswith("--set precision.relative=0.05.")
    many = results([{}], policies, replications=20, noise=0.3)
    assert not any("too few" in sentence for sentence in answers(many))


def test_what_chance_may_have_made_is_not_called_faster():
    same = {"hlm": {"token_throughput": 50.0}, "u-hlm": {"token_throughput": [50.0, 50.02]}}
    assert said(results(users(1, 2), same), "u-hlm: ").endswith("no difference beyond chance.")
    once = {"hlm": {"token_throughput": 50.0}, "u-hlm": {"token_throughput": 80.0}}
    assert "more" not in " ".join(answers(results(users(1, 2), once, replications=1)))


def test_the_order_in_which_values_were_given_does_not_matter():
    throughput = {"hlm": {"token_throughput": [70.0, 10.0, 50.0]}, "u-hlm": {"token_throughput": [98.0, 10.0, 60.0]}}
    assert said(results(users(80, 1, 10), throughput), "u-hlm: ").endswith("more from 10 phones on.")


def test_the_most_is_told_where_it_lies_between_the_ends():
    throughput = {"hlm": {"token_throughput": 50.0}, "u-hlm": {"token_throughput": [50.0, 102.5, 62.5]}}
    sentence = said(results(users(1, 10, 80), throughput), "u-hlm: ")
    assert "at 1 phone, 2.0" in sentence
    assert "at 10 phones and 1.2" in sentence


ORDERS = [{"base_station.order": word} for word in ("first-come", "shortest-work", "fewest-uploads")]


def test_of_swept_words_each_is_held_against_the_first_and_the_policies_against_each_other():
    slow = {"token_throughput": [50.0, 51.0, 45.0], "tpot_s.p95": [0.2, 0.1, 0.3], "slo_attainment": [0.1, 0.8, 0.2]}
    even = {"token_throughput": 60.0, "tpot_s.p95": 0.1, "slo_attainment": [0.98, 1.0, 0.99]}
    tables = results(ORDERS, {"hlm": slow, "u-hlm": even})
    sentence = said(tables, "hlm, as a multiple of its value at first-come: ")
    assert "TPOT p95 0.5 at shortest-work and 1.5 at fewest-uploads" in sentence
    assert sentence.endswith("requests that meet the SLO 10.00 % at first-come and 80.00 % at shortest-work.")
    assert "tokens a second" not in said(tables, "u-hlm, as a multiple of")
    assert said(tables, "Between the best and the worst order ") == (
        "Between the best and the worst order the share of requests that meet the SLO differs by 70.00 percentage "
        "points under hlm and 2.000 percentage points under u-hlm."
    )


def test_without_an_slo_words_are_judged_by_the_slow_tokens():
    rate = {"token_throughput": 50.0}
    slow = {"hlm": rate | {"tpot_s.p95": [0.2, 0.1, 0.3]}, "u-hlm": rate | {"tpot_s.p95": [0.1, 0.1, 0.15]}}
    tables = results(ORDERS, slow)
    assert said(tables, "Between the best").endswith("differs 3 times under hlm and 1.5 times under u-hlm.")


def test_points_that_go_by_a_name_are_called_by_it_whatever_numbers_go_with_it():
    at = [{"base_station.chunk_tokens": chunk, "variant": word} for chunk, word in ((900, "whole"), (100, "chunks"))]
    sentence = said(
        results(at, {"hlm": {"token_throughput": [50.0, 60.0], "tpot_s.p95": 0.1}}), "hlm, as a multiple of"
    )
    assert sentence.startswith("hlm, as a multiple of its value at whole: tokens a second 1 at whole and 1.2")


def test_equal_in_every_replication_is_said_so():
    same = {"hlm": {"token_throughput": 50.0}, "u-hlm": {"token_throughput": 50.0}}
    sentence = said(results(users(1, 2), same, noise=0.0), "u-hlm: ")
    assert sentence == "u-hlm: commits hlm's tokens a second in every replication."


def test_of_a_resource_is_told_how_much_the_first_needs():
    """HLM in proportion to the band, U-HLM half as much again: 10 MHz stand for 15 of HLM's, 40 for 60."""
    bands = [5e6, 10e6, 20e6, 40e6]
    rates = {
        "hlm": {"token_throughput": [hz / 1e6 for hz in bands]},
        "u-hlm": {"token_throughput": [1.5 * hz / 1e6 for hz in bands]},
    }
    sentence = said(results([{"uplink.bandwidth_hz": hz} for hz in bands], rates), "u-hlm commits")
    assert "at 5 MHz as much as hlm between 5 and 10, at 10 MHz as much as hlm between 10 and 20" in sentence
    assert sentence.endswith("at 40 MHz more than hlm at any value here.")


def test_where_less_of_it_is_better_the_neighbours_are_told_in_order_too():
    bits = [2, 4, 8]
    rates = {"hlm": {"token_throughput": [40.0, 20.0, 10.0]}, "u-hlm": {"token_throughput": [60.0, 30.0, 15.0]}}
    sentence = said(results([{"uplink.payload.bits_per_probability": b} for b in bits], rates), "u-hlm commits")
    assert "at 8 bits a probability as much as hlm between 4 and 8" in sentence


def test_two_swept_keys_part_into_groups():
    at = [
        {"channel.mean_snr_db": snr_db, "traffic.devices": count}
        for snr_db in (0.0, 10.0, 20.0)
        for count in (1, 10, 80)
    ]
    rates = {
        "hlm": {"token_throughput": 50.0},
        "u-hlm": {"token_throughput": [70.0, 70.0, 70.0, 50.0, 70.0, 70.0, 50.0, 50.0, 50.0]},
    }
    sentence = said(results(at, rates), "u-hlm: ")
    assert "more with 1 phone at 0 dB, with 10 phones or 80 phones up to 10 dB" in sentence


def test_a_key_that_follows_from_the_others_parts_nothing():
    at = [
        {"uplink.snr_rule": rule, "uplink.bandwidth_hz": hz, "channel.mean_snr_db": snr_db}
        for rule, drop in (("per-hertz", 0.0), ("power-limited", 3.0))
        for hz, snr_db in ((5e6, 10.0 + drop), (10e6, 10.0), (20e6, 10.0 - drop))
    ]
    rates = {
        "hlm": {"token_throughput": 50.0},
        "u-hlm": {"token_throughput": [80.0, 50.0, 50.0, 80.0, 80.0, 50.0]},
    }
    assert "more with per-hertz at 5 MHz, with power-limited up to 10 MHz" in said(results(at, rates), "u-hlm: ")


def test_words_have_no_order():
    at = [{"device.slm": name} for name in ("slow", "fast", "other")]
    rates = {"hlm": {"token_throughput": 50.0}, "u-hlm": {"token_throughput": [50.0, 92.5, 70.0]}}
    sentence = said(results(at, rates), "u-hlm: ")
    assert "at slow and 1.8" in sentence
    assert sentence.endswith("more at fast and other.")


def test_of_a_ladder_the_fastest_that_keeps_the_similarity_is_named():
    ladder = [{"policy.u-hlm.threshold": level} for level in (0.0, 0.2, 0.4, 0.6)]
    policies = {
        "hlm": {"token_throughput": 50.0, "token_throughput_per_device": 5.0, "quality_cosine": 0.9},
        "u-hlm": {
            "token_throughput": [50.0, 60.0, 70.0, 80.0],
            "token_throughput_per_device": [5.0, 6.0, 7.0, 8.0],
            "quality_cosine": [0.9, 0.89, 0.88, 0.7],
            "skip_rate": [0.0, 0.1, 0.3, 0.5],
        },
    }
    sentence = said(results(ladder, policies, noise=0.002), "The fastest threshold that keeps at least 95 %")
    assert "u-hlm at threshold 0.4, with 0.97" in sentence


def test_choosing_by_uncertainty_is_held_against_chance_at_the_same_share():
    policies = {
        "hlm": {"token_throughput": 50.0},
        "u-hlm": {"token_throughput": 60.0, "skip_rate": 0.3, "distribution_error": 0.03},
        "rand-hlm": {"token_throughput": 60.0, "skip_rate": 0.3, "distribution_error": 0.11},
    }
    told = {"policy": [{"kind": "hlm"}, {"kind": "u-hlm"}, {"kind": "rand-hlm", "skip_rate": "matched"}]}
    sentence = said(results([{}], policies, scenario=told), "Skipping as often (30.00 % and 30.00 % of the tokens)")
    assert "u-hlm has a total variation distance from the LLM of 0.03000, rand-hlm of 0.1100" in sentence


def test_shares_of_skipped_tokens_that_differ_are_not_called_equal():
    """A matched rate is that of whole answers; shorter ones may be skipped less."""
    policies = {
        "hlm": {"token_throughput": 50.0},
        "u-hlm": {"token_throughput": 60.0, "skip_rate": 0.241, "distribution_error": 0.03},
        "rand-hlm": {"token_throughput": 60.0, "skip_rate": 0.30, "distribution_error": 0.11},
    }
    told = {"policy": [{"kind": "hlm"}, {"kind": "u-hlm"}, {"kind": "rand-hlm", "skip_rate": "matched"}]}
    said(results([{}], policies, scenario=told), "Skipping 24.10 % and 30.00 % of the tokens, u-hlm has")


def test_a_similarity_that_is_known_at_some_points_is_said_to_be_of_these():
    policies = {
        "hlm": {"token_throughput": 50.0, "quality_cosine": 0.8},
        "rand-hlm": {"token_throughput": 60.0, "skip_rate": 0.3, "quality_cosine": [np.nan, 0.6, np.nan]},
    }
    sentence = said(results(users(1, 10, 80), policies, noise=0.0), "rand-hlm: ")
    assert "similarity to the LLM's answers at 10 phones." in sentence
    policies["rand-hlm"]["quality_cosine"] = 0.6
    assert "known only" not in said(results(users(1, 10, 80), policies, noise=0.0), "rand-hlm: ")


def test_requests_that_miss_their_slo_are_told_with_the_place():
    policies = {
        "hlm": {"token_throughput": 50.0, "slo_attainment": [1.0, 0.5]},
        "u-hlm": {"token_throughput": 50.0, "slo_attainment": 1.0},
    }
    slo = {"slo": {"ttft_s": 2.0}}
    assert said(
        results(users(1, 2), policies, scenario=slo), "Of the requests that were decided, fewer than 95 %"
    ).endswith("under hlm at 2 phones.")
    kept = {"u-hlm": policies["u-hlm"]}
    assert said(results(users(1, 2), kept, scenario=slo), "Of the requests that were decided, at least 95 %").endswith(
        "under every policy."
    )


def test_open_arrivals_are_compared_by_the_rate_of_a_phone():
    flows = {"arrival_rate": 1.0, "unfinished_requests": 1.0}
    policies = {
        "hlm": {"token_throughput": 50.0, "token_throughput_per_device": 5.0, **flows, "backlog_growth": [0.0, 0.5]},
        "u-hlm": {"token_throughput": 50.0, "token_throughput_per_device": 8.0, **flows, "backlog_growth": 0.0},
    }
    at = [{"traffic.rate_per_s": rate} for rate in (0.01, 0.02)]
    tables = results(at, policies, scenario={"traffic": {"kind": "poisson"}})
    assert "throughput is the load offered" in said(tables, "Arrivals are open")
    assert "an answering phone gets 1.6" in said(tables, "u-hlm: ")
    assert said(tables, "More requests arrive").endswith("under hlm at 0.02 requests/s.")


def test_near_and_far_phones_are_compared_in_pairs():
    """Eight phones, the far two of them three times as slow in every replication, however fast that one is."""
    rows = [
        {
            "point": 0,
            "policy": "hlm",
            "replication": replication,
            "device": device,
            "mean_snr_db": 20.0 - device,
            "arrived_s": 1.0,
            "first_token_s": 2.0,
            "finished_s": 2.0 + 10 * (1 + replication) * (0.3 if device >= 6 else 0.1),
            "tokens": 11,
        }
        for replication in range(4)
        for device in range(8)
    ]
    tables = results([{}], {"hlm": {"token_throughput": 50.0}}, requests=pd.DataFrame(rows))
    sentence = said(tables, "For a token")
    assert "the 2 phones of lowest SNR (13 to 14 dB)" in sentence
    assert "hlm 3.000" in sentence
    short = pd.DataFrame(rows).assign(tokens=1)
    assert not [s for s in answers(results([{}], {"hlm": {"token_throughput": 50.0}}, requests=short)) if "SNR" in s]
    alike = pd.DataFrame(rows).assign(mean_snr_db=10.0)
    assert not [s for s in answers(results([{}], {"hlm": {"token_throughput": 50.0}}, requests=alike)) if "SNR" in s]
    swept = pd.concat([pd.DataFrame(rows), pd.DataFrame(rows).assign(point=1, mean_snr_db=10.0)])
    assert said(results(users(8, 9), {"hlm": {"token_throughput": 50.0}}, requests=swept), "For a token").endswith(
        "the quarter of the phones with the lowest SNR takes this many times as long as the quarter with the highest: "
        "hlm 3.000 (3.000 to 3.000) at 8 phones."
    )
    classes = {"device_class": [{"name": "slow"}, {"name": "fast"}]}
    of_class = pd.DataFrame(rows).assign(device_class=[("fast", "slow")[row["device"] >= 4] for row in rows])
    tables = results([{}], {"hlm": {"token_throughput": 50.0}}, requests=of_class, scenario=classes)
    told = [sentence for sentence in answers(tables) if sentence.startswith("For a token")]
    assert [sentence.partition(" (13")[0].partition(" (17")[0][28:] for sentence in told] == [
        "1 phone of class slow of lowest SNR",
        "1 phone of class fast of lowest SNR",
    ]
    assert [sentence.rpartition("dB): ")[2][:6] for sentence in told] == ["hlm 3.", "hlm 1,"]


def test_a_label_that_follows_the_sweep_is_told_at_its_own_points():
    at = [{"policy.u-hlm(0.1).threshold": level} for level in (0.1, 0.2)]
    rows = [
        results([point], {"hlm": {"token_throughput": 50.0}, label: {"token_throughput": 60.0}}).replications
        for point, label in zip(at, ("u-hlm(0.1)", "u-hlm(0.2)"), strict=True)
    ]
    tidy = pd.concat([table.assign(point=number) for number, table in enumerate(rows)], ignore_index=True)
    both = replace(results(at, {"hlm": {"token_throughput": 50.0}}), replications=tidy, summary=summarise(tidy, "hlm"))
    assert said(both, "u-hlm(0.2): ").endswith("more at threshold 0.2.")


@pytest.mark.parametrize("counts", [(1, 10, 80), (5, 5000)])
def test_the_rate_of_an_answering_phone_is_told_along_the_sweep(counts):
    rates = [12.0 / count for count in counts]
    tables = results(users(*counts), {"hlm": {"token_throughput": 12.0, "token_throughput_per_device": rates}})
    sentence = said(tables, "Tokens a second of an answering phone")
    assert (
        f"(less than half of its highest {'from 10 phones on' if len(counts) == 3 else 'at 5000 phones'})" in sentence
    )


def test_the_fastest_near_the_llms_law_is_named_where_it_leads_beyond_chance():
    """SLM is faster still, but too far from the LLM to take part; at 20 phones the two others are alike."""
    rate = "token_throughput_per_device"
    policies = {
        "hlm": {rate: [5.0, 10.0, 20.0], "token_throughput": 1.0, "distribution_error": 0.0},
        "llm": {rate: [15.0, 10.0, 10.0], "token_throughput": 1.0, "distribution_error": 0.0},
        "slm": {rate: 90.0, "token_throughput": 1.0, "distribution_error": 0.3},
    }
    told = answers(results([{"traffic.devices": n} for n in (10, 20, 40)], policies, noise=0.02))
    assert re.fullmatch(
        "Of the policies within a total variation distance of 0.05 a token of the LLM's law, an answering phone gets "
        r"its tokens fastest, by 1/mean\(delay\), under llm at 10 phones \(3\.0\d* times hlm's rate\); "
        r"hlm at 40 phones \(2\.0\d* times llm's rate\)\.",
        told[0],
    )
    assert told[1] == "Chance leaves open which is fastest at 20 phones, between hlm and llm."


def test_programs_that_pass_their_checks_are_told_beside_the_similarity():
    rates = {
        "hlm": {"token_throughput": 50.0, "task_accuracy": 0.6},
        "u-hlm": {"token_throughput": 80.0, "skip_rate": 0.3, "task_accuracy": 0.5},
    }
    sentence = said(results(users(20), rates, noise=0.0), "u-hlm: ")
    assert sentence.endswith("writes programs of which 50.00 % pass their checks.")
