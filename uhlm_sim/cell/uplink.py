"""The shared uplink: every phone's upload drains through one band, at a rate that the others and the fading set."""

from collections.abc import Callable, Mapping
from functools import partial
from operator import attrgetter

import numpy as np
import simpy

from uhlm_sim.cell.air import Air
from uhlm_sim.cell.allocators import (
    ALLOCATORS,
    Allocator,
    Floats,
    Indices,
    bind_allocator,
    checked_shares,
    equal_share,
    name_of,
)
from uhlm_sim.cell.jobs import Counters, Job
from uhlm_sim.cell.slots import Slots

__all__ = ["ALLOCATORS", "Allocator", "Uplink", "equal_share"]


class Uplink:
    """A band of `bandwidth_hz` shared by at most one upload per device.

    An allocator maps (bits left, SNR over the whole band) of the active uploads, in device order, to their shares of
    the band, each at least 0 and together at most 1; `params` are its constants, `weights` are one per device for one
    that asks for them (see `uhlm_sim.cell.allocators`; ValueError if it asks for what isn't there). Upload i drains at
    share_i B se(SNR_i) bit/s, with SNR_i that of the whole band (`power_limited` False: fixed power density) or divided
    by the share (True: all power in the band used). Shares and rates are constant between arrivals, departures and
    block edges, so finish times are exact.

    Time is kept in a `clock` that all active uploads share, in hertz seconds. Under equal share the clock is what each
    has attained of the band, which grows at B/n for everybody: as long as nobody's efficiency changes (per-hertz SNR,
    inside a block) an arrival or a departure then changes only the clock's pace, and nobody's finish on it (virtual
    time). With other allocators the clock is that of the whole band, and every change starts a new epoch, one
    vectorised step; uploads that begin at one instant, as those of phones that one batch answered, begin one epoch
    together. With `slots` the allocator is asked at their edges only. Uploads whose rest would take less than a
    picosecond (relative to the time of day) end together, in device order.

    With `count_sending` each job is told how long it had any of the band, for its energy.

    `deliver(job)` is called at the instant a job's last bit arrives. Left out: block errors, scheduling delay.
    """

    def __init__(
        self,
        env: simpy.Environment,
        *,
        bandwidth_hz: float,
        air: Air,
        deliver: Callable[[Job], None],
        allocator: Allocator = equal_share,
        params: Mapping[str, float] | None = None,
        weights: Floats | None = None,
        slots: Slots | None = None,
        power_limited: bool = False,
        count_sending: bool = False,
    ) -> None:
        self.counters = Counters()
        self._env = env
        self._air = air
        self._deliver = deliver
        self._name = name_of(allocator)
        self._power_limited = power_limited
        self._bandwidth_hz = bandwidth_hz
        self._equal = allocator is equal_share
        self._separable = self._equal and not power_limited

        devices = air.devices
        self._jobs: dict[int, Job] = {}
        self._started_clock = [0.0] * devices
        self._left_bits = np.full(devices, np.inf)  # at the epoch's start; infinite where nothing is sent
        self._finish = np.full(devices, np.inf)  # on the clock
        self._rate = np.zeros(devices)  # bit/s/Hz: bits per unit of the clock, constant in an epoch
        self._share = np.zeros(devices)  # allocators other than equal share
        self._holders: Indices | int = np.arange(0)  # devices that hold some of it; a sole one's number, much cheaper
        self._airtime_hz_s = np.zeros(devices)
        self._sending_hz_s = np.zeros(devices)
        self._counts_sending = count_sending
        self._arrival = np.zeros(devices, dtype=np.int64)
        self._slots = slots
        self._slot_edge: simpy.Event | None = None
        self._newcomers: simpy.Event | None = None
        self._in_use = 1.0 if slots is None else 0.0  # share of the band that the active uploads hold together
        self._allocator, self._asked = bind_allocator(
            allocator,
            params or {},
            constant={"devices": devices, "power_limited": power_limited, "efficiency_of": air.efficiency_of},
            changing={
                "device": lambda active: active,
                "arrival": lambda active: self._arrival[active],
                "mean_snr": lambda active: air.mean_snr[active],
                "efficiency": lambda active: air.efficiency()[active],
            },
            devices=devices,
            weights=weights,
            slots=slots,
        )

        self._clock = 0.0
        self._pace = 0.0  # of the clock, per second
        self._epoch_clock = 0.0
        self._settled_s = 0.0
        self._next_finish = np.inf
        self._next_device = 0
        self._timer: simpy.Event | None = None
        self._timer_s = np.inf
        self._edge: simpy.Event | None = None
        self._edge_s = np.inf
        self._block = -1

    def send(self, job: Job) -> None:
        """Begin to upload a job's payload, now."""
        self._finish_due(self.settle())  # what is due now is over, and takes no share beside the newcomer
        self.counters.arrivals += 1
        if not self._jobs:
            self._wake()
        device = job.device
        self._jobs[device] = job
        self._started_clock[device] = self._clock
        if self._equal:
            self._pace = self._bandwidth_hz / len(self._jobs)
        else:
            self._airtime_hz_s[device] = self._sending_hz_s[device] = 0.0
            self._arrival[device] = self.counters.arrivals
        if self._air.per_upload:
            share = 1.0 / len(self._jobs) if self._equal and self._power_limited else 1.0
            rate = self._air.set_gain(device, job.gain, share)
            if self._separable:
                self._rate[device] = rate
        if self._separable:
            rate = self._rate.item(device)
            self._left_bits[device] = job.payload_bits + (self._clock - self._epoch_clock) * rate
            finish = self._clock + job.payload_bits / rate if rate else np.inf
            self._finish[device] = finish
            if finish < self._next_finish:
                self._next_finish, self._next_device = finish, device
            self._arm()
            return
        self._end_epoch()
        self._left_bits[device] = job.payload_bits
        if self._slots is None and self._newcomers is None:  # others may begin at the same instant: look once for all
            self._newcomers = self._env.timeout(0.0)
            self._newcomers.callbacks.append(self._on_newcomers)

    def _on_newcomers(self, event: simpy.Event) -> None:
        if event is self._newcomers:
            self._begin_epoch()
            self._arm()

    def settle(self) -> float:
        """Bring the clock and the counters up to the present, and return it."""
        now = self._env.now
        elapsed = now - self._settled_s
        if elapsed > 0.0:
            if self._jobs:
                counters = self.counters
                counters.present_s += len(self._jobs) * elapsed
                counters.busy_s += elapsed * self._in_use
                self._clock += elapsed * self._pace
            self._settled_s = now
        return now

    def _wake(self) -> None:
        """Look at the air after an idle time, and follow its blocks from now on."""
        self._pace = self._bandwidth_hz
        if self._slots is not None:
            self._await_slot(self._slots, self._slots.next_number(self._env.now))
        if self._air.coherence_s is None:
            if self._separable and self._block < 0:
                self._block = 0
                self._rate = self._air.efficiency()
            return
        self._enter(int(self._env.now / self._air.coherence_s * (1.0 + 1e-12)), self._air.coherence_s)

    def _enter(self, block: int, coherence_s: float) -> None:
        self._end_epoch()
        self._block = block
        self._air.enter(block)
        self._begin_epoch()
        self._edge_s = (block + 1) * coherence_s
        self._edge = self._env.timeout(max(self._edge_s - self._env.now, 0.0))
        self._edge.callbacks.append(partial(self._on_edge, coherence_s))

    def _on_edge(self, coherence_s: float, event: simpy.Event) -> None:
        if event is not self._edge:
            return
        self._edge = None
        self._finish_due(self.settle())
        if self._jobs:
            self._enter(self._block + 1, coherence_s)
            self._arm()

    def _await_slot(self, slots: Slots, number: int) -> None:
        self._slot_edge = self._env.timeout(max(number * slots.tti_s - self._env.now, 0.0))
        self._slot_edge.callbacks.append(partial(self._on_slot, slots, number))

    def _on_slot(self, slots: Slots, number: int, event: simpy.Event) -> None:
        if event is not self._slot_edge:
            return
        now = self.settle()
        self._finish_due(now)
        if self._jobs:
            if self._air.coherence_s is not None and self._edge_s <= now * (1.0 + 1e-12):
                self._enter(self._block + 1, self._air.coherence_s)  # a block that begins with the slot is known in it
            self._end_epoch()
            slots.begin(number)
            self._allot()
            self._begin_epoch()
            self._await_slot(slots, number + 1)
            self._arm()

    def _end_epoch(self) -> None:
        attained = self._clock - self._epoch_clock
        if attained > 0.0:
            held = self._holders if isinstance(self._holders, int) else slice(None)
            bits = attained * self._rate[held]
            self._left_bits[held] -= bits
            if self._slots is not None:
                self._slots.sent_bits[held] += bits
            if not self._equal:
                self._airtime_hz_s[held] += attained * self._share[held]
                if self._counts_sending:
                    self._sending_hz_s[self._holders] += attained
        self._epoch_clock = self._clock

    def _begin_epoch(self) -> None:
        """Find everybody's rate and finish from the air and the uploads that there are."""
        self._newcomers = None
        if self._separable:
            self._rate, hz_s_per_bit = self._air.efficiency(), self._air.hz_s_per_bit
            self._finish = self._epoch_clock + self._left_bits * hz_s_per_bit
        elif self._equal:
            self._rate = self._air.efficiency(1.0 / max(len(self._jobs), 1))
            self._finish = self._epoch_clock + _quotient(self._left_bits, self._rate)
        elif self._jobs:
            if self._slots is None:
                self._allot()
            self._drain()
        self._find_next()

    def _allot(self) -> None:
        """Ask the allocator for a new epoch's shares."""
        active = np.isfinite(self._left_bits).nonzero()[0]
        asked = {name: get(active) for name, get in self._asked}
        shares = self._allocator(self._left_bits[active], self._air.snr[active], **asked)
        shares, self._in_use = checked_shares(self._name, shares, len(active))
        if self._slots is not None:
            self._slots.give(active, shares)
        holding = np.count_nonzero(shares)
        if holding < len(shares):
            before = self._holders
            self._share[before] = self._rate[before] = 0.0
            self._finish[before] = np.inf
        if holding == 1:
            sole = shares.argmax()
            self._holders = active.item(sole)
            self._share[self._holders] = shares.item(sole)
        else:
            some = shares.nonzero()[0] if holding < len(shares) else slice(None)
            self._holders = held = active[some]
            self._share[held] = shares[some]

    def _drain(self) -> None:
        """Find rates and finishes of those who hold some of the band; nobody else has any."""
        held = self._holders
        share = self._share[held]
        if self._power_limited and not (isinstance(held, int) and share == 1.0):
            rate = share * self._air.efficiency_of(self._air.snr[held] / share)
        else:
            rate = share * self._air.efficiency()[held]
        self._rate[held] = rate
        self._finish[held] = self._epoch_clock + _quotient(self._left_bits[held], rate)

    def _arm(self) -> None:
        """Have a timer at or before the next finish, but never beyond the block, where all changes anyway."""
        due_s = self._settled_s + (self._next_finish - self._clock) / self._pace
        if due_s >= self._edge_s or due_s == np.inf or (self._timer is not None and self._timer_s <= due_s):
            return
        self._timer_s = due_s
        self._timer = self._env.timeout(max(due_s - self._settled_s, 0.0))
        self._timer.callbacks.append(self._on_timer)

    def _on_timer(self, event: simpy.Event) -> None:
        if event is not self._timer:
            return
        self._timer = None
        self._finish_due(self.settle())
        if self._jobs:
            self._arm()

    def _finish_due(self, now: float) -> None:
        due_clock = self._clock + 1e-12 * (self._clock + (1.0 + now) * self._pace)
        if self._next_finish > due_clock:
            return
        if not self._separable:
            self._end_epoch()
        arrived = [self._take(self._next_device)]
        self._find_next()
        if self._next_finish <= due_clock:  # phones in step end together: look once for all of them
            arrived += [self._take(device) for device in np.flatnonzero(self._finish <= due_clock).tolist()]
            arrived.sort(key=attrgetter("device"))
            self._find_next()
        if self._jobs:
            if self._equal:
                self._pace = self._bandwidth_hz / len(self._jobs)
            if not self._separable:
                self._begin_epoch()
        else:
            self._edge, self._edge_s, self._slot_edge = None, np.inf, None
        for job in arrived:
            self._deliver(job)

    def _take(self, device: int) -> Job:
        job = self._jobs.pop(device)
        attained = self._clock - self._started_clock[device] if self._equal else self._airtime_hz_s.item(device)
        job.airtime_s = attained / self._bandwidth_hz
        if self._counts_sending:
            stay_s = self._settled_s - job.sent_s
            job.sending_s = stay_s if self._equal else self._sending_hz_s.item(job.device) / self._bandwidth_hz
        self.counters.departures += 1
        self.counters.bits += job.payload_bits
        self._finish[device] = self._left_bits[device] = np.inf
        if self._slots is not None:  # what it leaves of its slot stays unused
            self._in_use = max(self._in_use - self._share.item(device), 0.0)
            held = np.atleast_1d(np.asarray(self._holders))
            self._holders = held[held != device]
        if not self._equal:
            self._share[device] = self._rate[device] = 0.0
        return job

    def _find_next(self) -> None:
        self._next_device = int(self._finish.argmin())
        self._next_finish = self._finish.item(self._next_device)


def _quotient(numerator: Floats, denominator: Floats) -> Floats:
    """Return a quotient that is infinite where the denominator is 0, without the price of muting numpy elsewhere."""
    if denominator.size and denominator.item(denominator.argmin()) > 0.0:
        return numerator / denominator
    with np.errstate(divide="ignore"):
        return numerator / denominator
