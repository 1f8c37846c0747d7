"""The ratio to the first policy over two swept values."""

from matplotlib.axes import Axes

from uhlm_sim.analysis.figures import wording
from uhlm_sim.analysis.figures.axes import key_words
from uhlm_sim.analysis.figures.maps import plot_map
from uhlm_sim.analysis.figures.wording import Drawing, View
from uhlm_sim.analysis.measures.intervals import RATIO


def drawing(view: View, policy: str = "", ax: Axes | None = None, metric: str = "token_throughput") -> Drawing:
    """Draw a metric's ratio to the first policy over two swept values: one policy's on axes, else all."""
    run, (x, y) = view.run, view.keys
    table, figure = plot_map(view, f"{metric}{RATIO}", policy, ax)
    brackets = " A number in brackets has an interval that holds 1." if wording.several(run) else ""
    return Drawing(
        "ratio_map",
        f"Throughput over {key_words(x)} and {key_words(y)}",
        f"Tokens a second of the cell as a ratio to {run.policies[0]}, of means over {wording.over(run)}, paired."
        f"{brackets} The line is where both are equal, interpolated between the cells.{view.note}",
        table,
        figure,
    )
