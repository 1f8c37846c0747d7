"""Decoding rules: how an answer is made, and when two of them make the same one."""

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from uhlm_sim.errors import InputError, did_you_mean
from uhlm_sim.tokens.payload_law import OWN_TOKEN, PATTERN, draws_anew
from uhlm_sim.tokens.speculative import grid_level

RuleKind = Literal["hlm", "slm", "llm", "u-hlm", "rand-hlm", "periodic-hlm"]


@dataclass(frozen=True)
class DecodingRule:
    """How each token of an answer comes about; the key of a recorded path.

    hlm asks the LLM for every token, slm for none, llm lets the LLM generate; u-hlm skips the LLM where u <=
    ``threshold`` (below 0 skips nothing, 1 or more everything); rand-hlm skips with probability
    ``skip_rate``, whatever the token, periodic-hlm at positions evenly spaced (`at_period`). ``payload`` is the law of
    its uploads (see `payload_law.py`). Raises InputError for an unknown kind or payload, a number that the kind has no
    use for, a missing one, NaN, or a rate outside [0, 1].
    """

    kind: RuleKind
    threshold: float | None = None
    skip_rate: float | None = None
    payload: str = ""

    def __post_init__(self) -> None:
        kinds = get_args(RuleKind)
        if self.kind not in kinds:
            raise InputError(f"rule '{self.kind}' is not one of {', '.join(kinds)}{did_you_mean(self.kind, kinds)}")
        if (self.threshold is not None) != (self.kind == "u-hlm"):
            raise InputError(f"rule {self.kind}: threshold = {self.threshold}; u-hlm needs one, no other rule has one")
        if (self.skip_rate is not None) != (self.kind in ("rand-hlm", "periodic-hlm")):
            raise InputError(
                f"rule {self.kind}: skip_rate = {self.skip_rate}; rand-hlm and periodic-hlm need one, no other rule has"
            )
        if self.threshold is not None and math.isnan(self.threshold):
            raise InputError("rule u-hlm: threshold = nan; it must be a number")
        if self.skip_rate is not None and not 0 <= self.skip_rate <= 1:
            raise InputError(f"rule {self.kind}: skip_rate = {self.skip_rate}; it must lie in [0, 1]")
        if self.payload and (not PATTERN.fullmatch(self.payload) or self.kind in ("slm", "llm")):
            raise InputError(
                f"rule {self.kind}: payload = '{self.payload}'; a rule that sends drafts may have top-<k>, "
                f"quantised-<levels>, truncated-<k> or {OWN_TOKEN}"
            )

    def with_payload(self, payload: str) -> "DecodingRule":
        """Return the rule with a payload, itself if it sends no drafts."""
        return self if self.kind in ("slm", "llm") else replace(self, payload=payload)

    def __str__(self) -> str:
        return self.name(4)

    def name(self, digits: int) -> str:
        """Return what it is called in a trace, its number with so many digits."""
        value = self.threshold if self.kind == "u-hlm" else self.skip_rate
        parts = [] if value is None else [f"{value:.{digits}g}"]
        parts += [self.payload] if self.payload else []
        return f"{self.kind}({', '.join(parts)})" if parts else self.kind

    def same_as(self, uncertainty_samples: int) -> tuple[str, float, str]:
        """Return what the rule amounts to on the grid of K: equal for two rules that decode alike.

        Thresholds are compared as floor(K u_th); a rule that skips nothing is hlm, one that skips everything
        is slm. The payload of one that sends nothing decides nothing, unless drafts are drawn from it.
        """
        kind, number = self._same_gate(uncertainty_samples)
        return kind, number, self.payload if kind != "slm" or draws_anew(self.payload) else ""

    def _same_gate(self, uncertainty_samples: int) -> tuple[str, float]:
        if self.threshold is not None:
            level = grid_level(self.threshold, uncertainty_samples)
            if 0 <= level < uncertainty_samples:
                return ("u-hlm", float(level))
            return ("hlm" if level < 0 else "slm", 0.0)
        if self.skip_rate is not None:
            if 0 < self.skip_rate < 1:
                return (self.kind, round(self.skip_rate, 9))
            return ("hlm" if self.skip_rate == 0 else "slm", 0.0)
        return (self.kind, 0.0)

    def skips(
        self,
        position: NDArray[np.integer],
        level: NDArray[np.number],
        coin: NDArray[np.float64],
        phase: ArrayLike,
        uncertainty_samples: int,
    ) -> NDArray[np.bool_]:
        """Return which tokens the rule skips.

        By position, K u (``level``) and a coin in [0, 1), arrays (n,), and their answers' ``phase`` (`at_period`).
        """
        if self.threshold is not None:
            return np.asarray(level <= grid_level(self.threshold, uncertainty_samples))
        if self.kind == "periodic-hlm":
            return at_period(position, self.skip_rate or 0.0, phase)
        if self.skip_rate is not None:
            return np.asarray(coin < self.skip_rate)
        return np.full(len(level), self.kind == "slm")


def at_period(position: NDArray[np.integer], rate: ArrayLike, phase: ArrayLike) -> NDArray[np.bool_]:
    """Say which positions of an answer, from 0, are among a share ``rate`` of them that is spread evenly.

    Position i is where floor((i + 1) rate + phase) > floor(i rate + phase), so at 1/4 every fourth. A phase that is
    uniform on [0, 1) makes each position as likely as any other, so that short answers keep that share, too.
    """
    count = np.floor(np.stack([position, position + 1]) * np.asarray(rate) + phase)
    return np.asarray(count[1] > count[0])


HLM, SLM, LLM = DecodingRule("hlm"), DecodingRule("slm"), DecodingRule("llm")
