"""Throughput, utilisation and attainment over one swept value."""

from uhlm_sim.analysis.figures import wording
from uhlm_sim.analysis.figures.axes import key_words
from uhlm_sim.analysis.figures.over_sweep import crosses, joined_policies, over_figure, over_table, with_guides
from uhlm_sim.analysis.figures.wording import Drawing, View
from uhlm_sim.analysis.measures.intervals import RATIO

PANELS = {
    "token_throughput": "Cell, tokens/s",
    "token_throughput_per_device": "A phone, 1/mean(delay), tokens/s",
    f"token_throughput{RATIO}": "Cell, ratio to {first}",
    "uplink_utilisation": "Uplink utilisation",
    "bs_utilisation": "GPU utilisation",
    "slo_attainment": "Requests that meet the SLOs",
}


def drawing(view: View) -> Drawing:
    """Draw throughput, utilisation and attainment over the one value that is swept.

    In panels of a figure of its own; `over("token_throughput", ax)` draws one of them on axes of yours.
    """
    run, x = view.run, view.keys[0]
    policies, words = joined_policies(run, x), key_words(x)
    others = [name for name in run.sweep if name != x and run.summary[name].astype(str).nunique() > 1]
    together = f" With it goes {' and '.join(map(key_words, others))}." if others else ""
    table = with_guides(over_table(run.summary, x, list(PANELS)), run.scenario.get("slo", {}))
    guide = " The dotted 1/n is a phone's share of a full cell." if table["policy"].eq("1/n").any() else ""
    return Drawing(
        "sweep",
        f"Over {words}",
        f"Each policy against {words}.{together}{wording.intervals(run, 'Bands')} Ratios are to {policies[0]}, paired "
        "by replication. A phone's rate is 1/mean(delay); a token's delay is the time from the start of its draft "
        f"until it is at the device.{guide}{crosses(table)}{view.note}",
        table,
        over_figure(table, PANELS, policies),
    )
