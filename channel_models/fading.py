"""Small-scale fading: how a device's power gain moves from one coherence block to the next.

A fading model is a function that yields, for one device, the power gains of consecutive coherence blocks in runs of
`size`. The mean gain is one, so that the mean SNR stays where the scenario put it. A model keeps what correlates its
blocks in its own local variables; the run length must not change the sequence. Gains have no unit.

A model's parameters follow `rng` and `size`. The simulator fills in what it knows itself: `block_s`, the length of a
block, `device`, the number of the device, and `carrier_hz`, where the phones' path loss has a carrier.
"""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Gains = NDArray[np.float64]

SPEED_OF_LIGHT_M_PER_S = 299_792_458.0
SINUSOIDS = 127  # odd, so that no two differences of their frequencies are the same
STRETCH = 16  # blocks that jakes computes together


class FadingModel(Protocol):
    """Yields runs of `size` consecutive power gains of one device, drawn from its own `rng`."""

    def __call__(self, rng: np.random.Generator, size: int) -> Iterator[Gains]: ...


def constant(rng: np.random.Generator, size: int) -> Iterator[Gains]:  # noqa: ARG001  a model takes its stream
    """Yield gains of one: no fading.

    gain = 1: the additive white Gaussian noise channel (Shannon, Communication in the presence of noise, 1949).
    Autocorrelation of the power: 1 at every lag, with no variance. Outage: P(gain < x) = 0 for x <= 1, else 1.
    Left out: all fading.
    """
    while True:
        yield np.ones(size)


def rayleigh(rng: np.random.Generator, size: int) -> Iterator[Gains]:
    """Yield independent exponential power gains, one per coherence block (Rayleigh amplitude).

    gain = |h|^2 for a circular complex Gaussian h of unit variance: no line of sight, many scattered paths (Tse and
    Viswanath, Fundamentals of Wireless Communication, 2005, section 2.4). Autocovariance of the power: 1 at lag 0, else
    0. Outage: P(gain < x) = 1 - exp(-x). Left out: correlation between blocks, see `jakes`.
    """
    while True:
        yield rng.standard_exponential(size)


def rician(rng: np.random.Generator, size: int, *, k_factor_db: float = 6.0) -> Iterator[Gains]:
    """Yield independent Rician power gains: one steady path, of power K times that of all scattered ones together.

    gain = ((sqrt(2 K) + a)^2 + b^2) / (2 (1 + K)), a and b standard normal, K = 10^(k_factor_db/10) (Rice, Statistical
    properties of a sine wave plus random noise, 1948; Simon and Alouini, Digital Communication over Fading Channels,
    2005, chapter 2). Autocovariance of the power: (1 + 2 K) / (1 + K)^2 at lag 0, else 0. Outage: P(gain < x) =
    1 - Q1(sqrt(2 K), sqrt(2 (1 + K) x)), Q1 the Marcum function. K = 0 is Rayleigh, K without end no fading. Left out:
    correlation between blocks, and the Doppler shift of the steady path. Raises ValueError beyond 100 dB.
    """
    if not abs(k_factor_db) <= 100.0:
        raise ValueError(f"k_factor_db = {k_factor_db:g}: must be from -100 to 100")
    k_factor = 10.0 ** (k_factor_db / 10.0)
    while True:
        scattered = rng.standard_normal((size, 2))
        scattered[:, 0] += np.sqrt(2.0 * k_factor)
        yield np.square(scattered).sum(axis=1) / (2.0 * (1.0 + k_factor))


def nakagami(rng: np.random.Generator, size: int, *, shape: float = 2.0) -> Iterator[Gains]:
    """Yield independent gamma power gains: Nakagami amplitude with m = `shape`, at least 0.5.

    gain ~ Gamma(m, 1/m): density m^m x^(m-1) exp(-m x) / Gamma(m) (Nakagami, The m-distribution, a general formula of
    intensity distribution of rapid fading, 1960). Autocovariance of the power: 1/m at lag 0, else 0. Outage:
    P(gain < x) = P(m, m x), the regularised lower incomplete gamma function. m = 1 is Rayleigh; a whole m is also the
    maximum ratio combining of m Rayleigh branches; m = 0.5 is the deepest fading. Left out: correlation between blocks.
    Raises ValueError for a smaller m.
    """
    if not shape >= 0.5:
        raise ValueError(f"shape = {shape:g}: must be at least 0.5")
    while True:
        yield rng.standard_gamma(shape, size) / shape


