"""A run as a notebook shows it: a headline per policy and point, in HTML that loads nothing."""

from html import escape
from math import nan
from typing import TYPE_CHECKING

from uhlm_sim.analysis.digits import number, plain, ratio
from uhlm_sim.analysis.measures.intervals import RATIO
from uhlm_sim.analysis.measures.verdicts import verdicts

if TYPE_CHECKING:
    from uhlm_sim.analysis.results import Results

# Column, metric, and the factor it is shown in; None for a ratio to the first policy.
HEADLINE = (
    ("tokens/s, cell", "token_throughput", 1.0),
    ("ratio", f"token_throughput{RATIO}", None),
    ("tokens/s, a phone", "token_throughput_per_device", 1.0),
    ("TTFT p95, s", "ttft_s.p95", 1.0),
    ("TPOT p95, ms", "tpot_s.p95", 1e3),
    ("skipped, %", "skip_rate", 100.0),
    ("risk, %", "rejection_risk", 100.0),
    ("uplink, %", "uplink_utilisation", 100.0),
    ("GPUs, %", "bs_utilisation", 100.0),
)
POINTS = 12  # as many of a sweep are shown


def _at_some(results: "Results") -> str:
    return f" ({', '.join(results.forced_in_part)} at some points only)" if results.forced_in_part else ""


def results_html(results: "Results") -> str:
    """Return the run's name, its headline numbers with intervals, and the verdict's word where there is one."""
    scenario, policies = results.scenario, results.policies
    start_s, end_s = results.window_s
    judged = verdicts(results.replications, window_s=end_s - start_s, open_arrivals=not results.closed_loop)
    words = {(row["point"], row["policy"]): row["verdict"] for row in judged.to_dict("records")}
    summary = results.summary
    numbers = (
        summary.groupby(results.sweep, sort=False, dropna=False).ngroup() if results.sweep else summary["mean"] * 0
    )
    points = results.replications.drop_duplicates("point")
    rows = []
    for place, point in list(enumerate(points.to_dict("records")))[:POINTS]:
        here = summary[numbers.fillna(0) == place]
        keys = zip(here["policy"], here["metric"], strict=True)
        estimates = here[["mean", "ci95_low", "ci95_high"]].itertuples(index=False, name=None)
        found = dict(zip(keys, estimates, strict=True))
        for policy in here["policy"].unique():
            cells = [plain(point[key]) for key in results.sweep]
            cells.append(f"{policy}{' †' if policy in results.forced else ''}")
            for _, metric, scale in HEADLINE:
                estimate: tuple[float, float, float] = found.get((policy, metric), (nan, nan, nan))
                text, ends = number(*estimate, scale) if scale else ratio(*estimate)
                cells.append(f"{text} ({ends})" if ends and not scale else f"{text} {ends}".strip())
            rows.append([*cells, words.get((point["point"], policy), "")])
    titles = [*results.sweep, "policy", *(title for title, _, _ in HEADLINE), ""]
    notes = [f"<b>{results.source.upper()} tokens: no model was run.</b>"] if results.source else []
    notes += [f"Ratios are to {policies[0]}, paired; intervals are 95 % over replications."]
    if len(points) > POINTS:
        notes.append(f"{len(points) - POINTS} more points are in <code>.summary</code>.")
    if results.forced:
        notes.append(f"† teacher-forced, on the answers of another policy{_at_some(results)}.")
    if results.failed:
        notes.append(f"Failed simulations: {len(results.failed)}, told in <code>.failed</code>.")
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    title = f"<b>{escape(str(scenario['name']))}</b> {escape(str(scenario.get('description', '')))}"
    table = f'<table style="white-space: nowrap"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f"<div><p>{title}</p>{table}<p><small>{' '.join(notes)}</small></p></div>"
