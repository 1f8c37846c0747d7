"""How figures look: one colour and line per policy in every figure, and the sizes of a two-column paper."""

import re
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.typing import LineStyleType

COLUMN_IN, PAGE_IN = 3.4, 7.0
INK, QUIET = "#222222", "#8a8a8a"

# Okabe and Ito's palette, told apart with any colour vision; the lines differ too, for print without colour.
_BLUE, _ORANGE, _RED, _PURPLE, _GREEN, _SKY = "#0072b2", "#e69f00", "#d55e00", "#cc79a7", "#009e73", "#56b4e9"
# From quiet (waiting) to dark (working), apart from the policies' colours.
LEG_COLOURS = {
    "device_s": ("device", "#c9c9c9"),
    "uplink_wait_s": ("uplink wait", "#a6cee3"),
    "airtime_s": ("airtime", "#1f78b4"),
    "bs_wait_s": ("base station wait", "#fdcf8f"),
    "verify_s": ("verification", "#e08214"),
    "downlink_s": ("downlink", "#8073ac"),
}
# Energy is spent where time is: computing, sending, verifying.
ENERGY_COLOURS = (
    ("phone, computing", LEG_COLOURS["device_s"][1]),
    ("phone, radio", LEG_COLOURS["airtime_s"][1]),
    ("base station, share of the GPUs", LEG_COLOURS["verify_s"][1]),
)

FONTS = ["DejaVu Sans", "Verdana"]  # of an SVG: the second, of the same widths, is where the first is not
RC: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "axes.linewidth": 0.6,
    "axes.edgecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "hatch.linewidth": 0.5,
    "pdf.fonttype": 42,
    "figure.dpi": 200,
    "savefig.dpi": 200,
}


@dataclass(frozen=True)
class Look:
    """One policy's colour and line style."""

    colour: str
    line: LineStyleType


_DASHED, _DOTTED = (0.0, (4.0, 1.5)), (0.0, (1.5, 1.0))
_KNOWN = {
    "hlm": Look(_BLUE, "-"),
    "u-hlm(risk-averse)": Look(_ORANGE, "-"),
    "u-hlm(risk-prone)": Look(_RED, "-"),
    "slm": Look("#999999", (0.0, (1.0, 1.2))),
    "llm": Look("#000000", (0.0, (5.0, 1.5, 1.0, 1.5))),
}
_BY_KIND = {
    "u-hlm": (Look(_PURPLE, "-"), Look(_RED, _DASHED), Look(_ORANGE, _DASHED)),
    "rand-hlm": (Look(_GREEN, _DASHED), Look(_GREEN, _DOTTED), Look("#00513b", _DASHED)),
}
_RUNG = re.compile(r"u-hlm\((\d+(?:\.\d+)?)\)")
_OTHERS = (Look(_SKY, "-"), Look(_GREEN, "-"), Look(_SKY, _DASHED), Look(_PURPLE, _DASHED))


def looks(policies: Sequence[str]) -> dict[str, Look]:
    """Return each policy's look: fixed for the known labels, in capitals or not, the same in every figure and run.

    Other labels take the first free one of their kind (the label up to its parenthesis), then of a common
    list; beyond that colours are read off a colour map that darkens evenly. A ladder of more than three
    numeric thresholds darkens with the threshold.
    """
    known = {name: name.lower().replace(" ", "") for name in policies}  # "U-HLM (0.43)" is u-hlm(0.43)
    look_of = {name: _KNOWN[known[name]] for name in policies if known[name] in _KNOWN}
    ladder = {name: float(match[1]) for name in policies if (match := _RUNG.fullmatch(known[name]))}
    if len(ladder) > len(_BY_KIND["u-hlm"]):
        darker = sns.color_palette("flare", as_cmap=True)
        look_of |= {
            name: Look(mpl.colors.to_hex(darker(min(1.0, threshold))), "-") for name, threshold in ladder.items()
        }
    for name in policies:
        choices = (*_BY_KIND.get(known[name].partition("(")[0], ()), *_OTHERS)
        free = [look for look in choices if look not in look_of.values()]
        if name not in look_of and free:
            look_of[name] = free[0]
    left = [name for name in policies if name not in look_of]
    for i, name in enumerate(left):
        shade = mpl.colormaps["viridis"](0.1 + 0.8 * i / max(1, len(left) - 1))
        look_of[name] = Look(mpl.colors.to_hex(shade), (0.0, (2.0, 1.0)))
    return {name: look_of[name] for name in policies}


