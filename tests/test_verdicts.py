"""Verdicts tell a trend from chance, and a cell that keeps up from one whose users mostly wait."""

import math
from functools import cache

import numpy as np
import pandas as pd
import pytest
from worlds import agrees, cell, ready

from uhlm_sim.analysis.measures.metrics import replication_metrics
from uhlm_sim.analysis.measures.verdicts import NEEDED, verdict, verdicts
from uhlm_sim.analysis.run import Terms
from uhlm_sim.cell.engine import simulate
from uhlm_sim.rng import stream


def judge(growth, rate, left, wait_s=(), whole_s=(), stations_s=(), *, window_s=100.0, open_arrivals=True):
    """Judge replications; tokens that take 1 s wait `stations_s` of it, for band and GPU alike."""
    metrics = [growth, rate, left, wait_s, whole_s, np.divide(stations_s, 2), np.divide(stations_s, 2)]
    metrics.append(np.ones(len(stations_s)))
    return verdict(dict(zip(NEEDED, metrics, strict=True)), window_s=window_s, open_arrivals=open_arrivals)


def slope(present):
    """Least squares over a unit of time, for each row."""
    t = np.linspace(-0.5, 0.5, present.shape[-1])
    return present @ t / (t @ t)


@pytest.mark.parametrize(("load", "overloaded"), [(0.6, False), (0.8, False), (1.3, True)])
@pytest.mark.parametrize("replications", [1, 2, 8])
def test_a_cell_is_overloaded_if_its_queue_grows_and_not_if_it_wanders(load, overloaded, replications):
    """Birth and death with one arrival a second, watched each quarter of a second from 200 s to 1,000 s."""
    window_s, step_s, experiments = 800.0, 0.25, 60
    rng = stream(1, "verdict", int(10 * load), replications)
    present = np.zeros((experiments, replications))
    path = []
    for _ in range(4000):
        present += rng.random(present.shape) < step_s
        present -= (rng.random(present.shape) < step_s / load) & (present > 0)
        path.append(present.copy())
    growth = slope(np.stack(path[800:], axis=-1)) / window_s
    words = [judge(g, np.ones(replications), p, window_s=window_s).word for g, p in zip(growth, present, strict=True)]
    wrong = sum((word == "OVERLOADED") != overloaded for word in words)
    assert wrong <= 3, "at most 1 % by chance: more than 3 of 60 has probability 0.003"


WARMUP_S, DURATION_S, PHONES, SERVICE_S, RUNS, REPLICATIONS = 200.0, 1000.0, 4, 1.0, 32, 4


def metrics_of(scenario, policy, number):
    records = simulate(scenario, policy, number)
    return replication_metrics(
        *records.tables, warmup_s=scenario.warmup_s, duration_s=scenario.duration_s,
        devices=scenario.traffic.devices, slo={}, output_law=True,
    )  # fmt: skip


@cache
def runs_at(load):
    """Return `RUNS` runs of four replications: phones that answer alone, in 1 s a request, as M/D/1 at this load."""
    scenario = cell(
        duration_s=DURATION_S,
        warmup_s=WARMUP_S,
        traffic={"kind": "poisson", "devices": PHONES, "rate_per_s": load / SERVICE_S, "max_tokens": 1},
        device={"slm_token_s": SERVICE_S, "slm_prefill_token_s": 0.0},
        policy=[{"kind": "slm"}],
    )
    policy = ready("slm", tokens=1)

    found = pd.DataFrame([metrics_of(scenario, policy, number) for number in range(RUNS * REPLICATIONS)])
    return [found[first : first + REPLICATIONS] for first in range(0, len(found), REPLICATIONS)]


def test_phones_that_answer_alone_wait_as_pollaczek_and_khinchine_say():
    """M/D/1: W = load S / (2 (1 - load)), half a second at a load of 1/2."""
    runs = pd.concat(runs_at(0.5))
    assert agrees(0.5, runs["phone_wait_s"])
    assert agrees(1.5, runs["e2e_s.mean"])


