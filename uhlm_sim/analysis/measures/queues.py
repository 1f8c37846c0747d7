"""The queue at each station: what a job waits, how many it meets there, and how many are there over time.

All follows from when jobs come and go in the tables of rounds and requests; the stations' own counters have the same
mean numbers. Poisson arrivals see time averages (Wolff, Poisson arrivals see time averages, Operations Research 1982);
in a closed network of product form a job sees the cell with one customer less (Sevcik and Mitrani, The distribution of
queuing network states at input and output instants, Journal of the ACM 1981). Elsewhere what arrivals see and what is
there over time differ: phones whose drafts were judged in one batch upload the next ones together.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from uhlm_sim.analysis.measures.bottleneck import PHONES, STATIONS, begun_s
from uhlm_sim.analysis.measures.intervals import paired_ratio, student_t
from uhlm_sim.analysis.measures.quantiles import linearised
from uhlm_sim.analysis.measures.window import floats, in_window
from uhlm_sim.analysis.run import Run

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]
Stays = tuple[Indices, Floats, Floats, Floats]  # replication (or phone of one), came, went, waits [s]; NaN: not known
RANKS = (50, 95, 99)
MOST = 0.95  # the quantile of numbers present
DECIMALS = 9  # of a second: what is parted by less is one instant
ENDS = ("", "_low", "_high")
MEASURES = ("utilisation", "wait_s.mean", *(f"wait_s.p{rank}" for rank in RANKS), "seen.mean", "present.mean")
SHARES = ("time_share", "seen_share")


@dataclass(frozen=True)
class Queue:
    """The queue at one station in the window; arrays have a row for each replication.

    `at` names its point's swept values, policy and station. `seconds` has the time with n jobs there, of `length_s` in
    all, and `seen` the number of arrivals that met n others. `waits_s` and `stays_s` are those of the arrivals whose
    wait or stay was over before the run's end.
    """

    at: dict[Any, Any]
    utilisation: Floats
    seconds: Floats
    seen: Floats
    waits_s: list[Floats]
    stays_s: list[Floats]
    length_s: float


def queues(run: Run) -> pd.DataFrame:
    """Return the queue at each station: a row for each point, policy and station that it uses.

    Columns: the sweep's; `policy`; `station`: "uplink", "GPUs", "downlink" where it is shared, and with open arrivals
    "phones", of which each has a queue of its own (all numbers are those of one); `rate_per_s` of arrivals;
    `utilisation`, the share of the servers' time in use; `wait_s.mean`, `.p50`, `.p95` and `.p99` of an arrival;
    `stay_s`, its mean wait and service; `seen.mean` and `.p95`, how many others it meets, waiting or in service (of
    several that come at one instant, those before it); `present.mean` and `.p95`, how many are there over time. By
    Little's law `present.mean` is `rate_per_s` times `stay_s`, up to the stays that the window's edges cut.

    Jobs that come in the window count, of all replications together, except for waits and stays that aren't over when
    the run ends. The columns of MEASURES have 95 % intervals over replications, `_low` and `_high`: paired ratios of
    sums, and of percentiles those of `linearised`. The waits of a downlink aren't in the tables: its mean is the stay
    less the band in use, its percentiles are null. Empty for a run that kept no rounds.
    """
    measured = [f"{name}{end}" for name in MEASURES for end in ENDS]
    names = [*run.sweep, "policy", "station", "rate_per_s", *measured, "stay_s", "seen.p95", "present.p95"]
    return pd.DataFrame([{**queue.at, **_measures(queue)} for queue in _queues(run)], columns=names)


def queue_lengths(run: Run) -> pd.DataFrame:
    """Return the distribution of the number at each station: a row for each number up to the largest.

    Columns: the sweep's, `policy`, `station`, `present`; `time_share`, the share of the window with so many there, and
    `seen_share`, that of the arrivals that meet so many others, with 95 % intervals. Counted as in `queues`.
    """
    names = [*run.sweep, "policy", "station", "present", *(f"{name}{end}" for name in SHARES for end in ENDS)]
    parts = []
    for queue in _queues(run):
        of_time = student_t(queue.seconds.T / queue.length_s)
        of_arrivals = paired_ratio(queue.seen.T, queue.seen.sum(axis=1))
        columns = [*of_time[:3], *of_arrivals[:3]]
        parts.append(pd.DataFrame({**queue.at, "present": np.arange(len(columns[0]))}))
        parts[-1][names[-6:]] = np.column_stack(columns)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=names)


def visits(rounds: pd.DataFrame, access_s: float = 0.0, after_s: float = 0.0) -> dict[str, tuple[Mask, Floats, Floats]]:
    """Return by station which rounds come there, and of all rounds when they come and go; NaN if that isn't known.

    An upload comes `access_s` after its phone has asked for it, an answer is at its phone `after_s` after the air.
    """
    sent_s = floats(rounds["started_s"]) + floats(rounds["device_s"])
    received_s = sent_s + floats(rounds["uplink_wait_s"]) + floats(rounds["airtime_s"])
    verified_s = received_s + floats(rounds["bs_wait_s"]) + floats(rounds["verify_s"])
    sent = rounds["decision"].eq("send").to_numpy(dtype=bool, na_value=False)
    return {
        "uplink": (sent & (floats(rounds["payload_bits"]) > 0), sent_s + access_s, received_s),
        "GPUs": (sent, received_s, verified_s),
        "downlink": (sent, verified_s, verified_s + floats(rounds["downlink_s"]) - after_s),
    }


def _queues(run: Run) -> Iterator[Queue]:
    if run.rounds is None:
        return
    keys = ["point", "policy"]
    rounds, requests, metrics = (
        dict(iter(table.groupby(keys, observed=True, sort=False)))
        for table in (run.rounds, run.requests, run.replications)
    )
    for number, (warmup_s, duration_s, is_open) in run.terms.items():
        for policy in (name for name in run.policies if (number, name) in metrics):
            one = metrics[number, policy]
            at = {**one.iloc[0][run.sweep].to_dict(), "policy": policy}
            values = one.pivot(index="replication", columns="metric", values="value")
            window, here = (warmup_s, duration_s), values.index.to_numpy(dtype=np.int64)
            if (number, policy) in rounds:
                for name, utilisation, stays in _of_stations(run, at, rounds[number, policy], values):
                    yield from _queue({**at, "station": name}, stays, window, here, utilisation=utilisation)
            if is_open and (number, policy) in requests:
                phones = int(_setting(run, at, "traffic.devices"))
                stays = _of_phones(requests[number, policy], phones)
                yield from _queue({**at, "station": PHONES}, stays, window, here, lanes=phones)


def _setting(run: Run, swept: dict[Any, Any], key: str) -> float:
    """Return a number of the scenario as it is at a point, 0 if it isn't given."""
    section, _, name = key.partition(".")
    return float(swept.get(key, run.scenario.get(section, {}).get(name, 0.0)))


