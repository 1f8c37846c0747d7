"""The base station's compute: GPUs that verify jobs in batches from one queue."""

from collections import deque
from collections.abc import Callable
from functools import partial

import simpy
from simpy.events import EventPriority

from uhlm_sim.cell.jobs import Counters, Job, Wakeup

LAST = EventPriority(2)  # SimPy has 0 (urgent) and 1 (normal): this comes after every other event of the same instant


class BaseStation:
    """A queue of jobs, `gpus` identical servers, and batches of at most `max_batch` jobs, first come, first served.

    A free GPU looks at the queue after all other events of that instant, takes what waits and serves it as one batch
    in `service_s(n)` seconds, n being the sum of the jobs' `llm_tokens`. All jobs of a batch end together: `done` of
    each happens then, or its `rest_s` later. Nothing is preempted. Left out: KV-cache memory, continuous batching.
    """

    def __init__(
        self,
        env: simpy.Environment,
        *,
        service_s: Callable[[int], float],
        gpus: int = 1,
        max_batch: int = 1,
    ) -> None:
        self.counters = Counters()
        self.gpus = gpus
        self._env = env
        self._service_s = service_s
        self._max_batch = max_batch
        self._queue: deque[Job] = deque()
        self._idle_gpus = gpus
        self._in_service = 0
        self._looking = False
        self._settled_s = 0.0

    def submit(self, job: Job) -> None:
        """Take a job into the queue, now."""
        job.received_s = self.settle()
        self.counters.arrivals += 1
        self._queue.append(job)
        self._look_later()

    def settle(self) -> float:
        """Bring the counters up to the present, and return it."""
        now = self._env.now
        elapsed = now - self._settled_s
        if elapsed > 0.0:
            counters = self.counters
            counters.present_s += (len(self._queue) + self._in_service) * elapsed
            counters.busy_s += (self.gpus - self._idle_gpus) * elapsed
            self._settled_s = now
        return now

    def _look_later(self) -> None:
        if self._idle_gpus and not self._looking:
            self._looking = True
            look = Wakeup(self._env)
            look.callbacks.append(self._look)
            look.after(0.0, LAST)

    def _look(self, _event: simpy.Event) -> None:
        self._looking = False
        now = self.settle()
        queue = self._queue
        while queue and self._idle_gpus:
            batch = [queue.popleft() for _ in range(min(len(queue), self._max_batch))]
            new_tokens = sum(job.llm_tokens for job in batch)
            for job in batch:
                job.verify_started_s = now
                job.batch_jobs = len(batch)
                job.batch_tokens = new_tokens
            self._idle_gpus -= 1
            self._in_service += len(batch)
            service = self._env.timeout(self._service_s(new_tokens))
            service.callbacks.append(partial(self._finish, batch))

    def _finish(self, batch: list[Job], _event: simpy.Event) -> None:
        now = self.settle()
        self._idle_gpus += 1
        self._in_service -= len(batch)
        self.counters.departures += len(batch)
        for job in batch:
            job.verified_s = now
            job.done.after(job.rest_s)
        if self._queue:
            self._look_later()
