"""The cell's throughput beside the user's token rate, by policy."""

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from uhlm_sim.analysis.figures import wording
from uhlm_sim.analysis.figures.bars import SHADES, draw_bars, draw_metric
from uhlm_sim.analysis.figures.style import PAGE_IN, QUIET, Look, looks, new_figure, policies_of
from uhlm_sim.analysis.figures.wording import Drawing, View

READINGS = {"token_throughput_per_device": "1/mean(delay)", "mean_token_rate": "mean(1/delay)"}


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
        right.set_title("One phone while it answers")
    return figure


def drawing(view: View, ax: Axes | None = None) -> Drawing:
    """Draw the cell's tokens a second by policy; the figure has a phone's rate beside it."""
    one = view.run
    table = one.summary[one.summary["metric"].isin(["token_throughput", *READINGS])]
    bands = wording.intervals(one, "Lines") if wording.several(one) else " One replication gives no interval."
    return Drawing(
        "throughput",
        "Throughput by policy",
        f"Left: tokens a second that all phones together committed {wording.window(one)}. Right: the rate at which a "
        "phone that is answering gets tokens, as 1/mean(delay) (full) and as mean(1/delay) (light); a token's delay is "
        "the time from the start of its draft until it is at the device. Tokens that the LLM generates overlap "
        f"with the downlink of the one before, so there TPOT is shorter.{bands}{view.note}",
        table,
        throughput_figure(table, one.policies)
        if ax is None
        else draw_metric(ax, table, "token_throughput", looks(view.whole.policies)),
    )
