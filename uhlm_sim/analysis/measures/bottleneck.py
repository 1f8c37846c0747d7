"""Which station limits a policy: the utilisation law and the asymptotic bounds of queueing theory, from a run's tables.

A station that is busy U of the time while the cell commits X tokens a second has the demand D = U/X of its time per
token (utilisation law) and can't carry more than 1/D. A phone is a server too: a token holds it for Z + S, the time in
which it waits for nobody, so N phones can't commit more than N/(Z + S). The least of these bounds limits the cell
(Denning and Buzen, The operational analysis of queueing network models, Computing Surveys 1978).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from uhlm_sim.analysis.measures.intervals import paired_ratio, student_t
from uhlm_sim.analysis.run import Run

Floats = NDArray[np.float64]
Runs = dict[str, Floats]  # a policy's metrics at one point, a value for each replication


@dataclass(frozen=True)
class Station:
    """A shared station, by the names of what it measures: its row of the report, a bound and a sentence follow.

    `wait` is the metric of what a token waits there [s]; a station without one is one server, and its wait follows from
    how many are there (`present`) by Little's law. `servers` is the scenario's key of how many it has, else one. One
    that serves jobs together names the metric of how many they were (`batch`) and the key of how many they may be
    (`most`). `leg` gives it a colour in figures.
    """

    name: str
    utilisation: str
    leg: str
    wait: str = ""
    present: str = ""
    servers: str = ""
    batch: str = ""
    most: str = ""
    are: str = "is"


STATIONS = (
    Station("uplink", "uplink_utilisation", "airtime_s", wait="uplink_wait_s"),
    Station(
        *("GPUs", "bs_utilisation", "verify_s"),
        wait="bs_wait_s",
        servers="base_station.gpus",
        batch="batch_jobs",
        most="base_station.max_batch",
        are="are",
    ),
    Station("downlink", "downlink_utilisation", "downlink_s", present="downlink_present"),
)
PHONES = "phones"
FULL = 0.95  # of what a station can carry: with open arrivals it limits from there on


def bottleneck_table(results: Run) -> pd.DataFrame:
    """Return a row for each point, policy and station that it uses, the phones last.

    Columns: the sweep's; `point` (its place in the run), `policy`, `station`, `servers`; `utilisation`, the share of
    the servers' time in use; `wait_s`, what a token waits there, as a mean over all tokens, and `wait_share` of a
    token's time (the phones': of theirs); `demand_s` of the servers' time per token at the load of the run, and
    `full_demand_s` with full batches; `bound`, the most tokens a second; `load` = X/bound. `token_throughput` X and
    `offered`, what open arrivals ask for, stand in each row. `bound`, `load` and `token_throughput` have 95 %
    intervals: `_low`, `_high`. `limits` says which station is nearest to its bound: several where chance may part them,
    in pairs of replications.

    Demands are those of the load at which they were measured. That of a GPU falls as batches grow: `full_demand_s` is
    that of a batch of m jobs in (mean seconds) + (m - mean jobs) x (what one more job adds: least squares over the
    run's batches, 0 if all are of one size). m is max_batch, or what chunk_tokens leaves of it, or, where memory evicts
    requests, how many a GPU's holds: no more fit. It is exact once batches are full, and where seconds follow a
    straight line; where the run saw only steps in which jobs add nothing it promises too much. That of the bands falls
    too where several phones' bits overlap: under fading each then meets more of its channel, under limited power each
    holds less of the band, and an allocator may choose the best.

    The phones' row: N/X less all waits is how long a token holds one of N phones while nobody makes it wait, the think
    time of a closed loop included (Little's law). With open arrivals N is here the mean number of phones that answer.
    Left out: a bound from below, and what a policy would do at another load.
    """
    terms = results.terms
    table = results.replications
    rows = []
    for place, (point, of_point) in enumerate(table.groupby("point", sort=False)):
        swept = {key: of_point[key].iloc[0] for key in results.sweep}
        warmup_s, duration_s, is_open = terms[point]
        requests = results.requests
        answers = _answering(requests[requests["point"] == point], warmup_s, duration_s) if is_open else None
        for policy in (name for name in results.policies if of_point["policy"].eq(name).any()):
            values = of_point[of_point["policy"] == policy].pivot(index="replication", columns="metric", values="value")
            runs = {str(name): values[name].to_numpy(dtype=np.float64, na_value=np.nan) for name in values}
            if answers is not None:
                of_phones = answers.reindex(pd.MultiIndex.from_product([[point], [policy], values.index]))
                runs |= {str(name): of_phones[name].to_numpy(dtype=np.float64) for name in of_phones}
            stations = list(_rows(runs, results.scenario, swept))
            nearest = max((load for _, load in stations), key=np.nanmean, default=np.array([]))
            for row, load in stations:
                is_nearest = load is nearest or bool(paired_ratio(load, nearest)[2] >= 1.0)
                rows.append({**swept, "point": place, "policy": policy, **row, "limits": is_nearest})
    return pd.DataFrame(rows)


def load_table(results: Run, x: str) -> pd.DataFrame:
    """Return the `bottleneck_table` of a run over one swept load, which is its first column."""
    table = bottleneck_table(results)
    return table[[x, *(name for name in table if name not in (*results.sweep, "point"))]]


def _rows(runs: Runs, scenario: dict[str, Any], swept: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Floats]]:
    rate = runs["token_throughput"]

    def get(metric: str) -> Floats:
        return runs.get(metric, np.full(len(rate), np.nan))

    def setting(key: str) -> float:
        section, _, name = key.partition(".")
        value = swept.get(key, scenario.get(section, {}).get(name))
        return np.nan if value is None else float(value)

    def filled(station: Station) -> Floats:
        """Return the throughput at the mean batch over that at a full batch."""
        jobs = get(station.batch)
        most = np.fmin(setting(station.most), setting("base_station.chunk_tokens") * jobs / get("batch_tokens"))
        fit = get("kv_cache_present") / setting("base_station.gpus")
        most = np.maximum(np.where(get("evictions") > 0, np.fmin(most, fit), most), jobs)
        return np.asarray(jobs / most * (1.0 + (most - jobs) * np.nan_to_num(get("batch_job_s") / get("batch_s"))))

    def row(
        name: str, servers: float, busy: Floats, load: Floats, wait_s: Floats, waiting: Floats, whole: Floats
    ) -> tuple[dict[str, Any], Floats]:
        columns = {
            "station": name,
            "servers": servers,
            "utilisation": float(student_t(busy)[0]),
            "wait_s": float(student_t(wait_s)[0]),
            "wait_share": float(paired_ratio(waiting, whole)[0]),
            "demand_s": float(paired_ratio(servers * busy, rate)[0]),
            "full_demand_s": float(paired_ratio(servers * load, rate)[0]),
            **_estimate("bound", paired_ratio(rate, load)),
            **_estimate("load", student_t(load)),
            **_estimate("token_throughput", student_t(rate)),
            "offered": float(student_t(get("arrival_rate") * get("tokens_per_answer"))[0]),
        }
        return columns, load

    waits_s = np.zeros(len(rate))
    for station in STATIONS:
        busy = get(station.utilisation)
        if not (busy > 0).any():
            continue
        wait_s = get(station.wait) if station.wait else (get(station.present) - busy) / np.where(rate > 0, rate, np.nan)
        waits_s = waits_s + wait_s
        servers = setting(station.servers) if station.servers else 1.0
        load = np.minimum(busy * filled(station) if station.batch else busy, 1.0)
        if np.isfinite(load).any():
            yield row(station.name, servers, busy, load, wait_s, wait_s, get("token_delay_s.mean"))
    phones = setting("traffic.devices")
    held = runs.get("answering", np.full(len(rate), phones))  # phones, on average
    waiting = np.minimum(rate * waits_s, held)  # an answer of the LLM alone may wait in several places at once
    load = np.clip((held - waiting) / phones, 0.0, 1.0)
    if np.isfinite(load).any():
        yield row(PHONES, phones, load, load, waits_s, waiting, held)


def _estimate(name: str, estimate: Sequence[Any]) -> dict[str, float]:
    return {f"{name}{end}": float(value) for end, value in zip(("", "_low", "_high"), estimate, strict=False)}


def _answering(requests: pd.DataFrame, warmup_s: float, duration_s: float) -> pd.DataFrame:
    """Return by simulation the mean number of phones that answer in the window, and a finished answer's tokens."""
    keys = ["point", "policy", "replication"]
    one = requests.sort_values([*keys, "device", "request"])
    until_s = one["finished_s"].fillna(duration_s).clip(warmup_s, duration_s)
    held_s = (until_s - begun_s(one).clip(warmup_s, duration_s)).fillna(0.0)
    tokens = one["tokens"].where(one["finished_s"].notna())
    by_simulation = one.assign(held_s=held_s, tokens=tokens).groupby(keys, observed=True)
    return pd.DataFrame(
        {
            "answering": by_simulation["held_s"].sum() / (duration_s - warmup_s),
            "tokens_per_answer": by_simulation["tokens"].mean(),
        }
    )


def begun_s(requests: pd.DataFrame) -> pd.Series:
    """Return when phones began each request, null if they haven't; `requests` in order by simulation and device.

    A phone answers one request at a time: it begins one when that is there and the one before is finished.
    """
    before = requests.groupby(["point", "policy", "replication", "device"], observed=True, sort=False)["finished_s"]
    free_s = np.maximum(requests["arrived_s"], before.shift())
    return requests["arrived_s"].where(requests["request"] == 0, free_s)
