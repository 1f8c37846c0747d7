"""The mathematics of one drafted token: uncertainty, acceptance, resampling, linear law, thresholds, risk.

Pure numpy. Arrays of logits and distributions have the vocabulary on their last axis and any batch axes
before it.

Sources. [P] is the U-HLM paper (Oh, Kim, Park, Ko, Quek, Kim: arXiv 2412.12687); the accept-and-resample rule
is that of speculative sampling (Leviathan et al., arXiv 2211.17192; Chen et al., arXiv 2302.01318). "Our
reading" marks what the paper's public text leaves open and this package had to settle.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.floating]
ThetaLaw = Literal["uniform", "grid"]

THETA_LIMIT = 2.0  # [P] perturbs the temperature between 0 and 2


def softmax(logits: Floats, temperature: float = 1.0) -> Floats:
    """Return softmax(logits / temperature) over the last axis, in the precision of the logits.

    Temperature 0 is its limit: all mass on the first largest logit. Raises ValueError for a negative
    temperature.
    """
    if temperature < 0:
        raise ValueError(f"temperature = {temperature} is negative")
    if temperature == 0:
        hot = np.zeros_like(logits)
        np.put_along_axis(hot, logits.argmax(axis=-1)[..., None], 1, axis=-1)
        return hot
    shifted = logits - logits.max(axis=-1, keepdims=True)
    if temperature != 1:
        shifted /= np.asarray(temperature, dtype=shifted.dtype)
    np.exp(shifted, out=shifted)
    shifted /= shifted.sum(axis=-1, keepdims=True)
    return np.asarray(shifted)


# -- uncertainty ---------------------------------------------------------------------------------------------


def draw_thetas(law: ThetaLaw, uniforms: Floats) -> Floats:
    """Return K perturbed temperatures for each leading index of ``uniforms`` (..., K), numbers in [0, 1).

    "uniform": theta_k = 2 v_k, uniform on (0, 2), the best supported reading of [P]. "grid": linspace(0, 2,
    K) for every token, also seen in public code; its first member, theta = 0, means argmax. Our reading:
    which of the two is meant.
    """
    if law == "uniform":
        return np.asarray(THETA_LIMIT * uniforms)
    samples = uniforms.shape[-1]
    return np.broadcast_to(np.linspace(0, THETA_LIMIT, samples, dtype=uniforms.dtype), uniforms.shape)


def differ_probability(logits: Floats, draft: NDArray[np.integer], thetas: Floats) -> Floats:
    """Return P(a sample from softmax(logits / theta_k) is not the draft), shape (..., K).

    ``logits`` (..., V), ``draft`` (...), ``thetas`` (..., K). Theta divides the raw logits, whatever the
    temperature that the draft was sampled at. 1 - exp(l_d / theta - logsumexp(l / theta)); theta = 0 gives 0
    for the argmax and else 1. One forward pass serves all K: only this sum is repeated. A theta so small that
    every other token underflows acts as 0.
    """
    shifted = logits - logits.max(axis=-1, keepdims=True)
    of_draft = np.take_along_axis(shifted, draft[..., None], axis=-1)[..., 0]
    differs = np.empty(thetas.shape, dtype=np.float64)
    work = np.empty_like(shifted)
    tiny = np.finfo(shifted.dtype).tiny
    for k in range(thetas.shape[-1]):
        theta = np.maximum(thetas[..., k], 1e-6).astype(shifted.dtype)
        with np.errstate(under="ignore", over="ignore"):
            np.divide(shifted, theta[..., None], out=work)
            total = np.exp(work, out=work).sum(axis=-1)
            same = np.exp(of_draft / theta) / np.maximum(total, tiny)
        differs[..., k] = 1.0 - np.minimum(same, 1.0)
    # The limit itself, where a tie for the largest logit counts as its first member, as argmax has it.
    is_top = draft == logits.argmax(axis=-1)
    return np.where(thetas == 0, np.where(is_top, 0.0, 1.0)[..., None], differs)


def uncertainty_level(
    logits: Floats, draft: NDArray[np.integer], thetas: Floats, uniforms: Floats
) -> NDArray[np.integer]:
    """Return K u, how many of K perturbed samples differ from the draft: integers in 0..K, shape (...).

    [P]: u is the share of K tokens, sampled from softmax(logits / theta_k), that differ from the draft d.
    Given d these K comparisons are independent Bernoulli draws with `differ_probability`, so K uniform
    numbers (``uniforms``, (..., K)) give exactly that law without sampling a token (our shortcut; [P] samples
    them).
    """
    return np.asarray((uniforms < differ_probability(logits, draft, thetas)).sum(axis=-1))


# -- accept or resample --------------------------------------------------------------------------------------


def accept_probability(x_draft: ArrayLike, y_draft: ArrayLike) -> NDArray[np.float64]:
    """Return min(1, y_d / x_d), the chance that the LLM keeps the draft; 1 where x_d = 0 (never drafted)."""
    x, y = np.asarray(x_draft, dtype=np.float64), np.asarray(y_draft, dtype=np.float64)
    return np.divide(y, x, out=np.ones(np.broadcast(x, y).shape), where=y < x)


def rejection_probability(x_draft: ArrayLike, y_draft: ArrayLike) -> NDArray[np.float64]:
    """Return beta = max(0, 1 - y_d / x_d) [P]."""
    return 1.0 - accept_probability(x_draft, y_draft)


def residual(x: Floats, y: Floats) -> Floats:
    """Return norm(max(y - x, 0)), the law of what replaces a rejected draft; y where x = y (none is rejected)."""
    excess = np.maximum(y - x, 0)
    total = excess.sum(axis=-1, keepdims=True)
    return np.where(total > 0, excess / np.where(total > 0, total, 1), y)


def inverse_cdf(weights: Floats, uniforms: Floats) -> NDArray[np.int64]:
    """Return, for each leading index, the first i whose cumulative weight exceeds uniform x total weight.

    ``weights`` (..., V) need not be normalised; ``uniforms`` (...) in [0, 1). An index of zero weight is
    never returned.
    """
    cumulative = weights.reshape(-1, weights.shape[-1]).cumsum(axis=-1, dtype=np.float64)
    targets = np.asarray(uniforms, dtype=np.float64).reshape(-1) * cumulative[:, -1]
    first = [row.searchsorted(target, side="right") for row, target in zip(cumulative, targets, strict=True)]
    last = np.minimum(first, weights.shape[-1] - 1)
    return np.asarray(last, dtype=np.int64).reshape(weights.shape[:-1])


def accept_or_resample(
    x: Floats,
    y: Floats,
    draft: NDArray[np.integer],
    coin: Floats,
    resample: Floats,
    *,
    chance: Floats | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return (committed token, accepted) of hybrid inference for distributions x of the SLM and y of the LLM.

    The draft is kept where ``coin`` < min(1, y_d / x_d), else a token is drawn from `residual` by the uniform
    ``resample``; the committed token then has law y exactly, whatever x [P; 2211.17192, appendix A.1]. ``chance``
    are these probabilities where they were computed before.
    """
    if chance is None:
        chance = accept_probability(probability_of(x, draft), probability_of(y, draft))
    accepted = np.asarray(coin) < chance
    committed = np.array(draft, dtype=np.int64)
    rejected = ~accepted
    if rejected.any():
        committed[rejected] = inverse_cdf(residual(x[rejected], y[rejected]), np.asarray(resample)[rejected])
    return committed, accepted


