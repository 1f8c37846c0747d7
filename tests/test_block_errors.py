"""When a block of bits fails: the formula, its thresholds and the table of modulation and coding."""

import math

import numpy as np
import pytest
from scipy.special import erfc

from channel_models import MCS_EFFICIENCY, best_mcs, block_error, mcs_thresholds, snr_threshold
from uhlm_sim.cell.radio import adaptive_uplink as adaptive


@pytest.mark.parametrize(
    ("mcs", "bits", "snr", "gap_db"),
    [(5, 100, 0.8, 1.1), (5, 500, 0.7, 0.8), (12, 500, 3.1, 1.2), (12, 2000, 3.0, 1.0), (20, 2000, 18.7, 1.7)],
)
def test_a_block_fails_as_the_normal_approximation_says(mcs, bits, snr, gap_db):
    bits_a_symbol, rate_1024 = {5: (2, 379), 12: (4, 434), 20: (6, 616)}[mcs]
    g, rate = snr / 10 ** (gap_db / 10), bits_a_symbol * rate_1024 / 1024
    n = bits / rate
    dispersion = (1 - (1 + g) ** -2) * math.log2(math.e) ** 2
    x = (math.log2(1 + g) - rate + math.log2(n) / (2 * n)) * math.sqrt(n / dispersion)
    assert block_error(mcs, bits, snr) == pytest.approx(0.5 * erfc(x / math.sqrt(2)), rel=1e-9)
    assert 1e-3 < block_error(mcs, bits, snr) < 1 - 1e-3  # where it tells


def test_a_long_block_is_cut_and_fails_if_a_part_does():
    """10,000 bits are two code blocks of 5,000."""
    snr = snr_threshold(10, 5000.0, 0.1)
    assert block_error(10, 5000.0, snr) == pytest.approx(0.1, rel=1e-6)
    assert block_error(10, 10_000.0, snr) == pytest.approx(1 - 0.9**2, rel=1e-6)
    assert block_error(10, 8448.0, snr) < block_error(10, 8449.0, snr)  # two of half the size


def test_a_threshold_is_where_the_error_meets_its_target_and_rises_with_the_mcs():
    thresholds = mcs_thresholds([50.0, 3000.0, 1e5], 0.1)
    uses = np.array([50.0, 3000.0, 1e5])[:, np.newaxis]
    np.testing.assert_allclose(block_error(np.arange(28), uses * MCS_EFFICIENCY, thresholds), 0.1, rtol=1e-6)
    assert (np.diff(thresholds, axis=1) > 0).all()
    assert best_mcs(thresholds[1] * (1 + 1e-6), thresholds[1]).tolist() == list(range(28))
    assert best_mcs(thresholds[1] * (1 - 1e-6), thresholds[1]).tolist() == list(range(-1, 27))
    with pytest.raises(ValueError, match="target_error = 1: must be between 0 and 1"):
        snr_threshold(3, 100.0, 1.0)


@pytest.mark.parametrize("mcs", [-1, 28, [3, -1, 27], [0, 28]])
def test_a_block_has_an_mcs_of_the_table(mcs):
    """-1, as `best_mcs` says below all, isn't the last of the list."""
    wrong = -1 if np.min(mcs) < 0 else 28
    with pytest.raises(ValueError, match=f"mcs = {wrong}: must be from 0 to 27"):
        block_error(mcs, 1000.0, 10.0)
    assert block_error(np.empty(0, dtype=int), np.empty(0), np.empty(0)).size == 0


def test_no_error_without_noise_none_but_errors_without_a_signal():
    assert block_error(np.arange(28), 1000.0, 1e9).tolist() == [0.0] * 28
    assert block_error(np.arange(28), 1000.0, 0.0).tolist() == [1.0] * 28


def test_the_table_is_the_standards_in_order_of_its_efficiency():
    """TS 38.214, table 6.1.4.1-1: 28 entries from 0.2344 to 5.5547 bit a symbol."""
    assert len(MCS_EFFICIENCY) == 28
    assert MCS_EFFICIENCY[[0, 2, 10, 17, 27]] == pytest.approx([0.2344, 0.3770, 1.3281, 2.7305, 5.5547], abs=5e-5)
    assert (np.diff(MCS_EFFICIENCY) > 0).all()


def test_thresholds_kept_by_size_are_right_to_a_twentieth_of_a_decibel_between_cuts():
    table = adaptive.threshold_table(16 * 11, 0.1)
    uses = np.geomspace(50.0, 1500.0, 40)
    rows = np.rint(16 * np.log2(uses)).astype(int)
    apart_db = 10 * np.log10(table[rows] / mcs_thresholds(uses, 0.1))
    assert np.abs(apart_db).max() < 0.05
