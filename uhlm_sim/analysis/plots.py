"""Figures as functions of a table: each draws on the axes it is given and keeps no state.

Functions that end in `_table` make a small table out of large ones; `draw_...` draws a table on any Axes (a
notebook's too); `..._figure` puts panels and a legend together. `Look`s are those of `style.looks`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter
from numpy.typing import NDArray

from uhlm_sim.analysis.intervals import student_t
from uhlm_sim.analysis.metrics import LEGS
from uhlm_sim.analysis.style import COLUMN_IN, INK, LEG_COLOURS, PAGE_IN, QUIET, Look, looks, new_figure

Floats = NDArray[np.float64]

READINGS = {"token_throughput_per_device": "1 / mean delay", "mean_token_rate": "mean of 1 / delay"}


def policies_of(table: pd.DataFrame) -> list[str]:
    """Return the policies of a table in their order of appearance."""
    return [str(name) for name in table["policy"].unique()]


# -- throughput ---------------------------------------------------------------------------------------------


def draw_metric(ax: Axes, summary: pd.DataFrame, metric: str, styles: Mapping[str, Look]) -> None:
    """Draw a bar per policy with interval and value, the first on top; `summary` as in summary.csv."""
    _bars(ax, summary, [metric], styles)
    unit = summary.loc[summary["metric"] == metric, "unit"]
    ax.set_xlabel(unit.iloc[0] if len(unit) else "")


def draw_token_rates(ax: Axes, summary: pd.DataFrame, styles: Mapping[str, Look]) -> None:
    """Draw both readings of a user's token rate per policy: 1/mean(delay) full, mean(1/delay) light."""
    _bars(ax, summary, list(READINGS), styles)
    ax.set_xlabel("tokens/s")
    shades = [
        Patch(facecolor=QUIET, alpha=alpha, label=text) for alpha, text in zip(_SHADES, READINGS.values(), strict=False)
    ]
    ax.legend(handles=shades, loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2)


_SHADES = (1.0, 0.4)


def _bars(ax: Axes, summary: pd.DataFrame, metrics: Sequence[str], styles: Mapping[str, Look]) -> None:
    policies = policies_of(summary)
    height = 0.72 / len(metrics)
    furthest = 0.0
    for j, metric in enumerate(metrics):
        rows = summary[summary["metric"] == metric].set_index("policy").reindex(policies)
        y = np.arange(len(policies)) + (j - (len(metrics) - 1) / 2) * height
        mean, low, high = (rows[name].to_numpy(dtype=np.float64) for name in ("mean", "ci95_low", "ci95_high"))
        colours = [styles[name].colour for name in policies]
        ax.barh(y, mean, height=0.92 * height, color=colours, alpha=_SHADES[j], linewidth=0)
        ax.hlines(y, low, high, color="white", linewidth=2.2)
        ax.hlines(y, low, high, color=INK, linewidth=0.9)
        for where, value, end in zip(y, mean, np.fmax(mean, high), strict=True):
            if np.isfinite(value):
                furthest = max(furthest, end)
                text = f"{value:.1f}" if value < 100 else f"{value:.0f}"
                ax.annotate(text, (end, where), (3, 0), textcoords="offset points", va="center", fontsize=6)
    ax.set_xlim(0, 1.13 * furthest or 1)
    _rows(ax, policies)


def _rows(ax: Axes, policies: Sequence[str]) -> None:
    ax.set_yticks(np.arange(len(policies)), policies)
    ax.set_ylim(len(policies) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)


def throughput_figure(summary: pd.DataFrame) -> Figure:
    """Draw the cell's throughput beside the user's token rate in both readings."""
    styles = looks(policies_of(summary))
    with new_figure(PAGE_IN, 0.9 + 0.24 * len(styles)) as figure:
        left, right = figure.subplots(1, 2, sharey=True)
        draw_metric(left, summary, "token_throughput", styles)
        left.set_title("All phones together")
        draw_token_rates(right, summary, styles)
        right.set_title("One phone while it waits for a token")
    return figure


