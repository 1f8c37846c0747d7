"""What the GPUs take when: timelines to draw by hand, a contract for all rules and orders, and those of one's own."""

import pickle
import re
from dataclasses import replace
from functools import partial
from itertools import product

import numpy as np
import pandas as pd
import pytest
import simpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from worlds import cell, check_with_own, ready, with_own

from uhlm_sim.analysis.measures.metrics import replication_metrics
from uhlm_sim.cell.checks import check_scenario
from uhlm_sim.cell.engine import simulate
from uhlm_sim.cell.gpus.base_station import BaseStation
from uhlm_sim.cell.gpus.batching import BATCH_RULES, ORDERS, Ordered
from uhlm_sim.cell.gpus.chunks import pieces
from uhlm_sim.cell.jobs import Job, Request, Wakeup
from uhlm_sim.cell.laws import check_records
from uhlm_sim.errors import ScenarioError, SimulationError
from uhlm_sim.experiment import run
from uhlm_sim.scenario_file import read_scenario


def serve(arrivals, service_s=float, *, ends=(), **station):
    """Submit (time, device, tokens, request or nothing) in order; end requests of `ends`, (time, device).

    Returns (device, start, end) of each job in the order of the ends, the jobs by arrival, and the station.
    """
    env, log, jobs = simpy.Environment(), [], []
    base_station = BaseStation(env, service_s=service_s, **station)

    def later(at_s, does):
        yield env.timeout(at_s)
        does()

    def submit(device, tokens, request=None, position=0):
        job = Job(device, 0.0, tokens, env.now, Wakeup(env), request=request, position=position)
        job.done.callbacks.append(lambda _event: log.append((device, job.verify_started_s, env.now)))
        jobs.append(job)
        base_station.submit(job)

    for at_s, *job in arrivals:
        env.process(later(at_s, partial(submit, *job)))
    for at_s, device in ends:
        env.process(later(at_s, partial(base_station.end_request, device)))
    env.run()
    base_station.settle()
    return log, jobs, base_station


# Batch rules.


def test_a_least_size_is_waited_for_however_long_it_takes():
    rule = partial(BATCH_RULES["size"], min_batch=3)
    log, _, _ = serve([(0, 0, 1), (1, 1, 1), (5, 2, 1), (5.5, 3, 1)], lambda _n: 2.0, max_batch=8, rule=rule)
    assert log == [(0, 5.0, 7.0), (1, 5.0, 7.0), (2, 5.0, 7.0)]


def test_the_oldest_job_waits_for_company_until_its_patience_ends():
    """Two that wait from 0 go at 2; the third of the next batch comes at 4, before 3 + 2; the last goes alone."""
    rule = partial(BATCH_RULES["wait"], min_batch=3, max_wait_s=2.0)
    arrivals = [(0, 0, 1), (1, 1, 1), (3, 2, 1), (3.5, 3, 1), (4, 4, 1), (6, 5, 1)]
    log, _, _ = serve(arrivals, lambda _n: 0.5, max_batch=8, rule=rule)
    assert log == [(0, 2, 2.5), (1, 2, 2.5), (2, 4, 4.5), (3, 4, 4.5), (4, 4, 4.5), (5, 8, 8.5)]


def test_patience_that_ends_while_the_gpu_is_busy_is_over_when_it_is_free():
    rule = partial(BATCH_RULES["wait"], min_batch=2, max_wait_s=1.0)
    log, _, _ = serve([(0, 0, 1), (2, 1, 1)], lambda _n: 3.0, max_batch=8, rule=rule)
    assert log == [(0, 1.0, 4.0), (1, 4.0, 7.0)]


def test_who_comes_at_the_very_end_of_the_oldest_ones_patience_goes_along():
    rule = partial(BATCH_RULES["wait"], min_batch=5, max_wait_s=1.0)
    log, _, _ = serve([(0, 0, 1), (1, 1, 1)], lambda _n: 1.0, max_batch=8, rule=rule)
    assert log == [(0, 1.0, 2.0), (1, 1.0, 2.0)]


def test_under_another_order_it_is_still_the_oldest_whose_patience_counts():
    """At 0.5 the short job comes first in the queue, but the long one has waited since 0."""
    rule = partial(BATCH_RULES["wait"], min_batch=3, max_wait_s=1.0)
    log, _, _ = serve([(0, 0, 5), (0.5, 1, 1)], rule=rule, order=ORDERS["shortest-work"])
    assert log == [(1, 1.0, 2.0), (0, 2.0, 7.0)]


# Orders.


def test_the_shortest_work_goes_first_and_interrupts_nobody():
    log, _, _ = serve([(0, 0, 5), (1, 1, 4), (2, 2, 1), (3, 3, 1)], order=ORDERS["shortest-work"])
    assert log == [(0, 0, 5), (2, 5, 6), (3, 6, 7), (1, 7, 11)]


def asked(arrived_s, first_token_s=np.nan, uploads=1):
    request = Request(arrived_s)
    request.first_token_s, request.uploads = first_token_s, uploads
    return request


