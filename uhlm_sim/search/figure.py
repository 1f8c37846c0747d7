"""The figures of the searches: of a capacity, metrics against the load with their limits; of a plan, what is needed."""

from collections.abc import Collection, Mapping, Sequence
from math import isnan, nan
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from uhlm_sim.analysis.figures.axes import key_words, value_words
from uhlm_sim.analysis.figures.style import COLUMN_IN, INK, PAGE_IN, QUIET, Look, line_widths, looks, new_figure
from uhlm_sim.analysis.measures.metrics import UNITS
from uhlm_sim.search.objectives import Objective

# What a row of the figure's table stands for: a point of a curve, a limit, a policy's capacity, its knee.
CURVE, LIMIT, CAPACITY, KNEE = "curve", "limit", "capacity", "knee"
BEYOND, BELOW = "beyond", "below"  # all loads tried keep the limits, or none does: the capacity is off the axis
APART, SPREAD = 5.0, 22.0  # points between two policies' capacities at one limit, and at most from first to last
ARROWS = {BEYOND: ">", BELOW: "<"}
FAR = 1e3
# A need that no value tried tells: the marker at the last of them, and what it means.
UNFOUND = {">": ("^", "more than tried"), "<=": ("v", "no more than tried")}
DASHES = (0.0, (6.0, 2.0))
ROOM = 1.3  # the axis goes so far beyond the largest capacity, and twice as far beyond a limit


def knee(loads: pd.DataFrame) -> float:
    """Return the load at which one policy's power is greatest; NaN where that is an end of the loads tried.

    Power is throughput over response time (Kleinrock 1979): below its maximum more load mainly brings throughput, above
    it mainly waiting. Here it is tokens a second over a token's mean time in the system, waiting at the phone included;
    by Little's law that time is requests present over tokens a second, which no unfinished request distorts. The
    maximum is that of the parabola, in logarithms of both, through the greatest power seen and its two neighbours.
    """
    table = loads.pivot_table(index="load", columns="metric", values="mean")
    if not {"token_throughput", "requests_present"} <= set(table.columns):
        return nan
    power = (table["token_throughput"] ** 2 / table["requests_present"]).dropna()
    power = power[power > 0]
    best = int(power.argmax()) if len(power) else 0
    if not 0 < best < len(power) - 1:
        return nan
    around = slice(best - 1, best + 2)
    log_load = np.log(power.index.to_numpy(dtype=np.float64)[around])
    bend, slope, _ = np.polyfit(log_load - log_load[1], np.log(power.to_numpy()[around]), 2)
    return float(np.exp(log_load[1] - slope / (2 * bend))) if bend < 0 else nan


def capacity_table(capacities: pd.DataFrame, loads: pd.DataFrame, objectives: Sequence[Objective]) -> pd.DataFrame:
    """Return what the figure draws: a row per point of a curve, limit, capacity and knee, told apart by `mark`.

    Columns: metric, mark, policy, load, load_low, load_high (a capacity's interval), mean, ci95_low, ci95_high. A
    capacity stands at the limit that it breaks first, a knee on its policy's curve. A capacity that wasn't found stands
    as `beyond` or `below`, with the largest or least load tried.
    """
    rows = []
    for objective in objectives:
        metric, limit = objective.metric, objective.limit
        rows.append((metric, LIMIT, "", nan, nan, nan, limit, nan, nan))
        for row in capacities.to_dict("records"):
            here = loads[(loads["policy"] == row["policy"]) & (loads["metric"] == metric)].sort_values("load")
            start = (metric, CURVE, row["policy"])
            values = here[["load", "mean", "ci95_low", "ci95_high"]].itertuples(index=False)
            rows += [(*start, load, nan, nan, *estimate) for load, *estimate in values]
            if row["bound"] == "" and str(objective) in row["limited_by"].split(" and "):
                interval = (row["ci95_low"], row["ci95_high"])
                rows.append((metric, CAPACITY, row["policy"], row["capacity"], *interval, limit, nan, nan))
            if row["bound"]:
                mark = BEYOND if row["bound"] == ">=" else BELOW
                rows.append((metric, mark, row["policy"], row["capacity"], nan, nan, limit, nan, nan))
            if not isnan(row["knee"]):
                mean = float(np.interp(row["knee"], here["load"], here["mean"]))
                rows.append((metric, KNEE, row["policy"], row["knee"], nan, nan, mean, nan, nan))
    names = ["metric", "mark", "policy", "load", "load_low", "load_high", "mean", "ci95_low", "ci95_high"]
    return pd.DataFrame(rows, columns=names)


