"""Claims about what the GPUs take when: batch rules, orders, queues of their own, prompts in chunks, limited memory."""

from collections.abc import Callable, Generator
from functools import partial

import numpy as np
import simpy
from numpy.typing import NDArray

from uhlm_sim.cell.gpus.base_station import BaseStation
from uhlm_sim.cell.gpus.batching import BATCH_RULES, ORDERS
from uhlm_sim.cell.jobs import Job, Wakeup
from uhlm_sim.validation.drive import serve
from uhlm_sim.validation.findings import Claim, Finding, Trial, equals, mean_is

Floats = NDArray[np.float64]
Service = Callable[[int], float]
RUNS, JOBS = 12, 3000


def join_the_shortest(trial: Trial) -> Finding:
    """Ten-line loop: who comes counts those who are still at each GPU, and joins the fewest, of equals the first."""
    rng, gpus = trial.rng(), 4
    arrivals_s, tokens = np.cumsum(rng.exponential(0.3, JOBS)), rng.integers(1, 21, JOBS)
    leave_s: list[list[float]] = [[] for _ in range(gpus)]
    expected = []
    for at_s, count in zip(arrivals_s.tolist(), tokens.tolist(), strict=True):
        present = [sum(left_s > at_s for left_s in left[-50:]) for left in leave_s]
        mine = leave_s[present.index(min(present))]
        mine.append(max([at_s, *mine[-1:]]) + 0.1 * count)
        expected.append(mine[-1])
    jobs = serve(arrivals_s, lambda n: 0.1 * n, tokens, gpus=gpus, join_shortest=True)
    return equals(expected, [job.verified_s for job in jobs], f"{JOBS:,} jobs at {gpus} GPUs, every end")


def loop(arrivals_s: Floats, service_s: float, ready_s: Callable[[int], float], most: int) -> list[float]:
    """Return when each job ends: a batch starts when the GPU is free and the first job that waits may start."""
    free_s, ends_s, first = 0.0, [], 0
    while first < len(arrivals_s) and (start_s := max(free_s, ready_s(first))) < np.inf:
        last = min(int(np.searchsorted(arrivals_s, start_s, side="right")), first + most)
        free_s = start_s + service_s
        ends_s += [free_s] * (last - first)
        first = last
    return ends_s


def least_batch(trial: Trial, rule: str, **constants: float) -> Finding:
    """M/D[b]/1 with a minimum of a jobs; under "wait" the oldest waits for them so long at most."""
    least, most, service_s = 4, 8, 1.0
    arrivals_s = np.cumsum(trial.rng().exponential(0.35, JOBS))
    patience_s = constants.get("max_wait_s", np.inf)

    def ready_s(first: int) -> float:
        full_s = float(arrivals_s[first + least - 1]) if first + least <= JOBS else np.inf
        return min(full_s, float(arrivals_s[first]) + patience_s)

    expected = loop(arrivals_s, service_s, ready_s, most)
    ready = partial(BATCH_RULES[rule], min_batch=least, **constants)
    jobs = serve(arrivals_s, lambda _n: service_s, max_batch=most, rule=ready)[: len(expected)]
    how = f"{len(expected):,} jobs in batches of {least} to {most}, every end"
    return equals(expected, [job.verified_s for job in jobs], how)


def shortest_work(trial: Trial) -> Finding:
    """W_k = l E[S^2] / 2 / ((1 - r_k-1) (1 - r_k)), r_k the load of sizes up to the k-th; mean over the sizes."""
    sizes, share, rho = np.array([1, 2, 5, 20]), np.array([0.4, 0.3, 0.2, 0.1]), 0.7
    rate = rho / float(sizes @ share)
    up_to = np.cumsum(rate * sizes * share)
    waits = rate * float(sizes**2 @ share) / 2 / ((1 - np.r_[0.0, up_to[:-1]]) * (1 - up_to))
    mean_waits_s, count = [], 800 * trial.size
    for run in range(RUNS):
        rng = trial.rng(run)
        arrivals_s, tokens = np.cumsum(rng.exponential(1 / rate, count)), rng.choice(sizes, count, p=share)
        jobs = serve(arrivals_s, float, tokens, order=ORDERS["shortest-work"])[100:-100]
        mean_waits_s.append(np.mean([job.verify_started_s - job.received_s for job in jobs]))
    return mean_is(float(waits @ share), mean_waits_s, f"{RUNS} runs of {count:,} jobs")


def chunk_loop(
    arrivals_s: Floats, tokens: NDArray[np.int64], service_s: Service, chunk: int, most: int
) -> tuple[Floats, float]:
    """Return when each job ends, and the GPU's busy time: step by step, each step dealt out token by token."""
    ends_s, left, here = np.zeros(len(tokens)), tokens.copy(), list[int]()
    now, busy_s, come = 0.0, 0.0, 0
    while come < len(tokens) or here:
        now = now if here else max(now, float(arrivals_s[come]))
        while come < len(tokens) and arrivals_s[come] <= now and len(here) < most:
            here.append(come)
            come += 1
        before, room, part = left[here].sum(), chunk, chunk // len(here)
        for limit in (part, chunk):  # to each an equal part, then what that leaves to the first
            for job in here:
                piece = min(int(left[job]), limit, room)
                left[job] -= piece
                room -= piece
        seconds = service_s(int(before - left[here].sum()))
        now, busy_s = now + seconds, busy_s + seconds
        ends_s[[job for job in here if left[job] == 0]] = now
        here = [job for job in here if left[job] > 0]
    return ends_s, busy_s


