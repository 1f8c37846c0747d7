"""One replication's metrics, on runs small enough to compute in the head."""

import math

import numpy as np
import pandas as pd
import pytest
from worlds import agrees, cell, ready

from uhlm_sim.analysis.measures.energy import ENERGY
from uhlm_sim.analysis.measures.metrics import UNITS, replication_metrics
from uhlm_sim.cell.engine import simulate
from uhlm_sim.errors import InputError
from uhlm_sim.tables import LEGS

NAN = math.nan
TOKENS = [
    "device",
    "request",
    "position",
    "started_s",
    "committed_s",
    "decision",
    "outcome",
    "accept_probability",
    "payload_bits",
    "device_s",
    "uplink_wait_s",
    "airtime_s",
    "bs_wait_s",
    "verify_s",
    "downlink_s",
    "batch_jobs",
    "batch_tokens",
    "steps",
]
QUALITY = ["quality_cosine", "quality_cosine_reference", "task_accuracy"]
REQUESTS = ["device", "request", "arrived_s", "first_token_s", "finished_s", "tokens", *QUALITY[:2], "task_passed"]
STATIONS = ["station", "at_s", "present_s", "busy_s", "servers"]

# Phone 0 answers with three tokens (sent, skipped, sent), phone 1 with one and has one in progress.
# Both jobs that end at 13.0 were one batch of two.
ANSWER = [
    (0, 0, 0, 10.0, 11.0, "send", "accepted", 0.9, 100, 0.4, 0.1, 0.2, 0.1, 0.1, 0.1, 1, 6, 1),
    (0, 0, 1, 11.0, 11.5, "skip", "skipped", 0.8, 0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0, 0),
    (0, 0, 2, 11.5, 13.0, "send", "resampled", 0.2, 100, 0.5, 0.3, 0.2, 0.2, 0.2, 0.1, 2, 4, 1),
    (1, 0, 0, 12.0, 13.0, "send", "accepted", 1.0, 100, 0.4, 0.1, 0.2, 0.0, 0.2, 0.1, 2, 4, 1),
    (1, 0, 1, 13.0, NAN, "send", "accepted", 0.5, 100, 0.4, 0.1, NAN, NAN, NAN, NAN, 0, 0, 0),
]
ASKED = [(0, 0, 10.0, 11.0, 13.0, 3, 0.9, 0.8, 1.0), (1, 0, 11.5, 13.0, NAN, 1, 0.5, 0.6, 0.0)]
# Over [10, 14] the band was held for 1 s and the two GPUs worked 0.8 s between them.
COUNTED = [
    ("uplink", 10.0, 5.0, 4.0, 1),
    ("uplink", 14.0, 7.0, 5.0, 1),
    ("base_station", 10.0, 1.0, 1.0, 2),
    ("base_station", 14.0, 2.0, 1.8, 2),
]


def measure(tokens=ANSWER, requests=ASKED, stations=COUNTED, *, warmup_s=10.0, duration_s=14.0, **other):
    settings = {"devices": 2, "slo": {}, "output_law": True} | other
    table = pd.DataFrame(tokens, columns=TOKENS)
    outcome = table["outcome"]
    table = table.assign(drafted=outcome != "generated", accepted=outcome == "accepted", exact=True)
    return replication_metrics(
        pd.DataFrame([(*row, NAN)[: len(REQUESTS)] for row in requests], columns=REQUESTS),
        table,  # one token a round: the same columns
        table,
        pd.DataFrame(stations, columns=STATIONS),
        warmup_s=warmup_s,
        duration_s=duration_s,
        **settings,
    )


def test_throughput_is_given_in_its_three_readings():
    found = measure()
    assert found["token_throughput"] == 4 / 4.0
    assert found["token_throughput_per_device"] == pytest.approx(1 / np.mean([1.0, 0.5, 1.5, 1.0]))
    assert found["mean_token_rate"] == pytest.approx(np.mean([1.0, 2.0, 1 / 1.5, 1.0]))
    assert found["uplink_bits_per_token"] == 300 / 4


def test_latencies_are_those_a_user_feels():
    found = measure()
    assert found["ttft_s.mean"] == pytest.approx((1.0 + 1.5) / 2)
    assert found["e2e_s.mean"] == 3.0
    assert found["tpot_s.mean"] == (3.0 - 1.0) / (3 - 1)
    assert found["itl_s.mean"] == pytest.approx((0.5 + 1.5) / 2)
    assert found["itl_s.p95"] == pytest.approx(0.5 + 0.95 * 1.0)
    assert found["token_delay_s.p50"] == 1.0


