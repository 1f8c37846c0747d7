"""The warm-up that MSER-5 proposes, to compare with the one that the scenario cuts."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RUN_PARTS = 100  # parts of a run, each as long: the proposal's resolution is a hundredth of the run
FEWEST_LEFT = 25  # parts that are always kept: a slow queue can stand still by chance for less than a quarter of a run


def propose_warmup(requests: pd.DataFrame, *, warmup_s: float, duration_s: float) -> pd.DataFrame:
    """Return what MSER-5 would cut from each policy's runs: columns point, policy, proposed_s and words.

    `requests` is the table of `requests.parquet`, `warmup_s` what the scenario cuts. What is judged is the number of
    requests present (arrived, not finished), averaged over the replications and over each of BATCHES parts of the run:
    these time averages are exact, hence what MSER-5 makes of the number sampled five times as often or more.
    `proposed_s` is NaN where the cut would lie in the run's second half: then no steady state was found, and no cut
    helps. `words` is the sentence with the reason. It is a proposal: metrics are cut at `warmup_s`.

    Left out: what settles while the number of requests stays as it is. In a loop without think time it always does,
    and the proposal is 0. A cell that needs a tenth of the run to forget is called unsteady in one of five runs.
    """
    edges_s = np.linspace(0.0, duration_s, RUN_PARTS + 1)
    rows = []
    for (point, policy), group in requests.groupby(["point", "policy"], sort=False, observed=True):
        present = np.diff(_waited_s(group, edges_s)) / np.diff(edges_s) / group["replication"].nunique()
        rows.append((point, policy, *_proposal(mser(present), warmup_s, duration_s)))
    return pd.DataFrame(rows, columns=["point", "policy", "proposed_s", "words"])


def mser(batches: Floats) -> int:
    """Return how many batches to cut from the start: the d that minimises sum (y - mean)^2 / (n - d)^2 over y[d:].

    That is the squared standard error of the mean of what is left, were the batches independent (White 1997). At least
    LEFT are left (White keeps 5). A result above n/2 is no cut but the news that the series has no steady part
    (Franklin and White 2008). Of cuts that are as good but for rounding the shortest counts.
    """
    kept = np.arange(len(batches), 0, -1)
    deviation = batches - batches.mean()
    total, squares = (np.cumsum(part[::-1])[::-1] for part in (deviation, deviation**2))
    statistic = ((squares - total**2 / kept) / kept**2)[: max(len(batches) - FEWEST_LEFT, 0) + 1]
    rounding = (1e-8 * np.abs(batches).max()) ** 2
    return int(np.argmax(statistic <= statistic.min() + rounding))


def _waited_s(requests: pd.DataFrame, at_s: Floats) -> Floats:
    """Return the time that all requests together have been present by each time: the integral of their number."""
    arrived_s, finished_s = (
        requests[name].to_numpy(dtype=np.float64, na_value=np.nan) for name in ("arrived_s", "finished_s")
    )
    left_s = np.where(np.isnan(finished_s), at_s[-1], finished_s)

    def since(times_s: Floats) -> Floats:
        ordered_s = np.sort(times_s)
        before = np.searchsorted(ordered_s, at_s)
        return np.asarray(before * at_s - np.concatenate([[0.0], np.cumsum(ordered_s)])[before])

    return since(arrived_s) - since(left_s)


def _proposal(cut: int, warmup_s: float, duration_s: float) -> tuple[float, str]:
    if cut > RUN_PARTS / 2:
        advice = "lengthen duration_s, or see whether the cell keeps up"
        return np.nan, f"MSER-5 finds no steady state: the requests present drift to the end of the run; {advice}."
    proposed_s = cut * duration_s / RUN_PARTS
    if proposed_s <= warmup_s:
        return proposed_s, f"MSER-5 would cut {proposed_s:.3g} s; the {warmup_s:g} s that are cut cover it."
    return proposed_s, f"MSER-5 would cut {proposed_s:.3g} s and only {warmup_s:g} s are cut: raise warmup_s."
