"""Each allocator in random traffic agrees with its theory.

Where nothing else is said the band has 1 Hz and carries 1 bit/s per unit of SNR.
"""

import itertools
import math
from collections import deque
from functools import partial

import numpy as np
import pytest
import simpy
from worlds import agrees, known_air, shannon, still_air, timeline, transmit

from channel_models import ergodic_spectral_efficiency, spectral_efficiency
from uhlm_sim.cell.jobs import Job
from uhlm_sim.cell.radio.allocators import ALLOCATORS, equal_finish
from uhlm_sim.cell.radio.slots import Slots
from uhlm_sim.cell.radio.uplink import Uplink
from uhlm_sim.rng import stream


@pytest.mark.parametrize("cap", [2.0, np.inf])
def test_the_split_for_ending_together_is_exact_whatever_the_snr(cap):
    rng = stream(1, "together", cap)
    for _ in range(200):
        count = int(rng.integers(2, 40))
        snr, left_bits = 10 ** rng.uniform(-2, 3, count), 10 ** rng.uniform(0, 6, count)
        se = partial(spectral_efficiency, min_snr=0.01, max_spectral_efficiency=cap)
        shares = equal_finish(left_bits, snr, efficiency=se(snr), efficiency_of=se, power_limited=True)
        seconds = left_bits / (shares * se(snr / shares))
        assert shares.sum() == pytest.approx(1.0, abs=1e-12)
        assert seconds == pytest.approx(np.full(count, seconds.mean()), rel=1e-10)


def finish_times(uploads, order):
    """One server, `order` the devices from first to last in rank, who interrupt those after them: when each ends."""
    left, ended, now = {device: bits for _, device, bits in uploads}, {}, 0.0
    while left:
        here = [device for at_s, device, _ in uploads if at_s <= now and device in left]
        coming = min((at_s for at_s, *_ in uploads if at_s > now), default=math.inf)
        if not here:
            now = coming
            continue
        first = min(here, key=order.index)
        step_s = min(left[first], coming - now)
        now, left[first] = now + step_s, left[first] - step_s
        if left[first] <= 1e-12:
            ended[first] = now
            del left[first]
    return ended


def test_shortest_first_has_the_least_mean_stay_of_all_orders():
    """The best preemptive schedule is one of the n! ranks; times count, not bits: the SNR is 1 to 5."""
    rng, snr = stream(1, "shortest"), np.arange(1.0, 6.0)
    for _ in range(20):
        seconds, starts_s = rng.exponential(1.0, 5), np.sort(rng.uniform(0, 4, 5))
        timed = [(at_s, device, seconds[device]) for device, at_s in enumerate(starts_s.tolist())]
        best = min(sum(finish_times(timed, order).values()) for order in itertools.permutations(range(5)))
        uploads = [(at_s, device, duration_s * snr[device]) for at_s, device, duration_s in timed]
        ended = timeline(uploads, still_air(*snr), "shortest-first")
        assert sum(at_s for at_s, _ in ended.values()) == pytest.approx(best, rel=1e-9)


def queues(name, active, replication, rate, phones=4, until_s=8000.0):
    """Phones that each queue their own Poisson uploads of mean 1 bit: return stays by phone, queueing included."""
    env, stays, waiting = simpy.Environment(), [[] for _ in range(phones)], [deque() for _ in range(phones)]

    def deliver(job):
        queue = waiting[job.device]
        stays[job.device].append(env.now - queue.popleft()[0])
        if queue:
            uplink.send(Job(job.device, queue[0][1], 1, env.now, None))

    def phone(device):
        rng = stream(1, "queues", replication, device)
        while env.now < until_s:
            yield env.timeout(rng.exponential(1 / rate))
            waiting[device].append((env.now, rng.exponential()))
            if len(waiting[device]) == 1:
                uplink.send(Job(device, waiting[device][0][1], 1, env.now, None))

    air = still_air(*np.ones(phones))
    uplink = Uplink(env, bandwidth_hz=1.0, air=air, deliver=deliver, allocator=ALLOCATORS[name])
    for device in active:
        env.process(phone(device))
    env.run()
    return [np.array(stay) for stay in stays]


