"""The uplink: band, allocator, link, and the payload of an upload."""

from typing import Annotated, Literal

from pydantic import Field

from uhlm_sim.settings.policy import Payload
from uhlm_sim.settings.section import Kind, Section, Weight


class Link(Section):
    """How bits become a signal: at Shannon's rate, or in blocks with modulation, coding, errors and repetitions."""

    kind: Literal["shannon", "adaptive"] = Field(
        "shannon",
        description="gap and cap of [channel]; or modulation, block errors, retransmissions, see uplink.tti_s",
    )
    target_block_error: float = Field(0.1, gt=0, lt=1, description="of a block's first transmission")
    outer_loop: bool = Field(True, description="shift the SNR by acknowledgements until the target is met")
    outer_loop_step_db: float = Field(0.5, gt=0, le=10, description="more caution after an error")
    csi_delay_s: float = Field(0.0, ge=0, le=10, description="age of the SNR that the base station sees")
    max_transmissions: int = Field(4, ge=1, le=64, description="of a block, then its bits are queued again")
    harq_round_trip_slots: int = Field(8, ge=1, le=1000, description="from one transmission to the next")
    overhead: float = Field(
        0.14, ge=0, lt=1, description="part of a slot without data: 2 of 14 symbols; with TDD the downlink's part, too"
    )


class Uplink(Section):
    bandwidth_hz: float = Field(10e6, gt=0, le=1e13, description="shared by all uploads")
    allocator: Kind = Field("equal-share", description="who gets how much of it, see `uhlm-sim list`; or module:object")
    snr_rule: Literal["per-hertz", "power-limited"] = Field(
        "per-hertz", description="power density fixed, or a phone's power put into its share of the band"
    )
    weights: Annotated[list[Weight], Field(min_length=1)] | None = Field(
        None, description="weighted: one for each phone"
    )
    tti_s: float | None = Field(
        None, ge=1e-6, le=10, description="a slot: round-robin, proportional-fair-slots, and the adaptive link"
    )
    average_s: float = Field(0.1, gt=0, le=1e6, description="proportional-fair-slots: how long a rate is remembered")
    access_s: float = Field(
        0.0, ge=0, le=1e6, description="from asking to sending: grant, alignment, the network behind"
    )
    params: dict[str, float] = Field({}, description="arguments of an allocator of your own")
    link: Link = Link()
    payload: Payload = Payload()
