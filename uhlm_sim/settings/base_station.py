"""The base station's GPUs: batching, order, memory and service times."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from uhlm_sim.names import load_presets
from uhlm_sim.settings.section import Kind, NonNegative, Positive, Seconds, Section, Watts, with_preset

Share = Annotated[float, Field(gt=0, le=1)]
MOST_POSITIONS = 10**12
ROOFLINE = ("parameters", "bytes_per_parameter", "peak_flop_per_s", "memory_byte_per_s", "mfu_prefill", "mfu_decode")


class Service(Section):
    """Seconds to process n new tokens in one batch, by `kind`; see `uhlm-sim list`.

    fitted: c_s + attention_s + s_s_per_token max(0, n - free_tokens). `kind` may name code of one's own instead, which
    sees these numbers.
    """

    kind: Kind = "fitted"
    c_s: Positive | None = Field(None, description="fitted: a step's seconds, however few tokens it has")
    s_s_per_token: NonNegative = 0.0
    free_tokens: int = Field(0, ge=0)
    s_s_per_context: NonNegative | None = Field(
        None,
        description="for each position of a batch's requests that the LLM remembers already; if unset the time to read "
        "its keys and values for a roofline, else 0",
    )
    attention_s: NonNegative = Field(0.0, description="fitted, roofline: added to every step")
    max_fitted_tokens: int | None = Field(None, ge=1, description="beyond it the fit is an extrapolation")
    parameters: Positive | None = Field(None, description="roofline: of the LLM")
    bytes_per_parameter: Annotated[float, Field(gt=0, le=16)] | None = Field(None, description="roofline: precision")
    peak_flop_per_s: Positive | None = Field(None, description="roofline: of the GPU")
    memory_byte_per_s: Positive | None = Field(None, description="roofline: bandwidth of the GPU's memory")
    mfu_prefill: Share | None = Field(None, description="roofline: share of the peak that long inputs reach")
    mfu_decode: Share | None = Field(None, description="roofline: share that the first position of each job reaches")
    path: str | None = Field(None, min_length=1, description="table: a CSV file with the columns new_tokens, seconds")
    params: dict[str, float] = Field({}, description="arguments of service times of your own")

    @model_validator(mode="after")
    def complete(self) -> "Service":
        needed = {"fitted": ("c_s",), "roofline": ROOFLINE, "table": ("path",)}.get(self.kind, ())
        missing = [name for name in needed if getattr(self, name) is None]
        if missing:
            raise ValueError(f"{self.kind} needs {', '.join(missing)}")
        return self

    def seconds(self, new_tokens: int) -> float:
        c_s = 0.0 if self.c_s is None else self.c_s
        return c_s + self.attention_s + self.s_s_per_token * max(0, new_tokens - self.free_tokens)

    @property
    def least_s(self) -> float:
        """The least seconds of a step; 1 ms for a table, which isn't read for this."""
        if self.kind == "roofline" and self.parameters and self.bytes_per_parameter and self.memory_byte_per_s:
            return self.parameters * self.bytes_per_parameter / self.memory_byte_per_s
        return 1e-3 if self.c_s is None or self.kind == "table" else self.c_s


