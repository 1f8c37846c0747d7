"""A drop of phones, its path loss and its SNR are those of TR 38.901 and of a link budget done by hand."""

import math

import numpy as np
import pytest
from scipy.stats import kstest
from worlds import agrees

from channel_models import (
    PATH_LOSS,
    drop_phones,
    rma,
    shadowing_sd_db,
    sight_probability,
    transmit_power_dbm,
    uma,
    umi,
    uplink_snr_db,
)
from uhlm_sim.rng import stream

C = 3.0e8
COUNT = 20_000
DISTANCES_M = [10.0, 100.0, 1000.0, 5000.0]


# Path loss -------------------------------------------------------------------------------------------------------


def test_the_urban_macro_cell_loses_what_the_report_says():
    """5 GHz, 25 m and 1.5 m."""
    assert uma(DISTANCES_M, True, carrier_hz=5e9) == pytest.approx([72.938, 86.236, 109.725, 137.679], abs=0.0005)
    assert uma(DISTANCES_M, False, carrier_hz=5e9) == pytest.approx([82.513, 106.136, 144.764, 172.075], abs=0.0005)


@pytest.mark.parametrize("distance_m", [20.0, 150.0, 599.0, 601.0, 2000.0])
def test_the_street_canyon_loses_what_the_report_says(distance_m):
    """5 GHz, 10 m and 2 m: the break point is at 4 x 9 x 1 x 5e9 / c = 600 m."""
    d = math.dist((distance_m, 10.0), (0.0, 2.0))
    seen = 32.4 + 21 * math.log10(d) + 20 * math.log10(5)
    if distance_m > 600:
        seen = 32.4 + 40 * math.log10(d) + 20 * math.log10(5) - 9.5 * math.log10(600**2 + 8**2)
    hidden = 35.3 * math.log10(d) + 22.4 + 21.3 * math.log10(5) - 0.3 * 0.5
    told = {"carrier_hz": 5e9, "phone_height_m": 2.0}
    assert umi(distance_m, True, **told) == pytest.approx(seen, abs=1e-9)
    assert umi(distance_m, False, **told) == pytest.approx(max(seen, hidden), abs=1e-9)


@pytest.mark.parametrize("distance_m", [20.0, 500.0, 4000.0])
def test_the_country_loses_what_the_report_says(distance_m):
    """700 MHz, 35 m and 1.5 m, houses of 5 m, streets of 20 m; break point 2 pi 35 x 1.5 x 0.7e9 / c = 770 m."""
    lg = math.log10
    d, b = math.dist((distance_m, 35.0), (0.0, 1.5)), 2 * math.pi * 35 * 1.5 * 0.7e9 / C
    at = min(d, b) if distance_m > b else d
    seen = 20 * lg(40 * math.pi * at * 0.7 / 3) + 0.03 * 5**1.72 * lg(at) - 0.044 * 5**1.72 + 0.002 * lg(5) * at
    seen += 40 * lg(d / b) if distance_m > b else 0.0
    hidden = 161.04 - 7.1 * lg(20) + 7.5 * lg(5) - (24.37 - 3.7 * (5 / 35) ** 2) * lg(35)
    hidden += (43.42 - 3.1 * lg(35)) * (lg(d) - 3) + 20 * lg(0.7) - (3.2 * lg(11.75 * 1.5) ** 2 - 4.97)
    assert rma(distance_m, True, carrier_hz=0.7e9) == pytest.approx(seen, abs=1e-9)
    assert rma(distance_m, False, carrier_hz=0.7e9) == pytest.approx(max(seen, hidden), abs=1e-9)


@pytest.mark.parametrize("model", PATH_LOSS)
def test_loss_grows_with_distance_and_is_no_less_out_of_sight(model):
    distance_m = np.geomspace(10, 5000, 500)
    seen, hidden = (PATH_LOSS[model](distance_m, sight, carrier_hz=3.5e9) for sight in (True, False))
    assert (np.diff(seen) > 0).all()
    assert (np.diff(hidden) > 0).all()
    assert (hidden >= seen).all()
    mixed = PATH_LOSS[model](distance_m, distance_m < 100, carrier_hz=3.5e9)
    np.testing.assert_array_equal(mixed, np.where(distance_m < 100, seen, hidden))


