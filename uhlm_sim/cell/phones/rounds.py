"""Rounds: a phone answers in visits to the base station and in runs of drafts that it keeps.

A scheme makes an answer's rounds from a `Walk`, which knows what the LLM has seen and bills each round. One that needs
nothing but the answer is planned once per answer; one that takes the cell, too, is asked round by round.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import nan
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from uhlm_sim.errors import SimulationError
from uhlm_sim.tables import QUALITY
from uhlm_sim.tokens.messages import Message
from uhlm_sim.tokens.tree import ENDS, NO_TOKEN, UNKNOWN, AnswerTree, Nodes

WHOLE = 1 << 30  # more tokens than any answer has
UNKNOWN_QUALITY: tuple[float, ...] = (nan,) * len(QUALITY)


@dataclass(frozen=True, slots=True)
class Round:
    """One visit to the base station, or a run of drafts that the phone keeps.

    `drafts_s` are the seconds that each draft takes the phone, and `first_s` those until it can commit the first kept
    draft, or send. A visit has `llm_tokens` new positions for the LLM and `payload_bits` on the uplink (0: it goes
    straight to the base station). Of the positions `unused_tokens` are refused drafts, which the LLM forgets again; it
    holds `context_tokens` of the request before. A visit commits `committed` tokens together, of which `accepted` are
    drafts. A run of kept drafts has neither bits nor positions, and commits each draft when it is there.

    `pipelined`: the next round begins when this one was verified, while its text is still on the downlink. Where the
    downlink is shared, `answer_bits` come back. `last` says that the round ends the answer.
    """

    drafts_s: tuple[float, ...]
    first_s: float
    committed: int
    accepted: int = 0
    payload_bits: float = 0.0
    llm_tokens: int = 0
    pipelined: bool = False
    answer_bits: float = 0.0
    last: bool = False
    unused_tokens: int = 0
    context_tokens: int = 0


@dataclass(frozen=True)
class Costs:
    """What tokens cost a phone, the air and the LLM: the fields of the scenario that a `Walk` needs."""

    max_tokens: int
    slm_token_s: float
    slm_prefill_token_s: float
    uncertainty_s: float
    distribution_bits: float
    id_bits: int
    piggyback: bool
    context_tokens: int = 0
    resample_bits: float | None = None  # of the answer to a draft that is replaced; None: answers have no bits


class Cell(Protocol):
    """What a phone can see of the cell when it chooses its next round."""

    @property
    def now_s(self) -> float:
        """Return the time of the run."""
        ...

    @property
    def active_uploads(self) -> int:
        """Return how many uploads are on the uplink."""
        ...

    @property
    def jobs_present(self) -> int:
        """Return how many jobs wait or are in service at the base station."""
        ...

    @property
    def snr(self) -> float:
        """Return the phone's SNR over the whole band, linear; its mean where every upload has a gain of its own."""
        ...

    def visit_s(self, bits: float) -> float:
        """Return the seconds that a visit with an upload of so many bits would take now, as far as a phone can tell.

        Access, the upload at the phone's SNR with the band shared evenly by all active uploads, the GPUs' least time of
        a step for all batches that the jobs there fill, and the downlink.
        """
        ...

    @property
    def memory(self) -> dict[str, Any]:
        """Return what the phone's scheme keeps from answer to answer."""
        ...


@dataclass(frozen=True)
class Choices:
    """What a scheme makes of each node, as Python's own numbers: which drafts it keeps, and what the others become."""

    kept: list[bool]
    accepted: list[bool]
    draft_bits: list[float]
    known: list[bool] | None = None  # whether the verdict was recorded; None: everywhere
    drawn: list[bool] | None = None  # whether the draft was; None: everywhere
    goes_on: list[bool] | None = None  # whether a window goes on after the draft
    refusal_bits: float | None = None  # that come down on a shared downlink; None: as the scenario says

    @classmethod
    def of(cls, kept: NDArray[np.bool_], message: Message, goes_on: NDArray[np.bool_] | None = None) -> "Choices":
        """Return the choices of gates' answers and a message."""
        known, drawn, onward = (
            None if flags is None else flags.tolist() for flags in (message.known, message.drawn, goes_on)
        )
        accepted, bits = message.accepted.tolist(), message.draft_bits.tolist()
        return cls(kept.tolist(), accepted, bits, known, drawn, onward, message.refusal_bits)


