"""The phone's hardware: SLM times, computing power and radio."""

from typing import Any

from pydantic import Field, model_validator

from uhlm_sim.settings.section import Decibels, Seconds, Section, Watts, with_preset


class Radio(Section):
    """What sending costs a phone: transmit power over the amplifier's efficiency, and the circuits around it."""

    transmit_power_dbm: Decibels | None = Field(
        None, description="radiated; of channel.geometry if unset, else 23, 3GPP's power class 3"
    )
    amplifier_efficiency: float = Field(gt=0, le=1, description="radiated power over the power the amplifier draws")
    circuit_power_w: Watts = Field(description="of all else in the radio while the phone sends")


class Device(Section):
    slm: str | None = Field(None, description="a preset, see `uhlm-sim list`")
    slm_token_s: Seconds = Field(description="one decoding step of the SLM")
    slm_prefill_token_s: Seconds = Field(description="one prompt token")
    uncertainty_s: Seconds = Field(0.0, description="cost of measuring u, per token that measures it")
    power_w: Watts | None = Field(None, description="drawn while it computes: no energy of the phone if unknown")
    radio: Radio | None = Field(None, description="what sending costs: no energy of the radio if unset")

    @model_validator(mode="before")
    @classmethod
    def fill(cls, values: Any) -> Any:
        times = {"slm_token_s", "slm_prefill_token_s"}
        return with_preset(values, "slm", times, default="phone-1b-bf16", also={"power_w"})
