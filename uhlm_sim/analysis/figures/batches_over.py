"""How large batches are over one swept value."""

from uhlm_sim.analysis.figures import wording
from uhlm_sim.analysis.figures.axes import key_words
from uhlm_sim.analysis.figures.over_sweep import crosses, joined_policies, over_figure, over_table
from uhlm_sim.analysis.figures.wording import Drawing, View
from uhlm_sim.errors import InputError

BATCHES = {"batch_jobs": "Mean jobs in a batch", "batch_tokens": "Mean new tokens in a batch"}


def drawing(view: View) -> Drawing:
    """Draw the mean jobs and new tokens of a batch over the one value that is swept."""
    run, x = view.run, view.keys[0]
    table = over_table(run.summary, x, list(BATCHES))
    if table.empty:
        raise InputError("no policy of this run asks the LLM")
    return Drawing(
        "batches",
        f"Batch size over {key_words(x)}",
        "Mean over the batches that the GPUs served: jobs (left), and tokens that the LLM hadn't processed before "
        "(right), since the prompt and kept drafts come with the next upload. Policies that never ask the LLM are "
        f"missing.{wording.intervals(run, 'Bands')}{crosses(table)}{view.note}",
        table,
        over_figure(table, BATCHES, joined_policies(run, x)),
    )
