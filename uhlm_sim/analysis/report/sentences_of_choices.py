"""Sentences for a sweep over names (allocators, orders): the effect on each policy, and the policy it moves most."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from uhlm_sim.analysis.digits import listed
from uhlm_sim.analysis.figures.axes import key_words
from uhlm_sim.analysis.measures.intervals import paired_ratio, student_t
from uhlm_sim.analysis.report.headline import Estimate
from uhlm_sim.analysis.report.phrases import course, percent, plain, times
from uhlm_sim.analysis.report.points import Points
from uhlm_sim.analysis.run import Run

COMPARED = {"token_throughput": "tokens a second", "tpot_s.p95": "TPOT p95", "ttft_s.p95": "TTFT p95"}


def of_choices(results: Run, points: Points) -> Iterator[str]:
    """Compare the metrics of each policy under each swept name with those under the first name.

    All points meet the same world, so they are compared in pairs of replications. The policy that the choice moves most
    is the one with the widest gap between best and worst in the share of requests that meet the SLO, or in TPOT p95.
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
        of_policy = values[[(point, policy) for point in numbers]].dropna()
        clauses = []
        for metric, words in COMPARED.items():
            of_choice = of_policy[of_policy.index.get_level_values("metric") == metric].to_numpy(dtype=np.float64).T
            ratios = [_estimate(*paired_ratio(choice, of_choice[0])) for choice in of_choice]
            if any(low > 1 or high < 1 for _, low, high in ratios):
                clauses.append(f"{words} {course(points, ratios, times)}")
        if is_met:
            clauses.append(f"requests that meet the SLO {course(points, points.all(policy, judged), percent)}")
        if clauses:
            yield f"{policy}, as a multiple of its value at {points.value(0)}: {'; '.join(clauses)}."
        of_choice = of_policy[of_policy.index.get_level_values("metric") == judged].to_numpy(dtype=np.float64).T
        if of_choice.shape[1] > 1:
            most, least = of_choice[of_choice.mean(axis=1).argmax()], of_choice[of_choice.mean(axis=1).argmin()]
            spread[policy] = _estimate(*(student_t(100 * (most - least)) if is_met else paired_ratio(most, least)))
    if len(spread) > 1:
        words = "the share of requests that meet the SLO differs by" if is_met else "TPOT p95 differs"
        show, of = (plain, "percentage points") if is_met else (times, "times")
        apart = sorted(spread, key=lambda policy: -spread[policy][0])
        differences = listed([f"{show(spread[policy])} {of} under {policy}" for policy in apart])
        yield f"Between the best and the worst {key_words(points.along)} {words} {differences}."


def _estimate(mean: Any, low: Any, high: Any, _count: Any) -> Estimate:
    return float(mean), float(low), float(high)
