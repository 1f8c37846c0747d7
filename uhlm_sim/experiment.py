"""The experiment: all policies and replications of a scenario, in parallel, into tables and a run folder.

A finished simulation is one folder of parts, renamed into place when it is whole; the run's own tables are made of the
parts in a fixed order, whoever computed them, and `summary.csv` comes last. So a killed run leaves nothing that looks
finished, and a resumed one repeats nothing.
"""

import hashlib
import inspect
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import joblib
import pandas as pd
import pyarrow.parquet as pq

from uhlm_sim import __version__
from uhlm_sim.analysis.intervals import summarise, write_table
from uhlm_sim.analysis.metrics import replication_metrics
from uhlm_sim.analysis.report import write_figures, write_report
from uhlm_sim.analysis.results import TOKEN_COLUMNS, Results
from uhlm_sim.cell.engine import check_scenario, simulate
from uhlm_sim.cell.policies import ReadyPolicy, ready_policy, rule_request
from uhlm_sim.errors import InputError, SimulationError
from uhlm_sim.provenance import provenance
from uhlm_sim.scenario import ModelsTokens, Scenario
from uhlm_sim.scenario_file import sweep_points, write_scenario
from uhlm_sim.tokens.recording import RecordingSettings, record
from uhlm_sim.tokens.trace import Trace
from uhlm_sim.tokens.trace_file import locate

Progress = Callable[[str, int, int], None]  # what is being done, steps done, steps in all
PARTS = ".parts"
TABLES = ("requests", "tokens", "stations")


