"""Many simulations on many processes: what a worker does, and the part that each finished simulation leaves.

A worker gets values and returns bytes, so it needs no disk in common with the experiment: a core of this machine and a
node of a cluster do the same. A part is one zip file of parquet tables and metrics, kept as soon as it arrives, under a
temporary name until it is whole, and behind a checksum.
"""

import hashlib
import io
import json
import os
import signal
import threading
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from uhlm_sim.analysis.measures.energy import powers_of
from uhlm_sim.analysis.measures.metrics import replication_metrics
from uhlm_sim.cell.engine import simulate
from uhlm_sim.cell.named import find_names
from uhlm_sim.cell.phones.policies import ReadyPolicy, class_policies, ready_policy
from uhlm_sim.cell.phones.population import population
from uhlm_sim.cell.radio.mean_snr import transmit_power_w
from uhlm_sim.errors import InputError, ScenarioError, SimulationError, UhlmError, in_words_with_place
from uhlm_sim.progress import Progress
from uhlm_sim.scenario import LiveTokens, ModelsTokens, Scenario, SyntheticTokens, TraceTokens
from uhlm_sim.seams import NamedFunctions
from uhlm_sim.tokens.live import Live, open_live
from uhlm_sim.tokens.recording_settings import RecordingSettings
from uhlm_sim.tokens.synthetic import Synthetic
from uhlm_sim.tokens.token_set import TokenSet
from uhlm_sim.tokens.trace import Trace
from uhlm_sim.tokens.trace_file import BUILT_IN, locate
from uhlm_sim.version import VERSION

TABLES = ("requests", "rounds", "tokens", "stations")
METRICS = "metrics.json"
PARENT = "UHLM_SIM_PARENT"  # the process that started a worker, in its environment
SEAL = 64  # bytes before a part
TRIAL_TOKENS = 20e3  # at most, as `tokens_about` counts them: less than a second


@dataclass(frozen=True)
class Task:
    """One simulation: a policy in one random world, with the digest of the tokens that it replays."""

    point: int
    policy: int
    replication: int
    scenario: Scenario
    tokens_digest: str
    version: str = VERSION

    @property
    def name(self) -> str:
        return f"{self.point:05d}-{self.policy:03d}-{self.replication:05d}"

    def seal(self, part: bytes) -> bytes:
        """Return the SHA-256 at the beginning of a part's file: of the part, its simulation and the version."""
        identity = (self.name, self.scenario.model_dump_json(), self.tokens_digest, self.version)
        return hashlib.sha256("\n".join(identity).encode("utf-8", "surrogatepass") + part).hexdigest().encode()


@dataclass(frozen=True)
class Failure:
    """A simulation that failed, and why."""

    task: Task
    reason: str


