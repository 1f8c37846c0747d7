"""The tree of forward passes: what two models say after each prefix that some recorded answer committed.

Draws are keyed by prompt, sample and position, and by no rule, so answers that different rules give to one prompt share
their beginnings. A node is such a prefix; its children are the tokens that a scheme may commit there: the draft, what
the LLM makes of the draft, and the LLM's own token. A scheme is a walk on the tree.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uhlm_sim.tables import QUALITY
from uhlm_sim.tokens.decoding_rule import HLM
from uhlm_sim.tokens.draws import answer_draws
from uhlm_sim.tokens.speculative import accept_probability
from uhlm_sim.tokens.trace_file import UNKNOWN_LEVEL, Columns, TraceHeader

ENDS, UNKNOWN = -1, -2  # in place of a node: the answer ends there; no recorded answer went there
NO_TOKEN = -1
FACTS = ("uncertainty", "x_draft", "y_draft", "accept_coin", "entropy", "top1_probability", "tail_mass")

Integers = NDArray[np.integer]
Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Nodes:
    """Committed prefixes and what is known of the next token there: arrays of length n, one entry a node.

    ``position`` counts the tokens before it. ``draft`` is the SLM's token, ``uncertainty`` its u on the grid 0, 1/K,
    ..., 1 (K is ``uncertainty_samples``), ``x_draft`` and ``y_draft`` its probabilities under SLM and LLM;
    ``accept_coin`` in [0, 1) decides on it, and ``skip_coin`` in [0, 1) skips at random. ``entropy`` (nats) and
    ``top1_probability`` belong to the SLM's distribution, and ``tail_mass`` (n, ladder) is its mass outside the top k
    for each k of ``tail_ladder``. Where only answers of the LLM alone came by, all that a draft would have is NaN.

    ``verdict`` is the token that is committed where the draft is sent: itself, or its replacement; ``by_llm`` is the
    LLM's own; both are NO_TOKEN where not known. ``after_draft``, ``after_verdict`` and ``after_llm`` are the nodes
    that follow, or ENDS, or UNKNOWN. ``endings`` has the quality of whole answers by last node and last token: the two
    cosines of `uhlm_sim.tables.QUALITY`. Arrays can't be written to: the policies of a run share them.
    """

    position: Integers
    draft: Integers
    uncertainty: Floats
    x_draft: Floats
    y_draft: Floats
    accept_coin: Floats
    skip_coin: Floats
    entropy: Floats
    top1_probability: Floats
    tail_mass: Floats
    verdict: Integers
    by_llm: Integers
    after_draft: Integers
    after_verdict: Integers
    after_llm: Integers
    uncertainty_samples: int
    tail_ladder: tuple[int, ...] = ()
    endings: Mapping[tuple[int, int], tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for value in vars(self).values():
            if isinstance(value, np.ndarray):
                value.flags.writeable = False

    def __len__(self) -> int:
        return len(self.draft)

    @cached_property
    def onward(self) -> tuple[list[int], list[int], list[int]]:
        """The nodes after draft, verdict and the LLM's own token, as Python's own numbers: walks take them singly."""
        return self.after_draft.tolist(), self.after_verdict.tolist(), self.after_llm.tolist()

    @cached_property
    def accept_probability(self) -> Floats:
        """min(1, y_d / x_d); NaN where nothing is drafted."""
        return np.where(np.isnan(self.x_draft), np.nan, accept_probability(self.x_draft, self.y_draft))

    @cached_property
    def accepted(self) -> NDArray[np.bool_]:
        """Whether the LLM accepts the draft, by the node's coin."""
        return self.accept_coin < self.accept_probability


@dataclass(frozen=True, eq=False)
class AnswerTree:
    """The part of the tree that belongs to one prompt and sample.

    ``root`` is the node of the prompt alone, ``hlm`` the nodes along the answer of plain HLM: where a walk goes that
    leaves what was recorded. ``is_chain``: there is one text, whatever a scheme decides, as with synthetic tokens.
    """

    prompt: int
    sample: int
    prompt_tokens: int
    nodes: Nodes
    root: int
    hlm: Integers
    is_chain: bool = False


def chain(prompt: int, sample: int, prompt_tokens: int, *, verdict: Integers, **facts: Any) -> AnswerTree:
    """Return the tree of one answer that no decision changes: node i is followed by i + 1, whatever is committed.

    ``facts`` are the arrays of `Nodes` that a path has (draft, uncertainty, ..., tail_mass); ``verdict`` its tokens.
    """
    count = len(verdict)
    onward = np.r_[np.arange(1, count), ENDS].astype(np.int32)
    nodes = Nodes(
        position=np.arange(count, dtype=np.int32),
        verdict=verdict,
        by_llm=verdict,
        after_draft=onward,
        after_verdict=onward,
        after_llm=onward,
        **facts,
    )
    return AnswerTree(prompt, sample, prompt_tokens, nodes, 0, np.arange(count), is_chain=True)


