"""The random numbers of one answer, keyed by prompt, sample and position, and by no rule."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from uhlm_sim.rng import stream


@dataclass(frozen=True)
class AnswerDraws:
    """Uniform numbers in [0, 1) for one answer: arrays (n,), and (n, K) for ``theta`` and ``differ``.

    ``draft`` draws the SLM's token, ``coin`` decides on its acceptance (a multiple of 2^-24, so a float32
    holds it), ``resample`` draws from the residual, ``skip`` is rand-hlm's coin, ``direct`` draws the token
    of the rule `llm`.
    """

    draft: NDArray[np.float64]
    coin: NDArray[np.float64]
    resample: NDArray[np.float64]
    skip: NDArray[np.float64]
    direct: NDArray[np.float64]
    theta: NDArray[np.float64]
    differ: NDArray[np.float64]


def answer_draws(seed: int, prompt_id: str, sample: int, positions: int, uncertainty_samples: int) -> AnswerDraws:
    """Return the draws of the first ``positions`` tokens of an answer.

    The rule is no part of the key: two rules share every draw, so their answers are paired and coincide until
    the first token on which they decide differently. Asking for more positions leaves the first ones as they
    were, and the number K of uncertainty samples changes none of the first five.
    """
    decide = stream(seed, "tokens", prompt_id, sample).random((positions, 5))
    perturb = stream(seed, "tokens", prompt_id, sample, "uncertainty").random((positions, 2, uncertainty_samples))
    return AnswerDraws(
        draft=decide[:, 0],
        coin=np.floor(decide[:, 1] * 2**24) / 2**24,
        resample=decide[:, 2],
        skip=decide[:, 3],
        direct=decide[:, 4],
        theta=perturb[:, 0],
        differ=perturb[:, 1],
    )
