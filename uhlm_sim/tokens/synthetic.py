"""Synthetic tokens: answers drawn from a law that is fitted to published statistics (`uhlm_sim.tokens.synthetic_law`).

Within an answer u follows a Gaussian copula, z_t = r z_(t-1) + sqrt(1 - r^2) e_t and u_t the quantile of Phi(z_t),
which keeps its law whatever r; given u, betas are independent. Lengths are fixed, or geometric from 1. Left out is
everything that a text is made of, so answers are the same under every policy, and there is no quality.
"""

import hashlib
import json
import math
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from scipy.special import ndtr

from uhlm_sim.errors import ScenarioError
from uhlm_sim.rng import stream
from uhlm_sim.settings.tokens import SyntheticTokens
from uhlm_sim.tokens.decoding_rule import DecodingRule
from uhlm_sim.tokens.draws import answer_draws
from uhlm_sim.tokens.speculative import LinearLaw
from uhlm_sim.tokens.synthetic_law import SyntheticLaw
from uhlm_sim.tokens.tree import AnswerTree, chain

DRAWING = 1  # version of what a seed's tokens are; part of the digest


@dataclass(frozen=True)
class SyntheticSource:
    """The answers under one rule; all rules share them, and differ only in what they skip."""

    tokens: "Synthetic"
    rule: DecodingRule
    recorded: str = ""

    @property
    def prompts(self) -> int:
        return self.tokens.settings.prompts

    @property
    def samples(self) -> int:
        return 1

    @property
    def vocabulary_size(self) -> int:
        return self.tokens.settings.vocabulary_size

    @property
    def uncertainty_samples(self) -> int:
        return self.tokens.settings.uncertainty_samples

    def tree(self, prompt: int, sample: int) -> AnswerTree:
        return self.tokens.answer(prompt, sample)


