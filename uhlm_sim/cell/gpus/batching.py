"""Batch rules (when a step starts) and orders (which job is next): one plain function each.

A batch rule is asked when a GPU is free and jobs wait: again at every arrival and at every end of a step. It is given
how many wait and when the oldest came, and returns when a step may start: now if that is past, and not before more jobs
come if it is infinite. An order is asked once a job, as it comes, for a number: the least goes first, and of equal ones
the first to come, or the first request to come where the function states `keeps_requests` (an attribute that is true).
What a function needs beyond that it asks for by the name of a parameter, see `BATCH_RULE` and `ORDER`; all other
parameters are constants from the scenario's `batch_params` or `order_params`.
"""

import heapq
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from math import inf, isnan
from typing import Any

import numpy as np

from uhlm_sim.cell.jobs import Job, Request
from uhlm_sim.errors import SimulationError
from uhlm_sim.seams import Named, Seam

BatchRule = Callable[..., float]
Order = Callable[..., float]


def continuous(waiting: int, oldest_s: float) -> float:  # noqa: ARG001  a rule sees what is there
    """Start the next step at once with whoever is there: no GPU idles while a job waits.

    start = when the oldest came, which is past (Yu, Jeong, Kim, Kim and Chun, Orca: a distributed serving system for
    transformer-based generative models, OSDI 2022: a batch is made anew for every step). Left out: the time that the
    scheduler itself takes.
    """
    return oldest_s


def by_size(waiting: int, oldest_s: float, *, min_batch: int) -> float:
    """Wait until `min_batch` jobs are there, however long that takes.

    start = now for waiting >= min_batch, else never (bulk service with a minimum a and a maximum b: Neuts, A general
    class of bulk queues with Poisson input, Annals of Mathematical Statistics 1967). Left out: see `continuous`.
    """
    return oldest_s if waiting >= min_batch else inf


def by_wait(waiting: int, oldest_s: float, *, min_batch: int, max_wait_s: float) -> float:
    """Wait until `min_batch` jobs are there, but never longer than `max_wait_s` for the oldest.

    start = now for waiting >= min_batch, else oldest + max_wait_s (batching with a timeout, as Crankshaw, Wang, Zhou,
    Franklin, Gonzalez and Stoica, Clipper: a low-latency online prediction serving system, NSDI 2017, delay batches).
    Left out: see `continuous`.
    """
    return oldest_s if waiting >= min_batch else oldest_s + max_wait_s


BATCH_RULES: dict[str, BatchRule] = {"continuous": continuous, "size": by_size, "wait": by_wait}


def first_come(job: Job) -> float:
    """Serve in order of arrival at the base station.

    key = received_s (Kleinrock, Queueing Systems, volume 1, 1975). Left out: what a job costs and what it is worth.
    """
    return job.received_s


def oldest_request(job: Job) -> float:
    """Serve the request that arrived first: answers that have begun go on, and new ones wait until a place is free.

    key = arrived_s of the request (first come, first served by request, as serving engines fill their batches: Kwon et
    al., Efficient memory management for large language model serving with PagedAttention, SOSP 2023). Of requests that
    arrived at once the one whose first job was the first to come, so that the same ones go on. Left out: swaps to the
    host's memory, priorities; where memory is short the least recently used is evicted, not the youngest, and a request
    whose phone drafts is idle then.
    """
    return (job.request or _request_of(job)).arrived_s


oldest_request.keeps_requests = True  # type: ignore[attr-defined]


def shortest_work(job: Job) -> float:
    """Serve the fewest new positions first: verifications before prompts. Nothing that began is interrupted.

    key = llm_tokens as the phone asks for them (Conway, Maxwell and Miller, Theory of Scheduling, 1967: shortest
    processing time first). Left out: ageing, so long prompts may starve; what memory has lost while a job waits.
    """
    return job.llm_tokens


def earliest_deadline(job: Job, *, ttft_s: float, tpot_s: float) -> float:
    """Serve the token with the earliest deadline by its SLO: TTFT for a request's first token, TPOT for all others.

    key = arrived_s + ttft_s at position 0, first_token_s + position x tpot_s at others (Jackson, Scheduling a
    production line to minimize maximum tardiness, 1955). Left out: the downlink, and giving up what is late already.
    """
    request = _request_of(job)
    return request.arrived_s + ttft_s if job.position == 0 else request.first_token_s + job.position * tpot_s


def fewest_uploads(job: Job) -> float:
    """Serve the request with the fewest uploads so far: short requests pass long ones.

    key = the request's uploads, this one included (least attained service first, counted in uploads: Nuyens and
    Wierman, The foreground-background queue, Performance Evaluation 2008). Left out: what each of them cost.
    """
    return _request_of(job).uploads


ORDERS: dict[str, Order] = {
    "first-come": first_come,
    "oldest-request": oldest_request,
    "shortest-work": shortest_work,
    "earliest-deadline": earliest_deadline,
    "fewest-uploads": fewest_uploads,
}


BATCH_RULE = Seam(
    "Batch rules",
    ("base_station.batch_rule",),
    BATCH_RULES,
    ("how many jobs wait", "when the oldest came"),
    offers={name: f"base_station.{name}" for name in ("min_batch", "max_wait_s", "max_batch")},
    params="batch_params",
)
ORDER = Seam(
    "Orders",
    ("base_station.order",),
    ORDERS,
    ("the job",),
    offers={"ttft_s": "slo.ttft_s", "tpot_s": "slo.tpot_s"},
    params="order_params",
)


def bound(named: Named, values: Mapping[str, object]) -> Callable[..., float]:
    """Return a rule or an order with its constants; each number that a user's own function returns is checked.

    Raises ScenarioError if it can't be called so, or asks for what the scenario lacks.
    """
    function: Callable[..., float] = named.bind(values)
    return checked(function, named.name) if named.is_own else function


def checked(function: Callable[..., float], name: str) -> Callable[..., float]:
    """Return a user's function that raises SimulationError where it gives anything but a number."""

    @wraps(function)
    def number(*arguments: object) -> float:
        value: Any = function(*arguments)
        if not isinstance(value, int | float | np.number) or isnan(value):
            raise SimulationError(f"{name}: gave {value!r}; it must give a number")
        return float(value)

    return number


class Ordered:
    """A priority queue: the least key first, of equal ones the first to come. It has the methods that `Line` uses.

    Where the key states that it `keeps_requests` that is whose request's first job was the first to come.
    """

    def __init__(self, key: Order) -> None:
        self._key = key
        self._keeps_requests = bool(getattr(key, "keeps_requests", False))
        self._heap: list[tuple[float, int, Job]] = []
        self._came = 0

    def append(self, job: Job) -> None:
        self._came += 1
        request = job.request
        tie = request.number if self._keeps_requests and request is not None else self._came
        heapq.heappush(self._heap, (self._key(job), tie, job))

    def popleft(self) -> Job:
        return heapq.heappop(self._heap)[2]

    def __getitem__(self, place: int) -> Job:
        return self._heap[place][2]

    def __iter__(self) -> Iterator[Job]:
        return (job for _, _, job in self._heap)

    def __len__(self) -> int:
        return len(self._heap)


def _request_of(job: Job) -> Request:
    if job.request is None:
        raise SimulationError("this order looks at a job's request, and there is none")
    return job.request
