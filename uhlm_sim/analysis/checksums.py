"""Checksums of a run folder: its tables are read as they were written, or refused."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from uhlm_sim.errors import InputError

KEY, ITSELF = "sha256", "provenance.json"


def sealed(provenance: Mapping[str, Any], files: Mapping[str, Path]) -> dict[str, Any]:
    """Return the provenance with the SHA-256 of each file, under the name that it has in the run folder, and its own.

    Raises OSError where a file can't be read.
    """
    digests = {name: _of_file(path) for name, path in files.items()}
    return {**provenance, KEY: {**digests, ITSELF: _of_values({**provenance, KEY: digests})}}


def unsealed(provenance: object, folder: Path) -> dict[str, Any]:
    """Return the provenance as it was before it was sealed, once all files of the folder that it names were checked.

    A file that is there no more isn't looked at, nor is a folder without checksums. Raises InputError, naming the first
    file that isn't what the run wrote.
    """
    if not isinstance(provenance, dict):
        raise _changed(folder, ITSELF)
    told = provenance.get(KEY)
    bare = {key: value for key, value in provenance.items() if key != KEY}
    if told is None:
        return bare
    digests = {name: digest for name, digest in told.items() if name != ITSELF} if isinstance(told, dict) else {}
    if not isinstance(told, dict) or told.get(ITSELF) != _of_values({**bare, KEY: digests}):
        raise _changed(folder, ITSELF)
    for name, digest in digests.items():
        if (folder / name).is_file() and _of_file(folder / name) != digest:
            raise _changed(folder, name)
    return bare


def _changed(folder: Path, name: str) -> InputError:
    return InputError(f"{folder}: {name} is damaged, or was changed since the run: it doesn't match its checksum")


def _of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _of_values(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
