"""Jobs, which phones send to the base station, and the counters that stations keep of them."""

import simpy
from simpy.events import NORMAL, EventPriority

UNKNOWN = float("nan")


class Wakeup(simpy.Event):
    """An event that happens once, at a time that is set later than the event is made."""

    def after(self, delay_s: float, priority: EventPriority = NORMAL) -> None:
        """Let it happen after a delay; among events of one instant by priority."""
        self._ok, self._value = True, None  # as simpy.Timeout does: the schedule itself triggers it
        self.env.schedule(self, priority, delay_s)


class Request:
    """A request as the stations see it; its phone keeps it up to date.

    `arrived_s` is when it arrived at the phone, `first_token_s` when its first token was there (NaN before), `uploads`
    how many of its tokens went over the uplink, the present one included, and `number` how many jobs had come to the
    base station with its first one (0 before).
    """

    __slots__ = ("arrived_s", "first_token_s", "number", "uploads")

    def __init__(self, arrived_s: float) -> None:
        self.arrived_s = arrived_s
        self.number = 0
        self.first_token_s: float = UNKNOWN
        self.uploads = 0


class Job:
    """One visit to the base station; the phone fills in its sizes, each station its times.

    Times are in seconds of the run and NaN until they are known. `gain` is the power gain of this upload alone, for
    fading drawn per upload; with block fading the uplink looks at its own table instead. `returned_s` is when the
    answer is over the air. `done` happens `rest_s` after that: the phone says how long it will need nobody, so that it
    is woken once and not at every step. Where the downlink is shared the answer has `answer_bits`; if `early`, `done`
    doesn't wait for it but happens with the verdict; and `last` says that the verdict ends the request.

    `llm_tokens` are the new positions that the LLM must process, of which `recomputed_tokens` are those that its memory
    has lost, and `unused_tokens` refused drafts, which it forgets with the verdict; `context_tokens` of the request it
    holds already. The job has taken part in `steps` of a GPU, as a rule one; `batch_jobs` and `batch_tokens` are the
    jobs and new positions of that step. Over several steps they are means: `batch_jobs` is verify time over the job's
    share of GPU time (a harmonic mean), and `steps` x `batch_tokens` / `batch_jobs` is its share of the positions.
    """

    __slots__ = (
        "airtime_s",
        "answer_bits",
        "batch_jobs",
        "batch_tokens",
        "context_tokens",
        "device",
        "done",
        "early",
        "gain",
        "last",
        "llm_tokens",
        "payload_bits",
        "position",
        "received_s",
        "recomputed_tokens",
        "request",
        "rest_s",
        "returned_s",
        "sending_s",
        "sent_s",
        "steps",
        "unused_tokens",
        "verified_s",
        "verify_started_s",
    )

    def __init__(
        self,
        device: int,
        payload_bits: float,
        llm_tokens: int,
        sent_s: float,
        done: Wakeup,
        gain: float = 1.0,
        rest_s: float = 0.0,
        request: Request | None = None,
        position: int = 0,
    ) -> None:
        self.device = device
        self.payload_bits = payload_bits
        self.llm_tokens = llm_tokens
        self.sent_s = sent_s
        self.done = done
        self.gain = gain
        self.rest_s = rest_s
        self.request = request
        self.position = position
        self.airtime_s: float = UNKNOWN
        self.sending_s: float = UNKNOWN  # with any share of the band
        self.received_s: float = UNKNOWN
        self.verify_started_s: float = UNKNOWN
        self.verified_s: float = UNKNOWN
        self.returned_s: float = UNKNOWN
        self.batch_jobs: float = 0
        self.batch_tokens: float = 0
        self.steps = 0
        self.recomputed_tokens = self.unused_tokens = self.context_tokens = 0
        self.answer_bits = 0.0
        self.early = self.last = False


class Counters:
    """A station's own counters, against which the records are checked (Little's law, conservation).

    `present_s` is the integral of jobs present and `busy_s` of the servers (or the share of the band) in use, over
    time; `bits` are those of finished uploads. A station adds to them only at its own events and brings them up to
    date in its `settle()`.

    Where transport blocks may fail: `blocks` were sent a first time, with MCS indices of `mcs_sum` together, of which
    `block_errors` failed then; `retransmissions` followed, after which `lost_blocks` gave their bits back;
    `block_bits` were decoded.
    """

    __slots__ = (
        "arrivals",
        "bits",
        "block_bits",
        "block_errors",
        "blocks",
        "busy_s",
        "departures",
        "lost_blocks",
        "mcs_sum",
        "present_s",
        "retransmissions",
    )

    def __init__(self) -> None:
        self.arrivals = 0
        self.departures = 0
        self.present_s = 0.0
        self.busy_s = 0.0
        self.bits = 0.0
        self.blocks = 0
        self.mcs_sum = 0
        self.block_errors = 0
        self.retransmissions = 0
        self.lost_blocks = 0
        self.block_bits = 0.0