@pytest.mark.parametrize("model", PATH_LOSS)
@pytest.mark.parametrize(
    ("distance_m", "changes", "message"),
    [
        (9.0, {}, "distance_m"),
        (5001.0, {}, "distance_m"),
        (math.nan, {}, "distance_m"),
        (100.0, {"carrier_hz": 4e8}, "carrier_hz"),
        (100.0, {"carrier_hz": 2e11}, "carrier_hz"),
        (100.0, {"phone_height_m": 14.0}, "phone_height_m"),
        (100.0, {"base_station_height_m": 1.0}, "base_station_height_m"),
    ],
)
def test_what_the_report_does_not_give_is_refused(model, distance_m, changes, message):
    with pytest.raises(ValueError, match=message):
        PATH_LOSS[model](distance_m, True, **{"carrier_hz": 3.5e9, **changes})


@pytest.mark.parametrize(
    ("model", "distance_m", "probability"),
    [
        ("uma", 18.0, 1.0),
        ("uma", 100.0, 0.18 + math.exp(-100 / 63) * 0.82),
        ("umi", 5.0, 1.0),
        ("umi", 100.0, 0.18 + math.exp(-100 / 36) * 0.82),
        ("rma", 10.0, 1.0),
        ("rma", 1010.0, math.exp(-1)),
    ],
)
def test_a_phone_sees_the_base_station_as_often_as_the_report_says(model, distance_m, probability):
    assert sight_probability(model, distance_m) == pytest.approx(probability, abs=1e-12)


def test_shadowing_is_as_wide_as_the_report_says():
    def sd(model, distance_m, sight):
        return shadowing_sd_db(model, distance_m, sight, carrier_hz=0.7e9).tolist()

    assert [sd("uma", 100.0, sight) for sight in (True, False)] == [4.0, 6.0]
    assert [sd("umi", 100.0, sight) for sight in (True, False)] == [4.0, 7.82]
    assert sd("rma", [700.0, 800.0, 700.0], [True, True, False]) == [4.0, 6.0, 8.0]  # the break point is at 770 m


# A drop ----------------------------------------------------------------------------------------------------------


def test_phones_lie_evenly_over_the_disc_outside_the_nearest_circle():
    """(r^2 - r0^2) / (R^2 - r0^2) is uniform, and so is the direction."""
    drop = drop_phones(stream(1, "disc"), COUNT, radius_m=300.0, min_distance_m=50.0)
    assert kstest((drop.distance_m**2 - 50**2) / (300**2 - 50**2), "uniform").pvalue > 1e-3
    assert kstest(np.arctan2(drop.y_m, drop.x_m) / (2 * math.pi) + 0.5, "uniform").pvalue > 1e-3
    assert drop.distance_m.min() >= 50.0


def test_phones_lie_evenly_over_the_hexagon():
    """A circle within it holds its share of the area, any twelfth of the turn a twelfth of the phones."""
    drop = drop_phones(stream(1, "hexagon"), COUNT, shape="hexagon", radius_m=300.0, min_distance_m=10.0)
    area = 1.5 * math.sqrt(3) * 300**2 - math.pi * 10**2
    for inner_m in (100.0, 259.0):
        assert agrees(math.pi * (inner_m**2 - 10**2) / area, drop.distance_m < inner_m, within=0.2)
    turn = np.degrees(np.arctan2(drop.y_m, drop.x_m)) % 360
    for first in (0, 30, 90, 330):
        assert agrees(1 / 12, (turn >= first) & (turn < first + 30), within=0.2)
    # Inside all six sides: the distance of a side from the centre is R sqrt(3)/2.
    for side in np.radians([30, 90, 150, 210, 270, 330]):
        assert (drop.x_m * math.cos(side) + drop.y_m * math.sin(side)).max() <= 300 * math.sqrt(0.75) + 1e-9


def test_sight_and_shadowing_are_drawn_by_their_laws():
    drop = drop_phones(stream(1, "drawn"), COUNT, model="umi", radius_m=200.0, min_distance_m=10.0)
    surplus = drop.line_of_sight - sight_probability("umi", drop.distance_m)
    assert abs(surplus.mean()) < 4 * surplus.std() / math.sqrt(COUNT)
    for sight, sd in ((True, 4.0), (False, 7.82)):
        shadow = drop.shadowing_db[drop.line_of_sight == sight]
        assert kstest(shadow / sd, "norm").pvalue > 1e-3
    path_db = umi(drop.distance_m, drop.line_of_sight, carrier_hz=3.5e9)
    np.testing.assert_allclose(drop.loss_db, path_db + drop.shadowing_db, rtol=1e-12)


