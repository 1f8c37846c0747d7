"""The base station, of plain jobs and a plain service function: brute force, ties, and its own books."""

import numpy as np
import pytest
import simpy

from uhlm_sim.cell.gpus.base_station import BaseStation
from uhlm_sim.cell.jobs import Job, Wakeup
from uhlm_sim.rng import stream


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
