"""Claims about the other rules that share the band: one at a time, a part each, the best channel, all at once."""

import math

import numpy as np
import simpy
from numpy.typing import NDArray
from scipy.integrate import quad

import channel_models as radio
from uhlm_sim.cell.jobs import Job, Wakeup
from uhlm_sim.cell.radio.allocators import ALLOCATORS
from uhlm_sim.cell.radio.slots import Slots
from uhlm_sim.cell.radio.uplink import Uplink
from uhlm_sim.validation import drive
from uhlm_sim.validation.drive import RUNS
from uhlm_sim.validation.findings import Claim, Finding, Trial, equals, mean_is
from uhlm_sim.validation.uplink import constant, exponential

Floats = NDArray[np.float64]
PHONES, G, COHERENCE_S = 4, 10**0.7, 0.02


def one_at_a_time(trial: Trial) -> Finding:
    """Pollaczek-Khinchine: T = 1 + rho / (2 (1 - rho)) for constant sizes."""
    rho, uploads = 0.6, 1500 * trial.size
    stays = drive.open_stays_s(trial, rho, constant, uploads, allocator=ALLOCATORS["tdma"])
    return mean_is(1 + rho / (2 * (1 - rho)), stays, f"{RUNS} runs of {uploads:,} uploads")


def shortest_first(trial: Trial) -> Finding:
    """E[T | x] = l (int_0^x t^2 f + x^2 (1 - F(x))) / (2 (1 - r(x))^2) + int_0^x dt / (1 - r(t)), r = l int_0^x t f."""
    rho, uploads = 0.7, 1500 * trial.size

    def stay(x: float) -> float:
        tail = math.exp(-x)
        second = 2 - tail * (x * x + 2 * x + 2) + x * x * tail
        passing = quad(lambda t: 1 / (1 - load(t)), 0, x)[0]
        return float(rho * second / (2 * (1 - load(x)) ** 2) + passing)

    def load(x: float) -> float:
        return rho * (1 - math.exp(-x) * (1 + x))

    theory = float(quad(lambda x: stay(x) * math.exp(-x), 0, 40)[0])
    stays = drive.open_stays_s(trial, rho, exponential, uploads, allocator=ALLOCATORS["shortest-first"])
    return mean_is(theory, stays, f"{RUNS} runs of {uploads:,} uploads")


def own_parts(trial: Trial) -> Finding:
    """Nobody meets anybody: a phone's cycle is a think and an upload at a quarter of the band."""
    think_s, seconds = 3.0, 1000.0 * trial.size
    make = drive.make_uplink(bandwidth_hz=1.0, air=drive.flat_air(np.ones(PHONES)), allocator=ALLOCATORS["fdma"])
    window_s = (50.0, 50.0 + seconds)
    bits = [
        drive.think_and_ask(trial.rng(run), PHONES, think_s, exponential, make, window_s)["bits"] for run in range(RUNS)
    ]
    return mean_is(PHONES / (think_s + PHONES), bits, f"{RUNS} runs of {seconds:g} s, {PHONES} phones")


def always_sending(trial: Trial, run: int, allocator: str, mean_snr: Floats) -> tuple[float, Floats]:
    """Let phones send without a pause over Rayleigh fading; return bit/s/Hz and each phone's share of the band."""
    airtime_s, seconds = np.zeros(PHONES), 10.0 * trial.size

    def deliver(job: Job) -> None:
        airtime_s[job.device] += job.airtime_s
        drive.at_once(job)

    air = drive.rayleigh_air(trial, run, mean_snr, COHERENCE_S)
    make = drive.make_uplink(bandwidth_hz=1e6, air=air, deliver=deliver, allocator=ALLOCATORS[allocator])
    gained = drive.think_and_ask(trial.rng(run), PHONES, 0.0, lambda _rng: 6e4, make, (1.0, 1.0 + seconds))
    return gained["bits"] / 1e6, airtime_s / airtime_s.sum()


def best_channel(trial: Trial) -> Finding:
    """E[log2(1 + g max of N)], the largest of N exponential gains having density N e^-x (1 - e^-x)^(N - 1)."""
    theory = quad(lambda x: math.log2(1 + G * x) * PHONES * math.exp(-x) * (1 - math.exp(-x)) ** (PHONES - 1), 0, 50)[0]
    rates = [always_sending(trial, run, "max-rate", np.full(PHONES, G))[0] for run in range(RUNS)]
    return mean_is(float(theory), rates, f"{RUNS} runs of {10 * trial.size} s, {PHONES} phones")


def fair_shares(trial: Trial) -> Finding:
    snr = np.array([0.5, 2.0, 8.0, 32.0])
    shares = [always_sending(trial, run, "proportional-fair", snr)[1][0] for run in range(RUNS)]
    return mean_is(1 / PHONES, shares, f"{RUNS} runs of {10 * trial.size} s, mean SNR 0.5, 2, 8 and 32")