class BaseStation(Section):
    llm: str | None = Field(None, description="a preset, see `uhlm-sim list`")
    service: Service
    gpus: int = Field(1, ge=1, le=10_000)
    queue: Literal["shared", "join-shortest"] = Field(
        "shared", description="one for all GPUs, or one each: a job joins the shortest, of equals the first"
    )
    max_batch: int = Field(256, ge=1, le=100_000, description="jobs of a step, at most; 256 as serving engines take")
    batch_rule: Kind = Field("continuous", description="when a step starts, see `uhlm-sim list`; or module:object")
    min_batch: int | None = Field(None, ge=1, le=100_000, description="size, wait: jobs that a step waits for")
    max_wait_s: Annotated[float, Field(gt=0, le=1e6)] | None = Field(
        None, description="wait: the longest that the oldest job waits for others"
    )
    batch_params: dict[str, float] = Field({}, description="arguments of a batch rule of your own")
    order: Kind = Field("oldest-request", description="who is next in a queue, see `uhlm-sim list`; or module:object")
    order_params: dict[str, float] = Field({}, description="arguments of an order of your own")
    kv_tokens: int | None = Field(
        None,
        ge=1,
        le=MOST_POSITIONS,
        description="positions that each GPU remembers, those behind one queue together; if unset what the preset's "
        'GPU has room for (a larger number lifts that); all without a preset, or with sync = "free"',
    )
    kv_bytes: Positive | None = Field(None, description="the same in bytes of memory")
    kv_bytes_per_token: Positive | None = Field(None, description="for kv_bytes; the preset's if unset")
    chunk_tokens: int | None = Field(
        None, ge=1, le=10**9, description="new positions in a step, at most; longer jobs are split; no limit if unset"
    )
    sync: Literal["piggyback", "free"] = Field(
        "piggyback",
        description="skipped ids ride on the next upload, or reach the LLM at no cost, with the prompts of drafts",
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
        kind = given.get("kind", "fitted")
        whole = kind == "table" or (kind == "roofline" and given.keys() >= set(ROOFLINE))
        name = values.get("llm", None if whole or (kind != "roofline" and "c_s" in given) else "llama2-7b-a100")
        filled = given
        if name is not None and whole:
            with_preset({"llm": name}, "llm", set())  # for its name
        elif name is not None:
            table = "roofline" if kind == "roofline" else "llm"
            rooflines = load_presets()["roofline"]
            fitted = isinstance(name, str) and name in load_presets()["llm"]
            if table == "roofline" and fitted and name not in rooflines:
                missing = ", ".join(field for field in ROOFLINE if field not in given)
                raise ValueError(
                    f"the preset '{name}' has fitted times but no roofline: service needs {missing}; or take a preset "
                    f'that has one, {", ".join(rooflines)}; or kind = "fitted"'
                )
            filled = with_preset({"llm": name, **given}, "llm", set(Service.model_fields), table=table)
        service = {k: v for k, v in filled.items() if k != "llm"}
        preset = load_presets()["llm"].get(name, {}) if isinstance(name, str) else {}
        power = {"gpu_power_w": preset["gpu_power_w"]} if "gpu_power_w" in preset else {}
        return power | values | {"service": service} | ({"llm": name} if name is not None else {})

    @model_validator(mode="after")
    def consistent(self) -> "BaseStation":
        if self.min_batch is not None and self.min_batch > self.max_batch:
            raise ValueError(f"min_batch = {self.min_batch} is above max_batch = {self.max_batch}: no step has so many")
        if self.chunk_tokens is not None and self.chunk_tokens < self.max_batch:
            raise ValueError(
                f"chunk_tokens = {self.chunk_tokens} is below max_batch = {self.max_batch}: each job of a step needs a "
                "position at least"
            )
        if self.kv_tokens is not None and self.kv_bytes is not None:
            raise ValueError("kv_tokens and kv_bytes both say how much the LLM remembers; give one")
        per_token = self._kv_bytes_of_a_position
        if self.kv_bytes is not None and per_token is None:
            raise ValueError("kv_bytes needs kv_bytes_per_token, since there is no preset that has it")
        if self.kv_bytes is not None and per_token is not None and self.kv_bytes / per_token > MOST_POSITIONS:
            raise ValueError(
                f"kv_bytes = {self.kv_bytes:g} has room for {self.kv_bytes / per_token:.3g} positions of {per_token:g} "
                f"bytes; must be at most {MOST_POSITIONS:.0e}"
            )
        if self.limits_memory and self.sync == "free":
            raise ValueError(
                'kv_tokens and kv_bytes need sync = "piggyback": with "free" prompts of drafts are unknown'
            )
        return self

    @property
    def s_s_per_context(self) -> float:
        """Seconds of a step for each position that the LLM remembers: as given, or by a roofline's memory bandwidth."""
        service, size = self.service, self._kv_bytes_of_a_position
        if service.s_s_per_context is None and service.kind == "roofline" and size and service.memory_byte_per_s:
            return size / service.memory_byte_per_s
        return service.s_s_per_context or 0.0

    @property
    def kv_capacity_tokens(self) -> int | None:
        """Positions that each GPU remembers: as given, or what its preset has room for; None without a limit."""
        per_token, kv_bytes = self._kv_bytes_of_a_position, self.kv_bytes
        if not self.limits_memory and self.sync == "piggyback":
            kv_bytes = load_presets()["llm"].get(self.llm or "", {}).get("kv_bytes")
        if kv_bytes is None or per_token is None:
            return self.kv_tokens
        return int(kv_bytes // per_token)

    @property
    def limits_memory(self) -> bool:
        """Say whether the scenario itself limits what a GPU remembers, and not its preset."""
        return self.kv_tokens is not None or self.kv_bytes is not None

    @property
    def _kv_bytes_of_a_position(self) -> float | None:
        preset: dict[str, float] = load_presets()["llm"].get(self.llm or "", {})
        return self.kv_bytes_per_token or preset.get("kv_bytes_per_token")
