"""What the GPUs take when: the memory's books, a contract for all rules and orders, and those of one's own."""

import pickle
import re
from dataclasses import replace
from itertools import product

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from worlds import cell, check_with_own, ready, with_own

from uhlm_sim.analysis.measures.metrics import replication_metrics
from uhlm_sim.cell.checks import check_scenario
from uhlm_sim.cell.engine import simulate
from uhlm_sim.cell.gpus.batching import BATCH_RULES, ORDERS
from uhlm_sim.cell.gpus.setup import kv_tokens
from uhlm_sim.cell.laws import check_records
from uhlm_sim.errors import ScenarioError, SimulationError
from uhlm_sim.experiment import run
from uhlm_sim.scenario_file import read_scenario

# The laws, and the metrics of the memory.


def busy_cell(**station):
    station = {"llm": "llama2-7b-a40", "max_batch": 4, **station}
    return cell(
        traffic={"devices": 8, "think_time_s": 0.2, "max_tokens": 30},
        tokens={"kind": "trace", "path": "made-up", "context_tokens": 100},
        uplink={"bandwidth_hz": 50e6},
        base_station={key: value for key, value in station.items() if value is not None},
        device={"slm": "phone-1b-4bit"},
        duration_s=12.0,
        warmup_s=3.0,
    )


