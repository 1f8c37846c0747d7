"""A run's rounds as a timeline in the Trace Event format, which Perfetto and chrome://tracing open."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from uhlm_sim.analysis.run_folder import need_folder, unsealed
from uhlm_sim.errors import InputError, did_you_mean
from uhlm_sim.tables import LEGS

PHONES, UPLINK, GPUS = 1, 2, 3  # process ids: one group of tracks each
COLUMNS = ["policy", "device", "request", "first_position", "drafted", "accepted", "committed", "decision", *LEGS]
COLUMNS += ["started_s", "committed_s", "payload_bits", "llm_tokens", "steps", "batch_jobs", "batch_tokens"]
PHASES = (("draft", "device_s"), ("uplink", "uplink_s"), ("queue", "bs_wait_s"), ("verify", "verify_s"))


def timeline_events(rounds: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the events of one simulation's rounds (one point, policy and replication of `rounds.parquet`).

    Times are in microseconds of the run. Each phone is a track with its rounds as slices and their legs inside; the
    uplink is a counter of uploads present; each GPU is a track with its batches. Legs that the run cut off are missing.
    """
    events = [_name("process_name", process, 0, title) for process, title in _PROCESSES]
    began_s = rounds["started_s"].to_numpy()
    legs = rounds.assign(uplink_s=rounds["uplink_wait_s"] + rounds["airtime_s"])
    for row in legs.to_dict("records"):
        events += _round(row)
    events += [_name("thread_name", PHONES, int(device), f"phone {device}") for device in np.unique(rounds["device"])]
    sent = (legs["payload_bits"] > 0).to_numpy()
    sent_s = (began_s + legs["device_s"])[sent]
    received_s = (sent_s + legs["uplink_s"][sent]).dropna()
    steps = pd.concat([pd.Series(1, index=sent_s), pd.Series(-1, index=received_s)]).sort_index(kind="stable").cumsum()
    for at_s, count in zip(steps.index.to_numpy(dtype=np.float64), steps, strict=True):
        events.append(_event("C", "uploads", UPLINK, 0, float(at_s), args={"uploads": int(count)}))
    events += _batches(legs)
    return events


_PROCESSES = ((PHONES, "phones"), (UPLINK, "uplink"), (GPUS, "GPUs"))


def _round(row: dict[Any, Any]) -> Iterator[dict[str, Any]]:
    track = int(row["device"])
    at_s = row["started_s"]
    names = ("request", "first_position", "drafted", "accepted", "committed", "payload_bits", "llm_tokens")
    if not pd.isna(row["committed_s"]):
        length_s = row["committed_s"] - at_s
        yield _event("X", _outcome(row), PHONES, track, at_s, length_s, {name: row[name] for name in names})
    for name, leg in PHASES:
        if pd.isna(row[leg]):
            return
        if row[leg] > 0:
            yield _event("X", name, PHONES, track, at_s, row[leg])
        at_s += row[leg]


def _outcome(row: dict[Any, Any]) -> str:
    """Return what became of a round's drafts, in words."""
    if row["decision"] == "skip":
        return "skipped" if row["drafted"] == 1 else f"skipped {row['drafted']}"
    if not row["drafted"]:
        return "generated"
    if row["drafted"] > 1:
        return f"accepted {row['accepted']} of {row['drafted']}"
    return "accepted" if row["accepted"] else "resampled"


