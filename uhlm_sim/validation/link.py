"""Claims about transport blocks, their errors and repetitions, and about the shared downlink."""

import math
from functools import partial

import numpy as np
import simpy
from numpy.typing import NDArray

import channel_models as radio
from uhlm_sim.cell.jobs import Counters, Job, Wakeup
from uhlm_sim.cell.radio.adaptive_uplink import AdaptiveUplink, Link
from uhlm_sim.cell.radio.downlink import Downlink
from uhlm_sim.cell.radio.slots import Slots
from uhlm_sim.validation.drive import Process, at_once, flat_air, rayleigh_air
from uhlm_sim.validation.findings import Claim, Finding, Trial, equals, mean_is, share_is

Floats = NDArray[np.float64]
TTI_S, USES, TARGET, ROUND_TRIP = 1e-3, 1000.0, 0.1, 8
LOWEST = (1, 240)  # MCS 0: bits a symbol, code rate x 1024
POINTS = [  # bits a symbol, rate x 1024, MCS index, bits, gap in dB, SNR in dB
    (2, 193, 2, 100, 1.1, -3.1),
    (2, 379, 5, 500, 0.8, -0.7),
    (2, 679, 9, 2000, 0.6, 2.5),
    (4, 434, 12, 100, 1.5, 5.3),
    (4, 658, 16, 2000, 1.0, 8.1),
    (6, 616, 20, 500, 1.9, 13.0),
    (6, 948, 27, 2000, 1.7, 18.4),
]


def fails(bits_a_symbol: int, rate_1024: float, bits: float, snr: float, gap_db: float) -> float:
    """Q((C - R + log2(n) / (2 n)) sqrt(n / V)) over n = bits / R channel uses, at the SNR less the gap."""
    rate, g = bits_a_symbol * rate_1024 / 1024, snr / 10 ** (gap_db / 10)
    n, v = bits / rate, (1 - (1 + g) ** -2) * math.log2(math.e) ** 2
    return 0.5 * math.erfc((math.log2(1 + g) - rate + math.log2(n) / (2 * n)) * math.sqrt(n / v / 2))


def normal_approximation(_trial: Trial) -> Finding:
    expected = [fails(q, rate, bits, 10 ** (snr_db / 10), gap_db) for q, rate, _, bits, gap_db, snr_db in POINTS]
    simulated = [float(radio.block_error(mcs, bits, 10 ** (snr_db / 10))) for _, _, mcs, bits, _, snr_db in POINTS]
    return equals(expected, simulated, "7 blocks of 100, 500 and 2,000 bits, QPSK to 64-QAM")


def lowest_fails(snr: float) -> float:
    """Error of a slot's block at MCS 0: 234 bits, whose gap lies between those of 100 and 500."""
    bits = USES * LOWEST[0] * LOWEST[1] / 1024
    return fails(*LOWEST, bits, snr, 1.1 - 0.3 * math.log(bits / 100) / math.log(5))


def repeated(trial: Trial, run: int, snr: float, slots: int, bits: float, most: int) -> tuple[float, Counters]:
    """Let one phone send uploads without a pause over a still channel that looks good enough for MCS 0, and isn't.

    Return slots an upload and counters.
    """
    env, ended = simpy.Environment(), 0

    def deliver(_job: Job) -> None:
        nonlocal ended
        ended += 1
        band.send(Job(0, bits, 1, env.now, Wakeup(env)))

    band = AdaptiveUplink(
        env,
        bandwidth_hz=USES / TTI_S,
        air=flat_air(np.array([snr])),
        known=flat_air(np.array([SEEN])),
        link=Link(TARGET, 0.0, 0.0, most, ROUND_TRIP),
        slots=Slots(1, TTI_S, 1.0),
        coins_of=lambda _device: trial.rng("coins", run),
        deliver=deliver,
    )
    band.send(Job(0, bits, 1, 0.0, Wakeup(env)))
    env.run(until=(slots + 0.5) * TTI_S)
    return slots / max(ended, 1), band.counters


SEEN = 10**-0.55  # SNR for which MCS 0 is chosen
HALF = 10**-0.965  # SNR at which a block at MCS 0 nearly always fails, of two combined nearly half, of three hardly one
RUNS = 8


def combined(trial: Trial) -> Finding:
    """At most two transmissions: a block is lost with the error of one at twice the SNR."""
    slots = 800 * trial.size
    _, counted = repeated(trial, 0, HALF, slots, 1e12, 2)
    ended = counted.lost_blocks + round(counted.block_bits / (USES * LOWEST[0] * LOWEST[1] / 1024))
    return share_is(lowest_fails(2 * HALF), counted.lost_blocks, ended, f"{ended:,} blocks at MCS 0")


