"""The ratio to the first policy over two swept values."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from uhlm_sim.analysis.figures import captions
from uhlm_sim.analysis.figures.axes import key_words
from uhlm_sim.analysis.figures.captions import Drawing, View
from uhlm_sim.analysis.figures.maps import map_figure, map_table, plot_map
from uhlm_sim.analysis.measures.intervals import RATIO
from uhlm_sim.analysis.run import Run


def plot(run: Run, policy: str = "", ax: Axes | None = None, metric: str = "token_throughput") -> Axes | Figure:
    """Draw a metric's ratio to the first policy over two swept values: one policy's on axes, else all."""
    return plot_map(run, f"{metric}{RATIO}", policy, ax)


def drawing(view: View) -> Drawing | None:
    """Give the figure over two swept values with its caption, where there is a second policy."""
    run, (x, y) = view.run, view.keys
    table = map_table(run.summary, x, y, f"token_throughput{RATIO}")
    if table.empty:
        return None
    brackets = " A number in brackets has an interval that holds 1." if captions.several(run) else ""
    return Drawing(
        "ratio_map",
        f"Throughput over {key_words(x)} and {key_words(y)}",
        f"Tokens a second of the cell as a ratio to {run.policies[0]}, of means over {captions.over(run)}, paired."
        f"{brackets} The line is where both are equal, interpolated between the cells.{view.note}",
        table,
        map_figure(table, run.policies),
    )
