"""The figures of a run: one line each, from which follow the report, `results.plot` and the reference."""

from collections.abc import Callable
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
    queues,
    ratio_map,
    style,
    sweep,
    throughput,
    token_time,
    ttft,
)
from uhlm_sim.analysis.figures.captions import MAP, MIDDLE, OVER, PART, POINT, Drawing, View, views
from uhlm_sim.analysis.measures.intervals import write_table
from uhlm_sim.analysis.run import Run
from uhlm_sim.errors import did_you_mean


class RunFigure(NamedTuple):
    """A figure: `plot` draws a run on axes or as a figure, `drawing` a view of those `kinds` for the report."""

    plot: Callable[..., Axes | Figure]
    drawing: Callable[[View], Drawing | None] | None = None
    kinds: tuple[str, ...] = ()


FIGURES = {  # in the report's order
    "over": RunFigure(over.plot),
    "sweep": RunFigure(sweep.plot, sweep.drawing, (OVER, PART)),
    "latency": RunFigure(latency.plot, latency.drawing, (OVER, PART)),
    "batches_over": RunFigure(batches_over.plot, batches_over.drawing, (OVER,)),
    "bottleneck": RunFigure(bottleneck.plot, bottleneck.drawing, (OVER,)),
    "legs_over": RunFigure(legs_over.plot, legs_over.drawing, (OVER,)),
    "ratio_map": RunFigure(ratio_map.plot, ratio_map.drawing, (MAP,)),
    "attainment_map": RunFigure(attainment_map.plot, attainment_map.drawing, (MAP,)),
    "throughput": RunFigure(throughput.plot, throughput.drawing, (POINT,)),
    "legs": RunFigure(legs.plot, legs.drawing, (POINT,)),
    "energy": RunFigure(energy.plot, energy.drawing, (POINT, MIDDLE)),
    "token_time": RunFigure(token_time.plot, token_time.drawing, (POINT, MIDDLE)),
    "ttft": RunFigure(ttft.plot, ttft.drawing, (POINT, MIDDLE)),
    "queues": RunFigure(queues.plot, queues.drawing, (POINT, MIDDLE)),
    "batches": RunFigure(batches.plot, batches.drawing, (POINT,)),
    "frontier": RunFigure(frontier.plot, frontier.drawing, (POINT, MIDDLE)),
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
        plot = FIGURES[name].plot

        @wraps(plot)
        def noted(*args: Any, **kwargs: Any) -> Axes | Figure:
            drawn = plot(self.run, *args, **kwargs)
            if isinstance(drawn, Figure):  # axes are the caller's own
                style.note_source(drawn, self.run.source)
            return drawn

        noted.__signature__ = signature(partial(plot, self.run))  # type: ignore[attr-defined]
        return noted

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *FIGURES]


@dataclass(frozen=True)
class ReportFigure:
    """A drawn figure: where its PNG lies (its PDF beside it) and its data, its title, what is seen and how counted."""

    name: str
    title: str
    caption: str
    png: Path
    data: Path
    width_in: float

    @property
    def narrow(self) -> bool:
        """Whether two of them fit side by side."""
        return self.width_in <= style.COLUMN_IN


def drawings(run: Run) -> list[Drawing]:
    """Draw all figures that show something of a run, in the report's order: first what its sweep is about."""
    drawn = []
    for view in views(run):
        for figure in FIGURES.values():
            drawing = figure.drawing(view) if figure.drawing and view.kind in figure.kinds else None
            if drawing is not None and view.kind == PART:
                drawing = replace(drawing, name=f"{drawing.name}_{view.number}", title=f"{drawing.title}, {view.word}")
            drawn += [drawing] if drawing is not None else []
    return sorted(drawn, key=lambda drawing: drawing.name != "frontier") if frontier.swept_threshold(run) else drawn


def write_figures(run: Run, folder: Path | str) -> list[ReportFigure]:
    """Draw a run's figures into a folder as PNG (200 dpi), PDF and CSV; return them in the report's order.

    The CSV of a figure is the table it was drawn from. What has nothing to show isn't drawn: no queue without token
    tables, no batch where nobody asks the LLM. Over a sweep of one or two values go those figures that show it, the
    others are drawn for its middle point.
    """
    folder = Path(folder)
    written = []
    for drawing in drawings(run):
        png = style.save(drawing.figure, folder, drawing.name, run.source)
        data = folder / f"{drawing.name}.csv"
        write_table(drawing.table, data, run.source)
        width_in = float(drawing.figure.get_figwidth())
        written.append(ReportFigure(drawing.name, drawing.title, drawing.caption, png, data, width_in))
    return written
