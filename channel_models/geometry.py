"""From places in a cell to mean SNR: a drop of phones, their path loss and shadowing, and the power they send with.

Decibels throughout: losses and SNR in dB, powers in dBm, antenna gains in dBi.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from channel_models.path_loss import BASE_STATION_HEIGHT_M, PATH_LOSS, check_one_of, shadowing_sd_db, sight_probability

Floats = NDArray[np.float64]
NOISE_DBM_PER_HZ = -174.0  # k T at 290 K
SHAPES, SIGHTS = ("disc", "hexagon"), ("drawn", "always", "never")
LEAST_SHARE = 0.02  # of a cell's area outside `min_distance_m`, where places are drawn until they hit
RESOURCE_BLOCK_HZ = 180e3  # 12 subcarriers of 15 kHz; 2^mu of them are a block at numerology mu


@dataclass(frozen=True)
class Drop:
    """Phones in a cell whose base station stands at (0, 0): one entry per phone in every array."""

    x_m: Floats
    y_m: Floats
    line_of_sight: NDArray[np.bool_]
    path_loss_db: Floats
    shadowing_db: Floats  # positive: more loss

    @property
    def distance_m(self) -> Floats:
        """Distance from the base station along the ground."""
        return np.hypot(self.x_m, self.y_m)

    @property
    def loss_db(self) -> Floats:
        """Path loss and shadowing."""
        return self.path_loss_db + self.shadowing_db


def drop_phones(
    rng: np.random.Generator,
    count: int,
    *,
    model: str = "uma",
    radius_m: float = 250.0,
    min_distance_m: float = 35.0,
    shape: Literal["disc", "hexagon"] = "disc",
    carrier_hz: float = 3.5e9,
    base_station_height_m: float | None = None,
    phone_height_m: float = 1.5,
    sight: Literal["drawn", "always", "never"] = "drawn",
    shadowing: bool = True,
) -> Drop:
    """Drop phones uniformly over a cell, and draw which see the base station and what shadows them.

    Density of places 1 / area over a disc of `radius_m`, or a hexagon whose corners are that far, but none nearer than
    `min_distance_m`; P(line of sight) = `sight_probability`, shadowing ~ N(0, sd^2) in dB with `shadowing_sd_db` (3GPP
    TR 38.901, 2022, sections 7.2 and 7.4). Independent for each phone. Left out: hot spots, indoor phones, shadowing
    that near phones share, movement: `sight` and shadowing hold for the whole run. Raises ValueError for a cell out
    of the model's range, and for an unknown model, shape or sight.
    """
    for name, value, allowed in (("model", model, PATH_LOSS), ("shape", shape, SHAPES), ("sight", sight, SIGHTS)):
        check_one_of(name, value, allowed)
    if not 10.0 <= min_distance_m < radius_m * (1.0 if shape == "disc" else np.sqrt(0.75)):
        raise ValueError(f"min_distance_m = {min_distance_m:g}: must be at least 10, and within the cell")
    area = np.pi if shape == "disc" else 1.5 * np.sqrt(3.0)  # of a cell of radius 1
    if 1.0 - np.pi / area * (min_distance_m / radius_m) ** 2 < LEAST_SHARE:
        raise ValueError(f"min_distance_m = {min_distance_m:g}: leaves less than {LEAST_SHARE:.0%} of the cell's area")
    x_m, y_m = _places(rng, count, radius_m, shape)
    while (near := np.hypot(x_m, y_m) < min_distance_m).any():
        x_m[near], y_m[near] = _places(rng, int(near.sum()), radius_m, shape)
    distance_m = np.hypot(x_m, y_m)
    seen = rng.random(count) < sight_probability(model, distance_m)
    in_sight = seen if sight == "drawn" else np.full(count, sight == "always")
    station_m = BASE_STATION_HEIGHT_M[model] if base_station_height_m is None else base_station_height_m
    options = {"carrier_hz": carrier_hz, "base_station_height_m": station_m, "phone_height_m": phone_height_m}
    shadow_db = rng.standard_normal(count) * shadowing_sd_db(model, distance_m, in_sight, **options)
    return Drop(
        x_m,
        y_m,
        in_sight,
        path_loss_db=PATH_LOSS[model](distance_m, in_sight, **options),
        shadowing_db=shadow_db if shadowing else np.zeros(count),
    )


def _places(rng: np.random.Generator, count: int, radius_m: float, shape: str) -> tuple[Floats, Floats]:
    u, v = rng.random((2, count))
    if shape == "disc":
        far_m, angle = radius_m * np.sqrt(u), 2.0 * np.pi * v
        return far_m * np.cos(angle), far_m * np.sin(angle)
    # One of six triangles, and a place in it: a corner of the unit square is folded back.
    triangle = np.floor(6.0 * u)
    u = 6.0 * u - triangle
    folded = u + v > 1.0
    u, v = np.where(folded, 1.0 - u, u), np.where(folded, 1.0 - v, v)
    first, second = np.pi / 3.0 * triangle, np.pi / 3.0 * (triangle + 1.0)
    return radius_m * (u * np.cos(first) + v * np.cos(second)), radius_m * (u * np.sin(first) + v * np.sin(second))


def transmit_power_dbm(
    loss_db: ArrayLike,
    *,
    bandwidth_hz: float,
    max_power_dbm: float = 23.0,
    p0_dbm: float | None = None,
    alpha: float = 1.0,
) -> Floats:
    """Return the power [dBm] of phones under open-loop power control.

    P = min(Pmax, P0 + 10 lg(2^mu M) + alpha L), where 2^mu M = bandwidth / 180 kHz for M resource blocks at numerology
    mu, and L is the loss between the antennas' ports, gains included, as a phone measures it (3GPP TS 38.213, 2020,
    section 7.1.1). `p0_dbm` None: Pmax. Left out: closed-loop corrections, modulation offsets, a least power.
    """
    loss = np.asarray(loss_db, dtype=np.float64)
    if p0_dbm is None:
        return np.full(loss.shape, max_power_dbm)
    power_dbm = p0_dbm + 10.0 * np.log10(bandwidth_hz / RESOURCE_BLOCK_HZ) + alpha * loss
    return np.asarray(np.minimum(max_power_dbm, power_dbm))


def uplink_snr_db(
    loss_db: ArrayLike,
    *,
    bandwidth_hz: float,
    base_station_gain_dbi: float = 8.0,
    phone_gain_dbi: float = 0.0,
    extra_loss_db: float = 0.0,
    noise_figure_db: float = 5.0,
    interference_margin_db: float = 0.0,
    max_power_dbm: float = 23.0,
    p0_dbm: float | None = None,
    alpha: float = 1.0,
) -> Floats:
    """Return the mean SNR [dB] at the base station when a phone uses the whole band.

    SNR = P - L - (-174 + 10 lg(bandwidth) + noise figure) - interference margin, L = loss + `extra_loss_db` (body, car,
    wall) - both antennas' gains, P = `transmit_power_dbm` at that L (a link budget: 3GPP TR 38.901, 2022; Rappaport,
    Wireless Communications, 2002, chapter 4). The margin is the rise of other cells' interference over the noise, the
    same for all. Left out: antenna patterns (the gain is that towards every phone), interference that comes and goes.
    """
    coupling_db = np.asarray(loss_db, dtype=np.float64) + extra_loss_db - base_station_gain_dbi - phone_gain_dbi
    power_dbm = transmit_power_dbm(
        coupling_db, bandwidth_hz=bandwidth_hz, max_power_dbm=max_power_dbm, p0_dbm=p0_dbm, alpha=alpha
    )
    noise_dbm = NOISE_DBM_PER_HZ + 10.0 * np.log10(bandwidth_hz) + noise_figure_db
    return np.asarray(power_dbm - coupling_db - noise_dbm - interference_margin_db)