@pytest.mark.parametrize(("load", "word"), [(0.5, "STABLE"), (0.95, "BACKLOGGED"), (1.1, "OVERLOADED")])
def test_each_load_has_its_word(load, word):
    """Of 32 runs at each load one may be wrong: chance calls 1 % of the stable ones growing."""
    words = [verdict(run, window_s=DURATION_S - WARMUP_S, open_arrivals=True).word for run in runs_at(load)]
    assert words.count(word) >= RUNS - 1, words


@pytest.mark.parametrize(("rate_per_s", "word"), [(0.03, "STABLE"), (0.055, "BACKLOGGED"), (0.08, "OVERLOADED")])
def test_the_queue_for_a_gpu_counts_as_that_for_a_phone_does(rate_per_s, word):
    """20 phones, answers of 4 tokens, one GPU that takes 0.2 s for each alone: busy 0.48, 0.88 and 1.28 of the time."""
    scenario = cell(
        duration_s=500.0,
        warmup_s=100.0,
        traffic={"kind": "poisson", "devices": 20, "rate_per_s": rate_per_s, "max_tokens": 4},
        base_station={"max_batch": 1, "service": {"c_s": 0.2}},
    )
    found = pd.DataFrame([metrics_of(scenario, ready("hlm", tokens=4), number) for number in range(4)])
    assert found["bs_utilisation"].mean() == pytest.approx(min(20 * rate_per_s * 4 * 0.2, 1.0), rel=0.05)
    assert verdict(found, window_s=400.0, open_arrivals=True).word == word
    assert (found["phone_wait_s"] < found["e2e_s.mean"] / 2).all() or word == "OVERLOADED", "it isn't the phone's queue"


STEADY = [0.0] * 3, [1.0] * 3, [2] * 3  # no growth, an arrival a second, and two requests left


def test_the_words_give_the_evidence():
    assert judge(*STEADY, [6.5] * 3, [8.5] * 3, [0.25] * 3).words == (
        "Most of what users wait is queue: of 8.5 s a request waits 6.5 s for its phone and 0.5 s for band and GPUs; "
        "requests present grew by 0/s at 1 arrivals/s; 2 requests a replication were unfinished at the end."
    )
    stable = judge(*STEADY, [0.5] * 3, [1.5] * 3, [0.0] * 3)
    assert stable.words.startswith("No sign of overload: of 1.5 s a request waits 0.5 s for its phone and 0 s for")


def test_a_request_that_mostly_queues_is_backlog_wherever_it_queues():
    phone = [1.0, 1.2, 1.1]
    assert judge(*STEADY, phone, [2.1, 2.3, 2.1], [0.0] * 3).word == "BACKLOGGED", "1.1 of 2.17 s"
    assert judge(*STEADY, phone, [2.3, 2.5, 2.3], [0.0] * 3).word == "STABLE", "1.1 of 2.37 s"
    assert judge(*STEADY, phone, [2.3, 2.5, 2.3], [0.1] * 3).word == "BACKLOGGED", "1.1 of 2.37 s, and 0.13 s"
    assert judge(*STEADY, [0.0] * 3, [2.0] * 3, [0.51] * 3).word == "BACKLOGGED"
    assert judge(*STEADY, [0.0] * 3, [2.0] * 3, [0.49] * 3).word == "STABLE"
    assert judge(*STEADY, [math.nan] * 3, [2.0] * 3, [0.9] * 3).word == "STABLE", "nothing was answered"
    assert judge(*STEADY).word == "STABLE", "a run of before there was a phone_wait_s"


