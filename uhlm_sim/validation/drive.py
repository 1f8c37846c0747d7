"""Traffic for one station at a time: plain jobs, sizes and service times go in, the station's own books come out."""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Any

import numpy as np
import simpy
from numpy.typing import NDArray

from channel_models import CHANNELS, spectral_efficiency
from uhlm_sim.cell.gpus.base_station import BaseStation
from uhlm_sim.cell.jobs import Job, Wakeup
from uhlm_sim.cell.radio.air import BLOCKS_AHEAD, Air
from uhlm_sim.cell.radio.uplink import Uplink
from uhlm_sim.errors import SimulationError
from uhlm_sim.validation.findings import Trial

Floats = NDArray[np.float64]
Process = Generator[simpy.Event, object, None]
Draw = Callable[[np.random.Generator], float]
AHEAD = BLOCKS_AHEAD
RUNS, CUT = 16, 300  # uploads left out at either end of a run
PHONES = 200  # idle ones that an open stream of uploads picks from: more than are ever busy at once


def serve(
    arrivals_s: Floats, service_s: Callable[[int], float], tokens: NDArray[np.int64] | None = None, **station: Any
) -> list[Job]:
    """Submit a job to a base station at each of the given times; return the jobs once all are done."""
    env = simpy.Environment()
    base_station = BaseStation(env, service_s=service_s, **station)
    jobs = []

    def source() -> Process:
        for number, at_s in enumerate(arrivals_s.tolist()):
            yield env.timeout(at_s - env.now)
            jobs.append(Job(number, 0.0, 1 if tokens is None else int(tokens[number]), env.now, Wakeup(env)))
            base_station.submit(jobs[-1])

    env.process(source())
    env.run()
    return jobs


def flat_air(snr: Floats, efficiency_of: Callable[[Floats], Floats] = lambda snr: snr) -> Air:
    """Return an air without fading; by default a hertz carries as many bit/s as the SNR."""
    return Air(snr, efficiency_of)


def rayleigh_air(
    trial: Trial, run: int, snr: Floats, coherence_s: float, efficiency_of: Callable[..., Floats] = spectral_efficiency
) -> Air:
    """Return an air that fades in blocks, each device's gains from a stream of its own."""

    def gains_of(device: int) -> Iterator[Floats]:
        return CHANNELS["rayleigh"](trial.rng("gains", run, device), AHEAD)

    return Air(snr, efficiency_of, gains_of=gains_of, coherence_s=coherence_s)


def upload(uploads: list[tuple[float, int, float]], air: Air, **options: Any) -> tuple[list[Job], Uplink]:
    """Send (time, device, bits), in order of time; return the jobs in the order they ended, and the uplink."""
    env, ended = simpy.Environment(), []

    def deliver(job: Job) -> None:
        job.received_s = env.now
        ended.append(job)

    uplink = Uplink(env, air=air, deliver=deliver, **options)

    def source() -> Process:
        for at_s, device, bits in uploads:
            yield env.timeout(at_s - env.now)
            uplink.send(Job(device, bits, 1, env.now, Wakeup(env)))

    env.process(source())
    env.run()
    uplink.settle()
    if len(ended) != len(uploads):
        raise SimulationError(f"{len(ended)} of {len(uploads)} uploads ended")
    return ended, uplink


def at_once(job: Job) -> None:
    """End the wait of an upload's phone."""
    job.done.after(0.0)


def one_after_another(bits: Floats, air: Air, gains: Floats | None = None, **options: Any) -> Floats:
    """Let one phone send uploads without a pause, each with its own gain if given; return when each ended."""
    env, ends_s = simpy.Environment(), []
    uplink = Uplink(env, air=air, deliver=at_once, **options)

    def phone() -> Process:
        for number, size in enumerate(bits.tolist()):
            job = Job(0, size, 1, env.now, Wakeup(env), 1.0 if gains is None else float(gains[number]))
            uplink.send(job)
            yield job.done
            ends_s.append(env.now)

    env.process(phone())
    env.run()
    return np.array(ends_s)


def make_uplink(**options: Any) -> Callable[[simpy.Environment], tuple[Uplink, Callable[[Job], None]]]:
    """Return what makes an uplink for `think_and_ask`."""

    def make(env: simpy.Environment) -> tuple[Uplink, Callable[[Job], None]]:
        uplink = Uplink(env, **{"deliver": at_once, **options})
        return uplink, uplink.send

    return make


def open_stays_s(trial: Trial, rate: float, size: Draw, uploads: int, **options: Any) -> list[float]:
    """Return the mean stay of a Poisson stream's uploads in each of RUNS runs, CUT left out at either end."""
    return [open_uploads(trial.rng(run), rate, size, uploads, CUT, **options)[1].mean() for run in range(RUNS)]


def open_uploads(
    rng: np.random.Generator, rate: float, size: Draw, uploads: int, cut: int, **options: Any
) -> tuple[Floats, Floats]:
    """Send a Poisson stream of uploads into 1 Hz at 1 bit/s; return sizes and stays, `cut` at either end left out."""
    env, idle, jobs = simpy.Environment(), deque(range(PHONES)), []

    def deliver(job: Job) -> None:
        job.received_s = env.now
        idle.append(job.device)

    uplink = Uplink(env, bandwidth_hz=1.0, air=flat_air(np.ones(PHONES)), deliver=deliver, **options)

    def source() -> Process:
        for gap_s in rng.exponential(1 / rate, uploads).tolist():
            yield env.timeout(gap_s)
            if not idle:
                raise SimulationError(f"the band holds more than {PHONES} uploads at a load that it should carry")
            jobs.append(Job(idle.popleft(), size(rng), 1, env.now, Wakeup(env)))
            uplink.send(jobs[-1])

    env.process(source())
    env.run()
    kept = jobs[cut:-cut]
    return np.array([job.payload_bits for job in kept]), np.array([job.received_s - job.sent_s for job in kept])


def think_and_ask(
    rng: np.random.Generator,
    phones: int,
    think_s: float,
    size: Draw,
    make: Callable[[simpy.Environment], tuple[Any, Callable[[Job], None]]],
    window_s: tuple[float, float],
) -> dict[str, float]:
    """Let phones think and send jobs to a station; return what its counters gained a second within a window.

    `make(env)` returns the station, which has `settle` and `counters`, and the function that takes a job.
    """
    env = simpy.Environment()
    station, take = make(env)

    def phone(device: int) -> Process:
        while True:
            yield env.timeout(rng.exponential(think_s))
            job = Job(device, size(rng), 1, env.now, Wakeup(env))
            take(job)
            yield job.done

    for device in range(phones):
        env.process(phone(device))
    read = []
    for until_s in window_s:
        env.run(until=until_s)
        station.settle()
        counters = station.counters
        names = ("departures", "present_s", "busy_s", "bits")
        read.append({name: float(getattr(counters, name)) for name in names})
    return {name: (read[1][name] - read[0][name]) / (window_s[1] - window_s[0]) for name in read[0]}
