"""Tables of text, comma-separated values or JSON lines: one strict reader, which guesses nothing."""

import csv
import hashlib
import json
import re
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Value = TypeVar("Value")
SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}  # by the unit of a column of times
JSON_LINES = (".jsonl", ".ndjson")
MOST_BYTES = 2**28
NUMBER = re.compile(r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|inf(?:inity)?|nan)", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class TextTable:
    """Rows of text, as many fields in each as there are names; `lines` has the line of each row.

    `names` is None where the first line holds numbers; `digest` is the SHA-256 of the file.
    """

    names: list[str] | None
    rows: list[list[str]]
    lines: list[int]
    digest: str

    def column(self, name: str) -> int:
        """Return the number of the column of that name. Raises ValueError unless there is just one."""
        names = self.names or []
        if names.count(name) != 1:
            how_many = "two columns" if name in names else "no column"
            raise ValueError(f"line 1: {how_many} '{name}'; there are {', '.join(names) or 'no names'}")
        return names.index(name)

    def where(self, row: int, column: int) -> str:
        """Return which field is meant, and what it holds."""
        name = f"'{self.names[column]}'" if self.names else str(column + 1)
        return f"line {self.lines[row]}, column {name} = {self.rows[row][column]!r}"

    def values(self, column: int, parse: Callable[[str], Value]) -> list[Value]:
        """Return a column, parsed. Raises ValueError, naming line and column, for a field of which `parse` does."""
        values = []
        for row, fields in enumerate(self.rows):
            try:
                values.append(parse(fields[column]))
            except ValueError as error:
                raise ValueError(f"{self.where(row, column)}: {error}") from None
        return values

    def numbers(self, column: int) -> NDArray[np.float64]:
        """Return a column as numbers. Raises ValueError, naming line and column, for a field that is none."""
        return np.array(self.values(column, number), dtype=np.float64)


def number(text: str) -> float:
    """Return a number written with a decimal point: no comma, no separator of thousands, no other digits than 0 to 9.

    Infinity and NaN can be written, too. Raises ValueError for anything else.
    """
    if not is_number(text):
        raise ValueError("must be a number with a decimal point" if text.strip(" \t") else "is blank")
    return float(text)


def is_number(text: str) -> bool:
    """Say whether a text is a number as `number` takes it."""
    return NUMBER.fullmatch(text.strip(" \t")) is not None


def read_table(path: str | Path) -> TextTable:
    """Read a table: comma-separated values, or an object a line in a file called .jsonl or .ndjson.

    The first line of comma-separated values names the columns, or all its fields are numbers. Every line has as many
    fields as the first, every object the same keys, and no line is blank. Raises ValueError, naming the line, for a
    file that isn't so.
    """
    content = read_content(path)
    is_json = Path(path).suffix.lower() in JSON_LINES
    lines, rows = [], []
    for line, row in (_json_lines if is_json else _comma_separated)(decode(content)):
        lines.append(line)
        rows.append(row)
    named = bool(rows) and (is_json or _names_columns(rows[0]))
    names = [name.strip() for name in rows[0]] if named else None
    return TextTable(names, rows[named:], lines[named:], hashlib.sha256(content).hexdigest())


def read_content(path: str | Path) -> bytes:
    """Return what a file holds. Raises ValueError for what isn't there or no regular file, which might never end."""
    file = Path(path)
    try:
        if file.exists() and file.stat().st_size > MOST_BYTES:
            raise ValueError(f"has {file.stat().st_size / 2**20:,.0f} MiB; at most {MOST_BYTES / 2**20:g} MiB are read")
        if file.exists() and not file.is_file():
            raise ValueError(f"is {'a folder' if file.is_dir() else 'a pipe or a device'}, not a file")
        return file.read_bytes()
    except OSError as error:
        raise ValueError(f"can't be read ({error})") from None


def decode(content: bytes) -> str:
    """Return UTF-8 text without its byte order mark. Raises ValueError, naming the line, for what is none."""
    if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        raise ValueError("line 1: is UTF-16; save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
        wrong_at = content.find(b"\0")
    except UnicodeDecodeError as error:
        wrong_at = error.start + (len(BOM_UTF8) if content.startswith(BOM_UTF8) else 0)  # counted without the mark
    if wrong_at >= 0:
        line = content.count(b"\n", 0, wrong_at) + 1
        raise ValueError(f"line {line}: is no UTF-8 text (byte 0x{content[wrong_at]:02x})")
    return text


def _comma_separated(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the line and the fields of each row."""
    rows = csv.reader(StringIO(text, newline=""), strict=True)
    first: list[str] = []
    try:
        for row in rows:
            line, first = rows.line_num, first or row
            if not row:
                raise ValueError(f"line {line}: is blank; a gap has to be filled or left out")
            if len(row) < len(first):
                name = str(len(row) + 1) if is_number(first[len(row)]) else f"'{first[len(row)]}'"
                raise ValueError(f"line {line}, column {name}: is missing; the line is cut off")
            if len(row) > len(first):
                raise ValueError(
                    f"line {line}: has {len(row)} fields, and line 1 has {len(first)}; a field with commas needs quotes"
                )
            yield line, row
    except csv.Error as error:
        raise ValueError(f"line {rows.line_num}: {error}") from None


def _json_lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the keys of the first object, then the line and the values of each, numbers as they are written."""
    names: list[str] = []
    for line, content in enumerate(text.removesuffix("\n").split("\n") if text else [], start=1):
        try:
            pairs = json.loads(content, object_pairs_hook=list, parse_float=str, parse_int=str, parse_constant=str)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"line {line}: is no JSON ({error})") from None
        entry: dict[str, Any] = dict(pairs) if isinstance(pairs, list) and content.lstrip().startswith("{") else {}
        if not entry or len(entry) < len(pairs):
            raise ValueError(f"line {line}: must be an object, with each key once")
        if not names:
            names = list(entry)
            yield line, names
        if entry.keys() != set(names):
            raise ValueError(f"line {line}: has the keys {', '.join(entry)}, and line 1 has {', '.join(names)}")
        yield line, ["" if entry[name] is None else str(entry[name]) for name in names]


def _names_columns(fields: list[str]) -> bool:
    """Tell a line of names from one of numbers. Raises ValueError for what is neither."""
    named = [any(letter.isalpha() for letter in field) and not is_number(field) for field in fields]
    if any(named) and all(name or not field.strip() for name, field in zip(named, fields, strict=True)):
        return True
    for name, field in zip(named, fields, strict=True):
        if name or not is_number(field):
            raise ValueError(f"line 1: must be names, or numbers with a decimal point; {field!r} is among others")
    return False
