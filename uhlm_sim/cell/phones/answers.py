"""The answers that phones ask for: drawn prompt by prompt, planned once, kept for the records."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from uhlm_sim.cell.phones.policies import ReadyPolicy, plan_answer
from uhlm_sim.cell.phones.request_file import Requests
from uhlm_sim.cell.phones.rounds import Answer, Costs
from uhlm_sim.tokens.trace import TokenPath


class Answers:
    """A policy's answers at given costs, each planned once; their paths are added to the run's list `paths`."""

    def __init__(self, policy: ReadyPolicy, costs: Costs, paths: list[TokenPath]) -> None:
        self._paths = paths
        self._policy = policy
        self._costs = costs
        self._samples = policy.source.samples
        self._choices = policy.source.prompts * self._samples
        self._known: dict[int, Answer] = {}
        self._path_of: dict[int, TokenPath] = {}

    def asked_by(self, rng: np.random.Generator) -> Callable[[], Answer]:
        """Return a function that draws the answer to a phone's next request: prompt and sample are uniform."""

        def next_answer() -> Answer:
            chosen = int(rng.integers(self._choices))
            if chosen not in self._known:
                self._known[chosen] = self._plan(self._policy.source.path(*divmod(chosen, self._samples)))
            return self._known[chosen]

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
            order = rng.permutation(self._choices).tolist()
            path = next(path for path in map(self._path, order) if len(path) >= tokens)
            return self._plan(replace(_cut(path, tokens), prompt_tokens=prompt_tokens))

        return next_answer

    def _plan(self, path: TokenPath) -> Answer:
        path = replace(path, prompt_tokens=path.prompt_tokens + self._costs.context_tokens)
        self._paths.append(path)
        return plan_answer(len(self._paths) - 1, path, self._policy, self._costs)

    def _path(self, chosen: int) -> TokenPath:
        if chosen not in self._path_of:
            self._path_of[chosen] = self._policy.source.path(*divmod(chosen, self._samples))
        return self._path_of[chosen]


def _cut(path: TokenPath, tokens: int) -> TokenPath:
    """Return an answer's first tokens."""
    arrays: dict[str, Any] = {
        name: values[:tokens] for name, values in vars(path).items() if isinstance(values, np.ndarray)
    }
    return replace(path, **arrays)
