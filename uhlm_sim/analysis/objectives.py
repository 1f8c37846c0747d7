"""Objectives: a metric and the limit that it must keep, as in "tpot_s.p95<=0.2"."""

import re
from dataclasses import dataclass
from math import inf, isfinite

from uhlm_sim.analysis.metrics import QUALITY, UNITS
from uhlm_sim.errors import InputError, did_you_mean

_SIGNED = {"backlog_growth": (-inf, inf), **dict.fromkeys(QUALITY, (-1.0, 1.0))}  # all others are never below 0
_TEXT = re.compile(r"\s*([\w.]+)\s*(<=|>=)\s*(\S+)\s*")


@dataclass(frozen=True)
class Objective:
    """A metric of UNITS that must be at most, or at least, a limit in the metric's own unit."""

    metric: str
    at_most: bool
    limit: float

    @classmethod
    def parse(cls, text: str) -> "Objective":
        """Read "metric<=value" or "metric>=value".

        Raises InputError for anything else, and for a limit that no value of the metric keeps, or that none breaks.
        """
        found = _TEXT.fullmatch(text)
        if found is None:
            raise InputError(f"--slo '{text}': write it as metric<=value or metric>=value, as in tpot_s.p95<=0.2")
        metric, sign, value = found.groups()
        if metric not in UNITS:
            statistics = [name for name in UNITS if name.startswith(f"{metric}.")]
            hint = f"; it has {', '.join(statistics)}" if statistics else did_you_mean(metric, UNITS)
            raise InputError(f"--slo '{text}': there is no metric '{metric}'{hint}")
        try:
            limit = float(value)
        except ValueError:
            limit = float("nan")
        if not isfinite(limit):
            raise InputError(f"--slo '{text}': '{value}' is not a finite number")
        at_most = sign == "<="
        low, high = _SIGNED.get(metric, (0.0, 1.0 if UNITS[metric] == "1" else inf))
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


def _does(breaks: bool) -> str:
    return "breaks" if breaks else "keeps"
