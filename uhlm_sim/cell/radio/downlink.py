"""The shared downlink: answers to all phones drain through one band, those to one phone in order."""

from collections import deque
from typing import Any

import simpy

from uhlm_sim.cell.jobs import Counters, Job
from uhlm_sim.cell.radio.uplink import Uplink


class Downlink:
    """A shared band like the uplink's, with a queue for each device: it sends one answer of a device at a time.

    `options` are those of `Uplink`; the allocator sees the answers on the air. A job's `done` happens `rest_s` after
    its `answer_bits` are over the air, or at once if it is `early`. `counters` count answers from the verdict to their
    last bit, those that wait for one before them included. Left out: block errors, what the base station sends besides.
    """

    def __init__(self, env: simpy.Environment, **options: Any) -> None:
        self.counters = Counters()
        self._env = env
        self._band = Uplink(env, deliver=self._down, **options)
        self._queues: dict[int, deque[Job]] = {}
        self._present = 0
        self._settled_s = 0.0

    def send(self, job: Job) -> None:
        """Take a verified job's answer, now."""
        self.settle()
        self.counters.arrivals += 1
        self._present += 1
        queue = self._queues.setdefault(job.device, deque())
        queue.append(job)
        if job.early:
            job.done.after(0.0)
        if len(queue) == 1:
            self._begin(job)

    def settle(self) -> float:
        """Bring the counters up to the present, and return it."""
        now = self._band.settle()
        self.counters.present_s += self._present * (now - self._settled_s)
        self.counters.busy_s = self._band.counters.busy_s
        self._settled_s = now
        return now

    def _begin(self, job: Job) -> None:
        self._band.send(Job(job.device, job.answer_bits, 0, self._env.now, job.done))

    def _down(self, answer: Job) -> None:
        queue = self._queues[answer.device]
        job = queue.popleft()
        job.returned_s = self.settle()
        self.counters.departures += 1
        self.counters.bits += job.answer_bits
        self._present -= 1
        if queue:
            self._begin(queue[0])
        if not job.early:
            job.done.after(job.rest_s)
