"""The experiment: all points, policies and replications of a scenario, into tables and a run folder.

The run's tables are made of the parts that its simulations leave (`uhlm_sim.simulations`), in a fixed order, whoever
computed them and when, and `summary.csv` comes last. So a killed run leaves nothing that looks finished, and a resumed
one repeats nothing.
"""

import hashlib
import inspect
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from math import nan
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from uhlm_sim.analysis.measures.energy import ENERGY
from uhlm_sim.analysis.measures.intervals import summarise
from uhlm_sim.analysis.measures.metrics import CLASS, UNITS
from uhlm_sim.analysis.measures.precision import FEWEST, more_replications
from uhlm_sim.analysis.measures.quantiles import with_pooled_quantiles
from uhlm_sim.analysis.results import Results
from uhlm_sim.analysis.run import Run
from uhlm_sim.analysis.run_folder import SCENARIO, SUMMARY, locked, refuse_links, writing
from uhlm_sim.cell.checks import check_scenario
from uhlm_sim.cell.named import find_names
from uhlm_sim.cell.phones.policies import ReadyPolicy, ready_policy, rule_request
from uhlm_sim.errors import InputError, ScenarioError, SimulationError, UhlmError, did_you_mean, in_words_with_place
from uhlm_sim.progress import Progress, no_progress
from uhlm_sim.provenance import provenance
from uhlm_sim.scenario import LiveTokens, ModelsTokens, Scenario
from uhlm_sim.scenario_file import Point, sweep_points, write_scenario
from uhlm_sim.seams import Named, NamedFunctions, own_modules
from uhlm_sim.simulations import Failure, Parts, Task, cluster_of, find_tokens, portable, simulate_missing, try_own
from uhlm_sim.tables import OUTPUT_LAW, ROUND_COLUMNS, TOKEN_COLUMNS
from uhlm_sim.tokens.live import Live
from uhlm_sim.tokens.recording import RecordingSettings, RuleRequest, record
from uhlm_sim.tokens.token_set import TokenSet
from uhlm_sim.tokens.trace import Trace
from uhlm_sim.version import VERSION

PARTS = ".parts"


def run(
    scenario: Scenario,
    *,
    out: Path | str | None = None,
    jobs: int = -1,
    cluster: str | None = None,
    resume: bool = False,
    allow_plugins: bool = False,
    progress: Progress = no_progress,
) -> Results:
    """Run an experiment and return its tables; with `out`, write the run folder.

    On `jobs` processes of this machine (-1: all cores), on the Dask `cluster` whose scheduler has that address, or on
    whatever joblib backend is active. Everything that the user can have got wrong is checked before a folder is made or
    an event happens. A point at which a simulation fails is left out, see `Results.failed`; then the folder has
    no `summary.csv`, and `resume` repeats what failed. `resume` goes on with an interrupted run of the same scenario,
    and returns a finished one at once.

    Raises InputError (ScenarioError and TraceError among them) for bad input, and SimulationError if no point is left.
    """
    began_s = time.perf_counter()
    if jobs == 0 or jobs < -1:
        raise InputError(f"jobs = {jobs}: must be at least 1, or -1 for all cores")
    out = None if out is None else Path(out)
    points = sweep_points(scenario)
    ready = [_get_ready(point.scenario, allow_plugins, progress) for point in points]
    named = [named for point in ready for named in point.functions.values()]
    modules = own_modules(named)
    if not (resume and out is not None and (out / SUMMARY).is_file()):
        _try_own_code(points, ready)
    parts = Parts(None if out is None else out / PARTS)
    identity = _identity(scenario, [point.tokens for point in ready], named)
    with cluster_of(cluster, [str(module.__file__) for module in modules]):
        if out is not None and _claim(out, scenario, identity, resume=resume):
            shutil.rmtree(out / PARTS, ignore_errors=True)
            return Results.read(out)
        with nullcontext() if out is None else locked(out / PARTS):
            tasks, failures = _simulate(points, ready, parts, jobs, progress)
            return _finish(scenario, points, ready, tasks, failures, parts, out, began_s, progress)


