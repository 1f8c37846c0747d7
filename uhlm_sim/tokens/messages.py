"""Messages: what the upload of a draft carries, in bits, and what the LLM makes of it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from uhlm_sim.tokens.trace import TokenPath


@dataclass(frozen=True)
class Message:
    """An answer's messages, a value a token: the bits of a draft's upload, and whether the LLM accepts that draft."""

    draft_bits: NDArray[np.float64]
    accepted: NDArray[np.bool_]


Messages = Callable[[TokenPath, float], Message]


def full_distribution(path: TokenPath, distribution_bits: float) -> Message:
    """Send the SLM's whole distribution x, on which the LLM decides as speculative inference does.

    A draft d is accepted with probability min(1, y_d / x_d) (Leviathan, Kalman and Matias, Fast inference from
    transformers via speculative decoding, 2023), by the path's own coin. `distribution_bits` is what x weighs, V
    (bits_per_probability + bits_per_index).
    """
    return Message(np.full(len(path), distribution_bits, dtype=np.float64), path.accepted)
