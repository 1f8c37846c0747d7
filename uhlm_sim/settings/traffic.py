"""Traffic: when requests arrive, how long answers may be, and when phones are in the cell."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from uhlm_sim.settings.section import Kind, Seconds, Section

Sojourn = Annotated[float, Field(gt=0, le=1e6)]


class Burst(Section):
    """Two states that alternate, each for an exponential time: calm, and a burst with `factor` times the mean rate.

    The calm's rate is what keeps the mean: nothing where bursts of that factor bring all requests.
    """

    of: Literal["device", "cell"] = Field("device", description="each phone has bursts of its own, or all the same")
    factor: float = Field(3.0, ge=1, le=1e6, description="rate in a burst over the mean rate")
    mean_burst_s: Sojourn = 10.0
    mean_calm_s: Sojourn = 30.0

    @model_validator(mode="after")
    def mean_is_kept(self) -> "Burst":
        most = 1.0 + self.mean_calm_s / self.mean_burst_s
        if self.factor > most * (1.0 + 1e-12):
            raise ValueError(
                f"factor = {self.factor:g}: bursts take {1 / most:.3g} of the time, so at most {most:g} keeps the mean"
            )
        return self

    @property
    def calm_factor(self) -> float:
        """Rate in a calm over the mean rate."""
        return max(1.0 + (1.0 - self.factor) * self.mean_burst_s / self.mean_calm_s, 0.0)


class Presence(Section):
    """Phones come to the cell and leave it: both times are exponential, and a run begins in the steady state."""

    mean_present_s: Sojourn = Field(description="on the cell")
    mean_absent_s: Sojourn = Field(description="away; what would be asked meanwhile is asked elsewhere")


class Traffic(Section):
    kind: Kind = Field("closed", description="closed, poisson, bursty or replay, see `uhlm-sim list`; or module:object")
    devices: int = Field(20, ge=1, le=100_000, description="phones in the cell")
    think_time_s: Seconds = Field(5.0, description="closed: mean of the exponential think time")
    rate_per_s: float = Field(0.02, gt=0, le=1e6, description="poisson, bursty: requests per second of each device")
    max_tokens: int = Field(96, ge=1, le=100_000, description="an answer ends here at the latest")
    burst: Burst | None = Field(None, description="bursty: how its rate changes")
    file: str | None = Field(
        None, min_length=1, description="replay: CSV or JSON lines with arrival time, prompt and output tokens"
    )
    time_unit: Literal["s", "ms", "us"] | None = Field(
        None, description="replay: of arrivals that are numbers; ms in a file of Mooncake's, else s"
    )
    skip_empty: bool = Field(False, description="replay: leave out rows with no prompt or no output tokens")
    presence: Presence | None = Field(None, description="phones join and leave; always there if unset")
    params: dict[str, float] = Field({}, description="arguments of traffic of your own")

    @model_validator(mode="before")
    @classmethod
    def default_burst(cls, values: Any) -> Any:
        bursty = isinstance(values, dict) and values.get("kind") == "bursty"
        return {"burst": {}, **values} if bursty else values

    @model_validator(mode="after")
    def fitting(self) -> "Traffic":
        if self.kind == "replay" and self.file is None:
            raise ValueError("kind = 'replay' needs a file of requests")
        if self.kind == "replay" and self.presence is not None:
            raise ValueError("presence doesn't go with kind = 'replay': the file says who asks when")
        return self
