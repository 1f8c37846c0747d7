"""What a choice between words does, such as rules that are swept: to each policy, and to which of them most."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from uhlm_sim.analysis.digits import listed
from uhlm_sim.analysis.figures.axes import key_words
from uhlm_sim.analysis.measures.intervals import paired_ratio, student_t
from uhlm_sim.analysis.report.phrases import course, percent, plain, times
from uhlm_sim.analysis.report.points import Estimate, Points
from uhlm_sim.analysis.run import Run

COMPARED = {"token_throughput": "tokens a second", "tpot_s.p95": "TPOT p95", "ttft_s.p95": "TTFT p95"}


def of_choices(results: Run, points: Points) -> Iterator[str]:
    """Say of swept words what each policy has with them beside what it has with the first.

    All points meet the same world, so they are compared in pairs of replications. Under which policy the choice is
    most, says the share of requests that meet the SLO between the best and the worst; without an SLO, TPOT p95.
    """
    if points.is_ordered or len(points) < 2 or len(points.groups) != 1:
        return
    table = results.replications
    numbers = list(dict.fromkeys(table["point"]))
    values = table.pivot(index=["metric", "replication"], columns=["point", "policy"], values="value")
    spread: dict[str, Estimate] = {}
    is_met = any(np.isfinite(mean) for mean, _, _ in points.all(results.policies[0], "slo_attainment"))
    judged = "slo_attainment" if is_met else "tpot_s.p95"
    for policy in (name for name in results.policies if all((point, name) in values for point in numbers)):
        own = values[[(point, policy) for point in numbers]].dropna()
        told = []
        for metric, words in COMPARED.items():
            each = own[own.index.get_level_values("metric") == metric].to_numpy(dtype=np.float64).T
            found = [_estimate(*paired_ratio(choice, each[0])) for choice in each]
            if any(low > 1 or high < 1 for _, low, high in found):
                told.append(f"{words} {course(points, found, times)}")
        if is_met:
            told.append(f"requests that meet the SLO {course(points, points.all(policy, judged), percent)}")
        if told:
            yield f"{policy}, in times of what it has at {points.value(0)}: {'; '.join(told)}."
        each = own[own.index.get_level_values("metric") == judged].to_numpy(dtype=np.float64).T
        if each.shape[1] > 1:
            most, least = each[each.mean(axis=1).argmax()], each[each.mean(axis=1).argmin()]
            spread[policy] = _estimate(*(student_t(100 * (most - least)) if is_met else paired_ratio(most, least)))
    if len(spread) > 1:
        words = "the share of requests that meet the SLO differs by" if is_met else "TPOT p95 differs"
        show, of = (plain, "percentage points") if is_met else (times, "times")
        apart = sorted(spread, key=lambda policy: -spread[policy][0])
        said = listed([f"{show(spread[policy])} {of} under {policy}" for policy in apart])
        yield f"Between the best and the worst {key_words(points.along)} {words} {said}."


def _estimate(mean: Any, low: Any, high: Any, _count: Any) -> Estimate:
    return float(mean), float(low), float(high)
