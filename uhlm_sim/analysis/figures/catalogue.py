"""The figures of one run: which are drawn, from what, and what their captions say."""

from dataclasses import dataclass
from pathlib import Path

from uhlm_sim.analysis.figures import style
from uhlm_sim.analysis.figures.plotting import swept_threshold
from uhlm_sim.analysis.figures.point_drawings import point_drawings
from uhlm_sim.analysis.figures.sweep_drawings import frontier_drawing, sweep_drawings
from uhlm_sim.analysis.measures.intervals import write_table
from uhlm_sim.analysis.run import Run


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


def write_figures(results: Run, folder: Path | str) -> list[ReportFigure]:
    """Draw a run's figures into a folder as PNG (200 dpi), PDF and CSV; return them in the report's order.

    The CSV of a figure is the table it was drawn from. What has nothing to show isn't drawn: no queue without token
    tables, no batch where nobody asks the LLM. Over a sweep of one or two values go those figures that show it, the
    others are drawn for its middle point.
    """
    folder = Path(folder)
    written = []
    ladder, others = list(frontier_drawing(results)), [*sweep_drawings(results), *point_drawings(results)]
    for drawing in ladder + others if swept_threshold(results) else others + ladder:
        png = style.save(drawing.figure, folder, drawing.name, results.source)
        data = folder / f"{drawing.name}.csv"
        write_table(drawing.table, data, results.source)
        width_in = float(drawing.figure.get_figwidth())
        written.append(ReportFigure(drawing.name, drawing.title, drawing.caption, png, data, width_in))
    return written