def _try_own_code(points: Sequence[Point], ready: Sequence["Ready"]) -> None:
    """Call the user's own code at the first point that names it, see `try_own`."""
    first: dict[tuple[str, ...], int] = {}
    for number, point in enumerate(ready):
        first.setdefault(tuple(function.name for function in point.functions.values() if function.is_own), number)
    for number in first.values():
        try_own(points[number].scenario, ready[number].policies, ready[number].tokens, ready[number].functions)


def _finish(
    scenario: Scenario,
    points: Sequence[Point],
    ready: Sequence["Ready"],
    tasks: list[Task],
    failures: list[Failure],
    parts: Parts,
    out: Path | None,
    began_s: float,
    progress: Progress,
) -> Results:
    """Make tables, figures and report of what the simulations left. Raises SimulationError if no point is left."""
    failed = {failure.task.point for failure in failures}
    if len(failed) == len(points):
        others = f" (and {len(failures) - 1} other simulations)" if len(failures) > 1 else ""
        raise SimulationError(f"{ready[0].policies[failures[0].task.policy].label}: {failures[0].reason}{others}")
    progress("tables, figures, report", 0, 1)
    tasks = [task for task in tasks if task.point not in failed]
    results = _results(scenario, points, ready, tasks, failures, parts, out, began_s)
    if out is not None:
        with writing(results, out) as results:
            results.write_report(out)
        if not results.failed:
            shutil.rmtree(out / PARTS)
    return results


def _simulate(
    points: Sequence[Point],
    ready: Sequence["Ready"],
    parts: Parts,
    jobs: int,
    progress: Progress,
) -> tuple[list[Task], list[Failure]]:
    """Simulate all replications of all points, and as many more as a point's precision asks for."""
    tasks: list[Task] = []
    failures: list[Failure] = []
    have = dict.fromkeys(range(len(points)), 0)
    more = {number: _first_replications(point.scenario) for number, point in enumerate(points)}
    while more:
        new_tasks = [
            Task(number, policy, replication, scenario, ready[number].tokens.digest)
            for number, added in more.items()
            for scenario in [portable(points[number].scenario)]
            for policy in range(len(scenario.policy))
            for replication in range(have[number], have[number] + added)
        ]
        failures += simulate_missing(new_tasks, parts, jobs, progress, known=len(tasks))
        tasks += new_tasks
        for number, added in more.items():
            have[number] += added
        broken = {failure.task.point for failure in failures}
        more = {number: _more(points[number].scenario, number, tasks, parts) for number in more if number not in broken}
        more = {number: added for number, added in more.items() if added}
    return sorted(tasks, key=lambda task: task.name), failures


def _first_replications(scenario: Scenario) -> int:
    return scenario.replications if scenario.precision is None else max(scenario.replications, FEWEST)


def _more(scenario: Scenario, point: int, tasks: Sequence[Task], parts: Parts) -> int:
    """Return how many more replications, of all its policies, a point needs for its precision."""
    if scenario.precision is None:
        return 0
    precision = scenario.precision
    labels = [policy.label for policy in scenario.policy]
    here = [task for task in tasks if task.point == point]
    rows = pd.DataFrame(
        [
            (point, labels[task.policy], task.replication, parts.metrics(task)["metrics"][precision.metric])
            for task in here
        ],
        columns=["point", "policy", "replication", "value"],
    ).assign(metric=precision.metric)
    none = pd.DataFrame()
    so_far = Run(
        summary=none,
        replications=rows,
        requests=_gather("requests", here, parts, None),
        tokens=None,
        stations=none,
        scenario={"warmup_s": scenario.warmup_s, "duration_s": scenario.duration_s},
        provenance={"closed_loop": False},
    )
    values = with_pooled_quantiles(rows, so_far).pivot(index="replication", columns="policy", values="value")[labels]
    return more_replications(values, labels[0], precision.relative, precision.max_replications)


