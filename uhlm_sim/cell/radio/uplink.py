"""The shared uplink: every phone's upload drains through one band, at a rate that the others and the fading set."""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import simpy

from uhlm_sim.cell.jobs import Counters, Job
from uhlm_sim.cell.radio.air import Air
from uhlm_sim.cell.radio.allocators import (
    ALLOCATORS,
    Allocator,
    Floats,
    bind_allocator,
    equal_share,
)
from uhlm_sim.cell.radio.draining import make_drain
from uhlm_sim.cell.radio.epochs import Epochs
from uhlm_sim.cell.radio.slots import Slots

__all__ = ["ALLOCATORS", "Allocator", "Uplink", "equal_share"]


class Uplink:
    """A band of `bandwidth_hz` shared by at most one upload per device.

    An allocator maps (bits left, SNR over the whole band) of the active uploads, in device order, to their shares of
    the band, each at least 0 and together at most 1; `params` are its constants, `weights` are one per device for one
    that asks for them (see `radio/allocators.py`; ValueError if it asks for what isn't there). Upload i drains at
    share_i B se(SNR_i) bit/s, with SNR_i that of the whole band (`power_limited` False: fixed power density) or divided
    by the share (True: all power in the band used). Shares and rates are constant between arrivals, departures and
    block edges, so finish times are exact. With `slots` the allocator is asked at their edges only.

    Who shares in the ratio of fixed weights is drained in `VirtualTime`, and so is proportional fair where nothing
    fades and all tie. All others are in `Epochs`, which the uploads that begin at one instant, as those of phones that
    one batch answered, begin together. Uploads whose rest would take less than a picosecond (relative to the time of
    day) end together, in device order. With `count_sending` each job is told how long it had any of the band, for its
    energy.

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
        self._slots = slots
        self._arrival = np.zeros(air.devices, dtype=np.int64)
        bound, asked = bind_allocator(
            allocator,
            params or {},
            constant={"devices": air.devices, "power_limited": power_limited, "efficiency_of": air.efficiency_of},
            changing={
                "device": lambda active: active,
                "arrival": lambda active: self._arrival[active],
                "mean_snr": lambda active: air.mean_snr[active],
                "efficiency": lambda active: air.efficiency()[active],
            },
            weights=weights,
            slots=slots,
        )
        self._shared = make_drain(
            allocator,
            bound,
            asked,
            bandwidth_hz,
            air,
            weights,
            slots=slots,
            power_limited=power_limited,
            count_sending=count_sending,
        )
        self._newcomers: simpy.Event | None = None
        self._delivers_many = False  # uploads that end together may be followed by others at once
        self._slot_edge: simpy.Event | None = None
        self._settled_s = 0.0
        self._timer: simpy.Event | None = None
        self._timer_s = np.inf
        self._edge: simpy.Event | None = None
        self._edge_s = np.inf
        self._block = -1

    def send(self, job: Job) -> None:
        """Begin to upload a job's payload, now."""
        now = self.settle()
        self._finish_due(now)  # what is due now is over, and takes no share beside the newcomer
        self.counters.arrivals += 1
        if not self._shared.jobs:
            self._wake(now)
        self._arrival[job.device] = self.counters.arrivals
        self._shared.begin(job, now)
        if self._shared.steady:
            self._arm(now)
        elif self._slots is None and self._newcomers is None:
            if self._env.peek() > now and not self._delivers_many:
                self._look(now)
                self._arm(now)
            else:  # others may begin at this instant: look once for all
                self._newcomers = self._env.timeout(0.0)
                self._newcomers.callbacks.append(self._on_newcomers)

    def settle(self) -> float:
        """Bring the counters up to the present, and return it."""
        now = self._env.now
        elapsed = now - self._settled_s
        if elapsed > 0.0:
            uploads = len(self._shared.jobs)
            if uploads:
                self.counters.present_s += uploads * elapsed
                self.counters.busy_s += elapsed * self._shared.in_use
            self._settled_s = now
        return now

    def _on_newcomers(self, event: simpy.Event) -> None:
        if event is self._newcomers:
            self._look(self._env.now)
            self._arm(self._env.now)

    def _look(self, now: float) -> None:
        self._newcomers = None
        self._shared.look(now)

    def _wake(self, now: float) -> None:
        """Look at the air after an idle time, and follow its blocks from now on."""
        if self._slots is not None:
            self._await_slot(self._slots, self._slots.next_number(now))
        if self._air.coherence_s is not None:
            self._enter(int(now / self._air.coherence_s * (1.0 + 1e-12)), self._air.coherence_s)
        elif self._block < 0:
            self._block = 0
            self._look(now)

    def _enter(self, block: int, coherence_s: float) -> None:
        self._block = block
        self._air.enter(block)
        self._look(self._env.now)
        self._edge_s = (block + 1) * coherence_s
        self._edge = self._env.timeout(max(self._edge_s - self._env.now, 0.0))
        self._edge.callbacks.append(partial(self._on_edge, coherence_s))

    def _on_edge(self, coherence_s: float, event: simpy.Event) -> None:
        if event is not self._edge:
            return
        self._edge = None
        now = self.settle()
        self._finish_due(now)
        if self._shared.jobs:
            self._enter(self._block + 1, coherence_s)
            self._arm(now)

    def _await_slot(self, slots: Slots, number: int) -> None:
        self._slot_edge = self._env.timeout(max(number * slots.tti_s - self._env.now, 0.0))
        self._slot_edge.callbacks.append(partial(self._on_slot, slots, number))

    def _on_slot(self, slots: Slots, number: int, event: simpy.Event) -> None:
        if event is not self._slot_edge:
            return
        now = self.settle()
        self._finish_due(now)
        if isinstance(self._shared, Epochs) and self._shared.jobs:
            if self._air.coherence_s is not None and self._edge_s <= now * (1.0 + 1e-12):
                self._enter(self._block + 1, self._air.coherence_s)  # a block that begins with the slot is known in it
            self._shared.enter_slot(slots, number, now)
            self._await_slot(slots, number + 1)
            self._arm(now)

    def _arm(self, now: float) -> None:
        """Have a timer at or before the next finish, but never beyond the block, where all changes anyway."""
        due_s = self._shared.next_s()
        if due_s >= self._edge_s or due_s == np.inf or (self._timer is not None and self._timer_s <= due_s):
            return
        self._timer_s = due_s
        self._timer = self._env.timeout(max(due_s - now, 0.0))
        self._timer.callbacks.append(self._on_timer)

    def _on_timer(self, event: simpy.Event) -> None:
        if event is not self._timer:
            return
        self._timer = None
        now = self.settle()
        self._finish_due(now)
        if self._shared.jobs:
            self._arm(now)

    def _finish_due(self, now: float) -> None:
        ended = self._shared.due(now)
        if not ended:
            return
        for job in ended:
            self.counters.departures += 1
            self.counters.bits += job.payload_bits
        if not self._shared.jobs:
            self._edge, self._edge_s, self._slot_edge = None, np.inf, None
        elif not self._shared.steady:
            self._look(now)
        self._delivers_many = len(ended) > 1
        for job in ended:
            self._deliver(job)
        self._delivers_many = False
