"""How long a batch takes at the base station: fitted times, or a function of the user's own."""

from collections.abc import Callable
from math import inf
from typing import Any, Protocol

import numpy as np

from uhlm_sim.errors import SimulationError
from uhlm_sim.names import find_kind
from uhlm_sim.rng import stream
from uhlm_sim.scenario import Scenario, Service

Times = Callable[[int], float]


class ServiceModel(Protocol):
    """Returns what gives the seconds of one batch from its number of new tokens, batch by batch.

    `service` holds the scenario's c_s and its other numbers; `rng` is the replication's own stream. A model of the
    user's own takes its `params` as keyword arguments too.
    """

    def __call__(self, service: Service, rng: np.random.Generator) -> Times: ...


def fitted(service: Service, rng: np.random.Generator) -> Times:  # noqa: ARG001  nothing is random
    """Give c_s + attention_s + s_s_per_token max(0, n - free_tokens) seconds to n new tokens."""
    return service.seconds


SERVICES: dict[str, ServiceModel] = {"fitted": fitted}


def service_times(scenario: Scenario, replication: int, *, allow_plugins: bool = False) -> Times:
    """Return new tokens of a batch -> seconds, for one replication.

    Raises ScenarioError for an unknown kind. What code of the user's own returns is looked at batch by batch:
    SimulationError unless it is a finite number greater than 0.
    """
    service = scenario.base_station.service
    model = find_kind(service.kind, SERVICES, "base_station.service.kind", allow_plugins=allow_plugins)
    times: Times = model(service, stream(scenario.seed, "service", replication), **service.params)
    if service.kind in SERVICES:
        return times
    if not callable(times):
        raise SimulationError(f"{service.kind}: returned {times!r}; it must return a function of a batch's new tokens")

    def checked(new_tokens: int) -> float:
        seconds: Any = times(new_tokens)
        if not isinstance(seconds, int | float | np.number) or not 0.0 < seconds < inf:
            raise SimulationError(
                f"{service.kind}: gave {seconds!r} as the seconds of a batch of {new_tokens} new tokens; it must give "
                "a finite number greater than 0"
            )
        return float(seconds)

    return checked
