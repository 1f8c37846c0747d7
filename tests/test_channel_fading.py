"""Every fading model has its law, its correlation and its manners."""

import math
import pickle
import re
from functools import partial
from itertools import islice

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.special import gammaincinv, j0, jn_zeros, jnp_zeros
from scipy.stats import ncx2
from worlds import agrees

from channel_models import CHANNELS, jakes, jakes_field, nakagami, rayleigh, rician
from channel_models.fading import SINUSOIDS, SPEED_OF_LIGHT_M_PER_S
from uhlm_sim.rng import stream

BLOCKS = 100_000
LEVELS = [0.05, 0.3, 1.0, 2.0]
DEVICES = 3


def numbers(low, high):
    return st.floats(low, high, allow_nan=False)


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """Give a file of SNR in dB of one device that fades slowly, 500 blocks."""
    file = tmp_path_factory.mktemp("recording") / "drive.csv"
    field = next(jakes_field(stream(1, "drive"), 500, block_s=0.01, speed_m_per_s=1.0, carrier_hz=3.5e9))
    np.savetxt(file, 20 * np.log10(np.abs(field)) + 7.0, delimiter=",", header="snr_db", comments="")
    return str(file)


def legal(name, recording):
    """Give the parameters that a model may be run with."""
    return {
        "constant": st.just({}),
        "rayleigh": st.just({}),
        "rician": st.fixed_dictionaries({"k_factor_db": numbers(-100, 100)}),
        "nakagami": st.fixed_dictionaries({"shape": numbers(0.5, 1e6)}),
        "jakes": st.fixed_dictionaries(
            {"block_s": numbers(1e-6, 1e3), "speed_m_per_s": numbers(0, 300), "carrier_hz": numbers(1e8, 1e11)}
        ),
        "trace": st.fixed_dictionaries({"path": st.just(recording), "device": st.integers(0, DEVICES)}),
    }[name]


def usual(name, recording):
    """Return a model with its defaults and what it must be given."""
    given_ = {"jakes": {"block_s": 0.02}, "trace": {"path": recording}}
    return partial(CHANNELS[name], **given_.get(name, {}))


