"""The air above one cell: every device's SNR, block by block."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from uhlm_sim.errors import SimulationError

Floats = NDArray[np.float64]
BLOCKS_AHEAD = 256  # the length of a run of gains


class Air:
    """Mean SNR times fading gain of every device, and the spectral efficiency that follows.

    `mean_snr` is linear, over the whole band, one per device. With `coherence_s` the gain of device i in block k,
    which lasts [k, k+1) coherence times, is the k-th that the runs of `gains_of(i)` yield: it depends on (i, k) alone,
    so every policy meets the same fades. Without, either the mean SNR holds for ever (`per_upload` False) or each
    upload brings its own gain, and the SNR in the band it uses is clamped at `min_snr`, since a rate of zero would
    never end; `clamped` counts the uploads that began so. `efficiency_of(snr)` maps SNR in the band used to bit/s/Hz,
    elementwise.
    """

    def __init__(
        self,
        mean_snr: Floats,
        efficiency_of: Callable[[Floats], Floats],
        *,
        gains_of: Callable[[int], Iterator[Floats]] | None = None,
        coherence_s: float | None = None,
        per_upload: bool = False,
        min_snr: float = 0.0,
    ) -> None:
        self.devices = len(mean_snr)
        self.mean_snr = mean_snr
        self.snr = mean_snr.copy()
        self.hz_s_per_bit = np.full(self.devices, np.inf)  # of the whole band, infinite in outage; with blocks only
        self.coherence_s = coherence_s
        self.per_upload = per_upload
        self.clamped = 0
        self._min_snr = min_snr
        self._floor = min_snr if per_upload else 0.0
        self._efficiency_of = efficiency_of
        self._runs = []
        if coherence_s is not None and gains_of is not None:
            self._runs = [gains_of(device) for device in range(self.devices)]
        self._first_block = -BLOCKS_AHEAD
        self._snr_ahead = np.empty((BLOCKS_AHEAD, self.devices))
        self._efficiency_ahead = np.empty((BLOCKS_AHEAD, self.devices))
        self._hz_s_per_bit_ahead = np.empty((BLOCKS_AHEAD, self.devices))
        self._efficiency: Floats | None = None

    def enter(self, block: int) -> None:
        """Move to a block, which is never before the present one."""
        while block >= self._first_block + BLOCKS_AHEAD:
            gains = np.stack([self._next_run(run) for run in self._runs], axis=1)
            self._first_block += BLOCKS_AHEAD
            if block < self._first_block + BLOCKS_AHEAD:
                self._snr_ahead = self.mean_snr * gains
                self._efficiency_ahead = self._efficiency_of(self._snr_ahead)
                with np.errstate(divide="ignore"):
                    self._hz_s_per_bit_ahead = 1.0 / self._efficiency_ahead
        row = block - self._first_block
        self.snr, self._efficiency = self._snr_ahead[row], self._efficiency_ahead[row]
        self.hz_s_per_bit = self._hz_s_per_bit_ahead[row]

    @staticmethod
    def _next_run(run: Iterator[Floats]) -> Floats:
        gains = next(run, None)
        if gains is None or np.shape(gains) != (BLOCKS_AHEAD,) or not (np.asarray(gains) >= 0.0).all():
            raise SimulationError(f"the channel must go on yielding {BLOCKS_AHEAD} power gains, each at least 0")
        return gains

    def set_gain(self, device: int, gain: float, share: float = 1.0) -> float:
        """Give a device the gain of its upload, its power in `share` of the band; return its efficiency there."""
        self.snr[device] = snr = self.mean_snr.item(device) * gain
        self.clamped += snr / share < self._min_snr
        efficiency = float(self._efficiency_of(np.maximum(snr / share, self._min_snr)))
        if share == 1.0 and self._efficiency is not None:
            self._efficiency[device] = efficiency
        else:
            self._efficiency = None
        return efficiency

    def efficiency_of(self, snr: Floats) -> Floats:
        """Return bit/s/Hz at an SNR in the band used, elementwise."""
        return self._efficiency_of(np.maximum(snr, self._floor) if self._floor else snr)

    def efficiency(self, share: float | Floats = 1.0) -> Floats:
        """Return bit/s/Hz of every device, its power concentrated in `share` of the band."""
        if isinstance(share, float) and share == 1.0:
            if self._efficiency is None:
                self._efficiency = self.efficiency_of(self.snr)
            return self._efficiency
        return self.efficiency_of(self.snr / share)


def quotient(bits: Floats, rate: Floats) -> Floats:
    """Return bits / rate, elementwise; infinite in outage."""
    if rate.size and rate.item(rate.argmin()) > 0.0:
        return bits / rate  # without `errstate`, which costs more than the division
    with np.errstate(divide="ignore"):
        return bits / rate
