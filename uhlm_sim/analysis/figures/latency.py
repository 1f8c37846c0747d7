"""Percentiles of TTFT and TPOT over one swept value."""

from collections.abc import Sequence
from itertools import chain

import pandas as pd
from matplotlib.figure import Figure

from uhlm_sim.analysis.figures import wording
from uhlm_sim.analysis.figures.axes import key_words
from uhlm_sim.analysis.figures.over_sweep import (
    PARTIAL,
    crosses,
    cut_bands,
    joined_policies,
    latency_table,
    over_figure,
)
from uhlm_sim.analysis.figures.wording import Drawing, View
from uhlm_sim.errors import InputError

PERCENTILES = ("p50", "p95", "p99")
LATENCIES = {f"{name}_s.{p}": f"{name.upper()} {p}, s" for name in ("ttft", "tpot") for p in PERCENTILES}


def latency_figure(table: pd.DataFrame, policies: Sequence[str] = ()) -> Figure:
    """Draw the percentiles of TTFT (above) and TPOT (below) of an `over_table`; those of one latency on one scale."""
    figure = over_figure(table, LATENCIES, policies)
    for name in ("TTFT", "TPOT"):
        panels = [ax for ax in figure.axes if ax.get_title().startswith(name)]
        logarithmic = any(ax.get_yscale() == "log" for ax in panels)
        ends = list(chain.from_iterable(ax.get_ylim() for ax in panels))
        floor = min((end for end in ends if end > 0), default=1.0)
        for ax in panels:
            if logarithmic and ax.get_yscale() != "log":
                ax.set_yscale("log")
            ax.set_ylim(floor if logarithmic else 0.0, max(ends))
            cut_bands(ax)
    return figure


def drawing(view: View) -> Drawing:
    """Draw the percentiles of TTFT and TPOT over the one value that is swept, with the SLO.

    In panels of a figure of its own; `over("ttft_s.p95", ax)` draws one of them on axes of yours.
    """
    run, x = view.run, view.keys[0]
    table = latency_table(run, x, list(LATENCIES))
    if table.empty:
        raise InputError("no request of this run has a latency")
    partial = f" Hollow points are {' or '.join(PARTIAL)}: they are the latencies of the quicker requests."
    hollow = partial if table["verdict"].isin(PARTIAL).any() else ""
    limit = " The dashed line is the SLO." if table["policy"].eq("SLO").any() else ""
    return Drawing(
        "latency",
        f"Latency percentiles over {key_words(x)}",
        "Above, time to first token, waiting at the phone included. Below, time per output token after it, (e2e − "
        "TTFT)/(tokens − 1), of finished requests. Percentiles are taken within a replication, then averaged."
        f"{wording.intervals(run, 'Bands')}{limit}{hollow}{crosses(table)}{view.note}",
        table,
        latency_figure(table, joined_policies(run, x)),
    )
