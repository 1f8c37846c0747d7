"""Phrases that tell a value over the points of a run, no more precise than its intervals."""

from collections.abc import Callable, Sequence

import numpy as np

from uhlm_sim.analysis.digits import listed, number, ratio
from uhlm_sim.analysis.report.headline import Estimate
from uhlm_sim.analysis.report.points import NONE, Points

TOO_FEW = "too few replications"
NEAR = 0.1  # of a median: values no farther from it are "about" as large


def course(points: Points, estimates: Sequence[Estimate], show: Callable[[Estimate], str], of: str = "") -> str:
    """Write a value at both ends of the sweep, and its lowest and highest between them if they are beyond chance.

    Over several groups, or points without an order, the lowest and the highest. One that reads alike at every point is
    written once.
    """
    known = _from_low_to_high(estimates)
    if not known:
        return f"–{of}"
    if points.is_ordered and len(points.groups) == 1:
        along = [point for point in points.groups[0][1] if point in known]
        ends = along[0], along[-1]
        against = [estimates[end] for end in ends if np.isfinite(estimates[end][1])] or [NONE]
        extremes = [known[-1]] if all(estimates[known[-1]][1] > high for _, _, high in against) else []
        extremes += [known[0]] if all(estimates[known[0]][2] < low for _, low, _ in against) else []
        chosen = [point for point in along if point in (*ends, *extremes)]
    else:
        chosen = [known[0], known[-1]]
    return _at(points, estimates, chosen, show, of)


def level(points: Points, estimates: Sequence[Estimate], show: Callable[[Estimate], str], of: str = "") -> str:
    """Write a value as `course` does, unless the intervals of its lowest and highest overlap.

    Then the sweep shows no effect: the median alone if all are near it, else these two.
    """
    known = _from_low_to_high(estimates)
    low, high = (estimates[known[end]] if known else NONE for end in (0, -1))
    if not low[2] >= high[1] or show(low) == show(high):
        return course(points, estimates, show, of)
    middle = estimates[known[len(known) // 2]]
    if max(high[0] - middle[0], middle[0] - low[0]) <= NEAR * abs(middle[0]):
        return f"about {show(middle)}{of}"
    return f"{_at(points, estimates, [known[0], known[-1]], show, of)}, whose intervals overlap"


def _from_low_to_high(estimates: Sequence[Estimate]) -> list[int]:
    known = [point for point, (mean, _, _) in enumerate(estimates) if np.isfinite(mean)]
    return sorted(known, key=estimates.__getitem__)


def _at(
    points: Points, estimates: Sequence[Estimate], chosen: Sequence[int], show: Callable[[Estimate], str], of: str
) -> str:
    """Write the values at some points, each with its place; one value for all points if they read alike."""
    first, *others = dict.fromkeys(chosen)
    if len({show(estimate) for estimate in estimates}) == 1:
        return f"{show(estimates[first])}{of}"
    rest = [f"{show(estimates[point])}{points.place(point)}" for point in others]
    return listed([f"{show(estimates[first])}{of}{points.place(first)}", *rest])


def times(estimate: Estimate) -> str:
    """Write a ratio with its interval: "1.41 (1.38 to 1.44)"; one that is wider than the ratio itself is said to be.

    Such an interval tells nobody anything: two replications leave "1 (-118 to 2)".
    """
    mean, low, high = estimate
    if np.isfinite(low) and np.isfinite(high) and high - low > abs(mean):
        return f"{number(mean, np.nan, np.nan)[0]} ({TOO_FEW})"
    text, ends = ratio(*estimate)
    return f"{text} ({ends})" if ends else text


def plain(estimate: Estimate) -> str:
    """Write a value without its interval."""
    return number(*estimate)[0]


def percent(estimate: Estimate) -> str:
    """Write a share in per cent."""
    return f"{number(*estimate, scale=100.0)[0]} %"
