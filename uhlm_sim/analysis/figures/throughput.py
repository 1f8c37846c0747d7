"""The cell's throughput beside the user's token rate, by policy."""

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from uhlm_sim.analysis.figures import captions
from uhlm_sim.analysis.figures.bars import SHADES, draw_bars, draw_metric
from uhlm_sim.analysis.figures.captions import Drawing, View
from uhlm_sim.analysis.figures.style import PAGE_IN, QUIET, Look, looks, new_figure, policies_of
from uhlm_sim.analysis.run import Run

READINGS = {"token_throughput_per_device": "1/mean(delay)", "mean_token_rate": "mean(1/delay)"}


def throughput_table(summary: pd.DataFrame) -> pd.DataFrame:
    """Return the summary's rows of the cell's throughput and of a phone's token rate in both readings."""
    return summary[summary["metric"].isin(["token_throughput", *READINGS])]


def draw_token_rates(ax: Axes, summary: pd.DataFrame, styles: Mapping[str, Look]) -> None:
    """Draw both readings of a user's token rate per policy: 1/mean(delay) full, mean(1/delay) light."""
    draw_bars(ax, summary, list(READINGS), styles)
    ax.set_xlabel("tokens/s")
    shades = [
        Patch(facecolor=QUIET, alpha=alpha, label=text) for alpha, text in zip(SHADES, READINGS.values(), strict=False)
    ]
    ax.legend(handles=shades, loc="upper center", bbox_to_anchor=(0.5, 0.0), borderaxespad=4.2, ncols=2)


def throughput_figure(summary: pd.DataFrame, policies: Sequence[str] = ()) -> Figure:
    """Draw the cell's throughput beside the user's token rate in both readings."""
    styles = looks(policies or policies_of(summary))
    with new_figure(PAGE_IN, 0.9 + 0.24 * len(styles)) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        draw_metric(left, summary, "token_throughput", styles)
        left.set_title("All phones together")
        draw_token_rates(right, summary, styles)
        right.set_title("One phone while it waits for a token")
    return figure


def plot(run: Run, ax: Axes | None = None) -> Axes | Figure:
    """Draw the cell's tokens a second by policy; the figure has a phone's rate beside it."""
    one = run.middle_point()
    if ax is None:
        return throughput_figure(throughput_table(one.summary), one.policies)
    draw_metric(ax, one.summary, "token_throughput", looks(run.policies))
    return ax


def drawing(view: View) -> Drawing:
    """Give the figure of a point with its caption."""
    one = view.run
    table = throughput_table(one.summary)
    bands = captions.intervals(one, "Lines") if captions.several(one) else " One replication gives no interval."
    return Drawing(
        "throughput",
        "Throughput by policy",
        f"Left: tokens a second that all phones together committed {captions.window(one)}. Right: the rate at which a "
        "phone that is answering gets tokens, as 1/mean(delay) (full) and as mean(1/delay) (light); a token's delay is "
        "the time from the start of its draft until it is at the device. Tokens that the LLM generates overlap "
        f"with the downlink of the one before, so there TPOT is shorter.{bands}{view.note}",
        table,
        throughput_figure(table, one.policies),
    )
