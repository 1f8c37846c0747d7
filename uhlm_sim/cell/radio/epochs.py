"""Uploads under any allocator: shares and rates are constant from one change to the next."""

import numpy as np

from uhlm_sim.cell.jobs import Job
from uhlm_sim.cell.radio.air import Air, quotient
from uhlm_sim.cell.radio.allocators import Allocator, Indices, Inputs, checked_shares
from uhlm_sim.cell.radio.slots import Slots


class Epochs:
    """Drains uploads at the shares of any allocator, one vectorised step per epoch.

    An epoch lasts from one arrival, departure, block edge or slot edge to the next; shares and rates are constant in
    it. Upload i drains at share_i B se(SNR_i) bit/s, with SNR_i that of the whole band, or if `power_limited` divided
    by the share. `allocator` has its constants bound and is called `name` in errors; `inputs` are the functions that
    return what else it asks for, of the active devices. Without `slots` every `look` calls it; with them only
    `enter_slot` does: an arrival waits for a slot, and a departure leaves the rest of its slot unused. With
    `count_sending` each job's `sending_s` is counted, for its energy.
    """

    steady = False  # who comes or goes changes the others' shares

    def __init__(
        self,
        bandwidth_hz: float,
        air: Air,
        allocator: Allocator,
        inputs: Inputs,
        name: str,
        *,
        slots: Slots | None,
        power_limited: bool,
        count_sending: bool,
    ) -> None:
        self.jobs: dict[int, Job] = {}
        self.in_use = 0.0  # share of the band that the active uploads hold together
        self._bandwidth_hz = bandwidth_hz
        self._air = air
        self._allocator = allocator
        self._inputs = inputs
        self._name = name
        self._slots = slots
        self._power_limited = power_limited
        # One array of [bits left, -airtime, -time of sending], so that one subtraction per epoch advances all of them;
        # `_fall` has the rate of each per hertz second of the band: [bit/s/Hz, share, 1 while it sends].
        rows = 3 if count_sending else 2
        self._left, self._fall = np.zeros(rows * air.devices), np.zeros(rows * air.devices)
        self._fallen = np.empty_like(self._left)
        self._left_bits, self._airtime_hz_s, *self._sending_hz_s = np.split(self._left, rows)
        self._rate, self._share, *self._sends = np.split(self._fall, rows)
        self._is_active = np.zeros(air.devices, dtype=bool)
        self._active: Indices | None = None  # devices, found from `_is_active` when next needed
        self._holders = np.arange(0)  # devices with a share above 0
        self._held = np.empty(0)  # their shares
        self._rest_hz_s = np.empty(0)  # from the epoch's start to the end of each holder's upload
        self._least_rest_hz_s = np.inf
        self._epoch_s = 0.0

    def next_s(self) -> float:
        """Return when the next upload will end."""
        return self._epoch_s + self._least_rest_hz_s / self._bandwidth_hz

    def begin(self, job: Job, now: float) -> None:  # noqa: ARG002  it has no share before the next look
        """Let an upload take part, from the next look on."""
        device = job.device
        self.jobs[device] = job
        self._active = None
        self._is_active[device] = True
        self._left_bits[device] = job.payload_bits
        if self._air.per_upload:
            self._air.set_gain(device, job.gain)

    def look(self, now: float) -> None:
        """Begin an epoch: find all shares and rates anew; with slots only the rates."""
        self._progress(now)
        if self.jobs:
            if self._slots is None:
                self._allot()
            self._find_rates()

    def enter_slot(self, slots: Slots, number: int, now: float) -> None:
        """Begin an epoch with a slot."""
        self._progress(now)
        slots.begin(number)
        self._allot()
        self._find_rates()

    def due(self, now: float) -> list[Job]:
        """Take out the uploads that end now, in device order."""
        elapsed_hz_s = (now - self._epoch_s) * self._bandwidth_hz
        # A rest shorter than the clock's rounding would never be due, so it counts as sent.
        due_hz_s = elapsed_hz_s + 1e-12 * (1.0 + 2.0 * now) * self._bandwidth_hz
        if self._least_rest_hz_s > due_hz_s:
            return []
        due = self._rest_hz_s <= due_hz_s
        ended = [self._end(device, elapsed_hz_s) for device in self._holders[due].tolist()]
        if self._slots is not None:  # the others keep what they have of the slot
            self._holders, self._held = self._holders[~due], self._held[~due]
        self._least_rest_hz_s = np.inf
        return ended

    def _end(self, device: int, elapsed_hz_s: float) -> Job:
        job = self.jobs.pop(device)
        share = self._share.item(device)
        job.airtime_s = (elapsed_hz_s * share - self._airtime_hz_s.item(device)) / self._bandwidth_hz
        self._share[device] = self._rate[device] = self._airtime_hz_s[device] = 0.0
        for spent, sends in zip(self._sending_hz_s, self._sends, strict=True):
            job.sending_s = (elapsed_hz_s * sends.item(device) - spent.item(device)) / self._bandwidth_hz
            spent[device] = sends[device] = 0.0
        if self._slots is not None:
            self._slots.sent_bits[device] += self._left_bits.item(device)
            self.in_use = max(self.in_use - share, 0.0)
        self._is_active[device] = False
        self._active = None
        return job

    def _progress(self, now: float) -> None:
        """Advance bits left, airtime and time of sending to now, where a new epoch starts."""
        elapsed_hz_s = (now - self._epoch_s) * self._bandwidth_hz
        self._epoch_s = now
        if elapsed_hz_s > 0.0:
            np.multiply(self._fall, elapsed_hz_s, out=self._fallen)
            self._left -= self._fallen
            if self._slots is not None:
                self._slots.sent_bits += self._fallen[: self._air.devices]

    def _allot(self) -> None:
        """Ask the allocator for a new epoch's shares."""
        if self._active is None:
            self._active = self._is_active.nonzero()[0]
        active = self._active
        left_bits, snr = self._left_bits[active], self._air.snr[active]
        shares = self._allocator(left_bits, snr, **{name: get(active) for name, get in self._inputs})
        shares, self.in_use, least = checked_shares(self._name, shares, len(active))
        if self._slots is not None:
            self._slots.give(active, shares)
        if least > 0.0:  # all of them hold some, so every old value is overwritten below
            self._holders, self._held = active, shares
        else:  # who has lost its share must not drain on at its old rate
            for row in (self._rate, self._share, *self._sends):
                row[self._holders] = 0.0
            some = shares.nonzero()[0]
            self._holders, self._held = active[some], shares[some]
        self._share[self._holders] = self._held
        for sends in self._sends:
            sends[self._holders] = 1.0

    def _find_rates(self) -> None:
        """Find the rates of the holders, and when the first of their uploads ends."""
        held, shares = self._holders, self._held
        if self._power_limited and not (len(held) == 1 and shares.item() == 1.0):
            rates = shares * self._air.efficiency_of(self._air.snr[held] / shares)
        else:
            rates = shares * self._air.efficiency()[held]  # known for the whole block, over the whole band
        self._rate[held] = rates
        self._rest_hz_s = rest = quotient(self._left_bits[held], rates)
        self._least_rest_hz_s = rest.item(rest.argmin()) if rest.size else np.inf
