"""Objectives: a metric and its limit, as in "tpot_s.p95<=0.2", and whether simulated values keep it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, isnan

import numpy as np
from numpy.typing import NDArray

from uhlm_sim.analysis.measures.intervals import student_t
from uhlm_sim.analysis.measures.metrics import METRICS
from uhlm_sim.errors import InputError, did_you_mean

Floats = NDArray[np.float64]
_TEXT = re.compile(r"\s*([\w.]+)\s*(<=|>=)\s*(\S+)\s*")


@dataclass(frozen=True)
class Objective:
    """A metric that must be at most, or at least, a limit in the metric's own unit."""

    metric: str
    at_most: bool
    limit: float

    @classmethod
    def parse(cls, text: str) -> "Objective":
        """Read "metric<=value" or "metric>=value".

        Raises InputError for anything else, and for a limit that no value of the metric keeps, or that none breaks.
        """
        match = _TEXT.fullmatch(text)
        if match is None:
            raise InputError(f"--slo '{text}': write it as metric<=value or metric>=value, as in tpot_s.p95<=0.2")
        metric, sign, value = match.groups()
        if metric not in METRICS:
            statistics = [name for name in METRICS if name.startswith(f"{metric}.")]
            hint = f"; it has {', '.join(statistics)}" if statistics else did_you_mean(metric, METRICS)
            raise InputError(f"--slo '{text}': there is no metric '{metric}'{hint}")
        try:
            limit = float(value)
        except ValueError:
            limit = float("nan")
        if not isfinite(limit):
            raise InputError(f"--slo '{text}': '{value}' is not a finite number")
        at_most = sign == "<="
        low, high = METRICS[metric].bounds
        if limit < low or (limit == low and not at_most):
            raise InputError(f"--slo '{text}': nothing {_does(not at_most)} it, {metric} is never below {low:g}")
        if limit > high or (limit == high and at_most):
            raise InputError(f"--slo '{text}': nothing {_does(at_most)} it, {metric} is never above {high:g}")
        return cls(metric, at_most, limit)

    def __str__(self) -> str:
        return f"{self.metric}{'<=' if self.at_most else '>='}{self.limit:g}"

    def margin(self, value: float) -> float:
        """Return by how much a value keeps the limit: 0 or more if it does, NaN for NaN."""
        return self.limit - value if self.at_most else value - self.limit


def parse_all(texts: Sequence[str]) -> tuple[Objective, ...]:
    """Read the objectives of a search. Raises InputError for a wrong one, and if there is none."""
    if not texts:
        raise InputError("--slo: at least one is needed, as in tpot_s.p95<=0.2")
    return tuple(Objective.parse(text) for text in texts)


@dataclass(frozen=True)
class Seen:
    """What one policy did at one load: each metric's value per replication, and the verdict if it is a bad one."""

    values: dict[str, Floats]
    warning: str

    def estimate(self, metric: str) -> tuple[float, float, float, int]:
        """Return a metric's mean, its 95 % interval and the number of replications."""
        mean, low, high, count = student_t(self.values[metric])
        return float(mean), float(low), float(high), int(count)


def keeps(objectives: Sequence[Objective], seen: Seen) -> bool:
    """Say whether every mean keeps its limit."""
    return all(objective.margin(seen.estimate(objective.metric)[0]) >= 0 for objective in objectives)


def surely_keeps(objectives: Sequence[Objective], seen: Seen) -> bool:
    """Say whether every whole interval keeps its limit."""
    ends = [(objective, seen.estimate(objective.metric)[1:3]) for objective in objectives]
    return all(objective.margin(low) >= 0 and objective.margin(high) >= 0 for objective, (low, high) in ends)


def may_keep(objectives: Sequence[Objective], seen: Seen) -> bool:
    """Say whether no limit is shown to be broken: none has its whole interval beyond it, or no value."""
    for objective in objectives:
        mean, low, high, _ = seen.estimate(objective.metric)
        if isnan(mean) or max(objective.margin(low), objective.margin(high)) < 0:
            return False
    return True


def _does(breaks: bool) -> str:
    return "breaks" if breaks else "keeps"
