"""Jobs present over time at the two stations, from the token rows."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from uhlm_sim.analysis.figures import wording
from uhlm_sim.analysis.figures.style import PAGE_IN, Look, legend_below, line_widths, looks, new_figure, policies_of
from uhlm_sim.analysis.figures.wording import Drawing, View
from uhlm_sim.analysis.measures.intervals import student_t
from uhlm_sim.analysis.measures.queues import visits
from uhlm_sim.errors import InputError

Floats = NDArray[np.float64]

STATIONS = {"uplink": "uploads at the uplink", "base_station": "jobs at the base station"}


def queue_table(rounds: pd.DataFrame, duration_s: float, bins: int = 60) -> pd.DataFrame:
    """Return jobs present over time: policy, station, time_s (middle of a bin), mean, ci95_low, ci95_high.

    Each replication's number present is averaged over the bin exactly, then over replications with Student's
    interval. An upload is present from started_s + device_s for its wait and airtime, a job from there for
    its wait and verification; one that isn't over when the run ends stays. Policies that never come to a
    station have no rows for it.
    """
    sent = rounds[(rounds["decision"] == "send").to_numpy()]
    policy, names = pd.factorize(sent["policy"])
    replication, numbers = pd.factorize(sent["replication"])
    run = policy * len(numbers) + replication
    of_station = visits(sent)
    spans = {"uplink": of_station["uplink"], "base_station": of_station["GPUs"]}
    edges_s = np.linspace(0.0, duration_s, bins + 1)
    parts = []
    for station, (there, since_s, until_s) in spans.items():
        shape = (len(names), len(numbers), bins)
        begun, ended = (_begun(run[there], at_s[there], shape, edges_s) for at_s in (since_s, until_s))
        present = (begun - ended).swapaxes(1, 2)
        mean, low, high, _ = student_t(present)
        for i, name in enumerate(names):
            if mean[i].any():
                columns = {"mean": mean[i], "ci95_low": low[i], "ci95_high": high[i]}
                middle_s = (edges_s[:-1] + edges_s[1:]) / 2
                parts.append(pd.DataFrame({"policy": name, "station": station, "time_s": middle_s, **columns}))
    empty = pd.DataFrame(columns=["policy", "station", "time_s", "mean", "ci95_low", "ci95_high"])
    return pd.concat(parts, ignore_index=True) if parts else empty


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


def draw_queue(ax: Axes, table: pd.DataFrame, station: str, styles: Mapping[str, Look], warmup_s: float) -> Axes:
    """Draw a `queue_table`'s mean and interval at one station, the warm-up shaded."""
    rows = table[table["station"] == station]
    ax.axvspan(0, warmup_s, color="#efefef", linewidth=0, zorder=0)
    names = policies_of(rows)
    for name, width in zip(names, line_widths(names), strict=True):
        one = rows[rows["policy"] == name]
        look = styles[name]
        ax.fill_between(one["time_s"], one["ci95_low"], one["ci95_high"], color=look.colour, alpha=0.18, linewidth=0)
        ax.plot(one["time_s"], one["mean"], color=look.colour, linestyle=look.line, linewidth=width, label=name)
    ax.set_ylim(bottom=0)
    ax.margins(x=0)
    ax.set_xlabel("time, s")
    ax.set_ylabel(STATIONS[station])
    return ax


def queue_figure(table: pd.DataFrame, warmup_s: float, policies: Sequence[str] = ()) -> Figure:
    """Draw both stations side by side; `policies` are all of the run, whether they queue or not."""
    policies = policies or policies_of(table)
    styles = looks(policies)
    with new_figure(PAGE_IN, 2.6) as figure:
        for ax, station in zip(figure.subplots(1, 2), STATIONS, strict=True):
            draw_queue(ax, table, station, styles, warmup_s)
        present = {name: styles[name] for name in policies if (table["policy"] == name).any()}
        legend_below(figure, present, columns=4)
    return figure


def drawing(view: View, ax: Axes | None = None, station: str = "uplink") -> Drawing:
    """Draw jobs present over time, at the "uplink" or the "base_station"; the figure has both."""
    one = view.run
    warmup_s, duration_s = one.window_s
    table = queue_table(one.kept_rounds(), duration_s)
    if table.empty:
        raise InputError("no policy of this run sends anything")
    bands = "; bands are 95 % intervals" if wording.several(one) else ""
    return Drawing(
        "queues",
        "Jobs present over time",
        "Uploads at the uplink (left) and jobs waiting or in service at the base station (right), mean over "
        f"{wording.over(one)}{bands}. The shaded warm-up of {warmup_s:g} s is left out of every metric.{view.note}",
        table,
        queue_figure(table, warmup_s, one.policies)
        if ax is None
        else draw_queue(ax, table, station, looks(view.whole.policies), warmup_s),
    )
