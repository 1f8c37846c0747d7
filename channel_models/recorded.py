"""Recorded fading: the SNR or the rate that someone measured, played again block by block."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import numpy as np

from channel_models.fading import Gains
from channel_models.link import RateLaw
from channel_models.text_table import SECONDS, TextTable, read_content, read_table

UNITS = ("dB", "linear", "mbit/s")
MOST_BLOCKS = 10_000_000


@dataclass(frozen=True)
class RecordingFormat:
    """How a recording is written.

    A value is scale x + offset: SNR in `unit` dB (-inf: no signal) or linear, or the rate of the whole band in mbit/s,
    which becomes the SNR that gives this rate by `rate_law`. `column` names the column of a table that is meant, else
    all are. Rows of a `time_column`, in `time_unit` s, ms or us, hold until the next row's time, the last one as long
    as the one before, and are looked at every `block_s` [s].
    """

    column: str = ""
    time_column: str = ""
    time_unit: str = "s"
    unit: str = "dB"
    scale: float = 1.0
    offset: float = 0.0
    block_s: float | None = None
    rate_law: RateLaw | None = None


AS_DECIBELS = RecordingFormat()


def trace(
    rng: np.random.Generator,
    size: int,
    *,
    path: str,
    column: str = "",
    time_column: str = "",
    time_unit: str = "s",
    unit: str = "dB",
    scale: float = 1.0,
    offset: float = 0.0,
    device: int = 0,
    devices: int | None = None,
    block_s: float | None = None,
    rate_law: RateLaw | None = None,
) -> Iterator[Gains]:
    """Yield the power gains of a recording, round and round.

    gain(k) = s(k mod n) / mean(s), where s is the device's linear SNR over the n blocks of the recording, see
    `RecordingFormat`. One column stands for any device: each starts at a block of its own, drawn from `rng`. Of more
    columns, one for each of the `devices`, column i is device i's, and all start at the first block. Autocorrelation
    and outage are the recording's own, cyclic; after n blocks it repeats itself (trace-driven simulation: Jain, The Art
    of Computer Systems Performance Analysis, 1991, chapter 24). Left out: what happens between two rows, and whatever
    the recording didn't meet. Raises ValueError for a file that is no recording, or has another number of columns.
    """
    how = RecordingFormat(column, time_column, time_unit, unit, scale, offset, block_s, rate_law)
    snr = read_recording(path, how)
    rows, columns = snr.shape
    if columns > 1 and device >= columns:
        raise ValueError(f"{path}: has {columns} columns, none for device {device}")
    if columns > 1 and devices is not None and columns > devices:
        raise ValueError(f"{path}: has {columns} columns for {devices} devices; column = '...' names one for all")
    of_device = snr[:, device if columns > 1 else 0]
    gains = of_device / of_device.mean()
    row = int(rng.integers(rows)) if columns == 1 else 0
    while True:
        yield np.take(gains, np.arange(row, row + size), mode="wrap")
        row = (row + size) % rows


def read_recording(path: str, how: RecordingFormat = AS_DECIBELS) -> Gains:
    """Read a recording: one row per block, one column per device; returned as linear SNR (block, column).

    A .npy array (of one or two dimensions), or a table, see `read_table`, in a `RecordingFormat`. Raises ValueError,
    naming file and line, for what can't be read, a gap, something that is no number, times that don't rise, or a column
    without any signal.
    """
    try:
        if how.unit not in UNITS or how.time_unit not in SECONDS or how.scale == 0.0:
            allowed = f"unit {', '.join(UNITS)}; time_unit {', '.join(SECONDS)}; scale any but 0"
            raise ValueError(
                f"unit = '{how.unit}', time_unit = '{how.time_unit}', scale = {how.scale}: allowed are {allowed}"
            )
        file = Path(path)
        seen = file.stat()
        return _read(file, seen.st_mtime_ns, seen.st_size, how)
    except OSError as error:
        raise ValueError(f"{path}: can't be read ({error})") from None
    except (ValueError, EOFError, MemoryError) as error:
        raise ValueError(f"{path}: is no recording in {how.unit} ({error})") from None


@lru_cache(maxsize=16)
def _read(file: Path, _mtime_ns: int, _size: int, how: RecordingFormat) -> Gains:
    if file.suffix == ".npy":
        if how.column or how.time_column:
            raise ValueError("an array has no names of columns")
        measured = _array(file)
    else:
        table = read_table(file)
        measured = np.stack([table.numbers(index) for index in _columns(table, how)], axis=1)
        if len(measured) and how.time_column:
            times_s = table.numbers(table.column(how.time_column)) * SECONDS[how.time_unit]
            measured = measured[_held(times_s, table, how.block_s)]
    if measured.ndim != 2 or measured.size == 0:
        raise ValueError("no rows" if measured.size == 0 else f"shape {measured.shape}, not (blocks, devices)")
    with np.errstate(over="ignore"):  # what is out of range is refused below
        values = how.scale * measured + how.offset
    if how.unit == "dB":
        if not ((np.abs(values) <= 300.0) | np.isneginf(values)).all():
            raise ValueError("a value is not a number, or above 300 dB, or below -300 dB and not -inf")
        snr = np.power(10.0, values / 10.0)
    elif not ((values >= 0.0) & (values <= 1e30)).all():
        raise ValueError("a value is not a number, below 0, or beyond 1e30")
    elif how.unit == "linear":
        snr = values
    elif how.rate_law is None:
        raise ValueError("a rate needs the law between SNR and rate")
    else:
        snr = how.rate_law.snr(values * 1e6)
    if not snr.any(axis=0).all():
        raise ValueError("a column has no signal at all")
    snr.flags.writeable = False
    return snr


def _array(file: Path) -> Gains:
    values = np.load(BytesIO(read_content(file)), allow_pickle=False)
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu":
        raise ValueError("is no array of numbers")
    measured = values.astype(np.float64)
    return measured[:, None] if measured.ndim == 1 else measured


def _columns(table: TextTable, how: RecordingFormat) -> list[int]:
    """Return which columns were measured: the one that is named, else all but the times."""
    if how.column:
        return [table.column(how.column)]
    names = table.names or [str(index) for index, _ in enumerate(table.rows[0] if table.rows else [""])]
    timed = table.column(how.time_column) if how.time_column else None
    measured = [index for index, _ in enumerate(names) if index != timed]
    for index in measured if len(names) > 1 else []:
        if not names[index] or names[index].lower().startswith(("time", "date")):
            raise ValueError(f"line 1: column '{names[index]}' is no device's; name the others by column, time_column")
    if not measured:
        raise ValueError("there is nothing but times")
    return measured


def _held(times_s: Gains, table: TextTable, block_s: float | None) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the row that holds at the beginning of each block."""
    steps_s = np.diff(times_s)
    if block_s is None or not np.isfinite(times_s).all():
        raise ValueError("times must be finite, and a block must have a length")
    if not (steps_s > 0.0).all():
        raise ValueError(f"line {table.lines[int(np.argmin(steps_s > 0.0)) + 1]}: times must rise from row to row")
    lasts_s = times_s[-1] - times_s[0] + (steps_s[-1] if len(steps_s) else block_s)
    if lasts_s / block_s > MOST_BLOCKS:
        raise ValueError(f"lasts {lasts_s:g} s, more than {MOST_BLOCKS:,} blocks of {block_s:g} s")
    slack_s = 1e-6 * block_s + 2.0 * np.spacing(np.abs(times_s).max())  # times are rounded
    edges_s = np.arange(max(1, int(np.ceil((lasts_s - slack_s) / block_s)))) * block_s
    return np.asarray(np.searchsorted(times_s - times_s[0], edges_s + slack_s, side="right") - 1)
