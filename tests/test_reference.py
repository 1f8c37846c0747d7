"""The committed reference results are still what the program gives: a shortened run of each agrees with them."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t, ttest_ind_from_stats

from uhlm_sim import load, run

REFERENCE = Path(__file__).parent.parent / "results" / "reference"
# Means over tokens and time, which a shorter run estimates as well: none of whole requests.
METRICS = ["token_throughput", "token_throughput_per_device", "skip_rate", "distribution_error", "uplink_utilisation"]
SHORT = {"duration_s": 40.0, "replications": 6, "output.tokens": False}
POINTS = {
    "quickstart": {},
    "users_sweep": {"traffic.devices": 10},
    "threshold_frontier": {"policy.u-hlm.threshold": 0.6},
}


@pytest.mark.parametrize("name", POINTS)
def test_a_shortened_run_in_other_worlds_agrees_with_the_reference(name: str) -> None:
    point = POINTS[name]
    results = run(load(name, {**SHORT, "sweep": {}, **point}, seed=7), jobs=1)
    reference = pd.read_csv(REFERENCE / f"{name}.csv")
    for key, value in point.items():
        reference = reference[reference[key] == value]
    both = reference.merge(results.summary, on=["policy", "metric"], suffixes=("", "_short"))
    both = both[both["metric"].isin(METRICS)]
    assert set(both["policy"]) == set(results.policies)
    assert set(both["metric"]) == set(METRICS)

    def sample(suffix: str) -> tuple[Any, Any, Any]:
        names = ("mean", "ci95_low", "ci95_high", "replications")
        mean, low, high, count = (both[f"{name}{suffix}"].to_numpy() for name in names)
        # A share that is the same in all replications has no spread: rounding is all that may differ.
        spread = (high - low) / 2 * np.sqrt(count) / t.ppf(0.975, count - 1)
        return mean, np.maximum(spread, 1e-9), count

    # Welch's t test of each row; all together fail by chance in one world of a hundred, and this one world is fixed.
    chance = ttest_ind_from_stats(*sample(""), *sample("_short"), equal_var=False).pvalue
    differ = both[chance < 0.01 / len(both)]
    assert differ.empty, differ.to_string()
    # It would see a fault: were all phones a tenth faster, the clearest row would be far beyond chance.
    mean, spread, count = sample("")
    shifted = ttest_ind_from_stats(mean * 1.1, spread, count, *sample("_short"), equal_var=False).pvalue
    assert shifted[both["metric"] == "token_throughput_per_device"].min() < 0.01 / len(both)
