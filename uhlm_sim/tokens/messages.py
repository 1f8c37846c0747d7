"""Messages: what the upload of a draft carries, in bits, and what the LLM makes of it.

A message takes the `Nodes` of a tree and what a whole distribution weighs [bit], and returns a `Message`. Notation: x
and y are the distributions of SLM and LLM, d is the draft, V the size of the vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import ceil, comb, log2

import numpy as np
from numpy.typing import NDArray

from uhlm_sim.settings.policy import Payload
from uhlm_sim.tokens.speculative import LinearLaw
from uhlm_sim.tokens.tree import Nodes


@dataclass(frozen=True)
class Message:
    """What uploads are, a value a node: the bits of a draft's upload, and whether the LLM accepts that draft.

    ``known`` is False at nodes where what the LLM commits was never recorded under this message, ``drawn`` where the
    draft wasn't drawn under it; None: at none.
    ``refusal_bits`` come down after a refusal where the downlink is shared, for the phone to replace the draft, so that
    the base station has yet to be told its id; None: the LLM replaces it, at what downlink.on_resample says.
    """

    draft_bits: NDArray[np.float64]
    accepted: NDArray[np.bool_]
    known: NDArray[np.bool_] | None = None
    drawn: NDArray[np.bool_] | None = None
    refusal_bits: float | None = None


Messages = Callable[[Nodes, float], Message]


def full_distribution(nodes: Nodes, distribution_bits: float) -> Message:
    """Send the SLM's whole distribution x, on which the LLM decides as speculative inference does.

    A draft d is accepted with probability min(1, y_d / x_d) (Leviathan, Kalman and Matias, Fast inference from
    transformers via speculative decoding, 2023), by the node's own coin, else replaced from norm(max(y - x, 0)): the
    answer is the LLM's in law. It weighs V (bits_per_probability + bits_per_index).
    """
    return _of_equal_weight(nodes, distribution_bits)


def top_k(nodes: Nodes, distribution_bits: float, *, bits: float, k: int, vocabulary_size: int) -> Message:  # noqa: ARG001
    """Send the k largest probabilities; the LLM spreads the rest of the mass evenly over the others.

    Accepted with probability min(1, y_d / x'_d), x' being what the LLM makes of the message, else replaced from
    norm(max(y - x', 0)) (CU-HLM, arXiv 2505.11788). As d is drawn from x and not from x', the answer is not the LLM's
    in law unless k = V. It weighs k (bits_per_probability + bits_per_index).

    Where it wasn't recorded the verdict on x stands for that on x'. It is the same if d is accepted and within the top
    k, which is certain where x_d is more than the mass outside.
    """
    message = _of_equal_weight(nodes, bits)
    if k >= vocabulary_size or nodes.same_under_all_payloads:
        return message
    less = [place for place, size in enumerate(nodes.tail_ladder) if size <= k]
    outside = nodes.tail_mass[:, less[-1]] if less else np.ones(len(nodes))
    certain = nodes.drawn & nodes.accepted & (nodes.x_draft > outside)
    return replace(message, known=certain | nodes.judged if nodes.payload else certain)


def top_k_by_token(
    nodes: Nodes,
    distribution_bits: float,  # noqa: ARG001
    *,
    whole_bits: float,
    entry_bits: int,
    extra_bits: int,
    most_loss: float,
    law: LinearLaw,
) -> Message:
    """Send for each token the fewest largest probabilities that lose at most `most_loss`; the LLM spreads the rest.

    What k entries lose is sum_(i > k) |x_i - x'_i| / ((1 - x_d) l(-1) + x_d l(-beta_d)), with l(z) = ln(1 + e^z) and
    beta_d = clip(a u + b, 0, 1) by the pair's own law (CU-HLM, arXiv 2505.11788, its equation 26 as told by others).
    The sum is at most twice the mass outside the k largest, which stands for it here, and k is one of the trace's
    ladder or V, where nothing is lost. Else as `top_k`.
    """
    beta, x_draft = law.rejection(np.nan_to_num(nodes.uncertainty)), np.nan_to_num(nodes.x_draft)
    weight = (1 - x_draft) * np.logaddexp(0, -1) + x_draft * np.logaddexp(0, -beta)
    loses_little = 2 * nodes.tail_mass <= most_loss * weight[:, None]
    fits = np.concatenate([loses_little, np.ones((len(nodes), 1), dtype=np.bool_)], axis=1)
    place = fits.argmax(axis=1)
    of_entries = np.minimum(np.array(nodes.tail_ladder) * entry_bits, whole_bits)
    bits = np.append(of_entries, whole_bits)[place] + extra_bits
    outside = np.concatenate([nodes.tail_mass, np.zeros((len(nodes), 1))], axis=1)[np.arange(len(nodes)), place]
    is_whole = place == len(nodes.tail_ladder)
    certain = nodes.drawn & nodes.accepted & (nodes.x_draft > outside)
    return Message(bits, nodes.accepted, known=certain | (nodes.judged & is_whole), drawn=nodes.drawn)


def drawn_from(nodes: Nodes, distribution_bits: float, *, bits: float) -> Message:  # noqa: ARG001
    """Send a distribution x' that is near x; the draft is drawn from x'.

    Accepted with probability min(1, y_d / x'_d), else replaced from norm(max(y - x', 0)), so the answer is the LLM's in
    law. Quantised: x rounded to multiples of 1/levels (quantise and sample, arXiv 2507.00605), which weighs
    ceil(log2 C(levels + V - 1, V - 1)) + ceil(log2 V). Truncated: the k largest, at sum 1 again (TK-SLT, arXiv
    2509.04576), which weigh k (bits_per_probability + bits_per_index), the indices free unless billed.

    Where it wasn't recorded draft and verdict on x stand for those on x'.
    """
    message, unknown = _of_equal_weight(nodes, bits), np.zeros(len(nodes), dtype=np.bool_)
    return message if _knows_payload(nodes) else replace(message, known=unknown, drawn=unknown)


def ids(nodes: Nodes, distribution_bits: float, *, bits: float, refusal_bits: float) -> Message:  # noqa: ARG001
    """Send the draft's id and its probability x_d; after a refusal y comes down and the phone replaces the draft.

    Verdict and replacement are those of the whole distribution, drawn at the phone (DSSD, arXiv 2507.12000), so the
    answer is the LLM's in law. It weighs ceil(log2 V) + bits_per_probability; a refusal a whole distribution downwards,
    which takes time where the downlink is shared. The phone's next upload tells the id of what it drew.
    """
    return replace(_of_equal_weight(nodes, bits), refusal_bits=refusal_bits)


def ids_own_token(nodes: Nodes, distribution_bits: float, *, bits: float) -> Message:  # noqa: ARG001
    """Send the draft's id and its probability x_d; after a refusal the LLM commits a token of its own, a draw of y.

    Without x it can't draw from norm(max(y - x, 0)), so the answer isn't the LLM's in law: a token t is committed with
    probability min(x_t, y_t) + y_t sum_i max(x_i - y_i, 0). It weighs ceil(log2 V) + bits_per_probability.

    Where it wasn't recorded a replacement from norm(max(y - x, 0)) stands for the LLM's own token.
    """
    certain = nodes.drawn & nodes.accepted
    known = certain | nodes.judged if _knows_payload(nodes) else certain
    return replace(_of_equal_weight(nodes, bits), known=known)


def _of_equal_weight(nodes: Nodes, bits: float) -> Message:
    """Return messages that weigh the same, judged as the tree has them."""
    weights = np.full(len(nodes), bits, dtype=np.float64)
    return Message(weights, nodes.accepted, known=nodes.judged, drawn=nodes.drawn)


def _knows_payload(nodes: Nodes) -> bool:
    """Say whether a tree has what its payload makes of tokens: one of whole distributions hasn't."""
    return bool(nodes.payload) or nodes.same_under_all_payloads


def lattice_bits(vocabulary_size: int, levels: int) -> int:
    """Return ceil(log2 C(levels + V - 1, V - 1)): bits that tell apart all distributions of multiples of 1/levels."""
    return (comb(levels + vocabulary_size - 1, levels) - 1).bit_length()


def id_bits(vocabulary_size: int) -> int:
    """Return ceil(log2 V): the bits of a token's id."""
    return ceil(log2(vocabulary_size))


def full_bits(payload: Payload, vocabulary_size: int) -> float:
    """Return what a whole distribution weighs [bit]; an index counts only for the kind full."""
    index = payload.bits_per_index or 0 if payload.kind == "full" else 0
    return float(vocabulary_size * (payload.bits_per_probability + index))


def upload_bits(payload: Payload, vocabulary_size: int, *, bill: str) -> float:
    """Return what the upload of one draft weighs [bit].

    With the bill "all" what the payload's paper leaves out is counted: the draft's own id (full, top-k, truncated) and
    the ids of the entries (truncated, but of all V). With most_loss an upload weighs at most a whole distribution.
    """
    of_id = id_bits(vocabulary_size)
    if payload.kind == "quantised":
        return float(lattice_bits(vocabulary_size, payload.levels or 1) + of_id)
    if payload.kind == "ids":
        return float(of_id + payload.bits_per_probability)
    extra = of_id if bill == "all" else 0
    if payload.k is not None and (payload.kind == "top-k" or payload.k < vocabulary_size):
        return float(min(payload.k, vocabulary_size) * entry_bits(payload, vocabulary_size, bill=bill) + extra)
    return full_bits(payload, vocabulary_size) + extra


def entry_bits(payload: Payload, vocabulary_size: int, *, bill: str) -> int:
    """Return what one of the largest probabilities weighs with its id [bit]."""
    index = payload.bits_per_index
    if index is None:
        index = 0 if payload.kind == "truncated" and bill == "paper" else id_bits(vocabulary_size)
    return payload.bits_per_probability + index


def message_of(payload: Payload, vocabulary_size: int, *, bill: str, law: LinearLaw | None = None) -> Messages:
    """Return the message of a payload, billed by `upload_bits`; one with `most_loss` needs the pair's law."""
    bits = upload_bits(payload, vocabulary_size, bill=bill)
    if payload.kind == "full" or (payload.kind == "truncated" and (payload.k or 0) >= vocabulary_size):
        return partial(_billed, bits=bits)
    if payload.most_loss is not None:
        assert law is not None
        whole_bits = full_bits(payload, vocabulary_size)
        return partial(
            top_k_by_token,
            whole_bits=whole_bits,
            entry_bits=entry_bits(payload, vocabulary_size, bill=bill),
            extra_bits=int(bits - whole_bits),
            most_loss=payload.most_loss,
            law=law,
        )
    if payload.kind == "top-k":
        return partial(top_k, bits=bits, k=min(payload.k or 1, vocabulary_size), vocabulary_size=vocabulary_size)
    if payload.replaced_by == "base-station":
        return partial(ids_own_token, bits=bits)
    if payload.kind == "ids":
        return partial(ids, bits=bits, refusal_bits=full_bits(payload, vocabulary_size))
    return partial(drawn_from, bits=bits)


def _billed(nodes: Nodes, distribution_bits: float, *, bits: float) -> Message:  # noqa: ARG001
    return full_distribution(nodes, bits)