def draw_capacity(ax: Axes, table: pd.DataFrame, metric: str, styles: Mapping[str, Look], widest: float) -> None:
    """Draw one metric's rows of `capacity_table` on axes that end at the load `widest`.

    Capacities stand one under another about their limit, in the policies' order, so that none hides the next.
    """
    table = table[table["metric"] == metric]
    limits = table.loc[table["mark"] == LIMIT, "mean"]
    ax.set_xlim(0, widest)
    seen = table[(table["mark"] == CURVE) & (table["load"] <= widest)]
    highest = float(np.nanmax([*limits, *seen["ci95_high"], *seen["mean"]]))
    ax.set_ylim(0, 1.05 * highest if highest > 0 else None)
    if UNITS[metric] == "s":
        ax.set_ylim(0, min(max(1.05 * highest, 1.15 * float(limits.max())), 2 * ROOM * float(limits.max())))
    for limit in limits:
        ax.axhline(limit, color=INK, linewidth=0.9, linestyle=DASHES, zorder=1.5)
    apart = min(APART, SPREAD / max(1, len(styles) - 1))
    widths = line_widths(list(styles))
    for number, (policy, look) in enumerate(styles.items()):
        points = apart * ((len(styles) - 1) / 2 - number)
        here = ax.transData + ScaledTranslation(0, points / 72, ax.figure.dpi_scale_trans)
        rows = table[table["policy"] == policy]
        curve, capacity, bend = (rows[rows["mark"] == mark] for mark in (CURVE, CAPACITY, KNEE))
        ax.fill_between(
            curve["load"], curve["ci95_low"], curve["ci95_high"], color=look.colour, alpha=0.18, linewidth=0
        )
        ax.plot(curve["load"], curve["mean"], color=look.colour, linestyle=look.line, linewidth=widths[number])
        ax.plot(bend["load"], bend["mean"], "D", markersize=4.5, color="white", markeredgecolor=look.colour, zorder=4)
        for row in capacity.to_dict("records"):
            ends = [row["load"] - row["load_low"]], [min(row["load_high"], 2 * widest) - row["load"]]
            ax.errorbar(
                row["load"], row["mean"], xerr=ends, fmt="o", markersize=3.5, color=look.colour, elinewidth=1.3,
                capsize=1.8, capthick=1.0, zorder=5, transform=here,
            )  # fmt: skip
        for row in rows[rows["mark"].isin(list(ARROWS))].to_dict("records"):
            ax.plot(
                min(row["load"], widest), row["mean"], ARROWS[row["mark"]], markersize=4.5, color=look.colour,
                zorder=5, transform=here, clip_on=False,
            )  # fmt: skip


