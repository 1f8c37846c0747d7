"""The figures of a run: one line each, from which follow the report, `results.plot` and the reference."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial, wraps
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from uhlm_sim.analysis.figures import (
    attainment_map,
    batches,
    batches_over,
    bottleneck,
    energy,
    frontier,
    latency,
    legs,
    legs_over,
    over,
    queue_lengths,
    queues,
    ratio_map,
    style,
    sweep,
    throughput,
    token_time,
    ttft,
    winner_map,
)
from uhlm_sim.analysis.figures.axes import swept_keys
from uhlm_sim.analysis.figures.marks import is_marked
from uhlm_sim.analysis.figures.wording import ASKED, MAP, MIDDLE, OVER, PART, POINT, Drawing, View, views
from uhlm_sim.analysis.measures.intervals import write_table
from uhlm_sim.analysis.run import Run
from uhlm_sim.errors import InputError, did_you_mean


class RunFigure(NamedTuple):
    """A figure: `drawing` draws a view, for the report those of its `kinds`, over so many `swept` values.

    It takes axes of a user's, and choices of its own. InputError says why there is nothing to draw.
    """

    drawing: Callable[..., Drawing]
    kinds: tuple[str, ...]
    swept: int = 0


FIGURES = {  # in the report's order
    "over": RunFigure(over.drawing, (), swept=1),
    "sweep": RunFigure(sweep.drawing, (OVER, PART), swept=1),
    "latency": RunFigure(latency.drawing, (OVER, PART), swept=1),
    "batches_over": RunFigure(batches_over.drawing, (OVER,), swept=1),
    "bottleneck": RunFigure(bottleneck.drawing, (OVER,), swept=1),
    "legs_over": RunFigure(legs_over.drawing, (OVER,), swept=1),
    "winner_map": RunFigure(winner_map.drawing, (MAP,), swept=2),
    "ratio_map": RunFigure(ratio_map.drawing, (MAP,), swept=2),
    "attainment_map": RunFigure(attainment_map.drawing, (MAP,), swept=2),
    "throughput": RunFigure(throughput.drawing, (POINT,)),
    "legs": RunFigure(legs.drawing, (POINT,)),
    "energy": RunFigure(energy.drawing, (POINT, MIDDLE)),
    "token_time": RunFigure(token_time.drawing, (POINT, MIDDLE)),
    "ttft": RunFigure(ttft.drawing, (POINT, MIDDLE)),
    "queues": RunFigure(queues.drawing, (POINT, MIDDLE)),
    "queue_lengths": RunFigure(queue_lengths.drawing, (POINT, MIDDLE)),
    "batches": RunFigure(batches.drawing, (POINT,)),
    "frontier": RunFigure(frontier.drawing, (POINT, MIDDLE)),
}


@dataclass(frozen=True)
class Plots:
    """Draws what the report draws: a method for each of `catalogue.FIGURES`. With `ax` it draws there and returns it,
    without legend or title: artists have labels, so that `ax.legend()` makes one. Without, it returns a Figure, which a
    notebook shows.

    Of a sweep, what isn't drawn over it is drawn for its middle point; `Results.at` chooses others. InputError where
    there is nothing to draw.
    """

    run: Run

    @property
    def looks(self) -> dict[str, style.Look]:
        """Return each policy's colour and line, the same in all figures of the run."""
        return style.looks(self.run.policies)

    def __getattr__(self, name: str) -> Callable[..., Axes | Figure]:
        if name not in FIGURES:
            raise AttributeError(f"no figure '{name}'{did_you_mean(name, FIGURES)}")
        drawing, _, swept = FIGURES[name]

        @wraps(drawing)
        def noted(*args: Any, **kwargs: Any) -> Axes | Figure:
            keys = tuple(swept_keys(self.run, swept)) if swept else ()
            view = View(ASKED, self.run if swept else self.run.middle_point(), self.run, keys, "")
            drawn: Axes | Figure = drawing(view, *args, **kwargs).figure
            if isinstance(drawn, Figure):  # axes are the caller's own
                style.note_source(drawn, self.run.source)
            return drawn

        noted.__signature__ = signature(partial(drawing, None))  # type: ignore[attr-defined]
        return noted

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *FIGURES]


@dataclass(frozen=True)
class ReportFigure:
    """A drawn figure: where its PNG lies (its PDF beside it) and its data, its title, what is seen and how counted.

    The first of a report has its `svg` too, if its artists are marked (`marks.mark`).
    """

    name: str
    title: str
    caption: str
    png: Path
    data: Path
    width_in: float
    svg: str = ""

    @property
    def narrow(self) -> bool:
        """Whether two of them fit side by side."""
        return self.width_in <= style.COLUMN_IN


def drawings(run: Run) -> list[Drawing]:
    """Draw all figures that show something of a run, in the report's order: first what its sweep is about."""
    drawn = []
    for view in views(run):
        for figure in FIGURES.values():
            if view.kind in figure.kinds:
                with suppress(InputError):  # nothing to draw
                    drawing = figure.drawing(view)
                    if view.kind == PART:
                        name, title = f"{drawing.name}_{view.number}", f"{drawing.title}, {view.word}"
                        drawing = replace(drawing, name=name, title=title)
                    drawn.append(drawing)
    winners = next((drawing.table["best"].nunique() for drawing in drawn if drawing.name == "winner_map"), 0)
    first = "ratio_map" if winners == 1 else ""  # a map of one colour shows little
    if frontier.swept_threshold(run):
        first = "frontier"
    return sorted(drawn, key=lambda drawing: drawing.name != first)


def write_figures(run: Run, folder: Path | str) -> list[ReportFigure]:
    """Draw a run's figures into a folder as PNG (200 dpi), PDF and CSV; return them in the report's order.

    The CSV of a figure is the table it was drawn from. What has nothing to show isn't drawn: no queue without token
    tables, no batch where nobody asks the LLM. Over a sweep of one or two values go those figures that show it, the
    others are drawn for its middle point.
    """
    folder = Path(folder)
    written: list[ReportFigure] = []
    for drawing in drawings(run):
        png = style.save(drawing.figure, folder, drawing.name, run.source)
        data = folder / f"{drawing.name}.csv"
        write_table(drawing.table, data, run.source)
        width_in = float(drawing.figure.get_figwidth())
        svg = style.svg(drawing.figure) if not written and is_marked(drawing.figure) else ""
        written.append(ReportFigure(drawing.name, drawing.title, drawing.caption, png, data, width_in, svg))
    return written
