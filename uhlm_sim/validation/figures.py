"""Figures of a validation: each claim's distance from theory, queues against load, the closed cell against phones."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy import stats

from uhlm_sim.analysis.figures.style import INK, PAGE_IN, QUIET, new_figure, save
from uhlm_sim.analysis.figures.wording import Drawing
from uhlm_sim.analysis.measures.intervals import write_table
from uhlm_sim.validation import whole
from uhlm_sim.validation.validate import FAILS, FAMILY, Validation

RED, BLUE = "#d55e00", "#0072b2"
FARTHEST = 8.0  # standard errors: what is further off is drawn here, as an arrow
MARKS = {  # by panel: curve -> marker, colour
    "uplink": {
        "uplink, exponential sizes": ("o", BLUE),
        "uplink, constant sizes": ("s", "#009e73"),
        "uplink, hyper-exponential sizes": ("^", "#cc79a7"),
    },
    "GPU": {"GPU, exponential service": ("D", "#e69f00"), "GPU, constant service": ("v", INK)},
}


def drawings(result: Validation) -> list[Drawing]:
    """Return the figures of a validation, those without anything to show left out."""
    made = [distances(result), queues(result.table), closed_cell(result.table)]
    return [drawing for drawing in made if drawing is not None]


def distances(result: Validation) -> Drawing | None:
    """Draw each statistical claim's distance from theory in standard errors, between the limits of one and of all."""
    table = result.table[result.table["p_value"].notna()][["station", "name", "p_value", "z", "verdict"]]
    if table.empty:
        return None
    inner, outer = 1.96, float(stats.norm.isf(FAMILY / 4 / len(table)))
    with new_figure(PAGE_IN, 0.9 + 0.135 * len(table)) as figure:
        ax = figure.subplots()
        y, z = np.arange(len(table))[::-1], table["z"].clip(-FARTHEST, FARTHEST).to_numpy()
        ax.axvspan(-inner, inner, color=QUIET, alpha=0.16, linewidth=0)
        for limit in (-outer, outer):
            ax.axvline(limit, color=RED, linewidth=0.9, linestyle=(0, (5, 2)))
        ax.axvline(0, color=INK, linewidth=0.6)
        fails = (table["verdict"] == FAILS).to_numpy()
        ax.hlines(y, 0, z, color=np.where(fails, RED, BLUE), linewidth=0.9)
        ax.scatter(z, y, s=14, color=np.where(fails, RED, BLUE), zorder=3)
        ax.set_yticks(y, [f"{name}" for name in table["name"]], fontsize=6.5)
        ax.set_ylim(-0.8, len(table) - 0.2)
        reach = max(outer + 0.6, float(np.abs(z).max()) + 0.4)
        ax.set_xlim(-reach, reach)
        ax.set_xlabel("simulated minus theory, in standard errors")
        ax.tick_params(axis="y", length=0)
    return Drawing(
        "distances",
        "How far from theory each statistical claim lies",
        f"Grey: the 95 % interval, beyond which up to {result.allowed} of {len(table)} may lie by chance. Dashed: "
        "where one alone fails (Holm's first limit). In chi-square tests the sign says nothing.",
        table,
        figure,
    )


