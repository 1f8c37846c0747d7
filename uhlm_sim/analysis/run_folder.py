"""A run folder: written with checksums of its tables, and read as it was written, or refused.

`provenance.json` is sealed with the SHA-256 of each table and of itself; `summary.csv` comes last, so where it is, the
run is whole. `summary.partial.csv` stands in its place where failed points were left out.
"""

import hashlib
import json
import os
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import pyarrow as pa

from uhlm_sim.analysis.measures.intervals import write_table
from uhlm_sim.analysis.run import ESTIMATE, SUMMARY_COLUMNS, Run
from uhlm_sim.errors import InputError, did_you_mean
from uhlm_sim.tables import ROUND_COLUMNS, TOKEN_COLUMNS

SUMMARY, PARTIAL = "summary.csv", "summary.partial.csv"
PROVENANCE, SCENARIO = "provenance.json", "scenario.resolved.toml"
FILES = ("replications.csv", "stations.csv", "requests.parquet", SCENARIO, PROVENANCE)
RunT = TypeVar("RunT", bound=Run)
DIGESTS = "sha256"  # the provenance's key of all checksums


def read_run(folder: Path) -> Run:
    """Read a run folder; of rounds.parquet and tokens.parquet only the columns that figures need.

    A run whose failed points were left out is read as what it is: `failed` tells them. InputError, in one sentence,
    for a folder that is neither that nor a finished run, and for files that can't be read or aren't what the run wrote.
    """

    def kept(name: str, columns: Sequence[str]) -> pd.DataFrame | None:
        file = folder / f"{name}.parquet"
        return pd.read_parquet(file, columns=["point", *columns]) if file.is_file() else None

    try:
        need_folder(folder, "not a finished run")
        is_partial = not (folder / SUMMARY).is_file() and (folder / PARTIAL).is_file()
        summary = PARTIAL if is_partial else SUMMARY
        for name in (summary, *FILES):
            if not (folder / name).is_file():
                raise InputError(f"{folder}: not a finished run, it has no {name}")
        run = Run(
            requests=pd.read_parquet(folder / "requests.parquet"),
            rounds=kept("rounds", ROUND_COLUMNS),
            tokens=kept("tokens", TOKEN_COLUMNS),
            **_read_text(folder, folder / summary),
        )
    except InputError:
        raise
    except (OSError, ValueError, RecursionError, OverflowError, pa.ArrowException) as problem:
        reason = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
        raise InputError(f"{folder}: can't be read as a run: {reason}") from None
    needed: dict[str, tuple[Sequence[str], pd.DataFrame | dict[str, Any]]] = {
        summary: (SUMMARY_COLUMNS, run.summary),
        "replications.csv": (("point", "policy", "replication", "metric", "value"), run.replications),
        "requests.parquet": (("point", "policy", "replication", "arrived_s", "first_token_s"), run.requests),
        "stations.csv": (("point", "policy", "replication", "station", "at_s"), run.stations),
        SCENARIO: (("name", "warmup_s", "duration_s", "traffic"), run.scenario),
        PROVENANCE: (("policies", "assumptions", "presets"), run.provenance),
    }
    for file, (names, holder) in needed.items():
        missing = [name for name in names if name not in holder]
        if missing or not len(holder):
            raise InputError(f"{folder}: can't be read as a run: {file} has no {missing[0] if missing else 'rows'}")
    # A folder written before this was noted tells it by the kind of its traffic.
    run.provenance.setdefault("closed_loop", run.scenario["traffic"].get("kind", "closed") == "closed")
    if not all(pd.api.types.is_numeric_dtype(dtype) for dtype in run.summary[list(ESTIMATE)].dtypes):
        raise InputError(f"{folder}: can't be read as a run: {summary} holds text where numbers belong")
    if is_partial and not run.failed:
        raise InputError(f"{folder}: not a finished run, it has no {SUMMARY}")
    return run


def need_folder(folder: Path, what: str) -> None:
    """Raise InputError, which says `what` it isn't and names the nearest one beside it, if there is no such folder."""
    if not folder.exists():
        hint = did_you_mean(str(folder), map(str, folder.parent.glob("*")))
        raise InputError(f"{folder}: {what}, there is no such folder{hint}")


