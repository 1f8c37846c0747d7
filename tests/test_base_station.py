"""The base station agrees with queueing theory: it takes plain jobs and a plain service function."""

import math

import numpy as np
import pytest
import simpy
from worlds import agrees

from uhlm_sim.cell.gpus.base_station import BaseStation
from uhlm_sim.cell.jobs import Job, Wakeup
from uhlm_sim.rng import stream

REPLICATIONS, JOBS, START = 16, 6000, 500


def serve(arrivals, service_s, *, tokens=None, **station):
    """Submit a job at each of the given times; return the jobs and the station once all is done."""
    env = simpy.Environment()
    base_station = BaseStation(env, service_s=service_s, **station)
    jobs = []

    def source():
        for n, at_s in enumerate(arrivals):
            yield env.timeout(at_s - env.now)
            jobs.append(Job(n, 0.0, 1 if tokens is None else tokens[n], env.now, Wakeup(env)))
            base_station.submit(jobs[-1])

    env.process(source())
    env.run()
    base_station.settle()
    return jobs, base_station


def waits_s(rate, draw_service, name, **station):
    """Return the mean wait in queue of each replication of a Poisson stream of jobs, its start cut off."""
    means = []
    for replication in range(REPLICATIONS):
        rng = stream(1, name, replication)
        arrivals = np.cumsum(rng.exponential(1 / rate, JOBS))
        jobs, _ = serve(arrivals, lambda _n, rng=rng: draw_service(rng), **station)
        means.append(np.mean([job.verify_started_s - job.received_s for job in jobs[START:]]))
    return means


def test_exponential_service_is_m_m_1():
    rate, service_s = 0.6, 1.0
    rho = rate * service_s
    theory = rho * service_s / (1 - rho)
    assert agrees(theory, waits_s(rate, lambda rng: rng.exponential(service_s), "M/M/1"), within=0.12)


@pytest.mark.parametrize("rate", [0.4, 0.7])
def test_constant_service_is_m_d_1(rate):
    """Pollaczek-Khinchine: Wq = lambda E[S^2]/(2 (1 - rho))."""
    theory = rate * 1.0**2 / (2 * (1 - rate * 1.0))
    assert agrees(theory, waits_s(rate, lambda _rng: 1.0, "M/D/1"), within=0.1)


@pytest.mark.parametrize("gpus", [2, 4])
def test_several_gpus_share_one_queue_as_m_m_c(gpus):
    """Erlang C: P(wait) = (a^c/c!)/(1 - rho) / (sum a^k/k! + (a^c/c!)/(1 - rho)); Wq = P(wait)/(c mu - lambda)."""
    a = 0.6 * gpus
    full = a**gpus / math.factorial(gpus) / (1 - a / gpus)
    theory = full / (sum(a**k / math.factorial(k) for k in range(gpus)) + full) / (gpus - a)
    assert agrees(theory, waits_s(a, lambda rng: rng.exponential(1.0), "M/M/c", gpus=gpus), within=0.15)


@pytest.mark.parametrize("gpus", [1, 3])
def test_phones_that_think_and_ask_are_machines_that_break_and_are_repaired(gpus):
    """M/M/c//N: p_k/p_(k-1) = (N - k + 1)/Z S/min(k, c); jobs present sum k p_k, throughput sum p_k min(k, c)/S."""
    phones, think_s, service_s = 8, 5.0, 1.0
    p = np.cumprod([1.0] + [(phones - k + 1) / think_s * service_s / min(k, gpus) for k in range(1, phones + 1)])
    p /= p.sum()
    k = np.arange(phones + 1)

    present, throughput, busy = [], [], []
    for replication in range(REPLICATIONS):
        env, rng = simpy.Environment(), stream(1, "repair", replication)
        station = BaseStation(env, service_s=lambda _n, rng=rng: rng.exponential(service_s), gpus=gpus)

        def phone(device, env=env, rng=rng, station=station):
            while True:
                yield env.timeout(rng.exponential(think_s))
                job = Job(device, 0.0, 1, env.now, Wakeup(env))
                station.submit(job)
                yield job.done

        for device in range(phones):
            env.process(phone(device))
        counted = []
        for until_s in (100, 3100):
            env.run(until=until_s)
            station.settle()
            counters = station.counters
            counted.append(np.array([counters.present_s, counters.departures, counters.busy_s]))
        for values, value in zip((present, throughput, busy), (counted[1] - counted[0]) / 3000, strict=True):
            values.append(value)
    assert agrees(p @ k, present)
    assert agrees(p @ np.minimum(k, gpus) / service_s, throughput)
    assert agrees(p @ np.minimum(k, gpus), busy)


