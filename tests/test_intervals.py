"""Intervals cover what they say, shown by simulating it; the summary has the columns of its contract."""

import math

import numpy as np
import pandas as pd
import pytest

from uhlm_sim.analysis.measures.intervals import (
    paired_ratio,
    student_t,
    summarise,
    write_table,
)
from uhlm_sim.rng import stream

EXPERIMENTS = 4000
# What 4,000 experiments can show of a nominal 95 %: three standard errors.
TOLERANCE = 3 * math.sqrt(0.95 * 0.05 / EXPERIMENTS)


def covered(truth, low, high):
    return np.mean((low <= truth) & (truth <= high))


@pytest.mark.parametrize("replications", [3, 8, 30])
def test_the_mean_of_normal_replications_is_covered_95_times_in_100(replications):
    values = stream(1, "mean", replications).normal(5.0, 2.0, (EXPERIMENTS, replications))
    _, low, high, _ = student_t(values)
    assert covered(5.0, low, high) == pytest.approx(0.95, abs=TOLERANCE)


@pytest.mark.parametrize("replications", [8, 10])
@pytest.mark.parametrize("spread", [0.02, 0.3])
@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_a_ratio_of_normal_pairs_is_covered_95_times_in_100(replications, spread, correlation):
    rng = stream(1, "ratio", replications, int(100 * spread), int(10 * correlation))
    y, other = rng.standard_normal((2, EXPERIMENTS, replications))
    x = correlation * y + math.sqrt(1 - correlation**2) * other
    _, low, high, _ = paired_ratio(2.5 * (1 + spread * x), 1 + spread * y)
    assert covered(2.5, low, high) == pytest.approx(0.95, abs=TOLERANCE)


@pytest.mark.parametrize("replications", [8, 10])
def test_a_ratio_of_skewed_pairs_is_covered_93_times_in_100(replications):
    """Replications as the simulator has them: a common world, log-normal, 20 % up and down."""
    world, x, y = 0.2 * stream(1, "skewed", replications).standard_normal((3, EXPERIMENTS, replications))
    _, low, high, _ = paired_ratio(1.8 * np.exp(world + 0.5 * x), np.exp(world + 0.5 * y))
    assert covered(1.8, low, high) >= 0.93


def test_pairing_by_a_common_world_narrows_the_ratio():
    world, x, y = stream(1, "pairing").standard_normal((3, 8))
    slow, fast = 1 + 0.1 * world + 0.01 * x, 2 + 0.2 * world + 0.01 * y
    _, low, high, _ = paired_ratio(fast, slow)
    _, mixed_low, mixed_high, _ = paired_ratio(fast, slow[::-1])
    assert high - low < (mixed_high - mixed_low) / 3


def test_two_replications_by_hand():
    mean, low, high, count = student_t([1.0, 3.0])
    assert (mean, count) == (2.0, 2)
    # The 97.5 % quantile of t with one degree of freedom is tan(0.475 pi), the standard error 1.
    assert high == pytest.approx(2.0 + math.tan(0.475 * math.pi))
    assert low == pytest.approx(2.0 - math.tan(0.475 * math.pi))


def test_fieller_bounds_are_the_ratios_that_a_paired_t_test_just_rejects():
    x, y = np.array([2.0, 2.4, 1.9, 2.2]), np.array([1.0, 1.3, 0.9, 1.2])
    ratio, *bounds, _ = paired_ratio(x, y)
    assert ratio == pytest.approx(x.mean() / y.mean())
    for bound in bounds:
        rest = x - bound * y
        assert abs(rest.mean()) / (rest.std(ddof=1) / 2) == pytest.approx(3.182446305), "t(3), 97.5 %"


def test_nothing_varies_nothing_is_uncertain():
    assert [float(v) for v in paired_ratio([3.0] * 4, [1.5] * 4)] == [2.0, 2.0, 2.0, 4]
    same = stream(1, "same").random(8)
    assert [float(v) for v in paired_ratio(same, same)] == [1.0, 1.0, 1.0, 8]


def test_one_replication_has_a_mean_and_no_interval():
    for estimate in (student_t([4.0]), paired_ratio([4.0], [1.0])):
        mean, low, high, count = estimate
        assert (mean, count) == (4.0, 1)
        assert math.isnan(low)
        assert math.isnan(high)