def grow(rows: Mapping[str, NDArray[Any]], vocabulary_size: int) -> tuple[NDArray[np.int64], Integers, dict[str, Any]]:
    """Join recorded answers that share prefixes into a tree.

    ``rows`` are arrays of one entry a recorded token, those of an answer in a run and in order: answer (which prompt
    and sample), position, draft, committed, drafted (False for answers of the LLM alone), skipped, accepted. Where answers
    hold different drafts at one prefix, by arithmetic noise, the first one's stands for all.

    Returns each row's node, the row that each node takes its facts from, and the links of `Nodes`.
    """
    position, committed, answer = rows["position"], rows["committed"].astype(np.int64), rows["answer"]
    node_of = np.full(len(position), UNKNOWN, dtype=np.int64)
    order = np.argsort(position, kind="stable")
    level_ends = np.searchsorted(position[order], np.arange(position.max() + 2) if len(position) else [0])
    count, key_pieces, child_pieces = 0, [], []
    last = np.r_[position[1:] == 0, True]  # the row ends its answer
    for depth in range(len(level_ends) - 1):
        here = order[level_ends[depth] : level_ends[depth + 1]]
        if depth == 0:
            _, place = np.unique(answer[here], return_inverse=True)
        else:
            before = here - 1
            keys, place = np.unique(node_of[before] * vocabulary_size + committed[before], return_inverse=True)
            key_pieces.append(keys)
            child_pieces.append(count + np.arange(len(keys)))
        node_of[here] = count + place
        count += int(place.max()) + 1
    ended = np.unique(node_of[last] * vocabulary_size + committed[last])
    key_pieces.append(ended)
    child_pieces.append(np.full(len(ended), ENDS))
    keys, children = np.concatenate(key_pieces), np.concatenate(child_pieces)
    by_key = np.argsort(keys, kind="stable")
    keys, children = keys[by_key], children[by_key]

    def first_row(among: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return the first of some rows at each node, -1 without any."""
        first = np.full(count, -1)
        candidates = np.flatnonzero(among)[::-1]
        first[node_of[candidates]] = candidates
        return first

    def follow(tokens: NDArray[np.int64]) -> NDArray[np.int32]:
        wanted = np.where(tokens == NO_TOKEN, -1, np.arange(count) * vocabulary_size + tokens)
        place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return np.where(keys[place] == wanted, children[place], UNKNOWN).astype(np.int32)

    drafted = rows["drafted"]
    facts_row = first_row(drafted)
    facts_row = np.where(facts_row < 0, first_row(~drafted), facts_row)
    has_draft = drafted[facts_row]
    draft = np.where(has_draft, rows["draft"][facts_row].astype(np.int64), NO_TOKEN)
    same_draft = drafted & (rows["draft"] == draft[node_of])
    sent_row, llm_row = first_row(same_draft & ~rows["skipped"]), first_row(~drafted)
    replaced = np.where(sent_row < 0, NO_TOKEN, committed[sent_row])
    verdict = np.where(has_draft & rows["accepted"][facts_row], draft, replaced)
    by_llm = np.where(llm_row < 0, NO_TOKEN, committed[llm_row])
    # A node where only the LLM's own answers came by knows nothing of a draft, so no draft's walk goes there.
    after_draft, after_verdict = (
        np.where((after >= 0) & ~has_draft[after], np.int32(UNKNOWN), after) for after in map(follow, (draft, verdict))
    )
    links = {
        "draft": draft.astype(np.int32),
        "verdict": verdict.astype(np.int32),
        "by_llm": by_llm.astype(np.int32),
        "after_draft": after_draft,
        "after_verdict": after_verdict,
        "after_llm": follow(by_llm),
    }
    return node_of, facts_row, links


def plant(
    header: TraceHeader, columns: Columns, arrays: Mapping[str, NDArray[Any]]
) -> dict[tuple[int, int], AnswerTree]:
    """Return (prompt, sample) -> its part of the tree of a trace, for all evaluation prompts.

    ``columns`` are the trace's, ``arrays`` their rows as `Nodes` has them.
    """
    prompts = [number for number, entry in enumerate(header.prompts) if entry.split == "evaluation"]
    mine = np.flatnonzero(columns["prompt"] < len(prompts))  # evaluation prompts come first
    answer = columns["prompt"][mine].astype(np.int64) * header.samples + columns["sample"][mine]
    facts = {name: values[mine] for name, values in arrays.items()}
    position, drafted = columns["position"][mine].astype(np.int64), columns["level"][mine] != UNKNOWN_LEVEL
    rows = {
        "answer": answer,
        "position": position,
        "draft": facts["draft"],
        "committed": facts["committed"],
        "drafted": drafted,
        "skipped": columns["skipped"][mine],
        "accepted": facts["accept_coin"] < accept_probability(facts["x_draft"], facts["y_draft"]),
    }
    node_of, row_of, links = grow(rows, header.vocabulary_size)
    last = np.flatnonzero(np.r_[position[1:] == 0, True])
    cosines = np.stack([columns[name][mine][last] for name in QUALITY], axis=1).tolist()
    endings = zip(node_of[last].tolist(), facts["committed"][last].tolist(), strict=True)
    draws = [
        answer_draws(header.seed, header.prompts[prompt].id, sample, header.max_tokens, 0).skip
        for prompt in prompts
        for sample in range(header.samples)
    ]
    nodes = Nodes(
        position=position[row_of],
        skip_coin=np.stack(draws)[answer[row_of], position[row_of]],
        **{name: facts[name][row_of] for name in FACTS},
        **links,
        uncertainty_samples=header.uncertainty_samples,
        tail_ladder=header.tail_ladder,
        endings=dict(zip(endings, map(tuple, cosines), strict=True)),
    )
    is_hlm = np.array([entry.rule == HLM for entry in header.paths])[columns["path"][mine]]
    starts = np.searchsorted(answer, np.arange(len(draws)))
    trees = {}
    for number, start in enumerate(starts.tolist()):
        prompt, sample = divmod(number, header.samples)
        hlm = node_of[(answer == number) & is_hlm] if is_hlm.any() else np.empty(0, dtype=np.int64)
        tokens = header.prompts[prompt].tokens
        trees[prompt, sample] = AnswerTree(prompt, sample, tokens, nodes, int(node_of[start]), hlm)
    return trees
