"""The summary that a terminal shows: one row per policy, and what must be known to read it."""

from collections.abc import Mapping
from math import floor, isnan, log10, nan
from typing import Any

import pandas as pd

from uhlm_sim.analysis.intervals import verdicts
from uhlm_sim.analysis.results import Results

SHOWN = (  # column of the summary table, its metric, and how its interval is shown, if at all
    ("tokens/s", "token_throughput", "half"),
    ("ratio to first", "token_throughput.ratio_to_first", "range"),
    ("1/mean delay", "token_throughput_per_device", ""),
    ("mean 1/delay", "mean_token_rate", ""),
    ("TTFT p50 s", "ttft_s.p50", ""),
    ("TTFT p95 s", "ttft_s.p95", ""),
    ("TPOT p50 s", "tpot_s.p50", ""),
    ("TPOT p95 s", "tpot_s.p95", ""),
    ("skipped", "skip_rate", ""),
    ("their risk", "rejection_risk", ""),
    ("uplink", "uplink_utilisation", ""),
    ("GPU", "bs_utilisation", ""),
)


def summary_text(tables: Results) -> str:
    """Return a table of means with 95 % intervals per policy, for each point of a sweep, and notes."""
    scenario = tables.scenario
    count = scenario["replications"]
    start_s, end_s = tables.window_s
    told = {entry["label"]: entry for entry in tables.provenance["policies"]}
    lines = [
        f"{scenario['name']}: {scenario['description']}" if scenario["description"] else scenario["name"],
        f"{count} replication{'s' if count > 1 else ''} of {end_s:g} s, the first {start_s:g} s cut, "
        f"seed {scenario['seed']}" + ("; ± and (low, high) are 95 % intervals" if count > 1 else ""),
        "",
    ]
    points = tables.summary.groupby(tables.sweep, sort=False, dropna=False) if tables.sweep else [((), tables.summary)]
    for values, summary in points:
        if tables.sweep:
            lines.append(", ".join(f"{key} = {value}" for key, value in zip(tables.sweep, values, strict=True)))
        lines += [*_aligned(_point_cells(summary, told)), ""]
    lines += [f"{label}: {entry['words']}" for label, entry in told.items() if entry["words"]]
    judged = verdicts(
        tables.replications, window_s=end_s - start_s, open_arrivals=scenario["traffic"]["kind"] != "closed"
    )
    for row in judged[judged["verdict"] != ""].to_dict("records"):
        where = "".join(f"{key} = {row[key]}, " for key in tables.sweep)
        lines.append(f"{where}{row['policy']}: {row['verdict']}. {row['words']}")
    if not tables.sweep:
        left = tables.summary[tables.summary["metric"] == "unfinished_requests"]
        counts = ", ".join(f"{row['policy']} {row['mean']:.3g}" for row in left.to_dict("records"))
        if (left["mean"] > 0).any():
            lines.append(f"Requests that the end of the run cut off, per replication: {counts}")
    if any(not entry["exact"] for entry in told.values()):
        lines.append("* teacher-forced on the text of HLM: no path of its own in the trace")
    return "\n".join(lines)


def _point_cells(summary: pd.DataFrame, told: Mapping[str, Any]) -> list[list[str]]:
    keys = zip(summary["policy"], summary["metric"], strict=True)
    values = zip(summary["mean"], summary["ci95_low"], summary["ci95_high"], strict=True)
    estimates = dict(zip(keys, values, strict=True))
    cells = [["policy", *(title for title, _, _ in SHOWN)]]
    for policy in summary["policy"].unique():
        cells.append([str(policy) + ("" if told[policy]["exact"] else " *")])
        for _, metric, interval in SHOWN:
            cells[-1].append(_cell(*estimates.get((policy, metric), (nan, nan, nan)), interval))
    return cells


def _cell(mean: float, low: float, high: float, interval: str) -> str:
    if isnan(mean):
        return "-"
    if not interval or not high > low:
        return f"{mean:.3g}"
    decimals = max(0, -floor(log10((high - low) / 2)))
    shown = f"±{(high - low) / 2:.{decimals}f}" if interval == "half" else f"({low:.{decimals}f}, {high:.{decimals}f})"
    return f"{mean:.{decimals}f} {shown}"


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
