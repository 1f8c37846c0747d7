"""What a scenario names is found and tried before the first event."""

import inspect
from collections.abc import Callable, Mapping
from functools import partial

from channel_models import CHANNELS
from uhlm_sim.cell.allocators import ALLOCATORS, SLOTTED, asked_of_the_uplink
from uhlm_sim.cell.arrivals import ARRIVALS, asked_of_the_cell
from uhlm_sim.cell.fading import find_fading
from uhlm_sim.cell.places import mean_snr_db
from uhlm_sim.cell.policies import ReadyPolicy
from uhlm_sim.cell.population import population, weights_of
from uhlm_sim.cell.request_file import read_requests
from uhlm_sim.cell.service import SERVICES, service_arguments, service_times
from uhlm_sim.cell.serving import check_base_station
from uhlm_sim.errors import ScenarioError
from uhlm_sim.names import find_kind
from uhlm_sim.rng import stream
from uhlm_sim.scenario import Scenario

Params = Mapping[str, object]


def check_scenario(scenario: Scenario, policies: list[ReadyPolicy], *, allow_plugins: bool = False) -> None:
    """Find everything that the scenario names, before the first event. Raises ScenarioError."""
    channel, service = scenario.channel, scenario.base_station.service
    _check_traffic(scenario, policies, allow_plugins=allow_plugins)
    _check_allocator(scenario, allow_plugins=allow_plugins)
    fading = find_fading(scenario, allow_plugins=allow_plugins)(scenario.traffic.devices - 1)
    _check_call(f"channel.params of {channel.kind}", fading.func, (None, 1), fading.keywords)
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
        mean_snr_db(scenario, replication)
    times = find_kind(service.kind, SERVICES, "base_station.service.kind", allow_plugins=allow_plugins)
    arguments = service_arguments(times, scenario)
    _check_call(f"base_station.service.params of {service.kind}", times, (service, None), arguments)
    if service.kind in SERVICES:
        service_times(scenario, 0)
    check_base_station(scenario, policies, allow_plugins=allow_plugins)
    for policy, given in zip(policies, scenario.policy, strict=True):
        keeps = policy.keeps.func if isinstance(policy.keeps, partial) else policy.keeps
        _check_call(f"policy.params of {policy.label}", keeps, (None,), given.params)


def _check_allocator(scenario: Scenario, *, allow_plugins: bool) -> None:
    uplink = scenario.uplink
    allocator = find_kind(uplink.allocator, ALLOCATORS, "uplink.allocator", allow_plugins=allow_plugins)
    try:
        asked = asked_of_the_uplink(allocator, uplink.params)
    except ValueError as error:
        raise ScenarioError(f"uplink.params of {uplink.allocator}: {error}") from None
    if "weight" in asked and weights_of(scenario, population(scenario)) is None:
        raise ScenarioError(
            f"uplink.weights: {uplink.allocator} needs one for each phone, or a device class with a weight"
        )
    if SLOTTED & set(asked) and uplink.tti_s is None:
        raise ScenarioError(f"uplink.tti_s: {uplink.allocator} needs the length of a slot")


def _check_traffic(scenario: Scenario, policies: list[ReadyPolicy], *, allow_plugins: bool) -> None:
    traffic = scenario.traffic
    kind = find_kind(traffic.kind, ARRIVALS, "traffic.kind", allow_plugins=allow_plugins)
    asked_of_the_cell(kind, traffic.params)
    if traffic.kind != "replay" or traffic.file is None:
        return
    requests = read_requests(traffic.file)
    named = 0 if requests.device is None else int(requests.device.max()) + 1
    if named > traffic.devices:
        raise ScenarioError(f"traffic.devices = {traffic.devices}: {traffic.file} has requests of {named} devices")
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


def _check_call(key: str, function: Callable[..., object], given: tuple[object, ...], params: Params) -> None:
    try:
        inspect.signature(function).bind(*given, **params)
    except (TypeError, ValueError) as error:
        raise ScenarioError(f"{key}: {error}") from None