def capacity_figure(
    capacities: pd.DataFrame, loads: pd.DataFrame, vary: str, objectives: Sequence[Objective]
) -> Figure:
    """Draw each objective's metric against the load, a panel each, with the limits, capacities and knees."""
    table = capacity_table(capacities, loads, objectives)
    styles = looks([str(name) for name in capacities["policy"]])
    known = capacities.loc[capacities["bound"] == "", "capacity"]
    widest = ROOM * float(known.max()) if len(known) else float(loads["load"].max())
    metrics = list(dict.fromkeys(objective.metric for objective in objectives))
    columns = min(len(metrics), 3)
    rows = -(-len(metrics) // columns)
    with new_figure(COLUMN_IN if columns == 1 else PAGE_IN, 0.6 + 2.1 * rows) as figure:
        panels = list(figure.subplots(rows, columns, squeeze=False).flat)
        for ax, metric in zip(panels, metrics, strict=False):
            draw_capacity(ax, table, metric, styles, widest)
            ax.set_title(_title(metric))
            ax.set_xlabel(key_words(vary))
        for ax in panels[len(metrics) :]:
            ax.set_axis_off()
        _legend(figure, styles, 2 if columns == 1 else 4, set(table["mark"]))
    return figure


def need_figure(needs: pd.DataFrame, vary: str, sweep: Sequence[str]) -> Figure:
    """Draw what each policy needs of a resource with its interval, at each point of a sweep over some keys.

    A need that wasn't found is an arrow at the last value tried.
    """
    styles = looks(list(dict.fromkeys(needs["policy"])))
    points: list[dict[Any, Any]] = needs[list(sweep)].drop_duplicates().to_dict("records") if sweep else [{}]
    grouped = needs.assign(one=0).groupby([*sweep, "one"], sort=False, dropna=False)
    number_of_point = grouped.ngroup()
    places = [", ".join(value_words(key, value) for key, value in point.items()) for point in points]
    apart = 0.5 / max(len(styles), 1)
    of_line: dict[str, Any] = {"markersize": 3.5} | ({} if sweep else {"linestyle": "none"})
    with new_figure(COLUMN_IN, 2.9) as figure:
        ax = figure.add_subplot()
        for number, (policy, look) in enumerate(styles.items()):
            rows = needs[needs["policy"] == policy]
            x = number_of_point[rows.index] + apart * (number - (len(styles) - 1) / 2)
            known = (rows["bound"] == "").to_numpy()
            y = rows["needed"].to_numpy(dtype=np.float64)
            ends = rows[["ci95_low", "ci95_high"]].to_numpy(dtype=np.float64)
            ends = np.where(ends > 0, np.minimum(ends, FAR * y[:, None]), y[:, None] / FAR)  # not known: off the axis
            spread = np.abs(ends - y[:, None])[known].T
            ax.errorbar(
                x[known], y[known], yerr=spread, fmt="o", linestyle=look.line if sweep else "none", markersize=3.5,
                color=look.colour, elinewidth=1.3, capsize=1.8, label=policy,
            )  # fmt: skip
            for at, value, bound in zip(x[~known], y[~known], rows["bound"][~known], strict=True):
                ax.plot(at, value, UNFOUND[bound][0], markersize=4.5, color=look.colour)
        ax.set_yscale("log")
        seen = needs[["needed", "ci95_low", "ci95_high"]].to_numpy(dtype=np.float64)
        seen = seen[np.isfinite(seen) & (seen > 0)]
        ax.set_ylim(seen.min() / ROOM, seen.max() * ROOM)
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: value_words(vary, value)))
        ax.set_ylabel(f"needed: {key_words(vary)}")
        ax.set_xticks(range(len(places)) if sweep else [], places if sweep else [])
        ax.set_xlabel(key_words(sweep[0]) if len(sweep) == 1 else "")
        handles = [
            Line2D([], [], marker="o", color=look.colour, label=name, **of_line) for name, look in styles.items()
        ]
        for bound, (marker, words) in UNFOUND.items():
            if (needs["bound"] == bound).any():
                handles.append(
                    Line2D([], [], marker=marker, linestyle="none", color=QUIET, markersize=4.5, label=words)
                )
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return figure


def _title(metric: str) -> str:
    """Return "TPOT p95, s" for tpot_s.p95, and what has no unit without one."""
    name, _, statistic = metric.partition(".")
    short = name.removesuffix("_s")
    words = (
        short.upper() if short in ("ttft", "tpot", "itl", "e2e") else short.replace("_", " ").replace("slo ", "SLO ")
    )
    return f"{words} {statistic}".strip() + f", {UNITS[metric]}".removesuffix(", 1")


def _legend(figure: Figure, styles: Mapping[str, Look], columns: int, used: Collection[str]) -> None:
    """Put the policies in rows under the panels, and what the marks that are used mean in rows under these."""
    dot: dict[str, Any] = {"linestyle": "none", "color": QUIET, "markersize": 4.5}
    known = {
        LIMIT: Line2D([], [], color=INK, linewidth=0.9, linestyle=DASHES, label="limit"),
        CAPACITY: Line2D([], [], marker="o", label="capacity, 95 % interval", **dot),
        KNEE: Line2D([], [], marker="D", markerfacecolor="white", label="knee: greatest power", **dot),
        BEYOND: Line2D([], [], marker=ARROWS[BEYOND], label="no load breaks a limit", **dot),
        BELOW: Line2D([], [], marker=ARROWS[BELOW], label="least load breaks it", **dot),
    }
    marks = [handle for mark, handle in known.items() if mark in used]
    lines = [Line2D([], [], color=look.colour, linestyle=look.line, label=name) for name, look in styles.items()]
    columns = min(columns, max(len(lines), len(marks)))
    nothing = Line2D([], [], linestyle="none", label=" ")
    rows = [
        (group[i : i + columns] + [nothing] * columns)[:columns]
        for group in (lines, marks)
        for i in range(0, len(group), columns)
    ]
    by_column = [handle for column in zip(*rows, strict=True) for handle in column]
    figure.legend(handles=by_column, loc="outside lower center", ncols=columns, handlelength=2.4)