class Synthetic:
    """Tokens of a fitted law, for a cell to replay. Raises ScenarioError for statistics that no such law has."""

    def __init__(self, settings: SyntheticTokens) -> None:
        self.settings = settings
        self.fitted = SyntheticLaw(settings)
        identity = json.dumps(
            [
                DRAWING,
                settings.model_dump(mode="json", exclude={"acceptance"} if settings.acceptance is None else None),
            ],
            sort_keys=True,
        )
        self.digest = hashlib.sha256(identity.encode()).hexdigest()

    def source(self, rule: DecodingRule) -> SyntheticSource:
        """Return the answers under a rule. All are exact: no text depends on what is decided."""
        return SyntheticSource(self, rule)

    def law(self, gate: str = "uncertainty") -> LinearLaw:
        """Return a and b as given, and Delta as given or as the fitted law has it.

        Raises ScenarioError for another gate, of which nothing is known.
        """
        self.check_gate(gate)
        return self.fitted.linear

    def threshold_at(self, risk: float, gate: str = "uncertainty") -> float:
        """Return the largest threshold on the grid at which the mean beta of kept drafts is at most ``risk``; or -1."""
        self.check_gate(gate)
        law = self.fitted
        kept = law.probability.cumsum()
        mean = (law.probability * law.mean_beta).cumsum() / np.where(kept > 0, kept, 1)
        fits = np.flatnonzero((mean <= risk) & (kept > 0))
        return float(law.uncertainty[fits[-1]]) if len(fits) else -1.0

    @staticmethod
    def check_gate(gate: str) -> None:
        """Raise ScenarioError for any gate but uncertainty."""
        if gate != "uncertainty":
            raise ScenarioError(f"policy.gate = '{gate}': synthetic tokens have no distribution; they know uncertainty")

    def acceptance(self) -> float:
        """Return E[1 - beta], by the law itself."""
        return 1.0 - self.fitted.risk(1.0)

    def skip_rate(self, rule: DecodingRule) -> float:
        """Return the share of tokens that a rule skips, by the law itself."""
        return self.fitted.skip_rate(rule)

    def check_max_tokens(self, max_tokens: int) -> None:
        """Pass: answers end by themselves, whatever ``max_tokens`` is."""

    def answer(self, prompt: int, sample: int = 0) -> AnswerTree:
        """Return one answer. Its draws are keyed by prompt and position, and by no rule.

        ``x_draft`` is 1, so that y_draft / x_draft = 1 - beta; ``entropy`` and the largest probabilities are NaN and
        ``tail_mass`` has no column, since nothing is known of them.
        """
        settings, name = self.settings, ("synthetic", prompt, sample)
        count = settings.answer_tokens
        if settings.length_law == "geometric":
            count = int(stream(settings.seed, *name, "length").geometric(1 / count))
        normal = stream(settings.seed, *name).standard_normal(count)
        normal[1:] *= math.sqrt(1 - settings.correlation**2)
        linked = np.array(list(accumulate(normal.tolist(), lambda last, new: settings.correlation * last + new)))
        level = self.fitted.levels(ndtr(linked))
        beta = self.fitted.rejections(level, stream(settings.seed, *name, "rejection").random((count, 2)))
        draws = answer_draws(settings.seed, f"synthetic {prompt}", sample, count, 0)
        unknown = np.full(count, np.nan)
        return chain(
            prompt,
            sample,
            settings.prompt_tokens,
            verdict=np.zeros(count, dtype=np.int32),
            draft=np.zeros(count, dtype=np.int32),
            uncertainty=self.fitted.uncertainty[level],
            x_draft=np.ones(count),
            y_draft=1.0 - beta,
            accept_coin=draws.coin,
            skip_coin=draws.skip,
            entropy=unknown,
            top1_probability=unknown,
            second_probability=unknown,
            tail_mass=np.empty((count, 0), dtype=np.float32),
            uncertainty_samples=settings.uncertainty_samples,
            vocabulary_size=settings.vocabulary_size,
        )

    def provenance(self) -> dict[str, Any]:
        """Return what `provenance.json` says of it, under the key "synthetic"."""
        law = self.fitted
        summary = {
            "digest": self.digest,
            "fit": [{"statistic": name, "wanted": target, "got": round(got, 9)} for name, target, got in law.fit()],
            "a": self.settings.a,
            "b": self.settings.b,
            "uncertainty_mean": law.mean,
            "uncertainty_alpha_plus_beta": law.spread,
            "mean_rejection": law.risk(1.0),
            "delta": law.delta,
            "exponent": law.exponent,
            "correlation": self.settings.correlation,
        }
        return {"synthetic": summary}

    def assumptions(self, max_tokens: int, *, matched: bool) -> list[str]:  # noqa: ARG002
        """Return the assumptions of a run with these tokens, as sentences."""
        settings, law = self.settings, self.fitted
        met = "; ".join(f"{name} = {got:.4f}, wanted {target:g}" for name, target, got in law.fit())
        along = f"correlated along an answer (r = {settings.correlation:g})" if settings.correlation else "independent"
        mean = ", on average (geometric)," if settings.length_law == "geometric" else ""
        of_beta = (
            f"probability beta has the mean clip({settings.a:g} u {settings.b:+g}, 0, 1). Fitted to {met}."
            if settings.acceptance is None
            else f"probability is {1 - settings.acceptance:g}, whatever u is."
        )
        return [
            "Tokens are SYNTHETIC: no model was run. u follows a Beta-binomial law, and given u a token's rejection "
            f"{of_beta} So E[beta] = {law.risk(1.0):.4f} and P(beta > 0) = {law.delta:.4f}. What the law was fitted to "
            "is put in: a run that gives it back has found nothing. Without distributions a payload is its bits alone: "
            "what the LLM commits is the same under all of them.",
            f"Tokens are {along}; an answer has {settings.answer_tokens} of them{mean} whatever a policy keeps, so all "
            "policies decide on the same tokens, as with teacher forcing. There is no text: the cosines are left "
            "empty; rejection risk, kept rate and distribution error are the law's.",
        ]
