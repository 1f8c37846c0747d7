"""The summary that a terminal shows: one row per policy, and what must be known to read it."""

from math import isnan, nan

from uhlm_sim.analysis.intervals import verdicts
from uhlm_sim.analysis.tables import RunTables

SHOWN = (  # column of the summary table, its metric, and whether its interval is shown
    ("tokens/s", "token_throughput", True),
    ("ratio to first", "token_throughput.ratio_to_first", True),
    ("1/mean delay", "token_throughput_per_device", False),
    ("mean 1/delay", "mean_token_rate", False),
    ("TTFT p50 s", "ttft_s.p50", False),
    ("p95", "ttft_s.p95", False),
    ("TPOT p50 s", "tpot_s.p50", False),
    ("p95", "tpot_s.p95", False),
    ("skipped", "skip_rate", False),
    ("uplink", "uplink_utilisation", False),
    ("GPU", "bs_utilisation", False),
)


def summary_text(tables: RunTables) -> str:
    """Return a table of means (with half-widths of 95 % intervals) per policy, and notes; same tables, same bytes."""
    scenario = tables.scenario
    start_s, end_s = tables.window_s
    summary = tables.summary
    half = (summary["ci95_high"] - summary["ci95_low"]) / 2
    estimates = dict(
        zip(
            zip(summary["policy"], summary["metric"], strict=True),
            zip(summary["mean"], half, strict=True),
            strict=True,
        )
    )
    told = {entry["label"]: entry for entry in tables.provenance["policies"]}
    cells = [["policy", *(title for title, _, _ in SHOWN)]]
    for policy in tables.policies:
        cells.append([policy + ("" if told[policy]["exact"] else " *")])
        for _, metric, with_interval in SHOWN:
            cells[-1].append(_cell(*estimates.get((policy, metric), (nan, nan)), with_interval))
    judged = verdicts(
        tables.replications, window_s=end_s - start_s, open_arrivals=scenario["traffic"]["kind"] != "closed"
    )
    lines = [
        f"{scenario['name']}: {scenario['description']}" if scenario["description"] else scenario["name"],
        f"{scenario['replications']} replications of {end_s:g} s, the first {start_s:g} s cut, "
        f"seed {scenario['seed']}; ± is half a 95 % interval",
        "",
        *_aligned(cells),
        "",
        *(f"{label}: {entry['words']}" for label, entry in told.items() if entry["words"]),
        *(f"{row.policy}: {row.verdict!s}. {row.words}" for row in judged.itertuples() if row.verdict),
    ]
    cut = {policy: estimates.get((policy, "unfinished_requests"), (nan, nan))[0] for policy in tables.policies}
    if any(count > 0 for count in cut.values()):
        told_cut = ", ".join(f"{policy} {count:.3g}" for policy, count in cut.items())
        lines.append(f"Requests that the end of the run cut off, per replication: {told_cut}")
    if any(not entry["exact"] for entry in told.values()):
        lines.append("* teacher-forced on the text of HLM: no path of its own in the trace")
    return "\n".join(lines)


def _cell(mean: float, half: float, with_interval: bool) -> str:
    if isnan(mean):
        return "-"
    return f"{mean:.3g} ±{half:.1g}" if with_interval and half > 0 else f"{mean:.3g}"


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
