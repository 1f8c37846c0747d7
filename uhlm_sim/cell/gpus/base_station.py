"""The base station's compute: GPUs that verify jobs in batches, from one queue or one each."""

from collections import deque
from collections.abc import Callable
from functools import partial
from math import inf

import simpy
from simpy.events import EventPriority

from uhlm_sim.cell.gpus.batching import BatchRule, Order, Ordered
from uhlm_sim.cell.gpus.chunks import Split
from uhlm_sim.cell.gpus.kv_cache import KvCache
from uhlm_sim.cell.jobs import Counters, Job, Wakeup

LAST = EventPriority(2)  # SimPy has 0 (urgent) and 1 (normal): this comes after every other event of the same instant


class Line:
    """A queue, the GPUs that serve it, and the memory that they share."""

    __slots__ = ("alarm_s", "begun", "idle", "look", "looking", "memory", "present", "queue")

    def __init__(self, gpus: int, queue: deque[Job] | Ordered, memory: KvCache | None) -> None:
        self.idle = gpus
        self.queue = queue
        self.memory = memory
        self.present = 0  # jobs waiting or in service
        self.begun: list[Split] = []  # of GPUs between two steps
        self.looking = False
        self.look: Callable[[simpy.Event], None]
        self.alarm_s = inf  # when the rule has asked to be asked again