def test_growth_that_is_small_but_no_chance_is_backlog():
    rest = [1.0] * 3, [2] * 3, [0.1] * 3, [2.0] * 3, [0.0] * 3
    sure, unsure = [0.010, 0.011, 0.012], [-0.01, 0.01, 0.03]
    found = judge(sure, *rest)
    assert found.word == "BACKLOGGED"
    assert "by little but more than chance" in found.words
    assert judge(unsure, *rest).word == "STABLE"
    assert judge(np.multiply(3, sure), *rest).word == "OVERLOADED"


def test_the_gravest_word_is_said():
    """OVERLOADED before CUT SHORT before BACKLOGGED before STABLE."""
    queue, quick = ([9.0] * 3, [10.0] * 3, [0.0] * 3), ([0.0] * 3, [1.0] * 3, [0.0] * 3)
    most, few = ([1.0] * 3, [60] * 3), ([1.0] * 3, [3] * 3)
    assert judge([0.5] * 3, *most, *queue).word == "OVERLOADED"
    assert judge([0.0] * 3, *most, *queue).word == "CUT SHORT"
    assert judge([0.0] * 3, *few, *queue).word == "BACKLOGGED"
    assert judge([0.0] * 3, *few, *quick).word == "STABLE"


def test_where_nobody_asked_nothing_is_said():
    assert judge([0.0] * 3, [0.0] * 3, [0] * 3).word == ""
    assert judge([], [], []).word == ""


def test_a_closed_loop_is_never_overloaded_but_says_what_was_cut():
    closed = judge([1.0] * 3, [2.0] * 3, [12, 14, 13], [0.0] * 3, [1.0] * 3, [0.9] * 3, open_arrivals=False)
    assert closed.word == ""
    assert closed.words == "13 requests a replication were unfinished at the end."
    assert judge([0.0], [1.0], [0], open_arrivals=False).words == "all requests were finished."


def test_a_run_that_most_requests_outlast_says_so():
    short = judge([0.0] * 3, [0.4] * 3, [36, 36, 36], open_arrivals=False)
    assert short.word == "CUT SHORT"
    assert "against 40 that arrived" in short.words
    assert judge([0.0] * 3, [0.4] * 3, [8, 9, 9], open_arrivals=False).word == ""


def test_verdicts_are_given_per_point_and_policy():
    rows = [
        (rate, policy, replication, metric, value)
        for rate in (1.0, 2.0)
        for policy in ("hlm", "slm")
        for replication in range(4)
        for metric, value in (
            ("backlog_growth", (rate - 1.0) * (policy == "hlm") + 0.001 * (-1) ** replication),
            ("arrival_rate", rate),
            ("unfinished_requests", 7),
            ("token_throughput", 50.0),
            ("e2e_s.mean", 4.0),
            ("uplink_wait_s", 0.0),
            ("bs_wait_s", 0.1),
            ("token_delay_s.mean", 1.0),
        )
    ]
    table = pd.DataFrame(rows, columns=["traffic.rate_per_s", "policy", "replication", "metric", "value"])
    table["point"] = table["traffic.rate_per_s"].astype(int)
    is_open = {1: Terms(0.0, 100.0, True), 2: Terms(0.0, 100.0, True)}
    judged = verdicts(table, is_open)
    assert list(judged["verdict"]) == ["STABLE", "STABLE", "OVERLOADED", "STABLE"]
    assert "can't keep up: requests present grew by 1/s at 2 arrivals/s" in judged["words"][2]
    waiting = table.assign(metric=table["metric"].replace("token_throughput", "phone_wait_s"))
    waiting.loc[waiting["metric"] == "phone_wait_s", "value"] = 3.0
    judged = verdicts(waiting, is_open)
    assert list(judged["verdict"]) == ["BACKLOGGED", "BACKLOGGED", "OVERLOADED", "BACKLOGGED"]
    judged = verdicts(waiting, is_open | {1: Terms(0.0, 20.0, False)})
    assert list(judged["verdict"]) == ["CUT SHORT", "CUT SHORT", "OVERLOADED", "BACKLOGGED"], "each by its own window"
