"""How many digits a number and a ratio are shown with, and in which unit a swept value is told."""

import math

import pytest

from uhlm_sim.analysis.digits import in_words
from uhlm_sim.analysis.digits import number as shown
from uhlm_sim.analysis.digits import ratio as shown_ratio


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        ((104.83, 102.73, 106.93), ("104.8", "± 2.1")),
        ((0.052, 0.052, 0.052), ("0.05200", "± 0")),
        ((393216.0, 392216.0, 394216.0), ("393,216", "± 1,000")),
        ((0.1286, 0.1286 - 4e-7, 0.1286 + 4e-7), ("0.1286", "± 4e-07")),
        ((2.5e-5, 2.4e-5, 2.6e-5), ("2.5e−05", "± 1e−06")),
        ((-0.031, -0.041, -0.021), ("−0.031", "± 0.010")),
        ((0.0, 0.0, 0.0), ("0", "")),
        ((3.14159, math.nan, math.nan), ("≈3.1", "")),
        ((1234.5, math.nan, math.nan), ("≈1,200", "")),
        ((-2.345e-5, math.nan, math.nan), ("≈−2.3e−05", "")),
        ((math.nan, math.nan, math.nan), ("–", "")),
    ],
)
def test_a_number_has_the_digits_that_its_interval_gives(estimate, text):
    assert shown(*estimate) == text


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        ((1.4132, 1.3871, 1.4393), ("1.413", "1.387 to 1.439")),
        ((1.0, 1.0, 1.0), ("1", "")),
        ((1.05, 0.683, 5.48), ("1.1", "0.7 to 5.5")),
        ((1.9, 0.9, 3.0), ("1.9", "0.9 to 3.0")),
        ((2.0, -0.04, 4.0), ("2.0", "0.0 to 4.0")),
        ((0.9222, math.nan, math.nan), ("≈0.92", "no interval")),
        ((math.nan, math.nan, math.nan), ("–", "")),
    ],
)
def test_a_ratio_has_both_ends_of_its_interval(estimate, text):
    assert shown_ratio(*estimate) == text


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("channel.geometry.radius_m", 500.0, "500 m"),
        ("device.transmit_power_dbm", 23.0, "23 dBm"),
        ("device.power_w", 4.5, "4.5 W"),
        ("base_station.service.peak_flop_per_s", 312e12, "312 TFLOP/s"),
        ("base_station.service.memory_byte_per_s", 2039e9, "2039 GB/s"),
        ("base_station.kv_bytes", 16e9, "16 GB"),
        ("base_station.service.s_s_per_context", 1e-9, "s_s_per_context 1e−09"),
        ("uplink.bandwidth_hz", 20e6, "20 MHz"),
        ("traffic.rate_per_s", 1.0, "1 request/s"),
        ("base_station.gpus", 1, "1 GPU"),
    ],
)
def test_a_swept_value_is_told_in_the_unit_that_its_key_ends_with(key: str, value: float, words: str) -> None:
    assert in_words(key, [value]) == words