def _of_stations(
    run: Run, at: dict[Any, Any], rounds: pd.DataFrame, values: pd.DataFrame
) -> Iterator[tuple[str, Floats, Stays]]:
    """Yield the name, utilisation and stays of each shared station that one policy's rounds come to."""
    replication = rounds["replication"].to_numpy(dtype=np.int64)
    spans = visits(rounds, _setting(run, at, "uplink.access_s"), _setting(run, at, "base_station.downlink_s"))
    for station in STATIONS:
        utilisation = floats(values[station.utilisation])
        if np.isfinite(utilisation).any():
            there, came_s, went_s = spans[station.name]
            wait_s = floats(rounds[station.wait]) if station.wait else np.full(len(rounds), np.nan)
            yield station.name, utilisation, (replication[there], came_s[there], went_s[there], wait_s[there])


def _of_phones(requests: pd.DataFrame, phones: int) -> Stays:
    """Return the stays of requests at their phones, of which each is a lane of its own."""
    one = requests.sort_values(["replication", "device", "request"])
    lane = one["replication"].to_numpy(dtype=np.int64) * phones + one["device"].to_numpy(dtype=np.int64)
    came_s, wait_s = floats(one["arrived_s"]), floats(begun_s(one) - one["arrived_s"])
    return lane, came_s, floats(one["finished_s"]), wait_s


