"""The engine: one simulation of one policy in one random world. The only place that turns a scenario into objects."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np
import pandas as pd
import simpy
from numpy.typing import NDArray

from channel_models import CHANNELS, FadingModel, db_to_linear, spectral_efficiency
from uhlm_sim.cell.air import BLOCKS_AHEAD, Air
from uhlm_sim.cell.allocators import ALLOCATORS, asked_of_the_uplink
from uhlm_sim.cell.base_station import BaseStation
from uhlm_sim.cell.device import Answer, Log, Phone
from uhlm_sim.cell.laws import check_records
from uhlm_sim.cell.places import mean_snr_db
from uhlm_sim.cell.policies import Costs, ReadyPolicy, payload_costs, plan_answer
from uhlm_sim.cell.records import Records, make_records
from uhlm_sim.cell.service import SERVICES, service_times
from uhlm_sim.cell.uplink import Uplink
from uhlm_sim.errors import ScenarioError
from uhlm_sim.names import find_kind
from uhlm_sim.rng import stream
from uhlm_sim.scenario import Scenario
from uhlm_sim.tokens.trace import TokenPath

Params = Mapping[str, object]
Fading = partial[Iterator[NDArray[np.float64]]]  # a FadingModel with its parameters


def simulate(scenario: Scenario, policy: ReadyPolicy, replication: int, *, allow_plugins: bool = False) -> Records:
    """Simulate one cell for `duration_s` under one policy and return what happened, checked.

    What the world brings (fades, think times, prompts) hangs on (seed, replication, device) and not on the policy, so
    policies of one replication can be compared in pairs. Raises SimulationError if a law of conservation is broken.
    """
    env = simpy.Environment()
    traffic, seed = scenario.traffic, scenario.seed
    vocabulary_size = scenario.tokens.vocabulary_size or policy.source.vocabulary_size
    answers = Answers(policy, payload_costs(scenario, vocabulary_size))
    fading_of = find_fading(scenario, allow_plugins=allow_plugins)
    snr_db = mean_snr_db(scenario, replication)
    air = make_air(scenario, fading_of, replication, snr_db)
    base_station = BaseStation(
        env,
        service_s=service_times(scenario, replication, allow_plugins=allow_plugins),
        gpus=scenario.base_station.gpus,
        max_batch=scenario.base_station.max_batch,
    )
    allocator = find_kind(scenario.uplink.allocator, ALLOCATORS, "uplink.allocator", allow_plugins=allow_plugins)
    uplink = Uplink(
        env,
        bandwidth_hz=scenario.uplink.bandwidth_hz,
        air=air,
        deliver=base_station.submit,
        allocator=allocator,
        params=scenario.uplink.params,
        weights=None if scenario.uplink.weights is None else np.array(scenario.uplink.weights),
        power_limited=scenario.uplink.snr_rule == "power-limited",
    )
    log = Log()
    phones = [
        Phone(
            env,
            device,
            next_arrival=ARRIVALS[traffic.kind](scenario, stream(seed, "arrivals", replication, device)),
            next_answer=answers.asked_by(stream(seed, "prompts", replication, device)),
            upload=uplink.send,
            submit=base_station.submit,
            gain_of=upload_gains(scenario, fading_of(device), replication, device) if air.per_upload else None,
            downlink_s=scenario.base_station.downlink_s,
            log=log,
        )
        for device in range(traffic.devices)
    ]
    for phone in phones:
        env.process(phone.run())

    stations = []
    for until_s in (scenario.warmup_s, scenario.duration_s):
        if until_s > 0.0:
            env.run(until=until_s)
        stations += [station_row("uplink", uplink, 1, until_s)]
        stations += [station_row("base_station", base_station, base_station.gpus, until_s)]
    for phone in phones:
        phone.close(scenario.duration_s, open_loop=traffic.kind != "closed")

    records = make_records(
        log,
        answers.paths,
        pd.DataFrame(stations),
        duration_s=scenario.duration_s,
        mean_snr_db=snr_db,
        generated=policy.kind == "llm",
        max_tokens=traffic.max_tokens,
        clamped_uploads=air.clamped,
    )
    check_records(records)
    return records


def check_scenario(scenario: Scenario, policies: list[ReadyPolicy], *, allow_plugins: bool = False) -> None:
    """Find everything that the scenario names, before the first event. Raises ScenarioError."""
    channel, service = scenario.channel, scenario.base_station.service
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
    _check_call(f"base_station.service.params of {service.kind}", times, (service, None), service.params)
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
    if "weight" in asked and uplink.weights is None:
        raise ScenarioError(f"uplink.weights: {uplink.allocator} needs one for each phone")


def _check_call(key: str, function: Callable[..., object], given: tuple[object, ...], params: Params) -> None:
    try:
        inspect.signature(function).bind(*given, **params)
    except (TypeError, ValueError) as error:
        raise ScenarioError(f"{key}: {error}") from None


def find_fading(scenario: Scenario, *, allow_plugins: bool = False) -> Callable[[int], Fading]:
    """Return device -> its fading model, with its parameters. Raises ScenarioError for one that can't be had.

    A model that has the parameters `block_s` or `device` is handed the length of a block [s] and the device's number.
    """
    channel = scenario.channel
    fading = find_kind(channel.kind, CHANNELS, "channel.kind", allow_plugins=allow_plugins)
    try:
        asked = {"block_s", "device"} & inspect.signature(fading).parameters.keys()
    except (TypeError, ValueError) as error:
        raise ScenarioError(f"channel.kind = '{channel.kind}': {error}") from None
    if asked and channel.coherence_s == "per-upload":
        raise ScenarioError(
            f"channel.coherence_s = 'per-upload': {channel.kind} goes on from block to block; give a block's seconds"
        )

    def fading_of(device: int) -> Fading:
        handed = {"block_s": channel.coherence_s, "device": device}
        return partial(fading, **{name: handed[name] for name in asked} | channel.params)

    return fading_of


def make_air(
    scenario: Scenario, fading_of: Callable[[int], Fading], replication: int, snr_db: NDArray[np.float64]
) -> Air:
    """Return the channel of every device in one replication, around its mean SNR."""
    channel = scenario.channel
    min_snr = float(db_to_linear(channel.min_snr_db))
    moving = channel.kind != "constant"
    return Air(
        db_to_linear(snr_db),
        partial(
            spectral_efficiency,
            min_snr=min_snr,
            snr_gap=float(db_to_linear(channel.snr_gap_db)),
            max_spectral_efficiency=channel.max_spectral_efficiency,
        ),
        gains_of=lambda device: fading_of(device)(stream(scenario.seed, "fading", replication, device), BLOCKS_AHEAD),
        coherence_s=channel.coherence_s if moving and not isinstance(channel.coherence_s, str) else None,
        per_upload=moving and channel.coherence_s == "per-upload",
        min_snr=min_snr,
    )


class Answers:
    """The answers that phones ask for: drawn prompt by prompt, planned once, kept for the records."""

    def __init__(self, policy: ReadyPolicy, costs: Costs) -> None:
        self.paths: list[TokenPath] = []
        self._policy = policy
        self._costs = costs
        self._known: dict[int, Answer] = {}

    def asked_by(self, rng: np.random.Generator) -> Callable[[], Answer]:
        """Return what a phone's next request asks for, call by call: a prompt and a sample, drawn uniformly."""
        samples = self._policy.source.samples
        choices = self._policy.source.prompts * samples

        def next_answer() -> Answer:
            chosen = int(rng.integers(choices))
            if chosen not in self._known:
                path = self._policy.source.path(*divmod(chosen, samples))
                self._known[chosen] = plan_answer(len(self.paths), path, self._policy, self._costs)
                self.paths.append(path)
            return self._known[chosen]

        return next_answer


