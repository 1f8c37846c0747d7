"""Device classes: phones with values of their own in place of the scenario's."""

from collections.abc import Collection, Sequence
from itertools import accumulate, pairwise

from pydantic import Field, model_validator

from uhlm_sim.errors import did_you_mean
from uhlm_sim.settings.device import Device
from uhlm_sim.settings.section import Decibels, Seconds, Section, Watts, Weight
from uhlm_sim.settings.traffic import Traffic


class DeviceClass(Section):
    """Phones of one kind; unset keys are as for all phones. They always run `policy`, if set, whatever is compared."""

    name: str = Field(min_length=1, max_length=40, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    count: int | None = Field(None, ge=1, le=100_000, description="phones; or their share of traffic.devices")
    share: float | None = Field(None, gt=0, le=1, description="of traffic.devices, to the nearest phone")
    slm: str | None = Field(None, description="a preset")
    slm_token_s: Seconds | None = None
    slm_prefill_token_s: Seconds | None = None
    uncertainty_s: Seconds | None = None
    power_w: Watts | None = None
    mean_snr_db: Decibels | None = None
    weight: Weight | None = Field(None, description="for the allocator weighted; 1 if unset")
    think_time_s: Seconds | None = None
    rate_per_s: float | None = Field(None, gt=0, le=1e6)
    policy: str | None = Field(None, description="label of one of the scenario's policies")

    @model_validator(mode="after")
    def sized(self) -> "DeviceClass":
        if (self.count is None) == (self.share is None):
            raise ValueError("needs either a count or a share")
        return self

    def device(self, every: Device) -> Device:
        """Return what a phone of this class computes with. Raises ValueError for an unknown preset."""
        given = {name: value for name in Device.model_fields if (value := getattr(self, name, None)) is not None}
        if not given:
            return every
        kept = every.model_dump(exclude_none=True)
        if self.slm is not None:  # a preset brings its own numbers
            kept = {name: kept[name] for name in ("uncertainty_s", "radio") if name in kept}
        return Device.model_validate(kept | given)

    def traffic(self, every: Traffic) -> Traffic:
        """Return the traffic of a phone of this class."""
        given = {"think_time_s": self.think_time_s, "rate_per_s": self.rate_per_s}
        return every.model_copy(update={name: value for name, value in given.items() if value is not None})


def class_sizes(classes: Sequence[DeviceClass], devices: int) -> list[int]:
    """Return how many phones each class has; shares are rounded so that all together are the cell's."""
    if any(group.count is not None for group in classes):
        return [group.count or 0 for group in classes]
    ends = [round(end * devices) for end in accumulate(group.share or 0.0 for group in classes)]
    return [end - start for start, end in pairwise([0, *ends])]


def check_classes(
    classes: Sequence[DeviceClass], devices: int, policies: Collection[str], ignored: Collection[str]
) -> None:
    """Raise ValueError for classes that contradict each other, or that set a key that is `ignored` here."""
    if not classes:
        return
    names = [group.name for group in classes]
    for group in classes:
        where = f"device_class.{group.name}"
        if names.count(group.name) > 1:
            raise ValueError(f"two device classes are called '{group.name}'")
        if group.policy is not None and group.policy not in policies:
            hint = did_you_mean(group.policy, policies)
            raise ValueError(f"{where}.policy = '{group.policy}': must be one of {', '.join(policies)}{hint}")
        for key in ignored:
            if getattr(group, key, None) is not None:
                raise ValueError(f"{where}.{key}: has no meaning here, by traffic.kind or since there is one a phone")
    if len({group.count is None for group in classes}) > 1:
        raise ValueError("device classes have either counts or shares, all of them")
    sizes = class_sizes(classes, devices)
    shares = sum(group.share or 0.0 for group in classes)
    if classes[0].share is not None and abs(shares - 1.0) > 1e-6:
        raise ValueError(f"the shares of the device classes add up to {shares:g}, not to 1")
    if 0 in sizes:
        raise ValueError(f"traffic.devices = {devices} leaves the class {names[sizes.index(0)]} without a phone")
    if sum(sizes) != devices:
        raise ValueError(
            f"the device classes have {sum(sizes)} phones, traffic.devices = {devices}: leave that out, or give shares"
        )
