"""The validation as a page: one HTML file that needs no network, its table and figures beside it."""

import base64
from importlib.resources import files
from pathlib import Path

import jinja2

from uhlm_sim.analysis.measures.intervals import write_table
from uhlm_sim.errors import InputError
from uhlm_sim.validation.figures import write_drawings
from uhlm_sim.validation.validate import Validation, cells
from uhlm_sim.version import VERSION


def write_page(result: Validation, folder: Path | str) -> Path:
    """Write validation.csv, figures/ and validation.html into a folder, over an earlier one's; return the page.

    Same validation, same bytes. Raises InputError if the folder can't be made.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: can't be made ({error})") from None
    write_table(result.table, folder / "validation.csv")
    figures = [
        (drawing, base64.b64encode(png.read_bytes()).decode(), float(drawing.figure.get_figwidth()))
        for drawing, png in write_drawings(result, folder / "figures")
    ]
    stations = [
        (station, [(row, cells(row)) for row in rows.to_dict("records")])
        for station, rows in result.table.groupby("station", sort=False)
    ]
    template = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        files("uhlm_sim.validation").joinpath("validation.html.j2").read_text(encoding="utf-8")
    )
    page = template.render(result=result, words=result.words(), stations=stations, figures=figures, version=VERSION)
    (folder / "validation.html").write_text(page, encoding="utf-8")
    return folder / "validation.html"