def test_tokens_are_counted_where_they_are_committed_and_requests_where_they_arrive():
    found = measure(warmup_s=11.2, stations=[])
    assert found["completed_tokens"] == 3
    assert found["itl_s.mean"] == pytest.approx((0.5 + 1.5) / 2), "the earlier token of a gap may lie before"
    assert (found["requests"], found["completed_requests"]) == (1, 1), "one arrived, and the one before was finished"
    assert math.isnan(found["e2e_s.mean"])
    assert found["ttft_s.mean"] == 1.5
    assert measure(duration_s=13.0, stations=[])["completed_tokens"] == 4, "both ends belong to the window"


def test_shares_of_tokens():
    found = measure()
    assert found["skip_rate"] == 1 / 4
    assert found["transmission_rate"] == 3 / 4
    assert found["resample_rate"] == pytest.approx(1 / 3)
    assert found["kept_rate"] == 1 - 1 / 4
    assert found["true_skip_rate"] == 0.8
    assert found["rejection_risk"] == pytest.approx(0.2)


def test_a_teacher_forced_policy_keeps_its_risk_but_has_no_answer_of_its_own():
    found = measure(output_law=False)
    for name in ("kept_rate", *QUALITY):
        assert math.isnan(found[name]), name
    assert found["rejection_risk"] == pytest.approx(0.2)
    assert found["distribution_error"] == pytest.approx(0.2 / 4)


def test_the_distribution_error_is_the_risk_of_a_token_skipped_or_not():
    found = measure()
    assert found["distribution_error"] == pytest.approx(found["skip_rate"] * found["rejection_risk"])
    assert measure([token for token in ANSWER if token[5] == "send"])["distribution_error"] == 0


def test_quality_is_that_of_the_answers_of_the_window_finished_or_not():
    """The finished ones alone would be the short ones, all the more so the slower a policy is."""
    found = measure()
    assert [found[name] for name in QUALITY] == pytest.approx([(0.9 + 0.5) / 2, (0.8 + 0.6) / 2, 0.5])
    both = [ASKED[0], (1, 0, 11.5, 13.0, 13.5, 1, NAN, 0.6, NAN)]
    found = measure(requests=both)
    assert found["quality_cosine"] == 0.9, "where it isn't known it doesn't count"
    assert found["quality_cosine_reference"] == pytest.approx((0.8 + 0.6) / 2)
    assert measure(requests=both, warmup_s=11.0, stations=[])["quality_cosine_reference"] == 0.6


def test_a_request_waits_for_its_phone_until_its_first_token_begins():
    assert measure()["phone_wait_s"] == pytest.approx((0.0 + 0.5) / 2)
    waiting = (1, 1, 12.0, NAN, NAN, 0, NAN, NAN)
    assert measure(requests=[*ASKED, waiting])["phone_wait_s"] == pytest.approx((0.0 + 0.5) / 2)
    assert measure(warmup_s=11.0, stations=[])["phone_wait_s"] == 0.5


def test_an_answer_that_the_large_model_wrote_has_no_drafts():
    generated = [(0, 0, i, 10.0 + i, 11.0 + i, "send", "generated", NAN, 0, *[0.0] * 5, 1.0, 1, 1, 1) for i in range(3)]
    found = measure(generated)
    assert (found["skip_rate"], found["transmission_rate"]) == (0, 1)
    for name in ("resample_rate", "kept_rate", "rejection_risk", "true_skip_rate", "airtime_s.leg_mean"):
        assert math.isnan(found[name]), name
    assert found["distribution_error"] == 0, "its law is the large model's"


def test_the_mean_legs_add_up_to_the_mean_delay():
    found = measure()
    assert sum(found[leg] for leg in LEGS) == pytest.approx(found["token_delay_s.mean"])
    assert found["airtime_s"] == pytest.approx(0.6 / 4)
    assert found["airtime_s.leg_mean"] == pytest.approx(0.2)
    assert found["uplink_wait_s.leg_p95"] == pytest.approx(0.1 + 0.9 * 0.2)


def test_utilisation_comes_from_the_stations_own_counters():
    found = measure()
    assert found["uplink_utilisation"] == 1.0 / 4
    assert found["bs_utilisation"] == pytest.approx(0.8 / (2 * 4))
    assert (found["uplink_present"], found["bs_present"]) == (2.0 / 4, 1.0 / 4)


def test_a_batch_counts_once_however_many_jobs_report_it():
    found = measure()
    assert found["batch_jobs"] == pytest.approx((1 + 2) / 2)
    assert found["batch_tokens"] == pytest.approx((6 + 4) / 2)


