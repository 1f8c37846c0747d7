"""Who asks when: bursts, phones that come and go, traffic of one's own; and what holds for every kind."""

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from worlds import cell, ready, with_own

from uhlm_sim import load, run
from uhlm_sim.analysis.measures.energy import powers_of
from uhlm_sim.analysis.measures.metrics import replication_metrics
from uhlm_sim.cell.checks import check_scenario
from uhlm_sim.cell.engine import simulate
from uhlm_sim.cell.named import find_names
from uhlm_sim.cell.phones.arrivals import ARRIVALS, alternate, arrivals_of
from uhlm_sim.cell.phones.population import population
from uhlm_sim.errors import ScenarioError, SimulationError
from uhlm_sim.rng import stream
from uhlm_sim.scenario_file import parse_scenario, write_scenario

ROWS = """\
TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.5000000,7,3
2023-11-16 18:15:47.2500000,11,20
2023-11-16 18:15:47.2500000,5,1
"""


@pytest.fixture(scope="session")
def requests_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("requests") / "requests.csv"
    file.write_text(ROWS, encoding="utf-8")
    return str(file)


def asked(scenario, device=0, replication=0, until_s=500.0):
    """Return when a device is asked, however busy it is."""
    named = find_names(scenario)["traffic.kind"]
    next_arrival, times_s = arrivals_of(scenario, population(scenario)[device], replication, named), []
    while (arrived_s := next_arrival(0.0)) <= until_s:
        times_s.append(arrived_s)
    return np.array(times_s)


def open_traffic(kind, devices=3, **more):
    return cell(duration_s=1000.0, traffic={"kind": kind, "devices": devices, "rate_per_s": 0.5, **more})


def states(scenario, purpose, name, first_mean_s, second_mean_s, until_s=500.0):
    """Return the ends of the sojourns of a chain, and which state each is."""
    chain, ends, found = alternate(stream(scenario.seed, purpose, *name), first_mean_s, second_mean_s), [], []
    while not ends or ends[-1] < until_s:
        state, end_s = next(chain)
        ends.append(end_s)
        found.append(state)
    return np.array(ends), np.array(found)


# -- bursts -------------------------------------------------------------------------------------------------------


def test_bursts_that_are_no_faster_are_a_poisson_process_to_the_same_draws():
    """Unit exponential gaps over a rate that never changes."""
    plain, flat = asked(open_traffic("poisson")), asked(open_traffic("bursty", burst={"factor": 1.0}))
    assert len(plain) > 200
    np.testing.assert_allclose(flat, plain, rtol=1e-12)


def test_where_bursts_bring_everything_calms_bring_nothing():
    """A factor of 1 + calm/burst leaves no rate for the calms: all requests lie within bursts."""
    scenario = open_traffic("bursty", burst={"factor": 4.0, "mean_burst_s": 5.0, "mean_calm_s": 15.0})
    ends_s, state = states(scenario, "bursts", (0, 1), 15.0, 5.0)
    times_s = asked(scenario, device=1)
    assert len(times_s) > 100
    assert (state[np.searchsorted(ends_s, times_s)] == 1).all()


def test_phones_with_common_bursts_have_them_at_the_same_time_but_ask_for_themselves():
    def of(whose):
        scenario = open_traffic("bursty", burst={"of": whose, "factor": 8.0, "mean_burst_s": 10.0, "mean_calm_s": 70.0})
        return [asked(scenario, device) for device in range(2)]

    def in_the_others_bursts(one, other):
        """Share of requests with another phone's request within 3 s."""
        return np.mean(np.abs(one[:, None] - other).min(axis=1) < 3.0)

    together, apart = of("cell"), of("device")
    assert not np.isin(together[0], together[1]).any()
    assert in_the_others_bursts(*together) > 0.9 > 0.5 > in_the_others_bursts(*apart)


def test_a_phones_bursts_hang_on_it_alone():
    few, many = open_traffic("bursty", devices=2), open_traffic("bursty", devices=9)
    for device in (0, 1):
        np.testing.assert_array_equal(asked(few, device), asked(many, device))
    assert not np.array_equal(asked(few, 0, replication=1), asked(few, 0))


# -- coming and going ---------------------------------------------------------------------------------------------

PRESENCE = {"mean_present_s": 10.0, "mean_absent_s": 15.0}


