"""Small-scale fading: how a device's power gain moves from one coherence block to the next.

A fading model is a function that yields, for one device, the power gains of consecutive coherence blocks in runs of
`size`. The mean gain is one, so that the mean SNR stays where the scenario put it. A model keeps what correlates its
blocks in its own local variables; the run length must not change the sequence.
"""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Gains = NDArray[np.float64]


class FadingModel(Protocol):
    """Yields runs of `size` consecutive power gains of one device, drawn from its own `rng`."""

    def __call__(self, rng: np.random.Generator, size: int) -> Iterator[Gains]: ...


def constant(rng: np.random.Generator, size: int) -> Iterator[Gains]:  # noqa: ARG001  a model takes its stream
    """Yield gains of one: no fading."""
    while True:
        yield np.ones(size)


def rayleigh(rng: np.random.Generator, size: int) -> Iterator[Gains]:
    """Yield independent exponential power gains, one per coherence block (Rayleigh amplitude).

    P(gain > x) = exp(-x), the law of |h|^2 for a circular complex Gaussian h of unit variance (Tse and Viswanath,
    Fundamentals of Wireless Communication, 2005, section 2.4). Left out: correlation between blocks.
    """
    while True:
        yield rng.standard_exponential(size)


CHANNELS: dict[str, FadingModel] = {"constant": constant, "rayleigh": rayleigh}