def end_together(trial: Trial) -> Finding:
    """S bits each over links of rate R_i: all end at S sum 1 / R_i, so each gets 1 / sum(1 / R_i) bit/s."""
    snr = trial.rng().exponential(5.0, 20)
    ended, _ = drive.upload(
        [(0.0, device, 1e5) for device in range(20)],
        drive.flat_air(snr, radio.spectral_efficiency),
        bandwidth_hz=1e6,
        allocator=ALLOCATORS["equal-finish"],
    )
    expected = 1e5 * sum(1 / (1e6 * math.log2(1 + value)) for value in snr)
    return equals(np.full(20, expected), [job.received_s for job in ended], "20 uploads that begin together")


def by_weight(trial: Trial) -> Finding:
    """Shares w_i / sum w: uploads in proportion to the weights end together, when all bits have gone through."""
    weights = trial.rng().uniform(1.0, 5.0, 20)
    ended, _ = drive.upload(
        [(0.0, device, 10.0 * float(weight)) for device, weight in enumerate(weights)],
        drive.flat_air(np.ones(20)),
        bandwidth_hz=1.0,
        allocator=ALLOCATORS["weighted"],
        weights=weights,
    )
    return equals(np.full(20, 10 * weights.sum()), [job.received_s for job in ended], "20 uploads that begin together")


def round_robin(trial: Trial) -> Finding:
    """All sent at once and shared equally, an upload that needs t_i s alone ends at sum_j min(t_i, t_j)."""
    bits, snr, tti_s = trial.rng("bits").uniform(0.5, 2.0, 20), trial.rng("snr").uniform(1.0, 4.0, 20), 1e-3
    ended, _ = drive.upload(
        [(0.0, device, float(size)) for device, size in enumerate(bits)],
        drive.flat_air(snr),
        bandwidth_hz=1.0,
        allocator=ALLOCATORS["round-robin"],
        slots=Slots(20, tti_s, 1.0),
    )
    needs_s = bits / snr
    expected = np.minimum(needs_s, needs_s[:, np.newaxis]).sum(axis=1)
    ends_s = [job.received_s for job in sorted(ended, key=lambda job: job.device)]
    how = "20 uploads that begin together, slots of 1 ms: within two rounds"
    return equals(expected, ends_s, how, limit=2 * 20 * tti_s, scale=1.0)


def fair_slots(trial: Trial) -> Finding:
    """Rates proportional to gains of one law: who is best relative to its own average is anybody."""
    seconds, runs = 4.0 * trial.size, RUNS // 2
    shares = [slots_of_the_farthest(trial, run, 4.0, 4.0 + seconds) for run in range(runs)]
    return mean_is(1 / PHONES, shares, f"{runs} runs of {seconds:g} s, mean SNR 0.5, 2, 8 and 32")


def slots_of_the_farthest(trial: Trial, run: int, since_s: float, until_s: float) -> float:
    """Let phones send without a pause, a slot a fading block; return the first one's part of the time that is used."""
    env, airtime_s, snr = simpy.Environment(), np.zeros(PHONES), np.array([0.5, 2.0, 8.0, 32.0])

    def deliver(job: Job) -> None:
        airtime_s[job.device] += job.airtime_s * (env.now > since_s)
        band.send(Job(job.device, job.payload_bits, 1, env.now, job.done))

    band = Uplink(
        env,
        bandwidth_hz=1.0,
        air=drive.rayleigh_air(trial, run, snr, COHERENCE_S, lambda snr: snr),
        deliver=deliver,
        allocator=ALLOCATORS["proportional-fair-slots"],
        slots=Slots(PHONES, COHERENCE_S, 1.0),
    )
    for device in range(PHONES):
        band.send(Job(device, 0.2 * float(snr[device]), 1, 0.0, Wakeup(env)))
    env.run(until=until_s)
    return float(airtime_s[0] / airtime_s.sum())


CLAIMS = (
    Claim("one at a time", "Mean time of an upload when one goes at a time, constant sizes, load 0.6",
          "Pollaczek 1930, Khinchine 1932", "E[S]", one_at_a_time),
    Claim("shortest first",
          "Mean time of an upload when the one with least left goes first, sizes exponential, load 0.7",
          "Schrage and Miller 1966", "E[S]", shortest_first),
    Claim("own parts", "Throughput of 4 phones with a fixed quarter of the band each: N / (Z + N S)",
          "cycles of think and upload", "bit/s", own_parts),
    Claim("best channel", "Rate of a hertz that always goes to the best of 4 fading phones, 7 dB",
          "Knopp and Humblet 1995", "bit/s/Hz", best_channel),
    Claim("fair shares",
          "Proportional fair gives the farthest of 4 phones, 18 dB below the nearest, a quarter of the band",
          "Yang and Alouini 2004", "1", fair_shares),
    Claim("equal finish", "Equal uploads over unequal links end together, after S times the sum of 1 / R",
          "adding up the airtimes", "s", end_together),
    Claim("weights", "Uploads in proportion to their weights end together",
          "discriminatory processor sharing: Kleinrock 1967", "s", by_weight),
    Claim("round robin", "Uploads that take turns by short slots end when equal share would end them",
          "processor sharing as the limit of round robin: Kleinrock 1976", "s", round_robin),
    Claim("fair slots", "Proportional fair by slots gives the farthest of 4 phones a quarter of the band",
          "Jalali, Padovani and Pankaj 2000; equal statistics", "1", fair_slots),
)  # fmt: skip
