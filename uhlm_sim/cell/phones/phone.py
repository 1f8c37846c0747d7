"""The phone: it takes requests one at a time, and plays each answer round by round."""

from array import array
from collections.abc import Callable, Generator, Iterator, Sequence
from math import inf
from struct import Struct

import simpy

from uhlm_sim.cell.jobs import UNKNOWN, Job, Request, Wakeup
from uhlm_sim.cell.phones.rounds import Answer, Cell, Round
from uhlm_sim.errors import SimulationError


class Log:
    """What the phones write down: flat rows of floats, one per request begun and one per round.

    A round of kept drafts has as many times of commitment in `commits_s`, in the order of the rows.
    """

    REQUEST = ("device", "request", "answer", "arrived_s")
    ROUND = (
        *("request_row", "first_position", "sends", "started_s", "sent_s", "received_s", "airtime_s"),
        *("verify_started_s", "verified_s", "returned_s", "committed_s", "payload_bits", "llm_tokens"),
        *("recomputed_tokens", "steps", "batch_jobs", "batch_tokens", "sending_s", "answer_bits"),
        *("drafted", "accepted", "committed", "unused_tokens"),
    )

    _row_of_round = Struct(f"{len(ROUND)}d").pack  # to bytes at once: half the time of adding number by number

    def __init__(self) -> None:
        self.requests = array("d")
        self.rounds = array("d")
        self.commits_s = array("d")

    def begin_request(self, device: int, request: int, answer: Answer, arrived_s: float) -> int:
        """Write a request down and return its row."""
        self.requests.extend((device, request, answer.index, arrived_s))
        return len(self.requests) // len(self.REQUEST) - 1

    def visit(
        self, request_row: int, position: int, visit: Round, started_s: float, job: Job, committed_s: float
    ) -> None:
        """Write down a visit to the base station, with what is known of it."""
        self.rounds.frombytes(
            self._row_of_round(
                request_row, position, 1.0, started_s, job.sent_s, job.received_s, job.airtime_s,
                job.verify_started_s, job.verified_s, job.returned_s, committed_s, job.payload_bits, job.llm_tokens,
                job.recomputed_tokens, job.steps, job.batch_jobs, job.batch_tokens, job.sending_s, job.answer_bits,
                len(visit.drafts_s), visit.accepted, visit.committed, visit.unused_tokens,
            )
        )  # fmt: skip

    def kept(self, request_row: int, position: int, started_s: float, commits_s: Sequence[float]) -> None:
        """Write down a run of kept drafts with the time at which each was committed."""
        end_s, drafts = commits_s[-1], len(commits_s)
        self.commits_s.extend(commits_s)
        self.rounds.frombytes(
            self._row_of_round(
                request_row, position, 0.0, started_s, end_s, end_s, 0.0, end_s, end_s, end_s, end_s,
                0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, drafts, 0.0, drafts, 0.0,
            )
        )  # fmt: skip

    def drafting(self, request_row: int, position: int, started_s: float) -> None:
        """Write down that a token was being drafted when the run ended: whether it is sent isn't known."""
        u = UNKNOWN
        self.rounds.frombytes(
            self._row_of_round(
                request_row, position, u, started_s, u, u, u, u, u, u, u,
                0.0, 0.0, 0.0, 0.0, 0.0, 0.0, u, 0.0, 0.0, 0.0, 0.0, 0.0,
            )
        )  # fmt: skip


