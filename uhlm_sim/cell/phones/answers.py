"""The answers that phones ask for: drawn prompt by prompt, planned once, kept for the records."""

from collections.abc import Callable, Iterator
from functools import cache

import numpy as np

from uhlm_sim.cell.phones.policies import ReadyPolicy, payload_costs
from uhlm_sim.cell.phones.request_file import Requests
from uhlm_sim.cell.phones.rounds import WHOLE, Answer, Costs, Walk
from uhlm_sim.cell.phones.schemes import Planner
from uhlm_sim.scenario import Scenario
from uhlm_sim.tokens.tree import AnswerTree


class Answers:
    """A policy's answers at given costs, each planned once; their walks are added to the run's list `walks`."""

    def __init__(self, policy: ReadyPolicy, costs: Costs, walks: list[Walk]) -> None:
        self._walks = walks
        self._policy = policy
        self._costs = costs
        self._samples = policy.source.samples
        self._prompts_and_samples = policy.source.prompts * self._samples
        self._planner = Planner(policy.label, policy.scheme, costs)
        self._planned = cache(self._answer)
        self._length = cache(self._length_of)

    @classmethod
    def of_scenario(cls, policy: ReadyPolicy, scenario: Scenario) -> "Answers":
        """Return a policy's answers at the costs of a scenario without classes, to be looked at and not played."""
        return cls(policy, payload_costs(scenario, policy.source.vocabulary_size), [])

    def sizes(self) -> Iterator[tuple[int, int]]:
        """Yield the tokens of each prompt and of each whole answer."""
        for number in range(self._prompts_and_samples):
            yield self._tree(number).prompt_tokens, self._length(number)

    @property
    def longest_prompt_tokens(self) -> int:
        """The tokens of the longest prompt."""
        return max(self._tree(number).prompt_tokens for number in range(self._prompts_and_samples))

    def asked_by(self, rng: np.random.Generator) -> Callable[[], Answer]:
        """Return a function that draws the answer to a phone's next request: prompt and sample are uniform."""
        answer = self._answer if self._policy.scheme.looks_at_cell else self._planned

        def next_answer() -> Answer:
            return answer(int(rng.integers(self._prompts_and_samples)))

        return next_answer

    def of_rows(self, rows: Requests, rng: np.random.Generator) -> Callable[[], Answer]:
        """Return a function that gives the answers to the rows of a request file, one a call.

        A row's prompt has its prompt tokens. Its answer is a recorded one that is long enough, cut to its output tokens
        (to max_tokens at most, which some answer of every policy must have): the first such answer in an order drawn
        for the row, so that policies whose answers are as long give the same one.
        """
        pairs = zip(rows.prompt_tokens.tolist(), rows.output_tokens.tolist(), strict=True)

        def next_answer() -> Answer:
            prompt_tokens, output_tokens = next(pairs, (1, 1))  # after the last row nothing arrives
            tokens = min(output_tokens, self._costs.max_tokens)
            order = rng.permutation(self._prompts_and_samples).tolist()
            number = next(number for number in order if self._length(number) >= tokens)
            return self._answer(number, prompt_tokens, tokens)

        return next_answer

    def _answer(self, number: int, prompt_tokens: int | None = None, max_tokens: int | None = None) -> Answer:
        tree, planner, scheme = self._tree(number), self._planner, self._policy.scheme
        walk = planner.walk(tree, prompt_tokens, max_tokens)
        index = len(self._walks)
        self._walks.append(walk)
        if scheme.looks_at_cell:
            return Answer(index, None, lambda cell: scheme.rounds(walk, cell))
        rounds = planner.plan(walk)
        if walk.node >= 0 and tree.nodes.endings:  # cut: its quality is that of the whole answer
            whole = planner.walk(tree, max_tokens=WHOLE)
            planner.plan(whole)
            walk.quality = whole.quality
        return Answer(index, rounds)

    def _length_of(self, number: int) -> int:
        """Return how many tokens an answer has in full; that of plain HLM where the scheme looks at the cell."""
        tree = self._tree(number)
        if self._policy.scheme.looks_at_cell:
            return len(tree.hlm)
        walk = self._planner.walk(tree, max_tokens=WHOLE)
        self._planner.plan(walk)
        return walk.position

    def _tree(self, number: int) -> AnswerTree:
        return self._policy.source.tree(*divmod(number, self._samples))
