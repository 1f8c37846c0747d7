"""The distribution of the time to first token."""

from matplotlib.axes import Axes

from uhlm_sim.analysis.figures import wording
from uhlm_sim.analysis.figures.ecdf import ecdf_table, plot_ecdf
from uhlm_sim.analysis.figures.wording import Drawing, View
from uhlm_sim.analysis.measures.window import in_window
from uhlm_sim.errors import InputError


def drawing(view: View, ax: Axes | None = None) -> Drawing:
    """Draw the distribution of the time to first token, of the requests that arrived in the window."""
    one = view.run
    arrived = one.requests[in_window(one.requests["arrived_s"], *one.window_s)]
    ttft_s = arrived["first_token_s"] - arrived["arrived_s"]
    table = ecdf_table(arrived.assign(ttft_s=ttft_s), "ttft_s", one.policies)
    if table.empty:
        raise InputError("no request of this run got a token")
    return Drawing(
        "ttft",
        "Time to first token",
        f"Share of the requests that arrived {wording.window(one)} whose first token was at the device within the "
        f"time on the axis; {wording.over(one)} pooled. Requests without a first token at the end are left out."
        f"{view.note}",
        table,
        plot_ecdf(view, ax, table, "time to first token, s", "requests"),
    )
