"""Where a token's time goes: its legs, by policy."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from uhlm_sim.analysis.figures import wording
from uhlm_sim.analysis.figures.bars import stack, stacked
from uhlm_sim.analysis.figures.style import LEG_COLOURS, policies_of
from uhlm_sim.analysis.figures.wording import Drawing, View
from uhlm_sim.tables import LEGS


def draw_legs(ax: Axes, summary: pd.DataFrame) -> None:
    """Stack the mean time of each leg over all tokens of a policy; a bar ends at the mean time per token."""
    policies = policies_of(summary)
    parts = []
    for leg in LEGS:
        rows = summary[summary["metric"] == leg].set_index("policy").reindex(policies)
        parts.append((1e3 * rows["mean"].to_numpy(dtype=np.float64, na_value=np.nan), *LEG_COLOURS[leg]))
    ends = stack(ax, policies, parts)
    for row, end in enumerate(ends):
        ax.annotate(f"{end:.0f}", (end, row), (3, 0), textcoords="offset points", va="center", fontsize=6)
    ax.set_xlim(0, 1.08 * max(ends, default=0.0) or 1)
    ax.set_xlabel("mean time of a token, ms")


def drawing(view: View, ax: Axes | None = None) -> Drawing:
    """Draw where a token's time goes."""
    table = view.run.summary[view.run.summary["metric"].isin(LEGS)]
    return Drawing(
        "legs",
        "Where a token's time goes",
        f"Mean time of each leg over all tokens committed {wording.window(view.run)}; a token without a leg counts "
        "zero for it, so a bar ends at the mean time of a token. Airtime is the upload's share of the band, integrated "
        "over its stay, and uplink wait the rest of that stay; verification is the whole service time of the token's "
        f"batch.{view.note}",
        table,
        stacked(table, draw_legs, ax),
    )
