"""Link rate: how many bits per second a hertz carries at an SNR."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import exp1, hyperu

LN_2 = math.log(2.0)


def db_to_linear(value_db: ArrayLike) -> NDArray[np.float64]:
    """Return 10^(x/10)."""
    return np.asarray(10.0 ** (np.asarray(value_db, dtype=np.float64) / 10.0))


def linear_to_db(value: ArrayLike) -> NDArray[np.float64]:
    """Return 10 log10(x)."""
    return np.asarray(10.0 * np.log10(np.asarray(value, dtype=np.float64)))


def spectral_efficiency(
    snr: ArrayLike, *, min_snr: float = 0.0, snr_gap: float = 1.0, max_spectral_efficiency: float = np.inf
) -> NDArray[np.float64]:
    """Return the rate per hertz [bit/s/Hz] at a linear SNR, elementwise.

    min(log2(1 + SNR / gap), cap), and zero below `min_snr` (outage). With gap 1 and no cap it is Shannon's capacity of
    the AWGN channel. The gap stands for finite blocks and real modulation, the cap for the highest modulation and
    coding; both act on the SNR in the band that is used. Left out: block errors and retransmissions.
    """
    ratio = np.asarray(snr, dtype=np.float64)
    rate = np.minimum(np.log1p(ratio if snr_gap == 1.0 else ratio / snr_gap) / LN_2, max_spectral_efficiency)
    floor = min_snr * (1.0 - 1e-12)  # an SNR given in dB as the floor itself may miss it by a rounding error
    if ratio.size and ratio.item(ratio.argmin()) < floor:  # looking first is cheaper than masking always
        rate = rate * (ratio >= floor)
    return np.asarray(rate)


@dataclass(frozen=True)
class RateLaw:
    """The law between SNR and rate in a whole band: its width [Hz], and what `spectral_efficiency` takes."""

    bandwidth_hz: float
    min_snr: float = 0.0
    snr_gap: float = 1.0
    max_spectral_efficiency: float = math.inf

    def snr(self, rate_bit_per_s: ArrayLike) -> NDArray[np.float64]:
        """Return the linear SNR at which the whole band has a rate, elementwise: gap (2^(rate / bandwidth) - 1).

        Raises ValueError for a rate that the law never gives: below 0, above the cap, or more than 0 under `min_snr`.
        """
        rate = np.asarray(rate_bit_per_s, dtype=np.float64)
        most = self.max_spectral_efficiency * self.bandwidth_hz
        least = math.log1p(self.min_snr / self.snr_gap) / LN_2 * self.bandwidth_hz
        is_given = (rate == 0.0) | ((rate >= least * (1.0 - 1e-12)) & (rate <= most * (1.0 + 1e-12)))
        if not is_given.all():
            raise ValueError(
                f"{rate[~is_given].flat[0] / 1e6:.6g} Mbit/s: {self.bandwidth_hz / 1e6:g} MHz carry 0, or "
                f"{least / 1e6:.6g} Mbit/s at the least SNR to {most / 1e6:.6g} Mbit/s at the cap"
            )
        return np.asarray(self.snr_gap * np.expm1(rate / self.bandwidth_hz * LN_2))


def ergodic_spectral_efficiency(mean_snr: float) -> float:
    """Return E[log2(1 + SNR)] [bit/s/Hz] under Rayleigh fading, without gap, floor or cap.

    exp(1/g) E1(1/g) / ln 2 at mean SNR g (Lee, Estimate of channel capacity in Rayleigh fading, 1990). Left out:
    transmitters that know the SNR and save their power for when it is good. Raises ValueError for g not above 0.
    """
    if not mean_snr > 0.0:
        raise ValueError(f"mean_snr = {mean_snr:g}: must be greater than 0")
    x = 1.0 / mean_snr
    # exp(x) overflows from 710 on. U(1, 1, x) is the product as a whole, but true to 1e-9 only around x = 10.
    scaled = np.exp(x) * exp1(x) if x < 100.0 else hyperu(1.0, 1.0, x)
    return float(scaled / LN_2)
