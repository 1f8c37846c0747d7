"""Accuracy against speed: what each threshold buys and costs, with skipping at random beside it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter
from matplotlib.typing import LineStyleType

from uhlm_sim.analysis.figures import wording
from uhlm_sim.analysis.figures.axes import is_threshold, varied
from uhlm_sim.analysis.figures.marks import Point, Value, mark
from uhlm_sim.analysis.figures.over_sweep import joined, joined_policies
from uhlm_sim.analysis.figures.style import INK, QUIET, Look, looks, new_panels
from uhlm_sim.analysis.figures.wording import ASKED, Drawing, View
from uhlm_sim.analysis.measures.intervals import RATIO
from uhlm_sim.analysis.run import Run
from uhlm_sim.errors import InputError

SPEED = f"token_throughput_per_device{RATIO}"
COSTS = {
    "distribution_error": "distribution error a token",
    "rejection_risk": "rejection risk of a skipped token",
    "quality_cosine": "cosine to the LLM's answer",
    "quality_cosine_reference": "cosine to the reference answer",
    "task_accuracy": "programs that pass their checks",
}
MEANINGS = {
    "distribution_error": "The distribution error is the total variation distance between the law of a token and the "
    "LLM's, mean over drafted tokens.",
    "rejection_risk": "The rejection risk is the chance that the LLM would have refused a token that was kept.",
    "quality_cosine": "Cosines are between sentence embeddings of whole answers.",
}
U_HLM = "u-hlm"
LADDERS: dict[str, LineStyleType] = {
    U_HLM: "-",
    f"{U_HLM} by entropy": (0.0, (1.0, 1.0)),
    f"{U_HLM} by top1": (0.0, (5.0, 1.0, 1.0, 1.0)),
    f"{U_HLM} by margin": (0.0, (3.0, 1.0)),
    f"{U_HLM} by price": (0.0, (2.0, 1.0)),
    "rand-hlm": (0.0, (4.0, 1.5)),
    "periodic-hlm": (0.0, (1.0, 2.0)),
}
ENDS = ("hlm", "slm")  # where every ladder begins and ends: nothing skipped, everything skipped
LLM = "llm"  # drafts nothing: on no ladder, but what a reader compares with
MARKERS = {"hlm": "s", "slm": "D", LLM: "*"} | dict(zip(LADDERS, "ovpPX^<", strict=True))
LADDER_LENGTH = 3
FAR = 4.0  # times the slowest: then speeds stand on a logarithmic axis
APART = (0.065, 0.06)  # of the axes, across and up: of thresholds nearer than that only the last has a label


def frontier_table(summary: pd.DataFrame, kinds: Mapping[str, str], sweep: Sequence[str] = ()) -> pd.DataFrame:
    """Return where each setting of the skipping rules stands: its speed against what it costs in accuracy.

    Speed is a phone's token rate, 1/mean(delay), as a ratio to the first policy's, paired: the cell's throughput also
    depends on think times and on how long a policy's answers are. `kinds` tells each label's kind (one of
    LADDERS, hlm, slm, llm; others are left out). Settings are the policies of one point or, with `sweep` columns, those
    of all points, each only once. Columns: policy, kind, setting (the swept value, or what stands in the label's
    parenthesis), skip_rate, speed with speed_low and speed_high, metric (one of COSTS), mean, ci95_low, ci95_high,
    replications. Along a kind rows are ordered by skip_rate.
    """
    estimates = ["mean", "ci95_low", "ci95_high"]
    keys = [*sweep, "policy"]
    fast = summary[summary["metric"] == SPEED].set_index(keys)[estimates]
    fast.columns = pd.Index(["speed", "speed_low", "speed_high"])
    skipped = summary[summary["metric"] == "skip_rate"].set_index(keys)["mean"].rename("skip_rate")
    costs = summary[summary["metric"].isin(COSTS) & summary["mean"].notna()]
    table = costs.join(fast, on=keys).join(skipped, on=keys).reset_index(drop=True)
    table["kind"] = table["policy"].map(kinds)
    table = table[table["kind"].isin([*LADDERS, *ENDS, LLM]) & table["speed"].notna()]
    setting = table["policy"].astype(str).str.extract(r"\((?:entropy |top1 |price )?(.*)\)$", expand=False).fillna("")
    if sweep:
        moves = table.groupby(["policy", "metric"])["skip_rate"].transform("nunique") > 1
        setting = setting.mask(moves & table["kind"].str.startswith(U_HLM), table[sweep[0]].map(_word))
        table = table.assign(policy=joined(table, sweep[0]))
    columns = ["policy", "kind", "setting", "skip_rate", "speed", "speed_low", "speed_high"]
    table = table.assign(setting=setting)[[*columns, "metric", *estimates, "replications"]]
    once = table.drop_duplicates(["policy", "metric", "skip_rate", "speed", "mean"])
    order = [list(COSTS).index(metric) for metric in once["metric"]]
    kind = [[*ENDS, LLM, *LADDERS].index(word) for word in once["kind"]]
    return once.iloc[np.lexsort((once["skip_rate"].to_numpy(), np.array(kind), np.array(order)))].reset_index(drop=True)


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float | int) else str(value)


def is_frontier(table: pd.DataFrame) -> bool:
    """Say whether a `frontier_table` holds a ladder: enough settings of U-HLM to see a course."""
    rungs = table[table["kind"].str.startswith(U_HLM)].groupby("metric").size()
    return bool(rungs.max() >= LADDER_LENGTH) if len(rungs) else False


_SPEEDS, _COSTS = ["speed", "speed_low", "speed_high"], ["mean", "ci95_low", "ci95_high"]


def draw_frontier(ax: Axes, table: pd.DataFrame, metric: str, styles: Mapping[str, Look], first: str = "") -> None:
    """Draw one cost of a `frontier_table` against speed: a line along each rule, thin lines for 95 % intervals.

    The lines start at HLM, which skips nothing, and end at SLM, which skips everything, where these are in the table.
    A setting of U-HLM has its threshold beside it.
    """
    rows = table[table["metric"] == metric]
    ends = rows[rows["kind"].isin(ENDS)]
    for kind, line in LADDERS.items():
        rungs = rows[rows["kind"] == kind]
        if rungs.empty:
            continue
        course = pd.concat([rungs, ends]).sort_values("skip_rate", kind="stable")
        rule = ax.plot(course["speed"], course["mean"], color=QUIET, linestyle=line, linewidth=1.0, zorder=1)
        if rungs["policy"].nunique() == 1:
            mark(rule, str(rungs["policy"].iloc[0]))
    for row in rows.to_dict("records"):
        colour = styles[str(row["policy"])].colour
        lines = (
            ax.hlines(row["mean"], row["speed_low"], row["speed_high"], color=colour, linewidth=0.7, zorder=2),
            ax.vlines(row["speed"], row["ci95_low"], row["ci95_high"], color=colour, linewidth=0.7, zorder=2),
        )
        face = "white" if row["kind"] == "rand-hlm" else colour
        size = 6.5 if row["kind"] in (*ENDS, LLM) else 4.2  # an end is seen under a rule that has come to it
        at, marker = (row["speed"], row["mean"]), MARKERS[row["kind"]]
        point = ax.plot(*at, marker, color=colour, markerfacecolor=face, markersize=size, zorder=3)
        values = [Value(SPEED, *(row[name] for name in _SPEEDS)), Value(metric, *(row[name] for name in _COSTS))]
        policy, setting = str(row["policy"]), str(row["setting"])
        mark(lines, policy)
        mark(point, policy, [Point("" if setting in policy else f"setting {setting}", values)])
    rungs = rows[rows["kind"].str.startswith(U_HLM)]
    # Lines of intervals are as wide and as high as the axes, and pass behind the labels.
    speeds, costs = (rows[names].to_numpy(dtype=np.float64)[rows[names].notna()] for names in (_SPEEDS, _COSTS))
    is_far = speeds.max() > FAR * speeds.min() > 0  # as the LLM alone may be: the rungs would stand in a corner
    across = np.log if is_far else np.asarray
    wide, high = np.ptp(across(speeds)), np.ptp(costs)
    labelled: list[tuple[float, float]] = []
    # Backwards: a label stands where the next rung may be.
    columns = ["policy", "setting", "speed", "mean"]
    for policy, setting, speed, mean in rungs[columns].iloc[::-1].itertuples(index=False, name=None):
        if all(
            abs(across(speed) - across(x)) > APART[0] * wide or abs(mean - y) > APART[1] * high for x, y in labelled
        ):
            labelled.append((speed, mean))
            halo = [Stroke(linewidth=1.4, foreground="white"), Normal()]
            text = ax.annotate(setting, labelled[-1], (5, -4), textcoords="offset points", va="top", fontsize=5.5)
            text.set(color=INK, path_effects=halo, zorder=2.5)
            mark([text], str(policy))
    if metric in ("distribution_error", "rejection_risk"):
        ax.set_ylim(bottom=-0.09 * max(rows[["mean", "ci95_high"]].max().max(), 1e-9))  # one replication: no interval
    if is_far:
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        ax.xaxis.set_minor_formatter(NullFormatter())
    ax.margins(x=0.1, y=0.1)
    ax.set_xlabel(f"a phone's token rate, ratio to {first or 'the first policy'}")
    ax.set_ylabel(COSTS[metric])


def frontier_figure(table: pd.DataFrame, policies: Sequence[str] = ()) -> Figure:
    """Draw a panel for each cost of a `frontier_table`; `policies` are all of the run."""
    names = [str(name) for name in table["policy"].unique()]
    styles = looks([*policies, *(name for name in names if name not in policies)])
    shown = [metric for metric in COSTS if table["metric"].eq(metric).any()]
    columns = 3 if len(shown) == 3 else min(2, len(shown))
    with new_panels(len(shown), columns, 2.2, 0.5) as (figure, axes):
        for ax, metric in zip(axes, shown, strict=True):
            draw_frontier(ax, table, metric, styles, policies[0] if policies else "")
        _legend(figure, table, styles)
    return figure


def _legend(figure: Figure, table: pd.DataFrame, styles: Mapping[str, Look]) -> None:
    entries = []
    for kind in (*ENDS, LLM, *LADDERS):
        line = LADDERS.get(kind, "")
        colours = {styles[str(name)].colour for name in table.loc[table["kind"] == kind, "policy"]}
        if not colours:
            continue
        colour = colours.pop() if len(colours) == 1 else QUIET
        face = "white" if kind == "rand-hlm" else colour
        entry = Line2D([], [], color=colour, linestyle=line, linewidth=1.0, marker=MARKERS[kind], label=kind)
        entry.set(markersize=6.5 if kind == LLM else 4.2, markerfacecolor=face)
        entries.append(entry)
    figure.legend(handles=entries, loc="outside lower center", ncols=len(entries), handlelength=2.8)


def swept_threshold(run: Run) -> list[str]:
    """Return the threshold key that a run sweeps, if that is all it sweeps."""
    keys = varied(run.summary, run.sweep)
    return keys if len(keys) == 1 and is_threshold(keys[0]) else []


def frontier_of(run: Run) -> pd.DataFrame:
    """Return a run's `frontier_table`: of the swept thresholds, or else of the policies of its middle point."""
    keys = swept_threshold(run)
    return frontier_table(run.summary if keys else run.middle_point().summary, run.ladders, keys)


