"""The shared uplink with real modulation and coding: transport blocks slot by slot, block errors, retransmissions."""

import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import simpy
from numpy.typing import NDArray

from channel_models import MCS_EFFICIENCY, best_mcs, block_error, mcs_thresholds
from uhlm_sim.cell.jobs import Counters, Job, Wakeup
from uhlm_sim.cell.radio.air import Air
from uhlm_sim.cell.radio.allocators import (
    Allocator,
    bind_allocator,
    checked_shares,
    equal_share,
    name_of,
    named_allocator,
)
from uhlm_sim.cell.radio.slots import Slots

Floats = NDArray[np.float64]

# What is kept of each block on the air: a row each, a column for every block.
DEVICE, SHARE, MCS, SIZE_BITS, BITS, SNR, COIN, TIMES = range(8)
NONE_SENT = np.empty((8, 0))
SIZES_AN_OCTAVE = 16  # of blocks for which thresholds are kept: they are right to 0.05 dB
LEAST_SHARE = 1e-6  # of the band that is worth allotting beside retransmissions
COINS_AHEAD = 256
LEAST_TRUST, MOST_TRUST = 0.01, 100.0  # as far as acknowledgements may move the SNR that the base station believes


@dataclass(frozen=True, slots=True)
class Link:
    """How blocks are chosen, acknowledged and sent again.

    The base station takes the highest MCS whose error at the SNR it believes is at most `target_error`: what it saw
    `csi_delay_s` ago, less an offset that grows by `outer_step_db` when a block's first transmission fails and falls by
    target / (1 - target) of that when it doesn't (0: no outer loop); below the lowest MCS it grows no more, so that a
    phone in between comes back. A block that fails is sent again `round_trip_slots` after, at most `max_transmissions`
    times in all. `overhead` is the part of a slot that carries no data: reference signals, or the downlink's slots.
    """

    target_error: float = 0.1
    outer_step_db: float = 0.5
    csi_delay_s: float = 0.0
    max_transmissions: int = 4
    round_trip_slots: int = 8
    overhead: float = 0.0


