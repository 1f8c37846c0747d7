"""Plans: the least of a resource with which a cell keeps its objectives, policy by policy, at each point of a sweep."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from uhlm_sim.analysis.digits import in_words, plain
from uhlm_sim.analysis.figures.style import note_source, save
from uhlm_sim.analysis.measures.intervals import write_table
from uhlm_sim.analysis.run import source_of
from uhlm_sim.errors import InputError
from uhlm_sim.experiment import run
from uhlm_sim.progress import Progress, no_progress
from uhlm_sim.scenario import Scenario
from uhlm_sim.scenario_file import sweep_points, write_scenario
from uhlm_sim.search.figure import need_figure
from uhlm_sim.search.objectives import Objective, parse_all
from uhlm_sim.search.output import aligned, between, claim, claimed, compared, heading, ratio_text
from uhlm_sim.search.search import Search

COLUMNS = ["policy", "needed", "bound", "ci95_low", "ci95_high", "ratio_to_first", "ratio_low", "ratio_high"]
COLUMNS += ["limited_by", "words"]


@dataclass(frozen=True)
class Plan:
    """What each policy needs of a resource.

    `needs` has a row per policy at each point of the scenario's sweep (whose columns come first): `needed`, the least
    value found to keep all objectives; `bound`, "<=" where no value down to the search's end broke one and ">" where
    the largest did; `ci95_low`, `ci95_high`; `ratio_to_first` with `ratio_low`, `ratio_high`, where both were found;
    `limited_by`, the objectives that break just below; `words`, what must be known besides. `tried` has a row per value
    tried, policy and metric: mean, 95 % interval, replications. `left_aside` names what the scenario asks for and a
    search doesn't do, `bounds` the least and the largest value that it may try (at the sweep's first point).
    """

    needs: pd.DataFrame
    tried: pd.DataFrame
    vary: str
    sweep: tuple[str, ...]
    objectives: tuple[Objective, ...]
    scenario: dict[str, Any]
    provenance: dict[str, Any]
    left_aside: tuple[str, ...] = ()
    bounds: tuple[float, float] = (nan, nan)

    def figure(self) -> Figure:
        """Draw what each policy needs, point by point."""
        figure = need_figure(self.needs, self.vary, self.sweep)
        note_source(figure, self.source)
        return figure

    @property
    def source(self) -> str:
        """Return "synthetic" where no model was run for the tokens, else nothing."""
        return source_of(self.provenance)

    def text(self) -> str:
        """Return the table that a terminal shows, and what must be known to read it."""
        lines = [
            *heading(f"the least {self.vary}", self.scenario, self.objectives, self.source),
            "a ratio's joins the ends of both, at least 95 %",
            *([f"left aside: {' and '.join(self.left_aside)} of the scenario"] if self.left_aside else []),
            "",
            *(line.rstrip() for line in aligned(self._shown())),
        ]
        words = self.needs[self.needs["words"] != ""].to_dict("records")
        return "\n".join([*lines, *(f"{self._place(row)}{row['policy']}: {row['words']}" for row in words)])

    def _place(self, row: Mapping[Any, Any]) -> str:
        return "".join(f"{in_words(key, [row[key]])}, " for key in self.sweep)

    def _repr_html_(self) -> str:
        return str(self._shown().to_html(index=False))

    def _shown(self) -> pd.DataFrame:
        rows = self.needs.to_dict("records")
        columns = {key: [plain(row[key]) for row in rows] for key in self.sweep}
        return pd.DataFrame(
            {
                **columns,
                "policy": [row["policy"] for row in rows],
                self.vary: [f"{row['bound']} {row['needed']:g}".strip() for row in rows],
                "interval": [between(row["ci95_low"], row["ci95_high"], "g") for row in rows],
                "ratio to first (>= 95 %)": [
                    ratio_text(row, is_first=row["ratio_low"] == row["ratio_high"] == 1.0) for row in rows
                ],
                "limited by": [row["limited_by"] or "-" for row in rows],
            }
        )


def plan(
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
) -> Plan:
    """Find the least value of the resource `vary`, a dotted key, at which each policy keeps the objectives `slo`.

    It is `capacity` the other way round, with the same search, intervals and records: from the scenario's own value the
    resource is halved or doubled until the objectives break on one side and hold on the other, then the gap is
    bisected. The interval goes from the least value that isn't shown to break an objective to the least whose whole
    95 % interval keeps every one. A scenario that sweeps other keys has a plan at each point: how much bandwidth stands
    in for a GPU, say. Left out: prices.

    With `out` the tables and the figure are written there. Raises InputError for a key, objective or bound that is
    wrong, for a key whose growth harms, or a folder that holds something, and whatever `run` raises.
    """
    began_s = time.perf_counter()
    objectives = parse_all(slo)
    others = {key: values for key, values in scenario.sweep.items() if key not in (vary, "zip")}
    left_aside = [f"the sweep over {vary}"] if vary in scenario.sweep else []
    if left_aside and others and scenario.sweep.get("zip"):
        raise InputError(
            f"--vary {vary}: {scenario.name} sweeps it in pairs with {', '.join(others)}; sweep these alone"
        )
    given = {key: values for key, values in scenario.sweep.items() if others and key != vary}
    points = sweep_points(scenario.model_copy(update={"sweep": given}))
    searches = [
        Search(
            point.scenario,
            vary,
            objectives,
            low=low,
            high=high,
            tolerance=tolerance,
            simulate=lambda point, tell: run(
                point, jobs=jobs, cluster=cluster, allow_plugins=allow_plugins, progress=tell
            ),
            progress=progress,
            helps=True,
            place=f"{point.words}, " if point.values else "",
        )
        for point in points
    ]
    with claimed(None if out is None else Path(out)):
        needs, tried, doubts = [], [], []
        for point, search in zip(points, searches, strict=True):
            at = dict(zip(point.values, point.cells, strict=True))
            found, table, doubt = _searched(search)
            needs.append(found.assign(**at)[[*at, *COLUMNS]])
            tried.append(table.assign(**at)[[*at, *table.columns]])
            doubts.append(doubt)
        if all(doubts):
            raise InputError(f"--vary {vary}: {doubts[0]}")
        result = Plan(
            pd.concat(needs, ignore_index=True),
            pd.concat(tried, ignore_index=True),
            vary,
            tuple(points[0].values),
            objectives,
            searches[0].scenario.model_copy(update={"sweep": given}).model_dump(mode="json", exclude_none=True),
            {**searches[0].provenance, "wall_s": time.perf_counter() - began_s},
            (*left_aside, *searches[0].left_aside),
            (searches[0].low, searches[0].high),
        )
        if out is not None:
            write_plan(result, out)
    return result


def _searched(search: Search) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """Return what each policy needs, what was tried, and why the key may be no resource at all here, "" if it is."""
    labels = [policy.label for policy in search.scenario.policy]
    ends = search.follow({label: search.capacity_of(label) for label in labels})
    needs = pd.DataFrame([ends[label] for label in labels])
    doubt = search.goes_the_wrong_way(is_found="" in set(needs["bound"])) or search.changes_nothing()
    if doubt:
        needs["words"] = [words or doubt for words in needs["words"]]
    needs = compared(needs).rename(columns={"capacity": "needed"})
    return needs, search.table().rename(columns={"load": "value"}), doubt


def write_plan(result: Plan, folder: Path | str) -> None:
    """Write tried.csv, the figure with its data, the scenario and the provenance, and last plan.csv.

    Raises InputError for a folder that holds something.
    """
    folder = Path(folder)
    claim(folder)
    source = result.source
    write_table(result.tried, folder / "tried.csv", source)
    (folder / "provenance.json").write_text(json.dumps(result.provenance, indent=2) + "\n", encoding="utf-8")
    flags = [f"--vary {result.vary}", *(f"--slo {objective}" for objective in result.objectives)]
    flags += [f"--low {result.bounds[0]:g} --high {result.bounds[1]:g}"]
    resolved = write_scenario(Scenario.model_validate(result.scenario))
    text = "".join(f"# {flag}\n" for flag in flags) + resolved
    (folder / "scenario.resolved.toml").write_text(text, encoding="utf-8")
    save(result.figure(), folder / "figures", "plan", source)
    write_table(result.needs, folder / "figures" / "plan.csv", source)
    being_written = folder / "plan.tmp"
    write_table(result.needs, being_written, source)
    being_written.replace(folder / "plan.csv")