def test_fairness_is_jain_over_all_phones_idle_ones_included():
    assert measure()["fairness_jain"] == pytest.approx(4**2 / (2 * (3**2 + 1**2)))
    assert measure(devices=4)["fairness_jain"] == pytest.approx(4**2 / (4 * (3**2 + 1**2)))


def test_what_was_under_way_at_the_end_is_counted():
    found = measure()
    assert (found["requests"], found["completed_requests"], found["unfinished_requests"]) == (2, 1, 1)
    assert (found["completed_tokens"], found["unfinished_tokens"]) == (4, 1)
    assert found["requests_present"] == pytest.approx((3.0 + 2.5) / 4)


def test_a_request_is_completed_where_it_is_finished_whenever_it_arrived():
    early, late = (0, 1, 5.0, 6.0, 9.0, 3, NAN, NAN), (0, 2, 2.0, 3.0, 12.0, 3, NAN, NAN)
    found = measure(requests=[*ASKED, early, late], slo={"e2e_s": 4.0})
    assert (found["completed_requests"], found["request_throughput"]) == (2, 2 / 4)
    assert found["goodput"] == 1 / 4, "the other took 10 s"
    assert (found["arrival_rate"], found["slo_attainment"]) == (2 / 4, 1.0), "are of those that arrived"


@pytest.mark.parametrize("kind", ["hlm", "slm"])
def test_completions_keep_the_interactive_response_time_law(kind):
    """X (Z + R) = N, though of 20 s of a run an answer takes 5 s: what arrives and ends in there is a quarter less."""
    scenario = cell(
        duration_s=40.0, warmup_s=20.0, traffic={"devices": 20, "think_time_s": 1.0, "max_tokens": 50},
        device={"slm_token_s": 0.1, "slm_prefill_token_s": 0.0}, uplink={"bandwidth_hz": 1e8},
    )  # fmt: skip
    phones = []
    for number in range(12):
        records = simulate(scenario, ready(kind), number)
        found = replication_metrics(
            *records.tables, warmup_s=20.0, duration_s=40.0, devices=20, slo={}, output_law=True
        )
        phones.append(found["request_throughput"] * (1.0 + found["e2e_s.mean"]))
    assert agrees(20, phones)


@pytest.mark.parametrize(
    ("slo", "attainment", "goodput"),
    [
        ({"ttft_s": 2.0}, 1 / 1, 1 / 4),  # the second request isn't finished and hasn't broken it
        ({"ttft_s": 1.2}, 1 / 2, 1 / 4),  # its first token was late
        ({"ttft_s": 2.0, "tpot_s": 0.9}, 0 / 2, 0),  # it has waited 1 s for its second token
        ({"ttft_s": 2.0, "tpot_s": 1.0}, 1 / 1, 1 / 4),  # an SLO is met up to and with its limit
        ({"e2e_s": 2.4}, 0 / 2, 0),
    ],
)
def test_an_unfinished_request_has_missed_once_it_has_broken_an_slo(slo, attainment, goodput):
    found = measure(slo=slo)
    assert found["slo_attainment"] == attainment
    assert found["goodput"] == goodput


def test_without_an_slo_nothing_is_attained():
    found = measure()
    assert math.isnan(found["goodput"])
    assert math.isnan(found["slo_attainment"])
    with pytest.raises(InputError, match=r"slo\.tpto_s.*did you mean 'tpot_s'"):
        measure(slo={"tpto_s": 1.0})


def test_the_backlog_grows_by_its_least_squares_slope():
    """One request a second that never ends: N(t) is a staircase of slope 1."""
    requests = [(0, i, float(i), NAN, NAN, 0, NAN, NAN) for i in range(100)]
    t = (np.arange(100_000) + 0.5) / 1000
    slope = np.polyfit(t, np.floor(t) + 1, 1)[0]
    found = measure([], requests, [], warmup_s=0.0, duration_s=100.0)
    assert found["backlog_growth"] == pytest.approx(slope, rel=1e-6)
    assert found["backlog_growth"] == pytest.approx(1.0, abs=0.001)


def test_an_empty_run_has_zero_throughput_and_no_latency():
    found = measure([], [], [])
    assert found["token_throughput"] == 0
    assert math.isnan(found["ttft_s.p95"])
    assert list(found) == [name for name in UNITS if name not in ENERGY]


def test_order_and_type_of_the_rows_change_nothing():
    shuffled = [ANSWER[i] for i in (3, 1, 4, 0, 2)]
    assert measure(shuffled) == pytest.approx(measure(), nan_ok=True, rel=1e-12)
