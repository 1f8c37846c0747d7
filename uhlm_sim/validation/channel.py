"""Claims about the radio channel: how it fades, what a hertz carries, how long an upload takes, what distance costs."""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.special import exp1, gammaincinv, j0
from scipy.stats import ncx2

import channel_models as radio
from channel_models import fading
from uhlm_sim.cell.named import find_names
from uhlm_sim.cell.phones.population import population
from uhlm_sim.cell.radio.air import Air
from uhlm_sim.cell.radio.fading import find_fading, make_air
from uhlm_sim.scenario_file import parse_scenario
from uhlm_sim.validation.drive import AHEAD, one_after_another
from uhlm_sim.validation.findings import Claim, Finding, Trial, equals, mean_is, share_is

Floats = NDArray[np.float64]

MEAN_SNR_DB, G = 7.0, 10**0.7  # not 10 dB, which is 10 in either unit
BITS, BANDWIDTH_HZ = 256_000.0, 1e6
STEP = 0.03  # wavelengths that a phone moves in a block, for the laws of moving phones
DISTANCES_M = [10.0, 100.0, 1000.0, 5000.0]
IN_SIGHT_DB, HIDDEN_DB = [72.938, 86.236, 109.725, 137.679], [82.513, 106.136, 144.764, 172.075]


def mean_rate(trial: Trial) -> Finding:
    draws = 100_000 * trial.size
    gains = next(radio.CHANNELS["rayleigh"](trial.rng(), draws))
    theory = math.exp(1 / G) * float(exp1(1 / G)) / math.log(2)
    rates = radio.spectral_efficiency(radio.db_to_linear(MEAN_SNR_DB) * gains)
    return mean_is(theory, rates, f"{draws:,} blocks")


def outage(trial: Trial) -> Finding:
    draws, eps = 100_000 * trial.size, 0.1
    gains = next(radio.CHANNELS["rayleigh"](trial.rng(), draws))
    rates = radio.spectral_efficiency(radio.db_to_linear(MEAN_SNR_DB) * gains)
    return share_is(eps, int((rates < math.log2(1 - G * math.log(1 - eps))).sum()), draws, f"{draws:,} blocks")


def gain_outage(trial: Trial, model: Callable[..., object], level: float) -> Finding:
    draws = 100_000 * trial.size
    gains = next(model(trial.rng(), draws))  # type: ignore[call-overload]
    return share_is(0.1, int((gains < level).sum()), draws, f"{draws:,} blocks")


def rician_outage(trial: Trial) -> Finding:
    """P(gain < x) = 1 - Q1(sqrt(2 K), sqrt(2 (1 + K) x)): noncentral chi-square, 2 degrees of freedom."""
    k = 10**0.6
    level = float(ncx2.ppf(0.1, 2, 2 * k)) / (2 * (1 + k))
    return gain_outage(trial, partial(radio.CHANNELS["rician"], k_factor_db=6.0), level)


def nakagami_outage(trial: Trial) -> Finding:
    """P(gain < x) = P(m, m x)."""
    return gain_outage(trial, partial(radio.CHANNELS["nakagami"], shape=2.0), float(gammaincinv(2.0, 0.1)) / 2.0)


def moving(trial: Trial, phones: int, blocks: int) -> Floats:
    """Return the amplitude (phone, block) of phones that move STEP wavelengths in each block of a second."""
    speed = STEP * fading.SPEED_OF_LIGHT_M_PER_S / 1e9
    model = partial(radio.CHANNELS["jakes"], block_s=1.0, speed_m_per_s=speed, carrier_hz=1e9)
    return np.sqrt([next(model(trial.rng(phone), blocks)) for phone in range(phones)])


def autocorrelation(trial: Trial) -> Finding:
    """cov(g(t), g(t + tau)) = J0(2 pi fD tau)^2 - 1/N for N sinusoids."""
    phones, lag = 60 * trial.size, 7
    power = moving(trial, phones, 4000) ** 2 - 1
    theory = float(j0(2 * math.pi * STEP * lag)) ** 2 - 1 / fading.SINUSOIDS
    products = (power[:, :-lag] * power[:, lag:]).mean(axis=1)
    return mean_is(theory, products, f"{phones} phones, 4,000 blocks each")


def crossings(trial: Trial) -> Finding:
    """Rice: sqrt(2 pi) fD r exp(-r^2), r the level over the root mean square; blocks are short against a fade."""
    phones, r, doppler = 60 * trial.size, 10 ** (-3 / 20), STEP / 6
    speed = doppler * fading.SPEED_OF_LIGHT_M_PER_S / 1e9
    model = partial(radio.CHANNELS["jakes"], block_s=1.0, speed_m_per_s=speed, carrier_hz=1e9)
    faded = np.array([next(model(trial.rng(phone), 4000)) for phone in range(phones)]) < r**2
    upwards = (faded[:, :-1] & ~faded[:, 1:]).mean(axis=1)
    theory = math.sqrt(2 * math.pi) * doppler * r * math.exp(-(r**2))
    return mean_is(theory, upwards, f"{phones} phones, 4,000 blocks each")


def block_delay(trial: Trial) -> Finding:
    """P(D > d) = 1 - exp(-(2^(S/(b d)) - 1)/g); its p-quantile is S/(b log2(1 - g ln p))."""
    uploads, p = 10_000 * trial.size, 0.9
    gains = next(radio.CHANNELS["rayleigh"](trial.rng(), uploads))
    air = Air(radio.db_to_linear(np.array([MEAN_SNR_DB])), radio.spectral_efficiency, per_upload=True)
    ends_s = one_after_another(np.full(uploads, BITS), air, gains, bandwidth_hz=BANDWIDTH_HZ)
    quantile_s = BITS / (BANDWIDTH_HZ * math.log2(1 - G * math.log(p)))
    longer = np.diff(ends_s, prepend=0.0) > quantile_s
    return share_is(1 - p, int(longer.sum()), uploads, f"{uploads:,} uploads, one gain each")