class BaseStation:
    """`gpus` identical servers that take jobs in batches of at most `max_batch`, from one queue or one each.

    A free GPU looks at its queue after all other events of that instant and takes jobs in the queue's order: at once,
    or when `rule(waiting, oldest_s)` says so (see `gpus/batching.py`). A step of n new positions, the sum of the
    jobs' `llm_tokens`, takes `service_s(n)` seconds and ends for all its jobs together: they go to `send_down`; without
    one `done` of each happens then, or its `rest_s` later. Nothing is preempted. `order(job)` is the queue's key,
    arrival if None.

    With `join_shortest` each GPU has a queue of its own, and a job goes to the one with the fewest jobs waiting or in
    service, of equals to the first. With `kv_tokens` each GPU remembers so many positions, and those behind one queue
    share theirs (see `gpus/kv_cache.py`): whoever is first in the queue and doesn't fit waits, nobody overtakes,
    and until `end_request` a request stays in the queue that its first job joined. Without, every GPU remembers all.

    With `chunk_tokens` a step processes at most so many positions, and a job takes as many steps as it needs (see
    `uhlm_sim.cell.gpus.chunks`). A GPU that has jobs begun goes on at once, and takes whoever waits along.
    """

    def __init__(
        self,
        env: simpy.Environment,
        *,
        service_s: Callable[[int], float],
        gpus: int = 1,
        max_batch: int = 1,
        join_shortest: bool = False,
        rule: BatchRule | None = None,
        order: Order | None = None,
        kv_tokens: int | None = None,
        chunk_tokens: int | None = None,
        send_down: Callable[[Job], None] | None = None,
    ) -> None:
        self.counters = Counters()
        self.kv_counters = Counters()
        self.gpus = gpus
        self.kv_capacity_tokens = 0 if kv_tokens is None else kv_tokens * gpus
        self._env = env
        self._service_s = service_s
        self._max_batch = max_batch
        self._send_down = send_down
        self._rule = rule
        self._chunk_tokens = chunk_tokens
        self._lines = []
        lines = gpus if join_shortest else 1
        for _ in range(lines):
            memory = None if kv_tokens is None else KvCache(self.kv_capacity_tokens // lines, self.kv_counters)
            line = Line(gpus // lines, deque() if order is None else Ordered(order), memory)
            line.look = partial(self._look, line)
            self._lines.append(line)
        self._only = self._lines[0] if len(self._lines) == 1 else None
        self._memories = [line.memory for line in self._lines if line.memory is not None]
        self._line_of: dict[int, Line] = {}  # by device, with memory
        self._present = 0
        self._busy_gpus = 0
        self._settled_s = 0.0

    def submit(self, job: Job) -> None:
        """Take a job into a queue, now."""
        job.received_s = self.settle()
        self.counters.arrivals += 1
        self._present += 1
        line = self._only or self._join(job.device)
        line.present += 1
        line.queue.append(job)
        if line.idle and not line.looking:
            self._look_later(line)

    def end_request(self, device: int) -> None:
        """Free what the memory holds of a device's request, now."""
        self.settle()
        line = self._only or self._line_of.pop(device, None)
        if line is not None and line.memory is not None:
            line.memory.forget(device)
            if line.queue and line.idle and not line.looking:
                self._look_later(line)

    def settle(self) -> float:
        """Bring the counters up to the present, and return it."""
        now = self._env.now
        elapsed = now - self._settled_s
        if elapsed > 0.0:
            counters = self.counters
            counters.present_s += self._present * elapsed
            counters.busy_s += self._busy_gpus * elapsed
            for memory in self._memories:
                self.kv_counters.present_s += len(memory) * elapsed
                self.kv_counters.busy_s += memory.held_tokens * elapsed
            self._settled_s = now
        return now

    def _join(self, device: int) -> Line:
        line = self._line_of.get(device)
        if line is None:
            line = min(self._lines, key=_present)
            if self._memories:
                self._line_of[device] = line
        return line

    def _look_later(self, line: Line) -> None:
        line.looking = True
        look = Wakeup(self._env)
        look.callbacks.append(line.look)
        look.after(0.0, LAST)

    def _look(self, line: Line, _event: simpy.Event) -> None:
        line.looking = False
        now = self.settle()
        while line.begun:
            split = line.begun.pop(0)
            split.join(self._take(line, self._max_batch - len(split.jobs)), now)
            self._step(line, split, now)
        while line.queue and line.idle and (self._rule is None or self._may_start(line, self._rule, now)):
            batch = self._take(line, self._max_batch)
            if not batch:
                break  # for want of memory
            line.idle -= 1
            self._busy_gpus += 1
            if self._chunk_tokens is None:
                self._serve(line, batch, now)
            else:
                split = Split(self._chunk_tokens)
                split.join(batch, now)
                self._step(line, split, now)

    def _may_start(self, line: Line, rule: BatchRule, now: float) -> bool:
        """Ask the rule whether a step may start now; where it says later, look again then."""
        queue = line.queue
        oldest_s = queue[0].received_s if isinstance(queue, deque) else min(job.received_s for job in queue)
        start_s = rule(len(queue), oldest_s)
        if start_s <= now:
            return True
        if start_s < line.alarm_s:
            line.alarm_s = start_s
            alarm = Wakeup(self._env)
            alarm.callbacks.append(partial(self._ring, line))
            alarm.after(start_s - now, LAST)
        return False

    def _ring(self, line: Line, event: simpy.Event) -> None:
        line.alarm_s = inf
        self._look(line, event)

    def _take(self, line: Line, most: int) -> list[Job]:
        queue, memory = line.queue, line.memory
        if memory is None:
            return [queue.popleft() for _ in range(min(len(queue), most))]
        batch: list[Job] = []
        while queue and len(batch) < most and memory.admit(queue[0]):
            batch.append(queue.popleft())
        return batch

    def _serve(self, line: Line, batch: list[Job], now: float) -> None:
        new_tokens = sum(job.llm_tokens for job in batch)
        for job in batch:
            job.verify_started_s = now
            job.steps = 1
            job.batch_jobs = len(batch)
            job.batch_tokens = new_tokens
        service = self._env.timeout(self._service_s(new_tokens))
        service.callbacks.append(partial(self._finish, line, batch))

    def _finish(self, line: Line, batch: list[Job], _event: simpy.Event) -> None:
        now = self.settle()
        line.idle += 1
        self._busy_gpus -= 1
        self._dismiss(line, batch, now)
        if line.queue and not line.looking:
            self._look_later(line)

    def _step(self, line: Line, split: Split, now: float) -> None:
        taken = split.next_tokens()
        seconds = self._service_s(sum(taken))
        split.step(taken, now, seconds)
        service = self._env.timeout(seconds)
        service.callbacks.append(partial(self._end_step, line, split))

    def _end_step(self, line: Line, split: Split, _event: simpy.Event) -> None:
        now = self.settle()
        self._dismiss(line, split.finished(), now)
        if split.jobs:
            line.begun.append(split)
        else:
            line.idle += 1
            self._busy_gpus -= 1
        if (line.queue or split.jobs) and not line.looking:
            self._look_later(line)

    def _dismiss(self, line: Line, jobs: list[Job], now: float) -> None:
        self._present -= len(jobs)
        line.present -= len(jobs)
        self.counters.departures += len(jobs)
        if line.memory is not None:
            line.memory.serve(jobs)
        for job in jobs:
            job.verified_s = now
            if self._send_down is None:
                job.returned_s = now
                job.done.after(job.rest_s)
                continue
            self._send_down(job)
            if job.last:
                self.end_request(job.device)


def _present(line: Line) -> int:
    return line.present
