"""Capacity: the largest load at which a cell keeps its objectives, policy by policy."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from uhlm_sim.analysis.figures.style import note_source, save
from uhlm_sim.analysis.measures.intervals import write_table
from uhlm_sim.analysis.run import source_of
from uhlm_sim.errors import InputError
from uhlm_sim.experiment import run
from uhlm_sim.progress import Progress, no_progress
from uhlm_sim.scenario import Scenario
from uhlm_sim.scenario_file import write_scenario
from uhlm_sim.search.figure import capacity_figure, capacity_table, knee
from uhlm_sim.search.objectives import Objective, parse_all
from uhlm_sim.search.output import aligned, between, claim, claimed, compared, heading, ratio_text
from uhlm_sim.search.search import Search

COLUMNS = ["policy", "capacity", "bound", "ci95_low", "ci95_high", "ratio_to_first", "ratio_low", "ratio_high"]
COLUMNS += ["knee", "limited_by", "words"]


@dataclass(frozen=True)
class Capacity:
    """The result of a capacity search.

    `capacities` has a row per policy: `capacity`, the largest load found to keep all objectives; `bound`, ">=" where no
    load up to the search's end broke one and "<" where the least load did; `ci95_low`, `ci95_high`; `ratio_to_first`
    with `ratio_low`, `ratio_high`, where both capacities were found; `knee`; `limited_by`, the objectives that break
    just above; `words`, what must be known besides. `loads` has a row per load tried, policy and metric: mean, 95 %
    interval, replications. `left_aside` names what the scenario asks for and a search doesn't do.
    """

    capacities: pd.DataFrame
    loads: pd.DataFrame
    vary: str
    objectives: tuple[Objective, ...]
    scenario: dict[str, Any]
    provenance: dict[str, Any]
    left_aside: tuple[str, ...] = ()

    def figure(self) -> Figure:
        """Draw each objective's metric against the load."""
        figure = capacity_figure(self.capacities, self.loads, self.vary, self.objectives)
        note_source(figure, self.source)
        return figure

    @property
    def source(self) -> str:
        """Return "synthetic" where no model was run for the tokens, else nothing."""
        return source_of(self.provenance)

    def text(self) -> str:
        """Return the table that a terminal shows, and what must be known to read it."""
        lines = [
            *heading(f"the largest {self.vary}", self.scenario, self.objectives, self.source),
            "a ratio's joins the ends of both, at least 95 %; the knee is where throughput over delay is greatest",
            *([f"left aside: {' and '.join(self.left_aside)} of the scenario"] if self.left_aside else []),
            "",
            *(line.rstrip() for line in aligned(self._shown())),
        ]
        words = self.capacities[self.capacities["words"] != ""]
        return "\n".join([*lines, *(f"{row['policy']}: {row['words']}" for row in words.to_dict("records"))])

    def _repr_html_(self) -> str:
        return str(self._shown().to_html(index=False))

    def _shown(self) -> pd.DataFrame:
        rows = self.capacities.to_dict("records")
        digits = ".0f" if (self.loads["load"] % 1 == 0).all() else ".3g"
        return pd.DataFrame(
            {
                "policy": [row["policy"] for row in rows],
                self.vary: [f"{row['bound']} {row['capacity']:g}".strip() for row in rows],
                "interval": [between(row["ci95_low"], row["ci95_high"], "g") for row in rows],
                "ratio to first (>= 95 %)": [ratio_text(row, is_first=not number) for number, row in enumerate(rows)],
                "knee": ["-" if isnan(row["knee"]) else f"{row['knee']:{digits}}" for row in rows],
                "limited by": [row["limited_by"] or "-" for row in rows],
            }
        )


