"""Where a token's time goes over one swept value, a panel for each policy."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from uhlm_sim.analysis.figures import wording
from uhlm_sim.analysis.figures.axes import key_words, set_words, value_words
from uhlm_sim.analysis.figures.over_sweep import over_table
from uhlm_sim.analysis.figures.style import INK, LEG_COLOURS, new_panels, panel_columns, policies_of
from uhlm_sim.analysis.figures.wording import Drawing, View
from uhlm_sim.errors import InputError
from uhlm_sim.tables import LEGS


def legs_over_table(summary: pd.DataFrame, x: str) -> pd.DataFrame:
    """Return the `over_table` of the six legs, with the `share` that each has of the mean time of a token."""
    table = over_table(summary, x, LEGS)
    return table.assign(share=table["mean"] / table.groupby([x, "policy"], sort=False)["mean"].transform("sum"))


def draw_legs_over(ax: Axes, table: pd.DataFrame, policy: str) -> None:
    """Stack the shares of one policy's legs at each swept value; above a bar is the mean time of a token in ms."""
    x = str(table.columns[0])
    one = table[table["policy"] == policy]
    values = table[x].drop_duplicates()
    bottom = np.zeros(len(values))
    for leg in LEGS:
        rows = one[one["metric"] == leg].set_index(x)["share"]
        height = 100 * rows.reindex(values).fillna(0.0).to_numpy(dtype=np.float64)
        text, colour = LEG_COLOURS[leg]
        ax.bar(np.arange(len(values)), height, 0.8, bottom, color=colour, label=text)
        bottom = bottom + height
    words = [value_words(x, value) for value in values]
    step = -(-len(words) // 10)
    for i, total_s in enumerate(one.groupby(x)["mean"].sum().reindex(values)[::step]):
        if total_s > 0:
            ax.annotate(f"{1e3 * total_s:.0f}", (i * step, 100), (0, 1), fontsize=5, ha="center", **ABOVE)
    set_words(ax.xaxis, [float(i) for i in range(0, len(words), step)], words[::step])
    ax.set_ylim(0, 107)
    ax.set_yticks([0, 25, 50, 75, 100])
    ax.set_xlabel(key_words(x))


ABOVE: dict[str, Any] = {"textcoords": "offset points", "va": "bottom", "color": INK}


def legs_over_figure(table: pd.DataFrame) -> Figure:
    """Draw a panel of stacked legs for each policy of a `legs_over_table`."""
    names = policies_of(table)
    columns = panel_columns(len(names))
    with new_panels(len(names), columns, 1.75, 0.5, sharey=True) as (figure, axes):
        for ax, name in zip(axes, names, strict=True):
            draw_legs_over(ax, table, name)
            ax.set_title(name)
        for ax in axes[: max(0, len(names) - columns)]:
            ax.set_xlabel("")
        for ax in axes[::columns]:
            ax.set_ylabel("share of the time, %")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(LEGS))
    return figure


def drawing(view: View) -> Drawing:
    """Draw where a token's time goes at each value that is swept: a figure with a panel for each policy."""
    run, x = view.run, view.keys[0]
    table = legs_over_table(run.summary, x)
    if table.empty:
        raise InputError("no token of this run was committed in the window")
    return Drawing(
        "legs",
        f"Where a token's time goes over {key_words(x)}",
        f"Share of each leg in the mean time of the tokens committed {wording.window(run)}; a token without a leg "
        "counts zero for it. Above each bar stands that mean time in milliseconds. Means over "
        f"{wording.over(run)}.{view.note}",
        table,
        legs_over_figure(table),
    )
