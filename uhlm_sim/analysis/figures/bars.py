"""Bars by policy: of metrics beside each other, or of parts on top of each other."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from uhlm_sim.analysis.figures.marks import Point, Value, mark
from uhlm_sim.analysis.figures.style import INK, PAGE_IN, Look, new_figure, policies_of

Floats = NDArray[np.float64]
SHADES = (1.0, 0.4)


def draw_metric(ax: Axes, summary: pd.DataFrame, metric: str, styles: Mapping[str, Look]) -> Axes:
    """Draw a bar per policy with interval and value, the first on top; `summary` as in summary.csv."""
    draw_bars(ax, summary, [metric], styles)
    unit = summary.loc[summary["metric"] == metric, "unit"]
    ax.set_xlabel(unit.iloc[0] if len(unit) else "")
    return ax


def draw_bars(ax: Axes, summary: pd.DataFrame, metrics: Sequence[str], styles: Mapping[str, Look]) -> None:
    """Draw bars of one or two metrics per policy, in shades, with intervals and values."""
    policies = policies_of(summary)
    height = 0.72 / len(metrics)
    furthest = 0.0
    for j, metric in enumerate(metrics):
        rows = summary[summary["metric"] == metric].set_index("policy").reindex(policies)
        estimates = rows[["mean", "ci95_low", "ci95_high"]].astype(np.float64)
        y = np.arange(len(policies)) + (j - (len(metrics) - 1) / 2) * height
        for where, (policy, mean, low, high) in zip(y, estimates.itertuples(name=None), strict=True):
            colour = styles[policy].colour
            artists: list[Artist] = [
                *ax.barh(where, mean, height=0.92 * height, color=colour, alpha=SHADES[j], linewidth=0),
                ax.hlines([where], [low], [high], color="white", linewidth=2.2),
                ax.hlines([where], [low], [high], color=INK, linewidth=0.9),
            ]
            if np.isfinite(mean):
                end = np.fmax(mean, high)
                furthest = max(furthest, end)
                text = f"{mean:.1f}" if mean < 100 else f"{mean:.0f}"
                label = ax.annotate(text, (end, where), (3, 0), textcoords="offset points", va="center", fontsize=6)
                artists.append(label)
            mark(artists, policy, [Point("", [Value(metric, mean, low, high)])])
    ax.set_xlim(0, 1.13 * furthest or 1)
    set_rows(ax, policies)


def set_rows(ax: Axes, policies: Sequence[str]) -> None:
    """Put policies at the rows of an axis, the first on top."""
    ax.set_yticks(np.arange(len(policies)), policies)
    ax.set_ylim(len(policies) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)


def stack(ax: Axes, policies: Sequence[str], parts: Sequence[tuple[Floats, str, str]]) -> Floats:
    """Stack parts (values by policy, label, colour) in a row for each policy; return where the rows end.

    A part that isn't known is missing: there the next one begins.
    """
    y, end = np.arange(len(policies)), np.zeros(len(policies))
    for width, text, colour in parts:
        ax.barh(y, width, left=end, height=0.66, color=colour, edgecolor="white", linewidth=0.4, label=text)
        end = end + np.nan_to_num(width)
    set_rows(ax, policies)
    return end


def stacked(table: pd.DataFrame, draw: Callable[[Axes, pd.DataFrame], None], ax: Axes | None = None) -> Axes | Figure:
    """Draw stacked bars on axes, or in the width of a page with their legend below."""
    if ax is not None:
        draw(ax, table)
        return ax
    with new_figure(PAGE_IN, 0.9 + 0.24 * len(policies_of(table))) as figure:
        ax = figure.subplots()
        draw(ax, table)
        handles, labels = ax.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return figure
