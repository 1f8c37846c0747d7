"""The channel: fading, mean SNR, and the limits of the rate."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from uhlm_sim.settings.section import Decibels, Kind, Positive, Section


class Geometry(Section):
    """Mean SNR from places: phones are dropped anew in every replication, and path loss gives their SNR."""

    model: Literal["uma", "umi", "rma"] = Field("uma", description="TR 38.901: urban macro or micro, rural macro")
    shape: Literal["disc", "hexagon"] = Field("disc", description="of the cell, the base station in its middle")
    radius_m: float = Field(250.0, gt=10, le=5000, description="of the disc, or to a corner of the hexagon")
    min_distance_m: float = Field(35.0, ge=10, le=5000, description="no phone is nearer")
    carrier_hz: float = Field(3.5e9, ge=0.5e9, le=100e9, description="of path loss, and of a channel that moves")
    base_station_height_m: float | None = Field(None, gt=1, le=150, description="uma 25, umi 10, rma 35 if unset")
    phone_height_m: float = Field(1.5, ge=1, le=13)
    sight: Literal["drawn", "always", "never"] = Field("drawn", description="line of sight to the base station")
    shadowing: bool = True
    base_station_gain_dbi: Decibels = 8.0
    phone_gain_dbi: Decibels = 0.0
    extra_loss_db: Decibels = Field(0.0, description="body, car, wall: of every phone")
    noise_figure_db: Annotated[float, Field(ge=0, le=100)] = 5.0
    interference_margin_db: Annotated[float, Field(ge=0, le=100)] = Field(0.0, description="other cells over noise")
    max_power_dbm: Decibels = Field(23.0, description="of a phone")
    p0_dbm: Annotated[float, Field(ge=-250, le=100)] | None = Field(
        None, description="open-loop power control aims at it in 180 kHz; full power if unset"
    )
    alpha: float = Field(1.0, ge=0, le=1, description="share of the loss that power control makes up for")


class Channel(Section):
    kind: Kind = Field("rayleigh", description="fading, see `uhlm-sim list`; or module:object")
    mean_snr_db: Decibels | Annotated[list[Decibels], Field(min_length=1)] | Literal["recorded", "geometry"] = Field(
        10.0, description="over the whole band; for all phones, or one each; of the recording; of [channel.geometry]"
    )
    geometry: Geometry | None = Field(None, description="mean SNR from places, instead of mean_snr_db")
    coherence_s: Annotated[float, Field(gt=0, le=1e6)] | Literal["per-upload"] = Field(
        0.02, description="a gain's length; per-upload: one gain for each upload"
    )
    min_snr_db: Decibels = Field(-10.0, description="no rate below it (per-upload: clamped there)")
    snr_gap_db: Annotated[float, Field(ge=0, le=100)] = Field(0.0, description="loss against Shannon")
    max_spectral_efficiency: Positive = Field(7.4, description="bit/s/Hz, whatever the SNR")
    params: dict[str, float | str] = Field(
        {}, description="arguments of the channel: k_factor_db, shape, speed_m_per_s, path, column"
    )

    @model_validator(mode="before")
    @classmethod
    def default_mean(cls, values: Any) -> Any:
        if not isinstance(values, dict) or "mean_snr_db" in values:
            return values
        if values.get("geometry") is not None:
            return {**values, "mean_snr_db": "geometry"}
        return {**values, "mean_snr_db": "recorded"} if values.get("kind") == "trace" else values

    @model_validator(mode="after")
    def reachable(self) -> "Channel":
        if self.geometry is not None and self.mean_snr_db != "geometry":
            raise ValueError('the table [channel.geometry] gives mean_snr_db: leave it out, or say "geometry"')
        if self.geometry is None and self.mean_snr_db == "geometry":
            raise ValueError('mean_snr_db = "geometry" needs a table [channel.geometry]')
        if self.mean_snr_db == "recorded" and self.kind != "trace":
            raise ValueError(f'mean_snr_db = "recorded" belongs to kind = "trace", not to {self.kind}')
        if self.kind == "trace" and self.params.get("unit") == "mbit/s" and self.mean_snr_db != "recorded":
            raise ValueError("params.unit = 'mbit/s': another mean SNR would change the rates; leave mean_snr_db out")
        if isinstance(self.mean_snr_db, str):
            return self
        lowest_db = min(self.mean_snr_db) if isinstance(self.mean_snr_db, list) else self.mean_snr_db
        if self.kind == "constant" and lowest_db < self.min_snr_db:
            raise ValueError(
                f"mean_snr_db = {lowest_db:g} is below min_snr_db = {self.min_snr_db:g}: "
                "on a constant channel such a device could never send"
            )
        return self