def capacity(
    scenario: Scenario,
    vary: str,
    slo: Sequence[str],
    *,
    low: float | None = None,
    high: float | None = None,
    tolerance: float = 0.02,
    out: Path | str | None = None,
    jobs: int = -1,
    cluster: str | None = None,
    allow_plugins: bool = False,
    progress: Progress = no_progress,
) -> Capacity:
    """Find the largest load `vary`, a dotted key, at which each policy keeps the objectives `slo`.

    From the scenario's own value the load is doubled or halved, within `low` (1, or a 1024th of the own value) and
    `high` (16 times the own value), until the objectives break on one side and hold on the other; then the gap is
    bisected, to neighbouring integers or to a ratio of 1 + `tolerance`. An objective holds where the mean over the
    replications keeps it. All loads and policies meet the same worlds (same seed), so chance moves their curves
    together; loads tried are shared by all that ask for them.

    The interval is the test turned round: from the largest load whose whole 95 % interval keeps every objective to the
    largest that isn't shown to break one, i.e. the loads at which a test at 2.5 % a side wouldn't tell. A ratio's
    interval is conservative: from the one's lower end over the other's upper to the reverse, though both met the same
    worlds. For errors near normal it covers in at least 95 %, whatever their correlation: two half-widths add up to no
    less than that of a difference. The replications are the scenario's `replications`; its `precision`, and a sweep
    over `vary`, are left aside.

    Loads are what makes things worse: a key whose growth helps, such as a bandwidth, is refused; `plan` finds the least
    of it. Metrics are monotone in the load in expectation only; where one crosses its limit several times by chance,
    one of these crossings is found, and the interval says how far they may lie apart. Latencies of a finite run under
    open arrivals say nothing of a cell that can't keep up: `words` says where the verdict at the capacity is bad.

    With `out` the tables and the figure are written there. Raises InputError for a key, objective or bound that is
    wrong, or a folder that holds something, and whatever `run` raises.
    """
    began_s = time.perf_counter()
    objectives = parse_all(slo)
    search = Search(
        scenario,
        vary,
        objectives,
        low=low,
        high=high,
        tolerance=tolerance,
        simulate=lambda point, tell: run(point, jobs=jobs, cluster=cluster, allow_plugins=allow_plugins, progress=tell),
        progress=progress,
    )
    with claimed(None if out is None else Path(out)):
        result = _searched(search, began_s)
        if out is not None:
            write_capacity(result, out)
    return result


def _searched(search: Search, began_s: float) -> Capacity:
    labels = [policy.label for policy in search.scenario.policy]
    ends = search.follow({label: search.capacity_of(label) for label in labels})
    capacities = pd.DataFrame([ends[label] for label in labels])
    _refuse(search, search.goes_the_wrong_way(is_found="" in set(capacities["bound"])))
    widest = capacities.loc[capacities["bound"] != ">=", "capacity"].max()
    drawn = capacities["capacity"].mask(capacities["bound"] == ">=", search.start if isnan(widest) else widest)
    search.follow({label: search.curve_of(label, load) for label, load in zip(labels, drawn, strict=True)})
    _refuse(search, search.changes_nothing())
    loads = search.table()
    knees = [knee(loads[loads["policy"] == label]) for label in labels]
    return Capacity(
        compared(capacities).assign(knee=knees)[COLUMNS],
        loads,
        search.vary,
        search.objectives,
        search.scenario.model_dump(mode="json", exclude_none=True),
        {**search.provenance, "wall_s": time.perf_counter() - began_s},
        tuple(search.left_aside),
    )


def _refuse(search: Search, reason: str) -> None:
    if reason:
        raise InputError(f"--vary {search.vary}: {reason}")


def write_capacity(result: Capacity, folder: Path | str) -> None:
    """Write loads.csv, the figure with its data, the scenario and the provenance, and last capacity.csv.

    Raises InputError for a folder that holds something.
    """
    folder = Path(folder)
    claim(folder)
    source = result.source
    write_table(result.loads, folder / "loads.csv", source)
    (folder / "provenance.json").write_text(json.dumps(result.provenance, indent=2) + "\n", encoding="utf-8")
    flags = "".join(f"# --slo {objective}\n" for objective in result.objectives)
    resolved = write_scenario(Scenario.model_validate(result.scenario))
    (folder / "scenario.resolved.toml").write_text(f"# --vary {result.vary}\n{flags}{resolved}", encoding="utf-8")
    save(result.figure(), folder / "figures", "capacity", source)
    drawn = capacity_table(result.capacities, result.loads, result.objectives)
    write_table(drawn, folder / "figures" / "capacity.csv", source)
    being_written = folder / "capacity.tmp"
    write_table(result.capacities, being_written, source)
    being_written.replace(folder / "capacity.csv")