def test_the_earliest_deadline_is_of_ttft_for_the_first_token_and_of_tpot_for_the_others():
    """Due at 0 + 4, at 1 + 3 x 0.5 and at 2 + 1 x 0.5, behind one that keeps the GPU until 3."""
    order = partial(ORDERS["earliest-deadline"], ttft_s=4.0, tpot_s=0.5)
    waiting = [(1, 1, 1, asked(0.0), 0), (1, 2, 1, asked(0.0, 1.0), 3), (1, 3, 1, asked(0.0, 2.0), 1)]
    log, _, _ = serve([(0, 0, 3, asked(0.0), 0), *waiting], order=order)
    assert log == [(0, 0, 3), (2, 3, 4), (3, 4, 5), (1, 5, 6)]


def test_whoever_has_sent_least_goes_first():
    waiting = [(1, 1, 1, asked(0.0, uploads=7)), (1, 2, 1, asked(0.0, uploads=2)), (1, 3, 1, asked(0.0, uploads=2))]
    log, _, _ = serve([(0, 0, 2, asked(0.0)), *waiting], order=ORDERS["fewest-uploads"])
    assert log == [(0, 0, 2), (2, 2, 3), (3, 3, 4), (1, 4, 5)]


def test_a_queue_by_a_key_is_a_stable_sort():
    jobs = [Job(number, 0.0, tokens, 0.0, None) for number, tokens in enumerate([3, 1, 2, 1, 3, 2])]
    queue = Ordered(ORDERS["shortest-work"])
    for job in jobs:
        queue.append(job)
    assert {job.device for job in queue} == set(range(6))
    assert queue[0].device == 1
    assert [queue.popleft().device for _ in range(len(queue))] == [1, 3, 2, 5, 0, 4]


# Queues of their own.


def test_a_job_joins_the_queue_with_the_fewest_jobs_of_equals_the_first():
    """0 and 1 take a GPU each, 2 ties and joins 0, 3 comes when 1 is gone, 4 finds two and one."""
    arrivals = [(0, 0, 5), (0.5, 1, 2), (1, 2, 1), (3, 3, 4), (4, 4, 1)]
    log, _, station = serve(arrivals, gpus=2, join_shortest=True)
    assert log == [(1, 0.5, 2.5), (0, 0, 5), (2, 5, 6), (3, 3, 7), (4, 7, 8)]
    assert station.counters.busy_s == 13.0


# Chunks.


def test_a_step_is_dealt_out_in_equal_parts_and_the_rest_in_order():
    assert pieces([100], 64) == [64]
    assert pieces([1, 100, 2, 100], 64) == [1, 45, 2, 16]
    assert pieces([1, 20, 2, 100], 64) == [1, 20, 2, 41]
    assert pieces([3, 3], 64) == [3, 3]
    assert pieces([9] * 5, 5) == [1] * 5


def test_a_long_job_is_split_and_a_short_one_goes_along():
    """Of 6 tokens 4 go by t = 4; the short one joins, 2 and 1 go by 7. GPU time 4 + 3/2 and 3/2, tokens likewise."""
    log, (long, short), station = serve([(0, 0, 6), (1, 1, 1)], max_batch=2, chunk_tokens=4)
    assert log == [(0, 0, 7), (1, 4, 7)]
    assert (long.steps, short.steps) == (2, 1)
    assert (short.batch_jobs, short.batch_tokens) == (2, 3)
    assert 7 / long.batch_jobs == pytest.approx(5.5)
    assert 2 * long.batch_tokens / long.batch_jobs == pytest.approx(5.5)
    assert (long.llm_tokens, station.counters.busy_s) == (6, 7.0)


def test_a_gpu_with_jobs_begun_goes_on_whatever_the_rule_says():
    """The rule asks for two; once a long one has begun with one, a third goes along without a fourth."""
    rule = partial(BATCH_RULES["size"], min_batch=2)
    arrivals = [(0, 0, 7), (0, 1, 1), (1, 2, 2)]
    log, _, _ = serve(arrivals, max_batch=3, rule=rule, chunk_tokens=4)
    assert log == [(1, 0, 4), (2, 4, 8), (0, 0, 10)]


# Memory.


def test_the_least_recently_used_request_makes_way_and_is_processed_again():
    """Of 10 positions 0 takes 6; 1 needs 5, so 0 goes; its next token costs 7 of which 6 again, so 1 goes."""
    log, jobs, station = serve([(0, 0, 6), (7, 1, 5), (20, 0, 1), (40, 1, 1)], kv_tokens=10)
    assert log == [(0, 0, 6), (1, 7, 12), (0, 20, 27), (1, 40, 46)]
    assert [(job.llm_tokens, job.recomputed_tokens) for job in jobs] == [(6, 0), (5, 0), (7, 6), (6, 5)]
    assert (station.kv_counters.arrivals, station.kv_counters.departures) == (4, 3)
    assert station.kv_counters.busy_s == 6 * 7 + 5 * 13 + 7 * 20 + 6 * 6


