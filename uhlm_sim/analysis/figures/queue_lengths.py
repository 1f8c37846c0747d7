"""How many are at each station: over time, and as arrivals see it."""

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from uhlm_sim.analysis.figures import wording
from uhlm_sim.analysis.figures.style import PAGE_IN, Look, legend_below, line_widths, looks, new_figure, policies_of
from uhlm_sim.analysis.figures.wording import Drawing, View
from uhlm_sim.analysis.measures.bottleneck import PHONES
from uhlm_sim.analysis.measures.queues import queue_lengths
from uhlm_sim.errors import InputError

RAREST = 1e-3  # share of the time: what is rarer isn't drawn
WORDS = {
    "uplink": "uploads at the uplink",
    "GPUs": "jobs at the GPUs",
    "downlink": "answers at the downlink",
    PHONES: "requests at a phone",
}


def draw_lengths(ax: Axes, table: pd.DataFrame, station: str, styles: Mapping[str, Look]) -> Axes:
    """Draw for each n of a `queue_lengths` the share of time with n or more (lines), and of arrivals that meet them."""
    rows = table[table["station"] == station]
    names = policies_of(rows)
    most = 1
    for name, width in zip(names, line_widths(names), strict=True):
        one, look = rows[rows["policy"] == name], styles[name]
        present = one["present"].to_numpy()
        over_time, seen = (one[share].to_numpy()[::-1].cumsum()[::-1] for share in ("time_share", "seen_share"))
        often = seen >= RAREST
        ax.plot(present, over_time, color=look.colour, linestyle=look.line, linewidth=width, label=name)
        ax.plot(present[often], seen[often], "o", color=look.colour, markerfacecolor="white", markersize=2.4, mew=0.7)
        most = max(most, *present[often | (over_time >= RAREST)])
    ax.set_yscale("log")
    ax.set_ylim(RAREST, 1.3)
    ax.set_xlim(0, most + 0.5)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel(WORDS[station])
    ax.set_ylabel("share with so many or more")
    return ax


def lengths_figure(table: pd.DataFrame, policies: Sequence[str] = ()) -> Figure:
    """Draw a panel for each station side by side; `policies` are all of the run, whether they queue or not."""
    policies = policies or policies_of(table)
    styles = looks(policies)
    stations = [name for name in WORDS if (table["station"] == name).any()]
    with new_figure(PAGE_IN, 2.6) as figure:
        for ax, station in zip(figure.subplots(1, len(stations), squeeze=False)[0], stations, strict=True):
            draw_lengths(ax, table, station, styles)
        for ax in figure.axes[1:]:
            ax.set_ylabel("")
        legend_below(figure, {name: styles[name] for name in policies if (table["policy"] == name).any()}, columns=4)
    return figure


def drawing(view: View, ax: Axes | None = None, station: str = "uplink") -> Drawing:
    """Draw how many are at the "uplink", the "GPUs", a shared "downlink" or one of the "phones"; the figure has all."""
    run = view.run
    run.kept_rounds()
    table = queue_lengths(run)
    if table.empty:
        raise InputError("no policy of this run sends anything")
    return Drawing(
        "queue_lengths",
        "How many are at each station",
        f"Lines: share of the time {wording.window(run)} with so many present or more, waiting or in service. Circles: "
        "share of the arrivals that meet so many others or more. Where arrivals are Poisson the circles lie on the "
        "lines; in a closed loop they lie lower, because a job doesn't meet itself; elsewhere where jobs come together."
        f" Of {wording.over(run)} together; what is rarer than one in a thousand isn't drawn.{view.note}",
        table,
        lengths_figure(table, run.policies)
        if ax is None
        else draw_lengths(ax, table, station, looks(view.whole.policies)),
    )
