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
from worlds import agrees, known_air, shannon, still_air, timeline

from channel_models import ergodic_spectral_efficiency, spectral_efficiency
from uhlm_sim.cell.jobs import Job
from uhlm_sim.cell.radio.allocators import ALLOCATORS, equal_finish
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


def queues(name, active, rate=1 / 8, phones=4, until_s=3000.0):
    """Phones that each queue their own Poisson uploads of mean 1 bit: return stays by phone, queueing included."""
    env, stays, waiting = simpy.Environment(), [[] for _ in range(phones)], [deque() for _ in range(phones)]

    def deliver(job):
        queue = waiting[job.device]
        stays[job.device].append(env.now - queue.popleft()[0])
        if queue:
            uplink.send(Job(job.device, queue[0][1], 1, env.now, None))

    def phone(device):
        rng = stream(1, "queues", device)
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


def test_in_a_fixed_split_a_phones_stays_are_the_same_if_the_others_are_silent():
    """The validation holds how long they are. What the others leave is used under equal share."""
    together, alone, shared = (queues(*how) for how in (("fdma", range(4)), ("fdma", [2]), ("equal-share", range(4))))
    np.testing.assert_allclose(alone[2], together[2], rtol=1e-9)
    assert np.mean(np.concatenate(shared)) < np.mean(np.concatenate(together)) / 2


def airtime_and_bits(name, mean_snr, replication, bits=0.5, blocks=1000):
    """Two phones that always send, in Rayleigh blocks of 1 s: return their airtime and bits a second."""
    env, sums = simpy.Environment(), np.zeros((2, 2))

    def deliver(job):
        sums[:, job.device] += job.airtime_s, job.payload_bits
        uplink.send(Job(job.device, bits, 1, env.now, None))

    gains = [stream(1, "fair", replication, device).exponential(size=blocks) for device in range(2)]
    air = known_air(gains, 1.0, mean_snr, shannon)
    uplink = Uplink(env, bandwidth_hz=1.0, air=air, deliver=deliver, allocator=ALLOCATORS[name])
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


def test_max_rate_gives_each_block_to_whom_the_channel_favours():
    """At means of 1 and 4."""
    gains = [stream(1, "fair", 0, device).exponential(size=500) for device in range(2)]
    airtime, _ = airtime_and_bits("max-rate", np.array([1.0, 4.0]), 0, blocks=500)
    share = np.mean(gains[0] > 4 * gains[1])
    assert airtime == pytest.approx([share, 1 - share], abs=0.01)