def test_phones_that_come_and_go_are_asked_what_they_would_be_anyway_while_they_are_there():
    scenario = open_traffic("poisson", presence=PRESENCE)
    anyway, times_s = asked(open_traffic("poisson")), asked(scenario)
    ends_s, away = states(scenario, "presence", (0, 0), 10.0, 15.0)
    there = away[np.searchsorted(ends_s, anyway)] == 0
    np.testing.assert_array_equal(times_s, anyway[there])
    assert 50 < there.sum() < len(anyway) - 50


def test_a_closed_loop_thinks_its_own_thinks_while_it_is_there():
    """The time that phones are on the cell between an answer and the next request is the n-th think, away or not."""
    traffic = {"devices": 4, "think_time_s": 2.0, "max_tokens": 5}
    policy = ready("slm", tokens=5)
    thinks_s = []
    for more in ({}, {"presence": PRESENCE}):
        scenario = cell(duration_s=300.0, traffic={**traffic, **more})
        requests = simulate(scenario, policy, 0).requests
        free_s = requests.groupby("device")["finished_s"].shift(fill_value=0.0)
        found = requests["arrived_s"] - free_s
        if more:
            for device in range(4):
                ends_s, away = states(scenario, "presence", (0, device), 10.0, 15.0)
                edges_s = np.concatenate([[0.0], ends_s])
                present_s = np.concatenate([[0.0], np.cumsum(np.diff(edges_s) * (away == 0))])
                mine = requests["device"] == device
                found[mine] = np.interp(requests["arrived_s"][mine], edges_s, present_s) - np.interp(
                    free_s[mine], edges_s, present_s
                )
        thinks_s.append(found.groupby(requests["device"]).apply(lambda each: each.reset_index(drop=True)))
    both = pd.concat(thinks_s, axis=1, join="inner").to_numpy()
    assert len(both) > 100
    np.testing.assert_allclose(both[:, 1], both[:, 0], rtol=1e-7, atol=1e-9)


def test_an_answer_that_was_begun_is_finished_while_its_phone_is_away():
    scenario = cell(duration_s=300.0, traffic={"devices": 4, "think_time_s": 2.0, "presence": PRESENCE})
    tokens = simulate(scenario, ready("slm"), 0).tokens.dropna(subset="committed_s")
    ends_s, away = states(scenario, "presence", (0, 0), 10.0, 15.0)
    committed_s = tokens.loc[tokens["device"] == 0, "committed_s"].to_numpy()
    share = np.mean(away[np.searchsorted(ends_s, committed_s)])
    assert 0.02 < share < 0.5


# -- what is wrong is told ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("traffic", "says"),
    [
        ({"kind": "bursti"}, "traffic.kind = 'bursti': must be one of closed.*did you mean 'bursty'"),
        ({"kind": "own:code"}, "only with --allow-plugins"),
        ({"kind": "poisson", "params": {"x": 1.0}}, "traffic.params of poisson: .*'x'; params allowed: none"),
        ({"kind": "replay"}, "kind = 'replay' needs a file"),
        ({"kind": "replay", "file": "f.csv", "presence": PRESENCE}, "presence doesn't go with kind = 'replay'"),
        ({"kind": "bursty", "burst": {"factor": 5.0}}, "factor = 5: bursts take 0.25 of the time, so at most 4"),
        ({"kind": "bursty", "burst": {"factr": 2.0}}, "unknown key 'traffic.burst.factr'.*did you mean 'factor'"),
        ({"presence": {"mean_present_s": 0.0, "mean_absent_s": 1.0}}, "mean_present_s = 0.0: must be greater than 0"),
        ({"kind": "bursty", "rate_per_s": 1e6}, "requests: up to"),
    ],
)
def test_wrong_traffic_is_told_before_the_first_event(traffic, says):
    with pytest.raises(ScenarioError, match=says):
        check_scenario(cell(traffic=traffic), [ready()])


# -- traffic of one's own -----------------------------------------------------------------------------------------