class AdaptiveUplink:
    """A band shared slot by slot, with the interface and the allocators of `uhlm_sim.cell.radio.uplink.Uplink`.

    At a slot's edge blocks that failed `round_trip_slots` before are sent again, on the same share of the band and with
    the same MCS (synchronous HARQ); so they always fit. The allocator shares out the band to devices that have bits
    waiting and send nothing again; where that and the retransmissions are more than the band, all its shares shrink
    alike, so a fixed split stays one. A device sends one block a slot, as many bits as its MCS carries there, or what
    is left of the upload. The allocator gets

        SNR          as seen; as believed, where it finds rates from it itself (it asks for `efficiency_of`)
        efficiency   of the MCS for the SNR believed, over the whole band; 0 where the SNR seen is below the lowest MCS

    A device seen below the lowest MCS in the band it got is in outage: it sends nothing, and its share stays unused.
    All others send at the lowest MCS at least.
    At the slot's end the block fails if its coin is below `block_error` at the sum of the SNRs it was sent at (chase
    combining; the SNR of a slot is that of its beginning). A block keeps its coin, so after n transmissions it has
    failed with exactly the error at their sum. One that fails for the last time gives its bits back to the upload. An
    upload ends with the slot that decodes its last block.

    `known` is the same air as `air`, that is entered `csi_delay_s` later. `coins_of(device)` draws the coins: that of
    device i in slot k hangs on (i, k) alone, so policies meet the same luck in the same slot; SNR and MCS they meet
    there may differ. Airtime is share times slot, retransmissions and overhead included. Left out: whole resource
    blocks, control channels, errors of acknowledgements, asynchronous retransmissions, fading within a slot.
    """

    def __init__(
        self,
        env: simpy.Environment,
        *,
        bandwidth_hz: float,
        air: Air,
        known: Air,
        link: Link,
        slots: Slots,
        coins_of: Callable[[int], np.random.Generator],
        deliver: Callable[[Job], None],
        allocator: Allocator = equal_share,
        params: Mapping[str, float] | None = None,
        weights: Floats | None = None,
        power_limited: bool = False,
    ) -> None:
        self.counters = Counters()
        self._env = env
        self._air = air
        self._known = known
        self._link = link
        self._slots = slots
        self._deliver = deliver
        self._name = name_of(allocator)
        self._power_limited = power_limited
        self._finds_rates = "efficiency_of" in named_allocator(allocator).asks
        self._uses = bandwidth_hz * slots.tti_s * (1.0 - link.overhead)  # channel uses of a slot's whole band
        self._thresholds = threshold_table(
            math.ceil(SIZES_AN_OCTAVE * math.log2(max(self._uses, 2.0))), link.target_error
        )
        back_db = link.outer_step_db * link.target_error / (1.0 - link.target_error)
        self._after_error, self._after_none = 10.0 ** (-link.outer_step_db / 10.0), 10.0 ** (back_db / 10.0)

        devices = air.devices
        self._jobs: dict[int, Job] = {}
        self._waiting_bits = np.zeros(devices)
        self._in_flight = np.zeros(devices, dtype=np.int64)  # blocks that are neither decoded nor given back
        self._airtime_s = np.zeros(devices)
        self._sending_s = np.zeros(devices)
        self._arrival = np.zeros(devices, dtype=np.int64)
        self._trust = np.ones(devices)  # the outer loop's factor to the SNR that was seen
        self._believed = np.zeros(devices)
        self._failed: dict[int, Floats] = {}  # by the slot in which they are sent again
        self._sent = NONE_SENT
        self._in_use = 0.0
        self._settled_s = 0.0
        self._first_slot = Wakeup(env)
        self._coins = [coins_of(device) for device in range(devices)]
        self._coins_ahead = np.empty((devices, COINS_AHEAD))
        self._first_coin = -COINS_AHEAD
        self._allocator, self._inputs = bind_allocator(
            allocator,
            params or {},
            mean_snr=air.mean_snr,
            arrival=self._arrival,
            efficiency=self._efficiency,
            efficiency_of=self._efficiency_of,
            power_limited=power_limited,
            weights=weights,
            slots=slots,
        )

        env.process(self.run())

    def run(self) -> Generator[simpy.Event, object, None]:
        """Send slot by slot while there are jobs: send blocks, decode them, deliver the jobs that are complete."""
        while True:
            yield self._first_slot
            number = self._slots.next_number(self._env.now)
            while self._jobs:
                self._transmit(number)
                number += 1
                yield self._env.timeout(max(number * self._slots.tti_s - self._env.now, 0.0))
                for job in self._decode(number) if self._sent.size else []:
                    self._deliver(job)
            self._first_slot = Wakeup(self._env)

    def send(self, job: Job) -> None:
        """Begin to upload a job's payload: from the next slot's edge on."""
        now = self.settle()
        self.counters.arrivals += 1
        device = job.device
        self._jobs[device] = job
        self._waiting_bits[device] = job.payload_bits
        self._airtime_s[device] = self._sending_s[device] = 0.0
        self._arrival[device] = self.counters.arrivals
        if not self._first_slot.triggered:  # nobody was sending: slots pass unseen until now
            edge_s = self._slots.next_number(now) * self._slots.tti_s
            self._first_slot.after(max(edge_s - now, 0.0))

    def settle(self) -> float:
        """Bring the counters up to the present, and return it."""
        now = self._env.now
        elapsed = now - self._settled_s
        if elapsed > 0.0:
            self.counters.present_s += len(self._jobs) * elapsed
            self.counters.busy_s += self._in_use * elapsed
            self._settled_s = now
        return now

    def _transmit(self, number: int) -> None:
        """Begin a slot: send blocks that failed again, and new ones beside them."""
        self.settle()
        self._slots.begin(number)
        self._look(self._air, self._env.now)
        self._look(self._known, max(self._env.now - self._link.csi_delay_s, 0.0))
        sent, free = self._again(number), 1.0
        able = self._waiting_bits > 0.0
        if sent.size:
            able[sent[DEVICE].astype(np.intp)] = False
            free -= float(np.add.reduce(sent[SHARE]))
        active = able.nonzero()[0]  # one block a device and slot: who sends again gets nothing new
        if active.size and free > LEAST_SHARE:
            new = self._new_blocks(number, active, free)
            sent = np.concatenate([sent, new], axis=1) if sent.size else new
        share, snr = sent[SHARE], self._air.snr[sent[DEVICE].astype(np.intp)]
        # Chase combining: the SNRs of all transmissions of a block add up.
        sent[SNR] += snr / share if self._power_limited else snr
        sent[TIMES] += 1.0
        self._sent, self._in_use = sent, float(np.add.reduce(share))

    def _look(self, air: Air, at_s: float) -> None:
        if air.coherence_s is not None:
            air.enter(int(at_s / air.coherence_s * (1.0 + 1e-12)))

    def _again(self, number: int) -> Floats:
        """Return the blocks that are due again in this slot; those sent often enough give their bits back."""
        failed = self._failed.pop(number, NONE_SENT)
        if not failed.size:
            return failed
        given_up = failed[TIMES] >= self._link.max_transmissions
        if given_up.any():
            device = failed[DEVICE, given_up].astype(np.intp)
            self._waiting_bits[device] += failed[BITS, given_up]
            self._in_flight[device] -= 1
            self.counters.lost_blocks += device.size
            failed = failed[:, ~given_up]
        self.counters.retransmissions += failed.shape[1]
        return failed

    def _new_blocks(self, number: int, active: NDArray[np.intp], free: float) -> Floats:
        self._believed = self._known.snr * self._trust
        inputs = {name: get(active) for name, get in self._inputs}
        seen = self._known.snr[active]
        allocator_snr = self._least_believed(active) if self._finds_rates else seen.copy()
        given = self._allocator(self._waiting_bits[active], allocator_snr, **inputs)
        shares, total, _ = checked_shares(self._name, given, len(active))
        if total > free:  # all shrink alike, so that fixed ratios stay fixed
            shares = shares * (free / total)
        if self._power_limited:
            seen = seen / np.maximum(shares, LEAST_SHARE)
        some = (shares > 0.0) & (seen >= self._thresholds[-1, 0])
        device, share = active[some], shares[some]
        self._slots.give(active, shares)
        blocks = np.empty((8, device.size))
        uses = share * self._uses
        snr = self._believed[device] / share if self._power_limited else self._believed[device]
        mcs = np.maximum(best_mcs(snr, self._thresholds[self._row(uses)]), 0)
        size = uses * MCS_EFFICIENCY[mcs]
        bits = np.minimum(self._waiting_bits[device], size)
        blocks[DEVICE], blocks[SHARE], blocks[MCS], blocks[SIZE_BITS] = device, share, mcs, size
        blocks[BITS], blocks[SNR], blocks[COIN], blocks[TIMES] = bits, 0.0, self._coin(number)[device], 0.0
        self._waiting_bits[device] -= bits
        self._in_flight[device] += 1
        self._slots.sent_bits[device] += bits
        self.counters.blocks += device.size
        self.counters.mcs_sum += int(mcs.sum())
        return blocks

    def _decode(self, number: int) -> list[Job]:
        """End the slot before `number`: return the jobs whose last block is decoded, in device order."""
        self.settle()
        sent, link, counters = self._sent, self._link, self.counters
        self._sent, self._in_use = NONE_SENT, 0.0
        device = sent[DEVICE].astype(np.intp)
        fails = sent[COIN] < block_error(sent[MCS].astype(np.intp), sent[SIZE_BITS], sent[SNR])
        self._airtime_s[device] += sent[SHARE] * self._slots.tti_s
        self._sending_s[device] += self._slots.tti_s
        first = sent[TIMES] == 1.0
        if link.outer_step_db:  # only first transmissions count: the target is about them
            believed = self._believed[device] / sent[SHARE] if self._power_limited else self._believed[device]
            lower = np.where(believed < self._thresholds[-1, 0], 1.0, self._after_error)  # there is no lower MCS
            moved = self._trust[device] * np.where(fails, lower, self._after_none)
            moved = np.minimum(np.maximum(moved, LEAST_TRUST), MOST_TRUST)
            self._trust[device[first]] = moved[first]
        well, bits = device, sent[BITS]
        if np.count_nonzero(fails):
            counters.block_errors += int(np.count_nonzero(fails & first))
            self._failed[number - 1 + link.round_trip_slots] = sent[:, fails]
            well, bits = device[~fails], bits[~fails]
        self._in_flight[well] -= 1
        counters.block_bits += float(np.add.reduce(bits))
        done = well[(self._in_flight[well] == 0) & (self._waiting_bits[well] == 0.0)]
        return [self._take(device) for device in sorted(done.tolist())]

    def _take(self, device: int) -> Job:
        job = self._jobs.pop(device)
        job.airtime_s, job.sending_s = self._airtime_s.item(device), self._sending_s.item(device)
        self.counters.departures += 1
        self.counters.bits += job.payload_bits
        return job

    def _efficiency(self, active: NDArray[np.intp]) -> Floats:
        """Return bit/s/Hz of the active devices over the whole band: of the lowest MCS at least, where it is seen."""
        return self._efficiency_of(self._least_believed(active))

    def _least_believed(self, active: NDArray[np.intp]) -> Floats:
        """Return the SNR believed of the active devices: at least the lowest MCS's where the SNR seen reaches that."""
        least = self._thresholds[-1, 0]
        return np.where(self._known.snr[active] >= least, np.maximum(self._believed[active], least), 0.0)

    def _efficiency_of(self, snr: Floats) -> Floats:
        """Return bit/s/Hz of the MCS for an SNR over the whole band, 0 below the lowest, elementwise."""
        mcs = best_mcs(snr, self._thresholds[-1])
        return np.where(mcs < 0, 0.0, MCS_EFFICIENCY[mcs]) * (1.0 - self._link.overhead)

    def _row(self, uses: Floats) -> NDArray[np.intp]:
        rows: NDArray[np.intp] = np.rint(SIZES_AN_OCTAVE * np.log2(np.maximum(uses, 1.0))).astype(np.intp)
        return rows

    def _coin(self, number: int) -> Floats:
        while number >= self._first_coin + COINS_AHEAD:
            for device, rng in enumerate(self._coins):
                self._coins_ahead[device] = rng.random(COINS_AHEAD)
            self._first_coin += COINS_AHEAD
        coins: Floats = self._coins_ahead[:, number - self._first_coin]
        return coins


@lru_cache(maxsize=8)
def threshold_table(rows: int, target_error: float) -> Floats:
    """Return the thresholds of every MCS for blocks of 2^(row / SIZES_AN_OCTAVE) channel uses, row by row."""
    return mcs_thresholds(2.0 ** (np.arange(rows + 1) / SIZES_AN_OCTAVE), target_error)