def brute_force(arrivals, tokens, service_s, gpus, max_batch):
    """Who ends when: each GPU in turn takes what has come by the time it is free, whoever came at that very instant."""
    free_s, ends_s, first = [0.0] * gpus, [], 0
    while first < len(arrivals):
        gpu = int(np.argmin(free_s))
        start_s = max(free_s[gpu], arrivals[first])
        last = min(np.searchsorted(arrivals, start_s, side="right"), first + max_batch)
        free_s[gpu] = start_s + service_s(int(sum(tokens[first:last])))
        ends_s += [free_s[gpu]] * (last - first)
        first = last
    return ends_s


@pytest.mark.parametrize("max_batch", [1, 4, 1000])
def test_bulk_service_is_a_ten_line_loop(max_batch):
    """M/D[b]/1, and with a service time that grows with the new tokens of the batch."""
    rng = stream(1, "bulk", max_batch)
    arrivals = np.cumsum(rng.exponential(0.3, 3000))
    tokens = rng.integers(1, 40, 3000)
    for service_s in (lambda _n: 1.0, lambda n: 0.2 + 0.01 * max(0, n - 30)):
        jobs, _ = serve(arrivals, service_s, tokens=tokens, max_batch=max_batch)
        expected = brute_force(arrivals, tokens, service_s, 1, max_batch)
        np.testing.assert_allclose([job.verified_s for job in jobs], expected, rtol=1e-12)


@pytest.mark.parametrize("gpus", [1, 2, 3])
def test_where_everything_ties_a_free_gpu_looks_last(gpus):
    """Arrivals and service on a grid of whole seconds: nearly every event meets another at the same instant."""
    for replication in range(50):
        rng = stream(1, "ties", gpus, replication)
        arrivals, tokens = np.sort(rng.integers(0, 60, 80)).astype(float), rng.integers(1, 4, 80)
        jobs, _ = serve(arrivals, float, tokens=tokens, gpus=gpus, max_batch=3)
        assert [job.verified_s for job in jobs] == brute_force(arrivals, tokens, float, gpus, 3)


def test_a_batch_costs_its_time_once_and_ends_together():
    asked = []

    def service_s(new_tokens):
        asked.append(new_tokens)
        return 1.0 + 0.1 * new_tokens

    jobs, station = serve([0.0, 0.5, 0.6, 0.7, 0.8], service_s, tokens=[1, 2, 3, 4, 5], max_batch=3)
    assert asked == [1, 9, 5]
    assert [job.verified_s for job in jobs] == pytest.approx([1.1, 3.0, 3.0, 3.0, 4.5])
    assert [job.batch_jobs for job in jobs] == [1, 3, 3, 3, 1]
    assert [job.batch_tokens for job in jobs] == [1, 9, 9, 9, 5]
    assert station.counters.busy_s == pytest.approx(4.5)


def test_two_jobs_that_arrive_together_at_an_idle_gpu_go_in_one_batch():
    jobs, _ = serve([1.0, 1.0, 1.5], lambda _n: 2.0, max_batch=8)
    assert [(job.batch_jobs, job.verified_s) for job in jobs] == [(2, 3.0), (2, 3.0), (1, 5.0)]


def test_a_job_that_arrives_as_a_batch_ends_goes_with_those_that_waited():
    jobs, _ = serve([0.0, 1.0, 2.0], lambda _n: 2.0, max_batch=8)
    assert [(job.batch_jobs, job.verified_s) for job in jobs] == [(1, 2.0), (2, 4.0), (2, 4.0)]


def test_a_job_sent_because_another_ended_still_makes_that_instants_batch():
    """The answer to a verdict comes some events later, but at the same instant."""
    env, log = simpy.Environment(), []
    station = BaseStation(env, service_s=lambda _n: 1.0, max_batch=8)

    def phone(name):
        for _ in range(2):
            for _ in range(name):
                yield env.timeout(0.0)
            job = Job(name, 0.0, 1, env.now, Wakeup(env))
            station.submit(job)
            yield job.done
            log.append((name, env.now, job.batch_jobs))

    for name in (0, 1, 5):
        env.process(phone(name))
    env.run()
    assert log == [(0, 1.0, 3), (1, 1.0, 3), (5, 1.0, 3), (0, 2.0, 3), (1, 2.0, 3), (5, 2.0, 3)]


def test_the_counters_are_sums_over_the_jobs():
    """Little's law and the utilisation law, sample path version."""
    rng = stream(1, "counters")
    jobs, station = serve(np.cumsum(rng.exponential(0.5, 2000)), lambda _n: rng.exponential(1.5), gpus=2, max_batch=3)
    stay_s = sum(job.verified_s - job.received_s for job in jobs)
    busy_s = sum((job.verified_s - job.verify_started_s) / job.batch_jobs for job in jobs)
    assert station.counters.present_s == pytest.approx(stay_s, rel=1e-9)
    assert station.counters.busy_s == pytest.approx(busy_s, rel=1e-9)
    assert station.counters.arrivals == station.counters.departures == 2000
