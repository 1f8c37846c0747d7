"""What a scenario names is found and tried before the first event."""

import inspect
from collections.abc import Callable, Collection, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from channel_models import CHANNELS, linear_to_db, mcs_thresholds
from uhlm_sim.cell.gpus.service import SERVICES, service_arguments, service_times
from uhlm_sim.cell.gpus.setup import check_base_station
from uhlm_sim.cell.phones.arrivals import ARRIVALS, asked_of_the_cell
from uhlm_sim.cell.phones.policies import ReadyPolicy
from uhlm_sim.cell.phones.population import population, weights_of
from uhlm_sim.cell.phones.request_file import requests_of
from uhlm_sim.cell.radio.allocators import ALLOCATORS, SLOTTED, asked_of_the_uplink
from uhlm_sim.cell.radio.fading import find_fading
from uhlm_sim.cell.radio.mean_snr import mean_snr_db
from uhlm_sim.cell.radio.setup import downlink_snr_db
from uhlm_sim.errors import ScenarioError
from uhlm_sim.names import check_params, find_kind
from uhlm_sim.rng import stream
from uhlm_sim.scenario import Scenario

Floats = NDArray[np.float64]
Params = Mapping[str, object]


def check_scenario(scenario: Scenario, policies: list[ReadyPolicy], *, allow_plugins: bool = False) -> None:
    """Find everything that the scenario names, before the first event. Raises ScenarioError."""
    channel, service = scenario.channel, scenario.base_station.service
    _check_traffic(scenario, policies, allow_plugins=allow_plugins)
    _check_allocator(scenario, downlink=False, allow_plugins=allow_plugins)
    if scenario.downlink.kind == "shared":
        _check_allocator(scenario, downlink=True, allow_plugins=allow_plugins)
    _check_radio(scenario)
    fading = find_fading(scenario, allow_plugins=allow_plugins)(scenario.traffic.devices - 1)
    _check_params(f"channel.params of {channel.kind}", fading.func, 2, channel.params, fading.keywords)
    parameters = inspect.signature(fading.func).parameters
    for name, value in channel.params.items():
        if isinstance(value, str) and name in parameters and parameters[name].annotation is float:
            raise ScenarioError(f"channel.params of {channel.kind}: {name} = '{value}' must be a number")
    if channel.kind in CHANNELS:
        try:
            next(fading(stream(scenario.seed, "check"), 1))
        except (TypeError, ValueError) as error:
            raise ScenarioError(f"channel.params of {channel.kind}: {error}") from None
    for replication in range(scenario.replications if channel.kind == "constant" else 1):
        snr_db = mean_snr_db(scenario, replication)
        if channel.kind == "constant":
            _check_reach(scenario, snr_db)
    times = find_kind(service.kind, SERVICES, "base_station.service.kind", allow_plugins=allow_plugins)
    arguments = service_arguments(times, scenario)
    _check_params(f"base_station.service.params of {service.kind}", times, 2, service.params, arguments)
    if service.kind in SERVICES:
        service_times(scenario, 0)
    check_base_station(scenario, policies, allow_plugins=allow_plugins)
    for policy, given in zip(policies, scenario.policy, strict=True):
        keeps = policy.keeps.func if isinstance(policy.keeps, partial) else policy.keeps
        _check_params(f"policy.params of {policy.label}", keeps, 1, given.params)


def _check_allocator(scenario: Scenario, *, downlink: bool, allow_plugins: bool) -> None:
    table, key = (scenario.downlink, "downlink") if downlink else (scenario.uplink, "uplink")
    allocator = find_kind(table.allocator, ALLOCATORS, f"{key}.allocator", allow_plugins=allow_plugins)
    try:
        asked = asked_of_the_uplink(allocator, table.params)
    except ValueError as error:
        raise ScenarioError(f"{key}.params of {table.allocator}: {error}") from None
    if "weight" in asked and weights_of(scenario, population(scenario)) is None:
        raise ScenarioError(
            f"uplink.weights: {table.allocator} needs one for each phone, or a device class with a weight"
        )
    if SLOTTED & set(asked) and table.tti_s is None:
        raise ScenarioError(f"{key}.tti_s: {table.allocator} needs the length of a slot")