class Walk:
    """One answer under way on the tree: it makes and bills the scheme's rounds, and remembers what the LLM has seen.

    `position` is the next token's, `node` where it is decided, in `nodes`; `left` how many tokens the answer can have
    yet, 0 at its end. `choose` says of all nodes which drafts the gate keeps, what an upload carries and how the LLM
    judges it.

    A visit with g drafts uploads their messages (a draft's own id is free) and, with piggyback, the ids that the base
    station doesn't know: the prompt's and all committed ones with a request's first visit, later those kept since the
    last. The LLM processes its unknown positions, the last committed one among them, and the drafts; the last draft
    only for a bonus token. So one draft without bonus is 1 position under HLM, 1 + kept since then under U-HLM, and
    prompt_tokens + position in the first visit. With `free` sync ids cost nothing and 1 position is unknown, as in the
    paper of U-HLM; what the LLM generates alone has its prompt sent and processed all the same.

    Where the next prefix was never recorded the tree grows by it, if it can (see `tokens/live.py`). Else the walk goes
    on from the prefix of plain HLM at the same position. `exact_tokens` are those before the first prefix, draft or
    verdict that wasn't recorded. Drafts after a refused one are taken to go on, unless it is known that they end.
    """

    def __init__(
        self,
        tree: AnswerTree,
        *,
        choose: Callable[[Nodes], Choices],
        costs: Costs,
        measures_uncertainty: bool = False,
        prompt_tokens: int | None = None,
        max_tokens: int | None = None,
    ) -> None:
        self.tree = tree
        self.prompt_tokens = (tree.prompt_tokens if prompt_tokens is None else prompt_tokens) + costs.context_tokens
        self.position = 0
        self.node = tree.root
        self.left = costs.max_tokens if max_tokens is None else max_tokens
        self.visited: list[int] = []  # the node of each token so far
        self.exact_tokens: int | None = None  # None: all so far
        self._costs = costs
        self._choose = choose
        self._look()
        self._draft_s = costs.slm_token_s + (costs.uncertainty_s if measures_uncertainty else 0.0)
        self._processed = self._known_ids = -self.prompt_tokens  # positions of the answer; the prompt stands before 0
        self.quality = UNKNOWN_QUALITY  # of the answer as recorded, once it has ended

    @property
    def sure(self) -> int:
        """Return how many of the next drafts the gate keeps in a row."""
        return self._in_a_row(lambda choices: choices.kept)

    @property
    def draft_bits(self) -> float:
        """Return what an upload of the next draft carries [bit], ids beside it left out."""
        return self._choices.draft_bits[self.node]

    @property
    def confident(self) -> int:
        """Return how many of the next drafts let a window go on in a row."""
        return self._in_a_row(lambda choices: choices.goes_on or [False] * len(choices.kept))

    def _in_a_row(self, flags_of: Callable[[Choices], list[bool]]) -> int:
        node, count, flags = self.node, 0, flags_of(self._choices)
        while count < self.left and flags[node]:
            count += 1
            node = self._next(node, self._after_draft[node], self.nodes.draft, self.position + count)
            if node < 0:
                break
            if node >= len(flags):  # the tree grew
                flags = flags_of(self._choices)
        return count

    def keep(self, drafts: int = 1) -> Round:
        """Keep the next drafts, as many as are left at most: they are committed one by one."""
        self._check(drafts)
        drafts_s = self._draft(drafts)
        kept = 0
        while kept < drafts and self.left:
            self._trust(self._choices.drawn)
            self._commit(self._after_draft[self.node], self.nodes.draft)
            kept += 1
        return Round(drafts_s[:kept], drafts_s[0], kept, last=not self.left)

    def send(self, drafts: int = 1, *, bonus: bool = False) -> Round:
        """Send the next drafts together, as many as are left at most; after a refusal the LLM's own token replaces one.

        If all are accepted and `bonus`, the LLM's own next token comes with them.
        """
        self._check(drafts)
        costs, begin = self._costs, self.position
        drafts_s = self._draft(drafts := min(drafts, self.left))
        drafted = accepted = 0
        bits, refused, node = 0.0, False, self.node
        while drafted < drafts:
            drafted += 1
            choices = self._choices
            bits += choices.draft_bits[node]
            onward = self._after_draft[node]
            if not refused:
                refused = not choices.accepted[node]
                accepted += not refused
                self._trust(choices.known)
                if refused:
                    self._commit(self._after_verdict[node], self.nodes.verdict)
                else:
                    self._commit(onward, self.nodes.draft)
                if not refused:
                    if not self.left:
                        break
                    node = self.node
                    continue
            if onward == ENDS:
                break
            node = onward if onward >= 0 else node
        processed = drafted if bonus else drafted - 1
        committed = accepted + refused
        if bonus and not refused and self.left:
            self._commit(self._after_bonus[self.node], self.nodes.bonus)
            committed += 1
        llm_tokens, context = 1 + processed, self.prompt_tokens + begin - 1
        if costs.piggyback:
            llm_tokens, context = begin - self._processed + processed, self.prompt_tokens + self._processed
            bits += costs.id_bits * (begin - self._known_ids)
        self._processed = begin + min(accepted, processed)
        replaced_here = refused and self._choices.refusal_bits is not None
        self._known_ids = begin + (accepted if replaced_here else committed)
        return Round(
            drafts_s[:drafted],
            drafts_s[0] if drafted == 1 else sum(drafts_s[:drafted]),
            committed,
            accepted,
            bits,
            llm_tokens,
            unused_tokens=processed - min(accepted, processed),
            context_tokens=context,
            answer_bits=self._answer_bits(refused),
            last=not self.left,
        )

    def generate(self) -> Round:
        """Let the LLM generate the next token; the phone sends the prompt's ids with the first."""
        self._check(1)
        costs, bits, llm_tokens, context = self._costs, 0.0, 1, self.prompt_tokens + self.position - 1
        if self.position == 0:  # whatever sync says: it is named for the ids of skipped tokens
            bits, llm_tokens, context = float(self.prompt_tokens * costs.id_bits), self.prompt_tokens, 0
        self._commit(self._after_llm[self.node], self.nodes.by_llm)
        self.quality = nan, *self.quality[1:]  # an answer of the LLM is not compared with itself
        answer_bits = self._answer_bits(refused=False)
        return Round(
            (),
            0.0,
            1,
            payload_bits=bits,
            llm_tokens=llm_tokens,
            context_tokens=context,
            pipelined=True,
            answer_bits=answer_bits,
            last=not self.left,
        )

    def _trust(self, known: list[bool] | None) -> None:
        """Count the answer as exact up to here if what is committed next was never recorded."""
        if self.exact_tokens is None and known is not None and not known[self.node]:
            self.exact_tokens = self.position

    def _commit(self, onward: int, token_of: NDArray[np.integer]) -> None:
        """Commit a token at the present node, and go on to the node that follows."""
        if onward == ENDS and self.exact_tokens is None:
            self.quality = self.nodes.endings.get((self.node, int(token_of[self.node])), self.quality)
        self.visited.append(self.node)
        self.position += 1
        self.left -= 1
        self.node = self._next(self.node, onward, token_of, self.position, commits=True)
        if self.node < 0:
            self.left = 0

    def _next(
        self, node: int, onward: int, token_of: NDArray[np.integer], position: int, *, commits: bool = False
    ) -> int:
        """Return the node that follows, on the answer of plain HLM where it isn't known, or ENDS."""
        if onward != UNKNOWN:
            return onward
        grown = self.tree.grow(node, int(token_of[node]))
        if grown != UNKNOWN:
            self._look()
            return grown
        if commits and self.exact_tokens is None:
            self.exact_tokens = position - (int(token_of[node]) == NO_TOKEN)
        return int(self.tree.hlm[position]) if position < len(self.tree.hlm) else ENDS

    def _look(self) -> None:
        """Take the tree's nodes as they are now."""
        self.nodes = self.tree.nodes
        self._choices = self._choose(self.nodes)
        self._after_draft, self._after_verdict, self._after_llm, self._after_bonus = self.nodes.onward

    def _draft(self, drafts: int) -> tuple[float, ...]:
        """Return the seconds of the next drafts; the first of an answer waits for the prompt's prefill."""
        if self.position:
            return (self._draft_s,) * drafts
        prefill_s = self.prompt_tokens * self._costs.slm_prefill_token_s
        return (self._draft_s + prefill_s,) + (self._draft_s,) * (drafts - 1)

    def _answer_bits(self, refused: bool) -> float:
        if self._costs.resample_bits is None:
            return 0.0
        refusal_bits = self._choices.refusal_bits
        refusal_bits = self._costs.resample_bits if refusal_bits is None else refusal_bits
        return refusal_bits if refused else float(self._costs.id_bits)

    def _check(self, drafts: int) -> None:
        if drafts < 1 or not self.left:
            raise SimulationError(f"a round of {drafts} drafts at token {self.position}, with {self.left} left")


Rounds = Callable[..., Iterator[Round]]


def one_draft(walk: Walk) -> Iterator[Round]:
    """Keep the drafts that the gate keeps, and send the others one at a time."""
    while walk.left:
        sure = walk.sure
        yield walk.keep(sure) if sure else walk.send()


def generated(walk: Walk) -> Iterator[Round]:
    """Let the LLM write the whole answer, token by token."""
    while walk.left:
        yield walk.generate()


@dataclass(frozen=True)
class Answer:
    """What one request asks of its phone; `index` is the answer's place among the engine's walks.

    `plan` are its rounds where they need nothing but the answer. Else it is None, and `choose(cell)` gives them one by
    one while the request is under way.
    """

    index: int
    plan: tuple[Round, ...] | None
    choose: Callable[[Cell | None], Iterator[Round]] | None = None

    def rounds(self, cell: Cell | None) -> Iterator[Round]:
        """Return the answer's rounds in their order."""
        if self.plan is not None:
            return iter(self.plan)
        assert self.choose is not None
        return self.choose(cell)
