"""Fading and link rate agree with their closed forms (X ~ Exp(1), mean SNR g)."""

import itertools
import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import exp1
from worlds import agrees

from channel_models import (
    db_to_linear,
    ergodic_spectral_efficiency,
    linear_to_db,
    rayleigh,
    spectral_efficiency,
)
from uhlm_sim.rng import stream

BLOCKS = 100_000


def draws(*name, channel=rayleigh, count=BLOCKS):
    return next(channel(stream(1, "channel", *name), count))


@pytest.mark.parametrize("power", [1, 2, 3])
def test_the_moments_of_rayleigh_power_are_factorials(power):
    assert agrees(math.factorial(power), draws("moments") ** power, within=0.1)


@pytest.mark.parametrize("level", [0.05, 0.7, 3.0])
def test_rayleigh_power_exceeds_a_level_with_exponential_probability(level):
    assert agrees(math.exp(-level), draws("tail") > level, within=0.1)


def test_rayleigh_blocks_are_independent():
    gains = draws("independence") - 1.0
    assert abs(np.mean(gains[1:] * gains[:-1])) < 4 / math.sqrt(BLOCKS)


@pytest.mark.parametrize("mean_snr_db", [-5.0, 10.0, 25.0])
def test_the_mean_rate_under_rayleigh_fading_is_lees(mean_snr_db):
    """E[log2(1 + g X)] = exp(1/g) E1(1/g) / ln 2."""
    g = 10 ** (mean_snr_db / 10)
    theory = math.exp(1 / g) * exp1(1 / g) / math.log(2)
    assert agrees(theory, spectral_efficiency(g * draws("ergodic")))
    assert ergodic_spectral_efficiency(g) == pytest.approx(theory, rel=1e-12)
    assert theory == pytest.approx(quad(lambda x: math.log2(1 + g * x) * math.exp(-x), 0, 60)[0], rel=1e-6)


def test_the_mean_rate_under_rayleigh_fading_is_lees_at_any_snr():
    """exp(1/g) E1(1/g) = int exp(-e^v + v) / (1/g + e^v) dv, which no SNR overflows."""
    for g in np.geomspace(1e-6, 1e6, 49):
        halves = [-60.0, math.log(min(1 / g, 100.0)), 6.5]
        parts = [
            quad(lambda v, g=g: math.exp(v - math.exp(v)) / (1 / g + math.exp(v)), low, high, limit=200, epsrel=1e-12)
            for low, high in itertools.pairwise(halves)
        ]
        assert ergodic_spectral_efficiency(g) == pytest.approx(sum(p for p, _ in parts) / math.log(2), rel=1e-10)
    with pytest.raises(ValueError, match="mean_snr = 0: must be greater than 0"):
        ergodic_spectral_efficiency(0.0)


@pytest.mark.parametrize("outage", [0.01, 0.1, 0.5])
def test_the_rate_is_below_the_outage_rate_as_often_as_it_says(outage):
    """P(log2(1 + g X) < log2(1 - g ln(1 - eps))) = eps."""
    g = 10.0
    outage_rate = math.log2(1 - g * math.log(1 - outage))
    assert agrees(outage, spectral_efficiency(g * draws("outage")) < outage_rate, within=0.15)


@pytest.mark.parametrize("quantile", [0.05, 0.5, 0.95])
def test_an_upload_in_one_block_has_the_delay_law_of_rayleigh(quantile):
    """P(D > d) = 1 - exp(-(2^(S/(b d)) - 1)/g); its p-quantile is S/(b log2(1 - g ln p))."""
    g, bits, bandwidth_hz = 10.0, 256_000, 1e6
    d = bits / (bandwidth_hz * math.log2(1 - g * math.log(quantile)))
    longer = 1 - math.exp(-(2 ** (bits / (bandwidth_hz * d)) - 1) / g)
    delay_s = bits / (bandwidth_hz * spectral_efficiency(g * draws("delay")))
    assert longer == pytest.approx(1 - quantile)
    assert agrees(longer, delay_s > d, within=0.1)


def test_the_gap_divides_the_snr():
    snr = np.array([0.1, 1.0, 30.0])
    gap = 10 ** (3 / 10)
    np.testing.assert_allclose(spectral_efficiency(snr, snr_gap=gap), np.log2(1 + snr / gap), rtol=1e-12)


def test_the_rate_is_capped():
    assert spectral_efficiency([1.0, 2**7.4 - 1, 1e9], max_spectral_efficiency=7.4).tolist() == [1.0, 7.4, 7.4]


def test_there_is_no_rate_below_the_floor_and_the_floor_is_on_the_snr_before_the_gap():
    rates = spectral_efficiency([0.0999, 0.1, 0.2], min_snr=0.1, snr_gap=2.0)
    np.testing.assert_allclose(rates, [0.0, math.log2(1.05), math.log2(1.1)], rtol=1e-12)


def test_fading_below_the_floor_is_as_frequent_as_the_exponential_law_says():
    g, floor = 10.0, 0.1
    silent = spectral_efficiency(g * draws("floor"), min_snr=floor) == 0.0
    assert agrees(1 - math.exp(-floor / g), silent, within=0.2)


def test_decibels():
    assert db_to_linear(30.0) == pytest.approx(1000.0)
    assert linear_to_db(0.5) == pytest.approx(-3.0103, abs=1e-4)
    np.testing.assert_allclose(linear_to_db(db_to_linear([-7.5, 0.0, 13.0])), [-7.5, 0.0, 13.0], atol=1e-12)