def test_a_denominator_that_may_be_zero_has_no_interval():
    ratio, low, high, _ = paired_ratio([1.0, 2.0, 3.0], [-1.0, 0.5, 2.0])
    assert ratio == pytest.approx(2 / 0.5)
    assert math.isnan(low)
    assert math.isnan(high)
    assert math.isnan(paired_ratio([1.0, 2.0], [0.0, 0.0])[0])


def test_a_ratio_to_what_is_only_rounding_is_null():
    """Waits of a phone that never waits are of 1e-17 s."""
    waits_s, rounding_s = [0.1, 0.2, 0.3], [1e-17, -2e-17, 3e-16]
    for numerator in (waits_s, rounding_s):
        assert math.isnan(paired_ratio(numerator, rounding_s)[0])
    assert paired_ratio(np.multiply(1e-6, waits_s), np.multiply(2e-6, waits_s))[0] == pytest.approx(0.5)


def tidy(rows, *sweep):
    return pd.DataFrame(rows, columns=[*sweep, "policy", "replication", "metric", "value"])


def test_the_summary_has_the_columns_of_its_contract():
    table = summarise(
        tidy(
            [
                ("hlm", 0, "token_throughput", 100.0),
                ("hlm", 1, "token_throughput", 120.0),
                ("u-hlm(0.43)", 0, "token_throughput", 200.0),
                ("u-hlm(0.43)", 1, "token_throughput", 240.0),
                ("u-hlm(0.43)", 0, "rejection_risk", math.nan),
            ]
        ),
        "hlm",
    )
    assert list(table.columns) == [
        "policy",
        "metric",
        "unit",
        "mean",
        "ci95_low",
        "ci95_high",
        "replications",
    ]
    assert list(zip(table["policy"], table["metric"], table["unit"], table["mean"], strict=True))[:4] == [
        ("hlm", "token_throughput", "tokens/s", 110.0),
        ("hlm", "token_throughput.ratio_to_first", "1", 1.0),
        ("u-hlm(0.43)", "token_throughput", "tokens/s", 220.0),
        ("u-hlm(0.43)", "rejection_risk", "1", pytest.approx(math.nan, nan_ok=True)),
    ]
    ratio = table.iloc[-1]
    assert ratio["metric"] == "token_throughput.ratio_to_first"
    assert (ratio["mean"], ratio["ci95_low"], ratio["ci95_high"], ratio["replications"]) == (2, 2, 2, 2)


def test_each_point_of_a_sweep_is_compared_with_the_first_policy_there():
    rows = [
        (point, 10.0 * point, policy, replication, "token_throughput", value * (point + 1))
        for point in (0, 1)
        for policy, value in (("hlm", 50.0), ("slm", 150.0 + 50 * point))
        for replication in (0, 1)
    ]
    table = summarise(tidy(rows, "point", "channel.mean_snr_db"), "hlm")
    assert table.columns[0] == "channel.mean_snr_db"
    ratios = table[table["metric"].str.endswith("ratio_to_first") & (table["policy"] == "slm")]
    assert dict(zip(ratios["channel.mean_snr_db"], ratios["mean"], strict=True)) == {0.0: 3.0, 10.0: 4.0}


def test_a_policy_whose_first_one_is_missing_has_no_ratio():
    table = summarise(tidy([("slm", 0, "token_throughput", 1.0)]), "hlm")
    assert list(table["metric"]) == ["token_throughput"]


def test_policies_may_come_as_categories():
    rows = tidy([("b", 0, "token_throughput", 1.0), ("a", 0, "token_throughput", 2.0)])
    rows["policy"] = pd.Categorical(rows["policy"], categories=["a", "b", "unused"])
    assert list(summarise(rows, "b")["policy"]) == ["b", "b", "a", "a"]


def test_nine_significant_digits_are_written(tmp_path):
    write_table(pd.DataFrame({"metric": ["x", "y"], "mean": [1 / 3, math.nan]}), tmp_path / "summary.csv")
    assert (tmp_path / "summary.csv").read_text() == "metric,mean\nx,0.333333333\ny,\n"
