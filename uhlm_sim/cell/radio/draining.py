"""Chooses how a band drains: on one virtual clock where shares keep a fixed ratio, else epoch by epoch."""

from typing import Any

from uhlm_sim.cell.radio.air import Air
from uhlm_sim.cell.radio.allocators import Allocator, Floats, Inputs, Ratio, name_of
from uhlm_sim.cell.radio.epochs import Epochs
from uhlm_sim.cell.radio.virtual_time import VirtualTime


def make_drain(
    allocator: Allocator,
    bound: Allocator,
    inputs: Inputs,
    bandwidth_hz: float,
    air: Air,
    weights: Floats | None,
    *,
    power_limited: bool,
    **options: Any,
) -> VirtualTime | Epochs:
    """Return what drains the uploads of a band: `VirtualTime` for an allocator in a fixed ratio, else `Epochs`.

    `bound` is the allocator with its constants, `inputs` return what else it asks for; `options` are of `Epochs`.
    """
    ratio: Ratio | None = getattr(allocator, "ratio", None)
    if ratio is None or (ratio.if_still and not _all_tie(air)):
        return Epochs(bandwidth_hz, air, bound, inputs, name_of(allocator), power_limited=power_limited, **options)
    if ratio.of_all:
        power_in = 1.0 / air.devices if power_limited else 1.0
        return VirtualTime(bandwidth_hz, air, whole=air.devices, power_in=power_in)
    return VirtualTime(
        bandwidth_hz, air, weights=weights if ratio.weighted else None, power_in=None if power_limited else 1.0
    )


def _all_tie(air: Air) -> bool:
    """Say whether every device always has its mean SNR, and can send at it."""
    return air.coherence_s is None and not air.per_upload and bool((air.efficiency() > 0.0).all())