def round_trips(trial: Trial) -> Finding:
    """One block an upload: E[slots] = 1 + R (e(g) + e(2 g) + e(3 g))."""
    slots, bits = 600 * trial.size, USES * LOWEST[0] * LOWEST[1] / 1024
    theory = 1 + ROUND_TRIP * sum(lowest_fails(n * HALF) for n in (1, 2, 3))
    lengths = [repeated(trial, run, HALF, slots, bits, 4)[0] for run in range(RUNS)]
    return mean_is(theory, lengths, f"{RUNS} runs of {slots:,} slots")


def saturated(trial: Trial) -> Finding:
    """A block of b bits takes 1 + e(g) + e(2 g) slots and arrives unless it fails three times."""
    slots, bits = 200 * trial.size, USES * LOWEST[0] * LOWEST[1] / 1024
    errors = [lowest_fails(n * HALF) for n in (1, 2, 3)]
    theory = bits * (1 - errors[2]) / (1 + errors[0] + errors[1])
    rates = []
    for run in range(RUNS):
        early = repeated(trial, run, HALF, 100, 1e12, 3)[1].block_bits
        rates.append((repeated(trial, run, HALF, 100 + slots, 1e12, 3)[1].block_bits - early) / slots)
    return mean_is(theory, rates, f"{RUNS} runs of {slots:,} slots, one endless upload")


def outer_loop(trial: Trial) -> Finding:
    """4 phones send without a pause over Rayleigh blocks of 20 ms that the base station sees 5 ms late."""
    phones, settling, slots, runs = 4, 800, 400 * trial.size, 6
    shares = []
    for run in range(runs):
        env = simpy.Environment()
        air = partial(rayleigh_air, trial, run, np.full(phones, 10.0), 0.02)
        band = AdaptiveUplink(
            env,
            bandwidth_hz=4 * USES / TTI_S,
            air=air(),
            known=air(),
            link=Link(TARGET, 0.5, 0.005),
            slots=Slots(phones, TTI_S, 1.0),
            coins_of=lambda device, run=run: trial.rng("coins", run, device),  # type: ignore[misc]
            deliver=at_once,
        )
        for device in range(phones):
            band.send(Job(device, 1e12, 1, 0.0, Wakeup(env)))
        seen = []
        for until in (settling, settling + slots):
            env.run(until=(until + 0.5) * TTI_S)
            seen.append((band.counters.block_errors, band.counters.blocks))
        shares.append((seen[1][0] - seen[0][0]) / (seen[1][1] - seen[0][1]))
    return mean_is(TARGET, shares, f"{runs} runs of {slots:,} slots, {phones} phones")


def answer_stay_s(rng: np.random.Generator, rate: float, answers: int, phones: int) -> float:
    """Return the mean time of answers of one second on a shared downlink, to phones in turn, at Poisson times."""
    env, jobs = simpy.Environment(), list[Job]()
    downlink = Downlink(env, bandwidth_hz=1e3, air=flat_air(np.ones(phones)))

    def source() -> Process:
        for number, gap_s in enumerate(rng.exponential(1 / rate, answers).tolist()):
            yield env.timeout(gap_s)
            job = Job(number % phones, 0.0, 1, env.now, Wakeup(env))
            job.answer_bits = 1e3
            jobs.append(job)
            downlink.send(job)

    env.process(source())
    env.run()
    return float(np.mean([job.returned_s - job.sent_s for job in jobs[50:-50]]))


def shared_downlink(trial: Trial) -> Finding:
    """M/G/1-PS: T = E[S] / (1 - rho), answers of constant size to 100 phones in turn."""
    rho, answers = 0.6, 600 * trial.size
    stays = [answer_stay_s(trial.rng(run), rho, answers, phones=100) for run in range(RUNS)]
    return mean_is(1 / (1 - rho), stays, f"{RUNS} runs of {answers:,} answers")


CLAIMS = (
    Claim("block error", "A transport block's error at points of the table, QPSK to 64-QAM",
          "Polyanskiy, Poor and Verdu 2010", "1", normal_approximation),
    Claim("chase combining", "A block sent twice at one SNR is lost as often as one sent once at twice that",
          "Chase 1985", "1", combined),
    Claim("round trips", "An upload of one block lasts a slot, and a round trip of 8 for every time it fails",
          "1 + R (e(g) + e(2 g) + e(3 g))", "slots", round_trips),
    Claim("saturated link", "Bits a slot of a lone phone that always sends over a still channel, three transmissions",
          "renewal: b (1 - e(3 g)) / (1 + e(g) + e(2 g))", "bit", saturated),
    Claim("outer loop", "One in ten first transmissions fails, Rayleigh, an SNR seen 5 ms late",
          "drift of the outer loop: Sampath, Kumar and Holtzman 1997", "1", outer_loop),
    Claim("shared downlink", "Mean time of an answer on a shared downlink, constant sizes, load 0.6",
          "Kleinrock 1976, chapter 4: T = E[S] / (1 - rho)", "E[S]", shared_downlink),
)  # fmt: skip