def policies_of(table: pd.DataFrame) -> list[str]:
    """Return the policies of a table in their order of appearance."""
    return [str(name) for name in table["policy"].unique()]


def panel_columns(panels: int) -> int:
    """Return in how many columns panels stand: at most four, and so that the last row isn't one panel alone."""
    return 3 if panels in (5, 6, 9) else min(4, max(2, panels))


def line_widths(policies: Sequence[str]) -> list[float]:
    """Return line widths that fall, from the first policy's on: it is still seen under another of the same course."""
    return [2.6, *(float(width) for width in np.linspace(1.4, 1.0, max(1, len(policies) - 1)))][: len(policies)]


def legend_below(figure: Figure, styles: Mapping[str, Look], columns: int, marked: Collection[str] = ()) -> None:
    """Put one legend for all panels under them: in one row where that fits, else in some columns.

    Names that are `marked` have a point, the others a line.
    """
    lines = [
        Line2D([], [], color=look.colour, linestyle="" if name in marked else look.line, label=name)
        for name, look in styles.items()
    ]
    for line in lines:
        if line.get_label() in marked:
            line.set(marker="o", markersize=3.6)
    if sum(len(name) + 9 for name in styles) < 18 * figure.get_figwidth():
        columns = len(lines)
    if lines:
        figure.legend(handles=lines, loc="outside lower center", ncols=columns, handlelength=2.4)


class Picture(Figure):
    """A figure that a notebook shows as it is saved, whether or not pyplot is loaded there."""

    def _repr_png_(self) -> bytes:
        png = BytesIO()
        self.savefig(png, format="png", metadata={"Software": None})
        return png.getvalue()


@contextmanager
def new_figure(width_in: float, height_in: float) -> Iterator[Figure]:
    """Give an empty figure, of no window and no global list, to be drawn in the paper's style inside the block.

    The style is the figure's own afterwards: saving it needs no settings.
    """
    with mpl.rc_context(RC):
        figure = Picture(figsize=(width_in, height_in), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        for ax in figure.axes:  # ticks are made when they are drawn, perhaps after this block
            ax.tick_params(axis="x", labelsize=RC["xtick.labelsize"], width=RC["xtick.major.width"])
            ax.tick_params(axis="y", labelsize=RC["ytick.labelsize"], width=RC["ytick.major.width"])
            ax.tick_params(axis="x", which="minor", width=RC["xtick.minor.width"])


@contextmanager
def new_panels(count: int, columns: int, row_in: float, rest_in: float, **shared: Any) -> Iterator[tuple[Figure, Any]]:
    """Give a figure as `new_figure` does, with an array of so many axes: rows of `row_in` and `rest_in` in height.

    It is as wide as a page, or as one column if the panels stand in one.
    """
    rows = max(1, -(-count // columns))
    with new_figure(PAGE_IN if columns > 1 else COLUMN_IN, rest_in + row_in * rows) as figure:
        axes = figure.subplots(rows, columns, squeeze=False, **shared).flat
        for ax in axes[count:]:
            ax.remove()
        yield figure, axes[:count]


def note_source(figure: Figure, source: str) -> None:
    """Say small above a figure where its tokens come from, if not from models: `source` is "synthetic", or nothing."""
    if source:
        figure.suptitle(f"{source} tokens", x=0.995, ha="right", fontsize=6.5, color=QUIET, style="italic")


def save(figure: Figure, folder: Path, name: str, source: str = "") -> Path:
    """Write folder/name.png and .pdf, without a date, and return the former: same figure, same bytes.

    What has a `source` is marked with it (`note_source`). A character of a label that the font lacks is drawn as a box.
    """
    note_source(figure, source)
    folder.mkdir(parents=True, exist_ok=True)
    png = folder / f"{name}.png"
    with _any_glyph():
        figure.savefig(png, metadata={"Software": None})
        figure.set_layout_engine("none")  # laid out once: the two are alike, and the second is cheaper
        figure.savefig(folder / f"{name}.pdf", metadata={"CreationDate": None})
    return png


def svg(figure: Figure) -> str:
    """Return a figure as SVG without a date, its text as text: same figure, same string."""
    written = BytesIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "uhlm-sim", "font.sans-serif": FONTS}), _any_glyph():
        figure.savefig(written, format="svg", metadata={"Date": None})
    return written.getvalue().decode("utf-8")


@contextmanager
def _any_glyph() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", category=UserWarning)
        yield
