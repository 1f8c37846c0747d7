"""What becomes of a value over the points of a run, in words no stronger than its intervals."""

from collections.abc import Callable, Sequence

import numpy as np

from uhlm_sim.analysis.digits import listed, number, ratio
from uhlm_sim.analysis.report.points import Estimate, Points


def course(points: Points, found: Sequence[Estimate], show: Callable[[Estimate], str], of: str = "") -> str:
    """Say what becomes of a value over the points: both ends, and the most between them if beyond chance.

    Over several groups, or values without an order, the least and the most.
    """
    known = sorted((point for point, (mean, _, _) in enumerate(found) if np.isfinite(mean)), key=found.__getitem__)
    if not known:
        return f"–{of}"
    said = [known[0], known[-1]]
    if points.is_ordered and len(points.groups) == 1:
        ends = [point for point in points.groups[0][1] if point in known]
        peak = [known[-1]] if all(found[known[-1]][1] > found[end][2] for end in (ends[0], ends[-1])) else []
        said = [ends[0], *peak, ends[-1]]
    if len({show(found[point]) for point in said}) == 1:
        return f"{show(found[said[0]])}{of}"
    first, *others = said
    return listed(
        [f"{show(found[first])}{of}{points.place(first)}", *(f"{show(found[p])}{points.place(p)}" for p in others)]
    )


def level(points: Points, found: Sequence[Estimate], show: Callable[[Estimate], str], of: str = "") -> str:
    """Say the same, but of a value whose least and most chance alone may have made, only the one in the middle."""
    known = sorted(estimate for estimate in found if np.isfinite(estimate[1]))
    if known and known[0][2] >= known[-1][1] and show(known[0]) != show(known[-1]):
        return f"about {show(known[len(known) // 2])}{of}"
    return course(points, found, show, of)


def times(estimate: Estimate) -> str:
    text, ends = ratio(*estimate)
    return f"{text} ({ends})" if ends else text


def plain(estimate: Estimate) -> str:
    return number(*estimate)[0]


def percent(estimate: Estimate) -> str:
    return f"{number(*estimate, scale=100.0)[0]} %"
