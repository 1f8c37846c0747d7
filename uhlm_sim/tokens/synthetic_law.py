"""The law of synthetic tokens: (u, beta) fitted to published statistics of a model pair that can't be run.

On the grid u = l/K with l = 0..K:

- u ~ Beta-binomial(K, alpha, beta), which meets the given P(u <= u_th) at one or two thresholds. With one threshold
  alpha + beta = 2, the value of the uniform law.
- E[beta | u] = m(u) = clip(a u + b, 0, 1) exactly [P]. Single tokens are noisy around it: beta = 0 with probability
  1 - m^g, else it has a Beta law of mean m^(1-g) whose smaller parameter is 1/2. The exponent g in [0, 1] is the one at
  which P(beta > 0) = Delta; without Delta it is 1/2, as on the shipped pair (0.48). At g = 1 every beta is 0 or 1.

With `acceptance` in place of all that, every beta is 1 - acceptance, and u is uniform on its grid and says nothing.

[P] (arXiv 2412.12687) gives a, b and rates; the families are our choice. Left out: that beta depends on anything but u.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import betainccinv, betaln, gammaln

from uhlm_sim.errors import ScenarioError
from uhlm_sim.settings.tokens import SyntheticTokens
from uhlm_sim.tokens.decoding_rule import DecodingRule
from uhlm_sim.tokens.speculative import LinearLaw, grid_level

Floats = NDArray[np.float64]

FLAT = 2.0  # alpha + beta of the uniform law
SPREADS = (0.02, 1e4)  # of alpha + beta, between all mass at the two ends and a binomial law
MEANS = (1e-9, 1 - 1e-9)
PLAIN_EXPONENT = 0.5
LESS_PARAMETER = 0.5  # of the law of a positive beta, about as wide as on the shipped pair; no mean depends on it


def beta_binomial(samples: int, mean: float, spread: float) -> Floats:
    """Return P(K u = l) for l = 0..K of a Beta-binomial law with alpha = spread x mean, beta = spread x (1 - mean)."""
    level = np.arange(samples + 1)
    alpha, beta = spread * mean, spread * (1 - mean)
    choose = gammaln(samples + 1) - gammaln(level + 1) - gammaln(samples - level + 1)
    return np.asarray(np.exp(choose + betaln(level + alpha, samples - level + beta) - betaln(alpha, beta)))


def fit_uncertainty(samples: int, points: list[tuple[float, float]]) -> tuple[float, float]:
    """Return mean and alpha + beta of the Beta-binomial law with P(u <= threshold) = rate at one or two points.

    Raises ScenarioError where no such law meets both rates, with the rates that the second one may have.
    """
    levels = [grid_level(threshold, samples) for threshold, _ in points]
    (at, first), (threshold, second) = points[0], points[-1]

    def mean_of(spread: float) -> float:
        def beyond(mean: float) -> float:
            return float(beta_binomial(samples, mean, spread)[: levels[0] + 1].sum()) - first

        return float(brentq(beyond, *MEANS, xtol=1e-14))

    def beyond(log_spread: float) -> float:
        spread = math.exp(log_spread)
        return float(beta_binomial(samples, mean_of(spread), spread)[: levels[-1] + 1].sum()) - second

    if len(points) == 1:
        return mean_of(FLAT), FLAT
    least, most = (math.log(spread) for spread in SPREADS)
    low, high = beyond(least), beyond(most)
    if low > 0 or high < 0:
        raise ScenarioError(
            f"tokens.skip_rates: {second:g} at {threshold:g} doesn't go with {first:g} at {at:g}: a Beta-binomial law "
            f"of u gives {second + low:.3f} to {second + high:.3f} there"
        )
    spread = math.exp(float(brentq(beyond, least, most, xtol=1e-13)))
    return mean_of(spread), spread


class SyntheticLaw:
    """The fitted law. ``probability`` and ``mean_beta`` (K + 1) are P(u) and E[beta | u] at ``uncertainty`` 0..1.

    Raises ScenarioError for statistics that no such law has.
    """

    def __init__(self, settings: SyntheticTokens) -> None:
        self.settings = settings
        samples = settings.uncertainty_samples
        points = [(point.threshold, point.rate) for point in settings.skip_rates]
        self.mean, self.spread = fit_uncertainty(samples, points) if points else (0.5, FLAT)
        self.uncertainty = np.arange(samples + 1) / samples
        self.probability = beta_binomial(samples, self.mean, self.spread)
        self.mean_beta = np.clip(settings.a * self.uncertainty + settings.b, 0.0, 1.0)
        if settings.acceptance is not None:
            self.mean_beta = np.full(samples + 1, 1.0 - settings.acceptance)
            self.exponent, self.delta = 0.0, float(settings.acceptance < 1)
            return
        if not ((self.mean_beta > 0) & (self.mean_beta < 1)).any():
            raise ScenarioError(
                f"tokens.a, tokens.b = {settings.a:g}, {settings.b:g}: a u + b must lie within (0, 1) somewhere on "
                f"the grid 0, 1/{samples}, ..., 1"
            )
        self.exponent = self._exponent()
        self.delta = self._delta(self.exponent)

    def _delta(self, exponent: float) -> float:
        """Return P(beta > 0)."""
        return float(self.probability @ self._positive(self.mean_beta, exponent))

    @staticmethod
    def _positive(mean: Floats, exponent: float) -> Floats:
        return np.where(mean > 0, mean**exponent, 0.0)

    def _exponent(self) -> float:
        target = self.settings.delta
        if target is None:
            return PLAIN_EXPONENT
        least, most = self._delta(1.0), self._delta(0.0)
        if not least <= target <= most:
            raise ScenarioError(
                f"tokens.delta = {target:g}: must lie in [{least:.4f}, {most:.4f}], from E[beta], which P(beta > 0) "
                "can't be below, to the share of tokens with a u + b > 0, as tokens.a, tokens.b and "
                "tokens.skip_rates have them"
            )
        return float(brentq(lambda exponent: self._delta(exponent) - target, 0.0, 1.0, xtol=1e-14))

    def levels(self, uniforms: Floats) -> NDArray[np.intp]:
        """Return K u as the quantile of uniform numbers in [0, 1)."""
        return self.probability.cumsum().searchsorted(uniforms).clip(max=len(self.probability) - 1)

    def rejections(self, levels: NDArray[np.integer], uniforms: Floats) -> Floats:
        """Return beta given K u, shape (n,), from ``uniforms`` (n, 2): whether it is above 0, and how much."""
        mean = self.mean_beta[levels]
        if self.settings.acceptance is not None:
            return np.asarray(mean)
        share = np.where(mean > 0, mean ** (1 - self.exponent), 0.5)
        certain = share >= 1.0
        share = np.where(certain, 0.5, share)
        spread = LESS_PARAMETER / np.minimum(share, 1 - share)
        drawn = betainccinv(spread * share, spread * (1 - share), uniforms[:, 1])
        is_positive = uniforms[:, 0] < self._positive(mean, self.exponent)
        return np.asarray(np.where(is_positive, np.where(certain, 1.0, drawn), 0.0))

    @property
    def linear(self) -> LinearLaw:
        """a and b as given, and Delta as given or as the law has it. Raises ScenarioError if acceptance is given."""
        if self.settings.acceptance is not None:
            raise ScenarioError(
                "tokens.acceptance: u says nothing of a rejection, so no threshold follows from it; give a number"
            )
        return LinearLaw(self.settings.a, self.settings.b, self.delta)

    def skip_rate(self, rule: DecodingRule) -> float:
        """Return the share of tokens that a rule skips, by the law itself and not by draws."""
        if rule.skip_rate is not None:
            return rule.skip_rate
        levels = np.arange(len(self.probability))
        skips = rule.skips(np.arange(len(levels)), levels, np.empty(0), 0.0, self.settings.uncertainty_samples)
        return float(min(1.0, self.probability[skips].sum()))

    def risk(self, threshold: float) -> float:
        """Return E[beta; u <= threshold]: the probability that a token is skipped and would have been rejected."""
        level = grid_level(threshold, self.settings.uncertainty_samples)
        return float((self.probability * self.mean_beta)[: level + 1].sum())

    def fit(self) -> list[tuple[str, float, float]]:
        """Return each statistic that the law is fitted to: its name, wanted, got by summing the law over the grid."""
        settings = self.settings
        if settings.acceptance is not None:
            return [("E[1 - beta]", settings.acceptance, 1 - self.risk(1.0))]
        rows = [
            (f"P(u <= {point.threshold:g})", point.rate, self.skip_rate(DecodingRule("u-hlm", point.threshold)))
            for point in settings.skip_rates
        ]
        return rows if settings.delta is None else [*rows, ("P(beta > 0)", settings.delta, self.delta)]

    def text(self) -> str:
        """Return the law as `uhlm-sim calibrate` prints it: what it is fitted to, the thresholds, the risk by level."""
        settings = self.settings
        given = "" if settings.delta is not None else f", which was not given (exponent {self.exponent:g})"
        has_law = settings.acceptance is None
        line = [f"E[beta | u] = clip({settings.a:g} u {settings.b:+g}, 0, 1)"] if has_law else []
        lines = [
            "SYNTHETIC: a law fitted to given statistics. No model was run, so there is nothing to calibrate.",
            "",
            "fitted to                wanted     got  residual",
            *(f"{name:<22} {target:>8.4f} {got:>7.4f} {abs(got - target):>9.4f}" for name, target, got in self.fit()),
            "",
            *line,
            f"u ~ Beta-binomial({settings.uncertainty_samples}), mean {self.mean:.4f}, alpha + beta {self.spread:.4f}",
            f"E[beta] {self.risk(1.0):.4f}, Delta = P(beta > 0) {self.delta:.4f}{given}",
        ]
        if has_law:
            law = self.linear
            lines.append(f"risk-averse -b/a {law.risk_averse:.4f}, risk-prone (Delta - b)/a {law.risk_prone:.4f}")
        lines += ["", "u_th      skips  E[beta; skipped]  per skipped token"]
        for threshold in self.uncertainty.tolist():
            skips, risk = self.skip_rate(DecodingRule("u-hlm", threshold)), self.risk(threshold)
            lines.append(f"{threshold:<6.2f} {skips:>8.4f}  {risk:>16.4f}  {risk / skips:>17.4f}")
        return "\n".join(lines)
