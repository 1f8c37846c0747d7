"""The papers behind what a scenario names, read from the docstrings of its functions, as text and as BibTeX."""

import inspect
import re
from collections.abc import Iterable
from typing import NamedTuple

from uhlm_sim.seams import Named

SURNAME = r"[A-Z][\w'’]+(?:-[A-Z]\w+)*"
# "Williams, Waterman and Patterson, Roofline, CACM 2009", "Kleinrock, Queueing Systems, volume 1, 1975"
CITED = re.compile(
    rf"(?P<authors>(?:{SURNAME}, )*{SURNAME} and {SURNAME}|{SURNAME}), "
    r"(?P<title>[A-Z][^();,]+(?:, (?:a|an|the) [^();,]+)?), ?"
    r"(?P<venue>[^();]*?),? ?(?P<year>(?:19|20)\d\d)\b"
)


class Citation(NamedTuple):
    """A paper or book, and which of a scenario's names rest on it."""

    authors: str
    title: str
    venue: str
    year: str
    used_for: tuple[str, ...]

    @property
    def text(self) -> str:
        """Return it as a line: "Williams, Waterman and Patterson, Roofline, CACM, 2009"."""
        return ", ".join(part for part in (self.authors, self.title, self.venue, self.year) if part)

    @property
    def bibtex(self) -> str:
        """Return an entry with the fields that a docstring gives: surnames, title, where, year."""
        first = re.split(r", | and ", self.authors)[0].lower()
        word = re.sub(r"\W", "", self.title.split()[0]).lower()
        fields = {"author": re.sub(r", ", " and ", self.authors), "title": f"{{{self.title}}}"}
        fields |= {"howpublished": self.venue} if self.venue else {}
        lines = [f"  {name} = {{{value}}}," for name, value in {**fields, "year": self.year}.items()]
        return "\n".join([f"@misc{{{first}{self.year}{word},", *lines, "}"])


def citations(functions: Iterable[Named]) -> list[Citation]:
    """Return what the docstrings of functions cite, by the first author; each with the names that rest on it."""
    used: dict[tuple[str, str, str, str], list[str]] = {}
    for named in functions:
        text = " ".join((inspect.getdoc(named.function) or "").split())
        for match in CITED.finditer(text):
            authors, title, venue, year = match.groups()
            names = used.setdefault((authors, title, venue, year), [])
            if named.name not in names:
                names.append(named.name)
    return sorted(Citation(*paper, tuple(names)) for paper, names in used.items())
