"""Finished batches of a recording that isn't done: one file each, written whole or not at all."""

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from uhlm_sim.errors import InputError
from uhlm_sim.tokens.trace_file import SCHEMA_VERSION, Columns


def check_writable(out: Path) -> None:
    """Raise InputError unless a file can be made where `out` is to be, in folders that need not be there yet."""
    try:
        is_folder = out.is_dir()
        folder = next(parent for parent in out.absolute().parents if parent.exists())
        with tempfile.TemporaryFile(dir=folder):
            os.lstat(out)
    except FileNotFoundError:
        return
    except (OSError, ValueError) as problem:
        raise InputError(f"{out}: can't be written ({problem})") from None
    if is_folder:
        raise InputError(f"{out}: is a folder; name a file")


class PartStore:
    """A folder of batches. A file's name is a digest of the columns' version, of the recording's settings and of what
    the batch decodes.

    So a recording finds its own batches again and never takes one that was made otherwise; a damaged file
    counts as absent.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        self._folder, self._identity = folder, identity

    def load(self, *what: Any) -> Columns | None:
        """Return a finished batch, or None if there is none."""
        return self._read(self._file(what))

    def load_all(self) -> Iterator[Columns]:
        """Yield every whole batch in the folder, which is of this recording alone, in the order of their names."""
        for file in sorted(self._folder.glob("*.npz")):
            columns = self._read(file)
            if columns is not None:
                yield columns

    @staticmethod
    def _read(path: Path) -> Columns | None:
        try:
            # Opened here, since numpy leaves a file open whose zip directory it can't read.
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return None

    def save(self, columns: Columns, *what: Any) -> None:
        """Keep a finished batch, under a temporary name until it is whole."""
        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._file(what)
        temporary = file.with_suffix(f".{os.getpid()}.tmp")
        with open(temporary, "wb") as stream:
            np.savez_compressed(stream, allow_pickle=False, **columns)
        os.replace(temporary, file)

    def _file(self, what: Sequence[Any]) -> Path:
        key = json.dumps([SCHEMA_VERSION, self._identity, *what], sort_keys=True)
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.npz"
