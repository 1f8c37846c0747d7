"""Modulation, coding and block errors: what a transport block of an uplink slot carries, and how often it fails.

SNR is a linear ratio. A block's size is in bits, its length in channel uses: one symbol on one hertz for one second.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

# TS 38.214, table 6.1.4.1-1 (uplink with transform precoding, up to 64-QAM): bits a symbol, and code rates x 1024.
_RATES = {
    1: (240, 314),
    2: (193, 251, 308, 379, 449, 526, 602, 679),
    4: (340, 378, 434, 490, 553, 616, 658),
    6: (466, 517, 567, 616, 666, 719, 772, 822, 873, 910, 948),
}
MODULATION_BITS: NDArray[np.int64] = np.array([bits for bits, rates in _RATES.items() for _ in rates])
CODE_RATE: Floats = np.array([rate for rates in _RATES.values() for rate in rates]) / 1024.0
MCS_EFFICIENCY: Floats = MODULATION_BITS * CODE_RATE  # bit a channel use, rising with the index
CODE_BLOCK_BITS = 8448.0  # the largest that base graph 1 of the LDPC code takes (TS 38.212)

_GAP_SIZES_BITS = (100.0, 500.0, 2000.0)
_GAP_DB = np.array([[1.1, 0.8, 0.6], [1.5, 1.2, 1.0], [2.2, 1.9, 1.7]])  # QPSK, 16-QAM, 64-QAM
_GAP_ROW = np.searchsorted([2, 4, 6], MODULATION_BITS)


def block_error(mcs: ArrayLike, block_bits: ArrayLike, snr: ArrayLike) -> Floats:
    """Return the probability that a transport block fails, elementwise: MCS index, size [bit], SNR.

    A block of more than 8,448 bits is cut into the fewest equal code blocks, and fails if one of them does. A code
    block of rate R = `MCS_EFFICIENCY` over n = bits / R channel uses fails with probability
    Q((C - R + log2(n) / (2 n)) sqrt(n / V)), C = log2(1 + g), V = (1 - (1 + g)^-2) (log2 e)^2, the normal approximation
    (Polyanskiy, Poor and Verdu, Channel coding rate in the finite blocklength regime, IEEE Trans. Inf. Theory 2010), at
    g = SNR / gap. The gap stands for real modulation and codes: 0.6 to 2.2 dB by modulation and code block size,
    interpolated over the logarithm of the size and held beyond 100 and 2,000 bits; with it the approximation meets
    public link simulations of 25 MCS to 0.1 to 0.3 dB. For pi/2-BPSK none was measured: it has that of QPSK. Blocks
    that were sent several times and combined (chase combining) have the sum of their SNRs (Chase 1985).

    Left out: filler and check bits, base graph 2, fading within a block, decoders that do worse at low error rates.
    Raises ValueError for an MCS that isn't from 0 to 27, such as the -1 of `best_mcs`.
    """
    index = np.asarray(mcs)
    total_bits = np.asarray(block_bits, dtype=np.float64)
    blocks = np.maximum(np.ceil(total_bits / CODE_BLOCK_BITS), 1.0)
    bits = np.maximum(total_bits / blocks, 1.0)
    g = np.asarray(snr, dtype=np.float64) / snr_gap(index, bits)
    rate = MCS_EFFICIENCY[index]
    uses = bits / rate
    dispersion = np.maximum((1.0 - (1.0 + g) ** -2) * np.log2(np.e) ** 2, 1e-300)
    with np.errstate(over="ignore", divide="ignore"):
        short = ndtr((rate - np.log2(1.0 + g) - np.log2(uses) / (2.0 * uses)) * np.sqrt(uses / dispersion))
        return np.asarray(-np.expm1(blocks * np.log1p(-short)))


def snr_gap(mcs: ArrayLike, code_block_bits: ArrayLike) -> Floats:
    """Return the gap [linear] between the normal approximation and real links, elementwise; see `block_error`.

    Raises ValueError for an MCS that isn't from 0 to 27.
    """
    index = np.asarray(mcs)
    if index.size:
        lowest, highest = index.item(index.argmin()), index.item(index.argmax())  # cheaper than min and max
        if lowest < 0 or highest >= len(MCS_EFFICIENCY):
            raise ValueError(f"mcs = {lowest if lowest < 0 else highest}: must be from 0 to {len(MCS_EFFICIENCY) - 1}")
    place = np.interp(np.log(code_block_bits), np.log(_GAP_SIZES_BITS), np.arange(3.0))
    row, left = _GAP_ROW[index], np.minimum(place, 1.0).astype(np.intp)
    low_db = _GAP_DB[row, left]
    return np.asarray(10.0 ** ((low_db + (place - left) * (_GAP_DB[row, left + 1] - low_db)) / 10.0))


def snr_threshold(mcs: ArrayLike, block_bits: ArrayLike, target_error: float) -> Floats:
    """Return the least SNR at which a block fails with probability `target_error` at most, elementwise, to 1e-9 dB.

    Raises ValueError for a target that isn't within (0, 1), and for an MCS that isn't from 0 to 27.
    """
    if not 0.0 < target_error < 1.0:
        raise ValueError(f"target_error = {target_error:g}: must be between 0 and 1")
    shape = np.broadcast_shapes(np.shape(mcs), np.shape(block_bits))
    low_db, high_db = np.full(shape, -40.0), np.full(shape, 60.0)
    for _ in range(37):  # each halves it
        middle_db = (low_db + high_db) / 2.0
        fails = block_error(mcs, block_bits, 10.0 ** (middle_db / 10.0)) > target_error
        low_db, high_db = np.where(fails, middle_db, low_db), np.where(fails, high_db, middle_db)
    return np.asarray(10.0 ** (high_db / 10.0))


def mcs_thresholds(channel_uses: ArrayLike, target_error: float) -> Floats:
    """Return the `snr_threshold` of every MCS over blocks of a number of channel uses: shape (..., 28)."""
    uses = np.asarray(channel_uses, dtype=np.float64)[..., np.newaxis]
    return snr_threshold(np.arange(len(MCS_EFFICIENCY)), uses * MCS_EFFICIENCY, target_error)


def best_mcs(snr: ArrayLike, thresholds: ArrayLike) -> Indices:
    """Return the highest MCS whose threshold an SNR reaches, -1 below all; thresholds of shape (..., 28).

    The highest that holds a target error, as a phone reports the quality of its channel for an error of 0.1 (TS 38.214,
    section 5.2.2.1). Left out: that another may carry more, once errors and repetitions are counted.
    """
    reached = np.asarray(snr, dtype=np.float64)[..., np.newaxis] >= np.asarray(thresholds)
    return np.asarray(reached.sum(axis=-1) - 1, dtype=np.intp)