OWN = """
def every(scenario, rng, who, period_s=3.0):
    last_s = who.device - period_s

    def next_arrival(free_s):
        nonlocal last_s
        last_s += period_s
        return last_s

    return next_arrival
"""
WRONG = """
def back(scenario, rng):
    times = iter([3.0, 1.0])
    return lambda free_s: next(times)

def words(scenario, rng):
    return lambda free_s: "soon"

def nothing(scenario, rng):
    return None

def stuck(scenario, rng):
    return lambda free_s: 1.0
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_traffic.py").write_text(OWN, encoding="utf-8")
    (tmp_path / "wrong_traffic.py").write_text(WRONG, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("own")
def test_traffic_of_ones_own_runs_from_a_scenario_file(scenario_file: Path, tmp_path: Path) -> None:
    assert len(OWN.strip().splitlines()) <= 15
    own = {"traffic.kind": "own_traffic:every", "traffic.params": {"period_s": 2.0}}
    scenario = load(scenario_file, own)
    results = run(scenario, out=tmp_path / "run", jobs=1, allow_plugins=True)
    asked = results.requests.groupby(["policy", "replication", "device"], observed=True)["arrived_s"]
    for (_, _, device), arrived_s in asked:
        assert arrived_s.tolist() == np.arange(device, 12.0 + 1e-9, 2.0).tolist()
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Requests come as the user&#39;s own code says, own_traffic:every." in page
    assert "Arrivals are open" in page


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("back", "gave 1.0 as the time of a request after one at 3 s"),
        ("words", "gave 'soon' as the time of a request"),
        ("nothing", "returned None; it must return a function"),
        ("stuck", "more than 10,000 requests of one device at 1 s"),
    ],
)
def test_what_traffic_of_ones_own_gives_is_looked_at(kind, says):
    scenario = cell(traffic={"kind": f"wrong_traffic:{kind}", "devices": 1, "max_tokens": 2})
    with pytest.raises(SimulationError, match=says):
        simulate(scenario, ready(), 0, functions=with_own(scenario))


# -- every kind ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ARRIVALS)
def test_every_kind_says_what_it_is_and_where_it_comes_from(name):
    text = ARRIVALS[name].__doc__
    assert text.splitlines()[0].endswith(".")
    assert "Left out: " in text
    assert any(year in text for year in ("1967", "1975", "1991", "1993"))


@pytest.mark.parametrize("name", ARRIVALS)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_every_run_keeps_the_laws_repeats_itself_and_has_no_gaps(name, data, requests_file):
    """`simulate` refuses a run that breaks a law; classes, presence and any kind go together."""
    present = st.fixed_dictionaries({key: st.floats(0.1, 50) for key in PRESENCE})
    factor = data.draw(st.floats(1, 4))
    traffic = {
        "kind": name,
        "rate_per_s": data.draw(st.floats(0.01, 2)),
        "think_time_s": data.draw(st.floats(0, 3)),
        "max_tokens": data.draw(st.integers(1, 20)),
        "burst": {"of": data.draw(st.sampled_from(["cell", "device"])), "factor": factor, "mean_burst_s": 2.0}
        | {"mean_calm_s": (factor - 1) * 2.0 + data.draw(st.floats(0.1, 20))},
        "file": requests_file,
        "presence": data.draw(st.none() | present) if name != "replay" else None,
    }
    classes = [{"name": "a", "share": 0.5, "mean_snr_db": data.draw(st.floats(-5, 30))}, {"name": "b", "share": 0.5}]
    scenario = cell(
        seed=data.draw(st.integers(0, 1000)),
        traffic={**traffic, "devices": data.draw(st.integers(2, 6))},
        device={"power_w": 2.0, "radio": {"amplifier_efficiency": 0.3, "circuit_power_w": 0.1}},
        uplink={"snr_rule": data.draw(st.sampled_from(["per-hertz", "power-limited"]))}
        | {"allocator": data.draw(st.sampled_from(["equal-share", "tdma", "fdma", "proportional-fair"]))},
        device_class=data.draw(st.sampled_from([[], classes])),
        duration_s=6.0,
        warmup_s=1.0,
    )
    assert parse_scenario(scenario.model_dump(mode="json", exclude_none=True)) == scenario
    assert pickle.loads(pickle.dumps(scenario)) == scenario
    assert write_scenario(scenario)
    check_scenario(scenario, [ready()])
    records, again = (simulate(scenario, ready(), 0) for _ in range(2))
    for table in ("requests", "tokens", "stations"):
        pd.testing.assert_frame_equal(getattr(records, table), getattr(again, table), check_exact=True)
    groups = [who.name[0] for who in population(scenario)] if scenario.device_class else []
    found = replication_metrics(
        *records.tables, warmup_s=1.0, duration_s=6.0,
        devices=scenario.traffic.devices, slo={}, output_law=True, device_class=groups,
        powers=powers_of(scenario, [who.group for who in population(scenario)]),
    )  # fmt: skip
    due = ["token_throughput", "arrival_rate", "request_throughput", "uplink_utilisation", "requests_present"]
    due += ["token_delay_s.mean", "device_s", "energy_per_token_j"] if found["completed_tokens"] else []
    assert all(np.isfinite(found[metric]) for metric in due)
    for name in dict.fromkeys(groups):
        assert np.isfinite(found[f"token_throughput.class.{name}"])