def test_a_fixed_split_is_as_many_independent_queues():
    """M/M/1 each at rate B/N: T = 1/(1/4 - 1/8) = 8 s. And a phone's stays are the same if the others are silent."""
    together = [queues("fdma", range(4), replication, 1 / 8) for replication in range(8)]
    assert agrees(8.0, [stay[20:].mean() for stays in together for stay in stays], within=0.1)
    alone = queues("fdma", [2], 0, 1 / 8)
    np.testing.assert_allclose(alone[2], together[0][2], rtol=1e-9)
    shared = queues("equal-share", range(4), 0, 1 / 8)
    assert np.mean(np.concatenate(shared)) < 4.0  # what the others leave is used: M/M/1-PS would give 2 s


SIZES = {  # of mean 1, and E[S^2]
    "exponential": (lambda rng: rng.exponential(), 2.0),
    "constant": (lambda _rng: 1.0, 1.0),
    "uneven": (lambda rng: rng.choice([0.5, 3.0], p=[0.8, 0.2]), 2.0),
}


@pytest.mark.parametrize("name", SIZES)
def test_one_at_a_time_waits_as_pollaczek_and_khinchine_say(name):
    """M/G/1: Wq = lambda E[S^2] / (2 (1 - rho)), so the spread of sizes matters, as it doesn't under equal share."""
    draw, second_moment = SIZES[name]
    rho, uploads, phones, waits = 0.5, 3000, 60, []
    for replication in range(12):
        rng = stream(1, "one at a time", name, replication)
        starts_s = np.cumsum(rng.exponential(1 / rho, uploads))
        ended, _ = transmit(
            [(at_s, n % phones, float(draw(rng))) for n, at_s in enumerate(starts_s)],
            still_air(*np.ones(phones)),
            allocator=ALLOCATORS["tdma"],
        )
        waits.append(np.mean([job.received_s - job.sent_s - job.airtime_s for job in ended[200:]]))
    assert agrees(rho * second_moment / (2 * (1 - rho)), waits, within=0.15)


def airtime_and_bits(name, mean_snr, replication, slots=None, bits=0.5, efficiency_of=shannon, blocks=2000):
    """Two phones that always send, in Rayleigh blocks of 1 s: return their airtime and bits a second."""
    env, sums = simpy.Environment(), np.zeros((2, 2))

    def deliver(job):
        sums[:, job.device] += job.airtime_s, job.payload_bits
        uplink.send(Job(job.device, bits, 1, env.now, None))

    gains = [stream(1, "fair", replication, device).exponential(size=blocks) for device in range(2)]
    air = known_air(gains, 1.0, mean_snr, efficiency_of)
    uplink = Uplink(env, bandwidth_hz=1.0, air=air, deliver=deliver, allocator=ALLOCATORS[name], slots=slots)
    for device in range(2):
        uplink.send(Job(device, bits, 1, env.now, None))
    env.run(until=float(blocks))
    return sums / blocks


def test_proportional_fair_gives_equal_resources_and_gains_from_the_fades():
    """Half the time each at means of 1 and 4, at the larger of two gains: C(m) - C(m/2)/2 bit/s/Hz.

    C is the ergodic efficiency; the larger and the smaller of two exponential gains have together the law of both, and
    the smaller is exponential of mean 1/2.
    """
    mean_snr = np.array([1.0, 4.0])
    measured = np.array([airtime_and_bits("proportional-fair", mean_snr, replication) for replication in range(10)])
    for device, mean in enumerate(mean_snr):
        assert agrees(0.5, measured[:, 0, device])
        gain = ergodic_spectral_efficiency(mean) - ergodic_spectral_efficiency(mean / 2) / 2
        assert agrees(gain, measured[:, 1, device])
        assert gain > ergodic_spectral_efficiency(mean) / 2  # what equal share would give


def test_max_rate_gives_more_to_whom_the_channel_favours():
    """P(4 G' > G) = 4/5 for exponential gains: the phone of the fourfold mean has four fifths of the time."""
    measured = np.array([airtime_and_bits("max-rate", np.array([1.0, 4.0]), replication) for replication in range(10)])
    assert agrees(0.2, measured[:, 0, 0])
    assert agrees(0.8, measured[:, 0, 1])


def test_proportional_fair_by_slots_gives_equal_resources_to_near_and_far():
    """Rates are proportional to the SNR, means 1 and 4: rate over average rate has one law, so half the time each."""
    halves = []
    for replication in range(6):
        options = {"slots": Slots(2, 0.1, 50.0), "bits": 20.0, "efficiency_of": lambda snr: snr, "blocks": 1000}
        airtime, _ = airtime_and_bits("proportional-fair-slots", np.array([1.0, 4.0]), replication, **options)
        halves.append(airtime[0] / airtime.sum())
    assert agrees(0.5, halves)
