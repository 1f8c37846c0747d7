"""The tree of forward passes: what two models say after each prefix that some recorded answer committed.

Draws are keyed by prompt, sample and position, and by no rule, so answers that different rules give to one prompt share
their beginnings. A node is such a prefix; its children are the tokens that a scheme may commit there: the draft, what
the LLM makes of the draft, and the LLM's own token. A scheme is a walk on the tree.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import isnan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uhlm_sim.tables import QUALITY
from uhlm_sim.tokens.decoding_rule import HLM
from uhlm_sim.tokens.draws import answer_draws
from uhlm_sim.tokens.payload_law import draws_anew, keeps_law
from uhlm_sim.tokens.speculative import accept_probability
from uhlm_sim.tokens.trace_file import UNKNOWN_LEVEL, Columns, TraceHeader

ENDS, UNKNOWN = -1, -2  # in place of a node: the answer ends there; no recorded answer went there
NO_TOKEN = -1
FACTS = (
    "uncertainty",
    "x_draft",
    "y_draft",
    "accept_coin",
    "entropy",
    "top1_probability",
    "second_probability",
    "tail_mass",
)

Integers = NDArray[np.integer]
Floats = NDArray[np.floating]


@dataclass(frozen=True, kw_only=True)
class Drafts:
    """Drafts at some prefixes: arrays of length n that can't be written to, since the policies of a run share them.

    ``draft`` is the SLM's token, ``uncertainty`` its u on the grid 0, 1/K, ..., 1, ``x_draft`` and ``y_draft`` its
    probabilities under SLM and LLM; ``accept_coin`` in [0, 1) decides on it. ``entropy`` (nats), ``top1_probability``
    and ``second_probability``, its two largest, belong to the SLM's distribution, and ``tail_mass`` (n, ladder) is its
    mass outside the top k for each k of the trace's ladder, rounded up to a few bits. Where only answers of the LLM
    alone came by, all that a draft would have is NaN.
    """

    draft: Integers
    uncertainty: Floats
    x_draft: Floats
    y_draft: Floats
    accept_coin: Floats
    entropy: Floats
    top1_probability: Floats
    second_probability: Floats
    tail_mass: Floats

    def __post_init__(self) -> None:
        for value in vars(self).values():
            if isinstance(value, np.ndarray):
                value.flags.writeable = False

    def __len__(self) -> int:
        return len(self.draft)

    @cached_property
    def accept_probability(self) -> Floats:
        """min(1, y_d / x_d), whether the draft was sent or not; NaN where nothing is drafted."""
        return np.where(np.isnan(self.x_draft), np.nan, accept_probability(self.x_draft, self.y_draft))

    @cached_property
    def accepted(self) -> NDArray[np.bool_]:
        """Whether the LLM accepts the draft, by its coin; known for skipped tokens too."""
        return self.accept_coin < self.accept_probability


@dataclass(frozen=True, kw_only=True)
class Nodes(Drafts):
    """Committed prefixes and what is known of the next token there: arrays of length n, one entry a node.

    ``position`` counts the tokens before it. Its draft is that of `Drafts`, u on a grid of ``uncertainty_samples`` and
    tails for each k of ``tail_ladder``; ``skip_coin`` in [0, 1) skips at random, and ``phase`` in [0, 1), one for each
    answer, is where even spacing begins.

    ``verdict`` is the token that is committed where the draft is sent: itself, or its replacement; ``by_llm`` is the
    LLM's own along its answers; ``bonus`` is the token that it adds to a window of accepted drafts: the payload's
    verdict if that keeps the LLM's law, else the verdict on a whole distribution. All are NO_TOKEN where not known.
    ``after_draft``, ``after_verdict``, ``after_llm`` and ``after_bonus`` are the nodes that follow, or ENDS, or
    UNKNOWN.

    ``payload`` is a law of `payload_law.py`. A node is ``recorded`` where an answer under it drafted there, so that its
    facts are that law's, ``drawn`` where its draft is, and ``judged`` where its verdict is; elsewhere what was recorded
    under a whole distribution stands for it, or under another payload. ``endings`` has the quality of whole answers by
    last node and last token: those of `uhlm_sim.tables.QUALITY`.
    """

    position: Integers
    skip_coin: Floats
    phase: Floats
    verdict: Integers
    by_llm: Integers
    bonus: Integers
    after_draft: Integers
    after_verdict: Integers
    after_llm: Integers
    after_bonus: Integers
    recorded: NDArray[np.bool_]
    drawn: NDArray[np.bool_]
    judged: NDArray[np.bool_]
    uncertainty_samples: int
    vocabulary_size: int
    payload: str = ""
    same_under_all_payloads: bool = False  # without distributions a payload is no more than its bits
    tail_ladder: tuple[int, ...] = ()
    endings: Mapping[tuple[int, int], tuple[float, ...]] = field(default_factory=dict)

    @cached_property
    def onward(self) -> tuple[list[int], ...]:
        """The nodes after draft, verdict, the LLM's own and bonus token, as Python's own numbers."""
        after = self.after_draft, self.after_verdict, self.after_llm, self.after_bonus
        return tuple(nodes.tolist() for nodes in after)


@dataclass(frozen=True, eq=False)
class AnswerTree:
    """The part of the tree that belongs to one prompt and sample.

    ``root`` is the node of the prompt alone, ``hlm`` the nodes along the answer of plain HLM: where a walk goes that
    leaves what was recorded. ``is_chain``: there is one text, whatever a scheme decides, as with synthetic tokens.
    ``grows``: what is unknown can be had (see `tokens/live.py`).
    """

    prompt: int
    sample: int
    prompt_tokens: int
    nodes: Nodes
    root: int
    hlm: Integers
    is_chain: bool = False
    grows: bool = False

    def grow(self, node: int, token: int) -> int:  # noqa: ARG002
        """Return the node after a token that was never committed there: UNKNOWN, as no model is at hand."""
        return UNKNOWN


def chain(
    prompt: int, sample: int, prompt_tokens: int, *, verdict: Integers, skip_coin: Floats, **facts: Any
) -> AnswerTree:
    """Return the tree of one answer that no decision changes: node i is followed by i + 1, whatever is committed.

    ``facts`` are the arrays of `Nodes` that a path has (draft, uncertainty, ..., tail_mass); ``verdict`` its tokens.
    """
    count = len(verdict)
    known = np.ones(count, dtype=np.bool_)
    onward = np.r_[np.arange(1, count), ENDS].astype(np.int32)
    nodes = Nodes(
        position=np.arange(count, dtype=np.int32),
        verdict=verdict,
        by_llm=verdict,
        bonus=verdict,
        after_draft=onward,
        after_verdict=onward,
        after_llm=onward,
        after_bonus=onward,
        skip_coin=skip_coin,
        phase=np.repeat(skip_coin[:1], count),
        recorded=known,
        drawn=known,
        judged=known,
        same_under_all_payloads=True,
        **facts,
    )
    return AnswerTree(prompt, sample, prompt_tokens, nodes, 0, np.arange(count), is_chain=True)


class Rows:
    """The rows of recorded answers, joined where they share prefixes.

    ``rows`` are arrays of one entry a recorded token, those of an answer in a run and in order: answer (which prompt
    and sample), position, draft, committed, drafted (False for answers of the LLM alone), skipped, accepted. ``node``
    is each row's node, of ``count``.
    """

    def __init__(self, rows: Mapping[str, NDArray[Any]], vocabulary_size: int) -> None:
        self._vocabulary_size = vocabulary_size
        self._draft, self._drafted = rows["draft"].astype(np.int64), rows["drafted"]
        self._skipped, self._accepted = rows["skipped"], rows["accepted"]
        self._committed = rows["committed"].astype(np.int64)
        position, answer = rows["position"], rows["answer"]
        self.node = np.full(len(position), UNKNOWN, dtype=np.int64)
        self.count = 0
        self._keys, self._children = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        order = np.argsort(position, kind="stable")
        for here in np.split(order, np.flatnonzero(np.diff(position[order])) + 1):
            keys = answer[here] if not self.count else self._key(here - 1)
            keys, place = np.unique(keys, return_inverse=True)
            self.node[here] = self.count + place
            if self.count:
                self._keys = np.append(self._keys, keys)
                self._children = np.append(self._children, self.count + np.arange(len(keys)))
            self.count += len(keys)
        ended = np.unique(self._key(np.flatnonzero(np.r_[position[1:] == 0, True])))
        self._keys, self._children = np.append(self._keys, ended), np.append(self._children, np.full(len(ended), ENDS))
        order = np.argsort(self._keys, kind="stable")
        self._keys, self._children = self._keys[order], self._children[order]

    def links(
        self, of_payload: NDArray[np.bool_], of_full: NDArray[np.bool_], *, drawn_anew: bool, keeps_law: bool
    ) -> tuple[Integers, dict[str, Any]]:
        """Return the row that each node takes its facts from, and the links of `Nodes`, for one payload.

        ``of_payload`` says which rows were recorded under it, ``of_full`` which with whole distributions: they stand in
        where the former are missing. With ``drawn_anew`` the payload's drafts are its own, else those of a whole
        distribution; unless its verdict ``keeps_law``, the LLM's, bonus tokens are verdicts on a whole distribution.
        Where answers hold different drafts at one prefix, by arithmetic noise, the first one's stands for all.
        """
        row, drafted = self._first(of_payload & self._drafted), self._drafted
        recorded = row >= 0
        drawn = recorded if drawn_anew else recorded | (self._first(of_full & drafted) >= 0)
        for stand_in in (of_full & drafted, ~drafted, drafted):
            row = np.where(row < 0, self._first(stand_in), row)
        has_draft = drafted[row]
        draft = np.where(has_draft, self._draft[row], NO_TOKEN)
        is_sent = drafted & ~self._skipped & (self._draft == draft[self.node])
        sent, sent_in_full = self._first(is_sent & of_payload), self._first(is_sent & of_full)
        sent = np.where(recorded, sent, sent_in_full)
        verdict = np.where(has_draft & self._accepted[row], draft, self._replacement(sent))
        in_full = self._first(of_full & drafted)
        bonus = np.where(self._accepted[in_full], self._draft[in_full], self._replacement(sent_in_full))
        bonus = np.where(in_full < 0, NO_TOKEN, bonus)
        bonus = np.where(recorded, verdict, NO_TOKEN) if keeps_law else bonus
        by_llm = self._first(~drafted)
        by_llm = np.where(by_llm < 0, NO_TOKEN, self._committed[by_llm])
        # A node where only the LLM's own answers came by knows nothing of a draft, so no draft's walk goes there.
        after_draft, after_verdict, after_bonus = (
            np.where((after >= 0) & ~has_draft[after], np.int32(UNKNOWN), after)
            for after in map(self._follow, (draft, verdict, bonus))
        )
        return row, {
            "draft": draft.astype(np.int32),
            "verdict": verdict.astype(np.int32),
            "by_llm": by_llm.astype(np.int32),
            "bonus": bonus.astype(np.int32),
            "after_draft": after_draft,
            "after_verdict": after_verdict,
            "after_llm": self._follow(by_llm),
            "after_bonus": after_bonus,
            "recorded": recorded,
            "drawn": drawn,
            "judged": recorded & (verdict != NO_TOKEN),
        }

    def _key(self, rows: Integers) -> NDArray[np.int64]:
        """Return a number for the node and the token that some rows committed there."""
        return np.asarray(self.node[rows] * self._vocabulary_size + self._committed[rows])

    def _replacement(self, sent: Integers) -> NDArray[np.int64]:
        """Return what was committed in some rows, NO_TOKEN for -1."""
        return np.where(sent < 0, NO_TOKEN, self._committed[sent])

    def _first(self, among: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return the first of some rows at each node, -1 without any."""
        first = np.full(self.count, -1)
        candidates = np.flatnonzero(among)[::-1]
        first[self.node[candidates]] = candidates
        return first

    def _follow(self, tokens: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the node after a token at each node."""
        keys = np.where(tokens == NO_TOKEN, -1, np.arange(self.count) * self._vocabulary_size + tokens)
        place = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[place] == keys, self._children[place], UNKNOWN).astype(np.int32)


def plant(
    header: TraceHeader, columns: Columns, arrays: Mapping[str, NDArray[Any]]
) -> dict[str, dict[tuple[int, int], AnswerTree]]:
    """Return payload -> (prompt, sample) -> its part of the tree of a trace, for all evaluation prompts.

    ``columns`` are the trace's, ``arrays`` their rows as `Nodes` has them. The payload "" is a whole distribution.
    """
    prompts = sum(entry.split == "evaluation" for entry in header.prompts)
    mine = np.flatnonzero(columns["prompt"] < prompts)  # evaluation prompts come first
    facts = {name: values[mine] for name, values in arrays.items()}
    answer = columns["prompt"][mine].astype(np.int64) * header.samples + columns["sample"][mine]
    position = columns["position"][mine].astype(np.int64)
    rows = Rows(
        {
            "answer": answer,
            "position": position,
            "draft": facts["draft"],
            "committed": facts["committed"],
            "drafted": columns["level"][mine] != UNKNOWN_LEVEL,
            "skipped": columns["skipped"][mine],
            "accepted": facts["accept_coin"] < accept_probability(facts["x_draft"], facts["y_draft"]),
        },
        header.vocabulary_size,
    )
    last = np.flatnonzero(np.r_[position[1:] == 0, True])
    last = last[np.argsort(columns["level"][mine][last] != UNKNOWN_LEVEL, kind="stable")]  # the LLM's own know less
    cosines = np.stack([columns[name][mine][last] for name in QUALITY], axis=1).tolist()
    endings = zip(rows.node[last].tolist(), facts["committed"][last].tolist(), strict=True)
    quality: dict[tuple[int, int], tuple[float, ...]] = {}
    for ending, values in zip(endings, cosines, strict=True):  # of equal answers one may know what another doesn't
        before = quality.get(ending, values)
        quality[ending] = tuple(old if isnan(new) else new for new, old in zip(values, before, strict=True))
    answers = [(prompt, sample) for prompt in range(prompts) for sample in range(header.samples)]
    draws = [
        answer_draws(header.seed, header.prompts[prompt].id, sample, header.max_tokens, 0).skip
        for prompt, sample in answers
    ]
    payload_of_row = np.array([entry.payload for entry in header.paths])[columns["path"][mine]]
    is_hlm = np.array([entry.rule == HLM for entry in header.paths])[columns["path"][mine]]
    starts = np.searchsorted(answer, np.arange(len(answers)))
    hlm_starts = np.searchsorted(answer[is_hlm], np.arange(len(answers) + 1))
    hlm_nodes = rows.node[is_hlm]
    trees = {}
    for payload in dict.fromkeys(["", *(entry.payload for entry in header.paths)]):
        lossless = keeps_law(payload, header.vocabulary_size)
        of_rules = payload_of_row == payload, payload_of_row == ""
        row_of, links = rows.links(*of_rules, drawn_anew=draws_anew(payload), keeps_law=lossless)
        links |= {name: facts[name][row_of] for name in FACTS}
        nodes = Nodes(
            position=position[row_of],
            skip_coin=np.stack(draws)[answer[row_of], position[row_of]],
            phase=np.stack(draws)[answer[row_of], 0],
            **links,
            uncertainty_samples=header.uncertainty_samples,
            vocabulary_size=header.vocabulary_size,
            payload=payload,
            tail_ladder=header.tail_ladder,
            endings=quality,
        )
        trees[payload] = {
            (prompt, sample): AnswerTree(
                prompt,
                sample,
                header.prompts[prompt].tokens,
                nodes,
                int(rows.node[starts[number]]),
                hlm_nodes[hlm_starts[number] : hlm_starts[number + 1]],
            )
            for number, (prompt, sample) in enumerate(answers)
        }
    return trees
