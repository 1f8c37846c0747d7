"""The LLM's KV cache: room for so many positions, and eviction of the least recently used request."""

from collections.abc import Sequence

from uhlm_sim.cell.jobs import Counters, Job


class KvCache:
    """Keys and values of the positions that the LLM has processed, at most `capacity_tokens` of them.

    A request is known by its device, which answers one at a time. A job needs room for all positions of its request up
    to its own, and holds it from its start on. Where that is short, requests that have no job in service are evicted
    whole, the least recently used first; if those in service leave too little, nothing is evicted and the job waits.
    An evicted request's next job must process what was lost again: its `llm_tokens` grow by `recomputed_tokens`. A
    request is used when a job of it starts and when it ends, and forgotten when the request does.

    `counters` are its books as a station of positions: `present_s` is the integral of requests that hold some,
    `busy_s` that of positions held; `arrivals` are requests that came in, `departures` those that were evicted. Left
    out: pages, sharing of common prefixes, swapping to the host's memory.
    """

    def __init__(self, capacity_tokens: int, counters: Counters) -> None:
        self.held_tokens = 0
        self.counters = counters
        self._capacity_tokens = capacity_tokens
        self._tokens: dict[int, int] = {}  # by device, the least recently used first
        self._lost: dict[int, int] = {}
        self._in_service: set[int] = set()

    def __len__(self) -> int:
        """Return how many requests hold memory."""
        return len(self._tokens)

    def admit(self, job: Job) -> bool:
        """Make room for a job that is about to start; return whether it fits."""
        lost = self._lost.get(job.device, 0)
        short = self.held_tokens + job.llm_tokens + lost - self._capacity_tokens
        if short > 0 and not self._evict(short, job.device):
            return False
        job.recomputed_tokens = self._lost.pop(job.device, 0)
        job.llm_tokens += job.recomputed_tokens
        self.counters.arrivals += job.device not in self._tokens
        self._tokens[job.device] = self._tokens.pop(job.device, 0) + job.llm_tokens
        self.held_tokens += job.llm_tokens
        self._in_service.add(job.device)
        return True

    def serve(self, jobs: Sequence[Job]) -> None:
        """Note that the service of jobs has ended, and free the positions of their refused drafts."""
        for job in jobs:
            self._in_service.discard(job.device)
            self._tokens[job.device] = self._tokens.pop(job.device) - job.unused_tokens
            self.held_tokens -= job.unused_tokens

    def forget(self, device: int) -> None:
        """Free what the request of a device held: it has ended."""
        self.held_tokens -= self._tokens.pop(device, 0)
        self._lost.pop(device, None)

    def _evict(self, short: int, for_device: int) -> bool:
        chosen = []
        for device, tokens in self._tokens.items():
            if device != for_device and device not in self._in_service:
                chosen.append(device)
                short -= tokens
                if short <= 0:
                    break
        else:
            return False
        for device in chosen:
            self._lost[device] = self._tokens.pop(device)
            self.held_tokens -= self._lost[device]
        self.counters.departures += len(chosen)
        return True
