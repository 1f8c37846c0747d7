"""A queue of jobs before one GPU or several: who is next, whether a step may start yet, and what the memory admits."""

from collections import deque
from math import inf

import simpy
from simpy.events import EventPriority

from uhlm_sim.cell.alarm import Alarm
from uhlm_sim.cell.gpus.batching import BatchRule, Order, Ordered
from uhlm_sim.cell.gpus.kv_cache import KvCache
from uhlm_sim.cell.jobs import Job

# SimPy has the priorities 0 (urgent) and 1 (normal): GPUs look at their queue after every other event of an instant,
# and those that have jobs begun before those that are free.
GOES_ON, FREE = EventPriority(2), EventPriority(3)


class Line:
    """Jobs that wait for GPUs, in order of arrival or of the least `order(job)`.

    `present` counts the jobs waiting or in service, `free` the GPUs that wait for `look`, the alarm at which they look
    at the queue. `memory` is what these GPUs share, None without limit. Whoever is first and doesn't fit holds up all.
    """

    def __init__(
        self, env: simpy.Environment, rule: BatchRule | None, order: Order | None, memory: KvCache | None
    ) -> None:
        self.queue: deque[Job] | Ordered = deque() if order is None else Ordered(order)
        self.memory = memory
        self.present = 0
        self.free = 0
        self.look = Alarm(env, FREE)
        self._rule = rule

    def call(self, now: float) -> None:
        """Have the free GPUs look at the queue, at the end of this instant."""
        if self.free and self.queue:
            self.look.no_later_than(now, now)

    def starts_s(self) -> float:
        """Return when the rule lets the next step start; infinity if no job waits, or it waits for more jobs."""
        queue = self.queue
        if not queue:
            return inf
        if self._rule is None:
            return -inf
        oldest_s = queue[0].received_s if isinstance(queue, deque) else min(job.received_s for job in queue)
        return self._rule(len(queue), oldest_s)

    def take(self, most: int) -> list[Job]:
        """Take out the first jobs of the queue, as many as the memory has room for."""
        queue, memory = self.queue, self.memory
        if memory is None:
            return [queue.popleft() for _ in range(min(len(queue), most))]
        batch: list[Job] = []
        while queue and len(batch) < most and memory.admit(queue[0]):
            batch.append(queue.popleft())
        return batch
