"""The scenario: one experiment as frozen values.

The tables of radio, phones, tokens and traffic stand in `uhlm_sim.settings`; `uhlm-sim schema` prints them all. Values
are SI units with the unit in the name; decibels appear here and in reports only. Making one does no work: no model is
loaded, no trace opened.
"""

import re
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from uhlm_sim.settings.base_station import BaseStation, Service
from uhlm_sim.settings.channel import Channel, Geometry
from uhlm_sim.settings.device import Device, Radio
from uhlm_sim.settings.device_class import DeviceClass, check_classes
from uhlm_sim.settings.downlink import Downlink
from uhlm_sim.settings.policy import Payload, Policy, Target
from uhlm_sim.settings.section import Positive, Seconds, Section
from uhlm_sim.settings.tokens import LiveTokens, ModelsTokens, SkipRate, SyntheticTokens, TraceTokens
from uhlm_sim.settings.traffic import Burst, Presence, Traffic
from uhlm_sim.settings.uplink import Link, Uplink

__all__ = [
    "BaseStation",
    "Burst",
    "Channel",
    "Device",
    "DeviceClass",
    "Downlink",
    "Geometry",
    "Link",
    "LiveTokens",
    "ModelsTokens",
]
__all__ += ["Output", "Payload", "Policy", "Precision", "Presence", "Radio", "Scenario", "Section", "Service"]
__all__ += ["SkipRate", "Slo", "SyntheticTokens", "Target", "TraceTokens", "Traffic", "Uplink"]
POWER_DBM = 23.0  # of a phone: power class 3 of 3GPP
READ_BY = {  # keys of [traffic] that some kinds of it ignore
    "think_time_s": ("closed",),
    "rate_per_s": ("poisson", "bursty"),
    "burst": ("bursty",),
    "file": ("replay",),
    "time_unit": ("replay",),
    "skip_empty": ("replay",),
}
MAX_STEPS = 1e8  # tokens or fading blocks in one simulation: beyond it a machine of today runs out of memory or time


class Slo(Section):
    ttft_s: Positive | None = Field(None, description="time to first token, at most")
    tpot_s: Positive | None = Field(None, description="time per output token after the first, at most")
    e2e_s: Positive | None = Field(None, description="a whole request, at most")


class Precision(Section):
    """Replications until every paired ratio to the first policy is known to +- `relative` of itself, or the most."""

    metric: str = Field("token_throughput", description="any metric of summary.csv")
    relative: float = Field(gt=0, lt=1, description="half-width of the 95 % interval over the ratio")
    max_replications: int = Field(100, ge=20, le=10_000, description="where to stop without it")


MOST_IN_RANGE = 10_000


def values_of_range(text: str) -> list[int | float] | str:
    """Return the values of "first:last:step" in order, the last included if a step meets it; what is no range as it is.

    Whole numbers stay whole. Decimals are counted exactly: 0:1:0.1 has 0.3. At most MOST_IN_RANGE values are made.
    """
    number = r"[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?"
    match = re.fullmatch(rf"\s*({number}):({number}):({number})\s*", text, flags=re.IGNORECASE | re.ASCII)
    if match is None:
        return text
    first, last, step = map(Decimal, match.groups())
    steps = (last - first) / step if step else Decimal(-1)
    if not 0 <= steps < MOST_IN_RANGE:
        return text
    whole = all(re.fullmatch(r"[+-]?\d+", part) for part in match.groups())
    values = [first + step * k for k in range(int(steps) + 1)]
    return [int(value) for value in values] if whole else [float(value) for value in values]


class Output(Section):
    tokens: bool = Field(True, description="whether to keep tokens.parquet")