def probability_of(law: Floats, tokens: NDArray[np.integer]) -> Floats:
    """Return the probability of one token (...) under each distribution (..., V)."""
    return np.asarray(np.take_along_axis(law, tokens[..., None], axis=-1)[..., 0])


# -- what an upload leaves of a distribution -----------------------------------------------------------------


def keep_largest(x: Floats, k: int) -> Floats:
    """Return distributions (..., V) with their k largest members kept and the rest of the mass spread evenly.

    That is what the LLM knows of x from its top k alone (CU-HLM, arXiv 2505.11788). Of equal members some are kept.
    """
    size = x.shape[-1]
    if k >= size:
        return x
    largest, kept = _largest(x, k)
    even = np.maximum(1 - kept.sum(axis=-1, keepdims=True, dtype=np.float64), 0) / (size - k)
    spread = np.broadcast_to(even, x.shape).astype(x.dtype)
    np.put_along_axis(spread, largest, kept, axis=-1)
    return spread


def _largest(x: Floats, k: int) -> tuple[NDArray[np.int64], Floats]:
    """Return the places and values of the k largest members, in any order."""
    largest = np.argpartition(x, x.shape[-1] - k, axis=-1)[..., x.shape[-1] - k :]
    return largest, np.take_along_axis(x, largest, axis=-1)