def no_progress(what: str, done: int, total: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Task:
    """One simulation: a policy in one random world. Picklable, so that any worker can run it."""

    point: int
    scenario: Scenario
    policy: int
    replication: int
    allow_plugins: bool = False
    part: Path | None = None  # the folder for its tables; None: they are returned


@dataclass(frozen=True)
class Finished:
    """What a simulation leaves: its metrics, and its tables by name unless they lie in its part."""

    metrics: dict[str, float]
    clamped_uploads: int
    tables: dict[str, pd.DataFrame]


def run(
    scenario: Scenario,
    *,
    out: Path | str | None = None,
    jobs: int = -1,
    resume: bool = False,
    allow_plugins: bool = False,
    progress: Progress = no_progress,
) -> Results:
    """Run an experiment on `jobs` processes (-1: all cores) and return its tables; with `out`, write the run folder.

    Everything that the user can have got wrong is checked before a folder is made or an event happens. Raises
    InputError (ScenarioError and TraceError among them) for that, and SimulationError if a simulation breaks a law.
    `resume` goes on with an interrupted run of the same scenario, and returns a finished one at once.
    """
    began_s = time.perf_counter()
    out = None if out is None else Path(out)
    points = sweep_points(scenario)
    ready = [_get_ready(point.scenario, allow_plugins, progress) for point in points]
    if out is not None and _claim(out, scenario, ready[0].trace, resume=resume):
        shutil.rmtree(out / PARTS, ignore_errors=True)
        return Results.read(out)

    tasks = [
        Task(number, point.scenario, policy, replication, allow_plugins, _part(out, number, policy, replication))
        for number, point in enumerate(points)
        for policy in range(len(point.scenario.policy))
        for replication in range(point.scenario.replications)
    ]
    try:
        finished = list(_simulate_all(tasks, jobs, progress))
    except BrokenProcessPool as error:
        raise SimulationError(
            f"a worker process died, perhaps for want of memory; --resume goes on ({error})"
        ) from None
    progress("tables, figures, report", 0, 1)

    def label(task: Task) -> str:
        return ready[task.point].policies[task.policy].label

    rows = [
        (task.point, *points[task.point].values.values(), label(task), task.replication, metric, value)
        for task, done in zip(tasks, finished, strict=True)
        for metric, value in done.metrics.items()
    ]
    keys = ["point", *points[0].values, "policy", "replication"]
    replications = pd.DataFrame(rows, columns=[*keys, "metric", "value"])
    clamped: dict[str, int] = {}
    for task, done in zip(tasks, finished, strict=True):
        clamped[label(task)] = clamped.get(label(task), 0) + done.clamped_uploads
    policies = {policy.label: policy for each in reversed(ready) for policy in reversed(each.policies)}
    tables = Results(
        summary=summarise(replications, ready[0].policies[0].label),
        replications=replications,
        requests=_gather("requests", tasks, finished, out),
        tokens=_gather("tokens", tasks, finished, out) if scenario.output.tokens else None,
        stations=_gather("stations", tasks, finished, None if out is None else out / PARTS),
        scenario=scenario.model_dump(mode="json", exclude_none=True),
        provenance=provenance(
            points[0].scenario,
            ready[0].trace,
            [policies[name] for name in clamped],
            list(clamped.values()),
            time.perf_counter() - began_s,
        ),
    )
    if out is not None:
        _write(tables, out)
    return tables


@dataclass(frozen=True)
class Ready:
    """A point with its trace read and its policies resolved: all that can be wrong with it was looked at."""

    trace: Trace
    policies: list[ReadyPolicy]


def _get_ready(scenario: Scenario, allow_plugins: bool, progress: Progress) -> Ready:
    trace = find_trace(scenario, progress)
    trace.check_max_tokens(scenario.traffic.max_tokens)
    policies = [
        ready_policy(index, scenario, trace, allow_plugins=allow_plugins) for index in range(len(scenario.policy))
    ]
    check_scenario(scenario, policies, allow_plugins=allow_plugins)
    return Ready(trace, policies)


def find_trace(scenario: Scenario, progress: Progress = no_progress) -> Trace:
    """Return the scenario's trace; with tokens of kind "models", record first what it lacks."""
    tokens = scenario.tokens
    if not isinstance(tokens, ModelsTokens):
        return _read_trace(tokens.path)
    fields = tokens.model_dump(exclude={"kind", "path", "vocabulary_size"})
    fields["slm_drop_layers"] = tuple(tokens.slm_drop_layers)
    fields["prompts"] = None if tokens.prompts == "built-in" else tokens.prompts
    # A policy of the user's own is forced on the path of HLM, which every recording holds.
    requests = [rule_request(policy, scenario) for policy in scenario.policy if ":" not in policy.kind]
    return record(
        RecordingSettings(**fields),
        requests,
        tokens.path,
        lambda done, total: progress("decoding tokens", done, total),
        f"uhlm-sim record {scenario.name}.toml",
    )


def _simulate_all(tasks: list[Task], jobs: int, progress: Progress) -> Iterator[Finished]:
    """Yield what every task leaves, in their order; parts that are there already are read, not repeated."""
    missing = {number: task for number, task in enumerate(tasks) if task.part is None or not _is_whole(task.part)}
    todo = joblib.Parallel(n_jobs=min(joblib.effective_n_jobs(jobs), max(len(missing), 1)), return_as="generator")(
        joblib.delayed(_simulate)(task) for task in missing.values()
    )
    for number, task in enumerate(tasks):
        progress("simulating", number, len(tasks))
        yield next(todo) if number in missing else _read_part(task)
    progress("simulating", len(tasks), len(tasks))


def _read_trace(name_or_path: str) -> Trace:
    """Read a trace, once per process and version of its file."""
    file = locate(name_or_path)
    seen = file.stat()
    return _trace(file, seen.st_mtime_ns, seen.st_size)


@lru_cache(maxsize=4)
def _trace(file: Path, _mtime_ns: int, _size: int) -> Trace:
    return Trace.read(file)


def _simulate(task: Task) -> Finished:
    scenario = task.scenario
    policy = ready_policy(task.policy, scenario, _read_trace(scenario.tokens.path), allow_plugins=task.allow_plugins)
    records = simulate(scenario, policy, task.replication, allow_plugins=task.allow_plugins)
    metrics = replication_metrics(
        records.requests,
        records.tokens,
        records.stations,
        warmup_s=scenario.warmup_s,
        duration_s=scenario.duration_s,
        devices=scenario.traffic.devices,
        slo=scenario.slo.model_dump(exclude_none=True),
        output_law=policy.exact,
    )
    tables = {
        name: _keyed(getattr(records, name), task, policy.label)
        for name in TABLES
        if name != "tokens" or scenario.output.tokens
    }
    if task.part is None:
        return Finished(metrics, records.clamped_uploads, tables)
    being_written = task.part.with_name(f"{task.part.name}.{os.getpid()}.tmp")
    shutil.rmtree(being_written, ignore_errors=True)  # of a killed process of the same number
    being_written.mkdir(parents=True)
    for name, table in tables.items():
        table.to_parquet(being_written / f"{name}.parquet", index=False, compression="zstd")
    told = {"metrics": metrics, "clamped_uploads": records.clamped_uploads}
    (being_written / "metrics.json").write_text(json.dumps(told))
    being_written.rename(task.part)
    return Finished(metrics, records.clamped_uploads, {})


def _keyed(table: pd.DataFrame, task: Task, label: str) -> pd.DataFrame:
    policy = pd.Categorical([label]).repeat(len(table))
    keys = pd.DataFrame({"point": task.point, "policy": policy, "replication": task.replication})
    return pd.concat([keys, table.reset_index(drop=True)], axis=1)


def _part(out: Path | None, point: int, policy: int, replication: int) -> Path | None:
    return None if out is None else out / PARTS / f"{point:05d}-{policy:03d}-{replication:05d}"


def _is_whole(part: Path) -> bool:
    if not part.exists():
        return False
    try:
        json.loads((part / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        shutil.rmtree(part)
        return False
    return True


def _read_part(task: Task) -> Finished:
    assert task.part is not None
    told = json.loads((task.part / "metrics.json").read_text())
    return Finished(told["metrics"], told["clamped_uploads"], {})


def _gather(name: str, tasks: list[Task], finished: list[Finished], folder: Path | None) -> pd.DataFrame:
    """Put the tasks' tables of one name together; with a folder, as a parquet file there, part by part."""
    if folder is None:
        return pd.concat([done.tables[name] for done in finished], ignore_index=True)
    file = folder / f"{name}.parquet"
    being_written = file.with_suffix(".tmp")
    writer: pq.ParquetWriter | None = None
    for task in tasks:
        assert task.part is not None
        table = pq.read_table(task.part / f"{name}.parquet")
        writer = writer or pq.ParquetWriter(being_written, table.schema, compression="zstd")
        writer.write_table(table)
    assert writer is not None
    writer.close()
    being_written.replace(file)
    return pd.read_parquet(file, columns=["point", *TOKEN_COLUMNS] if name == "tokens" else None)


def _identity(scenario: Scenario, trace: Trace) -> str:
    """Return what two runs must have in common to be one: the resolved scenario, the tokens, the program."""
    text = "\n".join([__version__, trace.digest, write_scenario(scenario), *_own_code(scenario)])
    return hashlib.sha256(text.encode()).hexdigest()


def _own_code(scenario: Scenario) -> list[str]:
    """Return the source of the user's own modules that a scenario names: edited code is another run."""
    kinds = [scenario.uplink.allocator, scenario.channel.kind, *(policy.kind for policy in scenario.policy)]
    modules = [sys.modules.get(kind.partition(":")[0]) for kind in kinds if ":" in kind]
    return [inspect.getsource(module) for module in modules if module is not None]


def _claim(out: Path, scenario: Scenario, trace: Trace, *, resume: bool) -> bool:
    """Make the run folder ours; return whether the run in it is finished already. Raises InputError."""
    identity = _identity(scenario, trace)
    marker = out / "scenario.resolved.toml"
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if not resume:
            raise InputError(
                f"{out}: is there already; --out names another folder, --resume goes on with an interrupted run"
            )
        if not marker.is_file() or f"# run {identity}" not in marker.read_text(encoding="utf-8", errors="replace"):
            raise InputError(f"{out}: holds something else than a run of this scenario, trace and version")
        return (out / "summary.csv").is_file()
    try:
        (out / PARTS).mkdir(parents=True)
    except OSError as error:
        raise InputError(f"{out}: can't be made ({error})") from None
    being_written = marker.with_suffix(".tmp")
    being_written.write_text(f"# run {identity}\n{write_scenario(scenario)}", encoding="utf-8")
    being_written.replace(marker)
    return False


def _write(tables: Results, out: Path) -> None:
    """Write what is made of the tables; `summary.csv` last, since where it is, the run is whole."""
    write_table(tables.replications, out / "replications.csv")
    write_table(tables.stations, out / "stations.csv")
    (out / "provenance.json").write_text(json.dumps(tables.provenance, indent=2) + "\n", encoding="utf-8")
    figures = write_figures(tables, out / "figures")
    write_report(tables, figures, out / "report.html")
    being_written = out / "summary.tmp"
    write_table(tables.summary, being_written)
    being_written.replace(out / "summary.csv")
    shutil.rmtree(out / PARTS)
