"""Claims about the model, and the tests that compare simulation with theory."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from uhlm_sim.errors import SimulationError
from uhlm_sim.rng import stream

LEVEL = 0.95
EXACT = 1e-9
WIDEST = 0.2


@dataclass(frozen=True)
class Trial:
    """The inputs of a check: random streams of its own, and how much to simulate (1: quick)."""

    name: str
    seed: int
    size: int

    def rng(self, *name: str | int) -> np.random.Generator:
        """Return this claim's generator for a name."""
        return stream(self.seed, "validate", self.name, *name)


@dataclass(frozen=True)
class Finding:
    """A value of theory beside its simulated value.

    `low` and `high` are the ends of the 95 % interval of what was simulated, `p_value` is the chance of a simulation at
    least so far from theory if theory is right, NaN for a claim that must hold exactly: there `error` may not exceed
    `limit`. In a chi-square test theory is the degrees of freedom, `simulated` the statistic and `limit` its 95 %
    quantile. `how` says what was simulated; `broken` why there is nothing to compare.
    """

    theory: float
    simulated: float
    how: str
    low: float = math.nan
    high: float = math.nan
    p_value: float = math.nan
    error: float = math.nan
    limit: float = math.nan
    broken: str = ""


@dataclass(frozen=True)
class Claim:
    """A statement about the model, its source, and the function that simulates it.

    `curve` and `at` place it in a figure: one of its lines, and where on it.
    """

    name: str
    text: str
    source: str
    unit: str
    check: Callable[[Trial], Finding]
    curve: str = ""
    at: float = math.nan


def mean_is(theory: float, values: ArrayLike, how: str) -> Finding:
    """Hold the mean of independent values against theory: Student's t.

    An interval wider than -+ WIDEST of theory couldn't tell a wrong model from a right one, and counts as broken.
    """
    x = np.asarray(values, dtype=np.float64)
    if not np.isfinite(x).all():
        return Finding(theory, math.nan, how, broken="what was simulated is no number")
    mean, error = float(x.mean()), float(x.std(ddof=1)) / math.sqrt(len(x))
    if error <= EXACT * abs(theory):
        return equals([theory], [mean], how)
    half = float(stats.t.isf((1 - LEVEL) / 2, len(x) - 1)) * error
    p_value = float(2 * stats.t.sf(abs(mean - theory) / error, len(x) - 1))
    return Finding(theory, mean, how, mean - half, mean + half, p_value, broken=_too_wide(half, theory))


def share_is(theory: float, hits: int, draws: int, how: str) -> Finding:
    """Hold a share of independent draws against a probability: the score test, with Wilson's interval."""
    interval = stats.binomtest(hits, draws).proportion_ci(LEVEL, method="wilson")
    share = hits / draws
    p_value = float(2 * stats.norm.sf(abs(share - theory) / math.sqrt(theory * (1 - theory) / draws)))
    too_wide = _too_wide((interval.high - interval.low) / 2, theory)
    return Finding(theory, share, how, float(interval.low), float(interval.high), p_value, broken=too_wide)


def share_is_at_least(theory: float, hits: int, draws: int, how: str) -> Finding:
    """Hold a share of independent draws against a probability that it must not fall below: the binomial test."""
    interval = stats.binomtest(hits, draws).proportion_ci(LEVEL, method="wilson")
    p_value = float(stats.binom.cdf(hits, draws, theory))
    return Finding(theory, hits / draws, how, float(interval.low), float(interval.high), p_value)


def counts_follow(law: ArrayLike, counts: ArrayLike, how: str) -> Finding:
    """Hold how often each outcome came against its probability: Pearson's chi-square test.

    What is expected fewer than ten times is put together with its neighbours.
    """
    expected, seen = np.asarray(law, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    impossible = expected == 0
    if seen[impossible].any():
        return Finding(0.0, float(seen[impossible].sum()), how, broken="what is impossible happened")
    expected, seen = expected[~impossible] / expected.sum() * seen.sum(), seen[~impossible]
    groups: list[list[int]] = [[]]
    for outcome in range(len(expected)):
        groups[-1].append(outcome)
        if expected[groups[-1]].sum() >= 10 <= expected[outcome + 1 :].sum():
            groups.append([])
    expected, seen = (np.array([values[group].sum() for group in groups]) for values in (expected, seen))
    freedom = len(expected) - 1
    statistic = float(((seen - expected) ** 2 / expected).sum())
    limit = float(stats.chi2.ppf(LEVEL, freedom))
    return Finding(freedom, statistic, how, p_value=float(stats.chi2.sf(statistic, freedom)), limit=limit)


def equals(
    theory: ArrayLike, simulated: ArrayLike, how: str, *, limit: float = EXACT, scale: float | None = None
) -> Finding:
    """Hold numbers against theory's, which they must meet to `limit` times the largest of them (or `scale`).

    The one that differs most is shown. Raises SimulationError if there are too many or too few.
    """
    expected, values = np.asarray(theory, dtype=np.float64).ravel(), np.asarray(simulated, dtype=np.float64).ravel()
    if expected.shape != values.shape or not len(expected):
        raise SimulationError(f"{len(values)} numbers simulated where theory has {len(expected)}")
    apart: NDArray[np.float64] = np.abs(values - expected)
    apart[np.isnan(apart)] = np.inf
    worst = int(apart.argmax())
    size = (np.abs(expected).max() or 1.0) if scale is None else scale
    return Finding(float(expected[worst]), float(values[worst]), how, error=float(apart[worst] / size), limit=limit)


def _too_wide(half: float, theory: float) -> str:
    if half <= WIDEST * abs(theory):
        return ""
    return f"the interval, -+ {half / abs(theory):.1%}, is too wide to tell"
