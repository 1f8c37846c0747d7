"""Rounds: a phone answers in visits to the base station and in runs of drafts that it keeps.

A scheme makes an answer's rounds from a `Walk`, which knows what the LLM has seen and bills each round. One that needs
nothing but the answer is planned once per answer; one that takes the cell, too, is asked round by round.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from uhlm_sim.errors import SimulationError
from uhlm_sim.tokens.messages import Message
from uhlm_sim.tokens.trace import TokenPath


@dataclass(frozen=True, slots=True)
class Round:
    """One visit to the base station, or a run of drafts that the phone keeps.

    `drafts_s` are the seconds that each draft takes the phone, and `first_s` those until it can commit the first kept
    draft, or send. A visit has `llm_tokens` new positions for the LLM and `payload_bits` on the uplink (0: it goes
    straight to the base station); it commits `committed` tokens together, of which `accepted` are drafts. A run of kept
    drafts has neither bits nor positions, and commits each draft when it is there.

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


class Walk:
    """One answer under way: it makes and bills the scheme's next round, and remembers what the LLM has processed.

    `position` is the next token's, `tokens` how many the answer has, `kept` which drafts the gate keeps, `message` what
    an upload carries and how the LLM judges it.

    A visit with g drafts uploads their messages (a draft's own id is free) and, with piggyback, the ids that the base
    station doesn't know: the prompt's and all committed ones with a request's first visit, later those kept since the
    last. The LLM processes its unknown positions, the last committed one among them, and the drafts; the last draft
    only for a bonus token. So one draft without bonus is 1 position under HLM, 1 + kept since then under U-HLM, and
    prompt_tokens + position in the first visit. With `free` sync ids cost nothing and 1 position is unknown.
    """

    def __init__(
        self,
        path: TokenPath,
        *,
        kept: NDArray[np.bool_],
        message: Message,
        costs: Costs,
        measures_uncertainty: bool = False,
    ) -> None:
        self.path = path
        self.position = 0
        self.tokens = min(len(path), costs.max_tokens)
        self.kept = kept
        self.message = message
        self._costs = costs
        self._draft_s = costs.slm_token_s + (costs.uncertainty_s if measures_uncertainty else 0.0)
        self._processed = self._known_ids = -path.prompt_tokens  # positions of the answer; the prompt stands before 0
        # Python's own numbers: a walk takes them one by one.
        self._keeps = kept.tolist()
        self._accepted = message.accepted.tolist()
        self._draft_bits = message.draft_bits.tolist()

    @property
    def left(self) -> int:
        """Return how many tokens the answer still lacks."""
        return self.tokens - self.position

    @property
    def sure(self) -> int:
        """Return how many of the next drafts the gate keeps in a row."""
        end = self.position
        while end < self.tokens and self._keeps[end]:
            end += 1
        return end - self.position

    def keep(self, drafts: int = 1) -> Round:
        """Keep the next drafts, as many as are left at most: they are committed one by one."""
        drafts = self._within(drafts)
        drafts_s = self._draft(drafts)
        self.position += drafts
        return Round(drafts_s, drafts_s[0], drafts, last=not self.left)

    def send(self, drafts: int = 1, *, bonus: bool = False) -> Round:
        """Send the next drafts together, as many as are left at most; after a refusal the LLM's own token replaces one.

        If all are accepted and `bonus`, the LLM's own next token comes with them.
        """
        costs, begin = self._costs, self.position
        drafts = self._within(drafts)
        end = begin + drafts
        accepted = next((run for run in range(drafts) if not self._accepted[begin + run]), drafts)
        refused = accepted < drafts
        committed = accepted + 1 if refused else drafts + (bonus and end < self.tokens)
        drafts_s = self._draft(drafts)
        processed = drafts if bonus else drafts - 1
        bits = self._draft_bits[begin] if drafts == 1 else sum(self._draft_bits[begin:end])
        llm_tokens = 1 + processed
        if costs.piggyback:
            llm_tokens = begin - self._processed + processed
            bits += costs.id_bits * (begin - self._known_ids)
        self._processed = begin + min(accepted, processed)
        self.position = self._known_ids = begin + committed
        return Round(
            drafts_s,
            drafts_s[0] if drafts == 1 else sum(drafts_s),
            committed,
            accepted,
            bits,
            llm_tokens,
            answer_bits=self._answer_bits(refused),
            last=not self.left,
        )

    def generate(self) -> Round:
        """Let the LLM generate the next token; the phone sends the prompt's ids with the first."""
        costs, bits, llm_tokens = self._costs, 0.0, 1
        if costs.piggyback and self.position == 0:
            bits, llm_tokens = float(self.path.prompt_tokens * costs.id_bits), self.path.prompt_tokens
        self._within(1)
        self.position += 1
        answer_bits = self._answer_bits(refused=False)
        return Round((), 0.0, 1, 0, bits, llm_tokens, pipelined=True, answer_bits=answer_bits, last=not self.left)

    def _draft(self, drafts: int) -> tuple[float, ...]:
        """Return the seconds of the next drafts; the first of an answer waits for the prompt's prefill."""
        if self.position:
            return (self._draft_s,) * drafts
        prefill_s = self.path.prompt_tokens * self._costs.slm_prefill_token_s
        return (self._draft_s + prefill_s,) + (self._draft_s,) * (drafts - 1)

    def _answer_bits(self, refused: bool) -> float:
        if self._costs.resample_bits is None:
            return 0.0
        return self._costs.resample_bits if refused else float(self._costs.id_bits)

    def _within(self, drafts: int) -> int:
        if drafts < 1 or not self.left:
            raise SimulationError(f"a round of {drafts} drafts at token {self.position} of {self.tokens}")
        return min(drafts, self.left)


Rounds = Callable[..., Iterator[Round]]


def one_draft(walk: Walk) -> Iterator[Round]:
    """Keep the drafts that the gate keeps, and send the others one at a time."""
    while walk.left:
        yield walk.keep(walk.sure) if walk.sure else walk.send()


def generated(walk: Walk) -> Iterator[Round]:
    """Let the LLM write the whole answer, token by token."""
    while walk.left:
        yield walk.generate()


@dataclass(frozen=True)
class Answer:
    """What one request asks of its phone; `index` is the answer's place among the engine's paths.

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
