"""What a token costs in joules, by policy and by where they are spent."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from uhlm_sim.analysis.figures import wording
from uhlm_sim.analysis.figures.bars import stack, stacked
from uhlm_sim.analysis.figures.style import ENERGY_COLOURS, INK, policies_of
from uhlm_sim.analysis.figures.wording import Drawing, View
from uhlm_sim.analysis.measures.energy import ENERGY, PARTS
from uhlm_sim.errors import InputError


def draw_energy(ax: Axes, summary: pd.DataFrame) -> None:
    """Stack the known parts of a token's energy by policy, with the interval of the whole where all are known."""
    policies = policies_of(summary)
    by_metric = {metric: rows.set_index("policy").reindex(policies) for metric, rows in summary.groupby("metric")}
    parts = []
    for part, (text, colour) in zip(PARTS, ENERGY_COLOURS, strict=True):
        rows = by_metric.get(f"{ENERGY[0]}.{part}")
        if rows is not None and rows["mean"].notna().any():
            parts.append((rows["mean"].to_numpy(dtype=np.float64, na_value=np.nan), text, colour))
    ends = stack(ax, policies, parts)
    y = np.arange(len(policies))
    whole = by_metric.get(ENERGY[0], summary.head(0).set_index("policy").reindex(policies))
    low, high = (whole[name].to_numpy(dtype=np.float64, na_value=np.nan) for name in ("ci95_low", "ci95_high"))
    ax.hlines(y, low, high, color="white", linewidth=2.2)
    ax.hlines(y, low, high, color=INK, linewidth=0.9)
    furthest = np.fmax(ends, high)
    for row, (end, at) in enumerate(zip(ends, furthest, strict=True)):
        ax.annotate(f"{end:.3g}", (at, row), (3, 0), textcoords="offset points", va="center", fontsize=6)
    ax.set_xlim(0, 1.1 * max(furthest, default=0.0) or 1)
    ax.set_xlabel("mean energy of a token, J")


def drawing(view: View, ax: Axes | None = None) -> Drawing:
    """Draw what a token costs in joules, and where, as far as powers are known."""
    summary = view.run.summary
    table = summary[summary["metric"].isin(ENERGY) & summary["mean"].notna()]
    if table.empty:
        raise InputError("no power of a phone is known in this run: device.power_w, device.radio")
    intervals = wording.intervals(view.run, "Lines") if table["metric"].eq(ENERGY[0]).any() else ""
    return Drawing(
        "energy",
        "Energy of a token",
        f"Mean over all tokens committed {wording.window(view.run)}: the phone's power times its computing; the "
        "radio's times the time of sending; a GPU's times the verification, shared by the jobs of a batch. What isn't "
        f"known is missing.{intervals}{view.note}",
        table,
        stacked(table, draw_energy, ax),
    )
