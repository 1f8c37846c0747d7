"""Figures over one swept value, as functions of a table: metrics, latency percentiles, legs and batches against it.

A table's first column is the swept one.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from uhlm_sim.analysis.figures.style import (
    COLUMN_IN,
    INK,
    LEG_COLOURS,
    PAGE_IN,
    QUIET,
    Look,
    legend_below,
    line_widths,
    looks,
    new_figure,
    panel_columns,
    policies_of,
)
from uhlm_sim.analysis.figures.swept import DECADE, is_numeric, key_words, places, set_swept, set_words, value_words
from uhlm_sim.analysis.measures.intervals import RATIO
from uhlm_sim.tables import LEGS

PARTIAL = ("OVERLOADED", "CUT SHORT")  # verdicts under which latencies are those of the quicker requests
COLUMNS = ["policy", "metric", "unit", "mean", "ci95_low", "ci95_high", "replications"]
PANELS = {
    "token_throughput": "Cell, tokens/s",
    "token_throughput_per_device": "A phone, 1/mean(delay), tokens/s",
    f"token_throughput{RATIO}": "Cell, ratio to {first}",
    "uplink_utilisation": "Uplink utilisation",
    "bs_utilisation": "GPU utilisation",
    "slo_attainment": "Requests that meet the SLOs",
}
PERCENTILES = ("p50", "p95", "p99")
LATENCIES = {f"{name}_s.{p}": f"{name.upper()} {p}, s" for name in ("ttft", "tpot") for p in PERCENTILES}
BATCHES = {"batch_jobs": "Mean jobs in a batch", "batch_tokens": "Mean new tokens in a batch"}
# Lines to read the others by, in a table as if they were policies.
GUIDES = {"1/n": Look(INK, (0.0, (1.0, 1.5))), "SLO": Look(INK, (0.0, (6.0, 2.0)))}


# -- tables -------------------------------------------------------------------------------------------------


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


def with_verdicts(table: pd.DataFrame, verdicts: pd.DataFrame) -> pd.DataFrame:
    """Return an `over_table` with each row's `verdict`, from a table of them as `verdicts.verdicts` makes it."""
    x = str(table.columns[0])
    judged = verdicts.assign(policy=joined(verdicts, x))[[x, "policy", "verdict"]].drop_duplicates([x, "policy"])
    return table.merge(judged, on=[x, "policy"], how="left").fillna({"verdict": ""})


def with_guides(table: pd.DataFrame, slo: Mapping[str, float]) -> pd.DataFrame:
    """Return an `over_table` with its guides below."""
    guides = guide_rows(table, slo)
    return pd.concat([table, guides], ignore_index=True) if len(guides) else table


# -- drawing ------------------------------------------------------------------------------------------------


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
            ax.vlines(at, low, high, color=look.colour, linewidth=0.9)
            ax.plot(at, mean, "o", color=look.colour, markersize=3.6, label=name)
        else:
            ax.plot(at, mean, color=look.colour, linestyle=look.line, linewidth=width, marker=".", label=name)
            ax.fill_between(at, low, high, color=look.colour, alpha=0.18, linewidth=0)
        hollow = one["verdict"].isin(PARTIAL).to_numpy() if "verdict" in one else np.zeros(len(one), dtype=bool)
        if hollow.any():
            (points,) = ax.plot(at[hollow], mean[hollow], "o", color=look.colour, markersize=3.4, zorder=2.5)
            points.set_markerfacecolor("white")
        unsure = without_interval(one).to_numpy()
        if unsure.any():
            ax.plot(at[unsure], mean[unsure], "x", color=look.colour, markersize=6, zorder=2.6)
    _set_values(ax, rows, metric)
    _cut_bands(ax)
    set_swept(ax.xaxis, table.loc[~table["policy"].isin(GUIDES), x])
    ax.set_xlabel(key_words(x))


def without_interval(table: pd.DataFrame) -> pd.Series:
    """Say which rows of an `over_table` have several replications and yet no interval: Fieller's set needn't be one."""
    return table["mean"].notna() & table["ci95_low"].isna() & (table["replications"] > 1)


def _cut_bands(ax: Axes) -> None:
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