def drawing(view: View, ax: Axes | None = None, cost: str = "distribution_error") -> Drawing:
    """Draw accuracy against speed over the thresholds: one cost (see `frontier.COSTS`) on axes, else all known."""
    run = view.whole
    table, keys = frontier_of(run), varied(run.summary, run.sweep)
    policies = joined_policies(run, keys[0]) if len(keys) == 1 else run.policies
    if ax is not None:
        costs = [str(name) for name in table["metric"].unique()]
        if cost not in costs:
            raise InputError(f"cost '{cost}': not in this run; there are {', '.join(costs) or 'none'}")
        draw_frontier(ax, table, cost, looks(policies), run.policies[0])
    elif table.empty:
        raise InputError("no policy of this run skips, or what it costs isn't known")
    elif view.kind != ASKED and not is_frontier(table):
        raise InputError(f"fewer than {LADDER_LENGTH} thresholds make no ladder")
    at = "" if swept_threshold(run) else wording.drawn_for(view.run.summary, run.sweep)
    alone = " llm stands alone: it drafts nothing." if table["kind"].eq(LLM).any() else ""
    meanings = " ".join(MEANINGS[metric] for metric in MEANINGS if table["metric"].eq(metric).any())
    return Drawing(
        "frontier",
        "Accuracy against token rate",
        f"A phone's token rate, 1/mean(delay), as a ratio to {run.policies[0]}, against what each setting costs; "
        f"U-HLM's threshold stands beside it. {meanings} Each rule's line starts at hlm, which keeps nothing, "
        f"and ends at slm, which keeps everything.{alone}{wording.intervals(run, 'Thin lines')}{at}"
        f"{wording.forced(run)}",
        table,
        frontier_figure(table, policies) if ax is None else ax,
    )
