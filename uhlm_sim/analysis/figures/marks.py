"""Marks: an artist carries its policy and the values that it shows, for a page that names and hides it.

An SVG has them as ids, in JSON; PNG and PDF don't.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from uhlm_sim.analysis.digits import in_words


class Value(NamedTuple):
    """A metric's mean and its 95 % interval, null where there is none."""

    metric: str
    mean: float
    low: float
    high: float


class Point(NamedTuple):
    """What is drawn at a place: the place in words ("" of a run that sweeps nothing), and its values."""

    at: str
    values: Sequence[Value]


def mark(artists: Iterable[Artist], policy: str, points: Sequence[Point] = ()) -> None:
    """Give artists a policy and the points that they show: a line's in the order in which it goes through them."""
    # With the digits of summary.csv: a run in memory and its folder give the same bytes.
    shown = [(at, [(v.metric, *(float(f"{x:.9g}") for x in v[1:])) for v in values]) for at, values in points]
    for artist in artists:
        artist.set_gid(json.dumps([policy, shown], ensure_ascii=False))


def points_over(rows: pd.DataFrame, x: str) -> list[Point]:
    """Return the points of rows with a metric, its estimate and its place on a swept key."""
    columns = [x, "metric", "mean", "ci95_low", "ci95_high"]
    return [Point(in_words(x, [at]), [Value(*rest)]) for at, *rest in rows[columns].itertuples(index=False, name=None)]


def mark_cell(
    ax: Axes, corner: tuple[float, float], at: Mapping[str, Any], policy: str, value: Value, **look: Any
) -> None:
    """Draw a map's cell, a square of side 1, that carries its policy, its swept values and its value.

    ``look`` is what `Rectangle` takes; alpha=0 leaves it unseen.
    """
    words = " and ".join(in_words(key, [swept]) for key, swept in at.items())
    cell = Rectangle(corner, 1, 1, linewidth=0.0, **look)
    mark([ax.add_patch(cell)], policy, [Point(words, [value])])


def is_marked(figure: Figure) -> bool:
    """Say whether some artist of a figure has a mark."""
    return bool(figure.findobj(lambda artist: artist.get_gid() is not None))
