"""Arrivals of requests at the phones: one function for each kind of traffic, and phones that join and leave.

A kind takes the scenario and the device's own generator and returns next_arrival(free_s): the time of the device's
next request, `free_s` being when its last answer was whole (infinity at the end of the run, so that open arrivals that
still wait are told from a closed loop). What else it needs it asks for by the name of a parameter, see `TRAFFIC`; all
other parameters are constants from the scenario's `traffic.params`. Two properties it states as attributes that are
true: `closed_loop`, if a phone's next request comes after its last answer (otherwise arrivals are open), and
`reads_file`, if requests are the rows of the request file `traffic.file`, answer lengths included.
"""

from collections.abc import Callable, Iterator
from math import inf
from typing import Any

import numpy as np

from uhlm_sim.cell.phones.population import Who
from uhlm_sim.cell.phones.request_file import Requests, rows_of
from uhlm_sim.errors import SimulationError
from uhlm_sim.rng import stream
from uhlm_sim.scenario import Scenario
from uhlm_sim.seams import Named, Seam

NextArrival = Callable[[float], float]
Arrivals = Callable[..., NextArrival]
MOST_AT_ONCE = 10_000  # requests of one device at one instant


def closed(scenario: Scenario, rng: np.random.Generator) -> NextArrival:
    """Think, ask, wait, repeat: the next request comes an exponential think time after the phone was free.

    arrival = free + Exp(think_time_s): a closed queueing network with think times (Scherr, An Analysis of Time-Shared
    Computer Systems, 1967). At most one request a phone is under way. Left out: users who give up.
    """
    mean_s = scenario.traffic.think_time_s
    return lambda free_s: free_s + mean_s * rng.standard_exponential()


def poisson(scenario: Scenario, rng: np.random.Generator) -> NextArrival:
    """Ask at random times of a constant rate, whatever the phone does: a Poisson process.

    arrival_n = arrival_(n-1) + Exp(1 / rate_per_s), a gap of that mean (Kleinrock, Queueing Systems, volume 1, 1975,
    chapter 2). A request that finds its phone busy waits for it. Left out: users who ask less while they wait.
    """
    last_s = 0.0

    def next_arrival(_free_s: float) -> float:
        nonlocal last_s
        last_s += rng.standard_exponential() / scenario.traffic.rate_per_s
        return last_s

    return next_arrival


def bursty(scenario: Scenario, rng: np.random.Generator, *, who: Who, replication: int) -> NextArrival:
    """Ask in bursts: a Poisson process whose rate alternates between two values, of mean rate rate_per_s.

    A Markov-modulated Poisson process of two states (Fischer and Meier-Hellstern, The Markov-modulated Poisson process
    cookbook, Performance Evaluation 1993): rates l1, l2, mean sojourns 1/r1, 1/r2, p1 = r2/r = 1 - p2, r = r1 + r2. Its
    index of dispersion of counts is 1 + 2 p1 p2 (l1 - l2)^2 / (l r) (1 - (1 - exp(-r t)) / (r t)), l = p1 l1 + p2 l2.
    Each phone has a chain of its own, or all phones of the cell one. It begins in the steady state. Unit exponential
    gaps are spent at the rate of the moment, so a chain moves nobody's gaps. Left out: bursts of some phones only.
    """
    burst = scenario.traffic.burst
    assert burst is not None  # the scenario fills it in
    of_all = burst.of == "cell"
    seed = scenario.seed
    chain = stream(seed, "bursts", replication) if of_all else who.stream(seed, "bursts", replication)
    rates = [scenario.traffic.rate_per_s * factor for factor in (burst.calm_factor, burst.factor)]
    sojourns = alternate(chain, burst.mean_calm_s, burst.mean_burst_s)
    state, end_s = next(sojourns)
    now_s = 0.0

    def next_arrival(_free_s: float) -> float:
        nonlocal state, end_s, now_s
        need = rng.standard_exponential()
        while now_s <= scenario.duration_s and (end_s - now_s) * rates[state] < need:
            need -= (end_s - now_s) * rates[state]
            now_s = end_s
            state, end_s = next(sojourns)
        now_s += need / rates[state] if now_s <= scenario.duration_s else need
        return now_s

    return next_arrival


def replay(scenario: Scenario, rng: np.random.Generator, *, who: Who) -> NextArrival:  # noqa: ARG001
    """Replay a recorded trace of requests, row by row.

    arrival_n = the device's n-th row: trace-driven simulation (Jain, The Art of Computer Systems Performance Analysis,
    1991, chapter 24). A row's prompt and output tokens are honoured, see `phones/request_file.py`. Left out: what
    was asked, since a trace has no text, and a user who would wait for an answer before asking on.
    """
    traffic = scenario.traffic
    arrived_s = iter(rows_of(traffic).of_device(who.device, traffic.devices).arrived_s.tolist())
    return lambda _free_s: next(arrived_s, inf)


