"""Path loss in a cell by 3GPP TR 38.901 (release 17): what distance, height and buildings take from a signal, in dB.

`uma` is urban macro (antennas above the roofs), `umi` urban micro (street canyon), `rma` rural macro. d is the distance
in space [m], f the carrier in GHz, lg the logarithm to base 10, c = 3.0e8 m/s as in the report. Distances that are
arguments are along the ground; they and `line_of_sight` may be arrays. Path loss beyond what the report gives raises
ValueError.

Left out: phones indoors, and higher than 13 m, where the height of their surroundings is random; the models of indoor
cells and factories; the correlation of shadowing between places.
"""

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

LIGHT_M_PER_S = 3.0e8
NEAREST_M, FARTHEST_M = 10.0, 5000.0
SURROUNDINGS_M = 1.0  # effective height of what stands around a phone, for phones up to 13 m
BUILDINGS_M, STREET_M = 5.0, 20.0  # rma: average height of buildings, average width of streets


def uma(
    distance_m: ArrayLike,
    line_of_sight: ArrayLike,
    *,
    carrier_hz: float,
    base_station_height_m: float = 25.0,
    phone_height_m: float = 1.5,
) -> Floats:
    """Return the path loss [dB] of an urban macro cell.

    In sight 28 + 22 lg d + 20 lg f, beyond the break point 28 + 40 lg d + 20 lg f - 9 lg(b^2 + (h_BS - h_UT)^2), with
    b = 4 (h_BS - 1)(h_UT - 1) f / c along the ground. Out of sight 13.54 + 39.08 lg d + 20 lg f - 0.6 (h_UT - 1.5), at
    least the loss in sight (TR 38.901, table 7.4.1-1). Left out: see the module. Raises ValueError beyond 10 m
    to 5 km, 0.5 to 100 GHz, phones of 1 to 13 m, a base station above them of at most 150 m.
    """
    ground_m, d, f = _checked(distance_m, carrier_hz, base_station_height_m, phone_height_m)
    break_m = _break_m(carrier_hz, base_station_height_m, phone_height_m)
    near = 28.0 + 22.0 * np.log10(d) + 20.0 * np.log10(f)
    beyond = 28.0 + 40.0 * np.log10(d) + 20.0 * np.log10(f)
    beyond -= 9.0 * np.log10(break_m**2 + (base_station_height_m - phone_height_m) ** 2)
    hidden = 13.54 + 39.08 * np.log10(d) + 20.0 * np.log10(f) - 0.6 * (phone_height_m - 1.5)
    return _seen_or_hidden(line_of_sight, np.where(ground_m <= break_m, near, beyond), hidden)


def umi(
    distance_m: ArrayLike,
    line_of_sight: ArrayLike,
    *,
    carrier_hz: float,
    base_station_height_m: float = 10.0,
    phone_height_m: float = 1.5,
) -> Floats:
    """Return the path loss [dB] of an urban micro cell in a street canyon.

    In sight 32.4 + 21 lg d + 20 lg f, beyond the break point 32.4 + 40 lg d + 20 lg f - 9.5 lg(b^2 + (h_BS - h_UT)^2),
    with b = 4 (h_BS - 1)(h_UT - 1) f / c along the ground. Out of sight 22.4 + 35.3 lg d + 21.3 lg f -
    0.3 (h_UT - 1.5), at least the loss in sight (TR 38.901, table 7.4.1-1). Left out: see the module. Raises ValueError
    beyond 10 m to 5 km, 0.5 to 100 GHz, phones of 1 to 13 m, a base station above them of at most 150 m.
    """
    ground_m, d, f = _checked(distance_m, carrier_hz, base_station_height_m, phone_height_m)
    break_m = _break_m(carrier_hz, base_station_height_m, phone_height_m)
    near = 32.4 + 21.0 * np.log10(d) + 20.0 * np.log10(f)
    beyond = 32.4 + 40.0 * np.log10(d) + 20.0 * np.log10(f)
    beyond -= 9.5 * np.log10(break_m**2 + (base_station_height_m - phone_height_m) ** 2)
    hidden = 22.4 + 35.3 * np.log10(d) + 21.3 * np.log10(f) - 0.3 * (phone_height_m - 1.5)
    return _seen_or_hidden(line_of_sight, np.where(ground_m <= break_m, near, beyond), hidden)


def rma(
    distance_m: ArrayLike,
    line_of_sight: ArrayLike,
    *,
    carrier_hz: float,
    base_station_height_m: float = 35.0,
    phone_height_m: float = 1.5,
) -> Floats:
    """Return the path loss [dB] of a rural macro cell, buildings h = 5 m high and streets W = 20 m wide.

    In sight L(d) = 20 lg(40 pi d f / 3) + min(0.03 h^1.72, 10) lg d - min(0.044 h^1.72, 14.77) + 0.002 lg(h) d, beyond
    the break point L(b) + 40 lg(d / b), with b = 2 pi h_BS h_UT f / c. Out of sight 161.04 - 7.1 lg W + 7.5 lg h -
    (24.37 - 3.7 (h / h_BS)^2) lg h_BS + (43.42 - 3.1 lg h_BS)(lg d - 3) + 20 lg f - (3.2 lg(11.75 h_UT)^2 - 4.97), at
    least the loss in sight (TR 38.901, table 7.4.1-1). Left out: other buildings and streets; see the module. Raises
    ValueError beyond 10 m to 5 km, 0.5 to 30 GHz, phones of 1 to 10 m, a base station above them of at most 150 m.
    """
    ground_m, d, f = _checked(distance_m, carrier_hz, base_station_height_m, phone_height_m, top_hz=30e9, top_m=10.0)
    break_m = _rural_break_m(carrier_hz, base_station_height_m, phone_height_m)
    h, station_lg = BUILDINGS_M, np.log10(base_station_height_m)

    def near(space_m: ArrayLike) -> Floats:
        spread = 20.0 * np.log10(40.0 * np.pi * np.asarray(space_m) * f / 3.0)
        spread += min(0.03 * h**1.72, 10.0) * np.log10(space_m) - min(0.044 * h**1.72, 14.77)
        return np.asarray(spread + 0.002 * np.log10(h) * np.asarray(space_m))

    seen = np.where(ground_m <= break_m, near(d), near(break_m) + 40.0 * np.log10(d / break_m))
    hidden = 161.04 - 7.1 * np.log10(STREET_M) + 7.5 * np.log10(h)
    hidden = hidden - (24.37 - 3.7 * (h / base_station_height_m) ** 2) * station_lg
    hidden = hidden + (43.42 - 3.1 * station_lg) * (np.log10(d) - 3.0) + 20.0 * np.log10(f)
    return _seen_or_hidden(line_of_sight, seen, hidden - (3.2 * np.log10(11.75 * phone_height_m) ** 2 - 4.97))


