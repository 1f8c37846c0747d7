"""Metrics over one swept value: their tables, and a panel for each.

A table's first column is the swept one.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from uhlm_sim.analysis.figures.axes import DECADE, is_numeric, key_words, places, set_swept
from uhlm_sim.analysis.figures.marks import mark, points_over
from uhlm_sim.analysis.figures.style import INK, QUIET, Look, legend_below, line_widths, looks, new_panels, policies_of
from uhlm_sim.analysis.measures.intervals import RATIO
from uhlm_sim.analysis.measures.verdicts import verdicts
from uhlm_sim.analysis.run import Run

PARTIAL = ("OVERLOADED", "CUT SHORT")  # verdicts under which latencies are those of the quicker requests
COLUMNS = ["policy", "metric", "unit", "mean", "ci95_low", "ci95_high", "replications"]
# Lines to read the others by, in a table as if they were policies.
GUIDES = {"1/n": Look(INK, (0.0, (1.0, 1.5))), "SLO": Look(INK, (0.0, (6.0, 2.0)))}


def over_table(summary: pd.DataFrame, x: str, metrics: Sequence[str]) -> pd.DataFrame:
    """Return the summary's rows of some metrics, without nulls: the swept column, then COLUMNS.

    A policy whose label follows the sweep, as `u-hlm(0.2)` follows a swept threshold, is one policy here, called by its
    kind.
    """
    table = summary.reset_index(drop=True)
    table = table.assign(policy=joined(table, x))
    kept = table["metric"].isin(metrics) & table["mean"].notna()
    if table["policy"].nunique() == 1:
        kept &= ~table["metric"].str.endswith(RATIO)  # to itself
    return table.loc[kept, [x, *COLUMNS]].reset_index(drop=True)


def joined(summary: pd.DataFrame, x: str) -> pd.Series:
    """Return each row's policy, by its kind where its label follows the sweep and no other policy is called so."""
    points = summary[x].astype(str)
    seen = points.groupby(summary["policy"]).nunique()
    follows = summary["policy"].map(seen) < points.nunique()
    kinds = summary["policy"].astype(str).str.partition("(")[0]
    # Two of a kind at one point, or a kind that stays beside one that follows, can't be told apart by it.
    at_once = summary[follows].groupby([points, kinds])["policy"].nunique().groupby(level=1).max()
    free = kinds.map(at_once).eq(1) & ~kinds.isin(set(summary["policy"][~follows].astype(str)))
    return summary["policy"].astype(str).mask(follows & free, kinds)


def joined_policies(run: Run, x: str) -> list[str]:
    """Return a run's policies in order; those that follow the swept column are one."""
    return list(joined(run.summary, x).unique())


def guide_rows(table: pd.DataFrame, slo: Mapping[str, float]) -> pd.DataFrame:
    """Return an `over_table`'s guides: the share 1/n of a phone among n, and the limits of the SLOs.

    1/n goes through the first policy's rate at the most phones: from where its cell is saturated on, its points lie on
    it. A limit on `ttft_s` is drawn for every statistic of it.
    """
    x = str(table.columns[0])
    values = table[x].drop_duplicates()
    guides = []
    for metric in table["metric"].unique():
        rows = table[table["metric"] == metric]
        unit = rows["unit"].iloc[0]
        limit = slo.get(metric.partition(".")[0])
        if limit is not None:
            guides.append(pd.DataFrame({x: values, "policy": "SLO", "metric": metric, "unit": unit, "mean": limit}))
        if x == "traffic.devices" and metric == "token_throughput_per_device":
            last = rows[rows["policy"] == rows["policy"].iloc[0]].nlargest(1, x)
            dense = np.union1d(
                values, np.geomspace(values.min(), values.max(), 50)
            )  # a curve where the scale is linear
            share = last["mean"].iloc[0] * last[x].iloc[0] / dense
            guides.append(pd.DataFrame({x: dense, "policy": "1/n", "metric": metric, "unit": unit, "mean": share}))
    return pd.concat(guides, ignore_index=True).reindex(columns=table.columns) if guides else table.head(0)


