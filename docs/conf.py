"""How Sphinx makes a site of these pages: `python -m sphinx -W --keep-going -b html docs results/site`."""

import re
from pathlib import Path

from sphinx.application import Sphinx

from uhlm_sim import __version__

project = "uhlm_sim"
version = release = __version__
extensions = ["myst_parser"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # a reference page of one list has no heading between its title and the entries
html_theme = "furo"
html_title = f"uhlm_sim {version}"
html_copy_source = False


def from_above(_app: Sphinx, _path: Path, _parent: str, text: list[str]) -> None:
    """Turn links of the README, which the first page includes, into links from this folder."""
    text[0] = re.sub(r"\]\((?!https?:|#)", "](../", text[0]).replace("](../CHANGELOG.md)", "](changes.md)")


def setup(app: Sphinx) -> None:
    """Connect what changes texts as they are read."""
    app.connect("include-read", from_above)
