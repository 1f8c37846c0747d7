"""Checks of a scenario with its policies, before the first event."""

import numpy as np
from numpy.typing import NDArray

from channel_models import linear_to_db, mcs_thresholds
from uhlm_sim.cell.gpus.service import service_times
from uhlm_sim.cell.gpus.setup import check_base_station
from uhlm_sim.cell.named import find_names
from uhlm_sim.cell.phones.answers import Answers
from uhlm_sim.cell.phones.arrivals import requests_of
from uhlm_sim.cell.phones.policies import POLICY, ReadyPolicy
from uhlm_sim.cell.phones.population import Who, population, weights_of
from uhlm_sim.cell.phones.request_file import Requests
from uhlm_sim.cell.radio.allocators import SLOTTED
from uhlm_sim.cell.radio.fading import CHANNEL, find_fading
from uhlm_sim.cell.radio.mean_snr import mean_snr_db
from uhlm_sim.cell.radio.setup import downlink_snr_db
from uhlm_sim.errors import ScenarioError
from uhlm_sim.rng import stream
from uhlm_sim.scenario import Scenario
from uhlm_sim.seams import Named, NamedFunctions

Floats = NDArray[np.float64]
LOOKED_INTO = (POLICY, CHANNEL)  # elsewhere: policies are ready here, a channel's parameters hang on its table


def check_scenario(scenario: Scenario, policies: list[ReadyPolicy], functions: NamedFunctions | None = None) -> None:
    """Check what needs the functions, files and tokens of a scenario, before the first event. Raises ScenarioError.

    `functions` are those that it names (None: built-in ones only, looked up here).
    """
    functions, people = find_names(scenario) if functions is None else functions, population(scenario)
    for named in functions.values():
        if named.seam.params and named.seam not in LOOKED_INTO:
            named.check(named.asks)
    rows = requests_of(scenario, functions["traffic.kind"])
    if rows is not None:
        _check_requests(scenario, policies, rows)
    _check_allocator(scenario, functions["uplink.allocator"], scenario.uplink.tti_s, people)
    if scenario.downlink.kind == "shared":
        _check_allocator(scenario, functions["downlink.allocator"], scenario.downlink.tti_s, people)
    _check_radio(scenario)
    _check_channel(scenario, functions["channel.kind"])
    for replication in range(scenario.replications if scenario.channel.kind == "constant" else 1):
        snr_db = mean_snr_db(scenario, replication, people)
        if scenario.channel.kind == "constant":
            _check_reach(scenario, snr_db)
    if not functions["base_station.service.kind"].is_own:
        service_times(scenario, 0, functions["base_station.service.kind"])
    check_base_station(scenario, policies, people, functions)


def _check_channel(scenario: Scenario, named: Named) -> None:
    fading = find_fading(scenario, named)(scenario.traffic.devices - 1)
    if not named.is_own:
        try:
            next(fading(stream(scenario.seed, "check"), 1))
        except (TypeError, ValueError) as error:
            raise ScenarioError(f"channel.params of {named.name}: {error}") from None


def _check_allocator(scenario: Scenario, named: Named, tti_s: float | None, people: list[Who]) -> None:
    if "weight" in named.asks and weights_of(scenario, people) is None:
        raise ScenarioError(f"uplink.weights: {named.name} needs one for each phone, or a device class with a weight")
    if SLOTTED & set(named.asks) and tti_s is None:
        raise ScenarioError(f"{named.key.partition('.')[0]}.tti_s: {named.name} needs the length of a slot")


def _check_radio(scenario: Scenario) -> None:
    """Refuse an adaptive link or a shared downlink on a channel, or with slots, that it can't have."""
    adaptive, shared = scenario.uplink.link.kind == "adaptive", scenario.downlink.kind == "shared"
    if adaptive and scenario.uplink.tti_s is None:
        raise ScenarioError("uplink.tti_s: the adaptive link needs the length of a slot, such as 0.001")
    moving = scenario.channel.kind != "constant"
    if scenario.channel.kind == "trace" and scenario.channel.params.get("unit") == "mbit/s":
        if adaptive:
            raise ScenarioError("channel.params.unit = 'mbit/s': needs the rates of uplink.link.kind = 'shannon'")
        for group in scenario.device_class:
            if group.mean_snr_db is not None:
                raise ScenarioError(
                    f"device_class.{group.name}.mean_snr_db: another mean SNR would change the rates of "
                    "channel.params.unit = 'mbit/s'; leave it out"
                )
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


def _check_requests(scenario: Scenario, policies: list[ReadyPolicy], requests: Requests) -> None:
    """Refuse a request file with too many devices, one that comes too late, or rows longer than any answer."""
    traffic = scenario.traffic
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
        longest = max(tokens for _, tokens in Answers.of_scenario(policy, scenario).sizes())
        if longest < traffic.max_tokens:
            raise ScenarioError(
                f"traffic.max_tokens = {traffic.max_tokens}: the longest answer of {policy.label} in the trace has "
                f"{longest} tokens, and a row of {traffic.file} may ask for as many as that at most"
            )
