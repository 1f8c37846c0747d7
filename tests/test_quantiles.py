"""Percentiles of latencies are those of the requests of all replications, and their intervals cover."""

import numpy as np
import pytest
from made_up_run import run as made_up

from uhlm_sim.analysis.measures.intervals import paired_ratio, student_t
from uhlm_sim.analysis.measures.quantiles import linearised
from uhlm_sim.experiment import run
from uhlm_sim.rng import stream
from uhlm_sim.scenario_file import load

EXPERIMENTS, REPLICATIONS, REQUESTS = 300, 8, 120
DEVIATE = {95: 1.6448536, 99: 2.3263479}  # of the standard normal law


def latencies(experiment, scale, replications=REPLICATIONS):
    """Log-normal latencies of replications that differ: a common world, as two policies meet it."""
    rng = stream(1, "latencies", experiment)
    world = 0.05 * rng.standard_normal((replications, 1))
    own = stream(2, "latencies", experiment, int(10 * scale)).standard_normal((replications, REQUESTS))
    return list(scale * np.exp(world + 0.4 * own))


@pytest.mark.parametrize("rank", [95, 99])
def test_a_percentile_and_its_ratio_are_covered_92_times_in_100_without_bias(rank):
    truth = np.exp(np.hypot(0.4, 0.05) * DEVIATE[rank])
    estimates, covered, ratio_covered = [], [], []
    for experiment in range(EXPERIMENTS):
        first, second = (linearised(latencies(experiment, scale), rank) for scale in (1.0, 1.5))
        mean, low, high, _ = student_t(first)
        estimates.append(float(mean))
        covered.append(low <= truth <= high)
        _, low, high, _ = paired_ratio(second, first)
        ratio_covered.append(low <= 1.5 <= high)
    assert np.mean(estimates) == pytest.approx(truth, rel=0.02)
    assert min(np.mean(covered), np.mean(ratio_covered)) >= 0.92


def test_the_mean_of_linearised_values_is_the_percentile_of_all():
    samples = [np.array([1.0, 5.0]), np.array([]), np.array([2.0, 3.0, 9.0])]
    values = linearised(samples, 50)
    assert np.nanmean(values) == pytest.approx(3.0)
    assert np.isnan(values).tolist() == [False, True, False]
    assert np.all(np.isfinite(values[[0, 2]]))
    assert linearised(samples[:1], 50) == pytest.approx(3.0), "one replication has its own"


def test_a_run_gives_the_percentile_of_the_requests_of_all_its_replications():
    results = made_up(replications=4)
    requests = results.requests[results.requests["policy"] == "hlm"]
    e2e_s = requests["finished_s"] - requests["arrived_s"]
    assert results.mean("hlm", "e2e_s.p90").mean == pytest.approx(np.percentile(e2e_s.dropna(), 90))


def test_a_precision_is_met_by_the_percentile_that_the_summary_tells(scenario_file, monkeypatch):
    settings = {"duration_s": 8.0, "policy": [{"kind": "hlm"}, {"kind": "slm"}]}
    scenario = load(scenario_file, settings | {"precision": {"metric": "e2e_s.p90", "relative": 0.9}})
    looked_at = []

    def look(values, *_target):
        looked_at.append(values)
        return 0

    monkeypatch.setattr("uhlm_sim.experiment.more_replications", look)
    summary = run(scenario, jobs=1).summary.set_index(["policy", "metric"])
    assert looked_at[0].mean().to_dict() == pytest.approx(
        {name: summary.loc[(name, "e2e_s.p90"), "mean"] for name in ("hlm", "slm")}
    )