# -- empirical distributions --------------------------------------------------------------------------------


def ecdf_table(table: pd.DataFrame, column: str, points: int = 400) -> pd.DataFrame:
    """Return each policy's empirical distribution: policy, the column, and the `share` of values up to it.

    Every value if there are at most `points`, else that many order statistics at even shares, the smallest
    and the largest included: the curve is exact at each of them. Nulls are left out.
    """
    code, names = pd.factorize(table["policy"])
    values = table[column].to_numpy(dtype=np.float64)
    parts = []
    for i, name in enumerate(names):
        x = np.sort(values[(code == i) & ~np.isnan(values)])
        rank = np.unique(np.ceil(np.linspace(1, x.size, min(points, x.size)))).astype(np.int64)
        parts.append(pd.DataFrame({"policy": name, column: x[rank - 1], "share": rank / max(1, x.size)}))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame({"policy": [], column: [], "share": []})


def draw_ecdf(ax: Axes, table: pd.DataFrame, column: str, styles: Mapping[str, Look]) -> None:
    """Draw the steps of an `ecdf_table` on a logarithmic time axis."""
    names = policies_of(table)
    for name, width in zip(names, _widths(names), strict=True):
        rows = table[table["policy"] == name]
        x = rows[column].to_numpy(dtype=np.float64)
        share = rows["share"].to_numpy(dtype=np.float64)
        look = styles[name]
        ax.step(
            np.append(x[:1], x),
            np.append(0.0, share),
            where="post",
            color=look.colour,
            linestyle=look.line,
            linewidth=width,
            label=name,
        )
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_ylim(0, 1.01)


def ecdf_figure(table: pd.DataFrame, column: str, label: str, counted: str) -> Figure:
    """Draw an `ecdf_table` in the width of one column, its legend below."""
    styles = looks(policies_of(table))
    with new_figure(COLUMN_IN, 2.9) as figure:
        ax = figure.subplots()
        draw_ecdf(ax, table, column, styles)
        ax.set_xlabel(label)
        ax.set_ylabel(f"share of {counted}")
        _legend_below(figure, styles, columns=2)
    return figure


# -- where a token's time goes ------------------------------------------------------------------------------


def draw_legs(ax: Axes, summary: pd.DataFrame) -> None:
    """Stack the mean time of each leg over all tokens of a policy; a bar ends at the mean time per token."""
    policies = policies_of(summary)
    y, start = np.arange(len(policies)), np.zeros(len(policies))
    for leg in LEGS:
        rows = summary[summary["metric"] == leg].set_index("policy").reindex(policies)
        width = 1e3 * rows["mean"].to_numpy(dtype=np.float64, na_value=np.nan)
        text, colour = LEG_COLOURS[leg]
        ax.barh(y, width, left=start, height=0.66, color=colour, edgecolor="white", linewidth=0.4, label=text)
        start = start + np.nan_to_num(width)
    for where, end in zip(y, start, strict=True):
        ax.annotate(f"{end:.0f}", (end, where), (3, 0), textcoords="offset points", va="center", fontsize=6)
    ax.set_xlim(0, 1.08 * max(start, default=0.0) or 1)
    _rows(ax, policies)
    ax.set_xlabel("mean time of a token, ms")


def legs_figure(summary: pd.DataFrame) -> Figure:
    """Draw `draw_legs` in the width of a page, its legend below."""
    with new_figure(PAGE_IN, 0.9 + 0.24 * len(policies_of(summary))) as figure:
        ax = figure.subplots()
        draw_legs(ax, summary)
        figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=len(LEGS))
    return figure


# -- queues -------------------------------------------------------------------------------------------------

STATIONS = {"uplink": "uploads at the uplink", "base_station": "jobs at the base station"}


