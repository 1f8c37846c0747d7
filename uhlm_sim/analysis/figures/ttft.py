"""The distribution of the time to first token."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from uhlm_sim.analysis.figures import captions
from uhlm_sim.analysis.figures.captions import Drawing, View
from uhlm_sim.analysis.figures.ecdf import ecdf_figure, ecdf_table, in_order, plot_ecdf
from uhlm_sim.analysis.measures.window import in_window
from uhlm_sim.analysis.run import Run


def ttft_table(requests: pd.DataFrame, window_s: tuple[float, float]) -> pd.DataFrame:
    """Return the `ecdf_table` of `ttft_s`, the time to first token, of the requests that arrived in the window."""
    arrived = requests[in_window(requests["arrived_s"], *window_s)]
    ttft_s = arrived["first_token_s"] - arrived["arrived_s"]
    return ecdf_table(pd.DataFrame({"policy": arrived["policy"], "ttft_s": ttft_s}), "ttft_s")


def plot(run: Run, ax: Axes | None = None) -> Axes | Figure:
    """Draw the distribution of the time to first token."""
    one = run.middle_point()
    table = ttft_table(one.requests, one.window_s)
    return plot_ecdf(run, ax, table, "time to first token, s", "requests")


def drawing(view: View) -> Drawing | None:
    """Give the figure of a point with its caption, where a request got a token."""
    one = view.run
    table = in_order(ttft_table(one.requests, one.window_s), one.policies)
    if table.empty:
        return None
    return Drawing(
        "ttft",
        "Time to first token",
        f"Share of the requests that arrived {captions.window(one)} whose first token was at the device within the "
        f"time on the axis; {captions.over(one)} pooled. Requests without a first token at the end are left out."
        f"{view.note}",
        table,
        ecdf_figure(table, "ttft_s", "time to first token, s", "requests", one.policies),
    )