def test_who_does_not_fit_beside_those_in_service_waits_and_nobody_overtakes():
    log, _, _ = serve([(0, 0, 6), (1, 1, 5), (2, 2, 1)], gpus=2, kv_tokens=5)
    assert log == [(0, 0, 6), (2, 6, 7), (1, 6, 11)]


def test_a_request_that_ends_gives_its_memory_back_at_once():
    """0 has ended when 1 comes, so nothing is evicted: 8 of 10 and, after the end at 9, none."""
    _, jobs, station = serve([(0, 0, 6), (8, 1, 8)], ends=[(7, 0), (17, 1)], kv_tokens=10)
    assert [job.recomputed_tokens for job in jobs] == [0, 0]
    assert station.kv_counters.departures == 0
    assert station.kv_counters.busy_s == 6 * 7 + 8 * 9


def test_with_memory_of_their_own_requests_stay_with_the_gpu_they_joined():
    """Device 0 comes back to GPU 0, though that has a job and GPU 1 has none; device 2 goes where it is shorter."""
    arrivals = [(0, 0, 1), (2, 1, 1), (2.5, 2, 1), (4, 1, 9), (5, 0, 1)]
    log, _, _ = serve(arrivals, gpus=2, join_shortest=True, kv_tokens=100)
    assert log == [(0, 0, 1), (1, 2, 3), (2, 2.5, 3.5), (1, 4, 13), (0, 13, 14)]


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
        ("tokens", "recomputed_tokens", "llm_tokens > 1 and committed_s < 10", 1, "all that its request had"),
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
    tables = records.requests, records.tokens, records.stations
    found = replication_metrics(*tables, warmup_s=3.0, duration_s=12.0, devices=8, slo={}, output_law=True)
    tokens = records.tokens.query("3 <= committed_s <= 12")
    assert found["recomputed_share"] == tokens["recomputed_tokens"].sum() / tokens["llm_tokens"].sum() > 0.5
    assert 0.5 < found["kv_cache_usage"] <= 1.0
    again = records.tokens.query("recomputed_tokens > 0")
    assert len(again) <= records.stations.query("station == 'kv_cache'")["departures"].max()
    unlimited = simulate(busy_cell(), ready(), 0)
    assert set(unlimited.stations["station"]) == {"uplink", "base_station"}
    assert len(unlimited.tokens) > len(records.tokens)


def test_gpu_time_is_shared_out_exactly_where_prompts_are_split():
    tokens = simulate(busy_cell(chunk_tokens=32), ready(), 0).tokens.dropna(subset="committed_s")
    first = tokens[tokens["position"] == 0]
    assert (first["steps"] >= (first["llm_tokens"] / 32)).all()
    assert (tokens["steps"] * tokens["batch_tokens"] / tokens["batch_jobs"]).sum() == pytest.approx(
        tokens["llm_tokens"].sum(), rel=0.05
    )  # but for those that began before the end and aren't here
    assert (tokens["batch_tokens"] <= 32 + 1e-9).all()


# The contract.


@pytest.mark.parametrize("functions", [BATCH_RULES, ORDERS], ids=["rules", "orders"])
def test_a_rule_says_its_equation_its_source_and_what_it_leaves_out_and_travels(functions):
    for function in functions.values():
        assert re.search(r"^\s+(start|key) = ", function.__doc__, flags=re.MULTILINE)
        assert re.search(r"\b(19|20)\d\d\b", function.__doc__)
        assert "Left out: " in function.__doc__
        assert pickle.loads(pickle.dumps(function)) is function


@pytest.mark.parametrize(("rule", "order"), [*product(BATCH_RULES, ORDERS)])
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_every_run_keeps_the_laws_and_repeats_itself(rule, order, data):
    """`simulate` refuses a run that breaks a law."""
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
    done = records.tokens[records.tokens["committed_s"].notna() & (records.tokens["decision"] == "send")]
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
    whole = simulate(scenario, ready(), 0, found=with_own(scenario)).tokens.dropna(subset="committed_s")
    start_s = whole[["started_s", "device_s", "uplink_wait_s", "airtime_s", "bs_wait_s"]].sum(axis=1).round(9)
    waited_s = whole["bs_wait_s"].groupby(start_s).max()
    jobs = whole["batch_jobs"].groupby(start_s).first()
    assert {1, 2, 4} <= set(jobs)
    assert (waited_s[jobs % 2 == 1] >= 0.03 - 1e-9).all()


@pytest.mark.usefixtures("own")
def test_a_rule_that_gives_no_number_is_refused_by_name():
    scenario = busy_cell(batch_rule="own_serving:nonsense")
    with pytest.raises(SimulationError, match="own_serving:nonsense: gave 'soon'"):
        simulate(scenario, ready(), 0, found=with_own(scenario))


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
        ({"order_params": {"weight": 1.0}}, "base_station.order_params of first-come: .*weight"),
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
