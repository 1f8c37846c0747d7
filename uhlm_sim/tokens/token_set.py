"""The interface between sources of tokens and the cell that replays them."""

from collections.abc import Mapping
from typing import Any, Protocol

from uhlm_sim.tokens.decoding_rule import DecodingRule
from uhlm_sim.tokens.speculative import LinearLaw
from uhlm_sim.tokens.trace import TokenSource


class RuleSource(TokenSource, Protocol):
    """Answers under one rule; ``recorded`` is the name of the path they were recorded as, if they were."""

    @property
    def recorded(self) -> str: ...


class TokenSet(Protocol):
    """The tokens of one model pair for a set of prompts, recorded or synthetic, as an experiment uses them.

    ``digest`` tells two sets apart: equal digests, equal tokens.
    """

    @property
    def digest(self) -> str: ...

    def source(self, rule: DecodingRule) -> RuleSource:
        """Return the answers under a rule."""
        ...

    def law(self, gate: str = "uncertainty") -> LinearLaw:
        """Return a, b and Delta, which the words "risk-averse" and "risk-prone" stand for, of a measure of doubt."""
        ...

    def threshold_at(self, risk: float, gate: str = "uncertainty") -> float:
        """Return the largest threshold at which the mean beta of kept drafts is at most ``risk``; -1 keeps none."""
        ...

    def check_gate(self, gate: str) -> None:
        """Raise InputError if drafts aren't known by that measure of doubt."""
        ...

    def acceptance(self) -> float:
        """Return the mean probability that the LLM accepts a draft, E[1 - beta]."""
        ...

    def skip_rate(self, rule: DecodingRule) -> float:
        """Return the share of tokens that the rule skips."""
        ...

    def check_max_tokens(self, max_tokens: int) -> None:
        """Raise InputError if answers of so many tokens can't be had."""
        ...

    def provenance(self) -> Mapping[str, Any]:
        """Return what `provenance.json` says of the tokens, as plain values under one key."""
        ...

    def assumptions(self, max_tokens: int, *, matched: bool) -> list[str]:
        """Say in sentences what the tokens take for granted; ``matched``: a policy meets another's skip rate."""
        ...
