"""The proposed warm-up is as long as a known transient, none where there is none, and absent where nothing settles."""

import math

import numpy as np
import pandas as pd
import pytest
from worlds import cell, ready

from uhlm_sim.analysis.measures.warmup import RUN_PARTS, mser, propose_warmup
from uhlm_sim.cell.engine import simulate
from uhlm_sim.rng import stream

RUNS = 200


def settling(start, forgets_in, name):
    """Return runs of AR(1) around 0 with unit scatter that begin at `start` and forget by a factor e in so many steps.

    A mean of eight replications each, as the proposal is made of.
    """
    noise = stream(1, "settling", name).standard_normal((RUNS, 8, RUN_PARTS))
    keep = math.exp(-1 / forgets_in)
    value, path = np.full((RUNS, 8), float(start)) if start else noise[..., 0], []
    for step in range(RUN_PARTS):
        value = keep * value + math.sqrt(1 - keep**2) * noise[..., step]
        path.append(value.mean(axis=1))
    return np.stack(path, axis=-1)


def by_hand(batches):
    """Return the cut that the definition gives, looked up term by term."""
    tails = [batches[cut:] for cut in range(len(batches) - 25 + 1)]
    return int(np.argmin([tail.var() / len(tail) for tail in tails]))


def test_the_cut_is_the_one_that_minimises_the_standard_error_of_the_rest():
    for path in settling(10.0, 3.0, "by hand")[:20]:
        assert mser(path + 100.0) == by_hand(path)


@pytest.mark.parametrize("forgets_in", [1.0, 3.0])
def test_a_transient_is_cut_until_it_is_lost_in_the_noise(forgets_in):
    """From 30 standard deviations: lost where 30 e^(-t / tau) sinks to the scatter of a mean of eight, 1/sqrt 8."""
    lost = forgets_in * math.log(30 * math.sqrt(8))
    cuts = np.array([mser(path) for path in settling(30.0, forgets_in, "lost")])
    assert np.median(cuts) == pytest.approx(lost, abs=2.0)
    assert np.mean(cuts < lost / 2) < 0.05, "too little is seldom cut"
    assert np.mean(cuts > RUN_PARTS / 2) < 0.1, "and seldom is a steady state missed"


def test_a_series_without_a_transient_is_hardly_cut():
    cuts = np.array([mser(path) for path in settling(0.0, 0.5, "steady")])
    assert np.median(cuts) <= 1
    assert np.quantile(cuts, 0.9) <= RUN_PARTS / 20
    assert mser(np.full(RUN_PARTS, 7.0)) == 0
    assert mser(7.0 + 1e-13 * stream(1, "rounding").random(RUN_PARTS)) == 0


def test_a_growing_series_has_no_steady_part():
    growing = settling(0.0, 1.0, "growing") + 0.1 * np.arange(RUN_PARTS)
    assert all(mser(path) > RUN_PARTS / 2 for path in growing)


def table(*requests):
    rows = [(0, "hlm", 0, arrived_s, finished_s) for arrived_s, finished_s in requests]
    return pd.DataFrame(rows, columns=["point", "policy", "replication", "arrived_s", "finished_s"])


def test_what_is_judged_is_the_number_of_requests_present():
    """Two for the first 10 s of 100, then one: cut 10 s. One more that never ends changes nothing."""
    requests = table((0.0, 10.0), *((float(t), t + 1.0) for t in range(100)))
    assert propose_warmup(requests, warmup_s=20.0, duration_s=100.0)["proposed_s"].item() == 10.0
    longer = pd.concat([requests, table((0.0, math.nan))])
    assert propose_warmup(longer, warmup_s=20.0, duration_s=100.0)["proposed_s"].item() == 10.0


def test_the_reason_is_given():
    requests = table((0.0, 10.0), *((float(t), t + 1.0) for t in range(100)))
    covered, short, none = (
        propose_warmup(rows, warmup_s=warmup_s, duration_s=100.0)
        for rows, warmup_s in (
            (requests, 20.0),
            (requests, 5.0),
            (table(*((float(t), math.nan) for t in range(100))), 20.0),
        )
    )
    assert list(covered.columns) == ["point", "policy", "proposed_s", "words"]
    assert covered["words"].item() == "MSER-5 would cut 10 s; the 20 s that are cut cover it."
    assert short["words"].item() == "MSER-5 would cut 10 s and only 5 s are cut: raise warmup_s."
    assert math.isnan(none["proposed_s"].item())
    assert "no steady state" in none["words"].item()


def crowd(present_at_0):
    """Return eight runs of 1,000 s of M/M/infinity: 20 requests a second that stay 20 s each, exponentially."""
    runs = []
    for number in range(8):
        rng = stream(1, "crowd", number)
        arrived_s = np.concatenate([np.zeros(present_at_0), rng.uniform(0.0, 1000.0, rng.poisson(20_000))])
        finished_s = arrived_s + rng.exponential(20.0, len(arrived_s))
        finished_s[finished_s > 1000.0] = np.nan
        runs.append(pd.DataFrame({"replication": number, "arrived_s": arrived_s, "finished_s": finished_s}))
    return pd.concat(runs).assign(point=0, policy="hlm")


def test_requests_that_begin_empty_settle_as_theory_says():
    """N(t) = 400 (1 - e^(-t / 20 s)): the rest is lost in the scatter of eight Poisson runs at 20 ln sqrt(8 x 400)."""
    lost_s = 20.0 * math.log(math.sqrt(8 * 400))
    empty = propose_warmup(crowd(0), warmup_s=20.0, duration_s=1000.0)
    assert empty["proposed_s"].item() == pytest.approx(lost_s, rel=0.4)
    assert "raise warmup_s" in empty["words"].item()
    assert propose_warmup(crowd(400), warmup_s=20.0, duration_s=1000.0)["proposed_s"].item() <= 20.0


def requests_of(**changes):
    scenario = cell(
        warmup_s=0.0, device={"slm_token_s": 0.7, "slm_prefill_token_s": 0.0}, policy=[{"kind": "slm"}], **changes
    )
    return pd.concat(
        [
            simulate(scenario, ready("slm", label, tokens=1), n).requests.assign(point=0, policy=label, replication=n)
            for label in ("b", "a")
            for n in range(3)
        ]
    )


def test_an_overloaded_cell_has_no_warm_up():
    requests = requests_of(
        duration_s=300.0,
        traffic={"kind": "poisson", "devices": 5, "rate_per_s": 2.0, "max_tokens": 1},
    )
    found = propose_warmup(requests, warmup_s=20.0, duration_s=300.0)
    assert list(found["policy"]) == ["b", "a"], "in their order"
    assert found["proposed_s"].isna().all()


def test_phones_that_never_think_are_in_step_from_the_start():
    requests = requests_of(
        duration_s=60.0,
        traffic={"devices": 5, "think_time_s": 0.0, "max_tokens": 1},
    )
    assert (propose_warmup(requests, warmup_s=20.0, duration_s=60.0)["proposed_s"] == 0.0).all()
