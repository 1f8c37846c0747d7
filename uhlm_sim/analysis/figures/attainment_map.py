"""The share of requests within the SLOs over two swept values."""

from matplotlib.axes import Axes

from uhlm_sim.analysis.figures import wording
from uhlm_sim.analysis.figures.axes import key_words
from uhlm_sim.analysis.figures.maps import MET, plot_map
from uhlm_sim.analysis.figures.wording import Drawing, View


def drawing(view: View, policy: str = "", ax: Axes | None = None) -> Drawing:
    """Draw the share of requests that meet the SLOs over two swept values: one policy's on axes, else all."""
    run, (x, y) = view.run, view.keys
    table, figure = plot_map(view, "slo_attainment", policy, ax)
    limits = ", ".join(f"{name} = {limit:g}" for name, limit in run.scenario.get("slo", {}).items())
    return Drawing(
        "slo_map",
        f"Requests that meet the SLOs over {key_words(x)} and {key_words(y)}",
        f"Share of the decided requests that meet every SLO ({limits}), in per cent, mean over {wording.over(run)}. "
        f"The line is where {100 * MET:.0f} % do, interpolated between the cells.{view.note}",
        table,
        figure,
    )
