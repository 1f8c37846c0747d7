"""What limits a cell: demands and bounds against exact mean value analysis, the sentences, the lines drawn."""

import math
from functools import cache

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from uhlm_sim.analysis.figures.bottleneck import bounds_figure, bounds_of, draw_bounds, knee
from uhlm_sim.analysis.figures.style import looks
from uhlm_sim.analysis.measures import bottleneck
from uhlm_sim.analysis.measures.bottleneck import PHONES, bottleneck_table, load_table
from uhlm_sim.analysis.measures.intervals import summarise
from uhlm_sim.analysis.report.points import Points
from uhlm_sim.analysis.report.sentences_of_bottlenecks import limits
from uhlm_sim.analysis.report.station_tables import limit_words
from uhlm_sim.analysis.results import Results
from uhlm_sim.errors import InputError
from uhlm_sim.experiment import run
from uhlm_sim.names import find_scenario
from uhlm_sim.scenario_file import parse_scenario, read_scenario

SE = math.log2(1 + 10)  # bit/s/Hz at 10 dB
BITS = 50 * 8  # the made-up trace has a vocabulary of 50
DRAFT_S, VERIFY_S, DOWNLINK_S, THINK_S = 0.010, 0.008, 0.002, 0.2
SERVICE = "test_bottleneck:exponential"


def exponential(service, rng):
    return lambda _tokens: rng.exponential(service.c_s)


def simulated(trace_file, **changes):
    """A cell in which all is known: no fading, no prompts, a job a batch; the uplink carries 125 tokens a second."""
    values = {
        "name": "known",
        "replications": 6,
        "duration_s": 60.0,
        "warmup_s": 5.0,
        "traffic": {"think_time_s": THINK_S, "max_tokens": 12},
        "tokens": {"kind": "trace", "path": str(trace_file)},
        "device": {"slm_token_s": DRAFT_S, "slm_prefill_token_s": 0.0},
        "uplink": {"bandwidth_hz": 125 * BITS / SE},
        "channel": {"kind": "constant", "mean_snr_db": 10.0},
        "base_station": {
            "service": {"kind": SERVICE, "c_s": VERIFY_S / 2},
            "max_batch": 1,
            "sync": "free",
            "downlink_s": DOWNLINK_S,
        },
        "policy": [{"kind": "hlm"}],
        "output": {"tokens": False},
        **changes,
    }
    return run(parse_scenario(values, "test"), jobs=1, allow_plugins=True)


@pytest.fixture(scope="module")
def users(trace_file):
    return simulated(trace_file, sweep={"traffic.devices": [1, 4, 16]})


def row(table, **where):
    """Return the one row of a table that has these values."""
    found = table[np.logical_and.reduce([table[name] == value for name, value in where.items()])]
    assert len(found) == 1
    return found.iloc[0]


def mean_values(phones, delay_s, demands_s):
    """Exact mean value analysis: R_k = D_k (1 + Q_k(n - 1)), X = n / (Z + sum R)."""
    queue = np.zeros(len(demands_s))
    for n in range(1, phones + 1):
        stay_s = np.array(demands_s) * (1 + queue)
        rate = n / (delay_s + stay_s.sum())
        queue = rate * stay_s
    return rate


def test_demands_and_bounds_are_those_of_exact_mean_value_analysis(users):
    """Z = think/L + draft + downlink; D = bits/(B se) of the uplink and c of the GPU; N* = (Z + sum D)/max D.

    Processor sharing and an exponential server keep the product form, so the simulated throughput is known too.
    """
    demands_s = (1 / 125, VERIFY_S / 2)
    finished = users.requests[users.requests["finished"]]
    delay_s = THINK_S / finished["tokens"].mean() + DRAFT_S + DOWNLINK_S
    table = load_table(users, "traffic.devices")
    for phones in (1, 4, 16):
        for name, demand_s in zip(("uplink", "GPUs"), demands_s, strict=True):
            station = row(table, **{"traffic.devices": phones}, station=name)
            assert station["demand_s"] == pytest.approx(demand_s, rel=0.03)
            assert station["bound"] == pytest.approx(1 / station["demand_s"], rel=1e-9)
        own = row(table, **{"traffic.devices": phones}, station=PHONES)
        assert own["bound"] == pytest.approx(phones / (delay_s + sum(demands_s)), rel=0.02)
        half = own["token_throughput_high"] - own["token_throughput"]
        assert abs(own["token_throughput"] - mean_values(phones, delay_s, demands_s)) < 2 * half
        assert half < 0.07 * own["token_throughput"]
    assert knee(bounds_of(table, "hlm")) == pytest.approx((delay_s + sum(demands_s)) / max(demands_s), rel=0.02)