def over_figure(table: pd.DataFrame, panels: Mapping[str, str] = PANELS, policies: Sequence[str] = ()) -> Figure:
    """Draw an `over_table` in a panel per metric that it has, three in a row, above one legend.

    `policies` are all of the run, the first of them the one that ratios are taken to.
    """
    names = [name for name in policies_of(table) if name not in GUIDES]
    styles = looks([*policies, *(name for name in names if name not in policies)])
    shown = [metric for metric in panels if table["metric"].eq(metric).any()]
    columns = {0: 1, 1: 1, 2: 2, 4: 2}.get(len(shown), 3)
    rows = max(1, -(-len(shown) // columns))
    with new_figure(PAGE_IN if columns > 1 else COLUMN_IN, 0.7 + (1.95 if columns > 1 else 2.2) * rows) as figure:
        axes = figure.subplots(rows, columns, squeeze=False)
        for ax, metric in zip(axes.flat, shown, strict=False):
            draw_over(ax, table, metric, styles)
            ax.set_title(panels[metric].format(first=(policies or names)[0]))
        for ax in axes.flat[: max(0, len(shown) - columns)]:
            ax.set_xlabel("")
            ax.tick_params(axis="x", labelbottom=is_numeric(table.iloc[:, 0]))
        for ax in axes.flat[len(shown) :]:
            ax.remove()
        guides = {name: look for name, look in GUIDES.items() if table["policy"].eq(name).any()}
        shown_styles = {name: styles[name] for name in names} | guides
        marked = [] if is_numeric(table.iloc[:, 0]) else names
        legend_below(figure, shown_styles, columns=4 if columns > 1 else 2, marked=marked)
    return figure


def latency_figure(table: pd.DataFrame, policies: Sequence[str] = ()) -> Figure:
    """Draw the percentiles of TTFT (above) and TPOT (below) of an `over_table`; those of one latency on one scale."""
    figure = over_figure(table, LATENCIES, policies)
    for name in ("TTFT", "TPOT"):
        panels = [ax for ax in figure.axes if ax.get_title().startswith(name)]
        logarithmic = any(ax.get_yscale() == "log" for ax in panels)
        ends = list(chain.from_iterable(ax.get_ylim() for ax in panels))
        floor = min((end for end in ends if end > 0), default=1.0)
        for ax in panels:
            if logarithmic and ax.get_yscale() != "log":
                ax.set_yscale("log")
            ax.set_ylim(floor if logarithmic else 0.0, max(ends))
            _cut_bands(ax)
    return figure


# -- legs over a sweep --------------------------------------------------------------------------------------


def legs_over_table(summary: pd.DataFrame, x: str) -> pd.DataFrame:
    """Return the `over_table` of the six legs, with the `share` that each has of the mean time of a token."""
    table = over_table(summary, x, LEGS)
    return table.assign(share=table["mean"] / table.groupby([x, "policy"], sort=False)["mean"].transform("sum"))


def draw_legs_over(ax: Axes, table: pd.DataFrame, policy: str) -> None:
    """Stack the shares of one policy's legs at each swept value; above a bar is the mean time of a token in ms."""
    x = str(table.columns[0])
    one = table[table["policy"] == policy]
    values = table[x].drop_duplicates()
    bottom = np.zeros(len(values))
    for leg in LEGS:
        rows = one[one["metric"] == leg].set_index(x)["share"]
        height = 100 * rows.reindex(values).fillna(0.0).to_numpy(dtype=np.float64)
        text, colour = LEG_COLOURS[leg]
        ax.bar(np.arange(len(values)), height, 0.8, bottom, color=colour, label=text)
        bottom = bottom + height
    words = [value_words(x, value) for value in values]
    step = -(-len(words) // 10)
    for i, total_s in enumerate(one.groupby(x)["mean"].sum().reindex(values)[::step]):
        if total_s > 0:
            ax.annotate(f"{1e3 * total_s:.0f}", (i * step, 100), (0, 1), fontsize=5, ha="center", **_ABOVE)
    set_words(ax.xaxis, [float(i) for i in range(0, len(words), step)], words[::step])
    ax.set_ylim(0, 107)
    ax.set_yticks([0, 25, 50, 75, 100])
    ax.set_xlabel(key_words(x))


_ABOVE: dict[str, Any] = {"textcoords": "offset points", "va": "bottom", "color": INK}


def legs_over_figure(table: pd.DataFrame) -> Figure:
    """Draw a panel of stacked legs for each policy of a `legs_over_table`."""
    names = policies_of(table)
    columns = panel_columns(len(names))
    rows = -(-len(names) // columns)
    with new_figure(PAGE_IN, 0.5 + 1.75 * rows) as figure:
        axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for ax, name in zip(axes.flat, names, strict=False):
            draw_legs_over(ax, table, name)
            ax.set_title(name)
        for ax in axes.flat[: max(0, len(names) - columns)]:
            ax.set_xlabel("")
        for ax in axes[:, 0]:
            ax.set_ylabel("share of the time, %")
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(LEGS))
        for ax in axes.flat[len(names) :]:
            ax.remove()
    return figure