def queues(table: pd.DataFrame) -> Drawing | None:
    """Draw mean times in the system against load, with the lines of theory."""
    known = [curve for marks in MARKS.values() for curve in marks]
    points = table[table["curve"].isin(known)][["curve", "at", "theory", "simulated", "ci95_low", "ci95_high"]]
    if points.empty:
        return None
    load = np.linspace(0.02, 0.86, 100)
    lines = {"processor sharing": 1 / (1 - load), "M/M/1": 1 / (1 - load), "M/D/1": 1 + load / (2 * (1 - load))}
    theories = {"uplink": ["processor sharing"], "GPU": ["M/M/1", "M/D/1"]}
    with new_figure(PAGE_IN, 2.7) as figure:
        panels = list(figure.subplots(1, 2, sharey=True))
        for ax, (station, marks) in zip(panels, MARKS.items(), strict=True):
            for name, line in zip(theories[station], ("-", (0, (4, 1.5))), strict=False):
                ax.plot(load, lines[name], color=QUIET, linestyle=line, linewidth=1.2, label=name)
            for curve, (marker, colour) in marks.items():
                rows = points[points["curve"] == curve]
                _points(ax, rows, rows["at"], marker, colour, curve.partition(", ")[2])
            ax.set_title(station)
            ax.set_xlabel("load")
            ax.set_ylim(0.9, None)
            ax.legend(loc="upper left")
        panels[0].set_ylabel("mean time in the system, E[S]")
    drawn = pd.concat(
        [points.assign(drawn="point"), *(pd.DataFrame({"curve": name, "at": load, "theory": values, "drawn": "line"})
                                         for name, values in lines.items())], ignore_index=True,
    )  # fmt: skip
    return Drawing(
        "queues",
        "Mean time in uplink and GPU against load",
        "Lines: E[S] / (1 - load) of processor sharing, set by the mean size alone, and of M/M/1; Pollaczek and "
        "Khinchine's for constant service. Points: simulated, with 95 % intervals.",
        drawn,
        figure,
    )


def closed_cell(table: pd.DataFrame) -> Drawing | None:
    """Draw the closed cell's throughput against its phones, with exact mean value analysis."""
    points = table[table["curve"] == "closed cell"][["curve", "at", "theory", "simulated", "ci95_low", "ci95_high"]]
    if points.empty:
        return None
    phones = np.arange(1, int(points["at"].max()) + 6)
    theory = np.array([whole.mean_value_analysis(int(n)) for n in phones])
    with new_figure(PAGE_IN * 0.62, 2.6) as figure:
        ax = figure.subplots()
        ax.plot(phones, theory, color=QUIET, linewidth=1.2, label="mean value analysis")
        bound = np.minimum(phones * theory[0], 1 / whole.DEMANDS_S.max())
        ax.plot(phones, bound, color=QUIET, linewidth=0.9, linestyle=(0, (1.5, 1.5)), label="no cell can do more")
        _points(ax, points, points["at"], "o", BLUE, "simulated, 95 % interval")
        ax.set_xlabel("phones")
        ax.set_ylabel("tokens/s of the cell")
        ax.set_ylim(0, None)
        ax.set_xlim(0, phones[-1])
        ax.legend(loc="lower right")
    lines = pd.DataFrame({"curve": "closed cell", "at": phones, "theory": theory, "bound": bound, "drawn": "line"})
    return Drawing(
        "closed_cell",
        "Throughput of a closed cell against its phones",
        "Phones think, draft, upload and ask one GPU with exponential service. Line: exact mean value analysis "
        "(Reiser and Lavenberg 1980) with the recorded answers' mean length. Dotted: the lesser of n / (Z + sum of "
        "demands) and 1 / the largest demand.",
        pd.concat([points.assign(drawn="point"), lines], ignore_index=True),
        figure,
    )


def write_drawings(result: Validation, folder: Path) -> list[tuple[Drawing, Path]]:
    """Write each figure as PNG, PDF and CSV of what is drawn; return them with their PNG."""
    written = []
    for drawing in drawings(result):
        written.append((drawing, save(drawing.figure, folder, drawing.name)))
        write_table(drawing.table, folder / f"{drawing.name}.csv")
    return written


def _points(ax: Axes, rows: pd.DataFrame, x: pd.Series, marker: str, colour: str, label: str) -> None:
    if rows.empty:
        return
    ends = [rows["simulated"] - rows["ci95_low"], rows["ci95_high"] - rows["simulated"]]
    ax.errorbar(x, rows["simulated"], yerr=ends, fmt=marker, color=colour, markersize=3.6, capsize=2.2, linewidth=1.0,
                label=label, zorder=3)  # fmt: skip
