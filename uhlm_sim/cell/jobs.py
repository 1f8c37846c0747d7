"""What travels through the cell: one token's draft on its way from a phone to a verdict of the LLM."""

import simpy

UNKNOWN = float("nan")


class Job:
    """One sent token: the phone fills in what it asks, each station what it did and when.

    Times are in seconds of the run and NaN until they are known. `gain` is the power gain of this upload alone, for
    fading drawn per upload; with block fading the uplink looks at its own table instead.
    """

    __slots__ = (
        "airtime_s",
        "batch_jobs",
        "batch_tokens",
        "device",
        "done",
        "gain",
        "llm_tokens",
        "payload_bits",
        "received_s",
        "sent_s",
        "verified_s",
        "verify_started_s",
    )

    def __init__(
        self,
        device: int,
        payload_bits: float,
        llm_tokens: int,
        sent_s: float,
        done: simpy.Event,
        gain: float = 1.0,
    ) -> None:
        self.device = device
        self.payload_bits = payload_bits
        self.llm_tokens = llm_tokens
        self.sent_s = sent_s
        self.done = done
        self.gain = gain
        self.airtime_s: float = UNKNOWN
        self.received_s: float = UNKNOWN
        self.verify_started_s: float = UNKNOWN
        self.verified_s: float = UNKNOWN
        self.batch_jobs = 0
        self.batch_tokens = 0


class Counters:
    """What a station counts for itself, so that the records can be held against it (Little's law, conservation).

    `present_s` is the integral of jobs present and `busy_s` of the servers (or the share of the band) in use, over
    time; `bits` are those of finished uploads. A station adds to them only at its own events and brings them up to
    date in its `settle()`.
    """

    __slots__ = ("arrivals", "bits", "busy_s", "departures", "present_s")

    def __init__(self) -> None:
        self.arrivals = 0
        self.departures = 0
        self.present_s = 0.0
        self.busy_s = 0.0
        self.bits = 0.0
