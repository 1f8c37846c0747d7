"""Phrases that tell a value over the points of a run, no more precise than its intervals."""

from collections.abc import Callable, Sequence

import numpy as np

from uhlm_sim.analysis.digits import listed, number, ratio
from uhlm_sim.analysis.report.headline import Estimate
from uhlm_sim.analysis.report.points import Points

TOO_FEW = "too few replications"


def course(points: Points, estimates: Sequence[Estimate], show: Callable[[Estimate], str], of: str = "") -> str:
    """Write a value at both ends of the sweep, and its highest between them if that is beyond chance.

    Over several groups, or points without an order, the lowest and the highest.
    """
    known = [point for point, (mean, _, _) in enumerate(estimates) if np.isfinite(mean)]
    known.sort(key=estimates.__getitem__)
    if not known:
        return f"–{of}"
    chosen = [known[0], known[-1]]
    if points.is_ordered and len(points.groups) == 1:
        ends = [point for point in points.groups[0][1] if point in known]
        peak = [known[-1]] if all(estimates[known[-1]][1] > estimates[end][2] for end in (ends[0], ends[-1])) else []
        chosen = [ends[0], *peak, ends[-1]]
    if len({show(estimates[point]) for point in chosen}) == 1:
        return f"{show(estimates[chosen[0]])}{of}"
    first, *others = chosen
    rest = [f"{show(estimates[point])}{points.place(point)}" for point in others]
    return listed([f"{show(estimates[first])}{of}{points.place(first)}", *rest])


def level(points: Points, estimates: Sequence[Estimate], show: Callable[[Estimate], str], of: str = "") -> str:
    """Write a value as `course` does; if the intervals of its lowest and highest overlap, the median alone."""
    known = sorted(estimate for estimate in estimates if np.isfinite(estimate[1]))
    if known and known[0][2] >= known[-1][1] and show(known[0]) != show(known[-1]):
        return f"about {show(known[len(known) // 2])}{of}"
    return course(points, estimates, show, of)


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