def _queue(
    at: dict[Any, Any],
    stays: Stays,
    window: tuple[float, float],
    replications: Indices,
    *,
    lanes: int = 1,
    utilisation: Floats | None = None,
) -> Iterator[Queue]:
    """Yield the queue that stays make in a window, none if nobody is there; with several `lanes`, the mean of them."""
    came = ~np.isnan(stays[1])
    lane, (came_s, went_s, wait_s) = stays[0][came], (times_s[came] for times_s in stays[1:])
    row, stay_s, wait_s = np.searchsorted(replications, lane // lanes), went_s - came_s, np.round(wait_s, DECIMALS)
    is_new = in_window(pd.Series(came_s), *window)
    inside_s, present, lane_of_time, seen = _sweep(lane, came_s, went_s, window)
    if not is_new.any() and not inside_s[present > 0].any():
        return
    shape = (len(replications), int(present.max()) + 1)
    of_time = np.searchsorted(replications, lane_of_time // lanes) * shape[1] + present
    seconds: Floats = np.bincount(of_time, inside_s, shape[0] * shape[1]).reshape(shape).astype(np.float64)
    length_s = lanes * (window[1] - window[0])
    seconds[:, 0] = length_s - seconds[:, 1:].sum(axis=1)  # the time before the first and after the last too
    met = np.bincount((row * shape[1] + seen)[is_new], minlength=shape[0] * shape[1]).reshape(shape)
    known = [[is_new & (row == i) & ~np.isnan(times_s) for i in range(shape[0])] for times_s in (wait_s, stay_s)]
    yield Queue(
        at,
        utilisation=1.0 - seconds[:, 0] / length_s if utilisation is None else utilisation,
        seconds=seconds,
        seen=met.astype(np.float64),
        waits_s=[wait_s[those] for those in known[0]],
        stays_s=[stay_s[those] for those in known[1]],
        length_s=length_s,
    )


def _sweep(
    lane: Indices, came_s: Floats, went_s: Floats, window: tuple[float, float]
) -> tuple[Floats, Indices, Indices, Indices]:
    """Go through all comings and goings in order of time, lane by lane.

    Returns for each of them the time of the window until the next, how many are in the lane then, and the lane; and for
    each stay how many it meets. Who leaves at an instant is gone before others come; who isn't known to leave stays.
    """
    since_s = np.round(came_s, DECIMALS)
    until_s = np.fmax(np.round(np.where(np.isnan(went_s), np.inf, went_s), DECIMALS), since_s + 10.0**-DECIMALS)
    at_s, step, of = np.r_[since_s, until_s], np.repeat([1, -1], len(lane)), np.r_[lane, lane]
    order = np.lexsort((step, at_s, of))
    present, of = np.cumsum(step[order]), of[order]
    met = np.empty(2 * len(lane), dtype=np.int64)
    met[order] = present - 1
    inside_s = np.diff(np.clip(at_s[order], *window), append=window[1])
    inside_s[np.diff(of, append=-1) != 0] = 0.0
    return inside_s, present, of, met[: len(lane)]


def _measures(queue: Queue) -> dict[str, float]:
    jobs = np.arange(queue.seen.shape[1])
    arrivals, present_s = queue.seen.sum(axis=1), queue.seconds @ jobs
    waited = [len(waits_s) for waits_s in queue.waits_s]
    estimates = {
        "utilisation": student_t(queue.utilisation),
        "wait_s.mean": paired_ratio([waits_s.sum() for waits_s in queue.waits_s], waited)
        if any(waited)
        else paired_ratio(present_s - queue.utilisation * queue.length_s, arrivals),
        **{f"wait_s.p{rank}": student_t(linearised(queue.waits_s, rank)) for rank in RANKS},
        "seen.mean": paired_ratio(queue.seen @ jobs, arrivals),
        "present.mean": student_t(present_s / queue.length_s),
    }
    stays_s = np.concatenate(queue.stays_s)
    return {
        "rate_per_s": float(arrivals.mean()) / queue.length_s,
        **{f"{name}{end}": float(x) for name, found in estimates.items() for end, x in zip(ENDS, found, strict=False)},
        "stay_s": float(stays_s.mean()) if len(stays_s) else np.nan,
        "seen.p95": _quantile(queue.seen),
        "present.p95": _quantile(queue.seconds),
    }


def _quantile(weights: Floats) -> float:
    """Return the least number up to which MOST of the weight of all replications lies; NaN without any."""
    below = np.cumsum(weights.sum(axis=0))
    return float(np.searchsorted(below, MOST * below[-1])) if below[-1] > 0 else np.nan