def only_largest(x: Floats, k: int) -> Floats:
    """Return distributions (..., V) with their k largest members alone, at sum 1 again (TK-SLT, arXiv 2509.04576).

    Of equal members some are kept.
    """
    if k >= x.shape[-1]:
        return x
    largest, kept = _largest(x, k)
    alone = np.zeros_like(x)
    np.put_along_axis(alone, largest, kept / kept.sum(axis=-1, keepdims=True), axis=-1)
    return alone


def round_to_lattice(x: Floats, levels: int) -> Floats:
    """Return distributions (..., V) whose members are multiples of 1/levels, the nearest to x.

    b = floor(levels x + 1/2); where the sum of b isn't levels, those that were rounded up most are lowered by one, or
    those rounded down most raised (quantise and sample, arXiv 2507.00605; Reznik, An algorithm for quantization of
    discrete probability distributions, 2011).
    """
    rows = (x * levels).astype(np.float64).reshape(-1, x.shape[-1])
    whole = np.floor(rows + 0.5)
    for row, rounded in zip(rows, whole, strict=True):
        surplus = int(rounded.sum()) - levels
        if surplus:
            sign = 1 if surplus > 0 else -1
            off = sign * (row - rounded)
            rounded[np.argpartition(off, abs(surplus) - 1)[: abs(surplus)]] -= sign
    return (whole / levels).reshape(x.shape).astype(x.dtype)


# -- what else a distribution says ---------------------------------------------------------------------------


def entropy(x: Floats) -> Floats:
    """Return -sum x ln x in nats; a probability of 0 adds nothing."""
    tiny = np.finfo(x.dtype).tiny
    return np.asarray(-(x * np.log(np.maximum(x, tiny))).sum(axis=-1))


def tail_masses(x: Floats, ladder: Sequence[int]) -> Floats:
    """Return the mass of x outside its top k for each k of the ladder, shape (..., len(ladder)).

    Summed over the tail itself, from its smallest member up, so that a small tail keeps its digits.
    """
    size = x.shape[-1]
    deepest = min(max(ladder, default=0), size)
    parted = np.partition(x, size - deepest, axis=-1) if deepest < size else x
    top = np.sort(parted[..., size - deepest :], axis=-1)
    rest = parted[..., : size - deepest].sum(axis=-1, keepdims=True, dtype=np.float64)
    below = rest + np.concatenate([np.zeros_like(rest), top.cumsum(axis=-1, dtype=np.float64)], axis=-1)
    return np.stack([below[..., max(deepest - k, 0)] for k in ladder], axis=-1)


def two_largest(x: Floats) -> tuple[Floats, Floats]:
    """Return the largest and the second largest member of each distribution (..., V), V at least 2."""
    second, first = np.moveaxis(np.partition(x, x.shape[-1] - 2, axis=-1)[..., -2:], -1, 0)
    return first, second


def rounded_up(values: Floats, bits: int, finest: int = -16) -> Floats:
    """Return numbers >= 0 rounded up to so many significant bits, and to multiples of 2**finest.

    An upper bound stays one, in 16 bits too, and compresses better.
    """
    step = np.maximum(np.frexp(values)[1] - bits, finest)
    return np.asarray(np.ldexp(np.ceil(np.ldexp(values, -step)), step), dtype=values.dtype)


