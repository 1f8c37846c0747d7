"""Figures of one point, as functions of a table: each draws on the axes it is given and keeps no state.

Functions that end in `_table` make a small table out of large ones; `draw_...` draws a table on any Axes (a
notebook's too); `..._figure` puts panels and a legend together. `Look`s are those of `style.looks`. A figure's
`policies` are all of the run, so that one looks the same in figures in which others are missing.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter

from uhlm_sim.analysis.figures.style import (
    COLUMN_IN,
    ENERGY_COLOURS,
    INK,
    LEG_COLOURS,
    PAGE_IN,
    QUIET,
    Look,
    legend_below,
    line_widths,
    looks,
    new_figure,
    policies_of,
)
from uhlm_sim.analysis.figures.swept import DECADE
from uhlm_sim.analysis.measures.energy import ENERGY, PARTS
from uhlm_sim.analysis.measures.metrics import in_window
from uhlm_sim.tables import LEGS

READINGS = {"token_throughput_per_device": "1/mean(delay)", "mean_token_rate": "mean(1/delay)"}


# -- throughput ---------------------------------------------------------------------------------------------


def throughput_table(summary: pd.DataFrame) -> pd.DataFrame:
    """Return the summary's rows of the cell's throughput and of a phone's token rate in both readings."""
    return summary[summary["metric"].isin(["token_throughput", *READINGS])]


def draw_metric(ax: Axes, summary: pd.DataFrame, metric: str, styles: Mapping[str, Look]) -> None:
    """Draw a bar per policy with interval and value, the first on top; `summary` as in summary.csv."""
    _bars(ax, summary, [metric], styles)
    unit = summary.loc[summary["metric"] == metric, "unit"]
    ax.set_xlabel(unit.iloc[0] if len(unit) else "")


def draw_token_rates(ax: Axes, summary: pd.DataFrame, styles: Mapping[str, Look]) -> None:
    """Draw both readings of a user's token rate per policy: 1/mean(delay) full, mean(1/delay) light."""
    _bars(ax, summary, list(READINGS), styles)
    ax.set_xlabel("tokens/s")
    shades = [
        Patch(facecolor=QUIET, alpha=alpha, label=text) for alpha, text in zip(_SHADES, READINGS.values(), strict=False)
    ]
    ax.legend(handles=shades, loc="upper center", bbox_to_anchor=(0.5, 0.0), borderaxespad=4.2, ncols=2)


_SHADES = (1.0, 0.4)


def _bars(ax: Axes, summary: pd.DataFrame, metrics: Sequence[str], styles: Mapping[str, Look]) -> None:
    policies = policies_of(summary)
    height = 0.72 / len(metrics)
    furthest = 0.0
    for j, metric in enumerate(metrics):
        rows = summary[summary["metric"] == metric].set_index("policy").reindex(policies)
        y = np.arange(len(policies)) + (j - (len(metrics) - 1) / 2) * height
        mean, low, high = (rows[name].to_numpy(dtype=np.float64) for name in ("mean", "ci95_low", "ci95_high"))
        colours = [styles[name].colour for name in policies]
        ax.barh(y, mean, height=0.92 * height, color=colours, alpha=_SHADES[j], linewidth=0)
        ax.hlines(y, low, high, color="white", linewidth=2.2)
        ax.hlines(y, low, high, color=INK, linewidth=0.9)
        for where, value, end in zip(y, mean, np.fmax(mean, high), strict=True):
            if np.isfinite(value):
                furthest = max(furthest, end)
                text = f"{value:.1f}" if value < 100 else f"{value:.0f}"
                ax.annotate(text, (end, where), (3, 0), textcoords="offset points", va="center", fontsize=6)
    ax.set_xlim(0, 1.13 * furthest or 1)
    _rows(ax, policies)


def _rows(ax: Axes, policies: Sequence[str]) -> None:
    ax.set_yticks(np.arange(len(policies)), policies)
    ax.set_ylim(len(policies) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)


