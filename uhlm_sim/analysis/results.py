"""A finished run as tables, in memory or read back from its folder."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from uhlm_sim.analysis import digits as wording
from uhlm_sim.analysis.checksums import unsealed
from uhlm_sim.analysis.figures.plotting import Plots
from uhlm_sim.analysis.measures.intervals import paired_ratio, student_t
from uhlm_sim.analysis.measures.metrics import LEGS, OUTPUT_LAW
from uhlm_sim.analysis.report.notebook import results_html
from uhlm_sim.errors import InputError, did_you_mean

# What figures need of tokens.parquet; the other columns stay on disk.
TOKEN_COLUMNS = ["policy", "replication", "started_s", "committed_s", "decision", "payload_bits", *LEGS]
FILES = (
    "replications.csv",
    "stations.csv",
    "requests.parquet",
    "scenario.resolved.toml",
    "provenance.json",
)
PARTIAL = "summary.partial.csv"  # in summary.csv's place where failed points were left out
ESTIMATE = ("mean", "ci95_low", "ci95_high", "replications")
SUMMARY_COLUMNS = ("policy", "metric", "unit", *ESTIMATE)


@dataclass(frozen=True, repr=False)
class Estimate:
    """A mean, or a ratio of means, with its 95 % interval over replications; one replication has none (NaN)."""

    mean: float
    ci95_low: float
    ci95_high: float
    replications: int

    def __repr__(self) -> str:
        """Show as many digits as the interval gives: "1.34 (1.32 to 1.36), 8 replications"."""
        text, ends = wording.ratio(self.mean, self.ci95_low, self.ci95_high)
        count = f"{self.replications} replication{'s' if self.replications != 1 else ''}"
        return f"{text}{f' ({ends})' if ends else ''}, {count}"


@dataclass(frozen=True, repr=False)
class Results:
    """What a run wrote: tables with the columns of the run folder, the resolved scenario and the provenance.

    `replications` is tidy (point, sweep columns..., policy, replication, metric, value). `tokens` is None
    where the run kept none; of its columns only TOKEN_COLUMNS and `point` are used.
    """

    summary: pd.DataFrame
    replications: pd.DataFrame
    requests: pd.DataFrame
    tokens: pd.DataFrame | None
    stations: pd.DataFrame
    scenario: dict[str, Any]
    provenance: dict[str, Any]

    @classmethod
    def read(cls, run_dir: Path | str) -> "Results":
        """Read a run folder; of tokens.parquet only the columns that figures need.

        A run whose failed points were left out is read as what it is: `failed` tells them. InputError, in one sentence,
        for a folder that is neither that nor a finished run (summary.csv is written last), and for files that can't be
        read or aren't what the run wrote.
        """
        folder = Path(run_dir)
        tokens = folder / "tokens.parquet"
        try:
            is_partial = not (folder / "summary.csv").is_file() and (folder / PARTIAL).is_file()
            summary = PARTIAL if is_partial else "summary.csv"
            for name in (summary, *FILES):
                if not (folder / name).is_file():
                    raise InputError(f"{folder}: not a finished run, it has no {name}")
            columns = ["point", *TOKEN_COLUMNS]
            tables = cls(
                summary=_read_csv(folder / summary),
                replications=_read_csv(folder / "replications.csv"),
                requests=pd.read_parquet(folder / "requests.parquet"),
                tokens=pd.read_parquet(tokens, columns=columns) if tokens.is_file() else None,
                stations=_read_csv(folder / "stations.csv"),
                scenario=tomllib.loads((folder / "scenario.resolved.toml").read_text(encoding="utf-8")),
                provenance=unsealed(json.loads((folder / "provenance.json").read_text(encoding="utf-8")), folder),
            )
        except InputError:
            raise
        except (OSError, ValueError, RecursionError, OverflowError, pa.ArrowException) as problem:
            reason = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
            raise InputError(f"{folder}: can't be read as a run: {reason}") from None
        needed: dict[str, tuple[Sequence[str], pd.DataFrame | dict[str, Any]]] = {
            summary: (SUMMARY_COLUMNS, tables.summary),
            "replications.csv": (("point", "policy", "replication", "metric", "value"), tables.replications),
            "requests.parquet": (("point", "policy", "replication", "arrived_s", "first_token_s"), tables.requests),
            "stations.csv": (("point", "policy", "replication", "station", "at_s"), tables.stations),
            "scenario.resolved.toml": (("name", "warmup_s", "duration_s", "traffic"), tables.scenario),
            "provenance.json": (("policies", "assumptions", "presets"), tables.provenance),
        }
        for file, (names, holder) in needed.items():
            missing = [name for name in names if name not in holder]
            if missing or not len(holder):
                raise InputError(f"{folder}: can't be read as a run: {file} has no {missing[0] if missing else 'rows'}")
        # A folder of before this was written down tells it by the kind of its traffic.
        tables.provenance.setdefault("closed_loop", tables.scenario["traffic"].get("kind", "closed") == "closed")
        numbers = tables.summary[["mean", "ci95_low", "ci95_high", "replications"]].dtypes
        if not all(pd.api.types.is_numeric_dtype(dtype) for dtype in numbers):
            raise InputError(f"{folder}: can't be read as a run: {summary} holds text where numbers belong")
        if is_partial and not tables.failed:
            raise InputError(f"{folder}: not a finished run, it has no summary.csv")
        return tables

    @property
    def closed_loop(self) -> bool:
        """Say whether phones ask again only after their last answer (at the first point); else arrivals are open."""
        return bool(self.provenance["closed_loop"])

    @property
    def window_s(self) -> tuple[float, float]:
        """Return the times in which tokens and requests count: (warmup_s, duration_s)."""
        return float(self.scenario["warmup_s"]), float(self.scenario["duration_s"])

    @property
    def sweep(self) -> list[str]:
        """Return the names of the sweep's columns, none for a single point."""
        return [str(name) for name in self.summary.columns if name not in SUMMARY_COLUMNS]

    @property
    def policies(self) -> list[str]:
        """Return the policies' labels in the run's order."""
        return [str(name) for name in self.summary["policy"].unique()]

    @property
    def forced(self) -> list[str]:
        """Return the policies that ran teacher-forced, on the answers of another one, at any of the points here."""
        told = [str(told["label"]) for told in self.provenance["policies"] if not told["exact"]]
        points = self.replications.groupby("policy")["point"].nunique()
        return [label for label in told if self._points_of_its_own(label) < points.get(label, 1)]

    @property
    def forced_in_part(self) -> list[str]:
        """Return those of them that gave answers of their own at other points of the sweep."""
        return [label for label in self.forced if self._points_of_its_own(label) > 0]

    def _points_of_its_own(self, policy: str) -> int:
        """Count the points at which a policy's own answers were replayed: only there their measures have a value."""
        table = self.replications
        rows = table[(table["policy"] == policy) & table["metric"].isin(OUTPUT_LAW) & table["value"].notna()]
        return int(rows["point"].nunique())

    @property
    def failed(self) -> list[dict[str, Any]]:
        """Return the simulations whose points are missing here: point, policy, replication, reason."""
        return list(self.provenance.get("failed", []))

    @property
    def source(self) -> str:
        """Return "synthetic" where no model was run for the tokens, else nothing: the mark of tables and figures."""
        return source_of(self.provenance)

    @property
    def plot(self) -> Plots:
        """Give the run's figures, each on axes of yours or as a figure of its own."""
        return Plots(self)

    def ratio(self, policy: str, other: str, metric: str) -> Estimate | pd.DataFrame:
        """Return a metric's ratio between two policies, of means, paired by replication (`intervals.paired_ratio`).

        A policy is named by its label, or by its kind if only one has it. Of a sweep, a table with a row for each
        point: the sweep's columns, then mean, ci95_low, ci95_high, replications. Raises InputError for a policy or a
        metric that the run hasn't got.
        """
        return self._estimate(*paired_ratio(self._values(policy, metric), self._values(other, metric)))

    def mean(self, policy: str, metric: str) -> Estimate | pd.DataFrame:
        """Return a policy's mean of a metric with Student's interval over replications, in the form of `ratio`."""
        return self._estimate(*student_t(self._values(policy, metric)))

    def _values(self, policy: str, metric: str) -> NDArray[np.float64]:
        """Return one policy's values of a metric: a row for each point, a column for each replication."""
        table = self.replications
        metrics = [str(name) for name in table["metric"].unique()]
        if metric not in metrics:
            raise InputError(f"metric '{metric}': this run has none{did_you_mean(metric, metrics)}")
        rows = table[table["policy"].isin(self.named(policy)) & (table["metric"] == metric)]
        values = rows.pivot(index="point", columns="replication", values="value")
        points, replications = table["point"].unique(), table["replication"].unique()
        return values.reindex(index=points, columns=replications).to_numpy(dtype=np.float64, na_value=np.nan)

    def named(self, name: str) -> list[str]:
        """Return the labels of the policy that a label or a kind names: a swept one has another label at each point.

        InputError where there is none, or where several of one kind are at the same point.
        """
        labels = {str(label): str(label).partition("(")[0] for label in self.replications["policy"].unique()}
        kinds = labels | {str(told["label"]): str(told["kind"]) for told in self.provenance["policies"]}
        found = [name] if name in labels else [label for label in labels if kinds[label] == name]
        rows = self.replications[self.replications["policy"].isin(found)]
        if not found or rows.groupby("point")["policy"].nunique().max() > 1:
            wrong = "several are of this kind" if found else "this run has none"
            hint = did_you_mean(name, [*labels, *kinds.values()]) if not found else ""
            raise InputError(f"policy '{name}': {wrong}; its policies are {', '.join(labels)}{hint}")
        return found

    def _estimate(self, *estimate: NDArray[Any]) -> Estimate | pd.DataFrame:
        if not self.sweep:
            mean, low, high, count = (column[0] for column in estimate)
            return Estimate(float(mean), float(low), float(high), int(count))
        points = self.replications.drop_duplicates("point")[self.sweep].reset_index(drop=True)
        return points.assign(**dict(zip(ESTIMATE, estimate, strict=True)))

    def __repr__(self) -> str:
        points = len(self.summary[self.sweep].drop_duplicates()) if self.sweep else 1
        parts = (f"{len(self.policies)} policies", f"{points} points" if points > 1 else "1 point")
        return f"<Results of {self.scenario['name']}: {', '.join(parts)}>"

    def _repr_html_(self) -> str:
        return results_html(self)

    def middle_point(self) -> "Results":
        """Return the tables of the sweep's middle point alone; of a run without a sweep, all.

        Policies often coincide at a sweep's ends. Numbers are ordered, words stay as given; of an even number of values
        the upper middle is taken. Where no point has all the middle values, it is the middle one of all points.
        """
        points = self.summary[self.sweep].drop_duplicates(ignore_index=True)
        values = [points[key].drop_duplicates() for key in self.sweep]
        ordered = [each.sort_values() if pd.api.types.is_numeric_dtype(each) else each for each in values]
        middle = {key: each.iloc[len(each) // 2] for key, each in zip(self.sweep, ordered, strict=True)}
        there = bool((points == pd.Series(middle)).all(axis="columns").any()) if middle else True
        return self.at(middle if there else points.iloc[len(points) // 2].to_dict())

    def at(self, values: Mapping[Any, Any]) -> "Results":
        """Return the tables of the points where swept keys have these values.

        Raises InputError for a key that isn't swept and for values that no point has.
        """
        if not values:
            return self
        for key in values:
            if key not in self.sweep:
                known = ", ".join(self.sweep) or "nothing"
                raise InputError(f"'{key}' isn't swept; this run sweeps {known}{did_you_mean(key, self.sweep)}")

        def here(table: pd.DataFrame) -> pd.DataFrame:
            chosen = pd.Series(True, index=table.index)
            for key, value in values.items():  # words and numbers mixed are read back from a file as words
                chosen &= (table[key] == value) | (table[key].astype(str) == str(value))
            return table[chosen].reset_index(drop=True)

        replications = here(self.replications)
        if replications.empty:
            wanted = ", ".join(f"{key} = {value}" for key, value in values.items())
            raise InputError(f"no point of this run has {wanted}")

        def of_points(table: pd.DataFrame) -> pd.DataFrame:
            return table[table["point"].isin(replications["point"])]

        return replace(
            self,
            summary=here(self.summary),
            replications=replications,
            requests=of_points(self.requests),
            tokens=None if self.tokens is None else of_points(self.tokens),
            stations=of_points(self.stations),
        )


def source_of(provenance: Mapping[str, Any]) -> str:
    """Return "synthetic" for a run whose tokens were drawn from a fitted law, else nothing."""
    return "synthetic" if "synthetic" in provenance else ""


def _read_csv(path: Path) -> pd.DataFrame:
    # A policy may be called NA: only an empty field is null. The mark on the rows is in the provenance, too.
    table = pd.read_csv(path, keep_default_na=False, na_values=[""], dtype={"policy": str})
    return table.drop(columns="source", errors="ignore")
