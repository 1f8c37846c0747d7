"""Gates: which drafts of an answer a phone keeps, one plain function each.

A gate takes the `Nodes` of a tree and returns one bool a node, True where the phone keeps its draft instead of sending
it.
"""

from collections.abc import Callable
from math import log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uhlm_sim.tokens.decoding_rule import at_period
from uhlm_sim.tokens.speculative import grid_level
from uhlm_sim.tokens.tree import Nodes

Gate = Callable[[Nodes], NDArray[np.bool_]]


Doubt = Callable[[Any, int], Any]  # of drafts, with the attributes of `Drafts` as arrays or numbers, and V

# What a phone can tell of its draft from the SLM's distribution alone, in [0, 1], by the name of the gate.
DOUBTS: dict[str, Doubt] = {
    "uncertainty": lambda of, _size: of.uncertainty,
    "entropy": lambda of, size: of.entropy / log(size),
    "top1": lambda of, _size: 1.0 - of.top1_probability,
    "margin": lambda of, _size: 1.0 - (of.top1_probability - of.second_probability),
}
MEASURED = ("uncertainty", "entropy", "top1_probability", "second_probability")  # what they are made of


def keep_none(nodes: Nodes) -> NDArray[np.bool_]:
    """Keep no draft: the LLM is asked about every one."""
    return np.zeros(len(nodes), dtype=np.bool_)


def keep_all(nodes: Nodes) -> NDArray[np.bool_]:
    """Keep every draft: the phone answers alone."""
    return np.ones(len(nodes), dtype=np.bool_)


def keep_sure(nodes: Nodes, threshold: float, gate: str = "uncertainty") -> NDArray[np.bool_]:
    """Keep a draft whose measure of doubt, a key of DOUBTS, is at most `threshold`.

    The uncertainty u is taken on its grid 0, 1/K, ..., 1 (arXiv 2412.12687), where two thresholds may be one.
    """
    if gate == "uncertainty":
        level = grid_level(threshold, nodes.uncertainty_samples)
        return np.asarray(np.rint(nodes.uncertainty * nodes.uncertainty_samples) <= level)
    return np.asarray(DOUBTS[gate](nodes, nodes.vocabulary_size) <= threshold)


def keep_some(nodes: Nodes, skip_rate: float) -> NDArray[np.bool_]:
    """Keep each draft with probability `skip_rate`, by the node's coin, whatever the draft."""
    return np.asarray(nodes.skip_coin < skip_rate)


def keep_every(nodes: Nodes, skip_rate: float) -> NDArray[np.bool_]:
    """Keep a share `skip_rate` of the drafts, evenly spaced along the answer, from where its phase says."""
    return at_period(nodes.position, skip_rate, nodes.phase)
