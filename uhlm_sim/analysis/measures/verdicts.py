"""Verdicts on whether a cell kept up and whether the run was long enough: a word for each policy, with evidence."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from uhlm_sim.analysis.run import Terms

Floats = NDArray[np.float64]

CUT_SHARE = 0.25  # of the requests that arrived; beyond it a run was too short for what it measures
GROWTH_SHARE = 0.02  # of the arrivals; below it growth is backlog, above it overload
WAITS = ("phone_wait_s", "e2e_s.mean", "uplink_wait_s", "bs_wait_s", "token_delay_s.mean")
NEEDED = ("backlog_growth", "arrival_rate", "unfinished_requests", *WAITS)


@dataclass(frozen=True)
class Verdict:
    """A word (OVERLOADED, CUT SHORT, BACKLOGGED, STABLE or none) and a sentence with the evidence."""

    word: str
    words: str


def verdict(metrics: Mapping[str, ArrayLike], *, window_s: float, open_arrivals: bool) -> Verdict:
    """Judge one policy from the metrics that are NEEDED, one value per replication each; nulls are left out.

    The first of these that holds is the word:

    - OVERLOADED (open arrivals): the requests present grow by at least GROWTH_SHARE of the arrival rate, and by more
      than chance. A cell that keeps up has no trend in them; one that doesn't gains arrivals less departures.
    - CUT SHORT: more requests were unfinished at the end than CUT_SHARE of those that arrived in the window. Latencies
      of whole requests are those of the quick ones.
    - BACKLOGGED (open arrivals): more than half of the time from a request's arrival to its last token is queue; or the
      requests present grow by more than chance, but less than GROWTH_SHARE.
    - STABLE (open arrivals): none of these. A closed loop holds at most one request a phone, can't be overloaded and
      has no word here.

    Growth is more than chance with three or more replications by a one-sided t test at 1 %; with fewer, if it exceeds
    twice the standard deviation of the slope of a random walk with Poisson steps up and down (variance 2 lambda W,
    slope 6/5 of it over W^2), which is how a cell at exactly critical load wanders.

    Queue is the wait for the phone, which answers one request at a time (`phone_wait_s`), and of the rest the part that
    tokens spend waiting for band or GPU: (uplink_wait_s + bs_wait_s) / token_delay_s.mean, all as means over
    replications. It isn't tested: it says what this run's users met. Where one station makes all the wait, it becomes
    most of the time at a load of 2/3 if services never vary (M/D/1), at 1/2 if they are exponential (M/M/1).
    """
    values = {name: _values(metrics.get(name, ())) for name in NEEDED}
    growth, rate, left = (values[name] for name in ("backlog_growth", "arrival_rate", "unfinished_requests"))
    arrivals = float(rate.mean()) if rate.size else 0.0
    judged = open_arrivals and growth.size > 0 and arrivals > 0.0
    slope = float(growth.mean()) if judged else 0.0
    grows = judged and slope > _chance(growth, arrivals, window_s)
    trend = f"requests present grew by {slope:.3g}/s at {arrivals:.3g} arrivals/s"
    cut = (
        f"{left.mean():.3g} requests a replication were unfinished at the end"
        if left.any()
        else "all requests were finished"
    )
    if grows and slope >= GROWTH_SHARE * arrivals:
        return Verdict("OVERLOADED", f"The cell can't keep up: {trend}; {cut}. Its figures depend on the run's length.")
    if left.size and left.mean() > CUT_SHARE * window_s * arrivals:
        cut += f", against {window_s * arrivals:.3g} that arrived in the window"
        advice = "e2e and TPOT miss the long ones: lengthen duration_s"
        return Verdict("CUT SHORT", f"{cut}; {advice}.")
    if not judged:
        return Verdict("", f"{cut}.")
    waits = ""
    if all(values[name].size for name in WAITS) and values["token_delay_s.mean"].any():
        phone_s, whole_s, uplink_s, gpu_s, token_s = (float(values[name].mean()) for name in WAITS)
        cell_s = round((whole_s - phone_s) * (uplink_s + gpu_s) / token_s, 9)  # a remainder of rounding is no wait
        waits = (
            f"of {whole_s:.3g} s a request waits {phone_s:.3g} s for its phone and {cell_s:.3g} s for band and GPUs; "
        )
        if phone_s + cell_s > whole_s / 2:
            return Verdict("BACKLOGGED", f"Most of what users wait is queue: {waits}{trend}; {cut}.")
    if grows:
        return Verdict("BACKLOGGED", f"The queue still grows, by little but more than chance: {waits}{trend}; {cut}.")
    return Verdict("STABLE", f"No sign of overload: {waits}{trend}; {cut}.")


def verdicts(replications: pd.DataFrame, terms: Mapping[Any, Terms]) -> pd.DataFrame:
    """Return one row per point and policy of a table as `summarise` takes it: keys, `verdict` and `words`.

    `terms` holds each point's window and whether its arrivals are open.

    A run written before there was a `phone_wait_s` is judged without it.
    """
    keys = [name for name in replications.columns if name not in ("replication", "metric", "value")]
    needed = replications[replications["metric"].isin(NEEDED)]
    groups = needed.groupby(keys, sort=False, dropna=False, observed=True).ngroup().to_numpy()
    table = needed[keys].drop_duplicates(ignore_index=True)
    names, values = needed["metric"].to_numpy(dtype=object), needed["value"].to_numpy(dtype=np.float64)
    judged = []
    for number in range(len(table)):
        metrics = {name: values[(groups == number) & (names == name)] for name in NEEDED}
        warmup_s, duration_s, is_open = terms[table.at[number, "point"]]
        judged.append(verdict(metrics, window_s=duration_s - warmup_s, open_arrivals=is_open))
    return table.assign(verdict=[v.word for v in judged], words=[v.words for v in judged])


def _values(metric: ArrayLike) -> Floats:
    values = np.asarray(metric, dtype=np.float64).ravel()
    return values[~np.isnan(values)]


def _chance(growth: Floats, arrivals: float, window_s: float) -> float:
    """Return the growth that a cell which keeps up seldom exceeds."""
    if growth.size >= 3:
        return float(stdtrit(growth.size - 1, 0.99) * growth.std(ddof=1) / np.sqrt(growth.size))
    return float(2 * np.sqrt(2.4 * arrivals / (window_s * growth.size)))