def long_uploads(trial: Trial) -> Finding:
    """One phone sends without a pause: bits over time, over B, is the mean rate per hertz."""
    uploads, coherence_s = 1500 * trial.size, 0.02
    rates = []
    for run in range(16):
        model = radio.CHANNELS["rayleigh"](trial.rng(run), AHEAD)
        snr = radio.db_to_linear(np.array([MEAN_SNR_DB]))
        gains_of = {0: model}.__getitem__  # of the only phone
        air = Air(snr, radio.spectral_efficiency, gains_of=gains_of, coherence_s=coherence_s)
        sizes = trial.rng("sizes", run).exponential(BITS / 4, uploads)
        ends_s = one_after_another(sizes, air, bandwidth_hz=BANDWIDTH_HZ)
        rates.append(sizes.sum() / ends_s[-1] / BANDWIDTH_HZ)
    theory = math.exp(1 / G) * float(exp1(1 / G)) / math.log(2)
    return mean_is(theory, rates, f"16 runs of {uploads:,} uploads over blocks of 20 ms")


def apart(trial: Trial) -> Finding:
    """Two phones of a cell: each is below ln 2 of its mean half of the time, both a quarter of it."""
    seed, blocks = int(trial.rng("seed").integers(2**40)), 20_000 * trial.size
    values = {"name": "validation", "seed": seed, "tokens": {"path": "smollm2-pair"}, "policy": [{"kind": "hlm"}]}
    scenario = parse_scenario(values | {"traffic": {"devices": 2}})
    fading_of = find_fading(scenario, find_names(scenario)["channel.kind"])
    air = make_air(scenario, fading_of, 0, np.zeros(2), population(scenario))
    both = 0
    for block in range(blocks):
        air.enter(block)
        both += bool((air.snr < math.log(2)).all())
    return share_is(0.25, both, blocks, f"{blocks:,} blocks")


def places(trial: Trial) -> Finding:
    """Half of a disc's area, and so half of its phones, lies within R / sqrt(2) of its middle."""
    phones = 20_000 * trial.size
    drop = radio.drop_phones(trial.rng(), phones, radius_m=300.0, min_distance_m=10.0)
    within = math.sqrt((300.0**2 + 10.0**2) / 2)
    return share_is(0.5, int((drop.distance_m < within).sum()), phones, f"{phones:,} phones")


def path_loss(_trial: Trial) -> Finding:
    simulated = [
        radio.uma(DISTANCES_M, seen, carrier_hz=5e9, base_station_height_m=25.0, phone_height_m=1.5)
        for seen in (True, False)
    ]
    how = "10 m to 5 km at 5 GHz, in sight and not"
    return equals([IN_SIGHT_DB, HIDDEN_DB], simulated, how, limit=5.1e-4, scale=1.0)


def link_budget(_trial: Trial) -> Finding:
    """SNR = P G / L over k T F B: 23 dBm, -174 dBm/Hz, 8 dBi, 5 dB; half the band, twice the SNR."""
    loss_db, lg_2 = np.array([80.0, 120.0]), 10 * math.log10(2)
    expected = 23 - loss_db + 8 + 174 - 70 - 5
    simulated = [radio.uplink_snr_db(loss_db, bandwidth_hz=width_hz) for width_hz in (10e6, 5e6)]
    return equals([expected, expected + lg_2], simulated, "80 and 120 dB of loss, 10 and 5 MHz")


CLAIMS = (
    Claim("mean rate", "Mean rate of a hertz under Rayleigh fading, 7 dB: exp(1/g) E1(1/g) / ln 2", "Lee 1990",
          "bit/s/Hz", mean_rate),
    Claim("outage", "The rate is below log2(1 - g ln(1 - 0.1)) in one block of ten, Rayleigh, 7 dB",
          "Alouini and Goldsmith 1999", "1", outage),
    Claim("rician outage", "A Rician gain, K = 6 dB, is below Marcum's tenth one time in ten", "Marcum 1960", "1",
          rician_outage),
    Claim("nakagami outage", "A Nakagami gain, m = 2, is below its tenth one time in ten", "Nakagami 1960", "1",
          nakagami_outage),
    Claim("jakes autocorrelation", "The power of a moving phone's channel is correlated as J0 squared", "Clarke 1968",
          "1", autocorrelation),
    Claim("level crossings", "A moving phone's channel rises through -3 dB as often as Rice says", "Rice 1945", "1/s",
          crossings),
    Claim("delay in one block",
          "One upload in ten, each in one fading block, takes longer than S / (b log2(1 - g ln 0.9))",
          "inverting Shannon's rate under Rayleigh fading", "1", block_delay),
    Claim("rate over many blocks",
          "A phone that never stops sending gets the mean rate, whatever its uploads' ends in the blocks",
          "Lee 1990; the law of large numbers", "bit/s/Hz", long_uploads),
    Claim("own fades apart", "Two phones fade apart: both are below their median gain in a block of four",
          "independent gains", "1", apart),
    Claim("places", "Phones are dropped evenly over a disc: half of them in the inner half of its area",
          "area of a ring", "1", places),
    Claim("path loss", "Path loss of an urban macro cell is the report's, to its three decimals",
          "3GPP TR 38.901, table 7.4.1-1", "dB", path_loss),
    Claim("link budget",
          "A phone's SNR is its power over the noise of the band it uses: half the band, twice the SNR",
          "3GPP TR 38.901; Rappaport 2002, chapter 4", "dB", link_budget),
)  # fmt: skip