# Manners ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CHANNELS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_legal_parameters_give_gains_the_same_for_the_same_seed_in_runs_of_any_length(name, recording, data):
    params = data.draw(legal(name, recording))
    size = data.draw(st.integers(1, 300))
    model = pickle.loads(pickle.dumps(partial(CHANNELS[name], **params)))
    gains = next(model(stream(1, "seed"), 600))
    assert gains.shape == (600,)
    assert gains.dtype == np.float64
    assert (gains >= 0.0).all()
    assert np.isfinite(gains).all()
    in_runs = list(islice(model(stream(1, "seed"), size), -(-600 // size)))
    assert {run.shape for run in in_runs} == {(size,)}
    assert np.concatenate(in_runs)[:600].tobytes() == gains.tobytes()


@pytest.mark.parametrize("name", CHANNELS)
def test_the_mean_gain_is_one(name, recording):
    model = usual(name, recording)
    assert agrees(1.0, [next(model(stream(1, "mean", device), 1))[0] for device in range(10_000)])


@pytest.mark.parametrize("name", CHANNELS)
def test_a_model_tells_its_equation_source_correlation_outage_and_what_it_leaves_out(name):
    told = " ".join((CHANNELS[name].__doc__ or "").split())
    assert re.search(r"gain(\(k\))? (=|~) ", told)
    assert re.search(r"\((?:[^()]|\([^()]*\))*(19|20)\d\d", told), "a source has a year"
    for word in ("utoco", "utage", "Left out:"):
        assert word in told


# Independent blocks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k_factor_db", [-3.0, 6.0, 10.0])
@pytest.mark.parametrize("outage", [0.01, 0.1, 0.5, 0.9])
def test_rician_outage_is_marcums(k_factor_db, outage):
    """P(gain < x) = 1 - Q1(sqrt(2 K), sqrt(2 (1 + K) x)): noncentral chi-square, 2 degrees, noncentrality 2 K."""
    k = 10 ** (k_factor_db / 10)
    level = ncx2.ppf(outage, 2, 2 * k) / (2 * (1 + k))
    assert agrees(outage, next(rician(stream(1, "rician"), BLOCKS, k_factor_db=k_factor_db)) < level, within=0.15)


@pytest.mark.parametrize("shape", [0.5, 2.0, 4.5])
@pytest.mark.parametrize("outage", [0.01, 0.1, 0.5, 0.9])
def test_nakagami_outage_is_the_incomplete_gamma_function(shape, outage):
    """P(gain < x) = P(m, m x)."""
    level = gammaincinv(shape, outage) / shape
    assert agrees(outage, next(nakagami(stream(1, "nakagami"), BLOCKS, shape=shape)) < level, within=0.15)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    "model",
    [rayleigh, partial(rician, k_factor_db=-100.0), partial(nakagami, shape=1.0)],
    ids=["rayleigh", "rician without a steady path", "nakagami of shape 1"],
)
def test_three_models_meet_in_rayleigh(model, level):
    assert agrees(1 - math.exp(-level), next(model(stream(1, "meet"), BLOCKS)) < level, within=0.1)


@pytest.mark.parametrize(
    ("model", "variance"),
    [
        (partial(rician, k_factor_db=6.0), (1 + 2 * 10**0.6) / (1 + 10**0.6) ** 2),
        (partial(nakagami, shape=2.5), 1 / 2.5),
    ],
    ids=["rician", "nakagami"],
)
def test_the_power_varies_as_told_and_blocks_are_independent(model, variance):
    gains = next(model(stream(1, "independent"), BLOCKS)) - 1.0
    assert agrees(variance, gains**2)
    for lag in (1, 2, 7):
        assert abs(np.mean(gains[lag:] * gains[:-lag])) < 4 * variance / math.sqrt(BLOCKS)


@pytest.mark.parametrize(("model", "message"), [
    (partial(nakagami, shape=0.4), "at least 0.5"),
    (partial(nakagami, shape=math.nan), "at least 0.5"),
    (partial(rician, k_factor_db=101.0), "from -100 to 100"),
])  # fmt: skip
def test_a_parameter_out_of_range_is_refused(model, message):
    with pytest.raises(ValueError, match=message):
        next(model(stream(1), 1))


# Moving devices --------------------------------------------------------------------------------------------------


def moving(doppler_blocks, realisations, blocks, *name):
    """Return complex gains (realisation, block) of devices that pass `doppler_blocks` wavelengths in a block."""
    speed_m_per_s = doppler_blocks * SPEED_OF_LIGHT_M_PER_S / 1e9
    fields = [
        next(
            jakes_field(stream(1, "moving", *name, i), blocks, block_s=1.0, speed_m_per_s=speed_m_per_s, carrier_hz=1e9)
        )
        for i in range(realisations)
    ]
    return np.array(fields)


EXTREMES = [0.5, 1.0, *jnp_zeros(0, 4)]  # where J0 has something to say: on its way down, and at its turning points


@pytest.fixture(scope="module")
def slow():
    """Give 400 devices that move by an eighth of the way to J0's first turning point in each of 2,000 blocks."""
    step = jnp_zeros(0, 1)[0] / 8 / (2 * math.pi)
    return step, moving(step, 400, 2000, "slow")


@pytest.mark.parametrize("way", EXTREMES)
def test_the_complex_gain_is_correlated_as_j0(slow, way):
    """E[conj(h(t)) h(t + tau)] = J0(2 pi fD tau); one average over time per device."""
    step, field = slow
    lag = round(way / (2 * math.pi * step))
    products = (field[:, :-lag].conj() * field[:, lag:]).mean(axis=1)
    assert agrees(j0(2 * math.pi * step * lag), products.real, within=0.12)
    assert abs(products.imag.mean()) < 4 * products.imag.std() / math.sqrt(len(products))


@pytest.mark.parametrize("way", EXTREMES[:4])
def test_the_power_is_correlated_as_j0_squared(slow, way):
    """cov(g(t), g(t + tau)) = J0(2 pi fD tau)^2 - 1/N."""
    step, field = slow
    lag = round(way / (2 * math.pi * step))
    power = np.abs(field) ** 2 - 1
    theory = j0(2 * math.pi * step * lag) ** 2 - 1 / SINUSOIDS
    assert agrees(theory, (power[:, :-lag] * power[:, lag:]).mean(axis=1), within=0.15)


def test_where_j0_is_zero_nothing_is_left_of_the_correlation(slow):
    step, field = slow
    lag = round(jn_zeros(0, 1)[0] / (2 * math.pi * step))
    products = (field[:, :-lag].conj() * field[:, lag:]).mean(axis=1).real
    assert abs(products.mean() - j0(2 * math.pi * step * lag)) < 4 * products.std() / math.sqrt(len(products))


@pytest.mark.parametrize("threshold_db", [-10.0, -3.0, 0.0])
def test_levels_are_crossed_and_fades_last_as_rice_says(threshold_db):
    """r = level / rms: sqrt(2 pi) fD r exp(-r^2) crossings a second, fades of (exp(r^2) - 1) / (r fD sqrt(2 pi)) s."""
    r, doppler_hz = 10 ** (threshold_db / 20), 0.005
    rate = math.sqrt(2 * math.pi) * doppler_hz * r * math.exp(-(r**2))
    fade_s = math.expm1(r**2) / (r * doppler_hz * math.sqrt(2 * math.pi))
    faded = np.abs(moving(doppler_hz, 300, 5000, "crossings")) < r
    upwards = (faded[:, :-1] & ~faded[:, 1:]).sum(axis=1)
    assert agrees(rate, upwards / faded.shape[1], within=0.08)
    surplus_s = faded.sum(axis=1) - fade_s * upwards  # zero on average, if fades are as long as told
    error = surplus_s.std() / math.sqrt(len(upwards))
    assert abs(surplus_s.mean()) < 4 * error
    assert error < 0.02 * fade_s * upwards.mean()


@pytest.mark.parametrize("level", LEVELS)
def test_a_moving_devices_outage_is_rayleighs(level):
    """Ten wavelengths and a bit in each block, so that an average over time is one over nearly independent gains."""
    below = (np.abs(moving(10.123, 100, 5000, "outage")) ** 2 < level).mean(axis=1)
    assert agrees(1 - math.exp(-level), below, within=0.03)


def test_every_single_device_has_mean_gain_one_over_a_long_way():
    means = (np.abs(moving(10.123, 30, 20_000, "ergodic")) ** 2).mean(axis=1)
    np.testing.assert_allclose(means, 1.0, atol=4.5 / math.sqrt(20_000))


def test_late_blocks_are_as_exact_as_early_ones():
    """The phase after 10^6 blocks of a tenth of a wavelength, from the angles and phases that the stream gave."""
    rng = stream(1, "late")
    turn, phases = rng.uniform(0, 2 * math.pi), rng.uniform(0, 2 * math.pi, SINUSOIDS)
    cosines = np.cos((2 * math.pi * np.arange(SINUSOIDS) + turn) / SINUSOIDS)
    runs = jakes(stream(1, "late"), 100_000, block_s=0.1, speed_m_per_s=SPEED_OF_LIGHT_M_PER_S / 1e9, carrier_hz=1e9)
    late = [next(runs) for _ in range(10)][-1][-1]
    field = np.exp(1j * (2 * math.pi * 0.1 * 999_999 * cosines + phases)).sum() / math.sqrt(SINUSOIDS)
    assert late == pytest.approx(abs(field) ** 2, rel=1e-6)


def test_a_device_that_stands_still_keeps_its_gain():
    gains = next(jakes(stream(1, "still"), 1000, block_s=0.02, speed_m_per_s=0.0))
    np.testing.assert_allclose(gains, gains[0], rtol=1e-12)


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ["block_s", "speed_m_per_s", "carrier_hz"])
def test_a_movement_that_is_none_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} = {value:g}: must be .*finite"):
        next(jakes(stream(1, "wrong"), 10, **{"block_s": 0.02, name: value}))


def test_walking_and_driving_differ_by_the_scale_of_time_alone():
    walking = next(jakes(stream(1, "scale"), 100, block_s=0.02, speed_m_per_s=1.0))
    driving = next(jakes(stream(1, "scale"), 100, block_s=0.001, speed_m_per_s=20.0))
    np.testing.assert_allclose(walking, driving, rtol=1e-9)
