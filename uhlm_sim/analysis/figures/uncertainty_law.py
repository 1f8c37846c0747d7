"""The law of a model pair: rejection probability against uncertainty."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from uhlm_sim.analysis.figures.style import COLUMN_IN, INK, new_figure


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
