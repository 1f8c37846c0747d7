"""The HTML that a notebook shows of a run: the headline of each policy and point; it loads nothing."""

from html import escape
from math import nan

from uhlm_sim.analysis.digits import plain
from uhlm_sim.analysis.measures.verdicts import verdicts
from uhlm_sim.analysis.report.headline import HEADLINE, in_one
from uhlm_sim.analysis.run import Run

MOST_POINTS = 12  # as many of a sweep are shown


def _at_some(results: Run) -> str:
    return f" ({', '.join(results.forced_in_part)} at some points only)" if results.forced_in_part else ""


def results_html(results: Run) -> str:
    """Return the run's name, its headline numbers with intervals, and the verdict's word where there is one."""
    scenario, policies = results.scenario, results.policies
    judged = verdicts(results.replications, results.terms)
    words = {(row["point"], row["policy"]): row["verdict"] for row in judged.to_dict("records")}
    summary = results.summary
    numbers = (
        summary.groupby(results.sweep, sort=False, dropna=False).ngroup() if results.sweep else summary["mean"] * 0
    )
    points = results.replications.drop_duplicates("point")
    columns = [column for column in HEADLINE if column.notebook]
    rows = []
    for place, point in list(enumerate(points.to_dict("records")))[:MOST_POINTS]:
        here = summary[numbers.fillna(0) == place]
        keys = zip(here["policy"], here["metric"], strict=True)
        estimates = here[["mean", "ci95_low", "ci95_high"]].itertuples(index=False, name=None)
        values = dict(zip(keys, estimates, strict=True))
        for policy in here["policy"].unique():
            cells = [plain(point[key]) for key in results.sweep]
            cells.append(f"{policy}{' †' if policy in results.forced else ''}")
            for column in columns:
                estimate: tuple[float, float, float] = values.get((policy, column.metric), (nan, nan, nan))
                cells.append(in_one(column.metric, estimate, column.factor))
            rows.append([*cells, words.get((point["point"], policy), "")])
    titles = [*results.sweep, "policy", *(column.notebook for column in columns), ""]
    notes = [f"<b>{results.source.upper()} tokens: no model was run.</b>"] if results.source else []
    notes += [f"Ratios are to {policies[0]}, paired; intervals are 95 % over replications."]
    if len(points) > MOST_POINTS:
        notes.append(f"{len(points) - MOST_POINTS} more points are in <code>.summary</code>.")
    if results.forced:
        notes.append(f"† teacher-forced where its own tokens were never recorded{_at_some(results)}.")
    if results.failed:
        notes.append(f"Failed simulations: {len(results.failed)}, listed in <code>.failed</code>.")
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    title = f"<b>{escape(str(scenario['name']))}</b> {escape(str(scenario.get('description', '')))}"
    table = f'<table style="white-space: nowrap"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f"<div><p>{title}</p>{table}<p><small>{' '.join(notes)}</small></p></div>"
