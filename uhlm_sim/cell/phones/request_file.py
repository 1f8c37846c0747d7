"""A recorded trace of requests: who asked when, with how many tokens, read from CSV."""

import csv
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from io import StringIO
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uhlm_sim.errors import ScenarioError

# How public serving traces and load generators call the columns; case, blanks and punctuation don't count.
SPELLINGS = {
    "arrival": ("arrived_s", "arrival_s", "arrival_time", "arrival", "arrived_at", "timestamp", "time"),
    "prompt tokens": (
        *("prompt_tokens", "context_tokens", "request_tokens", "input_tokens", "num_prefill_tokens"),
        *("input_length", "prompt_len", "prompt_length"),
    ),
    "output tokens": (
        *("output_tokens", "generated_tokens", "response_tokens", "completion_tokens", "num_decode_tokens"),
        *("output_length", "output_len"),
    ),
    "device": ("device", "device_id", "user", "user_id", "client_id", "session_id"),
}
OPTIONAL = "device"
MOST_TOKENS = 10_000_000


@dataclass(frozen=True)
class Requests:
    """Requests in order of arrival, one value each: seconds of the run, tokens, and the device's number.

    `device` counts the names of the file's own column in order of appearance; without such a column it is None.
    """

    arrived_s: NDArray[np.float64]
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    device: NDArray[np.int64] | None
    digest: str

    def __len__(self) -> int:
        return len(self.arrived_s)

    def of_device(self, device: int, devices: int) -> "Requests":
        """Return one device's rows: its own by the file's column, else each `devices`-th, from row `device` on."""
        mine = np.arange(len(self)) % devices == device if self.device is None else self.device == device
        columns = (self.arrived_s[mine], self.prompt_tokens[mine], self.output_tokens[mine])
        return Requests(*columns, device=None, digest=self.digest)


def read_requests(path: str) -> Requests:
    """Read a request file: CSV whose first line names the columns, see `SPELLINGS`; others are ignored.

    Arrivals are seconds of the run, or dates with times, which count from the first one. Rows needn't be in order;
    those of one time keep theirs. Read once per process and version of the file. Raises ScenarioError that names file,
    line and column for what is missing, cut off, no number, or out of range.
    """
    file = Path(path)
    try:
        seen = file.stat()
        return _read(file, seen.st_mtime_ns, seen.st_size)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ScenarioError(f"traffic.file = '{path}': can't be read ({error})") from None


@lru_cache(maxsize=4)
def _read(file: Path, _mtime_ns: int, _size: int) -> Requests:
    content = file.read_bytes()
    lines = csv.reader(StringIO(content.decode("utf-8-sig")))
    header = next(lines, [])
    place = _columns(file, header)
    columns: dict[str, list[Any]] = {role: [] for role in place}
    parse: dict[str, Callable[[str], Any]] = {"prompt tokens": _count, "output tokens": _count, "device": str.strip}
    for row in lines:
        if not row:
            continue
        if "arrival" not in parse:
            parse["arrival"] = _time_of(row[place["arrival"]]) if place["arrival"] < len(row) else _seconds
        for role, column in place.items():
            where = f"{file}: line {lines.line_num}, column '{header[column]}'"
            if len(row) < len(header):
                where = f"{file}: line {lines.line_num}, column '{header[min(len(row), len(header) - 1)]}'"
                raise ScenarioError(f"{where}: is missing; the line is cut off")
            try:
                columns[role].append(parse[role](row[column]))
            except ValueError as error:
                raise ScenarioError(f"{where} = {row[column]!r}: {error}") from None
    if not columns["arrival"]:
        raise ScenarioError(f"{file}: has no requests, only a header")
    arrived = columns["arrival"]
    if isinstance(arrived[0], datetime):
        first = min(arrived)
        arrived = [(each - first).total_seconds() for each in arrived]
    order = np.argsort(np.array(arrived), kind="stable")
    names = [columns[OPTIONAL][row] for row in order] if OPTIONAL in columns else None
    numbers = None if names is None else {name: number for number, name in enumerate(dict.fromkeys(names))}
    return Requests(
        np.array(arrived, dtype=np.float64)[order],
        np.array(columns["prompt tokens"], dtype=np.int64)[order],
        np.array(columns["output tokens"], dtype=np.int64)[order],
        None if names is None or numbers is None else np.array([numbers[name] for name in names]),
        hashlib.sha256(content).hexdigest(),
    )


def _columns(file: Path, header: list[str]) -> dict[str, int]:
    """Return where each column is. Raises ScenarioError for one that is missing or there twice."""
    found: dict[str, int] = {}
    for role, spellings in SPELLINGS.items():
        wanted = {_plain(name) for name in spellings}
        here = [column for column, name in enumerate(header) if _plain(name) in wanted]
        if len(here) > 1:
            both = " and ".join(f"'{header[column]}'" for column in here)
            raise ScenarioError(f"{file}: line 1: {both} are both the {role}: leave one out")
        if here:
            found[role] = here[0]
        elif role != OPTIONAL:
            raise ScenarioError(
                f"{file}: line 1: no column of the {role}, which may be called {', '.join(spellings)}; there are "
                f"{', '.join(header) or 'none'}"
            )
    return found


def _plain(name: str) -> str:
    return "".join(each for each in name.lower() if each.isalnum())


def _time_of(text: str) -> Callable[[str], Any]:
    """Return how the arrivals of a file are written, from the first one."""
    try:
        float(text)
    except ValueError:
        return _moment
    return _seconds


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise ValueError("must be a number of seconds, or a date and time in every line") from None
    if not (isfinite(seconds) and seconds >= 0.0):
        raise ValueError("must be finite and at least 0 s")
    return seconds


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError("must be a number of seconds, or a date and time as 2026-01-31 12:00:00.5") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _count(text: str) -> int:
    try:
        count = float(text)
    except ValueError:
        raise ValueError("must be a whole number of tokens") from None
    if not (count.is_integer() and 1 <= count <= MOST_TOKENS):
        raise ValueError(f"must be a whole number from 1 to {MOST_TOKENS:,}; leave requests that failed out")
    return int(count)
