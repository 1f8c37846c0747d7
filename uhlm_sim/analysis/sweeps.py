"""Figures over a sweep: metrics against one swept value, and the ratio of two policies over two."""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from uhlm_sim.analysis.results import Results
from uhlm_sim.analysis.style import PAGE_IN, Look, looks, new_figure

PANELS = (  # metric, title, whether the axis is logarithmic
    ("token_throughput", "cell, tokens/s", False),
    ("token_throughput_per_device", "a phone, 1/mean(delay), tokens/s", False),
    ("token_throughput.ratio_to_first", "cell throughput, ratio to {first}", True),
    ("ttft_s.p95", "TTFT p95, s", True),
    ("tpot_s.p95", "TPOT p95, s", True),
    ("uplink_utilisation", "uplink utilisation", False),
)


def draw_over(ax: Axes, summary: pd.DataFrame, x: str, metric: str, styles: Mapping[str, Look]) -> None:
    """Draw a metric against a swept column, a line per policy with its 95 % interval as a band."""
    for policy, rows in summary[summary["metric"] == metric].groupby("policy", sort=False):
        rows = rows.sort_values(x)
        look = styles[str(policy)]
        at, mean, low, high = (rows[name].to_numpy(dtype=np.float64) for name in (x, "mean", "ci95_low", "ci95_high"))
        ax.plot(at, mean, color=look.colour, linestyle=look.line, marker=".", label=str(policy))
        ax.fill_between(at, low, high, color=look.colour, alpha=0.18, linewidth=0)


def over_figure(summary: pd.DataFrame, x: str, first: str) -> Figure:
    """Draw the main metrics of a sweep over one numeric column, six panels of one legend."""
    styles = looks([str(name) for name in summary["policy"].unique()])
    with new_figure(PAGE_IN, 4.6) as figure:
        for ax, (metric, title, logarithmic) in zip(figure.subplots(2, 3, sharex=True).flat, PANELS, strict=True):
            draw_over(ax, summary, x, metric, styles)
            ax.set_title(title.format(first=first))
            if logarithmic:
                ax.set_yscale("log")
            else:
                ax.set_ylim(bottom=0)
            if ax.get_subplotspec().is_last_row():
                ax.set_xlabel(x)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def draw_ratio_map(ax: Axes, summary: pd.DataFrame, x: str, y: str, policy: str, metric: str) -> None:
    """Draw a ratio to the first policy as a heat map over two swept columns, with the contour where it is 1."""
    rows = summary[(summary["policy"] == policy) & (summary["metric"] == f"{metric}.ratio_to_first")]
    grid = rows.pivot(index=y, columns=x, values="mean").sort_index(ascending=False)
    reach = max(0.05, float(np.nanmax(np.abs(grid.to_numpy() - 1.0))))
    sns.heatmap(grid, ax=ax, center=1.0, vmin=1 - reach, vmax=1 + reach, cmap="vlag", annot=True, fmt=".2f", cbar=False)
    if min(grid.shape) > 1 and np.nanmin(grid) < 0.995 and np.nanmax(grid) > 1.005:
        ax.contour(np.arange(grid.shape[1]) + 0.5, np.arange(grid.shape[0]) + 0.5, grid, [1.0], colors="black")


def ratio_map_figure(summary: pd.DataFrame, x: str, y: str, first: str, metric: str = "token_throughput") -> Figure:
    """Draw a ratio map for each policy but the first, side by side."""
    policies = [str(name) for name in summary["policy"].unique() if name != first]
    rows = -(-len(policies) // 3)
    with new_figure(PAGE_IN, 0.5 + 2.2 * rows) as figure:
        panels = figure.subplots(rows, 3, squeeze=False).flat
        for ax, policy in zip(panels, policies, strict=False):
            draw_ratio_map(ax, summary, x, y, policy, metric)
            ax.set_title(f"{policy} / {first}")
        for ax in list(panels):
            ax.set_axis_off()
    return figure


def sweep_figures(tables: Results) -> Iterator[tuple[str, str, str, Figure]]:
    """Yield (name, title, caption, figure) for what can be drawn over the sweep: over one or two numeric columns."""
    summary, first = tables.summary, tables.policies[0]
    columns = [name for name in tables.sweep if pd.api.types.is_numeric_dtype(summary[name])]
    if not columns or columns != tables.sweep:
        return
    bands = "Bands are 95 % intervals over replications; ratios are paired."
    if len(columns) == 1:
        x = columns[0]
        yield (
            "sweep",
            f"Over {x}",
            f"Each policy at each value of {x}, its legends as in the other figures. {bands} A metric that a policy "
            "doesn't have, such as a utilisation of 0 on a logarithmic axis, is not drawn.",
            over_figure(summary, x, first),
        )
    elif len(columns) == 2:
        x, y = columns
        yield (
            "sweep",
            f"Throughput over {x} and {y}",
            f"Tokens a second of the cell as a ratio to {first}, paired by replication; the line is where both are "
            "equal.",
            ratio_map_figure(summary, x, y, first),
        )
