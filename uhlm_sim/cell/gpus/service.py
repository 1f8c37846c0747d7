"""How long a batch takes at the base station: fitted times, a roofline, a table, or a function of the user's own."""

from collections.abc import Callable
from math import inf, isfinite
from typing import Any, Protocol

import numpy as np

from channel_models.text_table import read_table
from uhlm_sim.errors import ScenarioError, SimulationError
from uhlm_sim.rng import stream
from uhlm_sim.scenario import Scenario, Service
from uhlm_sim.seams import Named, Seam

Times = Callable[[int], float]
COLUMNS = ["new_tokens", "seconds"]


class ServiceModel(Protocol):
    """Returns what gives the seconds of one batch from its number of new tokens, batch by batch.

    `service` holds the scenario's c_s and its other numbers; `rng` is the replication's own stream. A model of the
    user's own takes its `params` as keyword arguments too, and any model `max_batch`, the most jobs of a batch, if it
    has a parameter of that name.
    """

    def __call__(self, service: Service, rng: np.random.Generator) -> Times: ...


def fitted(service: Service, rng: np.random.Generator) -> Times:  # noqa: ARG001  nothing is random
    """Give a step the same time up to some new tokens, and a straight line's beyond: what was fitted to measurements.

    t(n) = c_s + attention_s + s_s_per_token max(0, n - free_tokens): a roofline's shape, flat while reading the weights
    takes longer than computing (Williams, Waterman and Patterson, Roofline: an insightful visual performance model,
    CACM 2009). A preset's source says what it was fitted to. Left out: how the time grows with what the answers
    already hold; `attention_s` is the same always.
    """
    return service.seconds


def roofline(service: Service, rng: np.random.Generator, *, max_batch: int) -> Times:  # noqa: ARG001
    """Give what a step needs at least, from the sizes of model and GPU: reading all weights, or computing.

    t(n) = attention_s + max(P b / W, 2 P (min(n, J) / m_d + max(0, n - J) / m_p) / F) with P parameters of b bytes, the
    GPU's peak F [FLOP/s] and memory bandwidth W [byte/s], and the shares of the peak m_d in decoding and m_p in prefill
    (Williams, Waterman and Patterson, Roofline: an insightful visual performance model, CACM 2009). Up to J = max_batch
    positions are priced as decoding, one a job; the others as prefill. Reading keys and values is added by
    s_s_per_context: their bytes a position over W, if they are known. Left out: the computing of attention, launches.
    """
    parameters, peak = service.parameters or inf, service.peak_flop_per_s or inf
    read_s = parameters * (service.bytes_per_parameter or inf) / (service.memory_byte_per_s or inf)
    decode_s = 2 * parameters / peak / (service.mfu_decode or inf)
    prefill_s = 2 * parameters / peak / (service.mfu_prefill or inf)

    def seconds(new_tokens: int) -> float:
        compute_s = decode_s * min(new_tokens, max_batch) + prefill_s * max(0, new_tokens - max_batch)
        return service.attention_s + max(read_s, compute_s)

    return seconds


def table(service: Service, rng: np.random.Generator) -> Times:  # noqa: ARG001
    """Give what a CSV file says, the columns new_tokens and seconds, with straight lines between its rows.

    t(n) = t_i + (n - n_i) (t_j - t_i) / (n_j - n_i) between rows i and j = i + 1: linear interpolation (Press,
    Teukolsky, Vetterling and Flannery, Numerical Recipes, 2007, chapter 3). Below the first row its seconds hold,
    beyond the last one its last slope, which the report calls an extrapolation. Left out: whatever isn't a matter of n.
    Raises ScenarioError for a file that can't be read or isn't such a table: new_tokens must rise from row to row, and
    seconds be greater than 0 and not fall with the last row.
    """
    tokens, seconds = _read_table(str(service.path))
    slope = (seconds[-1] - seconds[-2]) / (tokens[-1] - tokens[-2]) if len(tokens) > 1 else 0.0

    def of(new_tokens: int) -> float:
        beyond = slope * max(0.0, new_tokens - tokens[-1])
        return float(np.interp(new_tokens, tokens, seconds)) + beyond

    return of


SERVICES: dict[str, Any] = {"fitted": fitted, "roofline": roofline, "table": table}


SERVICE = Seam(
    "Service times",
    ("base_station.service.kind",),
    SERVICES,
    ("the table base_station.service", "a random generator"),
    offers={"max_batch": "base_station.max_batch"},
    params="params",
    files=("path",),
)


def service_times(scenario: Scenario, replication: int, named: Named) -> Times:
    """Return new tokens of a batch -> seconds, for one replication.

    Raises ScenarioError for a model that can't be called with its params, or a wrong table. What code of the user's own
    returns is looked at batch by batch: SimulationError unless it is a finite number greater than 0.
    """
    service = scenario.base_station.service
    model: ServiceModel = named.bind({"max_batch": scenario.base_station.max_batch})
    times = model(service, stream(scenario.seed, "service", replication))
    if not named.is_own:
        return times
    if not callable(times):
        raise SimulationError(f"{service.kind}: returned {times!r}; it must return a function of a batch's new tokens")

    def checked(new_tokens: int) -> float:
        seconds: Any = times(new_tokens)
        if not isinstance(seconds, int | float | np.number) or not 0.0 < seconds < inf:
            raise SimulationError(
                f"{service.kind}: gave {seconds!r} as the seconds of a batch of {new_tokens} new tokens; it must give "
                "a finite number greater than 0"
            )
        return float(seconds)

    return checked


def _read_table(path: str) -> tuple[list[float], list[float]]:
    where = f"base_station.service.path = '{path}'"
    try:
        rows = read_table(path)
        tokens, seconds = (rows.numbers(rows.column(name)).tolist() for name in COLUMNS)
    except ValueError as error:
        raise ScenarioError(f"{where}: must have numbers in the columns {', '.join(COLUMNS)} ({error})") from None
    if not tokens or not all(later > sooner >= 0 for sooner, later in zip(tokens, [*tokens[1:], inf], strict=True)):
        raise ScenarioError(f"{where}: new_tokens must be at least one number of 0 or more, rising from row to row")
    if not all(isfinite(value) and value > 0 for value in seconds) or seconds[-1] < seconds[-2:][0]:
        raise ScenarioError(f"{where}: seconds must be finite, greater than 0, and not fall with the last row")
    return tokens, seconds