vars(closed)["closed_loop"] = vars(replay)["reads_file"] = True
ARRIVALS: dict[str, Arrivals] = {"closed": closed, "poisson": poisson, "bursty": bursty, "replay": replay}
TRAFFIC = Seam(
    "Traffic",
    ("traffic.kind",),
    ARRIVALS,
    ("the scenario", "the device's random generator"),
    offers={"who": "the device, a `Who`", "replication": "the replication's number"},
    giver="the cell",
    params="params",
    files=("file",),
)


def alternate(rng: np.random.Generator, first_mean_s: float, second_mean_s: float) -> Iterator[tuple[int, float]]:
    """Yield the states 0 and 1 in turn, each with its end [s]: exponential sojourns, in the steady state at 0 s."""
    state = int(rng.random() * (first_mean_s + second_mean_s) >= first_mean_s)
    end_s = 0.0
    while True:
        end_s += (first_mean_s, second_mean_s)[state] * rng.standard_exponential()
        yield state, end_s
        state = 1 - state


def arrivals_of(scenario: Scenario, who: Who, replication: int, named: Named) -> NextArrival:
    """Return a device's next_arrival, its presence on the cell applied.

    What code of the user's own returns is looked at call by call: SimulationError unless it is a time that is at least
    the one before, in a closed loop at least the one when the phone was free.
    """
    presence, is_closed = scenario.traffic.presence, named.states("closed_loop")
    kind: Arrivals = named.bind({"who": who, "replication": replication})
    next_arrival = kind(scenario, who.stream(scenario.seed, "arrivals", replication))
    if named.is_own:
        next_arrival = _checked(named.name, next_arrival, closed_loop=is_closed)
    if presence is None:
        return next_arrival
    while_present = _think_while_present if is_closed else _ask_while_present
    comes_and_goes = who.stream(scenario.seed, "presence", replication)
    there = alternate(comes_and_goes, presence.mean_present_s, presence.mean_absent_s)
    return while_present(next_arrival, there, scenario.duration_s)


def requests_of(scenario: Scenario, named: Named) -> Requests | None:
    """Return the rows of the scenario's request file, where its traffic reads it. Raises ScenarioError if bad."""
    traffic = scenario.traffic
    return rows_of(traffic) if named.states("reads_file") and traffic.file is not None else None


def _think_while_present(
    next_arrival: NextArrival, there: Iterator[tuple[int, float]], duration_s: float
) -> NextArrival:
    """Let a think time pass only while the phone is on the cell, so that its n-th think is the same whatever happens.

    A phone that is away when its answer is whole thinks from its return on: it finishes what it began.
    """
    away, end_s = next(there)

    def next_present(free_s: float) -> float:
        nonlocal away, end_s
        at_s, left_s = free_s, next_arrival(0.0)
        while at_s <= duration_s and (away or end_s - at_s < left_s):  # nothing after the end is looked at
            if end_s > at_s:
                left_s -= 0.0 if away else end_s - at_s
                at_s = end_s
            away, end_s = next(there)
        return at_s + left_s

    return next_present


def _ask_while_present(next_arrival: NextArrival, there: Iterator[tuple[int, float]], duration_s: float) -> NextArrival:
    """Leave out the requests that come while the phone is away: they are lost to the cell."""
    away, end_s = next(there)

    def next_present(free_s: float) -> float:
        nonlocal away, end_s
        while True:
            arrived_s = next_arrival(free_s)
            while end_s <= arrived_s <= duration_s:
                away, end_s = next(there)
            if not away or arrived_s > duration_s:
                return arrived_s
            free_s = max(free_s, end_s)  # nobody is asked again before the return

    return next_present


def _checked(name: str, next_arrival: Any, *, closed_loop: bool) -> NextArrival:
    if not callable(next_arrival):
        raise SimulationError(f"{name}: returned {next_arrival!r}; it must return a function of a time")
    last_s, at_once = 0.0, 0

    def checked(free_s: float) -> float:
        nonlocal last_s, at_once
        arrived_s = next_arrival(free_s)
        last_s = free_s if closed_loop else last_s
        if not isinstance(arrived_s, int | float | np.number) or not arrived_s >= last_s:
            raise SimulationError(
                f"{name}: gave {arrived_s!r} as the time of a request after one at {last_s:g} s; it must give seconds, "
                "none before the last (infinity: no more)"
            )
        at_once = at_once + 1 if last_s == arrived_s < inf and not closed_loop else 0
        if at_once > MOST_AT_ONCE:
            raise SimulationError(f"{name}: gave more than {MOST_AT_ONCE:,} requests of one device at {last_s:g} s")
        last_s = float(arrived_s)
        return last_s

    return checked
