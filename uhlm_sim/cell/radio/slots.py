"""Slots of a band, with the past that allocators by slots look at: last slot and average rate."""

import math

import numpy as np
from numpy.typing import NDArray


class Slots:
    """Slot k lasts [k, k+1) times `tti_s`; its shares are set at its beginning and hold to its end.

    A device's average rate [bit/s] is R <- (1 - a) R + a (bits sent in the slot) / tti_s after every slot, with
    a = tti_s / average_s (Jalali, Padovani and Pankaj, Data throughput of CDMA-HDR, VTC 2000), sending or not.
    """

    def __init__(self, devices: int, tti_s: float, average_s: float) -> None:
        self.tti_s = tti_s
        self.number = -1
        self.sent_bits = np.zeros(devices)  # in the present slot
        self.average_rate = np.zeros(devices)
        self.last_slot = np.full(devices, -1, dtype=np.int64)
        self._weight = min(tti_s / average_s, 1.0)

    def next_number(self, now: float) -> int:
        """Return the first slot that begins now or later."""
        return math.ceil(now / self.tti_s * (1.0 - 1e-12))

    def begin(self, number: int) -> None:
        """Enter a slot: update the average rates by the bits of the last slot entered, and by none in those skipped."""
        passed = number - self.number
        self.average_rate *= 1.0 - self._weight
        self.average_rate += self._weight / self.tti_s * self.sent_bits
        self.average_rate *= (1.0 - self._weight) ** (passed - 1)
        self.sent_bits.fill(0.0)
        self.number = number

    def give(self, active: NDArray[np.intp], shares: NDArray[np.float64]) -> None:
        """Note who has the band in the present slot."""
        self.last_slot[active[shares > 0.0]] = self.number