class Phone:
    """One device, answering its requests in order; `run()` is its SimPy process.

    `next_arrival(free_s)` gives the time of the next request, `free_s` being when the last token of the one before was
    at the device; a request that arrives earlier waits. `next_answer()` is what the next one asks for. `upload` and
    `submit` hand a job to the uplink or straight to the base station; `gain_of(n, position)` is an upload's own power
    gain where fading is drawn per upload. `end_request(device)` is called, if given, when a request's last token is
    verified, or drafted and kept; where the `downlink_is_shared` the base station knows the former by itself. `cell` is
    what a scheme that chooses round by round may read.

    `free_s` may lie ahead of the clock, by a downlink or a think time. Where the next round is planned it is slept away
    together with that round's drafting, so a visit costs the phone one event.
    """

    def __init__(
        self,
        env: simpy.Environment,
        device: int,
        *,
        next_arrival: Callable[[float], float],
        next_answer: Callable[[], Answer],
        upload: Callable[[Job], None],
        submit: Callable[[Job], None],
        gain_of: Callable[[int, int], float] | None,
        downlink_s: float,
        log: Log,
        end_request: Callable[[int], None] | None = None,
        downlink_is_shared: bool = False,
        cell: Cell | None = None,
    ) -> None:
        self._env = env
        self._device = device
        self._next_arrival = next_arrival
        self._next_answer = next_answer
        self._upload = upload
        self._submit = submit
        self._gain_of = gain_of
        self._downlink_s = downlink_s
        self._log = log
        self._end_request = end_request
        self._downlink_is_shared = downlink_is_shared
        self._cell = cell
        self._requests = 0
        self._now_playing: tuple[int, int, float] = (-1, 0, 0.0)
        self._commits_s: list[float] = []  # of the run of kept drafts under way
        self._visit: tuple[Round, Job] | None = None  # under way
        self._on_the_way: list[tuple[int, int, Round, float, Job]] = []  # pipelined: verified, perhaps not down yet

    def run(self) -> Generator[simpy.Event, object, None]:
        """Answer requests for ever."""
        env, log, downlink_s = self._env, self._log, self._downlink_s
        free_s = 0.0
        while True:
            request_row, arrived_s, answer = self._begin(free_s)
            free_s = max(free_s, arrived_s)
            request = Request(arrived_s)
            rounds, is_planned = answer.rounds(self._cell), answer.plan is not None
            ahead = next(rounds) if is_planned else None
            position, is_drafted, ends = 0, False, False
            while not ends:
                started_s = free_s
                self._now_playing = request_row, position, started_s
                if ahead is None:  # a scheme that looks at the cell chooses when the phone is free
                    if started_s > env.now:
                        yield env.timeout(started_s - env.now)
                    ahead = self._chosen(rounds)
                this, ends = ahead, ahead.last
                ahead = next(rounds) if is_planned and not ends else None
                if not is_drafted:
                    delay_s = started_s - env.now + this.first_s
                    if delay_s > 0.0:
                        yield env.timeout(delay_s)

                if not this.llm_tokens:
                    self._commits_s = commits_s = [env.now]
                    for draft_s in this.drafts_s[1:]:
                        if draft_s > 0.0:
                            yield env.timeout(draft_s)
                        commits_s.append(env.now)
                    log.kept(request_row, position, started_s, commits_s)
                    self._commits_s = []
                    if position == 0:
                        request.first_token_s = commits_s[0]
                    free_s, is_drafted = env.now, False
                    position += this.committed
                    continue

                # The phone needs nobody until its next drafts are there, so it is woken once, after them.
                rest_s = 0.0 if ahead is None or this.pipelined else downlink_s + ahead.first_s
                is_drafted = rest_s > 0.0
                job = self._send(this, position, rest_s, request)
                self._visit = this, job
                yield job.done
                self._visit = None
                free_s = committed_s = job.returned_s + downlink_s
                if position == 0:
                    request.first_token_s = committed_s
                if this.pipelined and not ends:
                    free_s = job.verified_s
                if job.early:
                    self._on_the_way.append((request_row, position, this, started_s, job))
                else:
                    log.visit(request_row, position, this, started_s, job, committed_s)
                    if self._on_the_way:
                        self._write_down_pipelined()
                position += this.committed
            if self._end_request is not None and not (self._downlink_is_shared and this.llm_tokens):
                self._end_request(self._device)

    def close(self, duration_s: float, open_loop: bool) -> None:
        """Write down what the end of the run cut off: the round in progress, and requests that still waited."""
        request_row, position, started_s = self._now_playing
        self._write_down_pipelined()
        if self._commits_s:
            self._log.kept(request_row, position, started_s, self._commits_s)
            position, started_s = position + len(self._commits_s), self._commits_s[-1]
        if self._visit is not None:
            visit, job = self._visit
            committed_s = job.returned_s + self._downlink_s  # unknown unless it is down
            self._log.visit(request_row, position, visit, started_s, job, committed_s)
            position, started_s = position + visit.committed, committed_s
        if started_s <= duration_s:
            self._log.drafting(request_row, position, started_s)
        if open_loop:
            while self._begin(inf)[1] <= duration_s:
                pass

    def _write_down_pipelined(self) -> None:
        for request_row, position, visit, started_s, job in self._on_the_way:
            committed_s = job.returned_s + self._downlink_s
            self._log.visit(request_row, position, visit, started_s, job, committed_s)
        self._on_the_way.clear()

    def _begin(self, free_s: float) -> tuple[int, float, Answer]:
        arrived_s = self._next_arrival(free_s)
        answer = self._next_answer()
        row = self._log.begin_request(self._device, self._requests, answer, arrived_s)
        self._requests += 1
        return row, arrived_s, answer

    def _chosen(self, rounds: Iterator[Round]) -> Round:
        chosen = next(rounds, None)
        if chosen is None:
            raise SimulationError("a scheme's rounds ended before its answer did")
        return chosen

    def _send(self, visit: Round, position: int, rest_s: float, request: Request) -> Job:
        env, bits = self._env, visit.payload_bits
        gain = 1.0 if self._gain_of is None else self._gain_of(self._requests - 1, position)
        job = Job(self._device, bits, visit.llm_tokens, env.now, Wakeup(env), gain, rest_s, request, position)
        job.unused_tokens, job.context_tokens = visit.unused_tokens, visit.context_tokens
        if self._downlink_is_shared:
            job.answer_bits, job.last = visit.answer_bits, visit.last
            job.early = visit.pipelined and not visit.last
        if bits:
            request.uploads += 1
            self._upload(job)
        else:
            job.airtime_s = job.sending_s = 0.0
            self._submit(job)
        return job
