"""What gates risk: the rejection probability of kept drafts against the share that is kept, for every gate."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.typing import LineStyleType

from uhlm_sim.analysis.figures.style import COLUMN_IN, INK, new_figure

LOOKS: dict[str, tuple[str, LineStyleType]] = {
    "uncertainty": ("#aa3377", "-"),
    "entropy": ("#0072b2", (0.0, (1.0, 1.0))),
    "top1": ("#e69f00", (0.0, (5.0, 1.0, 1.0, 1.0))),
    "margin": ("#56b4e9", (0.0, (3.0, 1.0))),
    "random": ("#009e73", (0.0, (4.0, 1.5))),
    "periodic": ("#00513b", (0.0, (1.0, 2.0))),
    "oracle": (INK, (0.0, (1.5, 1.5))),
}


def gates_figure(risks: pd.DataFrame) -> Figure:
    """Draw `gate_risks`, with a band of 95 % around the gate of U-HLM, in the width of one column."""
    with new_figure(COLUMN_IN, 2.9) as figure:
        ax = figure.subplots()
        for gate, (colour, line) in LOOKS.items():
            curve = risks[risks["gate"] == gate]
            if curve.empty:
                continue
            ax.plot(
                curve["share_kept"], curve["rejection_risk"], color=colour, linestyle=line, linewidth=1.1, label=gate
            )
            if gate == "uncertainty":
                band = curve[["low", "high"]].to_numpy(dtype=np.float64)
                ax.fill_between(curve["share_kept"], band[:, 0], band[:, 1], color=colour, alpha=0.15, linewidth=0)
        ax.set_xlim(0, 1)
        ax.set_ylim(0, None)
        ax.set_xlabel("share of drafts kept")
        ax.set_ylabel("rejection risk of a kept draft")
        figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=4, columnspacing=1.0)
    return figure