def queue_table(tokens: pd.DataFrame, duration_s: float, bins: int = 60) -> pd.DataFrame:
    """Return jobs present over time: policy, station, time_s (middle of a bin), mean, ci95_low, ci95_high.

    Each replication's number present is averaged over the bin exactly, then over replications with Student's
    interval. An upload is present from started_s + device_s for its wait and airtime, a job from there for
    its wait and verification; one that isn't over when the run ends stays. Policies that never come to a
    station have no rows for it.
    """
    sent = tokens[tokens["payload_bits"].to_numpy() + (tokens["decision"] == "send").to_numpy() > 0]
    policy, names = pd.factorize(sent["policy"])
    replication, numbers = pd.factorize(sent["replication"])
    run = policy * len(numbers) + replication
    column = {name: sent[name].to_numpy(dtype=np.float64) for name in ("started_s", "payload_bits", *LEGS)}
    ready_s = column["started_s"] + column["device_s"]
    arrived_s = ready_s + column["uplink_wait_s"] + column["airtime_s"]
    verified_s = arrived_s + column["bs_wait_s"] + column["verify_s"]
    uploads = column["payload_bits"] > 0
    spans = {
        "uplink": (run[uploads], ready_s[uploads], arrived_s[uploads]),
        "base_station": (run, arrived_s, verified_s),
    }
    edges_s = np.linspace(0.0, duration_s, bins + 1)
    parts = []
    for station, (which, since_s, until_s) in spans.items():
        shape = (len(names), len(numbers), bins)
        present = (_begun(which, since_s, shape, edges_s) - _begun(which, until_s, shape, edges_s)).swapaxes(1, 2)
        mean, low, high, _ = student_t(present)
        for i, name in enumerate(names):
            if mean[i].any():
                columns = {"mean": mean[i], "ci95_low": low[i], "ci95_high": high[i]}
                middle_s = (edges_s[:-1] + edges_s[1:]) / 2
                parts.append(pd.DataFrame({"policy": name, "station": station, "time_s": middle_s, **columns}))
    empty: dict[str, list[float]] = {
        name: [] for name in ("policy", "station", "time_s", "mean", "ci95_low", "ci95_high")
    }
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(empty)


def _begun(run: NDArray[np.int64], at_s: Floats, shape: tuple[int, int, int], edges_s: Floats) -> Floats:
    """Return the number begun per run, averaged over each bin: the rest of an event's bin, then 1."""
    bins = shape[-1]
    width_s = edges_s[1]
    known = at_s < edges_s[-1]  # false for one that isn't over, too
    k = (at_s[known] / width_s).astype(np.int64)
    index = run[known] * bins + k
    rest = (edges_s[k + 1] - at_s[known]) / width_s
    size = int(np.prod(shape))
    events = np.bincount(index, minlength=size).reshape(shape)
    within = np.bincount(index, weights=rest, minlength=size).reshape(shape)
    return np.asarray(within + events.cumsum(axis=-1) - events, dtype=np.float64)


def draw_queue(ax: Axes, table: pd.DataFrame, station: str, styles: Mapping[str, Look], warmup_s: float) -> None:
    """Draw a `queue_table`'s mean and interval at one station, the warm-up shaded."""
    rows = table[table["station"] == station]
    ax.axvspan(0, warmup_s, color="#efefef", linewidth=0, zorder=0)
    names = policies_of(rows)
    for name, width in zip(names, _widths(names), strict=True):
        one = rows[rows["policy"] == name]
        time_s, mean, low, high = (
            one[c].to_numpy(dtype=np.float64) for c in ("time_s", "mean", "ci95_low", "ci95_high")
        )
        look = styles[name]
        ax.fill_between(time_s, low, high, color=look.colour, alpha=0.18, linewidth=0)
        ax.plot(time_s, mean, color=look.colour, linestyle=look.line, linewidth=width, label=name)
    ax.set_ylim(bottom=0)
    ax.margins(x=0)
    ax.set_xlabel("time, s")
    ax.set_ylabel(STATIONS[station])