def jakes(
    rng: np.random.Generator,
    size: int,
    *,
    block_s: float,
    speed_m_per_s: float = 1.0,
    carrier_hz: float = 3.5e9,
) -> Iterator[Gains]:
    """Yield the power of a Rayleigh process that moves as fast as its device, sampled at the start of every block.

    h(t) = N^-1/2 sum_n exp(j (2 pi fD t cos(alpha_n) + phi_n)), gain = |h(k block_s)|^2, fD = speed x carrier / c the
    Doppler frequency, alpha_n = (2 pi n + theta) / N, theta and all phi_n uniform on a circle, N = 127 (Clarke 1968;
    Jakes, Microwave Mobile Communications, 1974; random phases as in Zheng and Xiao, Simulation models with correct
    statistical properties for Rayleigh fading channels, 2003, and Xiao, Zheng and Beaulieu, Novel sum-of-sinusoids
    simulation models for Rayleigh and Rician fading channels, 2006).

    Autocorrelation: J0(2 pi fD tau) of h; autocovariance of the power: J0(2 pi fD tau)^2 - 1/N. Outage: P(gain < x) =
    1 - exp(-x), deep fades rarer by 1/(2 N), 0.4 %, as N is finite. With r^2 = x, the gain crosses x upwards
    sqrt(2 pi) fD r exp(-r^2) times a second and a fade below x lasts (exp(r^2) - 1) / (r fD sqrt(2 pi)) s, where
    blocks are much shorter than that.

    Why sinusoids: they know no block length. A device may move by a thousandth of a wavelength in a block, or by ten,
    with no order to choose and no past to warm up, unlike autoregressive filters and spectral methods. Why an even fan
    of angles, turned by chance: averaged over time, every single realisation has power one and J0 to 1e-6 up to
    2 pi fD tau = 102, 16 wavelengths of movement; angles drawn independently would miss J0 by 1/sqrt(N) = 0.09 at any
    lag. Beyond that distance one realisation errs by as much, and J0 holds on average over devices.

    Left out: movement within a block, the line of sight, delay spread, a device that turns or stops. Raises ValueError
    for a block or a carrier of 0 or less, a negative speed (at 0 the gain stays), and what is not finite.
    """
    for field in jakes_field(rng, size, block_s=block_s, speed_m_per_s=speed_m_per_s, carrier_hz=carrier_hz):
        yield np.square(np.abs(field))


def jakes_field(
    rng: np.random.Generator, size: int, *, block_s: float, speed_m_per_s: float, carrier_hz: float
) -> Iterator[NDArray[np.complex128]]:
    """Yield the complex gains h whose power `jakes` yields, in runs of `size`. Raises ValueError where that does."""
    for name, value in (("block_s", block_s), ("carrier_hz", carrier_hz)):
        if not 0.0 < value < np.inf:
            raise ValueError(f"{name} = {value:g}: must be greater than 0, and finite")
    if not 0.0 <= speed_m_per_s < np.inf:
        raise ValueError(f"speed_m_per_s = {speed_m_per_s:g}: must be 0 or greater, and finite")
    doppler_hz = speed_m_per_s * carrier_hz / SPEED_OF_LIGHT_M_PER_S
    turn, phases = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(0.0, 2.0 * np.pi, SINUSOIDS)
    angles = (2.0 * np.pi * np.arange(SINUSOIDS) + turn) / SINUSOIDS
    cycles = doppler_hz * block_s * np.cos(angles)  # of each sinusoid in one block
    within = np.exp(2j * np.pi * np.outer(np.arange(STRETCH), cycles)) / np.sqrt(SINUSOIDS)
    begun, onwards = np.exp(1j * phases), np.exp(2j * np.pi * np.remainder(STRETCH * cycles, 1.0))
    held = np.empty(0, dtype=np.complex128)
    while True:
        pieces, count = [held], len(held)
        while count < size:
            pieces.append((within * begun).sum(axis=1))
            begun = begun * onwards  # rounding turns it by 4e-9 in 10^8 blocks
            count += STRETCH
        field = np.concatenate(pieces)
        yield field[:size]
        held = field[size:]