class Scenario(Section):
    """One experiment. Every value has a default but `name`, `tokens` and at least one `policy`."""

    version: Literal[1] = 1
    name: str = Field(min_length=1, max_length=80, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    description: str = ""
    variant: str | None = Field(None, min_length=1, max_length=80, description="what a zipped sweep calls a point")
    seed: int = Field(1, ge=0, le=2**63 - 1)
    replications: int = Field(8, ge=1, le=10_000, description="independent worlds, the same for all policies")
    duration_s: float = Field(120.0, gt=0, le=1e6, description="simulated; the run stops hard there")
    warmup_s: Seconds = Field(20.0, description="cut from every metric")
    traffic: Traffic = Traffic()
    tokens: Annotated[TraceTokens | ModelsTokens | LiveTokens | SyntheticTokens, Field(discriminator="kind")]
    device: Device = Field(default_factory=lambda: Device.model_validate({}))
    uplink: Uplink = Uplink()
    channel: Channel = Channel()
    base_station: BaseStation = Field(default_factory=lambda: BaseStation.model_validate({}))
    downlink: Downlink = Downlink()
    slo: Slo = Slo()
    precision: Precision | None = Field(None, description="more replications than `replications`, until this is met")
    policy: list[Policy] = Field(min_length=1, max_length=256)
    device_class: list[DeviceClass] = Field([], description="phones that differ; all alike if there is none")
    output: Output = Output()
    sweep: dict[str, bool | list[Any]] = Field(
        {}, description='dotted keys to lists of values, or ranges "first:last:step"; zip = true pairs them'
    )

    @model_validator(mode="before")
    @classmethod
    def default_kind(cls, values: Any) -> Any:
        tokens = values.get("tokens") if isinstance(values, dict) else None
        if isinstance(tokens, dict) and "kind" not in tokens:
            return {**values, "tokens": {"kind": "trace", **tokens}}
        return values

    @model_validator(mode="before")
    @classmethod
    def count_classes(cls, values: Any) -> Any:
        """Set traffic.devices to the sum of the classes' counts, where it is not given."""
        classes = values.get("device_class") if isinstance(values, dict) else None
        traffic = values.get("traffic", {}) if isinstance(values, dict) else None
        if not isinstance(classes, list) or not isinstance(traffic, dict) or "devices" in traffic:
            return values
        counts = [entry.get("count") if isinstance(entry, dict) else None for entry in classes]
        if not counts or not all(isinstance(count, int) for count in counts):
            return values
        return {**values, "traffic": {**traffic, "devices": sum(counts)}}

    @field_validator("sweep", mode="before")
    @classmethod
    def write_ranges_out(cls, values: Any) -> Any:
        """Put the values in the place of a range such as "-5:25:5", both ends included."""
        if not isinstance(values, dict):
            return values
        return {key: values_of_range(given) if isinstance(given, str) else given for key, given in values.items()}

    @model_validator(mode="after")
    def consistent(self) -> "Scenario":
        if self.warmup_s >= self.duration_s:
            raise ValueError(f"warmup_s = {self.warmup_s:g} leaves nothing of duration_s = {self.duration_s:g}")
        labels = [policy.label for policy in self.policy]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(f"two policies are called '{label}'; give one a name")
        for key, given in (("channel.mean_snr_db", self.channel.mean_snr_db), ("uplink.weights", self.uplink.weights)):
            if isinstance(given, list) and len(given) != self.traffic.devices:
                raise ValueError(f"{key} has {len(given)} values for traffic.devices = {self.traffic.devices}")
        for policy in self.policy:
            if policy.skip_rate == "matched":
                self.matched(policy)
        geometry = self.channel.geometry
        if geometry is not None and geometry.p0_dbm is not None:
            if self.uplink.snr_rule == "power-limited":
                raise ValueError(
                    "channel.geometry.p0_dbm: power control sets a power for each hertz; it goes with "
                    'uplink.snr_rule = "per-hertz", not with "power-limited"'
                )
            if self.device.radio is not None and self.device.radio.transmit_power_dbm is not None:
                raise ValueError(
                    "device.radio.transmit_power_dbm: channel.geometry.p0_dbm sets the power; leave one out"
                )
        check_classes(self.device_class, self.traffic.devices, labels, self.ignored_of_classes)
        self._refuse_endless_work()
        return self

    @property
    def groups(self) -> list["Scenario"]:
        """Return the scenario as each class meets it, with its device and traffic; without classes, itself."""
        return [
            self.model_copy(update={"device": group.device(self.device), "traffic": group.traffic(self.traffic)})
            for group in self.device_class
        ] or [self]

    @property
    def ignored_of_classes(self) -> list[str]:
        """Return the keys of a class that have no effect in this scenario."""
        kind = self.traffic.kind
        unread = [key for key, kinds in READ_BY.items() if kind not in kinds and ":" not in kind]
        one_each = {"mean_snr_db": self.channel.mean_snr_db, "weight": self.uplink.weights}
        return unread + [key for key, given in one_each.items() if isinstance(given, list)]

    def _refuse_endless_work(self) -> None:
        """Raise ValueError for a simulation beyond any machine, or one whose clock would stand still."""
        traffic = self.traffic
        most = {}
        if isinstance(self.channel.coherence_s, float | int) and self.channel.kind != "constant":
            most["duration_s / channel.coherence_s: fading blocks"] = self.duration_s / self.channel.coherence_s
        for key, tti_s in (("uplink", self.uplink.tti_s), ("downlink", self.downlink.tti_s)):
            if tti_s is not None:
                most[f"duration_s / {key}.tti_s: slots"] = self.duration_s / tti_s
        if traffic.kind in READ_BY["rate_per_s"]:
            rate = max(group.traffic.rate_per_s for group in self.groups)
            most["traffic.devices x rate_per_s x duration_s: requests"] = traffic.devices * self.duration_s * rate
        for group in self.groups:
            cycles_s, presence, burst = {}, group.traffic.presence, group.traffic.burst
            if presence is not None:
                cycles_s["presence: comings and goings"] = presence.mean_present_s + presence.mean_absent_s
            if burst is not None:
                cycles_s["burst: bursts and calms"] = burst.mean_burst_s + burst.mean_calm_s
            for what, cycle_s in cycles_s.items():
                changes = 2 * traffic.devices * self.duration_s / cycle_s
                most[f"traffic.{what}"] = max(changes, most.get(f"traffic.{what}", 0.0))
        for what, count in most.items():
            _refuse_beyond_any_machine(what, count)

    def check_tokens(self, label: str, *, always_asks: bool) -> None:
        """Raise ValueError for a policy under which the clock would stand still, or with too many tokens.

        Where the LLM is asked about every token (`always_asks`) the GPUs set a pace, too.
        """
        station = self.base_station
        own_s = min(group.own_s for group in self.groups)
        if always_asks:
            least_s = station.service.least_s
            paced = station.gpus * station.max_batch / least_s * self.duration_s
            tokens = min(self.traffic.devices * self.duration_s / (own_s + least_s), paced)
        elif own_s == 0.0:
            raise ValueError(
                f"{label}: a token that is kept takes no time at all; device.slm_token_s, "
                "device.slm_prefill_token_s or traffic.think_time_s must be greater than 0"
            )
        else:
            tokens = self.traffic.devices * self.duration_s / own_s
        _refuse_beyond_any_machine(f"tokens of {label}", tokens)

    @property
    def tokens_about(self) -> float:
        """Return about how many tokens a simulation may commit: what phones draft, GPUs generate, or is asked."""
        traffic, station, own_s = self.traffic, self.base_station, min(group.own_s for group in self.groups)
        together = min(station.gpus * station.max_batch, traffic.devices)
        generated = together / station.service.least_s * self.duration_s
        drafted = traffic.devices * self.duration_s / own_s if own_s else generated
        most = max(drafted, generated) if any(policy.kind == "llm" for policy in self.policy) else drafted
        if traffic.kind not in READ_BY["rate_per_s"]:
            return most
        rate = max(group.traffic.rate_per_s for group in self.groups)
        return min(most, traffic.devices * self.duration_s * rate * traffic.max_tokens)

    @property
    def tells_energy(self) -> bool:
        """Say whether a phone's power is known: a GPU's alone, which presets bring, tells no energy."""
        return self.device.radio is not None or any(group.device.power_w is not None for group in self.groups)

    @property
    def transmit_power_w(self) -> float:
        """Return a phone's transmit power over the whole band; with power control, the most it may use."""
        geometry, radio = self.channel.geometry, self.device.radio
        power_dbm = POWER_DBM if geometry is None else geometry.max_power_dbm
        if radio is not None and radio.transmit_power_dbm is not None:
            power_dbm = radio.transmit_power_dbm
        return float(10.0 ** (power_dbm / 10.0)) / 1000.0

    @property
    def own_s(self) -> float:
        """Return the least seconds of a kept token, its part of the pause before the answer included."""
        traffic, device = self.traffic, self.device
        pauses_s = {"closed": traffic.think_time_s} | dict.fromkeys(READ_BY["rate_per_s"], 1 / traffic.rate_per_s)
        before_s = pauses_s.get(traffic.kind, 0.0) + device.slm_prefill_token_s
        return device.slm_token_s + before_s / traffic.max_tokens

    def matched(self, policy: Policy) -> Policy:
        """Return the policy whose skip rate a `matched` one meets. Raises ValueError if there is none."""
        gates = [other for other in self.policy if other.kind == "u-hlm" and other.threshold is not None]
        if policy.match is None:
            candidates = gates[:1]
        else:
            candidates = [other for other in self.policy if other.label == policy.match]
            candidates = candidates or [other for other in self.policy if other.kind == policy.match]
        if len(candidates) != 1 or candidates[0] not in gates:
            labels = ", ".join(f"'{other.label}'" for other in gates)
            key = f"match = '{policy.match}'" if policy.match else "skip_rate = 'matched'"
            raise ValueError(
                f"{policy.label}: {key} must name one u-hlm with a threshold; there are {labels or 'none'}"
            )
        return candidates[0]


def _refuse_beyond_any_machine(what: str, count: float) -> None:
    if count > MAX_STEPS:
        raise ValueError(f"{what}: up to {count:.2g} in one simulation; at most {MAX_STEPS:g} fit")