def queue_figure(table: pd.DataFrame, warmup_s: float, policies: Sequence[str]) -> Figure:
    """Draw both stations side by side; `policies` are all of the run, whether they queue or not."""
    styles = looks(policies)
    with new_figure(PAGE_IN, 2.6) as figure:
        for ax, station in zip(figure.subplots(1, 2), STATIONS, strict=True):
            draw_queue(ax, table, station, styles, warmup_s)
        present = {name: styles[name] for name in policies if (table["policy"] == name).any()}
        _legend_below(figure, present, columns=4)
    return figure


def _widths(policies: Sequence[str]) -> list[float]:
    """Return line widths that fall, from the first policy's on: it is still seen under another of the same course."""
    return [2.6, *(float(width) for width in np.linspace(1.4, 1.0, max(1, len(policies) - 1)))][: len(policies)]


def _legend_below(figure: Figure, styles: Mapping[str, Look], columns: int) -> None:
    lines = [Line2D([], [], color=look.colour, linestyle=look.line, label=name) for name, look in styles.items()]
    if lines:
        figure.legend(handles=lines, loc="outside lower center", ncols=columns, handlelength=2.4)


# -- the uncertainty law ------------------------------------------------------------------------------------


def draw_uncertainty_law(ax: Axes, bins: pd.DataFrame, a: float, b: float, thresholds: Mapping[str, float]) -> None:
    """Draw mean rejection probability against uncertainty with the fitted line a u + b and the thresholds.

    `bins`: uncertainty, tokens, rejection (the mean), ci95_low, ci95_high, one row per value of u, and of
    `split` if there is such a column: prompts that were fitted are filled, others open. The area of a marker
    grows with its tokens; bins without a token are left out. A threshold outside [0, 1) isn't drawn: the
    legend says what it does.
    """
    splits = list(bins["split"].unique()) if "split" in bins else [None]
    for i, split in enumerate(splits):
        rows = bins[(bins["tokens"] > 0) & ((bins["split"] == split) if split is not None else True)]
        u, beta, low, high, tokens = (
            rows[name].to_numpy(dtype=np.float64)
            for name in ("uncertainty", "rejection", "ci95_low", "ci95_high", "tokens")
        )
        colour, dodge = ("#0072b2", "#e69f00")[i % 2], 0.012 * (i - (len(splits) - 1) / 2)
        ax.vlines(u + dodge, low, high, color=colour, linewidth=0.8, zorder=2)
        ax.scatter(
            u + dodge,
            beta,
            s=6 + 34 * tokens / max(1.0, tokens.max(initial=0.0)),
            facecolor="white" if i else colour,
            edgecolor=colour,
            linewidth=0.9,
            zorder=3,
            label=f"{split} prompts, 95 % interval" if split is not None else "mean, 95 % interval",
        )
    line = np.linspace(0, 1, 101)
    sign = "−" if b < 0 else "+"
    ax.plot(line, a * line + b, color=INK, linewidth=1.0, label=f"fit: {a:.2f} u {sign} {abs(b):.2f}")
    ways = ("--", ":", "-.", (0.0, (5.0, 1.0, 1.0, 1.0, 1.0, 1.0)))
    for i, (name, u_th) in enumerate(thresholds.items()):
        if 0 <= u_th < 1:
            text = f"{name}: {u_th:.3g}"
            ax.axvline(u_th, color="#d55e00", linestyle=ways[i % len(ways)], linewidth=1.0, label=text)
        else:
            does = "skips nothing" if u_th < 0 else "skips everything"
            ax.plot([], [], " ", label=f"{name}: {u_th:.3g}, {does}".replace("-0", "−0"))
    ax.set_xlim(-0.03, 1.03)
    ax.set_ylim(-0.015, 1)
    ax.set_xlabel("uncertainty u")
    ax.set_ylabel("rejection probability")


def uncertainty_figure(bins: pd.DataFrame, a: float, b: float, thresholds: Mapping[str, float]) -> Figure:
    """Draw the uncertainty law in the width of one column, its legend below."""
    with new_figure(COLUMN_IN, 2.9) as figure:
        ax = figure.subplots()
        draw_uncertainty_law(ax, bins, a, b, thresholds)
        figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2, columnspacing=1.2)
    return figure
