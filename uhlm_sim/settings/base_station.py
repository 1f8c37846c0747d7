"""The base station's GPUs and how long a batch takes them."""

from typing import Any, Literal

from pydantic import Field, model_validator

from uhlm_sim.names import load_presets
from uhlm_sim.settings.section import Kind, NonNegative, Positive, Seconds, Section, Watts, with_preset


class Service(Section):
    """Seconds to process n new tokens in one batch: c_s + attention_s + s_s_per_token max(0, n - free_tokens).

    `kind` may name code of one's own instead, which sees these numbers.
    """

    kind: Kind = "fitted"
    c_s: Positive
    s_s_per_token: NonNegative = 0.0
    free_tokens: int = Field(0, ge=0)
    attention_s: NonNegative = 0.0
    max_fitted_tokens: int | None = Field(None, ge=1, description="beyond it the fit is an extrapolation")
    params: dict[str, float] = Field({}, description="arguments of service times of your own")

    def seconds(self, new_tokens: int) -> float:
        return self.c_s + self.attention_s + self.s_s_per_token * max(0, new_tokens - self.free_tokens)


class BaseStation(Section):
    llm: str | None = Field(None, description="a preset, see `uhlm-sim list`")
    service: Service
    gpus: int = Field(1, ge=1, le=10_000, description="they share one queue")
    max_batch: int = Field(16, ge=1, le=100_000, description="jobs that one GPU verifies together")
    sync: Literal["piggyback", "free"] = Field(
        "piggyback", description="skipped ids ride on the next upload, or reach the LLM at no cost"
    )
    downlink_s: Seconds = Field(0.005, description="from a verdict to the phone")
    gpu_power_w: Watts | None = Field(None, description="of a GPU that serves a batch; of the preset if unset")
    gpu_idle_power_w: Watts | None = Field(None, description="of a GPU that waits; not counted if unset")

    @model_validator(mode="before")
    @classmethod
    def fill(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        given = values.get("service", {})
        if not isinstance(given, dict):
            return values
        name = values.get("llm", None if "c_s" in given else "llama2-7b-a100")
        named = {"llm": name} if name is not None else {}
        filled = with_preset(named | given, "llm", set(Service.model_fields))
        service = {k: v for k, v in filled.items() if k != "llm"}
        preset = load_presets()["llm"][name] if isinstance(name, str) else {}
        power = {"gpu_power_w": preset["gpu_power_w"]} if "gpu_power_w" in preset else {}
        return power | values | {"service": service} | named
