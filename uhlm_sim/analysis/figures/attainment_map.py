"""The share of requests within the SLOs over two swept values."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from uhlm_sim.analysis.figures import captions
from uhlm_sim.analysis.figures.axes import key_words
from uhlm_sim.analysis.figures.captions import Drawing, View
from uhlm_sim.analysis.figures.maps import MET, map_figure, map_table, plot_map
from uhlm_sim.analysis.run import Run

ATTAINMENT = "slo_attainment"


def plot(run: Run, policy: str = "", ax: Axes | None = None) -> Axes | Figure:
    """Draw the share of requests that meet the SLOs over two swept values: one policy's on axes, else all."""
    return plot_map(run, ATTAINMENT, policy, ax)


def drawing(view: View) -> Drawing | None:
    """Give the figure over two swept values with its caption, where there is an SLO."""
    run, (x, y) = view.run, view.keys
    table = map_table(run.summary, x, y, ATTAINMENT)
    if table.empty:
        return None
    limits = ", ".join(f"{name} = {limit:g}" for name, limit in run.scenario.get("slo", {}).items())
    return Drawing(
        "slo_map",
        f"Requests that meet the SLOs over {key_words(x)} and {key_words(y)}",
        f"Share of the decided requests that meet every SLO ({limits}), in per cent, mean over {captions.over(run)}. "
        f"The line is where {100 * MET:.0f} % do, interpolated between the cells.{view.note}",
        table,
        map_figure(table, run.policies),
    )