def test_no_throughput_lies_above_the_lines_beside_it_beyond_its_interval(users):
    table = load_table(users, "traffic.devices")
    lines = bounds_of(table, "hlm")
    assert set(lines) == {PHONES, "uplink", "GPUs"}
    least = np.minimum.reduce([line.to_numpy() for line in lines.values()])
    cell = table.drop_duplicates("traffic.devices")
    assert (cell["token_throughput_low"].to_numpy() <= least).all()
    assert cell["token_throughput"].iloc[-1] > 0.95 * least[-1], "16 phones fill the uplink"


def test_what_waits_and_what_is_in_service_make_a_phones_whole_time(users):
    """Of N phones, X times a token's waits wait, by Little's law; the rest is the phones' share of their bound."""
    table = load_table(users, "traffic.devices")
    for _, rows in table.groupby("traffic.devices"):
        own, stations = rows[rows["station"] == PHONES].iloc[0], rows[rows["station"] != PHONES]
        waiting = own["token_throughput"] * stations["wait_s"].sum() / own["servers"]
        assert own["load"] + waiting == pytest.approx(1.0, abs=2e-3)


SHORT = ["replications=3", "output.tokens=false"]


@cache
def shortened(name, *overrides):
    return run(read_scenario(find_scenario(name), [*SHORT, *overrides]), jobs=1)


def test_the_uplink_is_named_in_the_cell_that_it_limits():
    tables = shortened(
        "uplink_bound_cell", "duration_s=25", "warmup_s=10", 'sweep={"uplink.payload.bits_per_probability"=[8]}'
    )
    said = list(limits(tables, Points.of(tables)))
    assert said[0].startswith("The uplink limits hlm, u-hlm(0.43) and rand-hlm: it is busy")
    assert said[1].startswith("No station limits slm and llm: 0 % of a token's time is waiting for one")
    assert not any("GPUs limit" in text for text in said)


def test_the_gpus_are_named_in_the_cell_that_they_limit():
    tables = shortened("gpu_bound_cell", "duration_s=15", "warmup_s=5", 'sweep={"base_station.gpus"=[1]}')
    said = list(limits(tables, Points.of(tables)))
    assert said[0].startswith("The GPUs limit hlm, u-hlm(0.43) and llm: they are busy 100 % of the time at")
    assert not any("uplink" in text for text in said)


def test_arrivals_that_a_cell_keeps_up_with_limit_it_until_a_station_is_full(trace_file):
    """Offered are N lambda L tokens a second; the uplink, which carries 125, would be full first."""
    rates = [0.25, 4.0]
    tables = simulated(
        trace_file,
        replications=3,
        traffic={"kind": "poisson", "devices": 10, "rate_per_s": 1.0, "max_tokens": 12},
        sweep={"traffic.rate_per_s": rates},
    )
    table = load_table(tables, "traffic.rate_per_s")
    tokens = tables.requests.loc[tables.requests["finished"], "tokens"].mean()
    for rate in rates:
        uplink = row(table, **{"traffic.rate_per_s": rate}, station="uplink")
        assert uplink["offered"] == pytest.approx(10 * rate * tokens, rel=0.2)
    assert uplink["token_throughput"] < uplink["bound"] * 1.001 < 0.6 * uplink["offered"]
    said = list(limits(tables, Points.of(tables)))
    assert said[0].startswith("The uplink limits hlm at 4 requests/s: it is busy")
    assert said[1].startswith(
        "As arrivals grow, the uplink would be the first to limit hlm at 0.25 requests/s: it is at"
    )


def test_phones_that_answer_are_counted_from_requests_one_after_the_other():
    """From 2 to 5 s and from 6 s on; a second request that arrived at 3 s begins at 5 s; another phone never ends."""
    requests = pd.DataFrame(
        {
            "device": [0, 0, 0, 1, 1],
            "request": [0, 1, 2, 0, 1],
            "arrived_s": [2.0, 3.0, 8.0, 6.0, 7.0],
            "finished_s": [5.0, 6.0, 9.0, math.nan, math.nan],
            "tokens": [10, 20, 30, 5, 0],
        }
    ).assign(point=0, policy="hlm", replication=0)
    found = bottleneck._answering(requests, 4.0, 10.0).loc[0, "hlm"].loc[0]
    assert found["answering"] == pytest.approx(((6.0 - 4.0) + (9.0 - 8.0) + (10.0 - 6.0)) / 6.0)
    assert found["tokens_per_answer"] == 20.0


MEASURED = {"token_throughput": 100.0, "uplink_utilisation": 0.5, "bs_utilisation": 1.0, "batch_jobs": 2.0}
MEASURED |= {"uplink_wait_s": 0.01, "bs_wait_s": 0.01, "token_delay_s.mean": 0.1}