def throughput_figure(summary: pd.DataFrame, policies: Sequence[str] = ()) -> Figure:
    """Draw the cell's throughput beside the user's token rate in both readings."""
    styles = looks(policies or policies_of(summary))
    with new_figure(PAGE_IN, 0.9 + 0.24 * len(styles)) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        draw_metric(left, summary, "token_throughput", styles)
        left.set_title("All phones together")
        draw_token_rates(right, summary, styles)
        right.set_title("One phone while it waits for a token")
    return figure


# -- batches ------------------------------------------------------------------------------------------------

BATCHES = {"batch_jobs": "Jobs in a batch", "batch_tokens": "New tokens in a batch"}


def batch_table(summary: pd.DataFrame) -> pd.DataFrame:
    """Return the summary's rows of the mean size of a batch, of the policies that ask the LLM at all."""
    return summary[summary["metric"].isin(BATCHES) & summary["mean"].notna()]


def batch_figure(table: pd.DataFrame, policies: Sequence[str] = ()) -> Figure:
    """Draw the mean size of a batch in jobs beside that in tokens which the LLM hasn't seen yet."""
    styles = looks(policies or policies_of(table))
    with new_figure(PAGE_IN, 0.75 + 0.24 * len(policies_of(table))) as figure:
        for ax, (metric, title) in zip(figure.subplots(1, 2, sharey=True), BATCHES.items(), strict=True):
            draw_metric(ax, table, metric, styles)
            ax.set_title(title)
    return figure


# -- empirical distributions --------------------------------------------------------------------------------


def ecdf_table(table: pd.DataFrame, column: str, points: int = 400) -> pd.DataFrame:
    """Return each policy's empirical distribution: policy, the column, and the `share` of values up to it.

    Every value if there are at most `points`, else that many order statistics at even shares, the smallest
    and the largest included: the curve is exact at each of them. Nulls are left out.
    """
    code, names = pd.factorize(table["policy"])
    values = table[column].to_numpy(dtype=np.float64)
    parts = []
    for i, name in enumerate(names):
        x = np.sort(values[(code == i) & ~np.isnan(values)])
        rank = np.unique(np.ceil(np.linspace(1, x.size, min(points, x.size)))).astype(np.int64)
        parts.append(pd.DataFrame({"policy": name, column: x[rank - 1], "share": rank / max(1, x.size)}))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({"policy": [], column: [], "share": []})


def token_time_table(tokens: pd.DataFrame, window_s: tuple[float, float]) -> pd.DataFrame:
    """Return the `ecdf_table` of `delay_s`, the time per token, of the tokens committed in the window."""
    cut = tokens[in_window(tokens["committed_s"], *window_s)]
    delay_s = cut["committed_s"] - cut["started_s"]
    return ecdf_table(pd.DataFrame({"policy": cut["policy"], "delay_s": delay_s}), "delay_s")


def ttft_table(requests: pd.DataFrame, window_s: tuple[float, float]) -> pd.DataFrame:
    """Return the `ecdf_table` of `ttft_s`, the time to first token, of the requests that arrived in the window."""
    asked = requests[in_window(requests["arrived_s"], *window_s)]
    ttft_s = asked["first_token_s"] - asked["arrived_s"]
    return ecdf_table(pd.DataFrame({"policy": asked["policy"], "ttft_s": ttft_s}), "ttft_s")


def draw_ecdf(ax: Axes, table: pd.DataFrame, column: str, styles: Mapping[str, Look]) -> None:
    """Draw the steps of an `ecdf_table`, on a logarithmic time axis where times span more than a decade."""
    names = policies_of(table)
    for name, width in zip(names, line_widths(names), strict=True):
        rows = table[table["policy"] == name]
        x = rows[column].to_numpy(dtype=np.float64)
        share = rows["share"].to_numpy(dtype=np.float64)
        look = styles[name]
        ax.step(
            np.append(x[:1], x),
            np.append(0.0, share),
            where="post",
            color=look.colour,
            linestyle=look.line,
            linewidth=width,
            label=name,
        )
    if table[column].max() > DECADE * table[column].min():
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_minor_formatter(NullFormatter())
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set_ylim(0, 1.01)