PATH_LOSS: dict[str, Callable[..., Floats]] = {"uma": uma, "umi": umi, "rma": rma}
BASE_STATION_HEIGHT_M = {"uma": 25.0, "umi": 10.0, "rma": 35.0}


def check_one_of(name: str, value: str, allowed: Iterable[str]) -> None:
    """Raise ValueError for a word that isn't allowed."""
    if value not in (words := list(allowed)):
        raise ValueError(f"{name} = '{value}': must be one of {', '.join(words)}")


def sight_probability(model: str, distance_m: ArrayLike) -> Floats:
    """Return the probability that a phone sees the base station, at ground distances.

    uma and umi: 1 up to 18 m, then 18/x + exp(-x/s)(1 - 18/x) with s = 63 m or 36 m; rma: 1 up to 10 m, then
    exp(-(x - 10) / 1000) (TR 38.901, table 7.4.2-1, phones outdoors, up to 13 m high). Left out: indoor and higher
    phones; that two near phones mostly see the same. Raises ValueError for an unknown model.
    """
    check_one_of("model", model, PATH_LOSS)
    x = np.asarray(distance_m, dtype=np.float64)
    if model == "rma":
        return np.exp(-np.maximum(x - 10.0, 0.0) / 1000.0)
    near = 18.0 / np.maximum(x, 18.0)
    return np.asarray(near + np.exp(-x / {"uma": 63.0, "umi": 36.0}[model]) * (1.0 - near))


def shadowing_sd_db(
    model: str,
    distance_m: ArrayLike,
    line_of_sight: ArrayLike,
    *,
    carrier_hz: float,
    base_station_height_m: float = 35.0,
    phone_height_m: float = 1.5,
) -> Floats:
    """Return the standard deviation [dB] of shadowing, which is normal in dB with mean 0.

    In sight 4 (rma beyond the break point: 6), out of sight uma 6, umi 7.82, rma 8 (TR 38.901, table 7.4.1-1). Only rma
    looks at the carrier and the heights. Left out: that near phones share their shadowing. Raises ValueError for an
    unknown model.
    """
    check_one_of("model", model, PATH_LOSS)
    x, in_sight = np.asarray(distance_m, dtype=np.float64), np.asarray(line_of_sight, dtype=np.bool_)
    far = x > _rural_break_m(carrier_hz, base_station_height_m, phone_height_m)
    seen = np.where(far, 6.0, 4.0) if model == "rma" else 4.0
    return np.where(in_sight, seen, {"uma": 6.0, "umi": 7.82, "rma": 8.0}[model])


def _break_m(carrier_hz: float, base_station_height_m: float, phone_height_m: float) -> float:
    above_m = (base_station_height_m - SURROUNDINGS_M) * (phone_height_m - SURROUNDINGS_M)
    return 4.0 * above_m * carrier_hz / LIGHT_M_PER_S


def _rural_break_m(carrier_hz: float, base_station_height_m: float, phone_height_m: float) -> float:
    return 2.0 * np.pi * base_station_height_m * phone_height_m * carrier_hz / LIGHT_M_PER_S


def _checked(
    distance_m: ArrayLike,
    carrier_hz: float,
    base_station_height_m: float,
    phone_height_m: float,
    *,
    top_hz: float = 100e9,
    top_m: float = 13.0,
) -> tuple[Floats, Floats, float]:
    """Return the distance along the ground, that in space and the carrier in GHz."""
    ground_m = np.asarray(distance_m, dtype=np.float64)
    if not ((ground_m >= NEAREST_M) & (ground_m <= FARTHEST_M)).all():
        raise ValueError(f"distance_m: must be from {NEAREST_M:g} to {FARTHEST_M:g}")
    if not 0.5e9 <= carrier_hz <= top_hz:
        raise ValueError(f"carrier_hz = {carrier_hz:g}: must be from 0.5e9 to {top_hz:g}")
    if not 1.0 <= phone_height_m <= top_m:
        raise ValueError(f"phone_height_m = {phone_height_m:g}: must be from 1 to {top_m:g}")
    if not phone_height_m < base_station_height_m <= 150.0:
        raise ValueError(f"base_station_height_m = {base_station_height_m:g}: must be above the phone, at most 150")
    return ground_m, np.hypot(ground_m, base_station_height_m - phone_height_m), carrier_hz / 1e9


def _seen_or_hidden(line_of_sight: ArrayLike, seen: Floats, hidden: Floats) -> Floats:
    return np.where(np.asarray(line_of_sight, dtype=np.bool_), seen, np.maximum(seen, hidden))
