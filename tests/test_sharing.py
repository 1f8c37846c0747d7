"""The shared uplink in random traffic agrees with the theory of processor sharing, for any law of sizes."""

import math
from collections import deque

import numpy as np
import pytest
import simpy
from worlds import agrees

from uhlm_sim.cell.jobs import Job, Wakeup
from uhlm_sim.cell.radio.air import Air
from uhlm_sim.cell.radio.uplink import Uplink
from uhlm_sim.rng import stream

SIZES = {  # of mean 1
    "exponential": lambda rng: rng.exponential(),
    "constant": lambda _rng: 1.0,
    "hyper-exponential": lambda rng: rng.exponential(0.5 if rng.random() < 0.9 else 5.5),
}


def open_traffic(rate, sizes, name, replication, uploads=7000):
    """Poisson uploads into 1 Hz at 1 bit/s, each by a phone that has none: return their sizes and sojourns."""
    env, rng = simpy.Environment(), stream(1, "open", name, replication)
    idle, ended = deque(range(150)), []

    def deliver(job):
        idle.append(job.device)
        ended.append((job.payload_bits, env.now - job.sent_s))

    uplink = Uplink(env, bandwidth_hz=1.0, air=Air(np.ones(150), lambda snr: snr), deliver=deliver)

    def source():
        for gap_s in rng.exponential(1 / rate, uploads):
            yield env.timeout(gap_s)
            uplink.send(Job(idle.popleft(), sizes(rng), 1, env.now, None))

    env.process(source())
    env.run()
    return np.array(ended[uploads // 10 :]).T


@pytest.mark.parametrize("name", SIZES)
def test_the_mean_stay_depends_on_the_mean_size_only(name):
    """M/G/1-PS: T = E[S]/(1 - rho), where first come, first served would give the three laws three answers."""
    rho = 0.5
    stays = [open_traffic(rho, SIZES[name], name, replication)[1].mean() for replication in range(16)]
    assert agrees(1 / (1 - rho), stays, within=0.1)


@pytest.mark.parametrize("name", ["exponential", "hyper-exponential"])
def test_the_stay_is_proportional_to_the_size(name):
    """E[T | x] = x/(1 - rho), among the small as among the large."""
    rho, small, large = 0.5, [], []
    for replication in range(16):
        size, stay = open_traffic(rho, SIZES[name], f"{name} by size", replication)
        few = size < 1.0
        small.append(stay[few].sum() / size[few].sum())
        large.append(stay[~few].sum() / size[~few].sum())
    assert agrees(1 / (1 - rho), small, within=0.1)
    assert agrees(1 / (1 - rho), large, within=0.1)


def closed_traffic(phones, think_s, sizes, name, replication, power_limited, snr, cap):
    """Phones that think and send, for 600 mean think times: return what the counters gained, per second."""
    env, rng = simpy.Environment(), stream(1, "closed", name, replication)
    air = Air(np.full(phones, snr), lambda snr: np.minimum(np.log2(1 + snr), cap))
    uplink = Uplink(env, bandwidth_hz=1.0, air=air, deliver=lambda job: job.done.succeed(), power_limited=power_limited)

    def phone(device):
        while True:
            yield env.timeout(rng.exponential(think_s))
            job = Job(device, sizes(rng), 1, env.now, Wakeup(env))
            uplink.send(job)
            yield job.done

    for device in range(phones):
        env.process(phone(device))
    start_s, end_s = 10 * think_s, 610 * think_s
    counted = []
    for until_s in (start_s, end_s):
        env.run(until=until_s)
        uplink.settle()
        counters = uplink.counters
        counted.append(np.array([counters.departures, counters.present_s, counters.busy_s, counters.bits]))
    return (counted[1] - counted[0]) / (end_s - start_s)


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("power_limited", [False, True])
def test_phones_that_think_and_send_share_as_cohens_law_says(name, power_limited):
    """p_k ~ N!/(N - k)! Z^-k prod_(j <= k) S/phi(j), phi(n) the rate of n uploads in all; X = sum p_k phi(k)/S.

    Power-limited, phi(n) = min(log2(1 + n G), cap) grows until the cap binds, here from n = 5; else it stays.
    """
    phones, think_s, snr, cap = 10, 4.0, 1.0, 2.5
    phi = [min(math.log2(1 + (n if power_limited else 1) * snr), cap) for n in range(1, phones + 1)]
    p = np.cumprod([1.0] + [(phones - n) / think_s / phi[n] for n in range(phones)])
    p /= p.sum()

    results = [
        closed_traffic(phones, think_s, SIZES[name], name, replication, power_limited, snr, cap)
        for replication in range(10)
    ]
    throughput, present, busy, bits = np.array(results).T
    assert agrees(p[1:] @ phi, throughput, within=0.1)
    assert agrees(p @ np.arange(phones + 1), present, within=0.1)
    assert agrees(1 - p[0], busy)
    assert agrees(p[1:] @ phi, bits, within=0.1)