def chunks(trial: Trial) -> Finding:
    """Prompts of 100 to 900 tokens among verifications: every end, and the jobs' shares of the GPU's busy time."""
    rng, most, chunk = trial.rng(), 6, 64
    arrivals_s = np.cumsum(rng.exponential(0.1, JOBS))
    tokens = np.where(rng.random(JOBS) < 0.1, rng.integers(100, 900, JOBS), rng.integers(1, 6, JOBS))

    def service_s(n: int) -> float:
        return 0.02 + 0.0005 * n

    expected, busy_s = chunk_loop(arrivals_s, tokens, service_s, chunk, most)
    jobs = serve(arrivals_s, service_s, tokens, max_batch=most, chunk_tokens=chunk)
    shares_s = sum((job.verified_s - job.verify_started_s) / job.batch_jobs for job in jobs)
    simulated = [*(job.verified_s for job in jobs), shares_s]
    return equals([*expected, busy_s], simulated, f"{JOBS:,} jobs in chunks of {chunk}, every end; the GPU's busy time")


PHONES, REQUESTS, VERIFICATIONS, CAPACITY, MOST = 6, 40, 10, 400, 4


def memory_loop(gaps_s: Floats, prompts: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return when each job of each phone's requests ends and what it processed again: one GPU, batches, LRU."""
    ends_s, again = np.zeros(gaps_s.shape), np.zeros(gaps_s.shape)
    due = [(float(gaps_s[phone, 0]), phone, 0) for phone in range(PHONES)]
    held: dict[int, int] = {}
    lost, recent, now = dict.fromkeys(range(PHONES), 0), list[int](), 0.0
    while due:
        now, batch = max(now, min(due)[0]), list[tuple[float, int, int]]()
        for job in sorted(job for job in due if job[0] <= now)[:MOST]:
            _, phone, number = job
            new = lost[phone] + (int(prompts[phone, number // VERIFICATIONS]) if number % VERIFICATIONS == 0 else 1)
            busy = {other for _, other, _ in batch} | {phone}
            idle = [other for other in recent if other not in busy]
            if sum(held.values()) - sum(held[other] for other in idle) + new > CAPACITY:
                break
            while sum(held.values()) + new > CAPACITY:
                lost[idle[0]] = held.pop(idle[0])
                recent.remove(idle.pop(0))
            again[phone, number], lost[phone] = lost[phone], 0
            held[phone] = held.get(phone, 0) + new
            recent = [other for other in recent if other != phone] + [phone]
            batch.append(job)
        now += 0.03 + 0.001 * sum(
            again[phone, number] + (prompts[phone, number // VERIFICATIONS] if number % VERIFICATIONS == 0 else 1)
            for _, phone, number in batch
        )
        for job in batch:
            _, phone, number = job
            due.remove(job)
            ends_s[phone, number] = now
            recent = [other for other in recent if other != phone] + [phone]
            if (number + 1) % VERIFICATIONS == 0:
                recent.remove(phone)
                del held[phone]
            if number + 1 < gaps_s.shape[1]:
                due.append((now + float(gaps_s[phone, number + 1]), phone, number + 1))
    return ends_s, again


def memory(trial: Trial) -> Finding:
    """A dozen phones whose prompts and tokens fit only by half: every end, and what each job processed again."""
    rng = trial.rng()
    gaps_s = rng.exponential(0.2, (PHONES, REQUESTS * VERIFICATIONS))
    prompts = rng.integers(40, 150, (PHONES, REQUESTS))
    ends_s, again = np.zeros(gaps_s.shape), np.zeros(gaps_s.shape)
    env = simpy.Environment()
    station = BaseStation(env, service_s=lambda n: 0.03 + 0.001 * n, max_batch=MOST, kv_tokens=CAPACITY)

    def phone(device: int) -> Generator[simpy.Event, object, None]:
        for number, gap_s in enumerate(gaps_s[device].tolist()):
            yield env.timeout(gap_s)
            new = int(prompts[device, number // VERIFICATIONS]) if number % VERIFICATIONS == 0 else 1
            job = Job(device, 0.0, new, env.now, Wakeup(env))
            station.submit(job)
            yield job.done
            ends_s[device, number], again[device, number] = env.now, job.recomputed_tokens
            if (number + 1) % VERIFICATIONS == 0:
                station.end_request(device)

    for device in range(PHONES):
        env.process(phone(device))
    env.run()
    expected = memory_loop(gaps_s, prompts)
    how = f"{ends_s.size:,} jobs of {PHONES} phones, {station.kv_counters.departures:,} evictions"
    return equals(np.concatenate(expected), np.concatenate([ends_s, again]), how)


CLAIMS = (
    Claim("join the shortest", "Jobs that join the shortest of four queues end as a ten-line loop says",
          "M/G/1 in parallel, by brute force", "s", join_the_shortest),
    Claim("least batch", "Batches that wait for 4 jobs end as a loop of a few lines says",
          "M/D[4,8]/1: Neuts 1967, by brute force", "s", partial(least_batch, rule="size")),
    Claim("least batch or patience", "So do those that wait for 4 jobs, but not longer than 0.5 s for the oldest",
          "the same with a timeout, by brute force", "s", partial(least_batch, rule="wait", max_wait_s=0.5)),
    Claim("shortest work", "Mean wait of a job where the least work goes first, four sizes, load 0.7",
          "Cobham 1954: priorities by size", "E[S]", shortest_work),
    Claim("chunks", "Prompts split over steps, among verifications, end as a loop over the steps says",
          "step by step, by brute force", "s", chunks),
    Claim("limited memory", "Jobs whose requests don't all fit end, and are processed again, as a loop says",
          "least recently used first, by brute force", "any", memory),
)  # fmt: skip
