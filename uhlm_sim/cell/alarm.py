"""The alarm clock of a station's process: an event at a time that others may bring forward."""

from math import inf

import simpy
from simpy.events import NORMAL, EventCallbacks, EventPriority


class Alarm:
    """An alarm for processes that wait with `yield alarm.until(at_s, now)`; others may bring it forward.

    It rings once at the earliest time that was set, for all who wait; among events of one instant by `priority`. An
    alarm that is brought forward takes those who wait along to another event and leaves the old one with nobody to
    call: so there is no interrupt, and no version to compare. While those whom it woke haven't gone back to sleep, it
    can't be brought forward: they look at what has changed when they do.
    """

    def __init__(self, env: simpy.Environment, priority: EventPriority = NORMAL) -> None:
        self._env = env
        self._priority = priority
        self._ring = Ring(env, [])

    def until(self, at_s: float, now: float) -> simpy.Event:
        """Return the event to wait for: at `at_s`, or earlier if others bring it forward (inf: only then)."""
        has_rung = self._ring.callbacks is None
        if has_rung:
            self._ring = Ring(self._env, [])
        self.no_later_than(at_s, now)
        return self._ring

    def no_later_than(self, at_s: float, now: float) -> None:
        """Ring at a time, at once if it is past, unless that happens earlier anyway."""
        ring = self._ring
        if at_s < ring.at_s and now < ring.at_s:  # else it rings at this instant, or has rung
            if ring.at_s < inf:  # on the schedule, which can't be changed
                self._ring = Ring(self._env, ring.callbacks)
                ring.callbacks = []
                ring = self._ring
            ring.ring_at(at_s, now, self._priority)


class Ring(simpy.Event):
    """An event at a time that is set once, with the callbacks of those who wait already; until then, never."""

    def __init__(self, env: simpy.Environment, waiting: EventCallbacks) -> None:
        self.env, self.callbacks, self.at_s = env, waiting, inf  # what simpy.Event does, for the cost of a call

    def ring_at(self, at_s: float, now: float, priority: EventPriority) -> None:
        """Happen at a time, at once if it is past."""
        delay_s = at_s - now if at_s > now else 0.0
        self.at_s = now + delay_s  # as the schedule rounds it
        self._ok, self._value = True, None  # as simpy.Timeout does: the schedule itself triggers it
        self.env.schedule(self, priority, delay_s)
