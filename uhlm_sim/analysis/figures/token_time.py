"""The distribution of the time per token."""

from matplotlib.axes import Axes

from uhlm_sim.analysis.figures import wording
from uhlm_sim.analysis.figures.ecdf import ecdf_table, plot_ecdf
from uhlm_sim.analysis.figures.wording import Drawing, View
from uhlm_sim.analysis.measures.window import in_window


def drawing(view: View, ax: Axes | None = None) -> Drawing:
    """Draw the distribution of the time per token, of the tokens committed in the window."""
    one = view.run
    committed = one.kept_tokens()[in_window(one.kept_tokens()["committed_s"], *one.window_s)]
    delay_s = committed["committed_s"] - committed["started_s"]
    table = ecdf_table(committed.assign(delay_s=delay_s), "delay_s", one.policies)
    return Drawing(
        "token_time",
        "Time per token",
        f"Share of the tokens committed {wording.window(one)} that took at most the time on the axis; "
        f"{wording.over(one)} pooled. Kept drafts cost the device alone: they are the step at the left.{view.note}",
        table,
        plot_ecdf(view, ax, table, "time per token, s", "tokens"),
    )
