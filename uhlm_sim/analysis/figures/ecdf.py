"""Empirical distributions of times, by policy."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from uhlm_sim.analysis.figures.axes import DECADE
from uhlm_sim.analysis.figures.style import COLUMN_IN, Look, legend_below, line_widths, looks, new_figure, policies_of
from uhlm_sim.analysis.figures.wording import View


def ecdf_table(table: pd.DataFrame, column: str, policies: Sequence[str] = (), points: int = 400) -> pd.DataFrame:
    """Return each policy's empirical distribution: policy, the column, and the `share` of values up to it.

    Every value if there are at most `points`, else that many order statistics at even shares, the smallest
    and the largest included: the curve is exact at each of them. Nulls are left out.
    """
    parts = []
    for name in policies or policies_of(table):
        x = table.loc[table["policy"] == name, column].dropna().sort_values().to_numpy(dtype=np.float64)
        rank = np.unique(np.ceil(np.linspace(1, x.size, min(points, x.size)))).astype(np.int64)
        parts.append(pd.DataFrame({"policy": name, column: x[rank - 1], "share": rank / max(1, x.size)}))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({"policy": [], column: [], "share": []})


def draw_ecdf(ax: Axes, table: pd.DataFrame, column: str, styles: Mapping[str, Look]) -> None:
    """Draw the steps of an `ecdf_table`, on a logarithmic time axis where times span more than a decade."""
    names = policies_of(table)
    for name, width in zip(names, line_widths(names), strict=True):
        rows = table[table["policy"] == name]
        x = rows[column].to_numpy(dtype=np.float64)
        share = rows["share"].to_numpy(dtype=np.float64)
        at, look = (np.append(x[:1], x), np.append(0.0, share)), styles[name]
        ax.step(*at, where="post", color=look.colour, linestyle=look.line, linewidth=width, label=name)
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


def plot_ecdf(view: View, ax: Axes | None, table: pd.DataFrame, label: str, counted: str) -> Axes | Figure:
    """Draw an `ecdf_table` of a run on axes, or as a figure of its own."""
    column = str(table.columns[1])
    if ax is None:
        return ecdf_figure(table, column, label, counted, view.run.policies)
    draw_ecdf(ax, table, column, looks(view.whole.policies))
    ax.set(xlabel=label, ylabel=f"share of {counted}")
    return ax
