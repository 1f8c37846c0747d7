"""Means and paired ratios over replications, each with its 95 % interval.

Replications are independent and share their world between policies, so they are the sample: samples inside
one run are not independent, and intervals from them don't cover.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from uhlm_sim.analysis.measures.metrics import unit_of

Floats = NDArray[np.float64]

LEVEL = 0.95
RATIO = ".ratio_to_first"
NOTHING = 1e-9  # in SI units: a mean below it, such as waits of 1e-17 s, is rounding


def student_t(values: ArrayLike, level: float = LEVEL) -> tuple[Floats, Floats, Floats, NDArray[np.int64]]:
    """Return mean, low, high and the number of values along the last axis, nulls left out.

    mean -+ t(n - 1) s / sqrt(n): exact for normal values, close for means of thousands of tokens. With one
    value the mean stands alone and the interval is NaN; with none the mean is NaN too.
    """
    x = np.asarray(values, dtype=np.float64)
    mean, count = _mean(x)
    half = _quantile(count, level) * np.sqrt(_scatter(x, x) / np.maximum(count, 1))
    return mean, mean - half, mean + half, count


def paired_ratio(
    numerator: ArrayLike, denominator: ArrayLike, level: float = LEVEL
) -> tuple[Floats, Floats, Floats, NDArray[np.int64]]:
    """Return mean(x)/mean(y), low, high and the number of pairs along the last axis, by Fieller's theorem.

    The values r that the paired t test of x - r y does not reject, i.e. with n (mean x - r mean y)^2 <= t^2
    s^2(x - r y), form the interval (Fieller 1954). It is exact for normal pairs at any n, uses the
    correlation that the common world gives, and needs no linearisation, where the delta method and the
    jackknife cover too little at 8 to 10 replications when y varies. It is the ratio of means, not the mean
    of ratios: the latter is biased and weighs an idle replication like a busy one. Writing r = mean x / mean
    y + d turns the bounds into the roots of a d^2 + 2 b d + c with c <= 0 without cancellation, so x = y
    gives exactly [1, 1].

    A pair with a null is left out. With one pair, or where mean y can't be told from 0 (then the set of r
    isn't an interval), low and high are NaN; the ratio is NaN where mean y is NOTHING.
    """
    x, y = np.broadcast_arrays(np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64))
    both = ~(np.isnan(x) | np.isnan(y))
    x, y = np.where(both, x, np.nan), np.where(both, y, np.nan)
    mean_x, count = _mean(x)
    mean_y, _ = _mean(y)
    ratio = np.full(mean_x.shape, np.nan)
    np.divide(mean_x, mean_y, out=ratio, where=np.abs(mean_y) > NOTHING)

    rest = x - mean_x[..., None] - ratio[..., None] * (y - mean_y[..., None])
    weight = _quantile(count, level) ** 2 / np.maximum(count, 1)
    a = mean_y**2 - weight * _scatter(y, y)
    b = weight * _scatter(rest, y)
    c = -weight * _scatter(rest, rest)
    proper = a > 0
    root = np.sqrt(np.maximum(b**2 - a * c, 0.0))
    # Exactly proportional replications leave nothing uncertain, however much they vary together.
    low = np.where((c == 0) & (count > 1), 0.0, np.nan)
    high = low.copy()
    np.divide(-b - root, a, out=low, where=proper)
    np.divide(-b + root, a, out=high, where=proper)
    return ratio, ratio + low, ratio + high, count


def summarise(replications: pd.DataFrame, first_policy: str) -> pd.DataFrame:
    """Return the table of `summary.csv`: sweep columns..., then one row per policy and metric.

    Columns after the sweep's: policy, metric, unit, mean, ci95_low, ci95_high, replications.

    `replications` is tidy: policy, replication, metric, value; a column `point` and any others are the
    sweep's, and rows of one policy at one point are summarised together. `point` only numbers the points and
    isn't kept. Order is that of appearance. A metric's mean and interval are over the replications in which
    it has a value; their number is in `replications`. After its metrics each policy has its
    `<metric>.ratio_to_first` rows, paired by replication with `first_policy` at the same point, where that
    ratio exists.
    """
    sweep = [name for name in replications.columns if name not in ("policy", "replication", "metric", "value")]
    keys = [*sweep, "policy"]
    row = replications.groupby(keys, sort=False, dropna=False, observed=True).ngroup().to_numpy()
    metric, metrics = pd.factorize(replications["metric"])
    replication, numbers = pd.factorize(replications["replication"])
    groups = replications[keys].drop_duplicates(ignore_index=True)
    values = np.full((len(groups), len(metrics), len(numbers)), np.nan)
    values[row, metric, replication] = replications["value"].to_numpy(dtype=np.float64, na_value=np.nan)
    seen = np.zeros(values.shape[:2], dtype=bool)
    seen[row, metric] = True

    first = np.full_like(values, np.nan)
    is_first = (groups["policy"] == first_policy).to_numpy()
    points = (
        groups.groupby(sweep, sort=False, dropna=False, observed=True).ngroup()
        if sweep
        else pd.Series(0, index=groups.index)
    )
    for point in points.unique():
        here = (points == point).to_numpy()
        if (here & is_first).any():
            first[here] = values[here & is_first][0]

    plain = _tidy(groups, [str(name) for name in metrics], seen, student_t(values))
    ratios = paired_ratio(values, first)
    compared = _tidy(groups, [f"{name}{RATIO}" for name in metrics], seen & ~np.isnan(ratios[0]), ratios)
    table = pd.concat([plain, compared]).sort_index(kind="stable").reset_index(drop=True)
    return table.drop(columns="point", errors="ignore")


def _tidy(
    groups: pd.DataFrame,
    names: list[str],
    kept: NDArray[np.bool_],
    estimate: tuple[Floats, Floats, Floats, NDArray[np.int64]],
) -> pd.DataFrame:
    """Lay (group, metric) arrays out as rows, indexed by the group's number."""
    group, column = np.nonzero(kept)
    table = groups.iloc[group].set_axis(group, axis=0)
    table["metric"] = [names[j] for j in column]
    table["unit"] = ["1" if names[j].endswith(RATIO) else unit_of(names[j]) for j in column]
    for name, array in zip(("mean", "ci95_low", "ci95_high", "replications"), estimate, strict=True):
        table[name] = array[group, column]
    return table


def write_table(table: pd.DataFrame, path: Path, source: str = "") -> None:
    """Write results as CSV, nine significant digits, nulls empty: same table, same bytes.

    `source` marks every row of what no model was run for, in a last column of that name.
    """
    table = table.assign(source=source) if source else table
    table.to_csv(path, index=False, float_format="%.9g", lineterminator="\n")


def _quantile(count: NDArray[np.int64], level: float) -> Floats:
    freedom = np.where(count > 1, count - 1, np.nan)
    return np.asarray(stdtrit(freedom, (1 + level) / 2), dtype=np.float64)


def _mean(x: Floats) -> tuple[Floats, NDArray[np.int64]]:
    count = (~np.isnan(x)).sum(axis=-1)
    mean = np.full(count.shape, np.nan)
    np.divide(np.nansum(x, axis=-1), count, out=mean, where=count > 0)
    return mean, count


def _scatter(x: Floats, y: Floats) -> Floats:
    """Return the sample covariance along the last axis over the places where both have a value."""
    mean_x, count = _mean(x)
    mean_y, _ = _mean(y)
    product = np.nansum((x - mean_x[..., None]) * (y - mean_y[..., None]), axis=-1)
    covariance = np.full(count.shape, np.nan)
    np.divide(product, count - 1, out=covariance, where=count > 1)
    return covariance
