"""Claims about the base station: queues of plain jobs, several GPUs, batches."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import simpy
from numpy.typing import NDArray

from uhlm_sim.cell.gpus.base_station import BaseStation
from uhlm_sim.validation.drive import serve, think_and_ask
from uhlm_sim.validation.findings import Claim, Finding, Trial, equals, mean_is

Floats = NDArray[np.float64]
RUNS = 16
CUT = 300  # jobs left out at either end of a run


def stays_s(trial: Trial, rate: float, constant: bool = False, gpus: int = 1) -> tuple[list[Floats], list[Floats]]:
    """Return the times in the system and in the queue of a Poisson stream of jobs of one second, run by run."""
    stays, waits = [], []
    for run in range(RUNS):
        rng = trial.rng(run)
        arrivals_s = np.cumsum(rng.exponential(1 / rate, 2500 * trial.size))
        jobs = serve(arrivals_s, lambda _n, rng=rng: 1.0 if constant else rng.exponential(), gpus=gpus)[CUT:-CUT]  # type: ignore[misc]
        stays.append(np.array([job.verified_s - job.received_s for job in jobs]))
        waits.append(np.array([job.verify_started_s - job.received_s for job in jobs]))
    return stays, waits


def _jobs(trial: Trial) -> str:
    return f"{RUNS} runs of {2500 * trial.size:,} jobs"


def m_m_1(trial: Trial, rho: float) -> Finding:
    stays, _ = stays_s(trial, rho)
    return mean_is(1 / (1 - rho), [run.mean() for run in stays], _jobs(trial))


def m_m_1_tail(trial: Trial) -> Finding:
    """P(W > t) = rho exp(-(1 - rho) t): other orders than first come, first served have the same mean, not this."""
    rho, t = 0.6, 4.0
    _, waits = stays_s(trial, rho)
    theory = rho * math.exp(-(1 - rho) * t)
    return mean_is(theory, [(run > t).mean() for run in waits], _jobs(trial))


def m_d_1(trial: Trial, rho: float) -> Finding:
    """Pollaczek-Khinchine: T = 1 + rho / (2 (1 - rho))."""
    stays, _ = stays_s(trial, rho, constant=True)
    theory = 1 + rho / (2 * (1 - rho))
    return mean_is(theory, [run.mean() for run in stays], _jobs(trial))


def m_m_c(trial: Trial, gpus: int) -> Finding:
    """P(wait) = (a^c/c!)/(1 - rho) / (sum a^k/k! + (a^c/c!)/(1 - rho)); Wq = P(wait)/(c - a)."""
    a = 0.7 * gpus
    full = a**gpus / math.factorial(gpus) / (1 - a / gpus)
    theory = full / (sum(a**k / math.factorial(k) for k in range(gpus)) + full) / (gpus - a)
    _, waits = stays_s(trial, a, gpus=gpus)
    return mean_is(theory, [run.mean() for run in waits], _jobs(trial))


def machine_repair(trial: Trial, gpus: int) -> Finding:
    """p_k/p_(k-1) = (N - k + 1)/Z S/min(k, c); throughput sum p_k min(k, c)/S."""
    phones, think_s = 8, 5.0
    p = np.cumprod([1.0] + [(phones - k + 1) / think_s / min(k, gpus) for k in range(1, phones + 1)])
    theory = float(p @ np.minimum(np.arange(phones + 1), gpus) / p.sum())
    done = []
    for run in range(RUNS):
        rng = trial.rng(run)

        def make(env: simpy.Environment, rng: np.random.Generator = rng) -> tuple[BaseStation, Callable[..., None]]:
            station = BaseStation(env, service_s=lambda _n: rng.exponential(), gpus=gpus)
            return station, station.submit

        window_s = (100.0, 100.0 + 1500.0 * trial.size)
        done.append(think_and_ask(rng, phones, think_s, lambda _rng: 0.0, make, window_s)["departures"])
    return mean_is(theory, done, f"{RUNS} runs of {1500 * trial.size:,} s, {phones} phones")


def loop(
    arrivals_s: Floats, tokens: NDArray[np.int64], service_s: Callable[[int], float], gpus: int, most: int
) -> list[float]:
    """Return when each job ends: the GPU that is free first takes what has come by then, in order, `most` at once."""
    free_s, ends_s, first = [0.0] * gpus, [], 0
    while first < len(arrivals_s):
        gpu = free_s.index(min(free_s))
        start_s = max(free_s[gpu], float(arrivals_s[first]))
        last = min(int(np.searchsorted(arrivals_s, start_s, side="right")), first + most)
        free_s[gpu] = start_s + service_s(int(tokens[first:last].sum()))
        ends_s += [free_s[gpu]] * (last - first)
        first = last
    return ends_s


def batches(trial: Trial, gpus: int, whole_seconds: bool) -> Finding:
    rng, count = trial.rng(), 3000
    arrivals_s, tokens = np.cumsum(rng.exponential(0.12 / gpus, count)), rng.integers(1, 40, count)
    if whole_seconds:
        arrivals_s, tokens = np.floor(4 * arrivals_s), rng.integers(1, 4, count)

    def service_s(n: int) -> float:
        return float(n) if whole_seconds else 0.2 + 0.01 * max(0, n - 30)

    jobs = serve(arrivals_s, service_s, tokens, gpus=gpus, max_batch=4)
    expected = loop(arrivals_s, tokens, service_s, gpus, 4)
    return equals(expected, [job.verified_s for job in jobs], f"{count:,} jobs in batches of up to 4, every end")


CLAIMS = (
    *(
        Claim(f"M/M/1, load {rho}",
              f"Mean time of a job at one GPU, exponential service, load {rho}: E[S] / (1 - load)",
              "Kleinrock 1975, chapter 3", "E[S]", partial(m_m_1, rho=rho), curve="GPU, exponential service", at=rho)
        for rho in (0.3, 0.6, 0.8)
    ),
    Claim("M/M/1 tail",
          "A job waits longer than 4 services with probability rho exp(-4 (1 - rho)): first come, first served",
          "Kleinrock 1975, chapter 5", "1", m_m_1_tail),
    *(
        Claim(f"M/D/1, load {rho}", f"Mean time of a job at one GPU, constant service, load {rho}",
              "Pollaczek 1930, Khinchine 1932", "E[S]", partial(m_d_1, rho=rho), curve="GPU, constant service",
              at=rho)
        for rho in (0.6, 0.8)
    ),
    Claim("M/M/3", "Mean wait at three GPUs that share one queue, load 0.7", "Erlang 1917", "E[S]",
          partial(m_m_c, gpus=3)),
    *(
        Claim(f"machine repair, {gpus} GPU{'s' if gpus > 1 else ''}",
              f"Throughput of 8 phones that think and ask {gpus} GPU{'s' if gpus > 1 else ''}",
              "machine repair M/M/c//N: Kleinrock 1975, chapter 3", "1/s", partial(machine_repair, gpus=gpus))
        for gpus in (1, 3)
    ),
    Claim("batches", "Batches of up to 4 jobs, whose time grows with their tokens, end as a ten-line loop says",
          "M/G[b]/1 by brute force", "s", partial(batches, gpus=1, whole_seconds=False)),
    Claim("batches, ties", "So do those of two GPUs where jobs come and end at whole seconds: a free GPU looks last",
          "M/G[b]/2 by brute force", "s", partial(batches, gpus=2, whole_seconds=True)),
)  # fmt: skip