class Parts:
    """The parts of finished simulations: zip files in a folder, or in memory without one."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._kept: dict[str, bytes] = {}

    def __contains__(self, task: Task) -> bool:
        """Say whether a task's part is there and whole; a damaged one counts as absent, and so does another's."""
        if self._folder is None:
            return task.name in self._kept
        try:
            sealed = self._file(task).read_bytes()
        except OSError:
            return False
        return sealed[:SEAL] == task.seal(sealed[SEAL:])

    def keep(self, task: Task, part: bytes) -> None:
        """Keep a part: whole or not at all."""
        if self._folder is None:
            self._kept[task.name] = part
            return
        file = self._file(task)
        being_written = file.with_suffix(f".{os.getpid()}.tmp")
        being_written.write_bytes(task.seal(part) + part)
        being_written.replace(file)

    def metrics(self, task: Task) -> dict[str, Any]:
        """Return a part's `metrics` by name, and its `clamped_uploads`, and whether it is `exact`."""
        with self._open(task) as part:
            metrics: dict[str, Any] = json.loads(part.read(METRICS))
        return metrics

    def table(self, task: Task, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Return one of a part's tables."""
        with self._open(task) as part:
            return pq.read_table(io.BytesIO(part.read(f"{name}.parquet")), columns=columns)

    def _open(self, task: Task) -> zipfile.ZipFile:
        if self._folder is None:
            return zipfile.ZipFile(io.BytesIO(self._kept[task.name]))
        return zipfile.ZipFile(self._file(task))  # it looks for its beginning from the end

    def _file(self, task: Task) -> Path:
        assert self._folder is not None
        return self._folder / f"{task.name}.zip"


def simulate_missing(
    tasks: Sequence[Task], parts: Parts, jobs: int, progress: Progress, known: int = 0
) -> list[Failure]:
    """Simulate the tasks that have no part yet, keep each part when it comes, and return what failed.

    `jobs` processes of this machine (-1: all cores), or the joblib backend that is active. `known` tasks of earlier
    rounds are counted as done in the progress. Raises SimulationError if a process dies.
    """
    missing = [task for task in tasks if task not in parts]
    done, total = known + len(tasks) - len(missing), known + len(tasks)
    progress("simulating", done, total)
    workers = max(1, min(joblib.effective_n_jobs(jobs), len(missing)))
    failures = []
    # Unordered, so that no finished part waits in memory for a slower one to be kept before it.
    try:
        for number, part in in_processes(_in_worker, enumerate(missing), workers):
            if isinstance(part, bytes):
                parts.keep(missing[number], part)
            else:
                failures.append(Failure(missing[number], part))
            done += 1
            progress("simulating", done, total)
    except BrokenProcessPool as error:
        raise SimulationError(
            f"a worker process died, perhaps for want of memory; --resume goes on ({str(error).partition(chr(10))[0]})"
        ) from None
    return sorted(failures, key=lambda failure: failure.task.name)


def in_processes(function: Callable[..., Any], calls: Iterable[tuple[Any, ...]], jobs: int) -> Iterator[Any]:
    """Yield what a function returns for each call's arguments, in the order in which they end.

    On `jobs` processes of this machine, which end when this one does, or on the joblib backend that is active. An
    interrupt from the keyboard is for this process alone, which ends them. They import nothing from the present folder
    by its being there: a worker gets the parent's path once it runs, so a user's own modules are found where the parent
    finds them.
    """
    with _environment({"PYTHONSAFEPATH": "1", PARENT: str(os.getpid())}):
        with _interrupts_ignored() if jobs != 1 else nullcontext():  # which the processes that start here inherit
            results = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered", initializer=_end_with_parent)(
                joblib.delayed(function)(*call) for call in calls
            )
        yield from results


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # who alone may say what a signal does
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end_with_parent() -> None:
    """Let a worker of `in_processes` end when the process that started it is no more, at work or not."""
    if PARENT in os.environ:  # not on another machine
        threading.Thread(target=_end_without, args=(int(os.environ[PARENT]),), daemon=True).start()


def _end_without(parent: int) -> None:
    """End this process when its parent is another one: the parent was killed, and could not say so."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


@contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def cluster_of(address: str | None, own_files: Sequence[str]) -> Iterator[None]:
    """Run what is inside on the Dask cluster whose scheduler has this address; None: on this machine.

    The workers get `own_files`, the user's own modules. Raises InputError if Dask isn't installed, nobody answers
    there, or the cluster has no worker.
    """
    if address is None:
        yield
        return
    try:
        from distributed import CancelledError, Client, KilledWorker
        from distributed.comm.addressing import get_address_host_port
    except ImportError:
        raise InputError(f"--cluster {address}: Dask is not installed; pip install 'uhlm-sim[cluster]'") from None
    try:
        get_address_host_port(address)  # a client that finds this wrong takes 20 s to be gone
        client = Client(address, timeout=10, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise InputError(f"--cluster {address}: no Dask scheduler answers there ({error})") from None
    with client:
        if not client.ncores():  # type: ignore[no-untyped-call]
            raise InputError(f"--cluster {address}: the scheduler has no workers")
        for file in own_files:
            client.upload_file(file)
        try:
            with joblib.parallel_config("dask", client=client):
                yield
        except (KilledWorker, CancelledError) as error:
            raise SimulationError(f"the cluster lost a simulation; --resume goes on ({error})") from None


def _in_worker(number: int, task: Task) -> tuple[int, bytes | str]:
    """Return a task's part, or why there is none: the others go on."""
    try:
        return number, _part(task)
    except UhlmError as error:
        return number, str(error)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a user's own policy, channel or allocator may raise anything
        return number, in_words_with_place(error)