def closed_arrivals(scenario: Scenario, rng: np.random.Generator) -> Callable[[float], float]:
    """Return the next arrival in a closed loop: an exponential think time after the phone was free."""
    mean_s = scenario.traffic.think_time_s
    return lambda free_s: free_s + mean_s * rng.standard_exponential()


def poisson_arrivals(scenario: Scenario, rng: np.random.Generator) -> Callable[[float], float]:
    """Return the next arrival of a Poisson process of `rate_per_s`, whatever the phone does."""
    last_s = 0.0

    def next_arrival(_free_s: float) -> float:
        nonlocal last_s
        last_s += rng.standard_exponential() / scenario.traffic.rate_per_s
        return last_s

    return next_arrival


ARRIVALS = {"closed": closed_arrivals, "poisson": poisson_arrivals}


def upload_gains(scenario: Scenario, fading: FadingModel, replication: int, device: int) -> Callable[[int, int], float]:
    """Return (request, position) -> the power gain of that upload: the channel's blocks, one an upload."""
    gains: tuple[int, list[float]] = (-1, [])

    def gain_of(request: int, position: int) -> float:
        nonlocal gains
        if gains[0] != request:
            rng = stream(scenario.seed, "upload fading", replication, device, request)
            gains = (request, np.asarray(next(fading(rng, scenario.traffic.max_tokens))).tolist())
        return gains[1][position]

    return gain_of


def station_row(name: str, station: Uplink | BaseStation, servers: int, at_s: float) -> dict[str, object]:
    """Read a station's counters, brought up to now."""
    station.settle()
    counters = station.counters
    return {
        "station": name,
        "at_s": at_s,
        "arrivals": counters.arrivals,
        "departures": counters.departures,
        "present_s": counters.present_s,
        "busy_s": counters.busy_s,
        "servers": servers,
        "bits": counters.bits,
    }
