"""Who is on the cell: every device's place among its classes, and the name that its random streams go by."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from uhlm_sim.rng import stream
from uhlm_sim.scenario import Scenario
from uhlm_sim.settings.device_class import class_sizes


@dataclass(frozen=True)
class Who:
    """A device: its number, its class's place in the scenario (0 without classes), and its name.

    The name is the device's number, or its class's name and its number there: so the phones of one class meet the same
    world whatever other classes there are.
    """

    device: int
    group: int
    name: tuple[str | int, ...]

    def stream(self, seed: int, purpose: str, replication: int, *more: int) -> np.random.Generator:
        """Return the device's generator for a purpose: (seed, purpose, replication, device's name, more)."""
        return stream(seed, purpose, replication, *self.name, *more)


def population(scenario: Scenario) -> list[Who]:
    """Return every device in order of its number: class by class, as the scenario names them."""
    if not scenario.device_class:
        return [Who(device, 0, (device,)) for device in range(scenario.traffic.devices)]
    sizes = class_sizes(scenario.device_class, scenario.traffic.devices)
    names = [
        (group, (device_class.name, number))
        for group, (device_class, size) in enumerate(zip(scenario.device_class, sizes, strict=True))
        for number in range(size)
    ]
    return [Who(device, group, name) for device, (group, name) in enumerate(names)]


def weights_of(scenario: Scenario, people: Sequence[Who]) -> NDArray[np.float64] | None:
    """Return every phone's weight, its own or its class's; None where nobody has one."""
    weights = [device_class.weight for device_class in scenario.device_class]
    if any(weight is not None for weight in weights):
        return np.array([1.0 if weights[who.group] is None else weights[who.group] for who in people])
    return None if scenario.uplink.weights is None else np.array(scenario.uplink.weights)
