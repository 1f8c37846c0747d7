"""The engine: one simulation of one policy in one random world. The only place that turns a scenario into objects."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any

import numpy as np
import pandas as pd
import simpy

from uhlm_sim.cell.gpus.setup import make_base_station
from uhlm_sim.cell.jobs import Counters, Job, Wakeup
from uhlm_sim.cell.laws import check_records
from uhlm_sim.cell.named import find_names
from uhlm_sim.cell.phones.answers import Answers
from uhlm_sim.cell.phones.arrivals import arrivals_of, requests_of
from uhlm_sim.cell.phones.phone import Log, Phone
from uhlm_sim.cell.phones.policies import ReadyPolicy, payload_costs
from uhlm_sim.cell.phones.population import population
from uhlm_sim.cell.phones.request_file import Requests
from uhlm_sim.cell.phones.rounds import Answer, Walk
from uhlm_sim.cell.radio.air import Air
from uhlm_sim.cell.radio.fading import find_fading, upload_gains
from uhlm_sim.cell.radio.mean_snr import mean_snr_db
from uhlm_sim.cell.radio.setup import make_downlink, make_uplink
from uhlm_sim.cell.radio.uplink import ROUNDING
from uhlm_sim.cell.records import Records, make_records
from uhlm_sim.scenario import Scenario
from uhlm_sim.seams import NamedFunctions


def simulate(
    scenario: Scenario,
    policy: ReadyPolicy,
    replication: int,
    *,
    of_class: Mapping[str, ReadyPolicy] | None = None,
    functions: NamedFunctions | None = None,
) -> Records:
    """Simulate one cell for `duration_s` under one policy and return what happened, checked.

    `functions` are those that the scenario names (None: built-in ones only, looked up here). `of_class` has, by label,
    the policies that some device class always runs.
    What the world brings (fades, think times, prompts) hangs on (seed, replication, device) and not on the policy, so
    policies of one replication can be compared in pairs. Raises SimulationError if a law of conservation is broken.
    """
    env = simpy.Environment()
    seed = scenario.seed
    vocabulary_size = scenario.tokens.vocabulary_size or policy.source.vocabulary_size
    people, groups = population(scenario), scenario.groups
    runs = [(of_class or {}).get(group.policy or "", policy) for group in scenario.device_class] or [policy]
    walks: list[Walk] = []
    costs = [payload_costs(group, vocabulary_size) for group in groups]
    answers = [Answers(run, cost, walks) for run, cost in zip(runs, costs, strict=True)]
    functions = find_names(scenario) if functions is None else functions
    arrivals = functions["traffic.kind"]
    rows = requests_of(scenario, arrivals)
    fading_of = find_fading(scenario, functions["channel.kind"])
    snr_db = mean_snr_db(scenario, replication, people)
    downlink = make_downlink(
        env, scenario, replication, snr_db, people=people, functions=functions, fading_of=fading_of
    )
    base_station = make_base_station(
        env,
        scenario,
        replication,
        policy=policy,
        rows=rows,
        functions=functions,
        send_down=None if downlink is None else downlink.send,
    )
    uplink, air = make_uplink(
        env,
        scenario,
        replication,
        snr_db,
        people=people,
        functions=functions,
        fading_of=fading_of,
        deliver=base_station.submit,
    )
    log = Log()
    upload = after_access(env, scenario.uplink.access_s, uplink.send)
    phones = [
        Phone(
            env,
            who.device,
            next_arrival=arrivals_of(groups[who.group], who, replication, arrivals),
            next_answer=next_answers(
                None if rows is None else rows.of_device(who.device, len(people)),
                answers[who.group],
                who.stream(seed, "prompts", replication),
            ),
            upload=upload,
            submit=base_station.submit,
            gain_of=upload_gains(scenario, fading_of(who.device), replication, who) if air.per_upload else None,
            downlink_s=scenario.base_station.downlink_s,
            log=log,
            end_request=base_station.end_request if base_station.kv_capacity_tokens else None,
            downlink_is_shared=downlink is not None,
            cell=SeenCell(env, uplink.counters, base_station.counters, air, who.device, scenario),
        )
        for who in people
    ]
    for phone in phones:
        env.process(phone.run())

    stations = []
    for until_s in (scenario.warmup_s, scenario.duration_s):
        if until_s > 0.0:
            env.run(until=until_s)
        uplink.settle()
        base_station.settle()
        stations.append(station_row("uplink", uplink.counters, 1, until_s))
        stations.append(station_row("base_station", base_station.counters, base_station.gpus, until_s))
        if downlink is not None:
            downlink.settle()
            stations.append(station_row("downlink", downlink.counters, 1, until_s))
        if base_station.kv_capacity_tokens:
            kept = base_station.kv_counters, base_station.kv_capacity_tokens
            stations.append(station_row("kv_cache", *kept, until_s))
    for phone in phones:
        phone.close(scenario.duration_s, open_loop=not arrivals.states("closed_loop"))

    records = make_records(
        log,
        walks,
        pd.DataFrame(stations),
        duration_s=scenario.duration_s,
        mean_snr_db=snr_db,
        device_class=[scenario.device_class[who.group].name for who in people] if scenario.device_class else None,
        sending=scenario.device.radio is not None,
        clamped_uploads=air.clamped,
    )
    check_records(records, access_s=scenario.uplink.access_s)
    return records


@dataclass(frozen=True, eq=False)
class SeenCell:
    """The cell as one phone's scheme with `looks_at_cell` sees it, from the stations' counters and its own SNR."""

    env: simpy.Environment
    uplink: Counters
    base_station: Counters
    air: Air
    device: int
    scenario: Scenario
    memory: dict[str, Any] = field(default_factory=dict)

    @property
    def now_s(self) -> float:
        return float(self.env.now)

    @property
    def snr(self) -> float:
        air = self.air
        if air.per_upload:  # the gain of the next upload isn't known yet
            return float(air.mean_snr[self.device])
        if air.coherence_s is not None and not self.active_uploads:  # blocks pass unseen where nothing is sent
            air.enter(int(self.env.now / air.coherence_s * (1.0 + ROUNDING)))
        return float(air.snr[self.device])

    @property
    def active_uploads(self) -> int:
        return self.uplink.arrivals - self.uplink.departures

    @property
    def jobs_present(self) -> int:
        return self.base_station.arrivals - self.base_station.departures

    def visit_s(self, bits: float) -> float:
        uplink, station = self.scenario.uplink, self.scenario.base_station
        snr = self.snr  # in the present block, whose efficiencies are then at hand
        per_upload = self.air.per_upload
        efficiency = self.air.efficiency_of(np.array(snr)) if per_upload else self.air.efficiency()[self.device]
        bits_per_s = uplink.bandwidth_hz * float(efficiency)
        upload_s = bits * (self.active_uploads + 1) / bits_per_s if bits_per_s else inf
        steps = 1 + self.jobs_present // (station.gpus * station.max_batch)
        return uplink.access_s + upload_s + steps * station.service.least_s + station.downlink_s


def after_access(env: simpy.Environment, access_s: float, send: Callable[[Job], None]) -> Callable[[Job], None]:
    """Return how a phone uploads: it asks for the uplink, and sends after the time of access."""
    if not access_s:
        return send

    def ask(job: Job) -> None:
        granted = Wakeup(env)
        granted.callbacks.append(lambda _: send(job))
        granted.after(access_s)

    return ask


def next_answers(rows: Requests | None, answers: Answers, rng: np.random.Generator) -> Callable[[], Answer]:
    """Return the function that gives a phone's next answer: to any prompt, or to its next row of a request file."""
    return answers.asked_by(rng) if rows is None else answers.of_rows(rows, rng)


def station_row(name: str, counters: Counters, servers: int, at_s: float) -> dict[str, object]:
    """Return a station's counters as a row; of a memory, `servers` is its capacity in positions."""
    return {
        "station": name,
        "at_s": at_s,
        "arrivals": counters.arrivals,
        "departures": counters.departures,
        "present_s": counters.present_s,
        "busy_s": counters.busy_s,
        "servers": servers,
        "bits": counters.bits,
        "blocks": counters.blocks,
        "mcs_sum": counters.mcs_sum,
        "block_errors": counters.block_errors,
        "retransmissions": counters.retransmissions,
        "lost_blocks": counters.lost_blocks,
        "block_bits": counters.block_bits,
    }
