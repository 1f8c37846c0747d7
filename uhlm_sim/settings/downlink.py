"""The band that carries verdicts and ids back to the phones, where it is shared."""

from typing import Literal

from pydantic import Field

from uhlm_sim.settings.section import Decibels, Kind, Section


class Downlink(Section):
    """Constant: `base_station.downlink_s` whatever the load. Shared: answers have bits and queue for a band, too."""

    kind: Literal["constant", "shared"] = Field(
        "constant", description="shared: answers drain through a band before base_station.downlink_s begins"
    )
    bandwidth_hz: float = Field(10e6, gt=0, le=1e13, description="shared by all answers")
    snr_offset_db: Decibels = Field(0.0, description="a phone's mean SNR over its uplink's")
    mean_snr_db: Decibels | None = Field(None, description="for all phones, instead of the offset")
    on_resample: Literal["id", "distribution"] = Field(
        "id", description="what a replaced draft costs: an id, or a distribution as uplink.payload bills it"
    )
    allocator: Kind = Field("equal-share", description="as uplink.allocator")
    params: dict[str, float] = Field({}, description="arguments of an allocator of your own")
    tti_s: float | None = Field(None, ge=1e-6, le=10, description="round-robin, proportional-fair-slots: a slot")
    average_s: float = Field(0.1, gt=0, le=1e6, description="proportional-fair-slots: how long a rate is remembered")
