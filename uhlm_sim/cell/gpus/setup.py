"""Makes the scenario's base station: batch rule, order, memory and service times."""

from collections.abc import Callable, Sequence

import numpy as np
import simpy

from uhlm_sim.cell.gpus.base_station import BaseStation
from uhlm_sim.cell.gpus.batching import BatchRule, Order, bound, continuous, first_come
from uhlm_sim.cell.gpus.service import service_times
from uhlm_sim.cell.jobs import Job
from uhlm_sim.cell.phones.answers import Answers
from uhlm_sim.cell.phones.arrivals import requests_of
from uhlm_sim.cell.phones.policies import ReadyPolicy
from uhlm_sim.cell.phones.population import Who
from uhlm_sim.cell.phones.request_file import Requests
from uhlm_sim.errors import ScenarioError
from uhlm_sim.scenario import Scenario
from uhlm_sim.seams import Named, NamedFunctions


def make_base_station(
    env: simpy.Environment,
    scenario: Scenario,
    replication: int,
    *,
    policy: ReadyPolicy,
    rows: Requests | None,
    functions: NamedFunctions,
    send_down: Callable[[Job], None] | None = None,
) -> BaseStation:
    """Return the base station of one replication. Raises ScenarioError for functions that can't be called so."""
    station = scenario.base_station
    return BaseStation(
        env,
        service_s=service_times(scenario, replication, functions["base_station.service.kind"]),
        gpus=station.gpus,
        max_batch=station.max_batch,
        join_shortest=station.queue == "join-shortest",
        rule=bind_rule(scenario, functions["base_station.batch_rule"]),
        order=bind_order(scenario, functions["base_station.order"]),
        kv_tokens=kv_tokens(scenario, policy, rows),
        chunk_tokens=station.chunk_tokens,
        s_s_per_context=station.s_s_per_context,
        send_down=send_down,
    )


def kv_tokens(scenario: Scenario, policy: ReadyPolicy, rows: Requests | None) -> int | None:
    """Return how many positions each GPU remembers, None if all that its phones could make it remember fit.

    A limit that the scenario gives is always simulated. The one that a preset's GPU brings is where all phones at once,
    each with the longest prompt and answer, would go beyond it: below, no request is ever evicted and no job waits.
    With a queue each, GPUs always have theirs, since then a request stays where it began.
    """
    station, traffic = scenario.base_station, scenario.traffic
    capacity = station.kv_capacity_tokens
    if capacity is None or station.limits_memory:
        return capacity
    if rows is None:
        prompt_tokens = Answers.of_scenario(policy, scenario).longest_prompt_tokens
    else:
        prompt_tokens = int(rows.prompt_tokens.max())
    most = traffic.devices * (scenario.tokens.context_tokens + prompt_tokens + traffic.max_tokens)
    queues = station.gpus if station.queue == "join-shortest" else 1
    return capacity if queues > 1 or most > capacity * station.gpus else None


def bind_rule(scenario: Scenario, named: Named) -> BatchRule | None:
    """Return the scenario's batch rule, None for the one that never waits. Raises ScenarioError."""
    station = scenario.base_station
    values = {"min_batch": station.min_batch, "max_wait_s": station.max_wait_s, "max_batch": station.max_batch}
    rule = bound(named, values)
    return None if named.function is continuous else rule


def bind_order(scenario: Scenario, named: Named) -> Order | None:
    """Return the key of the scenario's order, None for that of arrival. Raises ScenarioError."""
    order = bound(named, {"ttft_s": scenario.slo.ttft_s, "tpot_s": scenario.slo.tpot_s})
    return None if named.function is first_come else order


def check_base_station(
    scenario: Scenario, policies: list[ReadyPolicy], people: Sequence[Who], functions: NamedFunctions
) -> None:
    """Raise ScenarioError for a rule or order that can't be bound, a batch that never fills, or too little memory.

    Whoever waits for `min_batch` jobs in a queue of its own may find the others in front of other GPUs: with N phones,
    of which each has one job at a time, some of G queues has ceil(N / G) at least when all of them wait. Phones of a
    class that is always under `slm` never have one.
    """
    station, phones = scenario.base_station, _fewest_senders(scenario, policies, people)
    rule = bind_rule(scenario, functions["base_station.batch_rule"])
    bind_order(scenario, functions["base_station.order"])
    queues = station.gpus if station.queue == "join-shortest" else 1
    together = -(-phones // queues)
    waits_for_ever = rule is not None and station.batch_rule != "wait"
    if waits_for_ever and station.min_batch is not None and station.min_batch > together:
        sending = "phones" if phones == scenario.traffic.devices else "phones that send"
        there = f"{phones} {sending}" if queues == 1 else f"{phones} {sending} at {queues} queues"
        raise ScenarioError(
            f"base_station.min_batch = {station.min_batch}: must be at most {together}: of {there} no more need ever "
            "be there, and all would wait for ever"
        )
    rows = requests_of(scenario, functions["traffic.kind"])
    for policy in policies:
        of_a_gpu = kv_tokens(scenario, policy, rows)
        if of_a_gpu is None:
            continue
        capacity, most = of_a_gpu * station.gpus // queues, _most_positions(scenario, policy, rows)
        if most > capacity:
            key = "kv_tokens" if station.kv_tokens else "kv_bytes" if station.kv_bytes else f"llm = '{station.llm}'"
            raise ScenarioError(
                f"base_station.{key}: the LLM remembers {capacity} positions, and a request of {policy.label} up to "
                f"{most}: each must fit alone"
            )


def _fewest_senders(scenario: Scenario, policies: list[ReadyPolicy], people: Sequence[Who]) -> int:
    """Return the least number of phones that send jobs under any policy; policies that send none don't count."""
    scheme_of = {policy.label: policy.scheme for policy in policies}
    class_schemes = [scheme_of.get(group.policy or "") for group in scenario.device_class] or [None]
    counts = [sum(not (class_schemes[who.group] or policy.scheme).never_asks for who in people) for policy in policies]
    return min((count for count in counts if count), default=len(people))


def _most_positions(scenario: Scenario, policy: ReadyPolicy, rows: Requests | None) -> int:
    """Return the most positions that a request makes the LLM remember: its prompt's and all but its last token's."""
    traffic, context_tokens = scenario.traffic, scenario.tokens.context_tokens
    if rows is not None:
        positions = rows.prompt_tokens + np.minimum(rows.output_tokens, traffic.max_tokens)
        return int(positions.max()) - 1 + context_tokens
    sizes = Answers.of_scenario(policy, scenario).sizes()
    return max(prompt + min(tokens, traffic.max_tokens) - 1 + context_tokens for prompt, tokens in sizes)
