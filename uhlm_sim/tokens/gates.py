"""Gates: which drafts of an answer a phone keeps, one plain function each.

A gate takes the `Nodes` of a tree and returns one bool a node, True where the phone keeps its draft instead of sending
it.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from uhlm_sim.tokens.speculative import grid_level
from uhlm_sim.tokens.tree import Nodes

Gate = Callable[[Nodes], NDArray[np.bool_]]


def keep_none(nodes: Nodes) -> NDArray[np.bool_]:
    """Keep no draft: the LLM is asked about every one."""
    return np.zeros(len(nodes), dtype=np.bool_)


def keep_all(nodes: Nodes) -> NDArray[np.bool_]:
    """Keep every draft: the phone answers alone."""
    return np.ones(len(nodes), dtype=np.bool_)


def keep_sure(nodes: Nodes, threshold: float) -> NDArray[np.bool_]:
    """Keep a draft with u <= `threshold`, both taken on the grid 0, 1/K, ..., 1 (arXiv 2412.12687)."""
    level = grid_level(threshold, nodes.uncertainty_samples)
    return np.asarray(np.rint(nodes.uncertainty * nodes.uncertainty_samples) <= level)


def keep_some(nodes: Nodes, skip_rate: float) -> NDArray[np.bool_]:
    """Keep each draft with probability `skip_rate`, by the node's coin, whatever the draft."""
    return np.asarray(nodes.skip_coin < skip_rate)
