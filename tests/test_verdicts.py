"""Verdicts tell a trend from chance, and a cell that keeps up from one whose users mostly wait."""

import math
from functools import cache

import numpy as np
import pandas as pd
import pytest
from worlds import agrees, cell, ready

from uhlm_sim.analysis.metrics import replication_metrics
from uhlm_sim.analysis.verdicts import NEEDED, verdict, verdicts
from uhlm_sim.cell.engine import simulate
from uhlm_sim.rng import stream


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
    words = [
        verdict(g, np.ones(replications), p, window_s=window_s, open_arrivals=True).word
        for g, p in zip(growth, present, strict=True)
    ]
    wrong = sum((word == "OVERLOADED") != overloaded for word in words)
    assert wrong <= 3, "at most 1 % by chance: more than 3 of 60 has probability 0.003"


WARMUP_S, DURATION_S, PHONES, SERVICE_S, RUNS, REPLICATIONS = 200.0, 1000.0, 4, 1.0, 32, 4


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

    def measure(number):
        records = simulate(scenario, policy, number)
        return replication_metrics(
            records.requests, records.tokens, records.stations,
            warmup_s=WARMUP_S, duration_s=DURATION_S, devices=PHONES, slo={}, output_law=True,
        )  # fmt: skip

    found = pd.DataFrame([measure(number) for number in range(RUNS * REPLICATIONS)])
    return [found[first : first + REPLICATIONS] for first in range(0, len(found), REPLICATIONS)]


def judge(run):
    return verdict(*(run[name] for name in NEEDED), window_s=DURATION_S - WARMUP_S, open_arrivals=True)


def test_phones_that_answer_alone_wait_as_pollaczek_and_khinchine_say():
    """M/D/1: W = load S / (2 (1 - load)), half a second at a load of 1/2."""
    runs = pd.concat(runs_at(0.5))
    assert agrees(0.5, runs["phone_wait_s"])
    assert agrees(1.5, runs["e2e_s.mean"])


@pytest.mark.parametrize(("load", "word"), [(0.5, "STABLE"), (0.95, "BACKLOGGED"), (1.1, "OVERLOADED")])
def test_each_load_has_its_word(load, word):
    """Of 32 runs at each load one may be wrong: chance calls 1 % of the stable ones growing."""
    words = [judge(run).word for run in runs_at(load)]
    assert words.count(word) >= RUNS - 1, words


WINDOW = {"window_s": 100.0, "open_arrivals": True}


def test_the_words_give_the_evidence():
    steady = [0.0] * 3, [1.0] * 3, [2] * 3
    assert verdict(*steady, [7.0] * 3, [8.5] * 3, **WINDOW).words == (
        "Most of what users wait is queue: a request waits 7 s for its phone, then 1.5 s for its answer; "
        "requests present grew by 0/s at 1 arrivals/s; 2 requests a replication were unfinished at the end."
    )
    assert verdict(*steady, [0.5] * 3, [1.5] * 3, **WINDOW).words.startswith(
        "No sign of overload: a request waits 0.5 s"
    )


def test_waiting_longer_than_being_answered_is_backlog():
    steady = ([0.0] * 3, [1.0] * 3, [2] * 3)
    assert verdict(*steady, [1.0, 1.2, 1.1], [2.1, 2.3, 2.1], **WINDOW).word == "BACKLOGGED", "1.1 s, then 1.07 s"
    assert verdict(*steady, [1.0, 1.2, 1.1], [2.3, 2.5, 2.3], **WINDOW).word == "STABLE", "1.1 s, then 1.27 s"
    assert verdict(*steady, [math.nan] * 3, [2.0] * 3, **WINDOW).word == "STABLE"
    assert verdict(*steady, **WINDOW).word == "STABLE", "a run of before there was a phone_wait_s"


def test_growth_that_is_small_but_no_chance_is_backlog():
    waits = ([0.1] * 3, [2.0] * 3)
    sure, unsure = [0.010, 0.011, 0.012], [-0.01, 0.01, 0.03]
    found = verdict(sure, [1.0] * 3, [2] * 3, *waits, **WINDOW)
    assert found.word == "BACKLOGGED"
    assert "by little but more than chance" in found.words
    assert verdict(unsure, [1.0] * 3, [2] * 3, *waits, **WINDOW).word == "STABLE"
    assert verdict(np.multiply(3, sure), [1.0] * 3, [2] * 3, *waits, **WINDOW).word == "OVERLOADED"


def test_the_gravest_word_is_said():
    """OVERLOADED before CUT SHORT before BACKLOGGED before STABLE."""
    queue, quick, most, few = ([9.0] * 3, [10.0] * 3), ([0.0] * 3, [1.0] * 3), [60] * 3, [3] * 3
    assert verdict([0.5] * 3, [1.0] * 3, most, *queue, **WINDOW).word == "OVERLOADED"
    assert verdict([0.0] * 3, [1.0] * 3, most, *queue, **WINDOW).word == "CUT SHORT"
    assert verdict([0.0] * 3, [1.0] * 3, few, *queue, **WINDOW).word == "BACKLOGGED"
    assert verdict([0.0] * 3, [1.0] * 3, few, *quick, **WINDOW).word == "STABLE"


def test_where_nobody_asked_nothing_is_said():
    assert verdict([0.0] * 3, [0.0] * 3, [0] * 3, **WINDOW).word == ""
    assert verdict([], [], [], **WINDOW).word == ""


def test_a_closed_loop_is_never_overloaded_but_says_what_was_cut():
    closed = verdict([1.0] * 3, [2.0] * 3, [12, 14, 13], [0.0] * 3, [1.0] * 3, window_s=100.0, open_arrivals=False)
    assert closed.word == ""
    assert closed.words == "13 requests a replication were unfinished at the end."
    assert verdict([0.0], [1.0], [0], window_s=100.0, open_arrivals=False).words == "all requests were finished."


def test_a_run_that_most_requests_outlast_says_so():
    short = verdict([0.0] * 3, [0.4] * 3, [36, 36, 36], window_s=100.0, open_arrivals=False)
    assert short.word == "CUT SHORT"
    assert "against 40 that arrived" in short.words
    assert verdict([0.0] * 3, [0.4] * 3, [8, 9, 9], window_s=100.0, open_arrivals=False).word == ""


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
        )
    ]
    table = pd.DataFrame(rows, columns=["traffic.rate_per_s", "policy", "replication", "metric", "value"])
    judged = verdicts(table, window_s=100.0, open_arrivals=True)
    assert list(judged["verdict"]) == ["STABLE", "STABLE", "OVERLOADED", "STABLE"]
    assert "can't keep up: requests present grew by 1/s at 2 arrivals/s" in judged["words"][2]
    waiting = table.assign(metric=table["metric"].replace("token_throughput", "phone_wait_s"))
    waiting.loc[waiting["metric"] == "phone_wait_s", "value"] = 3.0
    judged = verdicts(waiting, window_s=100.0, open_arrivals=True)
    assert list(judged["verdict"]) == ["BACKLOGGED", "BACKLOGGED", "OVERLOADED", "BACKLOGGED"]
    assert list(verdicts(waiting, window_s=100.0, open_arrivals=False)["verdict"]) == [""] * 4