def _results(
    scenario: Scenario,
    points: Sequence[Point],
    ready: Sequence["Ready"],
    tasks: Sequence[Task],
    failures: Sequence[Failure],
    parts: Parts,
    out: Path | None,
    began_s: float,
) -> Results:
    """Join the parts that the simulations left into Results."""

    def label(task: Task) -> str:
        return ready[task.point].policies[task.policy].label

    metrics = [parts.metrics(task) for task in tasks]
    left = {(task.point, label(task)) for task, run in zip(tasks, metrics, strict=True) if not run["exact"]}

    def known(task: Task, metric: str, value: float) -> float:
        """What an answer is made of isn't known where in any replication a walk left what was recorded."""
        return nan if metric.partition(CLASS)[0] in OUTPUT_LAW and (task.point, label(task)) in left else value

    rows = [
        (task.point, *points[task.point].cells, label(task), task.replication, metric, known(task, metric, value))
        for task, values in zip(tasks, metrics, strict=True)
        for metric, value in values["metrics"].items()
    ]
    keys = ["point", *points[0].values, "policy", "replication"]
    replications = pd.DataFrame(rows, columns=[*keys, "metric", "value"])
    clamped: dict[str, int] = {}
    for task, values in zip(tasks, metrics, strict=True):
        clamped[label(task)] = clamped.get(label(task), 0) + values["clamped_uploads"]
    # Policies are described as at the first point; one is exact if it is so at every point, as far as it was simulated.
    policies = {policy.label: policy for point in reversed(ready) for policy in reversed(point.policies)}
    forced = {policy.label for point in ready for policy in point.policies if not policy.exact}
    forced |= {name for _, name in left}
    origin = provenance(
        points[0].scenario,
        ready[0].tokens,
        [replace(policies[name], exact=name not in forced) for name in clamped],
        [named for point in ready for named in point.functions.values()],
        list(clamped.values()),
        time.perf_counter() - began_s,
    )
    terms = [
        {
            "warmup_s": point.scenario.warmup_s,
            "duration_s": point.scenario.duration_s,
            "closed_loop": of_point.functions["traffic.kind"].states("closed_loop"),
        }
        for point, of_point in zip(points, ready, strict=True)
    ]
    origin["closed_loop"] = terms[0]["closed_loop"]
    if any(of_point != terms[0] for of_point in terms):
        origin["points"] = terms
    if failures:
        origin["failed"] = [
            {
                "point": points[failure.task.point].words,
                "policy": label(failure.task),
                "replication": failure.task.replication,
                "reason": failure.reason,
            }
            for failure in failures
        ]
    with_tokens = [task for task in tasks if task.scenario.output.tokens]
    run_of = Results(
        summary=pd.DataFrame(),
        replications=replications,
        requests=_gather("requests", tasks, parts, out),
        rounds=_gather("rounds", with_tokens, parts, out) if with_tokens else None,
        tokens=_gather("tokens", with_tokens, parts, out) if with_tokens else None,
        stations=_gather("stations", tasks, parts, None),
        scenario=scenario.model_dump(mode="json", exclude_none=True),
        provenance=origin,
    )
    pooled = with_pooled_quantiles(replications, run_of)
    return replace(run_of, summary=summarise(pooled, ready[0].policies[0].label))


@dataclass(frozen=True)
class Ready:
    """A checked point: its functions and tokens looked up, its policies resolved."""

    functions: NamedFunctions
    tokens: TokenSet
    policies: list[ReadyPolicy]


def _get_ready(scenario: Scenario, allow_plugins: bool, progress: Progress) -> Ready:
    functions = find_names(scenario, allow_plugins=allow_plugins)
    try:
        return _checked(scenario, functions, progress)
    except (UhlmError, OSError, KeyboardInterrupt):
        raise
    except BaseException as error:
        own_functions = [f"{named.key} = '{named.name}'" for named in functions.values() if named.is_own]
        if not own_functions:
            raise
        raise ScenarioError(
            f"{', '.join(own_functions)}: {in_words_with_place(error)}"
        ) from None  # code of the user's own


def _checked(scenario: Scenario, functions: NamedFunctions, progress: Progress) -> Ready:
    settings = scenario.tokens
    if isinstance(settings, ModelsTokens):
        record_missing(scenario, progress)
    tokens = find_tokens(settings)
    tokens.check_max_tokens(scenario.traffic.max_tokens)
    policies = [ready_policy(index, scenario, tokens, functions) for index in range(len(scenario.policy))]
    check_scenario(scenario, policies, functions)
    if isinstance(tokens, Live):
        tokens.keep()
    metric = "" if scenario.precision is None else scenario.precision.metric
    if metric in ENERGY and not scenario.tells_energy:
        raise ScenarioError(f"precision.metric = '{metric}': needs device.power_w or device.radio")
    if scenario.precision is not None and metric not in UNITS:
        hint = did_you_mean(metric, UNITS) or f", such as {', '.join(list(UNITS)[:3])} or ttft_s.p95"
        raise ScenarioError(f"precision.metric = '{metric}': must be a metric of summary.csv{hint}")
    return Ready(functions, tokens, policies)


