"""The shared uplink: all phones' uploads drain through one band, at rates set by allocator and fading."""

from collections.abc import Callable, Generator, Mapping
from math import inf

import numpy as np
import simpy

from uhlm_sim.cell.alarm import Alarm
from uhlm_sim.cell.jobs import Counters, Job
from uhlm_sim.cell.radio.air import Air
from uhlm_sim.cell.radio.allocators import Allocator, Floats, bind_allocator, equal_share
from uhlm_sim.cell.radio.draining import make_drain
from uhlm_sim.cell.radio.epochs import Epochs
from uhlm_sim.cell.radio.slots import Slots

ROUNDING = 1e-12  # of the time of day: an edge that is no further away than that is reached


class Uplink:
    """A band of `bandwidth_hz` shared by at most one upload per device.

    An allocator maps (bits left, SNR over the whole band) of the active uploads, in device order, to their shares of
    the band, each at least 0 and together at most 1; `params` are its constants, `weights` are one per device for one
    that asks for them (see `radio/allocators.py`; ValueError if it asks for what isn't there). Upload i drains at
    share_i B se(SNR_i) bit/s, with SNR_i that of the whole band (`power_limited` False: fixed power density) or divided
    by the share (True: all power in the band used). Shares and rates are constant between arrivals, departures and
    block edges, so finish times are exact. With `slots` the allocator is asked at their edges only.

    `VirtualTime` drains shares in the ratio of fixed weights, and proportional fair where nothing fades and all tie;
    `Epochs` drains all others. Uploads that begin at one instant, such as those of phones that one batch answered,
    begin one epoch together. Uploads whose rest would take less than a picosecond (relative to the time of day) end
    together, in device order. With `count_sending` each job's time with any share is counted, for its energy.

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
        self._arrival = np.zeros(air.devices, dtype=np.int64)
        bound, inputs = bind_allocator(
            allocator,
            params or {},
            mean_snr=air.mean_snr,
            arrival=self._arrival,
            efficiency=lambda active: air.efficiency()[active],
            efficiency_of=air.efficiency_of,
            power_limited=power_limited,
            weights=weights,
            slots=slots,
        )
        self._shared = make_drain(
            allocator,
            bound,
            inputs,
            bandwidth_hz,
            air,
            weights,
            slots=slots,
            power_limited=power_limited,
            count_sending=count_sending,
        )
        self._slots = slots if isinstance(self._shared, Epochs) else None
        self._alarm = Alarm(env)
        self._block = -1
        self._block_edge_s = self._slot_edge_s = inf
        self._changed = False  # who takes part, or the air, since the last look
        self._delivering = False
        self._settled_s = 0.0
        env.process(self.run())

    def run(self) -> Generator[simpy.Event, object, None]:
        """Sleep until the next change, deliver the uploads that ended, and find shares and rates anew.

        A change is a finish, the edge of a block or slot, or uploads that have begun and wait for their shares.
        """
        shared, alarm, now = self._shared, self._alarm, self._env.now
        while True:
            yield alarm.until(self._next_change_s(), now)
            now = self.settle()
            if ended := shared.due(now):
                self._hand_on(ended)
            if not shared.jobs:
                continue  # blocks and slots pass unseen; the next upload finds out where the air is
            reached_s = now * (1.0 + ROUNDING)
            if self._block_edge_s <= reached_s:
                self._enter_block(self._block + 1)
            if self._slot_edge_s <= reached_s:  # after the block's edge: a block that begins with a slot is known in it
                self._enter_slot(now)
            elif self._changed:
                self._look(now)

    def send(self, job: Job) -> None:
        """Begin to upload a job's payload, now."""
        now = self.settle()
        shared = self._shared
        if shared.jobs and (ended := shared.due(now)):
            self._hand_on(ended)  # what is due now is over, and takes no share beside the newcomer
        if not shared.jobs:
            self._find_the_air(now)
        self.counters.arrivals += 1
        self._arrival[job.device] = self.counters.arrivals
        shared.begin(job, now)
        if not shared.steady and self._slots is None:
            self._changed = True
        if self._changed:
            if self._delivering or self._env.peek() <= now:  # others may begin at this instant: look once for all
                self._alarm.no_later_than(now, now)
                return
            self._look(now)
        self._alarm.no_later_than(self._next_change_s(), now)

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

    def _next_change_s(self) -> float:
        """Return when the next upload ends, block begins or slot begins: never, if nothing is sent."""
        shared = self._shared
        if not shared.jobs:
            return inf
        # Comparisons in place of min(): this runs at every event of the uplink.
        edge_s = self._block_edge_s if self._block_edge_s < self._slot_edge_s else self._slot_edge_s
        finish_s = shared.next_s()
        return finish_s if finish_s < edge_s else edge_s

    def _look(self, now: float) -> None:
        """Find the shares and rates that hold from now on."""
        self._changed = False
        self._shared.look(now)

    def _find_the_air(self, now: float) -> None:
        """Find the present block and slot, after a time without uploads."""
        if self._slots is not None:
            self._slot_edge_s = self._slots.next_number(now) * self._slots.tti_s
        block = int(now / (self._air.coherence_s or inf) * (1.0 + ROUNDING))  # a channel that stands still has one
        if block != self._block:
            self._enter_block(block)
            self._look(now)

    def _enter_block(self, block: int) -> None:
        self._block = block
        self._changed = True
        if self._air.coherence_s is not None:
            self._air.enter(block)
            self._block_edge_s = (block + 1) * self._air.coherence_s

    def _enter_slot(self, now: float) -> None:
        if isinstance(self._shared, Epochs) and self._slots is not None:
            number = self._slots.next_number(now)
            self._shared.enter_slot(self._slots, number, now)
            self._slot_edge_s = (number + 1) * self._slots.tti_s
        self._changed = False

    def _hand_on(self, ended: list[Job]) -> None:
        """Deliver the uploads that end now."""
        counters = self.counters
        for job in ended:
            counters.departures += 1
            counters.bits += job.payload_bits
        self._changed = bool(self._shared.jobs) and not self._shared.steady
        self._delivering = True  # phones may send again at once: one look serves all of them
        for job in ended:
            self._deliver(job)
        self._delivering = False