def with_guides(table: pd.DataFrame, slo: Mapping[str, float]) -> pd.DataFrame:
    """Return an `over_table` with its guides below."""
    guides = guide_rows(table, slo)
    return pd.concat([table, guides], ignore_index=True) if len(guides) else table


def with_verdicts(table: pd.DataFrame, judged: pd.DataFrame) -> pd.DataFrame:
    """Return an `over_table` with each row's `verdict`, from a table of them as `verdicts.verdicts` makes it."""
    x = str(table.columns[0])
    judged = judged.assign(policy=joined(judged, x))[[x, "policy", "verdict"]].drop_duplicates([x, "policy"])
    return table.merge(judged, on=[x, "policy"], how="left").fillna({"verdict": ""})


def latency_table(run: Run, x: str, metrics: Sequence[str]) -> pd.DataFrame:
    """Return latencies over a swept value with each point's verdict and the limits of the SLOs."""
    judged = verdicts(run.replications, run.terms)
    return with_guides(with_verdicts(over_table(run.summary, x, metrics), judged), run.scenario.get("slo", {}))


def draw_over(ax: Axes, table: pd.DataFrame, metric: str, styles: Mapping[str, Look]) -> None:
    """Draw a metric of an `over_table` against its first column: a line per policy, its 95 % interval as a band.

    Between words there is nothing: policies stand side by side at each, their intervals as lines. Points whose
    `verdict` (see `with_verdicts`; a table needn't have it) is one of PARTIAL are hollow, those `without_interval` are
    crosses.
    """
    x = str(table.columns[0])
    rows = table[table["metric"] == metric].assign(at=places(table[x]))
    styles = {**GUIDES, **styles}
    names = policies_of(rows)
    everyone = [name for name in policies_of(table) if name not in GUIDES]
    for name, width in zip(names, line_widths(names), strict=True):
        one = rows[rows["policy"] == name].sort_values("at")
        at, mean, low, high = (one[c].to_numpy(dtype=np.float64) for c in ("at", "mean", "ci95_low", "ci95_high"))
        look = styles[name]
        if name in GUIDES:
            ax.plot(at, mean, color=look.colour, linestyle=look.line, linewidth=0.9, label=name, zorder=1.5)
            continue
        if not is_numeric(table[x]):
            at = at + 0.6 * (everyone.index(name) - (len(everyone) - 1) / 2) / len(everyone)
            mark([ax.vlines(at, low, high, color=look.colour, linewidth=0.9)], name)
            line = ax.plot(at, mean, "o", color=look.colour, markersize=3.6, label=name)
        else:
            line = ax.plot(at, mean, color=look.colour, linestyle=look.line, linewidth=width, marker=".", label=name)
            mark([ax.fill_between(at, low, high, color=look.colour, alpha=0.18, linewidth=0)], name)
        mark(line, name, points_over(one, x))
        hollow = one["verdict"].isin(PARTIAL).to_numpy() if "verdict" in one else np.zeros(len(one), dtype=bool)
        if hollow.any():
            (points,) = ax.plot(at[hollow], mean[hollow], "o", color=look.colour, markersize=3.4, zorder=2.5)
            points.set_markerfacecolor("white")
            mark([points], name, points_over(one[hollow], x))
        unsure = without_interval(one).to_numpy()
        if unsure.any():
            cross = ax.plot(at[unsure], mean[unsure], "x", color=look.colour, markersize=6, zorder=2.6)
            mark(cross, name, points_over(one[unsure], x))
    _set_values(ax, rows, metric)
    cut_bands(ax)
    set_swept(ax.xaxis, table.loc[~table["policy"].isin(GUIDES), x])
    ax.set_xlabel(key_words(x))


def without_interval(table: pd.DataFrame) -> pd.Series:
    """Say which rows of an `over_table` have several replications and yet no interval: Fieller's set needn't be one."""
    return table["mean"].notna() & table["ci95_low"].isna() & (table["replications"] > 1)


