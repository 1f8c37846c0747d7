"""Claims about the shared uplink: processor sharing, open and closed, fading blocks, conservation."""

import math
from functools import partial

import numpy as np
from numpy.typing import NDArray

import channel_models as radio
from uhlm_sim.cell.radio.air import Air
from uhlm_sim.validation import drive
from uhlm_sim.validation.drive import AHEAD, CUT, RUNS, Draw
from uhlm_sim.validation.findings import Claim, Finding, Trial, equals, mean_is

Floats = NDArray[np.float64]


def exponential(rng: np.random.Generator) -> float:
    return float(rng.exponential())


def constant(_rng: np.random.Generator) -> float:
    return 1.0


def hyper_exponential(rng: np.random.Generator) -> float:
    return float(rng.exponential(0.5 if rng.random() < 0.9 else 5.5))


def open_stay(trial: Trial, rho: float, size: Draw) -> Finding:
    uploads = 2500 * trial.size
    return mean_is(1 / (1 - rho), drive.open_stays_s(trial, rho, size, uploads), f"{RUNS} runs of {uploads:,} uploads")


def stay_by_size(trial: Trial) -> Finding:
    """Among uploads larger than the mean, stay over size, upload by upload."""
    rho, uploads, slowdowns = 0.6, 2500 * trial.size, []
    for run in range(RUNS):
        sizes, stays_s = drive.open_uploads(trial.rng(run), rho, hyper_exponential, uploads, CUT)
        slowdowns.append((stays_s / sizes)[sizes > 1.0].mean())
    return mean_is(1 / (1 - rho), slowdowns, f"{RUNS} runs of {uploads:,} uploads")


PHONES, SNR, CAP = 10, 1.0, 2.5


def closed_throughput(trial: Trial, size: Draw, power_limited: bool) -> Finding:
    """p_k ~ N!/(N - k)! Z^-k prod_(j <= k) S/phi(j); X = sum p_k phi(k); phi(n) = min(log2(1 + n G), cap)."""
    think_s = 4.0 if power_limited else 9.0
    phi = [min(math.log2(1 + (n if power_limited else 1) * SNR), CAP) for n in range(1, PHONES + 1)]
    p = np.cumprod([1.0] + [(PHONES - n) / think_s / phi[n] for n in range(PHONES)])
    theory = float(p[1:] @ phi / p.sum())

    air = drive.flat_air(np.full(PHONES, SNR), lambda snr: np.minimum(np.log2(1 + snr), CAP))
    make = drive.make_uplink(bandwidth_hz=1.0, air=air, power_limited=power_limited)
    window_s = (20 * think_s, (20 + 200 * trial.size) * think_s)
    bits = [drive.think_and_ask(trial.rng(run), PHONES, think_s, size, make, window_s)["bits"] for run in range(RUNS)]
    return mean_is(theory, bits, f"{RUNS} runs of {200 * trial.size:,} think times, {PHONES} phones")


def known_gains(trial: Trial, blocks: int, devices: int) -> Floats:
    return trial.rng("gains").exponential(size=(devices, blocks))


def air_of(gains: Floats, coherence_s: float) -> Air:
    def runs(device: int):  # type: ignore[no-untyped-def]
        for start in range(0, gains.shape[1], AHEAD):
            yield gains[device, start : start + AHEAD]

    return Air(np.full(len(gains), 10.0), radio.spectral_efficiency, gains_of=runs, coherence_s=coherence_s)


def blocks_end(trial: Trial) -> Finding:
    """bits(t) = B integral of log2(1 + 10 g(t)): broken at the blocks' ends, so np.interp inverts it exactly."""
    blocks, coherence_s, bandwidth_hz = 40 * AHEAD, 0.02, 1e6
    gains = known_gains(trial, blocks, 1)
    sent = np.concatenate([[0.0], np.cumsum(bandwidth_hz * coherence_s * np.log2(1 + 10 * gains[0]))])
    sizes = trial.rng("sizes").exponential(100_000.0, 4000)
    sizes = sizes[np.cumsum(sizes) < 0.99 * sent[-1]]
    expected = np.interp(np.cumsum(sizes), sent, coherence_s * np.arange(blocks + 1))
    ends_s = drive.one_after_another(sizes, air_of(gains, coherence_s), bandwidth_hz=bandwidth_hz)
    return equals(expected, ends_s, f"{len(sizes):,} uploads over blocks of 20 ms, every end")