def _part(task: Task) -> bytes:
    scenario = task.scenario
    tokens = find_tokens(scenario.tokens)
    if (tokens.digest, VERSION) != (task.tokens_digest, task.version):
        raise SimulationError("this worker has other tokens, or another version of uhlm-sim, than the experiment")
    functions = find_names(scenario, allow_plugins=True)  # the experiment has checked that they are
    policy = ready_policy(task.policy, scenario, tokens, functions)
    of_class = class_policies(scenario, tokens, functions)
    try:
        records = simulate(scenario, policy, task.replication, of_class=of_class, functions=functions)
    finally:
        if isinstance(tokens, Live):
            tokens.keep()
    people, runs = population(scenario), [policy, *of_class.values()]
    groups = [who.group for who in people]
    metrics = replication_metrics(
        *records.tables,
        warmup_s=scenario.warmup_s,
        duration_s=scenario.duration_s,
        devices=scenario.traffic.devices,
        slo=scenario.slo.model_dump(exclude_none=True),
        output_law=all(run.exact for run in runs),
        keeps_law=all(run.scheme.keeps_law for run in runs),
        powers=powers_of(scenario, groups, transmit_power_w(scenario, task.replication, people)),
        device_class=[scenario.device_class[group].name for group in groups] if scenario.device_class else (),
    )
    keys = {"point": task.point, "policy": policy.label, "replication": task.replication}
    is_exact = bool(records.tokens["exact"].all())
    summary = {"metrics": metrics, "clamped_uploads": records.clamped_uploads, "exact": is_exact}
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as part:
        part.writestr(METRICS, json.dumps(summary))
        for name in TABLES:
            if name in ("rounds", "tokens") and not scenario.output.tokens:
                continue
            table: pd.DataFrame = getattr(records, name)
            names = pd.CategoricalDtype([policy.label])  # the same of a table without rows
            keyed = pd.concat([pd.DataFrame(keys, index=table.index).astype({"policy": names}), table], axis=1)
            if isinstance(scenario.tokens, SyntheticTokens) and name != "stations":
                keyed["source"] = pd.Categorical(["synthetic"] * len(keyed), ["synthetic"])
            part.writestr(f"{name}.parquet", keyed.to_parquet(index=False, compression="zstd"))
    return written.getvalue()


def try_own(scenario: Scenario, policies: Sequence[ReadyPolicy], tokens: TokenSet, functions: NamedFunctions) -> None:
    """Simulate at most TRIAL_TOKENS tokens of each policy, so that a user's own code is called before a run is begun.

    Raises ScenarioError with the keys of that code and what went wrong. Left out: what it does only later or under
    more load, traffic so rare that no request comes, and models that run live, which take long.
    """
    own = [f"{named.key} = '{named.name}'" for named in functions.values() if named.is_own]
    if not own or isinstance(tokens, Live):
        return
    short_s = scenario.duration_s * min(1.0, TRIAL_TOKENS / max(scenario.tokens_about, 1.0))
    short = scenario.model_copy(update={"duration_s": short_s, "warmup_s": 0.0})
    try:
        of_class = class_policies(short, tokens, functions)
        for policy in policies:
            simulate(short, policy, 0, of_class=of_class, functions=functions)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        why = str(error) if isinstance(error, UhlmError) else in_words_with_place(error)
        raise ScenarioError(f"{', '.join(own)}: {why}") from None


def find_tokens(settings: TraceTokens | ModelsTokens | LiveTokens | SyntheticTokens) -> TokenSet:
    """Return the tokens of a scenario: a trace, read once per process and version of its file, live or synthetic ones.

    Raises TraceError or ScenarioError.
    """
    if isinstance(settings, SyntheticTokens):
        return Synthetic(settings)
    file = locate(settings.path)
    seen = file.stat()
    if isinstance(settings, LiveTokens):
        return _live(file, RecordingSettings.of(settings), seen.st_mtime_ns, seen.st_size)
    return _trace(file, seen.st_mtime_ns, seen.st_size)


@lru_cache(maxsize=4)
def _live(file: Path, settings: RecordingSettings, _mtime_ns: int, _size: int) -> Live:
    return open_live(settings, file)


@lru_cache(maxsize=4)
def _trace(file: Path, _mtime_ns: int, _size: int) -> Trace:
    return Trace.read(file)


def portable(scenario: Scenario) -> Scenario:
    """Return the scenario with its trace named so that any worker finds it: a built-in name, or an absolute path."""
    tokens = scenario.tokens
    if isinstance(tokens, SyntheticTokens) or locate(tokens.path).parent == BUILT_IN:
        return scenario
    whole = tokens.model_copy(update={"path": str(locate(tokens.path).resolve())})
    return scenario.model_copy(update={"tokens": whole})