def made_up(at, policies, noise=0.0):
    """Return a closed cell of 20 phones, two GPUs and batches of up to 8, from each policy's metrics."""
    rows = []
    for point, swept in enumerate(at):
        for policy, metrics in policies.items():
            for metric, given in {**MEASURED, **metrics}.items():
                mean = given[point] if isinstance(given, list) else given
                moves = np.random.default_rng([point, *policy.encode(), *metric.encode()]).normal(1, noise, 4)
                rows += [(point, *swept.values(), policy, i, metric, mean * moves[i]) for i in range(4)]
    tidy = pd.DataFrame(rows, columns=["point", *at[0], "policy", "replication", "metric", "value"])
    scenario = {"name": "made-up", "warmup_s": 0.0, "duration_s": 9.0, "base_station": {"max_batch": 8, "gpus": 2}}
    return Results(
        *(summarise(tidy, next(iter(policies))), tidy, pd.DataFrame(), None, pd.DataFrame()),
        scenario={**scenario, "traffic": {"kind": "closed", "devices": 20}},
        provenance={
            "policies": [{"label": name, "kind": name, "exact": True} for name in policies],
            "closed_loop": True,
        },
    )


def said(results):
    return list(limits(results, Points.of(results)))


def test_gpus_busy_with_small_batches_do_not_limit():
    """Two GPUs busy all the time with 2 of 8 jobs at 100 tokens/s could carry 400; with 8 of 8 jobs they are full."""
    small, full = {"llm": {}}, {"llm": {"batch_jobs": 8.0, "bs_wait_s": 0.08}}
    gpus = row(bottleneck_table(made_up([{}], small)), station="GPUs")
    assert (gpus["demand_s"], gpus["full_demand_s"], gpus["bound"], gpus["load"]) == (0.02, 0.005, 400.0, 0.25)
    assert said(made_up([{}], small)) == [
        "No station limits llm: 20 % of a token's time is waiting for one, and none is above 50 % of what it can "
        "carry (the GPUs, with small batches, are busy up to 100 % of the time)."
    ]
    assert said(made_up([{}], full)) == [
        "The GPUs limit llm: they are busy 100 % of the time at 100 % of a full batch's pace, and 80 % of a token's "
        "time is waiting for them."
    ]


def test_a_largest_batch_that_is_swept_is_the_one_of_the_point():
    at = [{"base_station.max_batch": 2}, {"base_station.max_batch": 16}]
    first, *_ = said(made_up(at, {"llm": {}}))
    assert first.startswith("The GPUs limit llm at 2 jobs a batch: ")


def test_a_station_limits_from_where_it_is_nearest_to_its_bound():
    users = [{"traffic.devices": count} for count in (1, 10, 80)]
    policies = {
        "hlm": {"uplink_utilisation": [0.2, 0.97, 1.0], "uplink_wait_s": [0.001, 0.05, 0.7]},
        "u-hlm": {"uplink_utilisation": [0.1, 0.6, 0.96], "uplink_wait_s": [0.001, 0.01, 0.6]},
    }
    for metrics in policies.values():
        metrics["token_throughput"] = [10.0, 80.0, 100.0]
    first, *_ = said(made_up(users, policies))
    assert first.startswith("The uplink limits hlm from 10 phones on; u-hlm at 80 phones: it is busy 96 to 100 % of")


def test_what_chance_may_have_made_is_not_called_the_limit():
    near = {"hlm": {"uplink_utilisation": 0.9, "bs_utilisation": 0.1}}
    (sentence,) = said(made_up([{}], near, noise=0.05))
    assert sentence == "Chance leaves open whether the uplink limits hlm, at 89 % of what could be carried."


def test_gpus_whose_batches_cost_in_proportion_limit_with_small_ones():
    """t(n) = 3 + 2 n ms: 2 jobs take 7, 8 would take 19, so GPUs busy at 2 jobs run at (2/7) / (8/19) of full pace."""
    dear = {"llm": {"batch_s": 0.007, "batch_job_s": 0.002}}
    gpus = row(bottleneck_table(made_up([{}], dear)), station="GPUs")
    assert gpus["load"] == pytest.approx((2 / 7) / (8 / 19))
    assert gpus["bound"] == pytest.approx(2 * 8 / 0.019 * (100 * 0.007 / 2 / 2)), "two GPUs, and X as measured"


def test_gpus_whose_batches_memory_holds_small_limit():
    """Whoever comes evicts another, and each of two GPUs remembers two requests: no batch has what max_batch allows."""
    thrash = {"llm": {"evictions": 7.0, "kv_cache_present": 4.0, "bs_wait_s": 0.08}}
    assert said(made_up([{}], thrash))[0].startswith("The GPUs limit llm: they are busy 100 % of the time")


