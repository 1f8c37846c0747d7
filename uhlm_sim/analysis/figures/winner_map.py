"""Which policy is fastest over two swept values, among those near enough to the LLM."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from uhlm_sim.analysis.figures import style, wording
from uhlm_sim.analysis.figures.axes import key_words, value_words
from uhlm_sim.analysis.figures.maps import grid
from uhlm_sim.analysis.figures.marks import Value, mark_cell
from uhlm_sim.analysis.figures.wording import Drawing, View
from uhlm_sim.analysis.measures.winners import MOST_ERROR, RATE, winners
from uhlm_sim.errors import InputError

DARK = 0.5  # luminance below which text is white
LIGHT = 0.7  # of a line's colour in an area; the rest is white


def draw_winners(ax: Axes, table: pd.DataFrame, colours: Mapping[str, str]) -> None:
    """Draw a table of `winners` over its two keys: the colour of the fastest, and its lead over the next one.

    A cell where chance may have put the fastest first is hatched in the next one's colour, its lead in brackets.
    """
    x, y = (str(name) for name in table.columns[1:3])
    best = grid(table, x, y, "best")
    lead, low = (grid(table, x, y, name).to_numpy(dtype=np.float64) for name in ("lead", "lead_low"))
    rates = [grid(table, x, y, name).to_numpy(dtype=np.float64) for name in ("rate", "rate_low", "rate_high")]
    second = grid(table, x, y, "second").to_numpy(dtype=object)
    names = [name for name in colours if name in {*table["best"], *table["second"]}]
    fills = {name: _lighter(colours[name]) for name in names}
    for (row, column), name in np.ndenumerate(best.to_numpy(dtype=object)):
        if name not in names:
            continue
        at = {x: best.columns[column], y: best.index[row]}
        value = Value(RATE, *(float(estimate[row, column]) for estimate in rates))
        other = str(second[row, column])
        is_open = not low[row, column] > 1
        hatch = {"hatch": "///", "edgecolor": fills[other]} if is_open and other in names else {}
        mark_cell(ax, (column - 0.5, row - 0.5), at, name, value, facecolor=fills[name], **hatch)
        ratio = lead[row, column]
        text = "" if np.isnan(ratio) else f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}"
        luminance = float(np.dot(fills[name], (0.3, 0.59, 0.11)))
        ax.text(
            column,
            row,
            f"({text})" if is_open and text else text,
            ha="center",
            va="center",
            fontsize=7,
            color="white" if luminance < DARK else "black",
            bbox={"facecolor": fills[name], "edgecolor": "none", "pad": 1.0} if is_open else None,
        )
    ax.set_xlim(-0.5, best.shape[1] - 0.5)
    ax.set_ylim(best.shape[0] - 0.5, -0.5)
    ax.set_xticks(range(best.shape[1]), [value_words(x, value) for value in best.columns])
    ax.set_yticks(range(best.shape[0]), [value_words(y, value) for value in best.index])
    ax.tick_params(axis="both", length=0)
    ax.set_xlabel(key_words(x))
    ax.set_ylabel(key_words(y))


def drawing(
    view: View,
    ax: Axes | None = None,
    most_error: float = MOST_ERROR,
    least_shares: Mapping[str, float] | None = None,
) -> Drawing:
    """Draw the fastest policy over two swept values, and its lead, among those whose answers are good enough.

    Within a total variation distance of ``most_error`` of the LLM's law, and with ``least_shares`` of what that law
    gives, by metric: {"task_accuracy": 0.95}. See `measures.winners`.
    """
    run, (x, y) = view.run, view.keys
    table = winners(run.replications, (x, y), most_error=most_error, least_shares=least_shares)
    floors = "".join(f", with at least {share:g} of its {name}" for name, share in (least_shares or {}).items())
    if table.empty or len(run.policies) < 2:
        raise InputError(f"no policy is known to be within {most_error:g} of the LLM's law{floors}")
    colours = {name: look.colour for name, look in style.looks(run.policies).items()}
    figure: Axes | Figure
    if ax is not None:
        draw_winners(ax, table, colours)
        figure = ax
    else:
        height_in = 1.2 + 0.34 * table[y].nunique()
        with style.new_figure(style.COLUMN_IN, max(2.4, height_in)) as figure:
            draw_winners(figure.subplots(), table, colours)
            shown = [name for name in colours if name in set(table["best"])]
            handles = [Patch(facecolor=_lighter(colours[name]), label=name) for name in shown]
            figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return Drawing(
        "winner_map",
        f"The fastest policy over {key_words(x)} and {key_words(y)}",
        "The policy with the most tokens a second of an answering phone, among those whose tokens are known to be "
        f"within a total variation distance of {most_error:g} of the LLM's law{floors}, and its lead over the next "
        f"one, a ratio of means over {wording.over(run)}, paired. Hatched: a lead whose interval holds 1.{view.note}",
        table.assign(unbeaten=table["unbeaten"].map("; ".join)),
        figure,
    )


def _lighter(colour: str) -> tuple[float, float, float]:
    """Mix a line's colour with white, for an area."""
    red, green, blue = (1 - LIGHT + LIGHT * part for part in to_rgb(colour))
    return red, green, blue
