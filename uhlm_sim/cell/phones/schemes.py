"""A scheme and how it plans an answer: a gate, a message and a way of making rounds, walked on a tree of prefixes."""

from dataclasses import dataclass

import numpy as np

from uhlm_sim.cell.phones.rounds import Choices, Costs, Round, Rounds, Walk, one_draft
from uhlm_sim.errors import SimulationError
from uhlm_sim.tokens.gates import Gate, keep_all, keep_none
from uhlm_sim.tokens.messages import Messages, full_distribution
from uhlm_sim.tokens.tree import AnswerTree, Nodes


@dataclass(frozen=True)
class Scheme:
    """How a phone answers: which drafts it keeps, what it sends of the others, and how many at a time.

    `gate(nodes)` says which drafts are kept; `message(nodes, distribution_bits)` what an upload carries and how the LLM
    judges it; `rounds(walk)` yields an answer's rounds (see `phones/rounds.py`). With `looks_at_cell` it is
    `rounds(walk, cell)`, asked round by round while the request is under way. `goes_on(nodes)` says after which drafts
    a window of `phones/windows.py:confident` goes on. With `measures_uncertainty` each draft costs
    device.uncertainty_s. Unless it `keeps_law`, what the LLM commits of a draft that was sent isn't drawn from the
    LLM's law, and how far from it isn't known: distribution_error is null.
    """

    gate: Gate = keep_none
    message: Messages = full_distribution
    rounds: Rounds = one_draft
    goes_on: Gate | None = None
    looks_at_cell: bool = False
    measures_uncertainty: bool = False
    keeps_law: bool = True

    @property
    def always_asks(self) -> bool:
        """Say whether the LLM is asked about every token."""
        return self.gate is keep_none

    @property
    def never_asks(self) -> bool:
        """Say whether nothing ever leaves the phone."""
        return self.gate is keep_all


class Planner:
    """Walks a policy's scheme on trees at given costs; what it makes of their nodes is found once for each tree."""

    def __init__(self, label: str, scheme: Scheme, costs: Costs) -> None:
        self.scheme = scheme
        self._label = label
        self._costs = costs
        self._nodes: Nodes | None = None
        self._choices = Choices([], [], [])

    def walk(self, tree: AnswerTree, prompt_tokens: int | None = None, max_tokens: int | None = None) -> Walk:
        """Return a walk at its beginning; see `Walk` for the arguments."""
        return Walk(
            tree,
            choose=self._choices_at,
            costs=self._costs,
            measures_uncertainty=self.scheme.measures_uncertainty,
            prompt_tokens=prompt_tokens,
            max_tokens=max_tokens,
        )

    def plan(self, walk: Walk) -> tuple[Round, ...]:
        """Return the rounds of a whole answer. Raises SimulationError for rounds that don't make the answer."""
        rounds = tuple(self.scheme.rounds(walk))
        if not rounds or [visit.last for visit in rounds] != [False] * (len(rounds) - 1) + [True]:
            raise SimulationError(
                f"policy {self._label}: its rounds end at token {walk.position}, before the answer does"
            )
        return rounds

    def _choices_at(self, nodes: Nodes) -> Choices:
        """Raises SimulationError for a gate that gives anything but one bool a node."""
        if nodes is not self._nodes:
            kept = np.asarray(self.scheme.gate(nodes))
            if kept.dtype != np.bool_ or kept.shape != (len(nodes),):
                raise SimulationError(
                    f"policy {self._label}: returned {kept.dtype} of shape {kept.shape} for {len(nodes)} nodes; it "
                    "must return one bool a node, True where the phone keeps its draft"
                )
            message = self.scheme.message(nodes, self._costs.distribution_bits)
            goes_on = None if self.scheme.goes_on is None else self.scheme.goes_on(nodes)
            self._choices = Choices.of(kept, message, goes_on)
            self._nodes = nodes
        return self._choices
