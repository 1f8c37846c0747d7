"""The band that all uploads share, and what an upload holds."""

from typing import Annotated, Literal

from pydantic import Field

from uhlm_sim.settings.section import Kind, Section


class Payload(Section):
    kind: Literal["full"] = Field("full", description="the whole vocabulary's probabilities")
    bits_per_probability: int = Field(8, ge=1, le=64)
    bits_per_index: int = Field(0, ge=0, le=64, description="0: probabilities in the order of the vocabulary")


class Uplink(Section):
    bandwidth_hz: float = Field(10e6, gt=0, le=1e13, description="shared by all uploads")
    allocator: Kind = Field("equal-share", description="who gets how much of it, see `uhlm-sim list`; or module:object")
    snr_rule: Literal["per-hertz", "power-limited"] = Field(
        "per-hertz", description="power density fixed, or a phone's power put into its share of the band"
    )
    weights: Annotated[list[Annotated[float, Field(gt=0, le=1e6)]], Field(min_length=1)] | None = Field(
        None, description="weighted: one for each phone"
    )
    tti_s: float | None = Field(None, ge=1e-6, le=10, description="round-robin, proportional-fair-slots: a slot")
    average_s: float = Field(0.1, gt=0, le=1e6, description="proportional-fair-slots: how long a rate is remembered")
    params: dict[str, float] = Field({}, description="arguments of an allocator of your own")
    payload: Payload = Payload()
