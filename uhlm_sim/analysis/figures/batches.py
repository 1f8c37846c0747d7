"""How large batches are, by policy."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from uhlm_sim.analysis.figures import wording
from uhlm_sim.analysis.figures.bars import draw_metric
from uhlm_sim.analysis.figures.style import PAGE_IN, looks, new_figure, policies_of
from uhlm_sim.analysis.figures.wording import Drawing, View
from uhlm_sim.errors import InputError

BATCHES = {"batch_jobs": "Jobs in a batch", "batch_tokens": "New tokens in a batch"}


def batch_table(summary: pd.DataFrame) -> pd.DataFrame:
    """Return the summary's rows of the mean size of a batch, of the policies that ask the LLM at all."""
    return summary[summary["metric"].isin(BATCHES) & summary["mean"].notna()]


def batch_figure(table: pd.DataFrame, policies: Sequence[str] = ()) -> Figure:
    """Draw the mean size of a batch in jobs beside that in tokens which the LLM hasn't seen yet."""
    styles = looks(policies or policies_of(table))
    with new_figure(PAGE_IN, 0.75 + 0.24 * len(policies_of(table))) as figure:
        for ax, (metric, title) in zip(figure.subplots(1, 2, sharey=True), BATCHES.items(), strict=True):
            draw_metric(ax, table, metric, styles)
            ax.set_title(title)
    return figure


def drawing(view: View, ax: Axes | None = None, metric: str = "batch_tokens") -> Drawing:
    """Draw the mean size of a batch, in new tokens or (`batch_jobs`) in jobs; the figure has both."""
    table = batch_table(view.run.summary)
    if table.empty:
        raise InputError("no policy of this run asks the LLM")
    return Drawing(
        "batches",
        "Batch size",
        f"Mean over the batches that the GPUs served {wording.window(view.run)}: jobs (left), and tokens that the LLM "
        "hadn't processed before (right), since the prompt and kept drafts come with the next upload. Policies "
        f"that never ask the LLM are missing.{wording.intervals(view.run, 'Lines')}{view.note}",
        table,
        batch_figure(table, view.run.policies)
        if ax is None
        else draw_metric(ax, table, metric, looks(view.whole.policies)),
    )
