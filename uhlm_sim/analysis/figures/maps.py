"""Heat maps over two swept values, one a policy."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, Stroke
from numpy.typing import NDArray

from uhlm_sim.analysis.figures.axes import is_numeric, key_words, value_words
from uhlm_sim.analysis.figures.marks import Value, mark_cell
from uhlm_sim.analysis.figures.style import PAGE_IN, new_figure, policies_of
from uhlm_sim.analysis.figures.wording import View
from uhlm_sim.analysis.measures.intervals import RATIO
from uhlm_sim.errors import InputError

MET = 0.95  # the share that makes a 95th percentile meet its limit
TELLABLE = 2.0  # log2: ratios of 4 and more, or 1/4 and less, are drawn in one colour

Floats = NDArray[np.float64]


def map_table(summary: pd.DataFrame, x: str, y: str, metric: str) -> pd.DataFrame:
    """Return the summary's rows of one metric over two swept columns, without nulls and without a ratio to itself.

    Columns: x, y, policy, metric, unit, mean, ci95_low, ci95_high, replications.
    """
    rows = summary[(summary["metric"] == metric) & summary["mean"].notna()]
    if metric.endswith(RATIO) and len(rows):
        rows = rows[rows["policy"] != summary["policy"].iloc[0]]
    keys = [x, y, "policy", "metric", "unit", "mean", "ci95_low", "ci95_high", "replications"]
    return rows[keys].reset_index(drop=True)


def draw_map(ax: Axes, table: pd.DataFrame, policy: str, reach: float = TELLABLE) -> None:
    """Draw one policy of a `map_table`, with the contour of break-even, or of the SLOs met by MET of the requests.

    A ratio's colours are even in its logarithm, white at 1, and end at 2^reach; one whose interval holds 1 stands in
    brackets. The contour is interpolated between the middles of the cells, in the logarithm for ratios.
    """
    x, y = (str(name) for name in table.columns[:2])
    rows = table[table["policy"] == policy]
    grids = [grid(rows, x, y, column) for column in ("mean", "ci95_low", "ci95_high")]
    mean, low, high = (grid.to_numpy(dtype=np.float64) for grid in grids)
    metric = str(table["metric"].iloc[0])
    is_ratio = metric.endswith(RATIO)
    if is_ratio:
        level, colours = 0.0, {"cmap": "vlag", "vmin": -reach, "vmax": reach}
        shown = np.log2(np.where(mean > 0, mean, np.nan))
        texts = np.vectorize(_ratio_text)(mean, (low <= 1) & (high >= 1))
    else:
        level, colours = MET, {"cmap": "crest", "vmin": 0.0, "vmax": 1.0}
        shown = mean
        texts = np.vectorize(lambda share: "" if np.isnan(share) else f"{100 * share:.0f}")(mean)
    down, across = (
        [value_words(key, value) for value in axis] for key, axis in zip((y, x), grids[0].axes, strict=True)
    )
    labelled = pd.DataFrame(shown, index=down, columns=across)
    size = {"fontsize": 6.5 if mean.shape[1] <= 6 else 5}
    annotated = texts if max(mean.shape) <= 9 else False
    sns.heatmap(labelled, ax=ax, annot=annotated, fmt="", cbar=False, annot_kws=size, linewidths=0.3, **colours)
    if min(mean.shape) > 1 and np.nanmin(shown) < level < np.nanmax(shown):
        ax.contour(
            *_to_the_edges(shown), [level], colors="black" if is_ratio else "#ffb000", linewidths=1.5, zorder=2.5
        )
    scale = ax.collections[0]
    for text in ax.texts:  # they stay readable where the contour passes behind them
        column, row = (int(at) for at in text.get_position())
        text.set_path_effects([Stroke(linewidth=1.6, foreground=scale.to_rgba(shown[row, column])), Normal()])
    for (row, column), value in np.ndenumerate(mean):
        if not np.isnan(value):
            at = {x: grids[0].columns[column], y: grids[0].index[row]}
            estimate = Value(metric, float(value), float(low[row, column]), float(high[row, column]))
            mark_cell(ax, (column, row), at, policy, estimate, alpha=0.0)
    ax.tick_params(axis="both", length=0, rotation=0)
    ax.set_xlabel(key_words(x))
    ax.set_ylabel(key_words(y))


def grid(rows: pd.DataFrame, x: str, y: str, column: str) -> pd.DataFrame:
    """Lay a column out over both swept values: numbers grow to the right and upwards, words keep their order."""
    laid_out = rows.pivot(index=y, columns=x, values=column)
    laid_out = laid_out.reindex(index=rows[y].drop_duplicates(), columns=rows[x].drop_duplicates())
    if is_numeric(rows[x]):
        laid_out = laid_out.sort_index(axis=1)
    return laid_out.sort_index(ascending=False) if is_numeric(rows[y]) else laid_out


def _ratio_text(ratio: float, open_question: bool) -> str:
    text = "" if np.isnan(ratio) else f"{ratio:.2f}" if ratio < 10 else f"{ratio:.0f}"
    return f"({text})" if open_question else text


def _to_the_edges(values: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the middles of a map's cells with their values, drawn out flat to the map's frame."""
    rows, columns = values.shape
    across, down = (np.concatenate([[0.0], np.arange(n) + 0.5, [float(n)]]) for n in (columns, rows))
    return across, down, np.pad(values, 1, mode="edge")