def test_a_downlink_that_is_full_limits(trace_file):
    """D = bits of an id / (B se); what waits there follows from Little's law, and is not the phones' own time."""
    tables = simulated(
        trace_file,
        traffic={"think_time_s": 0.0, "max_tokens": 12, "devices": 12},
        uplink={"bandwidth_hz": 1e9},
        downlink={"kind": "shared", "bandwidth_hz": 100.0, "on_resample": "id"},
    )
    table = bottleneck_table(tables)
    assert list(table["station"]) == ["uplink", "GPUs", "downlink", PHONES]
    downlink = row(table, station="downlink")
    assert downlink["demand_s"] == pytest.approx(math.ceil(math.log2(50)) / (100 * SE), rel=0.02)
    assert downlink["load"] > 0.98
    assert row(table, station=PHONES)["load"] + table["wait_s"].iloc[:3].sum() * downlink["bound"] / 12 == (
        pytest.approx(1.0, abs=0.02)
    )
    assert said(tables)[0].startswith("The downlink limits hlm: it is busy")


def test_a_policy_that_uses_no_station_is_limited_by_its_phones():
    idle = dict.fromkeys(("uplink_utilisation", "bs_utilisation", "uplink_wait_s", "bs_wait_s"), 0.0)
    tables = made_up([{}], {"slm": {**idle, "batch_jobs": math.nan}})
    assert list(bottleneck_table(tables)["station"]) == [PHONES]
    assert said(tables) == ["No station limits slm: 0 % of a token's time is waiting for one."]


def test_a_cell_that_committed_nothing_has_no_demands():
    nothing = dict.fromkeys(("uplink_wait_s", "bs_wait_s", "token_delay_s.mean", "batch_jobs"), math.nan)
    tables = made_up([{}], {"hlm": {**nothing, "token_throughput": 0.0, "uplink_utilisation": 1.0}})
    uplink = row(bottleneck_table(tables), station="uplink")
    assert (uplink["load"], uplink["bound"], math.isnan(uplink["demand_s"])) == (1.0, 0.0, True)
    assert said(tables) == ["The uplink limits hlm: it is busy 100 % of the time."]


def test_lines_are_drawn_where_the_table_says(users):
    """The phones' through their fewest in proportion, the uplink's flat; N* where they meet."""
    table = load_table(users, "traffic.devices")
    ax = Figure().subplots()
    draw_bounds(ax, table, "hlm", looks(["hlm"])["hlm"])
    drawn = {line.get_label(): line for line in ax.lines}
    own, uplink = (row(table, **{"traffic.devices": n}, station=s)["bound"] for n, s in ((1, PHONES), (16, "uplink")))
    assert np.array(drawn[PHONES].get_ydata())[[0, -1]] == pytest.approx([own, 16 * own])
    assert np.array(drawn["uplink"].get_ydata()) == pytest.approx(np.full(60, uplink))
    cell = table.drop_duplicates("traffic.devices")
    assert list(drawn["hlm"].get_ydata()) == list(cell["token_throughput"])
    assert [text.get_text() for text in ax.texts] == [f"N* = {uplink / own:.3g}"]
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")


def test_a_run_over_its_users_draws_its_bounds_and_another_says_why_not(users):
    figure = users.plot.bottleneck()
    assert [ax.get_title() for ax in figure.axes] == ["hlm"]
    ax = Figure().subplots()
    assert users.plot.bottleneck("hlm", ax) is ax
    assert ax.get_ylabel() == "tokens/s"
    with pytest.raises(InputError, match=r"over traffic.devices or traffic.rate_per_s; this run sweeps base_station"):
        made_up([{"base_station.gpus": 1}, {"base_station.gpus": 2}], {"hlm": {}}).plot.bottleneck()


def test_every_policy_has_a_panel_in_one_frame():
    counts = [{"traffic.devices": count} for count in (1, 10, 80)]
    many = {f"p{i}": {"token_throughput": [10.0, 50.0, 90.0 + i]} for i in range(5)}
    figure = bounds_figure(load_table(made_up(counts, many), "traffic.devices"))
    assert [ax.get_title() for ax in figure.axes] == list(many)
    assert len({ax.get_ylim() for ax in figure.axes}) == 1


def test_what_limits_is_a_station_none_or_perhaps_one():
    table = pd.DataFrame(
        {
            "policy": ["a", "a", "b", "b", "c", "c"],
            "station": ["uplink", "phones"] * 3,
            "load": [0.97, 0.2, 0.1, 1.0, 0.9, 0.91],
            "limits": [True, False, False, True, True, True],
        }
    )
    words = [[limit_words(table, policy, is_open=is_open) for policy in "abc"] for is_open in (False, True)]
    assert words[0] == ["uplink (97 %)", "no station", "perhaps uplink (90 %)"]
    assert words[1] == ["uplink (97 %)", "phones (100 %)", "uplink or phones (91 %)"]