@contextmanager
def writing(run: RunT, folder: Path) -> Iterator[RunT]:
    """Write a run's tables into its folder, where its scenario, requests and tokens are already; yield it as read back.

    So a report of the run is that of its folder, to the last digit. What the block writes beside the tables is there
    before the summary, which comes last.
    """
    files = ["replications.csv", "stations.csv", "requests.parquet", SCENARIO]
    files += ["rounds.parquet", "tokens.parquet"] if run.tokens is not None else []
    summary, being_written = PARTIAL if run.failed else SUMMARY, folder / "summary.tmp"
    write_table(run.replications, folder / "replications.csv", run.source)
    write_table(run.stations, folder / "stations.csv", run.source)
    write_table(run.summary, being_written, run.source)
    provenance = sealed(run.provenance, {summary: being_written} | {name: folder / name for name in files})
    (folder / PROVENANCE).write_text(json.dumps(provenance, indent=2) + "\n", encoding="utf-8")
    yield replace(run, **_read_text(folder, being_written))
    being_written.replace(folder / summary)
    if not run.failed:
        (folder / PARTIAL).unlink(missing_ok=True)


def refuse_links(folder: Path) -> None:
    """Raise InputError for a symbolic link in a run's folder: what it names elsewhere would be written over."""
    for place, folders, files in os.walk(folder):
        link = next((name for name in (*folders, *files) if Path(place, name).is_symlink()), None)
        if link is not None:
            raise InputError(f"{Path(place, link)}: is a symbolic link; a run writes into its own folder alone")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from writing into a run's folder, or say which one has it. Raises InputError.

    The operating system takes the lock back when a process ends, however it does. Left out: systems without `flock`.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    with (folder / "lock").open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            holder = f"process {file.read().strip() or 'unknown'}"
            raise InputError(
                f"{folder.parent}: {holder} is writing there; wait for its end, or name another folder"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def sealed(provenance: Mapping[str, Any], files: Mapping[str, Path]) -> dict[str, Any]:
    """Return the provenance with the SHA-256 of each file, under the name that it has in the run folder, and its own.

    Raises OSError where a file can't be read.
    """
    digests = {name: _of_file(path) for name, path in files.items()}
    return {**provenance, DIGESTS: {**digests, PROVENANCE: _of_values({**provenance, DIGESTS: digests})}}


def unsealed(provenance: object, folder: Path) -> dict[str, Any]:
    """Return the provenance as it was before it was sealed, once all files of the folder that it names were checked.

    A file that is there no more isn't looked at, nor is a folder without checksums. Raises InputError, naming the first
    file that isn't what the run wrote.
    """
    if not isinstance(provenance, dict):
        raise _changed(folder, PROVENANCE)
    seal = provenance.get(DIGESTS)
    bare = {key: value for key, value in provenance.items() if key != DIGESTS}
    if seal is None:
        return bare
    digests = {name: digest for name, digest in seal.items() if name != PROVENANCE} if isinstance(seal, dict) else {}
    if not isinstance(seal, dict) or seal.get(PROVENANCE) != _of_values({**bare, DIGESTS: digests}):
        raise _changed(folder, PROVENANCE)
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


def _read_text(folder: Path, summary: Path) -> dict[str, Any]:
    """Return what of a run is text: its tables of numbers, its scenario and its provenance."""
    scenario = tomllib.loads((folder / SCENARIO).read_text(encoding="utf-8"))
    swept = {key: values for key, values in scenario.get("sweep", {}).items() if isinstance(values, list)}
    tables = {"summary": summary, "replications": folder / "replications.csv", "stations": folder / "stations.csv"}
    return {
        **{name: _read_csv(path, swept) for name, path in tables.items()},
        "scenario": scenario,
        "provenance": unsealed(json.loads((folder / PROVENANCE).read_text(encoding="utf-8")), folder),
    }


def _read_csv(path: Path, swept: Mapping[str, list[Any]]) -> pd.DataFrame:
    # A policy may be called NA, and swept words may look like numbers; elsewhere only an empty field is null.
    words = ["policy", *swept]
    empty = {name: [""] for name in pd.read_csv(path, nrows=0).columns if name not in words}
    table = pd.read_csv(path, keep_default_na=False, na_values=empty, dtype=dict.fromkeys(words, str))
    for key in swept.keys() & set(table.columns):
        as_written = {f"{value:.9g}": value for value in swept[key] if isinstance(value, float)}
        as_written |= {str(value): value for value in swept[key] if not isinstance(value, list | dict)}
        table[key] = [as_written.get(text, text) for text in table[key]]
    return table.drop(columns="source", errors="ignore")  # the mark on the rows is in the provenance, too