def test_without_shadowing_and_with_sight_given_the_same_phones_stand_in_the_same_places():
    drawn = drop_phones(stream(1, "same"), 50)
    hidden = drop_phones(stream(1, "same"), 50, sight="never", shadowing=False)
    np.testing.assert_array_equal(drawn.x_m, hidden.x_m)
    assert not hidden.line_of_sight.any()
    np.testing.assert_array_equal(hidden.loss_db, uma(hidden.distance_m, False, carrier_hz=3.5e9))


@pytest.mark.parametrize(
    ("name", "value", "known"),
    [
        ("model", "indoor", "uma, umi, rma"),
        ("shape", "square", "disc, hexagon"),
        ("sight", "clear", "drawn, always, never"),
    ],
)
def test_a_drop_by_an_unknown_word_is_refused_with_those_that_are_known(name, value, known):
    with pytest.raises(ValueError, match=f"{name} = '{value}': must be one of {known}"):
        drop_phones(stream(1, "unknown"), 10, **{name: value})


def test_sight_and_shadowing_of_an_unknown_model_are_refused():
    with pytest.raises(ValueError, match="model = 'indoor': must be one of uma, umi, rma"):
        sight_probability("indoor", 100.0)
    with pytest.raises(ValueError, match="model = 'indoor': must be one of uma, umi, rma"):
        shadowing_sd_db("indoor", 100.0, True, carrier_hz=1e9)


@pytest.mark.parametrize("changes", [{"min_distance_m": 9.0}, {"min_distance_m": 250.0}, {"radius_m": 6000.0}])
def test_a_cell_out_of_the_models_range_is_refused(changes):
    with pytest.raises(ValueError, match="distance_m"):
        drop_phones(stream(1, "refused"), 1000, **changes)


# Power and SNR ---------------------------------------------------------------------------------------------------


def test_the_link_budget_by_hand():
    """120 dB, 8 dBi, 23 dBm: -89 dBm arrive. 10 MHz of noise, figure 5 dB: -99 dBm. Less 3 dB of margin: 7 dB."""
    assert uplink_snr_db(120.0, bandwidth_hz=10e6, interference_margin_db=3.0) == pytest.approx(7.0)
    assert uplink_snr_db(100.0, bandwidth_hz=10e6, extra_loss_db=20.0, phone_gain_dbi=-2.0) == pytest.approx(8.0)


def test_half_the_band_is_3_db_more_snr_at_full_power():
    half, whole = (uplink_snr_db(120.0, bandwidth_hz=band_hz) for band_hz in (5e6, 10e6))
    assert half - whole == pytest.approx(10 * math.log10(2))


def test_power_control_makes_up_for_alpha_of_the_loss_until_the_limit():
    """100 blocks of 30 kHz spacing (36 MHz): P0 + 10 lg(2 x 100) + 0.8 L, at most 23 dBm."""
    loss_db = np.array([80.0, 100.0, 120.0, 140.0])
    power_dbm = transmit_power_dbm(loss_db, bandwidth_hz=100 * 12 * 30e3, p0_dbm=-90.0, alpha=0.8)
    asked = -90 + 10 * math.log10(2 * 100) + 0.8 * loss_db
    np.testing.assert_allclose(power_dbm, np.minimum(asked, 23.0))
    assert (asked > 23.0).tolist() == [False, False, True, True]
    np.testing.assert_array_equal(transmit_power_dbm(loss_db, bandwidth_hz=1e6), 23.0)


def test_full_compensation_gives_every_phone_that_can_reach_it_one_snr():
    """alpha = 1: P0 arrives in each block of 180 kHz, so SNR = P0 - (-174 + 10 lg(180e3) + 5)."""
    snr_db = uplink_snr_db([90.0, 100.0, 110.0, 150.0], bandwidth_hz=18e6, p0_dbm=-105.0, alpha=1.0)
    np.testing.assert_allclose(snr_db[:3], -105 + 174 - 10 * math.log10(180e3) - 5)
    assert snr_db[3] == pytest.approx(23 - 142 + 174 - 10 * math.log10(18e6) - 5)