def _batches(legs: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield the batches, each on the first GPU that is free when it starts; split jobs one by one."""
    served = legs[legs["verify_s"] > 0]
    start_s = served[["started_s", "device_s", "uplink_s", "bs_wait_s"]].sum(axis=1).round(9)
    batches = served.assign(start_s=start_s).sort_values(["start_s", "batch_jobs", "batch_tokens"], kind="stable")
    is_split = bool((served["steps"] > 1).any())
    free_s: list[float] = []
    left = 0  # jobs of the batch at hand that are still to come
    for row in batches.to_dict("records"):
        if left == 0:
            left, at_s = 1 if is_split else int(row["batch_jobs"]), row["start_s"]
            gpu = next((i for i, free in enumerate(free_s) if free <= at_s + 1e-9), len(free_s))
            if gpu == len(free_s):
                free_s.append(0.0)
                yield _name("thread_name", GPUS, gpu, f"GPU {gpu}")
            free_s[gpu] = at_s + row["verify_s"]
            sizes = {"jobs": row["batch_jobs"], "tokens": row["batch_tokens"]}
            name = f"job in {row['steps']} steps" if is_split else f"batch of {left}"
            yield _event("X", name, GPUS, gpu, at_s, row["verify_s"], sizes)
        left -= 1


def write_timeline(run_dir: Path, out: Path, *, point: int = 0, policy: str | None = None, replication: int = 0) -> int:
    """Write the timeline of one simulation of a run folder; return its number of rounds.

    `policy` is a label, the first one if None. Raises InputError if the folder is no run, has no rounds or no such
    simulation.
    """
    try:
        chosen = _read(run_dir, point, policy, replication)
    except InputError:
        raise
    except (OSError, ValueError, RecursionError, OverflowError, pa.ArrowException) as problem:
        raise InputError(f"{run_dir}: can't be read as a run: {str(problem).partition(chr(10))[0]}") from None
    text = json.dumps({"traceEvents": timeline_events(chosen), "displayTimeUnit": "ms"}, allow_nan=False)
    being_written = out.with_name(f"{out.name}.tmp")
    being_written.write_text(text, encoding="utf-8")
    being_written.replace(out)
    return len(chosen)


def _read(run_dir: Path, point: int, policy: str | None, replication: int) -> pd.DataFrame:
    file, origin = run_dir / "rounds.parquet", run_dir / "provenance.json"
    need_folder(run_dir, "isn't a run folder")
    if not (run_dir / "scenario.resolved.toml").is_file():
        raise InputError(f"{run_dir}: isn't a run folder, it has no scenario.resolved.toml")
    if not file.is_file():
        raise InputError(f"{file}: no such file; a run without tables of rounds has no timeline")
    if origin.is_file():
        unsealed(json.loads(origin.read_text(encoding="utf-8")), run_dir)
    filters = [("point", "==", point), ("replication", "==", replication)]
    rounds = pd.read_parquet(file, columns=COLUMNS, filters=filters)
    if rounds.empty:
        if pq.read_metadata(file).num_rows == 0:
            raise InputError(f"{run_dir}: no round was begun in this run, so there is no timeline")
        there = pd.read_parquet(file, columns=["point", "replication"]).drop_duplicates()
        _require_known(run_dir, "point", point, there["point"])
        _require_known(run_dir, "replication", replication, there.loc[there["point"] == point, "replication"])
    labels = [str(label) for label in rounds["policy"].unique()]
    chosen = rounds[rounds["policy"] == (policy or labels[0])]
    if chosen.empty:
        raise InputError(
            f"{run_dir}: no policy '{policy}' at point {point}; there are {', '.join(labels)}"
            f"{did_you_mean(str(policy), labels)}"
        )
    return chosen


def _require_known(run_dir: Path, what: str, number: int, known: pd.Series) -> None:
    if number not in set(known):
        are = f"is {known.min()} only" if known.nunique() == 1 else f"are {known.min()} to {known.max()}"
        raise InputError(f"{run_dir}: no {what} {number}; there {are}")


def _event(
    phase: str, name: str, process: int, track: int, at_s: float, duration_s: float = 0.0, args: Any = None
) -> dict[str, Any]:
    event = {"ph": phase, "name": name, "pid": process, "tid": track, "ts": round(at_s * 1e6, 3)}
    if phase == "X":
        event["dur"] = round(duration_s * 1e6, 3)
    return event | ({"args": args} if args else {})


def _name(what: str, process: int, track: int, title: str) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": process, "tid": track, "args": {"name": title}}
