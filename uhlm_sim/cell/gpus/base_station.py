"""The base station's compute: GPUs that verify jobs in batches, from one queue or one each."""

from collections.abc import Callable, Generator
from math import inf
from operator import attrgetter

import simpy
from simpy.events import EventPriority

from uhlm_sim.cell.gpus.batching import BatchRule, Order
from uhlm_sim.cell.gpus.chunks import Split
from uhlm_sim.cell.gpus.kv_cache import KvCache
from uhlm_sim.cell.gpus.line import FREE, GOES_ON, Line
from uhlm_sim.cell.jobs import Counters, Job, Wakeup

INSTANT = 1e-12  # as far as rounding may part what happens at once, relative to 1 s and the time of the run


class BaseStation:
    """`gpus` identical servers that take jobs in batches of at most `max_batch`, from one queue or one each.

    A free GPU looks at its queue after all other events of that instant (of a picosecond, since sums of times are
    rounded) and takes jobs in the queue's order: at once,
    or when `rule(waiting, oldest_s)` says so (see `gpus/batching.py`). A step of n new positions, the sum of the
    jobs' `llm_tokens`, takes `service_s(n)` seconds, and `s_s_per_context` for each of their `context_tokens`. It ends
    for all its jobs together: they go to `send_down`; without one `done` of each happens then, or its `rest_s` later.
    Nothing is preempted. `order(job)` is the queue's key, arrival if None.

    With `join_shortest` each GPU has a queue of its own, and a job goes to the one with the fewest jobs waiting or in
    service, of equals to the first. With `kv_tokens` each GPU remembers so many positions, and those behind one queue
    share theirs (see `gpus/kv_cache.py`): whoever is first in the queue and doesn't fit waits, and all behind it,
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
        s_s_per_context: float = 0.0,
        send_down: Callable[[Job], None] | None = None,
    ) -> None:
        self.counters = Counters()
        self.kv_counters = Counters()
        self.gpus = gpus
        self.kv_capacity_tokens = 0 if kv_tokens is None else kv_tokens * gpus
        self._env = env
        self._service_s = service_s
        self._max_batch = max_batch
        self._s_s_per_context = s_s_per_context
        self._send_down = send_down
        lines = gpus if join_shortest else 1
        self._lines = []
        for _ in range(lines):
            memory = None if kv_tokens is None else KvCache(self.kv_capacity_tokens // lines, self.kv_counters)
            self._lines.append(Line(env, rule, order, memory))
        self._only = self._lines[0] if len(self._lines) == 1 else None
        self._memories = [line.memory for line in self._lines if line.memory is not None]
        self._line_of: dict[int, Line] = {}  # by device, with memory
        self._present = 0
        self._busy_gpus = gpus  # until each has begun to wait
        self._settled_s = 0.0
        for gpu in range(gpus):
            line = self._lines[gpu % lines]
            env.process(self.run(line) if chunk_tokens is None else self.run_in_chunks(line, chunk_tokens))

    def run(self, line: Line) -> Generator[simpy.Event, object, None]:
        """Be one GPU: take a batch, serve it for its time, hand it on."""
        while True:
            batch = yield from self._next_batch(line)
            now, new_tokens = self._env.now, 0
            for job in batch:
                new_tokens += job.llm_tokens
            for job in batch:
                job.verify_started_s = now
                job.steps = 1
                job.batch_jobs = len(batch)
                job.batch_tokens = new_tokens
            yield self._env.timeout(self._service_s(new_tokens) + self._context_s(batch))
            self._hand_on(line, batch)

    def run_in_chunks(self, line: Line, chunk_tokens: int) -> Generator[simpy.Event, object, None]:
        """Be one GPU: take a batch, serve it step by step, hand on who is through, and let others join the rest."""
        while True:
            split = Split(chunk_tokens)
            split.join((yield from self._next_batch(line)), self._env.now)
            while split.jobs:
                new_tokens = split.next_tokens()
                step_s = self._service_s(sum(new_tokens)) + self._context_s(split.jobs)
                split.step(new_tokens, self._env.now, step_s)
                yield self._env.timeout(step_s)
                self._hand_on(line, split.finished())
                if split.jobs:
                    yield self._after(0.0, GOES_ON)  # who comes or goes at this instant
                    yield from self._rest_of_instant(GOES_ON)
                    split.join(line.take(self._max_batch - len(split.jobs)), self._env.now)

    def _context_s(self, jobs: list[Job]) -> float:
        """Return the seconds that a step takes for the positions that the LLM holds of its jobs' requests already."""
        per_position_s = self._s_s_per_context
        return per_position_s * sum(job.context_tokens for job in jobs) if per_position_s else 0.0

    def _next_batch(self, line: Line) -> Generator[simpy.Event, object, list[Job]]:
        """Be free until there is a batch to take: jobs, the rule's permission, and memory for the first."""
        self._busy_gpus -= 1
        line.free += 1
        now = self._env.now
        starts_s = now if line.queue else inf  # jobs may have come while it was busy
        while True:
            yield line.look.until(starts_s, now)
            now = self.settle()
            if self._env.peek() <= now + INSTANT * (1.0 + now):
                yield from self._rest_of_instant(FREE)
                now = self.settle()
            starts_s = line.starts_s()
            if starts_s <= now:
                batch = line.take(self._max_batch)
                if batch:
                    line.free -= 1
                    self._busy_gpus += 1
                    return batch
                starts_s = inf  # until memory is freed

    def _rest_of_instant(self, priority: EventPriority) -> Generator[simpy.Event, object, None]:
        """Wait for what belongs to this instant, but comes within a picosecond (of a second of the run) by rounding.

        On a channel that stands still phones fall into step: uploads that end with a step of a GPU, or with each other,
        do so at times whose sums were rounded apart.
        """
        now = self._env.now
        end_s = now + INSTANT * (1.0 + now)
        while now < (next_s := self._env.peek()) <= end_s:
            yield self._after(next_s - now, priority)
            now = self._env.now

    def _after(self, delay_s: float, priority: EventPriority) -> Wakeup:
        event = Wakeup(self._env)
        event.after(delay_s, priority)
        return event

    def submit(self, job: Job) -> None:
        """Take a job into a queue, now."""
        job.received_s = self.settle()
        self.counters.arrivals += 1
        request = job.request
        if request is not None and not request.number:
            request.number = self.counters.arrivals
        self._present += 1
        line = self._only or self._join(job.device)
        line.present += 1
        line.queue.append(job)
        if line.free:
            line.call(job.received_s)

    def end_request(self, device: int) -> None:
        """Free what the memory holds of a device's request, now."""
        now = self.settle()
        line = self._only or self._line_of.pop(device, None)
        if line is not None and line.memory is not None:
            line.memory.forget(device)
            line.call(now)

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
            line = min(self._lines, key=attrgetter("present"))
            if self._memories:
                self._line_of[device] = line
        return line

    def _hand_on(self, line: Line, jobs: list[Job]) -> None:
        """Let jobs go that are verified now."""
        now = self.settle()
        self._present -= len(jobs)
        line.present -= len(jobs)
        self.counters.departures += len(jobs)
        if line.memory is not None:
            line.memory.serve(jobs)
        send_down = self._send_down
        for job in jobs:
            job.verified_s = now
            if send_down is None:
                job.returned_s = now
                job.done.after(job.rest_s)
                continue
            send_down(job)
            if job.last:
                self.end_request(job.device)
        line.call(now)  # the rule is asked at every end of a step, and memory may be free