# -- the linear law, the two thresholds, the risk ------------------------------------------------------------


@dataclass(frozen=True)
class LinearLaw:
    """The empirical law E[beta | u] = a u + b of [P], with Delta = P(y_d < x_d); there a = 0.82, b = -0.06.

    The fit is ordinary least squares over single tokens, each of weight one (our reading; [P] says only that
    it is linear).
    """

    a: float
    b: float
    delta: float

    @property
    def risk_averse(self) -> float:
        """-b / a [P]: the largest u at which the law still predicts no rejection. Not clipped to [0, 1]."""
        return -self.b / self.a if self.a else math.nan

    @property
    def risk_prone(self) -> float:
        """(Delta - b) / a [P]: the u at which the predicted rejection probability is Delta. Not clipped."""
        return (self.delta - self.b) / self.a if self.a else math.nan

    def rejection(self, u: ArrayLike) -> NDArray[np.float64]:
        """Return the predicted rejection probability clip(a u + b, 0, 1)."""
        return np.clip(self.a * np.asarray(u, dtype=np.float64) + self.b, 0.0, 1.0)


def fit_law(u: ArrayLike, x_draft: ArrayLike, y_draft: ArrayLike) -> LinearLaw:
    """Fit beta = a u + b to tokens (three arrays of one length) and count Delta = share with y_d < x_d.

    Raises ValueError where u doesn't vary (no slope to fit) or there are fewer than two tokens.
    """
    level, x, y = (np.asarray(values, dtype=np.float64) for values in (u, x_draft, y_draft))
    if level.size < 2 or np.ptp(level) == 0:
        raise ValueError("a line needs tokens of at least two different uncertainties")
    beta = rejection_probability(x, y)
    centred = level - level.mean()
    slope = float((centred * beta).sum() / (centred**2).sum())  # a dot product rounds by the number of threads
    return LinearLaw(a=slope, b=float(beta.mean() - slope * level.mean()), delta=float((y < x).mean()))


def grid_level(threshold: float, samples: int) -> int:
    """Return L such that u <= threshold is K u <= L on the grid 0, 1/K, ..., 1; -1 skips nothing, K all.

    Two thresholds are one if their levels are. 1e-9 guards products such as 20 x 0.35 that fall a hair short.
    """
    if math.isnan(threshold):
        raise ValueError("a threshold must be a number, not NaN")
    return int(min(max(math.floor(samples * min(max(threshold, -1.0), 2.0) + 1e-9), -1), samples))


@dataclass(frozen=True)
class PredictedRisk:
    """What the law predicts for a threshold: the share skipped, E[beta; skipped], and its upper bound."""

    skipped: float
    risk: float
    bound: float


def predicted_risk(law: LinearLaw, u: ArrayLike, threshold: float, samples: int) -> PredictedRisk:
    """Predict the risk of skipping at u <= threshold, with the empirical distribution of ``u`` as f.

    E[beta; skipped] = integral_0^u_th clip(a u + b, 0, 1) f(u) du <= clip(a u_th + b, 0, 1) P(u <= u_th). [P]
    has a theorem with an upper bound whose formula was not found: this is our reading. u_th is taken on the
    grid (the largest skipped u), which is tighter than the threshold itself; a threshold that skips nothing
    has risk and bound 0. Dividing by P(u <= u_th) gives the mean rejection probability of a skipped token.
    """
    values = np.asarray(u, dtype=np.float64)
    level = grid_level(threshold, samples)
    skips = np.rint(values * samples) <= level
    share = float(skips.mean())
    if level < 0:
        return PredictedRisk(skipped=0.0, risk=0.0, bound=0.0)
    risk = float(np.where(skips, law.rejection(values), 0.0).mean())
    return PredictedRisk(skipped=share, risk=risk, bound=float(law.rejection(level / samples)) * share)
