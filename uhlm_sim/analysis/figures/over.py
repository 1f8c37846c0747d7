"""Any metric over one swept value."""

from matplotlib.axes import Axes

from uhlm_sim.analysis.figures import batches_over, latency, sweep
from uhlm_sim.analysis.figures.over_sweep import (
    draw_over,
    joined_policies,
    latency_table,
    over_figure,
    over_table,
    with_guides,
)
from uhlm_sim.analysis.figures.style import looks
from uhlm_sim.analysis.figures.wording import Drawing, View
from uhlm_sim.analysis.measures.metrics import LATENCIES
from uhlm_sim.errors import InputError, did_you_mean

TITLES = {**sweep.PANELS, **latency.LATENCIES, **batches_over.BATCHES}


def drawing(view: View, metric: str = "token_throughput", ax: Axes | None = None) -> Drawing:
    """Draw a metric over the one value that is swept, with the guides that the report draws."""
    run, x = view.run, view.keys[0]
    known = [str(name) for name in run.summary["metric"].unique()]
    if metric not in known:
        raise InputError(f"metric '{metric}': this run has none{did_you_mean(metric, known)}")
    if metric.partition(".")[0] in LATENCIES:
        table = latency_table(run, x, [metric])
    else:
        table = with_guides(over_table(run.summary, x, [metric]), run.scenario.get("slo", {}))
    if table.empty:
        raise InputError(f"metric '{metric}': null everywhere")
    title = TITLES.get(metric, f"{metric}, {table['unit'].iloc[0]}").format(first=run.policies[0])
    policies = joined_policies(run, x)
    if ax is None:
        return Drawing("over", title, "", table, over_figure(table, {metric: title}, policies))
    draw_over(ax, table, metric, looks(policies))
    ax.set_ylabel(title)
    return Drawing("over", title, "", table, ax)
