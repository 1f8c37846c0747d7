"""The points of a sweep, in order, with the estimates found there, and phrases for where something holds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import isfinite, nan
from typing import Any

import pandas as pd

from uhlm_sim.analysis.digits import in_words, listed, plain
from uhlm_sim.analysis.measures.precision import FEWEST, relative_half_widths
from uhlm_sim.analysis.measures.quantiles import with_pooled_quantiles
from uhlm_sim.analysis.measures.verdicts import verdicts
from uhlm_sim.analysis.measures.warmup import propose_warmup
from uhlm_sim.analysis.report.headline import Estimate
from uhlm_sim.analysis.run import Run
from uhlm_sim.tables import OUTPUT_LAW

NONE = (nan, nan, nan)
STABLE = "STABLE"  # the one verdict that is no alarm


@dataclass(frozen=True)
class Points:
    """A run's points: groups of equal values of some keys, within which one key rises.

    `along` is the key that rises ("" for a single point) and `keys` are those that part the groups: of two swept keys
    the numeric one with most values rises, a `variant` before all others, and a key whose values follow from the
    others' (in a zipped sweep) parts nothing. `at` gives each point's value of `along`, `groups` the numbers of the
    points in each group, in order of `along`, with what the group is called. Estimates have the digits of
    `summary.csv`, so that what is said of tables in memory and of the same run's folder is the same.
    """

    along: str
    is_ordered: bool
    at: list[object]
    groups: list[tuple[str, list[int]]]
    rows: list[dict[str, Any]]
    estimates: dict[tuple[int, str, str], Estimate]

    @classmethod
    def of(cls, results: Run) -> "Points":
        """Find the points of a run in its summary."""
        summary, sweep = results.summary, results.sweep
        table = summary[sweep].drop_duplicates(ignore_index=True) if sweep else pd.DataFrame(index=[0])
        number = summary.groupby(sweep, sort=False, dropna=False).ngroup() if sweep else [0] * len(summary)
        numeric = [name for name in sweep if _is_numeric(table[name])]
        numeric = [] if "variant" in sweep else numeric
        along = max(numeric or sweep, key=lambda name: (name == "variant", table[name].nunique()), default="")
        keys: list[str] = []
        for name in sweep:
            if name != along and len(table[[*keys, name, along]].drop_duplicates()) > len(
                table[[*keys, along]].drop_duplicates()
            ):
                keys.append(name)
        order = table.sort_values(along, kind="stable").index if along in numeric else table.index
        groups: dict[str, list[int]] = {}
        for point in order:
            name_of_group = ", ".join(in_words(name, [table.at[point, name]]) for name in keys)
            groups.setdefault(name_of_group, []).append(int(point))
        by_name = dict(sorted(groups.items(), key=lambda group: min(group[1])))
        values = summary[["mean", "ci95_low", "ci95_high"]].map(lambda value: float(f"{value:.9g}"))
        labels = zip(number, summary["policy"].astype(str), summary["metric"], strict=True)
        return cls(
            along=along,
            is_ordered=along in numeric,
            at=list(table[along]) if along else [""],
            groups=list(by_name.items()),
            rows=[{str(k): v for k, v in row.items()} for row in table.to_dict("records")] if sweep else [{}],
            estimates=dict(zip(labels, values.itertuples(index=False, name=None), strict=True)),
        )

    def __len__(self) -> int:
        return len(self.at)

    def get(self, point: int, policy: str, metric: str) -> Estimate:
        """Return a policy's estimate of a metric at a point; NaN where there is none."""
        return self.estimates.get((point, policy, metric), NONE)

    def all(self, policy: str, metric: str) -> list[Estimate]:
        """Return a policy's estimates of a metric at every point."""
        return [self.get(point, policy, metric) for point in range(len(self))]

    def value(self, *points: int) -> str:
        """Say values of the key that rises: "10 MHz", "10 and 20 MHz"."""
        return in_words(self.along, [self.at[point] for point in points])

    def between(self, short: Sequence[int], enough: Sequence[int], members: Sequence[int]) -> str:
        """Write the two swept values between which a level is crossed: `short` don't reach it, `enough` pass it."""
        places = {point: place for place, point in enumerate(members)}
        rises = places[short[0]] < places[enough[0]]
        least = max(short, key=places.__getitem__) if rises else max(enough, key=places.__getitem__)
        most = min(enough, key=places.__getitem__) if rises else min(short, key=places.__getitem__)
        return f"between {in_words(self.along, [self.at[least], self.at[most]], bare=True)}"

    def in_order(self) -> list[int]:
        """Return the numbers of the points, group by group."""
        return [point for _, points in self.groups for point in points]

    def values(self, point: int) -> list[str]:
        """Return a point's values of the swept keys as text."""
        return [plain(value) for value in self.rows[point].values()]

    def words(self, point: int) -> str:
        """Name a point by all of its keys: "uplink.snr_rule = per-hertz, uplink.bandwidth_hz = 5000000"."""
        return ", ".join(f"{key} = {plain(value)}" for key, value in self.rows[point].items())

    def place(self, point: int) -> str:
        """Say in a sentence where a point is: " at 10 MHz, per-hertz"; nothing for a single one."""
        if not self.along:
            return ""
        group = next(name for name, points in self.groups if point in points)
        return f" at {self.value(point)}" + (f" with {group}" if group else "")

    def where(self, holds: Sequence[bool]) -> str:
        """Say where something holds that holds somewhere: " from 10 phones on", " with 5 dB up to 20 phones"."""
        if all(holds):
            return " everywhere" if len(self) > 1 else ""
        runs = groupby(self.groups, key=lambda group: self._within(group[1], holds))
        places = [(within, [group for group, _ in groups]) for within, groups in runs]
        if len(places) == 1:
            return f" {places[0][0]}"
        return " " + ", ".join(f"with {' or '.join(groups)} {within}" for within, groups in places if within)

    def by_policy(self, policies: Sequence[str], holds: Callable[[int, str], bool]) -> str:
        """Say under which policies and where something holds: "hlm and llm from 20 phones on; slm everywhere"."""
        policies_at: dict[str, list[str]] = {}
        for policy in policies:
            at = [holds(point, policy) for point in range(len(self))]
            if any(at):
                policies_at.setdefault(self.where(at), []).append(policy)
        return "; ".join(f"{listed(names)}{where}" for where, names in policies_at.items())

    def _within(self, points: list[int], holds: Sequence[bool]) -> str:
        """Say where along one group something holds; "" for nowhere."""
        here = [point for point in points if holds[point]]
        if not here:
            return ""
        if len(here) == len(points):
            return "everywhere"
        first, last = points.index(here[0]), points.index(here[-1])
        ends = self.value(here[0]), self.value(here[-1])
        if self.is_ordered and len(here) > 1 and last - first + 1 == len(here):
            if last + 1 == len(points):
                return f"from {ends[0]} on"
            return f"up to {ends[1]}" if first == 0 else f"from {ends[0]} to {ends[1]}"
        return f"at {self.value(*here)}"


