"""Who gets how much of the uplink: one plain function each, and the names that such a function may ask for.

An allocator's first two arguments are the bits left and the SNR over the whole band of the active uploads, in device
order; it returns their shares of the band. What else it needs it asks for by the name of a parameter, see `GIVEN`;
all other parameters are constants from the scenario's `uplink.params`. The uplink asks again at every arrival,
departure and edge of a fading block, and shares are constant in between. One that looks at slots is asked at their
edges only: an arrival waits for the next, and what a departure leaves of its slot stays unused. One that states,
as its attribute `ratio`, a `Ratio` of its shares isn't asked at all, and costs the same however many uploads there are.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from uhlm_sim.cell.radio.slots import Slots
from uhlm_sim.errors import SimulationError
from uhlm_sim.seams import Named, Seam

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]
Allocator = Callable[..., Floats]
Inputs = list[tuple[str, Callable[[Indices], object]]]

GIVEN = {  # arrays have one value for each active upload, in device order
    "devices": "how many devices the cell has",
    "device": "numbers of the active devices",
    "arrival": "the upload's number in order of arrival",
    "mean_snr": "mean SNR over the whole band, linear",
    "efficiency": "bit/s/Hz over the whole band, 0 in outage",
    "efficiency_of": "function of the SNR in the band used to bit/s/Hz, elementwise",
    "power_limited": "whether a share of the band holds all of a device's power",
    "weight": "the device's weight, of uplink.weights",
    "last_slot": "the last slot in which the device had some of the band, -1 before the first",
    "average_rate": "bit/s of the device, exponential average over slots",
}
SLOTTED = {"last_slot", "average_rate"}  # who asks for one of them decides at the edges of slots only
TIE = 1.0 - 1e-9
NUDGED = np.array([[1.0], [1.0 / (1.0 + 1e-6)]])  # of the SNR in the band used, for a slope
LOG_NUDGE = np.log1p(1e-6)


@dataclass(frozen=True)
class Ratio:
    """Shares in the ratio of fixed weights: share_i = w_i / W, so that all uploads drain on one clock (`VirtualTime`).

    w_i is 1, or the device's weight if `weighted`. W is the sum of w over the active uploads, or with `of_all` the
    number of devices in the cell, active or not. `if_still`: all this only where no SNR ever changes and all can send.
    """

    weighted: bool = False
    of_all: bool = False
    if_still: bool = False

    def __post_init__(self) -> None:
        if self.weighted and self.of_all:
            raise ValueError("weighted shares are of the active uploads, not of all devices")


def equal_share(left_bits: Floats, snr: Floats) -> Floats:  # noqa: ARG001  an allocator sees what is there
    """Give each of the n active uploads the same share of the band: egalitarian processor sharing.

    share_i = 1/n (Kleinrock, Time-shared systems: a theoretical treatment, J. ACM 1967). An upload in outage keeps its
    share. It is also round robin as its slots become short. Left out: slots, signalling.
    """
    return _equal(1.0 / len(left_bits), len(left_bits))


def fdma(left_bits: Floats, snr: Floats, *, devices: int) -> Floats:  # noqa: ARG001
    """Give each device its own fixed part of the band, whether it sends or not: as many queues as devices.

    share_i = 1/N with N devices in the cell: frequency division (Bertsekas and Gallager, Data Networks, 1992,
    chapter 3). Left out: guard bands.
    """
    return _equal(1.0 / devices, len(left_bits))


def tdma(left_bits: Floats, snr: Floats, *, arrival: NDArray[np.int64]) -> Floats:  # noqa: ARG001
    """Give the whole band to one upload at a time, to its end, in order of arrival: a queue, first come, first served.

    share_i = 1 for the least arrival, so M/G/1 for Poisson arrivals (Kleinrock, Queueing Systems, volume 1, 1975,
    chapter 5: Pollaczek and Khinchine). It knows no channel: an upload in outage holds up the others. Left out: guard
    times, the order's signalling.
    """
    return _whole_band_to(int(arrival.argmin()), len(left_bits))


def max_rate(left_bits: Floats, snr: Floats) -> Floats:  # noqa: ARG001
    """Give the whole band to the best SNR: the most bits per second now, and nothing to a phone far away.

    share_i = 1 for i = argmax_j SNR_j (Knopp and Humblet, Information capacity and power control in single-cell
    multiuser communications, ICC 1995). Who ties, shares equally. An upload in outage never blocks one that isn't.
    Left out: the delay and the price of knowing the channel.
    """
    return _share_of_ties(snr)


def equal_finish(
    left_bits: Floats,
    snr: Floats,
    *,
    efficiency: Floats,
    efficiency_of: Callable[[Floats], Floats],
    power_limited: bool,
) -> Floats:
    """Give such shares that all active uploads would end together if nothing changed, as early as that can be.

    Find T and shares with sum 1 so that share_i B se_i T = left_i. Per hertz se_i is that of the whole band and share_i
    is proportional to left_i / se_i. Power-limited se_i = se(SNR_i / share_i), and Newton's method finds the logarithms
    of the shares, with slopes from a difference quotient; where se jumps, uploads end together as nearly as it gets.
    It is the split that ends a set of uploads soonest (Shi, Zhou, Niu, Jiang and Geng, Joint device scheduling and
    resource allocation for latency constrained wireless federated learning, IEEE Trans. Wireless Commun. 2021).
    Uploads in outage
    over the whole band are left out while another can send. Left out: arrivals to come.
    """
    able = efficiency > 0.0
    if not able.all():
        if not able.any():
            return equal_share(left_bits, snr)
        shares = np.zeros(len(left_bits))
        shares[able] = equal_finish(
            left_bits[able],
            snr[able],
            efficiency=efficiency[able],
            efficiency_of=efficiency_of,
            power_limited=power_limited,
        )
        return shares
    together = power_limited and len(snr) > 1
    need = left_bits / (efficiency_of(snr * len(snr)) if together else efficiency)
    shares = need / np.add.reduce(need)
    return _end_together(shares, left_bits, snr, efficiency_of) if together else shares


def shortest_first(left_bits: Floats, snr: Floats, *, efficiency: Floats) -> Floats:  # noqa: ARG001
    """Give the whole band to the upload that would end first with it, in seconds and not in bits; it may interrupt.

    share_i = 1 for the least left_i / se_i, at the efficiencies of now. On a channel that stands still no rule has a
    lower mean stay (Schrage, A proof of the optimality of the shortest remaining processing time discipline, Operations
    Research 1968). An upload in outage would never end and comes last. Left out: what the channel will be.
    """
    return _whole_band_to(int((efficiency / left_bits).argmax()), len(left_bits))


def weighted(left_bits: Floats, snr: Floats, *, weight: Floats) -> Floats:  # noqa: ARG001
    """Share the band in proportion to the devices' weights: discriminatory processor sharing.

    share_i = w_i / (sum of w over active uploads) (Kleinrock, Time-shared systems: a theoretical treatment, J. ACM
    1967). An upload in outage keeps its share. Left out: slots, signalling.
    """
    shares: Floats = weight / np.add.reduce(weight)
    return shares


def proportional_fair(left_bits: Floats, snr: Floats, *, mean_snr: Floats, efficiency: Floats) -> Floats:  # noqa: ARG001
    """Give the whole band to the best SNR relative to its own mean: proportional fair, as a fluid.

    share_i = 1 for i = argmax_j SNR_j / mean SNR_j, the normalised-SNR scheduler (Yang and Alouini, Performance
    analysis of multiuser selection diversity, ICC 2004): what proportional fair by average rates comes to when fading
    has the same law relative to each mean and rate is proportional to SNR. Devices of equal statistics have equal
    resources, near or far. Who ties, shares equally, so without fading it is equal share. An upload in outage never
    blocks one that isn't. Left out: averages of past rates, slots, the delay and the price of knowing the channel.
    """
    relative = snr / mean_snr
    if efficiency.item(efficiency.argmin()) <= 0.0:
        relative *= efficiency > 0.0
    return _share_of_ties(relative)


def round_robin(left_bits: Floats, snr: Floats, *, last_slot: NDArray[np.int64]) -> Floats:  # noqa: ARG001
    """Give each slot as a whole to the active upload whose device has waited for one the longest.

    share_i = 1 for the least last slot, ties in device order (Kleinrock, Queueing Systems, volume 2, 1976, chapter 4:
    round robin, of which equal share is the limit for short slots). It knows no channel: a slot in outage is lost.
    Left out: signalling, retransmissions.
    """
    return _whole_band_to(int(last_slot.argmin()), len(left_bits))


def proportional_fair_slots(left_bits: Floats, snr: Floats, *, efficiency: Floats, average_rate: Floats) -> Floats:  # noqa: ARG001
    """Give each slot as a whole to the best rate now over the average rate so far: proportional fair, slot by slot.

    share_i = 1 for i = argmax_j r_j / R_j, r_j of the whole band at the slot's edge and R_j the exponential average
    over uplink.average_s, idle slots counted (Jalali, Padovani and Pankaj, Data throughput of CDMA-HDR, VTC 2000).
    Left out: signalling, retransmissions, an outdated channel.
    """
    return _whole_band_to(int((efficiency / np.maximum(average_rate, 1e-3)).argmax()), len(left_bits))


vars(equal_share)["ratio"] = Ratio()
vars(fdma)["ratio"] = Ratio(of_all=True)
vars(weighted)["ratio"] = Ratio(weighted=True)
vars(proportional_fair)["ratio"] = Ratio(if_still=True)

ALLOCATORS: dict[str, Allocator] = {
    "equal-share": equal_share,
    "fdma": fdma,
    "tdma": tdma,
    "max-rate": max_rate,
    "equal-finish": equal_finish,
    "shortest-first": shortest_first,
    "weighted": weighted,
    "proportional-fair": proportional_fair,
    "round-robin": round_robin,
    "proportional-fair-slots": proportional_fair_slots,
}


ALLOCATOR = Seam(
    "Allocators",
    ("uplink.allocator", "downlink.allocator"),
    ALLOCATORS,
    ("the bits left", "the SNR of the active uploads"),
    offers=GIVEN,
    giver="the uplink",
    params="params",
)


def named_allocator(allocator: Allocator, params: Mapping[str, float] | None = None) -> Named:
    """Return an allocator as if a scenario named it, with its constants in `params`."""
    return Named(ALLOCATOR, "uplink.allocator", name_of(allocator), allocator, params or {})


def bind_allocator(
    allocator: Allocator,
    params: Mapping[str, float],
    *,
    mean_snr: Floats,
    arrival: NDArray[np.int64],
    efficiency: Callable[[Indices], Floats],
    efficiency_of: Callable[[Floats], Floats],
    power_limited: bool,
    weights: Floats | None,
    slots: Slots | None,
) -> tuple[Allocator, Inputs]:
    """Return an allocator with its constants, and how to get what else it asks for, for the active devices.

    `mean_snr` and `arrival` are of all devices, and what they are is said in `GIVEN`. Raises ValueError if it asks for
    what isn't there.
    """
    named = named_allocator(allocator, params)
    constant = {"devices": len(mean_snr), "power_limited": power_limited, "efficiency_of": efficiency_of}
    offered: dict[str, Callable[[Indices], object]] = {
        "device": lambda active: active,
        "arrival": lambda active: arrival[active],
        "mean_snr": lambda active: mean_snr[active],
        "efficiency": efficiency,
    }
    if weights is not None:
        every_weight = np.asarray(weights, dtype=np.float64)
        offered["weight"] = lambda active: every_weight[active]
    if slots is not None:
        offered["last_slot"] = lambda active: slots.last_slot[active]
        offered["average_rate"] = lambda active: slots.average_rate[active]
    for name in named.asks:
        if name not in offered and name not in constant:
            raise ValueError(f"{named.name} asks for {name}: {GIVEN[name]}")
    named.check(named.asks)
    bound = {**params, **{name: constant[name] for name in named.asks if name in constant}}
    return partial(allocator, **bound), [(name, offered[name]) for name in named.asks if name in offered]


def checked_shares(name: str, given: object, uploads: int) -> tuple[Floats, float, float]:
    """Return what an allocator gave as shares, their sum and the least. Raises SimulationError for what are none."""
    shares: Floats = np.asarray(given, dtype=np.float64)
    in_use = float(np.add.reduce(shares)) if shares.shape == (uploads,) else np.nan
    if not (in_use <= 1.0 + 1e-9 and (least := shares.item(shares.argmin())) >= 0.0):
        raise SimulationError(
            f"{name}: returned the shares {shares} for {uploads} uploads; it must return one for "
            "each, none negative and together at most 1"
        )
    return shares, in_use, least


def name_of(allocator: Allocator) -> str:
    """Return what messages call an allocator."""
    return getattr(allocator, "__name__", "allocator")


def _whole_band_to(upload: int, uploads: int) -> Floats:
    shares = np.zeros(uploads)
    shares[upload] = 1.0
    return shares


def _equal(share: float, uploads: int) -> Floats:
    shares = np.empty(uploads)
    shares.fill(share)  # numpy.full takes three times as long, and this is asked for at every arrival and departure
    return shares


def _share_of_ties(value: Floats) -> Floats:
    """Return shares of the band for the largest of values that are at least 0: all to one, or equal shares of a tie."""
    first = int(value.argmax())
    least = value.item(first) * TIE
    if value.item(value.argmin()) >= least:  # as where nothing fades, and quickly told
        return _equal(1.0 / len(value), len(value))
    best = value >= least
    ties = np.count_nonzero(best)
    return best / ties if ties > 1 else _whole_band_to(first, len(value))


def _end_together(shares: Floats, left_bits: Floats, snr: Floats, efficiency_of: Callable[[Floats], Floats]) -> Floats:
    nudged_snr, ones = snr * NUDGED, np.ones(len(snr))
    for _ in range(40):
        efficiency, nudged = efficiency_of(nudged_snr / shares)
        slope = np.maximum(1.0 + np.log(nudged / efficiency) / LOG_NUDGE, 1e-3)  # d log rate / d log share, in (0, 1]
        log_time = np.log(left_bits / (shares * efficiency))
        stiffness = shares / slope
        step = (log_time - stiffness.dot(log_time) / stiffness.dot(ones)) / slope
        length_2 = step.dot(step)
        if length_2 > 9.0:
            step = np.clip(step, -3.0, 3.0)
        shares = shares * np.exp(step)
        shares /= shares.dot(ones)
        if length_2 < 1e-12:  # and the next would be a millionth of it
            break
    return shares