def record_missing(scenario: Scenario, progress: Progress = no_progress, *, run_answers: bool = False) -> Trace:
    """Return the trace of a scenario with tokens of kind "models" or "live", having recorded what it lacks.

    With ``run_answers`` programs that the models wrote run here. Raises InputError for tokens of another kind.
    """
    tokens = scenario.tokens
    if not isinstance(tokens, ModelsTokens):
        raise InputError(f'{scenario.name}: tokens.kind = "{tokens.kind}": only "models" and "live" can be recorded')
    requests = [rule_request(policy, scenario) for policy in scenario.policy]
    return record(
        RecordingSettings.of(tokens),
        [RuleRequest("hlm")] if isinstance(tokens, LiveTokens) else requests,
        tokens.path,
        progress,
        f"uhlm-sim record {scenario.name}.toml",
        run_answers=run_answers,
    )


def _gather(name: str, tasks: Sequence[Task], parts: Parts, folder: Path | None) -> pd.DataFrame:
    """Put the tasks' tables of one name together; with a folder, as a parquet file there, part by part."""
    columns = {"rounds": ["point", *ROUND_COLUMNS], "tokens": ["point", *TOKEN_COLUMNS]}.get(name)
    if folder is None:
        gathered: pd.DataFrame = pa.concat_tables([parts.table(task, name) for task in tasks]).to_pandas()
        return gathered
    file = folder / f"{name}.parquet"
    being_written = file.with_suffix(".tmp")
    with pq.ParquetWriter(being_written, parts.table(tasks[0], name).schema, compression="zstd") as writer:
        for task in tasks:
            writer.write_table(parts.table(task, name))
    being_written.replace(file)
    return pd.read_parquet(file, columns=columns)


def _identity(scenario: Scenario, tokens: Sequence[TokenSet], named: Sequence[Named]) -> str:
    """Return the hash that identifies a run: of the resolved scenario, the version, the tokens and the files used.

    Edited code of the user's own, other tokens, another recording of SNR, file of requests or table of service times,
    at any point, make another run.
    """
    files = sorted({file for function in named for file in function.files if os.path.isfile(file)})
    digests = [hashlib.sha256(Path(file).read_bytes()).hexdigest() for file in files]
    sources = [inspect.getsource(module) for module in own_modules(named)]
    parts = [VERSION, write_scenario(scenario), *(token_set.digest for token_set in tokens), *sources, *digests]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _claim(out: Path, scenario: Scenario, identity: str, *, resume: bool) -> bool:
    """Claim the run folder; return whether the run in it is finished. Raises InputError."""
    marker = out / SCENARIO
    try:
        there = out.exists() and (not out.is_dir() or any(out.iterdir()))
        if there:
            if not resume:
                raise InputError(
                    f"{out}: is there already; --out names another folder, --resume goes on with an interrupted run"
                )
            if not marker.is_file() or f"# run {identity}" not in marker.read_text(encoding="utf-8", errors="replace"):
                raise InputError(
                    f"{out}: holds something else than a run of this scenario, trace and version; "
                    "--out names the folder"
                )
            if (out / SUMMARY).is_file():
                return True
            refuse_links(out)
        (out / PARTS).mkdir(parents=True, exist_ok=resume)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        if isinstance(error, InputError):
            raise
        raise InputError(f"{out}: can't be made ({error})") from None
    if there:
        return False
    being_written = marker.with_suffix(".tmp")
    try:
        being_written.write_text(f"# run {identity}\n{write_scenario(scenario)}", encoding="utf-8")
        being_written.replace(marker)
    except OSError:  # a full disk: what is left would be nobody's run
        shutil.rmtree(out, ignore_errors=True)
        raise
    return False
