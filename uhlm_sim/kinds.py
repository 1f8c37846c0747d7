"""Every kind that a scenario may name, by its key: `uhlm-sim list`, the reference pages and the tests walk here."""

from collections.abc import Callable, Mapping
from typing import Any

from channel_models import CHANNELS, PATH_LOSS
from uhlm_sim.cell.allocators import ALLOCATORS
from uhlm_sim.cell.arrivals import ARRIVALS
from uhlm_sim.cell.batching import BATCH_RULES, ORDERS
from uhlm_sim.cell.policies import POLICIES
from uhlm_sim.cell.radio import LINKS
from uhlm_sim.cell.service import SERVICES

Kinds = Mapping[str, Callable[..., Any]]

KINDS: dict[str, tuple[str, Kinds]] = {
    "policy.kind": ("Policies", POLICIES),
    "traffic.kind": ("Traffic", ARRIVALS),
    "channel.kind": ("Channels", CHANNELS),
    "channel.geometry.model": ("Path loss", PATH_LOSS),
    "uplink.allocator": ("Allocators", ALLOCATORS),
    "uplink.link.kind": ("Links", LINKS),
    "base_station.batch_rule": ("Batch rules", BATCH_RULES),
    "base_station.order": ("Orders", ORDERS),
    "base_station.service.kind": ("Service times", SERVICES),
}


def one_line(kind: Callable[..., Any]) -> str:
    """Return the first line of a kind's docstring."""
    return (kind.__doc__ or "").strip().splitlines()[0]
