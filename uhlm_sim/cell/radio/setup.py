"""The scenario's bands as objects: the uplink with its link, and the downlink where it is shared."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import simpy
from numpy.typing import NDArray

from uhlm_sim.cell.jobs import Job
from uhlm_sim.cell.phones.population import Who, weights_of
from uhlm_sim.cell.radio.adaptive_uplink import AdaptiveUplink, Link
from uhlm_sim.cell.radio.air import Air
from uhlm_sim.cell.radio.allocators import SLOTTED, named_allocator
from uhlm_sim.cell.radio.downlink import Downlink
from uhlm_sim.cell.radio.fading import Fading, make_air
from uhlm_sim.cell.radio.slots import Slots
from uhlm_sim.cell.radio.uplink import Uplink
from uhlm_sim.scenario import Scenario
from uhlm_sim.seams import Named, NamedFunctions, Seam

Floats = NDArray[np.float64]
MakeAir = Callable[[], Air]
CoinsOf = Callable[[int], np.random.Generator]


def shannon(
    env: simpy.Environment, scenario: Scenario, make: MakeAir, _coins_of: CoinsOf, options: dict[str, Any]
) -> tuple[Uplink, Air]:
    """Send bits at a rate that the SNR allows, and nothing ever fails.

    B min(log2(1 + SNR / gap), cap) bit/s (Shannon, Communication in the presence of noise, 1949), gap, cap and
    least SNR those of [channel]. Left out: blocks, their errors, retransmissions, overhead.
    """
    uplink, air = scenario.uplink, make()
    slots = make_slots(air.devices, named_allocator(options["allocator"]), uplink.tti_s, uplink.average_s)
    return Uplink(env, air=air, slots=slots, count_sending=scenario.device.radio is not None, **options), air


def adaptive(
    env: simpy.Environment, scenario: Scenario, make: MakeAir, coins_of: CoinsOf, options: dict[str, Any]
) -> tuple[AdaptiveUplink, Air]:
    """Send blocks by modulation and coding for an outdated SNR; they may fail and are sent again, slot by slot.

    P(error) = Q((C - R + log2(n) / (2 n)) sqrt(n / V)) with a gap (`channel_models.block_error`: TS 38.214, Polyanskiy,
    Poor and Verdu 2010), chase combining, an outer loop: see `AdaptiveUplink`. Left out: what
    stands there.
    """
    uplink, link, air = scenario.uplink, scenario.uplink.link, make()
    assert uplink.tti_s is not None  # told by check_scenario
    band = AdaptiveUplink(
        env,
        air=air,
        known=make(),
        link=Link(
            target_error=link.target_block_error,
            outer_step_db=link.outer_loop_step_db if link.outer_loop else 0.0,
            csi_delay_s=link.csi_delay_s,
            max_transmissions=link.max_transmissions,
            round_trip_slots=link.harq_round_trip_slots,
            overhead=link.overhead,
        ),
        slots=Slots(air.devices, uplink.tti_s, uplink.average_s),
        coins_of=coins_of,
        **options,
    )
    return band, air


LINKS: dict[str, Callable[..., tuple[Uplink | AdaptiveUplink, Air]]] = {"shannon": shannon, "adaptive": adaptive}
LINK = Seam("Links", ("uplink.link.kind",), LINKS)


def make_uplink(
    env: simpy.Environment,
    scenario: Scenario,
    replication: int,
    snr_db: Floats,
    *,
    people: Sequence[Who],
    functions: NamedFunctions,
    fading_of: Callable[[int], Fading],
    deliver: Callable[[Job], None],
) -> tuple[Uplink | AdaptiveUplink, Air]:
    """Return the uplink of one replication, and the air that it sends through."""
    uplink = scenario.uplink
    options = {
        "bandwidth_hz": uplink.bandwidth_hz,
        "deliver": deliver,
        "allocator": functions["uplink.allocator"].function,
        "params": uplink.params,
        "weights": weights_of(scenario, people),
        "power_limited": uplink.snr_rule == "power-limited",
    }
    band: tuple[Uplink | AdaptiveUplink, Air] = functions["uplink.link.kind"].function(
        env,
        scenario,
        lambda: make_air(scenario, fading_of, replication, snr_db, people),
        lambda device: people[device].stream(scenario.seed, "block errors", replication),
        options,
    )
    return band


def make_downlink(
    env: simpy.Environment,
    scenario: Scenario,
    replication: int,
    snr_db: Floats,
    *,
    people: Sequence[Who],
    functions: NamedFunctions,
    fading_of: Callable[[int], Fading],
) -> Downlink | None:
    """Return the downlink, or None where it is a constant; `snr_db` are the uplink's mean SNRs."""
    downlink, named = scenario.downlink, functions["downlink.allocator"]
    if downlink.kind == "constant":
        return None
    return Downlink(
        env,
        bandwidth_hz=downlink.bandwidth_hz,
        air=make_air(scenario, fading_of, replication, downlink_snr_db(scenario, snr_db), people, "downlink fading"),
        allocator=named.function,
        params=downlink.params,
        weights=weights_of(scenario, people),
        slots=make_slots(len(snr_db), named, downlink.tti_s, downlink.average_s),
    )


def downlink_snr_db(scenario: Scenario, uplink_snr_db: Floats) -> Floats:
    """Return the mean SNR [dB] of every device's downlink, from its uplink's."""
    downlink = scenario.downlink
    if downlink.mean_snr_db is None:
        return uplink_snr_db + downlink.snr_offset_db
    return np.full(len(uplink_snr_db), downlink.mean_snr_db)


def make_slots(devices: int, allocator: Named, tti_s: float | None, average_s: float) -> Slots | None:
    """Return a band's slots, for an allocator that looks at them."""
    return None if tti_s is None or not SLOTTED & set(allocator.asks) else Slots(devices, tti_s, average_s)