def verdicts_of(results: Run) -> dict[tuple[int, str], tuple[str, str]]:
    """Return for each point and policy the verdict on whether the cell kept up: its word, "" for none, and why."""
    judged = verdicts(results.replications, results.terms)
    place = places_of(results)
    return {(place[row["point"]], row["policy"]): (row["verdict"], row["words"]) for row in judged.to_dict("records")}


def failures_of(results: Run) -> list[str]:
    """Return the simulations that failed: a line for each point, policy and reason."""
    failures = [(failure["point"] or "the run", failure["policy"], failure["reason"]) for failure in results.failed]
    counts = {key: failures.count(key) for key in failures}
    return [
        f"{point}, {policy}: {reason} ({count} replication{'s' if count > 1 else ''})"
        for (point, policy, reason), count in counts.items()
    ]


def replications_of(results: Run) -> str:
    """State the number of replications, and whether the scenario asked for fewer than a precision needs."""
    counts = results.replications.groupby("point")["replication"].nunique()
    fewest, most = int(counts.min()), int(counts.max())
    text = f"{most} replication{'s' if most > 1 else ''}" if fewest == most else f"{fewest} to {most} replications"
    given = int(results.scenario.get("replications", FEWEST))
    if results.scenario.get("precision") and given < FEWEST:
        text += f" ({given} asked for, but a precision takes at least {FEWEST})"
    return text


def unmet_precision(results: Run, points: Points) -> str:
    """State where the target precision was missed with the most replications allowed; "" for nowhere."""
    target = results.scenario.get("precision")
    if not target:
        return ""
    table = results.replications[results.replications["metric"] == target["metric"]]
    table = with_pooled_quantiles(table, results)
    place = places_of(results)
    half: dict[tuple[int, str], float] = {}
    for point, rows in table.groupby("point", sort=False):
        values = rows.pivot(index="replication", columns="policy", values="value")[list(rows["policy"].unique())]
        widths = relative_half_widths(values, str(values.columns[0]))
        half |= {(place[point], str(policy)): float(width) for policy, width in widths.items()}
    missed = {key: width for key, width in half.items() if width > target["relative"]}
    if not missed:
        return ""
    where = points.by_policy(results.policies, lambda *key: key in missed)
    of = f"of the ratio to {results.policies[0]}" if len(results.policies) > 1 else "of the mean"
    widest = [width for width in missed.values() if isfinite(width)]
    most = f", up to {100 * max(widest):.2g} % of it" if widest else ""
    return (
        f"The precision asked for was not reached with {target['max_replications']} replications, the most allowed: "
        f"in {target['metric']} the half-width {of} is above {100 * target['relative']:g} % of it under {where}{most}."
    )


def forced_where(results: Run, points: Points) -> str:
    """Say which policies ran teacher-forced, and at which points; "" for none."""
    forced = results.forced

    def is_forced(point: int, policy: str) -> bool:
        here = (point, policy, "skip_rate") in points.estimates
        return policy in forced and here and not any(isfinite(points.get(point, policy, m)[0]) for m in OUTPUT_LAW)

    return points.by_policy(results.policies, is_forced)


def warmups_of(results: Run) -> dict[tuple[int, str], tuple[float, str]]:
    """Return for each point and policy what MSER-5 would cut, NaN where it finds no steady state, and why."""
    place, terms = places_of(results), results.terms
    proposed = [
        propose_warmup(rows, warmup_s=terms[point].warmup_s, duration_s=terms[point].duration_s)
        for point, rows in results.requests.groupby("point", sort=False)
    ]
    return {
        (place[row["point"]], row["policy"]): (row["proposed_s"], row["words"])
        for of_point in proposed
        for row in of_point.to_dict("records")
    }


def places_of(results: Run) -> dict[Any, int]:
    """Return the place of each point's number: those that failed are missing."""
    return {point: place for place, point in enumerate(results.replications["point"].drop_duplicates())}


def alarms(
    points: Points, policies: Sequence[str], judged: Mapping[tuple[int, str], tuple[str, str]]
) -> list[tuple[str, str]]:
    """Return each verdict's word but STABLE with the policies and points it was given to."""
    words = dict.fromkeys(word for word, _ in judged.values() if word not in ("", STABLE))
    return [
        (word, points.by_policy(policies, lambda *key, word=word: judged.get(key, ("", ""))[0] == word))
        for word in words
    ]


def _is_numeric(column: pd.Series) -> bool:
    return bool(pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column))
