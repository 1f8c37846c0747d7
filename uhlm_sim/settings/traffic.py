"""When phones are asked, and how much they may answer."""

from typing import Literal

from pydantic import Field

from uhlm_sim.settings.section import Seconds, Section


class Traffic(Section):
    kind: Literal["closed", "poisson"] = Field("closed", description="think, ask, wait, repeat; or open arrivals")
    devices: int = Field(20, ge=1, le=100_000, description="phones in the cell")
    think_time_s: Seconds = Field(5.0, description="closed: mean of the exponential think time")
    rate_per_s: float = Field(0.02, gt=0, le=1e6, description="poisson: requests per second of each device")
    max_tokens: int = Field(96, ge=1, le=100_000, description="an answer ends here at the latest")
