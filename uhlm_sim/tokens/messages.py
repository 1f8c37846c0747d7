"""Messages: what the upload of a draft carries, in bits, and what the LLM makes of it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from uhlm_sim.tokens.tree import Nodes


@dataclass(frozen=True)
class Message:
    """What uploads are, a value a node: the bits of a draft's upload, and whether the LLM accepts that draft."""

    draft_bits: NDArray[np.float64]
    accepted: NDArray[np.bool_]


Messages = Callable[[Nodes, float], Message]


def full_distribution(nodes: Nodes, distribution_bits: float) -> Message:
    """Send the SLM's whole distribution x, on which the LLM decides as speculative inference does.

    A draft d is accepted with probability min(1, y_d / x_d) (Leviathan, Kalman and Matias, Fast inference from
    transformers via speculative decoding, 2023), by the node's own coin. `distribution_bits` is what x weighs, V
    (bits_per_probability + bits_per_index).
    """
    return Message(np.full(len(nodes), distribution_bits, dtype=np.float64), nodes.accepted)