def ecdf_figure(table: pd.DataFrame, column: str, label: str, counted: str, policies: Sequence[str] = ()) -> Figure:
    """Draw an `ecdf_table` in the width of one column, its legend below."""
    styles = looks(policies or policies_of(table))
    with new_figure(COLUMN_IN, 2.9) as figure:
        ax = figure.subplots()
        draw_ecdf(ax, table, column, styles)
        ax.set_xlabel(label)
        ax.set_ylabel(f"share of {counted}")
        legend_below(figure, {name: styles[name] for name in policies_of(table)}, columns=2)
    return figure


# -- where a token's time goes ------------------------------------------------------------------------------


def legs_table(summary: pd.DataFrame) -> pd.DataFrame:
    """Return the summary's rows of the six legs of a token."""
    return summary[summary["metric"].isin(LEGS)]


def draw_legs(ax: Axes, summary: pd.DataFrame) -> None:
    """Stack the mean time of each leg over all tokens of a policy; a bar ends at the mean time per token."""
    policies = policies_of(summary)
    y, start = np.arange(len(policies)), np.zeros(len(policies))
    for leg in LEGS:
        rows = summary[summary["metric"] == leg].set_index("policy").reindex(policies)
        width = 1e3 * rows["mean"].to_numpy(dtype=np.float64, na_value=np.nan)
        text, colour = LEG_COLOURS[leg]
        ax.barh(y, width, left=start, height=0.66, color=colour, edgecolor="white", linewidth=0.4, label=text)
        start = start + np.nan_to_num(width)
    for where, end in zip(y, start, strict=True):
        ax.annotate(f"{end:.0f}", (end, where), (3, 0), textcoords="offset points", va="center", fontsize=6)
    ax.set_xlim(0, 1.08 * max(start, default=0.0) or 1)
    _rows(ax, policies)
    ax.set_xlabel("mean time of a token, ms")


def legs_figure(summary: pd.DataFrame) -> Figure:
    """Draw `draw_legs` in the width of a page, its legend below."""
    with new_figure(PAGE_IN, 0.9 + 0.24 * len(policies_of(summary))) as figure:
        ax = figure.subplots()
        draw_legs(ax, summary)
        figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=len(LEGS))
    return figure


# -- energy -------------------------------------------------------------------------------------------------


def energy_table(summary: pd.DataFrame) -> pd.DataFrame:
    """Return the summary's rows of the energies of a token, whole and in parts, those that are known."""
    return summary[summary["metric"].isin(ENERGY) & summary["mean"].notna()]


def draw_energy(ax: Axes, summary: pd.DataFrame) -> None:
    """Stack the known parts of a token's energy by policy; the whole is written behind where all are known."""
    policies = policies_of(summary)
    y, start = np.arange(len(policies)), np.zeros(len(policies))
    for part, (text, colour) in zip(PARTS, ENERGY_COLOURS, strict=True):
        rows = summary[summary["metric"] == f"{ENERGY[0]}.{part}"].set_index("policy").reindex(policies)
        width = rows["mean"].to_numpy(dtype=np.float64, na_value=np.nan)
        if np.isfinite(width).any():
            ax.barh(y, width, left=start, height=0.66, color=colour, edgecolor="white", linewidth=0.4, label=text)
        start = start + np.nan_to_num(width)
    whole = summary[summary["metric"] == ENERGY[0]].set_index("policy").reindex(policies)
    ends = [whole[name].to_numpy(dtype=np.float64, na_value=np.nan) for name in ("mean", "ci95_low", "ci95_high")]
    ax.hlines(y, ends[1], ends[2], color="white", linewidth=2.2)
    ax.hlines(y, ends[1], ends[2], color=INK, linewidth=0.9)
    for where, end, high in zip(y, start, np.fmax(start, ends[2]), strict=True):
        ax.annotate(f"{end:.3g}", (high, where), (3, 0), textcoords="offset points", va="center", fontsize=6)
    ax.set_xlim(0, 1.1 * max(np.fmax(start, ends[2]), default=0.0) or 1)
    _rows(ax, policies)
    ax.set_xlabel("mean energy of a token, J")


