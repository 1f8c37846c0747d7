"""The page's tables of stations, legs and pairs of policies: what waits where, what limits, who is how much faster."""

import math
from typing import Any

import numpy as np
import pandas as pd

from uhlm_sim.analysis.digits import number, ratio
from uhlm_sim.analysis.measures.bottleneck import PHONES
from uhlm_sim.analysis.measures.budget import ALL
from uhlm_sim.analysis.measures.intervals import paired_ratio
from uhlm_sim.analysis.measures.queues import MEASURES
from uhlm_sim.analysis.measures.winners import RATE
from uhlm_sim.analysis.report.points import Points
from uhlm_sim.analysis.run import Run
from uhlm_sim.tables import LEGS


def budget_rows(table: pd.DataFrame) -> list[tuple[str, str, list[str], bool]]:
    """Lay a `delay_budget` of one point out: policy, which tokens, their delay and its legs in ms, a policy's first."""
    rows = []
    for row in table.to_dict("records"):
        cells = [f"{1e3 * row[name]:.1f}" for name in ("delay_s", *LEGS)]
        rows.append((row["policy"], row["tokens_at"], cells, row["tokens_at"] == ALL))
    return rows


def queue_rows(table: pd.DataFrame) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """Lay `queues` of one point out: policy, station, and cells of (text, interval)."""
    rows = []
    for row in table.to_dict("records"):
        most = [(f"{row[name]:.0f}" if math.isfinite(row[name]) else "–", "") for name in ("seen.p95", "present.p95")]
        shown = [
            number(row[name], row[f"{name}_low"], row[f"{name}_high"], factor)
            for factor, names in ((100.0, MEASURES[:1]), (1e3, MEASURES[1:-2]), (1.0, MEASURES[-2:]))
            for name in names
        ]
        rows.append((row["policy"], row["station"], [*shown[:-1], most[0], shown[-1], most[1]]))
    return rows


def limit_words(table: pd.DataFrame, policy: str, *, is_open: bool) -> str:
    """Return what limits a policy and how far it is used: "uplink (97 %)", "no station", "perhaps uplink (90 %)".

    ``table`` is a `bottleneck_table` of one point. With open arrivals phones limit like a station.
    """
    limits = table[(table["policy"] == policy) & table["limits"]] if len(table) else table
    stations = limits if is_open or limits.empty else limits[limits["station"] != PHONES]
    if stations.empty:
        return "no station" if len(limits) else ""
    perhaps = "perhaps " if len(stations) < len(limits) else ""
    return f"{perhaps}{' or '.join(stations['station'])} ({100 * stations['load'].max():.0f} %)"


def pair_rows(run: Run) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return for each policy how many times as fast an answering phone is as under each other one; cells as text.

    Ratios of means of token_throughput_per_device over replications, paired. Nothing for fewer than three policies,
    which are all beside the first one already.
    """
    table = run.replications[run.replications["metric"] == RATE]
    rates = table.pivot(index="replication", columns="policy", values="value").reindex(columns=run.policies)
    if len(run.policies) < 3 or len(rates) < 2:
        return []
    rates_of = {name: rates[name].to_numpy(dtype=np.float64) for name in run.policies}

    def cell(policy: str, other: str) -> tuple[str, str]:
        return (
            ("1", "")
            if policy == other
            else ratio(*(float(x) for x in paired_ratio(rates_of[policy], rates_of[other])[:3]))
        )

    return [(policy, [cell(policy, other) for other in run.policies]) for policy in run.policies]


def station_rows(points: Points, table: pd.DataFrame) -> list[tuple[str, list[dict[Any, Any]]]]:
    """Lay a `bottleneck_table` out for the template, point by point; cells are (text, interval)."""

    def cells(row: dict[Any, Any]) -> dict[Any, Any]:
        wait_ms, demand_ms, full_ms = (1e3 * row[name] for name in ("wait_s", "demand_s", "full_demand_s"))
        shown = ["–" if math.isnan(ms) else f"{ms:.3g}" if ms > 1e-6 else "0" for ms in (wait_ms, demand_ms)]
        shown.append(f"{full_ms:.3g}" if full_ms < 0.999 * demand_ms else "")
        bound = number(row["bound"], row["bound_low"], row["bound_high"])
        used, reached = (f"{100 * row[name]:.1f}" for name in ("utilisation", "load"))
        if row["bound_high"] - row["bound_low"] > 2.0 * row["bound"]:  # far beyond the batches that the run saw
            shown[-1], bound, reached = "–", ("not known", ""), "–"
        return row | {"cells": [(used, ""), *((text, "") for text in shown), bound, (reached, "")]}

    rows = [cells(row) for row in table.to_dict("records")]
    return [(points.words(point), [row for row in rows if row["point"] == point]) for point in points.in_order()]
