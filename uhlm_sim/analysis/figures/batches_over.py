"""How large batches are over one swept value."""

from matplotlib.figure import Figure

from uhlm_sim.analysis.figures import captions
from uhlm_sim.analysis.figures.axes import key_words, swept_keys
from uhlm_sim.analysis.figures.captions import Drawing, View
from uhlm_sim.analysis.figures.over_sweep import crosses, joined, joined_policies, over_figure, over_table
from uhlm_sim.analysis.run import Run

BATCHES = {"batch_jobs": "Mean jobs in a batch", "batch_tokens": "Mean new tokens in a batch"}


def plot(run: Run) -> Figure:
    """Draw the mean jobs and new tokens of a batch over the one value that is swept."""
    return over_figure(over_table(run.summary, swept_keys(run, 1)[0], list(BATCHES)), BATCHES, joined_policies(run))


def drawing(view: View) -> Drawing | None:
    """Give the figure over a sweep with its caption, where a policy asks the LLM."""
    run, x = view.run, view.keys[0]
    table = over_table(run.summary, x, list(BATCHES))
    if table.empty:
        return None
    return Drawing(
        "batches",
        f"Batch size over {key_words(x)}",
        "Mean over the batches that the GPUs served: jobs (left), and tokens that the LLM hadn't processed before "
        "(right), since the prompt and kept drafts come with the next upload. Policies that never ask the LLM are "
        f"missing.{captions.intervals(run, 'Bands')}{crosses(table)}{view.note}",
        table,
        over_figure(table, BATCHES, list(joined(run.summary, x).unique())),
    )