def _check_radio(scenario: Scenario) -> None:
    """Refuse an adaptive link or a shared downlink on a channel, or with slots, that it can't have."""
    adaptive, shared = scenario.uplink.link.kind == "adaptive", scenario.downlink.kind == "shared"
    if adaptive and scenario.uplink.tti_s is None:
        raise ScenarioError("uplink.tti_s: the adaptive link needs the length of a slot, such as 0.001")
    moving = scenario.channel.kind != "constant"
    if adaptive and scenario.channel.params.get("unit") == "mbit/s":
        raise ScenarioError("channel.params.unit = 'mbit/s': needs the rates of uplink.link.kind = 'shannon'")
    for key, here in (("uplink.link.kind = 'adaptive'", adaptive), ("downlink.kind = 'shared'", shared)):
        if here and moving and scenario.channel.coherence_s == "per-upload":
            raise ScenarioError(
                f"channel.coherence_s = 'per-upload': {key} needs a channel that goes on between uploads; "
                "give a block's seconds"
            )


def _check_reach(scenario: Scenario, snr_db: Floats) -> None:
    """Refuse a constant channel on which a phone could never send, or never receive."""
    channel, uplink, link = scenario.channel, scenario.uplink, scenario.uplink.link
    if link.kind == "adaptive" and uplink.tti_s is not None:
        uses = uplink.bandwidth_hz * uplink.tti_s * (1.0 - link.overhead)
        least_db = float(linear_to_db(mcs_thresholds(uses, link.target_block_error)[0]))
        if snr_db.min() < least_db + 0.1:  # thresholds are kept to less
            raise ScenarioError(
                f"channel.mean_snr_db: {snr_db.min():.1f} dB is too little for the lowest modulation and coding, which "
                f"needs {least_db + 0.1:.1f} dB: on a constant channel such a device could never send"
            )
    if scenario.downlink.kind == "shared":
        lowest_db = float(downlink_snr_db(scenario, snr_db).min())
        if lowest_db < channel.min_snr_db:
            raise ScenarioError(
                f"downlink: a mean SNR of {lowest_db:.1f} dB is below channel.min_snr_db = {channel.min_snr_db:g}: "
                "on a constant channel such a device could never receive"
            )


def _check_traffic(scenario: Scenario, policies: list[ReadyPolicy], *, allow_plugins: bool) -> None:
    traffic = scenario.traffic
    kind = find_kind(traffic.kind, ARRIVALS, "traffic.kind", allow_plugins=allow_plugins)
    asked_of_the_cell(kind, traffic.params)
    if traffic.kind != "replay" or traffic.file is None:
        return
    requests = requests_of(traffic)
    named = 0 if requests.device is None else int(requests.device.max()) + 1
    if named > traffic.devices:
        raise ScenarioError(
            f"traffic.devices = {traffic.devices}: {traffic.file} has requests of {named} devices, from 0 on"
        )
    if requests.arrived_s[0] > scenario.duration_s:
        raise ScenarioError(
            f"{traffic.file}: its first request arrives at {requests.arrived_s[0]:g} s, after duration_s = "
            f"{scenario.duration_s:g}; seconds count from the start of the run"
        )
    for policy in policies:
        source = policy.source
        longest = max(len(source.path(p, s)) for p in range(source.prompts) for s in range(source.samples))
        if longest < traffic.max_tokens:
            raise ScenarioError(
                f"traffic.max_tokens = {traffic.max_tokens}: the longest answer of {policy.label} in the trace has "
                f"{longest} tokens, and a row of {traffic.file} may ask for as many as that at most"
            )


def _check_params(
    key: str, function: Callable[..., object], first: int, params: Params, handed: Collection[str] = ()
) -> None:
    try:
        check_params(function, first, params, handed)
    except ValueError as error:
        raise ScenarioError(f"{key}: {error}") from None
