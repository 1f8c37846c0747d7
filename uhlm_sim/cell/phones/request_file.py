"""A recorded trace of requests: who asked when, with how many tokens, read from a table."""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, lru_cache, partial
from math import isfinite, nan
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from channel_models.text_table import SECONDS, TextTable, is_number, number, read_table
from uhlm_sim.errors import ScenarioError
from uhlm_sim.settings.traffic import Traffic

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
MOST_REQUESTS = 1_000_000
MOONCAKE = ["timestamp", "input_length", "output_length", "hash_ids"]  # its timestamps are milliseconds
MOST_TOKENS, MOST_DEVICES = 10_000_000, 100_000


@dataclass(frozen=True)
class Requests:
    """Requests in order of arrival, one value each: seconds of the run, tokens, and the device's number.

    Without a column of devices, or where all its fields are blank, `device` is None. `words` say how it was read.
    """

    arrived_s: NDArray[np.float64]
    prompt_tokens: NDArray[np.int64]
    output_tokens: NDArray[np.int64]
    device: NDArray[np.int64] | None
    digest: str
    words: str = ""

    def __len__(self) -> int:
        return len(self.arrived_s)

    def of_device(self, device: int, devices: int) -> "Requests":
        """Return one device's rows: its own by the file's column, else each `devices`-th, from row `device` on."""
        mine: Any = slice(device, None, devices)
        if self.device is not None:
            order, numbers = self._by_device
            mine = order[slice(*np.searchsorted(numbers, [device, device + 1]))]
        columns = (self.arrived_s[mine], self.prompt_tokens[mine], self.output_tokens[mine])
        return Requests(*columns, device=None, digest=self.digest)

    @cached_property
    def _by_device(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the rows device by device, and the device of each: found once, however many devices ask."""
        assert self.device is not None
        order = np.argsort(self.device, kind="stable")
        return order, self.device[order]


def rows_of(traffic: Traffic) -> Requests:
    """Return the rows of the request file that traffic names."""
    return read_requests(str(traffic.file), traffic.time_unit, skip_empty=traffic.skip_empty)


def read_requests(path: str, time_unit: str | None = None, *, skip_empty: bool = False) -> Requests:
    """Read a request file: a table whose columns are called as in `SPELLINGS`; others are ignored.

    Arrivals are numbers of seconds of the run (ms, us by `time_unit`; ms if the columns are Mooncake's), or dates with
    times, which count from the first one. Rows needn't be in order; those of one time keep theirs. Numbers in the
    column of devices are those devices, names count in order of appearance. Rows without prompt or output tokens are
    left out with `skip_empty`. Read once per process and version of the file. Raises ScenarioError that names file,
    line and column for what is missing, blank, cut off, shifted, no number, or out of range.
    """
    file = Path(path)
    try:
        seen = file.stat()
        return _read(file, seen.st_mtime_ns, seen.st_size, time_unit, skip_empty=skip_empty)
    except OSError as error:
        raise ScenarioError(f"traffic.file = '{path}': can't be read ({error})") from None
    except ValueError as error:
        raise ScenarioError(f"{path}: {error}") from None


@lru_cache(maxsize=4)
def _read(file: Path, _mtime_ns: int, _size: int, time_unit: str | None, *, skip_empty: bool) -> Requests:
    table = read_table(file)
    place = _columns(table.names or [])
    if not table.rows:
        raise ValueError("has no requests, only a header")
    if len(table.rows) > MOST_REQUESTS:
        raise ValueError(f"has {len(table.rows):,} requests; at most {MOST_REQUESTS:,}")
    count = partial(_count, least=0 if skip_empty else 1)
    prompts, outputs = (table.values(place[role], count) for role in ("prompt tokens", "output tokens"))
    kept = [row for row, counts in enumerate(zip(prompts, outputs, strict=True)) if all(counts)]
    if not kept:
        raise ValueError("has no requests with tokens")
    arrived_s, words = _arrivals(table, place["arrival"], time_unit)
    order = np.array(kept)[np.argsort(np.array(arrived_s)[kept], kind="stable")]
    device, whose = _devices(table, place.get(OPTIONAL), order)
    if len(kept) < len(prompts):
        words += f", {len(prompts) - len(kept):,} rows without prompt or output tokens left out"
    return Requests(
        np.array(arrived_s, dtype=np.float64)[order],
        np.array(prompts, dtype=np.int64)[order],
        np.array(outputs, dtype=np.int64)[order],
        device,
        table.digest,
        f"{words}, given to phones {whose}",
    )


def _columns(header: list[str]) -> dict[str, int]:
    """Return where each column is. Raises ValueError for one that is missing or there twice."""
    place: dict[str, int] = {}
    for role, spellings in SPELLINGS.items():
        plain = {_plain(name) for name in spellings}
        here = [column for column, name in enumerate(header) if _plain(name) in plain]
        if len(here) > 1:
            both = " and ".join(f"'{header[column]}'" for column in here)
            raise ValueError(f"line 1: {both} are both the {role}: leave one out")
        if here:
            place[role] = here[0]
        elif role != OPTIONAL:
            raise ValueError(
                f"line 1: no column of the {role}, which may be called {', '.join(spellings)}; there are "
                f"{', '.join(header) or 'none'}"
            )
    return place


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _arrivals(table: TextTable, column: int, time_unit: str | None) -> tuple[list[float], str]:
    """Return the seconds at which requests arrive, and in words how they are written."""
    if not is_number(table.rows[0][column]):
        moments = table.values(column, _moment)
        if time_unit is not None:
            raise ValueError(f"time_unit = '{time_unit}' is of numbers; arrivals are dates and times")
        if len({moment.tzinfo is None for moment in moments}) > 1:
            raise ValueError("some arrivals have a time zone, and others have none")
        moments = [moment if moment.tzinfo else moment.replace(tzinfo=UTC) for moment in moments]
        first = min(moments)
        return [(moment - first).total_seconds() for moment in moments], "times counted from the first one"
    is_mooncake = {_plain(name) for name in table.names or []} == {_plain(name) for name in MOONCAKE}
    unit = time_unit or ("ms" if is_mooncake else "s")
    return [SECONDS[unit] * time for time in table.values(column, _time)], f"times in {unit}"


def _devices(table: TextTable, column: int | None, order: NDArray[np.int64]) -> tuple[NDArray[np.int64] | None, str]:
    """Return the device of each row in an order, and in words whose they are.

    Raises ValueError for a column that is blank in some rows, or has numbers in some and names in others.
    """
    fields = [] if column is None else [table.rows[row][column].strip() for row in order]
    if column is None or not any(fields):
        return None, "in turn"
    are_numbers = is_number(fields[0])
    of_row = []
    for row, field in zip(order, fields, strict=True):
        try:
            if not field:
                raise ValueError("is blank, and others aren't; fill it, or leave the row or the column out")
            if is_number(field) != are_numbers:
                raise ValueError("must be a number as the others, or all must be names")
            of_row.append(_whole(field, 0, MOST_DEVICES - 1) if are_numbers else 0)
        except ValueError as error:
            raise ValueError(f"{table.where(row, column)}: {error}") from None
    if are_numbers:
        return np.array(of_row), "by the numbers in the file"
    numbers = {name: device for device, name in enumerate(dict.fromkeys(fields))}
    return np.array([numbers[name] for name in fields]), "by the names in the file, in order of appearance"


def _time(text: str) -> float:
    if not is_number(text):
        raise ValueError("must be a number of seconds, or a date and time in every line")
    time = number(text)
    if not (isfinite(time) and time >= 0.0):
        raise ValueError("must be finite and at least 0 s")
    return time


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError("must be a number of seconds, or a date and time as 2026-01-31 12:00:00.5") from None


def _count(text: str, least: int) -> int:
    try:
        return _whole(text, least, MOST_TOKENS)
    except ValueError as error:
        raise ValueError(f"{error}; leave requests that failed out, or say skip_empty = true") from None


def _whole(text: str, least: int, most: int) -> int:
    value = number(text) if is_number(text) or not text.strip() else nan
    if not (value.is_integer() and least <= value <= most):
        raise ValueError(f"must be a whole number from {least} to {most:,}")
    return int(value)