def busy_uploads(trial: Trial, count: int = 3000, devices: int = 200) -> tuple[list[tuple[float, int, float]], Air]:
    """Return uploads in order of time, each device's next one long after its last, and an air that fades in blocks."""
    rng = trial.rng("uploads")
    starts_s = np.cumsum(rng.exponential(0.025, count))
    sizes = rng.exponential(55_000.0, count)
    uploads = [
        (float(at_s), n % devices, float(bits)) for n, (at_s, bits) in enumerate(zip(starts_s, sizes, strict=True))
    ]
    return uploads, air_of(known_gains(trial, 20 * AHEAD, devices), 0.02)


def conservation(trial: Trial) -> Finding:
    """Sums over the uploads against what the uplink counted itself: bits, band in use, uploads present."""
    uploads, air = busy_uploads(trial)
    ended, band = drive.upload(uploads, air, bandwidth_hz=1e6)
    counted = band.counters
    airtime_s = sum(job.airtime_s for job in ended)
    stay_s = sum(job.received_s - job.sent_s for job in ended)
    sums = [sum(bits for *_, bits in uploads), airtime_s, stay_s, len(uploads)]
    counters = np.array([counted.bits, counted.busy_s, counted.present_s, counted.departures])
    return equals(np.ones(4), counters / sums, f"{len(uploads):,} uploads of 200 phones, blocks of 20 ms", limit=1e-9)


def equal_again(left_bits: Floats, _snr: Floats) -> Floats:
    return np.full(len(left_bits), 1 / len(left_bits))


def two_clocks(trial: Trial) -> Finding:
    """The built-in equal share runs on virtual time, an allocator of one's own step by step."""
    ends_s = []
    for options in ({}, {"allocator": equal_again}):
        uploads, air = busy_uploads(trial, 1500)
        ended, _ = drive.upload(uploads, air, bandwidth_hz=1e6, **options)
        ends_s.append([job.received_s for job in sorted(ended, key=lambda job: job.sent_s)])
    return equals(ends_s[1], ends_s[0], "1,500 uploads of 200 phones, blocks of 20 ms, every end")


SHARING = "Kleinrock 1976, chapter 4: T = E[S] / (1 - rho)"
CLAIMS = (
    *(
        Claim(f"sharing {name}, load {rho}",
              f"Mean time of an upload in a band shared equally, sizes {name}, load {rho}: E[S] / (1 - load)",
              SHARING, "E[S]", partial(open_stay, rho=rho, size=size), curve=f"uplink, {name} sizes", at=rho)
        for name, size, rho in (
            ("exponential", exponential, 0.3),
            ("exponential", exponential, 0.6),
            ("exponential", exponential, 0.8),
            ("constant", constant, 0.7),
            ("hyper-exponential", hyper_exponential, 0.5),
        )
    ),
    Claim("sharing by size", "A large upload takes in proportion to its size: x / (1 - load), load 0.6", SHARING, "1",
          stay_by_size),
    *(
        Claim(f"closed sharing {name}, {rule}", f"Throughput of 10 phones that think and send, {rule}, sizes {name}",
              "Cohen 1979, generalised processor sharing", "bit/s",
              partial(closed_throughput, size=size, power_limited=rule == "power-limited"))
        for name, size, rule in (
            ("constant", constant, "per-hertz"),
            ("hyper-exponential", hyper_exponential, "per-hertz"),
            ("exponential", exponential, "power-limited"),
            ("hyper-exponential", hyper_exponential, "power-limited"),
        )
    ),
    Claim("blocks", "A lone phone's uploads end where the integral of its fading rate says",
          "rate integrated block by block", "s", blocks_end),
    Claim("conservation", "Bits in are bits out, airtimes add up to the band in use, stays to the uploads present",
          "conservation, Little's law along the sample path", "ratio", conservation),
    Claim("two clocks", "Equal sharing in virtual time and step by step end every upload at the same instant",
          "two implementations of one rule", "s", two_clocks),
)  # fmt: skip
