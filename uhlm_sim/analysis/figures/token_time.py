"""The distribution of the time per token."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from uhlm_sim.analysis.figures import captions
from uhlm_sim.analysis.figures.captions import Drawing, View
from uhlm_sim.analysis.figures.ecdf import ecdf_figure, ecdf_table, in_order, plot_ecdf
from uhlm_sim.analysis.measures.window import in_window
from uhlm_sim.analysis.run import Run


def token_time_table(tokens: pd.DataFrame, window_s: tuple[float, float]) -> pd.DataFrame:
    """Return the `ecdf_table` of `delay_s`, the time per token, of the tokens committed in the window."""
    cut = tokens[in_window(tokens["committed_s"], *window_s)]
    delay_s = cut["committed_s"] - cut["started_s"]
    return ecdf_table(pd.DataFrame({"policy": cut["policy"], "delay_s": delay_s}), "delay_s")


def plot(run: Run, ax: Axes | None = None) -> Axes | Figure:
    """Draw the distribution of the time per token."""
    one = run.middle_point()
    table = token_time_table(one.kept_tokens(), one.window_s)
    return plot_ecdf(run, ax, table, "time per token, s", "tokens")


def drawing(view: View) -> Drawing | None:
    """Give the figure of a point with its caption, where tokens were kept."""
    one = view.run
    if one.tokens is None:
        return None
    table = in_order(token_time_table(one.tokens, one.window_s), one.policies)
    return Drawing(
        "token_time",
        "Time per token",
        f"Share of the tokens committed {captions.window(one)} that took at most the time on the axis; "
        f"{captions.over(one)} pooled. Kept drafts cost the device alone: they are the step at the left.{view.note}",
        table,
        ecdf_figure(table, "delay_s", "time per token, s", "tokens", one.policies),
    )