def map_figure(table: pd.DataFrame, policies: Sequence[str] = ()) -> Figure:
    """Draw a `map_table`'s policies side by side on one scale of colours, which stands beside them.

    `policies` are all of the run, the first of them the one that ratios are taken to.
    """
    names = sorted(policies_of(table), key=lambda name: policies.index(name) if name in policies else len(policies))
    is_ratio = str(table["metric"].iloc[0]).endswith(RATIO)
    largest = float(np.nanmax(np.abs(np.log2(table["mean"].where(table["mean"] > 0))))) if is_ratio else 0.0
    reach = min(TELLABLE, max(0.5, largest))
    rows = -(-len(names) // 3)
    with new_figure(PAGE_IN, 0.35 + 1.85 * rows) as figure:
        panels = figure.subplots(rows, 3, squeeze=False, sharey=True)
        for i, name in enumerate(names):
            ax = panels.flat[i]
            draw_map(ax, table, name, reach)
            ax.set_title(f"{name} / {policies[0]}" if is_ratio and policies else name)
            if i % 3:
                ax.set_ylabel("")
            if i + 3 < len(names):
                ax.set_xlabel("")
        for ax in panels.flat[len(names) :]:
            ax.set_axis_off()
        if is_ratio:
            scale = ScalarMappable(Normalize(-reach, reach), "vlag")
            bar = figure.colorbar(
                scale, ax=panels, shrink=0.8, aspect=30, extend="both" if largest > reach else "neither"
            )
            ticks = [ratio for ratio in (0.25, 0.5, 0.8, 1.0, 1.25, 2.0, 4.0) if abs(np.log2(ratio)) <= reach]
            bar.set_ticks(np.log2(ticks).tolist(), labels=[f"{ratio:g}" for ratio in ticks])
            bar.set_label("ratio")
        else:
            bar = figure.colorbar(ScalarMappable(Normalize(0, 100), "crest"), ax=panels, shrink=0.8, aspect=30)
            bar.set_label("requests that meet the SLOs, %")
        bar.outline.set_linewidth(0.4)
    return figure


def plot_map(view: View, metric: str, policy: str, ax: Axes | None) -> tuple[pd.DataFrame, Axes | Figure]:
    """Draw a metric over two swept values, one policy's on axes, else all in a figure; return the table too."""
    run, (x, y) = view.run, view.keys
    table = map_table(run.summary, x, y, metric)
    if table.empty:
        raise InputError(f"metric '{metric}': null everywhere")
    names = policies_of(table)
    if policy or ax is not None:
        label = run.named(policy)[0]
        if label not in names:
            raise InputError(f"policy '{label}': no map of it; there are {', '.join(names)}")
        table = table[table["policy"] == label]
    if ax is None:
        return table, map_figure(table, run.policies)
    draw_map(ax, table, label)
    return table, ax
