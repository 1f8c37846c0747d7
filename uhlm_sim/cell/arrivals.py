"""What phones are asked, and when: one function for each kind of traffic."""

from collections.abc import Callable

import numpy as np

from uhlm_sim.cell.device import Answer
from uhlm_sim.cell.policies import Costs, ReadyPolicy, plan_answer
from uhlm_sim.scenario import Scenario
from uhlm_sim.tokens.trace import TokenPath


class Answers:
    """The answers that phones ask for: drawn prompt by prompt, planned once, kept for the records."""

    def __init__(self, policy: ReadyPolicy, costs: Costs) -> None:
        self.paths: list[TokenPath] = []
        self._policy = policy
        self._costs = costs
        self._known: dict[int, Answer] = {}

    def asked_by(self, rng: np.random.Generator) -> Callable[[], Answer]:
        """Return what a phone's next request asks for, call by call: a prompt and a sample, drawn uniformly."""
        samples = self._policy.source.samples
        choices = self._policy.source.prompts * samples

        def next_answer() -> Answer:
            chosen = int(rng.integers(choices))
            if chosen not in self._known:
                path = self._policy.source.path(*divmod(chosen, samples))
                self._known[chosen] = plan_answer(len(self.paths), path, self._policy, self._costs)
                self.paths.append(path)
            return self._known[chosen]

        return next_answer


def closed_arrivals(scenario: Scenario, rng: np.random.Generator) -> Callable[[float], float]:
    """Return the next arrival in a closed loop: an exponential think time after the phone was free."""
    mean_s = scenario.traffic.think_time_s
    return lambda free_s: free_s + mean_s * rng.standard_exponential()


def poisson_arrivals(scenario: Scenario, rng: np.random.Generator) -> Callable[[float], float]:
    """Return the next arrival of a Poisson process of `rate_per_s`, whatever the phone does."""
    last_s = 0.0

    def next_arrival(_free_s: float) -> float:
        nonlocal last_s
        last_s += rng.standard_exponential() / scenario.traffic.rate_per_s
        return last_s

    return next_arrival


ARRIVALS = {"closed": closed_arrivals, "poisson": poisson_arrivals}