def energy_figure(summary: pd.DataFrame) -> Figure:
    """Draw `draw_energy` in the width of a page, its legend below."""
    with new_figure(PAGE_IN, 0.9 + 0.24 * len(policies_of(summary))) as figure:
        ax = figure.subplots()
        draw_energy(ax, summary)
        figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=len(PARTS))
    return figure


# -- the uncertainty law ------------------------------------------------------------------------------------


def draw_uncertainty_law(ax: Axes, bins: pd.DataFrame, a: float, b: float, thresholds: Mapping[str, float]) -> None:
    """Draw mean rejection probability against uncertainty with the fitted line a u + b and the thresholds.

    `bins`: uncertainty, tokens, rejection (the mean), ci95_low, ci95_high, one row per value of u, and of
    `split` if there is such a column: prompts that were fitted are filled, others open. The area of a marker
    grows with its tokens; bins without a token are left out. A threshold outside [0, 1) isn't drawn: the
    legend says what it does.
    """
    splits = list(bins["split"].unique()) if "split" in bins else [None]
    for i, split in enumerate(splits):
        rows = bins[(bins["tokens"] > 0) & ((bins["split"] == split) if split is not None else True)]
        u, beta, low, high, tokens = (
            rows[name].to_numpy(dtype=np.float64)
            for name in ("uncertainty", "rejection", "ci95_low", "ci95_high", "tokens")
        )
        colour, dodge = ("#0072b2", "#e69f00")[i % 2], 0.012 * (i - (len(splits) - 1) / 2)
        ax.vlines(u + dodge, low, high, color=colour, linewidth=0.8, zorder=2)
        ax.scatter(
            u + dodge,
            beta,
            s=6 + 34 * tokens / max(1.0, tokens.max(initial=0.0)),
            facecolor="white" if i else colour,
            edgecolor=colour,
            linewidth=0.9,
            zorder=3,
            label=f"{split} prompts, 95 % interval" if split is not None else "mean, 95 % interval",
        )
    line = np.linspace(0, 1, 101)
    sign = "−" if b < 0 else "+"
    ax.plot(line, a * line + b, color=INK, linewidth=1.0, label=f"fit: {a:.2f} u {sign} {abs(b):.2f}")
    ways = ("--", ":", "-.", (0.0, (5.0, 1.0, 1.0, 1.0, 1.0, 1.0)))
    for i, (name, u_th) in enumerate(thresholds.items()):
        if 0 <= u_th < 1:
            text = f"{name}: {u_th:.3g}"
            ax.axvline(u_th, color="#d55e00", linestyle=ways[i % len(ways)], linewidth=1.0, label=text)
        else:
            does = "skips nothing" if u_th < 0 else "skips everything"
            ax.plot([], [], " ", label=f"{name}: {u_th:.3g}, {does}".replace("-0", "−0"))
    ax.set_xlim(-0.03, 1.03)
    ax.set_ylim(-0.015, 1)
    ax.set_xlabel("uncertainty u")
    ax.set_ylabel("rejection probability")


def uncertainty_figure(bins: pd.DataFrame, a: float, b: float, thresholds: Mapping[str, float]) -> Figure:
    """Draw the uncertainty law in the width of one column, its legend below."""
    with new_figure(COLUMN_IN, 2.9) as figure:
        ax = figure.subplots()
        draw_uncertainty_law(ax, bins, a, b, thresholds)
        figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2, columnspacing=1.2)
    return figure
