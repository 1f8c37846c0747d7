"""The summary that a terminal shows: the headline, the answers in sentences, and notes on how to read them."""

from math import isfinite
from textwrap import wrap

from uhlm_sim.analysis.measures.energy import ENERGY
from uhlm_sim.analysis.measures.intervals import RATIO
from uhlm_sim.analysis.report.headline import HEADLINE, OVER_SWEEP, cell, in_one
from uhlm_sim.analysis.report.points import (
    STABLE,
    Points,
    alarms,
    failures_of,
    forced_where,
    replications_of,
    unmet_precision,
    verdicts_of,
)
from uhlm_sim.analysis.report.sentences import answers
from uhlm_sim.analysis.run import Run

WIDTH = 120  # of sentences


def summary_text(tables: Run) -> str:
    """Return means with 95 % intervals, for a sweep the main ones point by point, then answers and notes."""
    points = Points.of(tables)
    entries = {entry["label"]: entry for entry in tables.provenance["policies"]}
    lines = [*_heading(tables), ""]
    for failure in failures_of(tables):
        lines += [f"FAILED: {failure}", ""]
    names = {label: f"{label} *" if label in tables.forced else label for label in entries}
    mark = f" ({tables.source})" if tables.source else ""
    if len(points) == 1:
        lines += [points.words(0)] if tables.sweep else []
        lines += [*_aligned(_headline(tables, points, names, f"policy{mark}")), ""]
    else:
        title, metric = OVER_SWEEP[tables.is_open]
        for caption, shown in ((title, metric), (f"Ratio to {tables.policies[0]}", f"{metric}{RATIO}")):
            heads = [*tables.sweep, *(names[name] for name in tables.policies)]
            rows = [
                [*points.values(at), *(in_one(shown, points.get(at, name, shown)) for name in tables.policies)]
                for at in points.in_order()
            ]
            lines += [f"{caption}{mark}", *_aligned([heads, *rows]), ""]
    for sentence in answers(tables):
        lines += wrap(sentence, WIDTH, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False)
    lines.append("")
    note = " at the first point" if any(key.startswith("policy.") for key in tables.sweep) else ""
    lines += [f"{label}{note}: {entry['words']}" for label, entry in entries.items() if entry["words"]]
    judged = verdicts_of(tables)
    stable = points.by_policy(tables.policies, lambda *key: judged.get(key, ("", ""))[0] == STABLE)
    lines += [f"{STABLE}: {stable}"] if stable else []
    if len(points) == 1:
        lines += [f"{name}: {word}. {why}" for (_, name), (word, why) in judged.items() if word not in ("", STABLE)]
    else:
        lines += [f"{word}: {where}" for word, where in alarms(points, tables.policies, judged)]
    missed = unmet_precision(tables, points)
    lines += wrap(missed, WIDTH, break_on_hyphens=False) if missed else []
    forced = forced_where(tables, points)
    if forced:
        lines.append(f"* teacher-forced where its own tokens were never recorded (exact_share): {forced}")
    return "\n".join(lines).rstrip()


def _heading(tables: Run) -> list[str]:
    """Return what was run: name and question, replications and window."""
    scenario = tables.scenario
    start_s, end_s = tables.window_words
    return [
        f"{scenario['name']}: {scenario['description']}" if scenario["description"] else scenario["name"],
        *(["SYNTHETIC TOKENS: drawn from a law fitted to given statistics; no model was run"] if tables.source else ()),
        f"{replications_of(tables)} of {end_s} s, the first {start_s} s cut, seed {scenario['seed']}"
        + ("; ± and (low to high) are 95 % intervals" if tables.summary["replications"].max() > 1 else ""),
    ]


def _headline(tables: Run, points: Points, names: dict[str, str], corner: str) -> list[list[str]]:
    """Return the headline of a single point, titles first: intervals stand with the cell's throughput alone."""
    joules = points.get(0, tables.policies[0], ENERGY[0])[0]
    columns = [column for column in HEADLINE if column.terminal and (column.metric != ENERGY[0] or isfinite(joules))]
    rows = [[corner, *(column.terminal for column in columns)]]
    for name in tables.policies:
        estimates = {column.metric: points.get(0, name, column.metric) for column in columns}
        cells = [
            in_one(metric, estimate) if metric.removesuffix(RATIO) == "token_throughput" else cell(metric, estimate)[0]
            for metric, estimate in estimates.items()
        ]
        rows.append([names[name], *cells])
    return rows


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
