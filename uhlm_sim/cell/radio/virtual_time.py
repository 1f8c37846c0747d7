"""Drains uploads in the ratio of fixed weights on one virtual clock: arrivals and departures move no finish on it."""

from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from uhlm_sim.cell.jobs import Job
from uhlm_sim.cell.radio.air import Air, quotient

Floats = NDArray[np.float64]


class VirtualTime:
    """Shares w_i / W of the band, W the sum of the active weights or a constant, drained on one clock.

    The clock is what a weight of 1 has attained of the band [Hz s]: it grows at B / W, and upload i drains at w_i se_i
    bits per unit of it. Where no share changes an SNR (`steady`) it ends at a reading that stands from its beginning
    on: an arrival or a departure changes the clock's pace only, in constant time, and a new block moves every finish
    (Parekh and Gallager, A generalized processor sharing approach to flow control, IEEE/ACM Trans. Networking 1993).
    Else every arrival and departure moves all finishes, and `look` finds them anew.

    `weights` are one per device (None: all are 1), `whole` is W where it is constant, and `power_in` the share of the
    band that holds all of a device's power (None: its own).
    """

    def __init__(
        self,
        bandwidth_hz: float,
        air: Air,
        *,
        weights: Floats | None = None,
        whole: float | None = None,
        power_in: float | None = 1.0,
    ) -> None:
        self.jobs: dict[int, Job] = {}
        self.in_use = 1.0  # share of the band that the active uploads hold together
        self.steady = power_in is not None
        self._bandwidth_hz = bandwidth_hz
        self._air = air
        self._weights = weights
        self._weight_of = [1.0] * air.devices if weights is None else weights.tolist()
        self._whole = whole
        self._power_in = power_in
        self._active_weight = 0.0
        self._started_clock = [0.0] * air.devices
        self._left_bits = np.full(air.devices, np.inf)  # at the last look; infinite where nothing is sent
        self._finish = np.full(air.devices, np.inf)  # on the clock
        self._rate = np.zeros(air.devices)  # bits per unit of the clock
        self._clock = 0.0
        self._pace = 0.0
        self._settled_s = 0.0
        self._looked_clock = 0.0
        self._next_finish = np.inf
        self._next_device = 0

    def next_s(self) -> float:
        """Return when the next upload will end."""
        return self._settled_s + (self._next_finish - self._clock) / self._pace

    def begin(self, job: Job, now: float) -> None:
        """Let an upload take part, from now on; if not `steady`, from the next look on."""
        if now > self._settled_s:
            self._read(now)
        device = job.device
        self.jobs[device] = job
        self._started_clock[device] = clock = self._clock
        weight = self._weight_of[device]
        self._add(weight)
        if self._air.per_upload:
            share = weight / self._active_weight if self._power_in is None else self._power_in
            efficiency = self._air.set_gain(device, job.gain, share)
            if self.steady:
                self._rate[device] = weight * efficiency
        rate = self._rate.item(device)
        self._left_bits[device] = job.payload_bits + (clock - self._looked_clock) * rate
        if self.steady:
            finish = clock + job.payload_bits / rate if rate else np.inf
            self._finish[device] = finish
            if finish < self._next_finish:
                self._next_finish, self._next_device = finish, device

    def look(self, now: float) -> None:
        """Find every rate and finish anew: gains have changed, or shares that change SNRs."""
        if now > self._settled_s:
            self._read(now)
        attained = self._clock - self._looked_clock
        if attained > 0.0:
            self._left_bits -= attained * self._rate
        self._looked_clock = self._clock
        if self._power_in == 1.0 and self._weights is None and self._air.coherence_s is not None:
            self._rate = self._air.efficiency()
            self._finish = self._clock + self._left_bits * self._air.hz_s_per_bit
        else:
            weights: float | Floats = 1.0 if self._weights is None else self._weights
            own_share = weights / (self._active_weight or 1.0)
            self._rate = weights * self._air.efficiency(own_share if self._power_in is None else self._power_in)
            self._finish = self._clock + quotient(self._left_bits, self._rate)
        self._find_next()

    def due(self, now: float) -> list[Job]:
        """Take out the uploads that end now, in device order."""
        if now > self._settled_s:
            self._read(now)
        due_clock = self._clock + 1e-12 * (self._clock + (1.0 + now) * self._pace)
        if self._next_finish > due_clock:
            return []
        ended = [self._end(self._next_device)]
        self._find_next()
        if self._next_finish <= due_clock:  # phones in step end together: look once for all of them
            ended += [self._end(device) for device in np.flatnonzero(self._finish <= due_clock).tolist()]
            ended.sort(key=attrgetter("device"))
            self._find_next()
        return ended

    def _end(self, device: int) -> Job:
        job = self.jobs.pop(device)
        job.airtime_s = self._weight_of[device] * (self._clock - self._started_clock[device]) / self._bandwidth_hz
        job.sending_s = self._settled_s - job.sent_s
        self._finish[device] = self._left_bits[device] = np.inf
        self._add(-self._weight_of[device])
        return job

    def _add(self, weight: float) -> None:
        if self.jobs:
            self._active_weight += weight
            self._pace = self._bandwidth_hz / (self._whole or self._active_weight)
        else:
            self._active_weight = self._pace = 0.0  # no rounding outlives an idle time
        if self._whole is not None:
            self.in_use = self._active_weight / self._whole

    def _read(self, now: float) -> None:
        self._clock += (now - self._settled_s) * self._pace
        self._settled_s = now

    def _find_next(self) -> None:
        self._next_device = int(self._finish.argmin())
        self._next_finish = self._finish.item(self._next_device)
