"""The summary that a terminal shows: the numbers by policy, what they say, and what must be known to read them."""

from math import isfinite
from textwrap import wrap

from uhlm_sim.analysis.digits import number, ratio
from uhlm_sim.analysis.measures.energy import ENERGY
from uhlm_sim.analysis.measures.intervals import RATIO
from uhlm_sim.analysis.report.points import (
    STABLE,
    Estimate,
    Points,
    alarms,
    failures_of,
    forced_where,
    replications_of,
    unmet_precision,
    verdicts_of,
)
from uhlm_sim.analysis.report.sentences import answers
from uhlm_sim.analysis.results import Results

SHOWN = (  # of a single point: column of the summary table, its metric, and how its interval is shown, if at all
    ("tokens/s", "token_throughput", "half"),
    ("ratio to first", "token_throughput.ratio_to_first", "range"),
    ("1/mean(delay)", "token_throughput_per_device", ""),
    ("mean(1/delay)", "mean_token_rate", ""),
    ("TTFT p50 s", "ttft_s.p50", ""),
    ("TTFT p95 s", "ttft_s.p95", ""),
    ("TPOT p50 s", "tpot_s.p50", ""),
    ("TPOT p95 s", "tpot_s.p95", ""),
    ("skipped", "skip_rate", ""),
    ("their risk", "rejection_risk", ""),
    ("uplink", "uplink_utilisation", ""),
    ("GPU", "bs_utilisation", ""),
    ("J/token", "energy_per_token_j", ""),
)
# Of a sweep, by whether traffic is a closed loop: what has a row a point and a column a policy, as such and as a ratio.
SWEPT = {
    True: ("tokens/s of the cell", "token_throughput"),
    False: ("tokens/s of an answering phone, 1/mean(delay)", "token_throughput_per_device"),
}
WIDTH = 120  # of sentences


def summary_text(tables: Results) -> str:
    """Return means with 95 % intervals, for a sweep the main ones point by point, then answers and notes."""
    points = Points.of(tables)
    told = {entry["label"]: entry for entry in tables.provenance["policies"]}
    lines = [*_heading(tables), ""]
    for failure in failures_of(tables):
        lines += [f"FAILED: {failure}", ""]
    names = {label: f"{label} *" if label in tables.forced else label for label in told}
    mark = f" ({tables.source})" if tables.source else ""
    if len(points) == 1:
        lines += [points.words(0)] if tables.sweep else []
        joules = points.get(0, tables.policies[0], ENERGY[0])[0]
        shown = [each for each in SHOWN if each[1] != ENERGY[0] or isfinite(joules)]
        rows = [
            [names[name], *(_cell(points.get(0, name, metric), interval) for _, metric, interval in shown)]
            for name in tables.policies
        ]
        lines += [*_aligned([[f"policy{mark}", *(title for title, _, _ in shown)], *rows]), ""]
    title, metric = SWEPT[tables.closed_loop]
    both = ((title, metric, "half"), (f"ratio to {tables.policies[0]}", f"{metric}{RATIO}", "range"))
    for title, metric, interval in both if len(points) > 1 else ():
        rows = [
            [*points.values(at), *(_cell(points.get(at, name, metric), interval) for name in tables.policies)]
            for at in points.in_order()
        ]
        heads = [*tables.sweep, *(names[name] for name in tables.policies)]
        lines += [f"{title}{mark}", *_aligned([heads, *rows]), ""]
    for sentence in answers(tables):
        lines += wrap(sentence, WIDTH, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False)
    lines.append("")
    note = " at the first point" if any(key.startswith("policy.") for key in tables.sweep) else ""
    lines += [f"{label}{note}: {entry['words']}" for label, entry in told.items() if entry["words"]]
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
        lines.append(f"* teacher-forced on the text of HLM, for want of a path of its own in the trace: {forced}")
    return "\n".join(lines).rstrip()


def _heading(tables: Results) -> list[str]:
    """Return what was run: name and question, replications and window."""
    scenario = tables.scenario
    start_s, end_s = tables.window_s
    return [
        f"{scenario['name']}: {scenario['description']}" if scenario["description"] else scenario["name"],
        *(["SYNTHETIC TOKENS: drawn from a law fitted to given statistics; no model was run"] if tables.source else ()),
        f"{replications_of(tables)} of {end_s:g} s, the first {start_s:g} s cut, seed {scenario['seed']}"
        + ("; ± and (low to high) are 95 % intervals" if tables.summary["replications"].max() > 1 else ""),
    ]


def _cell(estimate: Estimate, interval: str) -> str:
    """Return a value, its interval behind it if it is to be shown, with the report's digits."""
    text, half = number(*estimate)
    if interval == "range":
        text, ends = ratio(*estimate)
        return f"{text} ({ends})" if ends else text
    return f"{text} {half}".strip() if interval else text


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