def altered(records, table, column, where, by):
    changed = getattr(records, table).copy()
    rows = changed.index[changed.eval(where)]
    changed.loc[rows[len(rows) // 2], column] += by
    return replace(records, **{table: changed})


@pytest.mark.parametrize(
    ("table", "column", "where", "by", "law"),
    [
        ("stations", "busy_s", "station == 'kv_cache' and at_s == 12", 50.0, "memory in use"),
        ("stations", "servers", "station == 'kv_cache' and at_s == 12", -1100, "never overfull"),
        ("rounds", "recomputed_tokens", "llm_tokens > 1 and committed_s < 10", 1, "all that its request had"),
    ],
)
def test_the_memorys_books_are_held_against_the_tokens(table, column, where, by, law):
    records = simulate(busy_cell(kv_tokens=1200), ready(), 0)
    with pytest.raises(SimulationError, match=law):
        check_records(altered(records, table, column, where, by))


def test_the_memorys_metrics_are_sums_over_the_tokens():
    """Half of what eight requests need: the LLM works on what it has lost, most of the time."""
    scenario = busy_cell(kv_tokens=600)
    records = simulate(scenario, ready(), 0)
    metrics = replication_metrics(*records.tables, warmup_s=3.0, duration_s=12.0, devices=8, slo={}, output_law=True)
    rounds = records.rounds.query("3 <= committed_s <= 12")
    assert metrics["recomputed_share"] == rounds["recomputed_tokens"].sum() / rounds["llm_tokens"].sum() > 0.5
    assert 0.5 < metrics["kv_cache_usage"] <= 1.0
    again = records.rounds.query("recomputed_tokens > 0")
    assert len(again) <= records.stations.query("station == 'kv_cache'")["departures"].max()
    unlimited = simulate(busy_cell(), ready(), 0)
    assert set(unlimited.stations["station"]) == {"uplink", "base_station"}
    assert len(unlimited.tokens) > len(records.tokens)


def test_an_answer_that_has_begun_goes_on_until_it_ends():
    """Eight phones want two places: an answer of the LLM that has a place keeps it, as in a serving engine."""
    waits_s = {}
    for order in ("oldest-request", "first-come"):
        records = simulate(busy_cell(max_batch=2, order=order), ready("llm"), 0)
        later = records.rounds.query("first_position > 0")
        waits_s[order] = later["bs_wait_s"].mean()
        assert (records.rounds.query("first_position == 0")["bs_wait_s"] > 0).mean() > 0.5
    assert waits_s["oldest-request"] == pytest.approx(0.0, abs=1e-9)
    assert waits_s["first-come"] > 0.02


def test_of_requests_that_came_at_once_the_same_ones_go_on():
    """Eight phones ask at 0 s for two places, and memory holds six answers: who is in it stays until its answer ends.

    In order of arrival at the base station each token would come when the memory has lost what it needs.
    """
    recomputed = {}
    for order in ("oldest-request", "first-come"):
        scenario = busy_cell(kv_tokens=900, max_batch=2, order=order)
        at_once = scenario.model_copy(update={"traffic": scenario.traffic.model_copy(update={"think_time_s": 0.0})})
        recomputed[order] = simulate(at_once, ready(), 0).rounds["recomputed_tokens"].sum()
    assert recomputed["oldest-request"] == 0 < recomputed["first-come"]


def test_the_memory_of_a_presets_gpu_is_simulated_where_its_phones_could_fill_it():
    """0.9 of 48 GB less 13.48 GB of weights are 56,686 positions: 500 phones of up to 150 can fill them, 8 can't."""
    few, many = busy_cell(), busy_cell()
    many = many.model_copy(update={"traffic": many.traffic.model_copy(update={"devices": 500})})
    assert few.base_station.kv_capacity_tokens == int((0.9 * 48e9 - 2 * 6.74e9) // 524288) == 56686
    assert kv_tokens(few, ready(), None) is None
    assert kv_tokens(many, ready(), None) == 56686
    assert kv_tokens(busy_cell(gpus=2, queue="join-shortest"), ready(), None) == 56686, "a request stays where it began"
    limited = simulate(busy_cell(kv_tokens=56686), ready(), 0)
    pd.testing.assert_frame_equal(simulate(few, ready(), 0).rounds, limited.rounds)


def test_gpu_time_is_shared_out_exactly_where_prompts_are_split():
    rounds = simulate(busy_cell(chunk_tokens=32), ready(), 0).rounds.dropna(subset="committed_s")
    first = rounds[rounds["first_position"] == 0]
    assert (first["steps"] >= (first["llm_tokens"] / 32)).all()
    assert (rounds["steps"] * rounds["batch_tokens"] / rounds["batch_jobs"]).sum() == pytest.approx(
        rounds["llm_tokens"].sum(), rel=0.05
    )  # but for those that began before the end and aren't here
    assert (rounds["batch_tokens"] <= 32 + 1e-9).all()


# The contract.


@pytest.mark.parametrize("functions", [BATCH_RULES, ORDERS], ids=["rules", "orders"])
def test_a_rule_says_its_equation_its_source_and_what_it_leaves_out_and_travels(functions):
    for function in functions.values():
        assert re.search(r"^\s+(start|key) = ", function.__doc__, flags=re.MULTILINE)
        assert re.search(r"\b(19|20)\d\d\b", function.__doc__)
        assert "Left out: " in function.__doc__
        assert pickle.loads(pickle.dumps(function)) is function


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_every_run_keeps_the_laws_and_repeats_itself(data):
    """`simulate` refuses a run that breaks a law."""
    rule, order = data.draw(st.sampled_from([*product(BATCH_RULES, ORDERS)]))
    devices, gpus = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 3))
    queue = data.draw(st.sampled_from(["shared", "join-shortest"]))
    together = -(-devices // (gpus if queue == "join-shortest" else 1))
    max_batch = data.draw(st.integers(1, 8))
    kind = data.draw(st.sampled_from(["hlm", "u-hlm", "llm"]))
    scenario = cell(
        seed=data.draw(st.integers(0, 1000)),
        traffic={"devices": devices, "think_time_s": data.draw(st.floats(0, 1)), "max_tokens": 12},
        tokens={"kind": "trace", "path": "made-up", "context_tokens": data.draw(st.sampled_from([0, 60]))},
        uplink={"bandwidth_hz": 1e8},
        base_station={
            "service": {"c_s": data.draw(st.floats(0.001, 0.05)), "s_s_per_token": 1e-4},
            "gpus": gpus, "queue": queue, "max_batch": max_batch,
            "batch_rule": rule, "min_batch": data.draw(st.integers(1, min(together, max_batch))),
            "max_wait_s": data.draw(st.floats(0.001, 0.2)), "order": order,
            "chunk_tokens": data.draw(st.sampled_from([None, 8, 25])),
            "kv_tokens": data.draw(st.sampled_from([None, 81, 150, 10_000])),
        },
        slo={"ttft_s": 0.5, "tpot_s": 0.1},
        duration_s=3.0,
        warmup_s=1.0,
    )  # fmt: skip
    policy = ready(kind, **({"skip_rate": 0.4} if kind == "u-hlm" else {}))
    check_scenario(scenario, [policy])
    records, again = (simulate(scenario, policy, 0) for _ in range(2))
    for one, other in ((records.tokens, again.tokens), (records.stations, again.stations)):
        pd.testing.assert_frame_equal(one, other, check_exact=True)
    done = records.rounds[records.rounds["committed_s"].notna() & (records.rounds["decision"] == "send")]
    legs = ["bs_wait_s", "verify_s", "batch_jobs", "batch_tokens", "steps", "llm_tokens", "recomputed_tokens"]
    assert done[legs].notna().all(axis=None)
    assert (done[["bs_wait_s", "recomputed_tokens"]] >= 0).all(axis=None)
    assert (done["batch_jobs"].between(1 - 1e-9, max_batch + 1e-9)).all()


# A rule and an order of one's own.

OWN = """

def even(waiting, oldest_s, patience_s, max_batch):
    assert max_batch == 6
    return oldest_s if waiting % 2 == 0 else oldest_s + patience_s

def dear_first(job, weight):
    return -weight * job.llm_tokens + job.request.uploads

def nonsense(waiting, oldest_s):
    return "soon"
"""
FILE = """
name = "own"
replications = 1
duration_s = 8.0
warmup_s = 1.0
traffic = {{ devices = 6, think_time_s = 0.2, max_tokens = 12 }}
tokens = {{ kind = "trace", path = "{trace}" }}
[base_station]
max_batch = 6
batch_rule = "own_serving:even"
batch_params = {{ patience_s = 0.03 }}
order = "own_serving:dear_first"
order_params = {{ weight = 2.0 }}
[[policy]]
kind = "hlm"
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_serving.py").write_text(OWN, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_a_rule_and_an_order_of_ones_own_run_from_a_scenario_file(own, trace_file):
    """Batches are even, or their oldest job has waited 30 ms."""
    file = own / "own.toml"
    file.write_text(FILE.format(trace=trace_file), encoding="utf-8")
    tokens = run(read_scenario(file), jobs=1, allow_plugins=True).tokens
    assert tokens is not None
    scenario = read_scenario(file)
    whole = simulate(scenario, ready(), 0, functions=with_own(scenario)).tokens.dropna(subset="committed_s")
    start_s = whole[["started_s", "device_s", "uplink_wait_s", "airtime_s", "bs_wait_s"]].sum(axis=1).round(9)
    waited_s = whole["bs_wait_s"].groupby(start_s).max()
    jobs = whole["batch_jobs"].groupby(start_s).first()
    assert {1, 2, 4} <= set(jobs)
    assert (waited_s[jobs % 2 == 1] >= 0.03 - 1e-9).all()


@pytest.mark.usefixtures("own")
def test_a_rule_that_gives_no_number_is_refused_by_name():
    scenario = busy_cell(batch_rule="own_serving:nonsense")
    with pytest.raises(SimulationError, match="own_serving:nonsense: gave 'soon'"):
        simulate(scenario, ready(), 0, functions=with_own(scenario))


@pytest.mark.parametrize(
    ("station", "told"),
    [
        ({"batch_rule": "sise"}, "base_station.batch_rule = 'sise'.*did you mean 'size'"),
        ({"batch_rule": "size"}, "base_station.batch_rule = 'size': needs base_station.min_batch"),
        ({"batch_rule": "wait", "min_batch": 2}, "'wait': needs base_station.max_wait_s"),
        ({"batch_rule": "size", "min_batch": 9, "max_batch": 16}, r"min_batch = 9: must be at most 8: of 8 phones"),
        (
            {"batch_rule": "size", "min_batch": 4, "gpus": 3, "queue": "join-shortest"},
            "must be at most 3: of 8 phones at 3 queues",
        ),
        ({"batch_rule": "size", "min_batch": 9, "max_batch": 8}, "min_batch = 9 is above max_batch = 8"),
        (
            {"batch_rule": "size", "min_batch": 2, "batch_params": {"min_batch": 50}},
            "'min_batch' comes from base_station.min_batch",
        ),
        ({"order": "earliest-deadline"}, "base_station.order = 'earliest-deadline': needs slo.ttft_s"),
        ({"order_params": {"weight": 1.0}}, "base_station.order_params of oldest-request: .*weight"),
        ({"order": "own_serving:dear_first"}, "missing a required argument: 'weight'; params allowed: weight"),
        ({"chunk_tokens": 3}, "chunk_tokens = 3 is below max_batch = 4"),
        ({"kv_tokens": 138}, "remembers 138 positions, and a request of hlm up to 139"),
        ({"kv_bytes": 5e7}, "base_station.kv_bytes: the LLM remembers 95 positions"),
        ({"kv_tokens": 1000, "kv_bytes": 1e9}, "give one"),
        ({"llm": None, "service": {"c_s": 0.1}, "kv_bytes": 1e9}, "kv_bytes_per_token"),
        ({"kv_bytes": 1e30}, r"kv_bytes = 1e\+30 has room for .* positions of 524288 bytes; must be at most 1e\+12"),
        ({"kv_tokens": 1000, "sync": "free"}, 'sync = "piggyback"'),
    ],
)
@pytest.mark.usefixtures("own")
def test_what_can_not_be_is_told_before_the_first_event(station, told):
    with pytest.raises(ScenarioError, match=told):
        check_with_own(busy_cell(**station))


def test_a_batch_of_more_phones_than_ever_send_is_told_before_the_first_event():
    """Of six phones four are always under slm: no more than two jobs can wait."""
    classes = [{"name": "on", "count": 2}, {"name": "off", "count": 4, "policy": "slm"}]
    scenario = cell(
        traffic={"think_time_s": 0.0, "max_tokens": 12},
        device_class=classes,
        base_station={"batch_rule": "size", "min_batch": 3},
        policy=[{"kind": "hlm"}, {"kind": "slm"}],
    )
    with pytest.raises(ScenarioError, match="min_batch = 3: must be at most 2: of 2 phones that send"):
        check_scenario(scenario, [ready(), ready("slm")])


def test_a_rule_that_waits_no_longer_than_it_may_takes_more_than_there_are():
    check_scenario(busy_cell(batch_rule="wait", min_batch=9, max_wait_s=0.01, max_batch=16), [ready()])


def test_memory_in_bytes_is_as_many_positions_as_fit():
    """Llama-2-7B in FP16: keys and values of 32 layers of 4,096 numbers of 2 bytes."""
    assert busy_cell(kv_bytes=40e9).base_station.kv_capacity_tokens == int(40e9 // (2 * 32 * 4096 * 2))
