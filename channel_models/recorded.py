"""Recorded fading: the SNR that someone measured, block by block, played again."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from channel_models.fading import Gains


def trace(rng: np.random.Generator, size: int, *, path: str, device: int = 0) -> Iterator[Gains]:
    """Yield the power gains of a recording, round and round.

    gain(k) = s(k mod n) / mean(s), where s is the device's linear SNR over the n rows of the file, see
    `read_recording`. A file with one column stands for any device: each starts at a row of its own, drawn from `rng`.
    In a file with more columns column i is device i's, and all start at the first row. Autocorrelation and outage are
    the recording's own, cyclic; after n blocks it repeats itself (trace-driven simulation: Jain, The Art of Computer
    Systems Performance Analysis, 1991, chapter 24). Left out: what happens between two rows, and whatever the
    recording didn't meet. Raises ValueError for a file that is no recording, or has no column for the device.
    """
    snr = read_recording(path)
    rows, columns = snr.shape
    if columns > 1 and device >= columns:
        raise ValueError(f"{path}: has {columns} columns, none for device {device}")
    own = snr[:, device if columns > 1 else 0]
    gains = own / own.mean()
    row = int(rng.integers(rows)) if columns == 1 else 0
    while True:
        yield np.take(gains, np.arange(row, row + size), mode="wrap")
        row = (row + size) % rows


def read_recording(path: str) -> Gains:
    """Read a recording: SNR in dB, one row per block, one column per device; returned linear, with the same shape.

    A .npy array (of one or two dimensions), else comma-separated values, whose first line may name the columns. No
    signal at all is -inf. Raises ValueError, naming the file, if it can't be read, has no rows, columns of different
    lengths, something that is no number, or a column without any signal.
    """
    file = Path(path)
    try:
        seen = file.stat()
        return _read(file, seen.st_mtime_ns, seen.st_size)
    except (OSError, EOFError) as error:
        raise ValueError(f"{path}: can't be read ({error})") from None
    except ValueError as error:
        raise ValueError(f"{path}: is no recording of SNR in dB ({error})") from None


@lru_cache(maxsize=16)
def _read(file: Path, _mtime_ns: int, _size: int) -> Gains:
    if file.suffix == ".npy":
        values = np.asarray(np.load(file, allow_pickle=False), dtype=np.float64)
        snr_db = values[:, None] if values.ndim == 1 else values
    else:
        lines = file.read_text(encoding="utf-8").split("\n")
        lines = lines[1:] if _names_columns(lines[0]) else lines
        if not any(line.strip() for line in lines):
            raise ValueError("no rows")
        snr_db = np.loadtxt(lines, delimiter=",", ndmin=2)
    if snr_db.ndim != 2 or snr_db.size == 0:
        raise ValueError(f"shape {snr_db.shape}, not (blocks, devices)")
    if not (snr_db <= 300.0).all():
        raise ValueError("a value is not a number, or above 300 dB")
    snr = np.power(10.0, snr_db / 10.0)
    if not snr.any(axis=0).all():
        raise ValueError("a column has no signal at all")
    snr.flags.writeable = False
    return snr


def _names_columns(line: str) -> bool:
    try:
        [float(field) for field in line.split(",")]
    except ValueError:
        return True
    return False
