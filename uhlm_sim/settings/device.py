"""What a phone computes with."""

from typing import Any

from pydantic import Field, model_validator

from uhlm_sim.settings.section import Seconds, Section, with_preset


class Device(Section):
    slm: str | None = Field(None, description="a preset, see `uhlm-sim list`")
    slm_token_s: Seconds = Field(description="one decoding step of the SLM")
    slm_prefill_token_s: Seconds = Field(description="one prompt token")
    uncertainty_s: Seconds = Field(0.0, description="cost of measuring u, per token that measures it")

    @model_validator(mode="before")
    @classmethod
    def fill(cls, values: Any) -> Any:
        return with_preset(values, "slm", {"slm_token_s", "slm_prefill_token_s"}, default="phone-1b-bf16")