def crosses(table: pd.DataFrame) -> str:
    """Say in a caption what the crosses of `draw_over` are, if there are some."""
    return " Crosses have no interval: they are the least certain." if without_interval(table).any() else ""


def cut_bands(ax: Axes) -> None:
    """Let bands that reach zero or less meet the frame of a logarithmic axis at their points, not as walls beside."""
    if ax.get_yscale() == "log":
        for band in ax.collections:
            for path in band.get_paths():
                up = np.asarray(path.vertices)[:, 1]
                up[up <= 0] = ax.get_ylim()[0]


def _set_values(ax: Axes, rows: pd.DataFrame, metric: str) -> None:
    """Set the scale and the limits of the axis of values; a band or a guide far beyond all means is cut by the frame.

    Shares go from 0 to 1. Others are logarithmic where their means span more than a decade, else from 0; a ratio
    has its line at 1.
    """
    limits = rows.loc[rows["policy"] == "SLO", "mean"]
    rows = rows[~rows["policy"].isin(GUIDES)]
    if len(rows) and rows["unit"].eq("1").all() and not metric.endswith(RATIO):
        ax.set_ylim(0, 1.04 * max(1.0, rows["mean"].max()))
        return
    means = rows.loc[rows["mean"] > 0, "mean"]
    if metric.endswith(RATIO):
        ax.axhline(1.0, color=QUIET, linewidth=0.6, zorder=0.5)
        means = pd.concat([means, pd.Series([1.0])])
    if means.empty:
        return
    low, high = means.min(), means.max()
    if len(limits) and low / 2 < limits.iloc[0] < 2 * high:
        low, high = min(low, limits.iloc[0]), max(high, limits.iloc[0])
    ends = rows["ci95_low"].fillna(low), rows["ci95_high"].fillna(high)
    if high > DECADE * low:
        ax.set_yscale("log")
        bottom, top = max(low / 2, min(low, ends[0].clip(lower=low / 2).min())), min(2 * high, max(high, ends[1].max()))
        ax.set_ylim(0.85 * bottom, 1.15 * top)
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if top < 50 * bottom else (1.0,)))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
    elif metric.endswith(RATIO):
        reach = max(high - low, 0.05)
        bottom, top = max(low - reach, ends[0].min()), min(high + reach, ends[1].max())
        ax.set_ylim(max(0.0, bottom - 0.05 * reach), top + 0.05 * reach)
    else:
        ax.set_ylim(0, 1.05 * min(1.5 * high, max(high, ends[1].max())))


def over_figure(table: pd.DataFrame, panels: Mapping[str, str], policies: Sequence[str] = ()) -> Figure:
    """Draw an `over_table` in a panel per metric that it has, three in a row, above one legend.

    `policies` are all of the run, the first of them the one that ratios are taken to.
    """
    names = [name for name in policies_of(table) if name not in GUIDES]
    styles = looks([*policies, *(name for name in names if name not in policies)])
    shown = [metric for metric in panels if table["metric"].eq(metric).any()]
    columns = {0: 1, 1: 1, 2: 2, 4: 2}.get(len(shown), 3)
    with new_panels(len(shown), columns, 1.95 if columns > 1 else 2.2, 0.7) as (figure, axes):
        for ax, metric in zip(axes, shown, strict=True):
            draw_over(ax, table, metric, styles)
            ax.set_title(panels[metric].format(first=(policies or names)[0]))
        for ax in axes[: max(0, len(shown) - columns)]:
            ax.set_xlabel("")
            ax.tick_params(axis="x", labelbottom=is_numeric(table.iloc[:, 0]))
        guides = {name: look for name, look in GUIDES.items() if table["policy"].eq(name).any()}
        shown_styles = {name: styles[name] for name in names} | guides
        marked = [] if is_numeric(table.iloc[:, 0]) else names
        legend_below(figure, shown_styles, columns=4 if columns > 1 else 2, marked=marked)
    return figure
