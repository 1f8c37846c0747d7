"""The search for the largest load that keeps objectives, or the least resource; policies share its simulations."""

from collections.abc import Callable, Generator, Mapping, Sequence
from math import inf, isnan, nan, sqrt
from typing import Any

import numpy as np
import pandas as pd

from uhlm_sim.analysis.measures.energy import ENERGY
from uhlm_sim.analysis.measures.metrics import UNITS
from uhlm_sim.analysis.measures.quantiles import with_pooled_quantiles
from uhlm_sim.analysis.measures.verdicts import verdicts
from uhlm_sim.analysis.results import Results
from uhlm_sim.errors import InputError, ScenarioError
from uhlm_sim.progress import Progress
from uhlm_sim.scenario import READ_BY, Output, Scenario
from uhlm_sim.scenario_file import sweep_points
from uhlm_sim.search.objectives import Objective, Seen, keeps, may_keep, surely_keeps

BESIDE = ("token_throughput", "requests_present", "uplink_utilisation", "bs_utilisation")  # kept for every load
REACH = 16  # times the scenario's own value, where the search ends unless told
CURVE = (0.25, 0.5, 0.75, 1.3)  # of a capacity: loads that a curve is drawn through, besides those searched
NEAR = 0.08  # a load tried already that is as near as this will do for the curve
BAD = ("OVERLOADED", "CUT SHORT", "BACKLOGGED")
UNSET = {True: " (not given)", False: ""}


Steps = Generator[float, None, Any]  # yields loads to be simulated, and goes on when they are
Holds = Callable[[Sequence[Objective], Seen], bool]


class Search:
    """Bisection for the largest load, or the least resource; one generator per policy yields values to simulate.

    A load makes things worse as it grows. A resource `helps`: then the least value that keeps the objectives is looked
    for, and what is said of loads holds the other way round. `simulate` runs a scenario of one point and some of the
    policies; `place` stands before what progress is told, for searches that follow one another.
    Raises InputError for a key that holds no number above 0, a scenario that sweeps something else, and bounds that
    leave no load.
    """

    def __init__(
        self,
        scenario: Scenario,
        vary: str,
        objectives: Sequence[Objective],
        *,
        low: float | None,
        high: float | None,
        tolerance: float,
        simulate: Callable[[Scenario, Progress], Results],
        progress: Progress,
        helps: bool = False,
        place: str = "",
    ) -> None:
        self.helps, self.name = helps, "plan" if helps else "capacity"
        if set(scenario.sweep) - {vary, "zip"}:
            raise InputError(f"capacity looks at one cell, and {scenario.name} sweeps {', '.join(scenario.sweep)}")
        if not 1e-3 <= tolerance <= 1.0:
            raise InputError(f"tolerance = {tolerance:g}: must be from 0.001 to 1")
        needing = [o.metric for o in objectives if o.metric in ("goodput", "slo_attainment")]
        if needing and not scenario.slo.model_dump(exclude_none=True):
            raise InputError(f"--slo {needing[0]}: counts what meets the scenario's [slo], and it has none")
        if any(o.metric in ENERGY for o in objectives) and not scenario.tells_energy:
            raise InputError(f"--slo {ENERGY[0]}: needs device.power_w or device.radio, and the scenario has neither")
        sweep = [f"the sweep over {vary}"] if vary in scenario.sweep else []
        self.left_aside = [*sweep, *(["the precision"] if scenario.precision else [])]
        self.scenario = scenario.model_copy(update={"sweep": {}, "precision": None, "output": Output(tokens=False)})
        self.vary, self.objectives = vary, tuple(objectives)
        own_load = self._own_load()
        self.whole = isinstance(own_load, int)
        least = (1 if self.whole else own_load / 1024) if low is None else low
        most = self._reach(own_load) if high is None else high
        self.low, self.high = self._bound("--low", least), self._bound("--high", most)
        if self.low >= self.high:
            raise InputError(f"--low {least:g}{UNSET[low is None]}: must be below --high {most:g}{UNSET[high is None]}")
        self.start = min(max(own_load, self.low), self.high)
        self.seen: dict[tuple[float, str], Seen] = {}
        self.provenance: dict[str, Any] = {}
        self._helped: dict[str, str] = {}
        self._tolerance, self._run, self._progress, self._place = tolerance, simulate, progress, place

    def follow(self, searches: Mapping[str, Steps]) -> dict[str, Any]:
        """Run all policies' searches, each load once for all that need it; return label -> a search's result."""
        ends: dict[str, Any] = {}
        while len(ends) < len(searches):
            labels_at: dict[float, list[str]] = {}
            for label, steps in searches.items():
                if label not in ends:
                    try:
                        labels_at.setdefault(next(steps), []).append(label)
                    except StopIteration as stop:
                        ends[label] = stop.value
            for load, labels in labels_at.items():
                self._simulate(load, [label for label in labels if (load, label) not in self.seen])
        return ends

    def capacity_of(self, policy: str) -> Steps:
        """Look for a policy's capacity, or its need, and the interval; the end is a row of the table of capacities."""
        holding, breaking = yield from self._edge(policy, keeps, self.start, check=True)
        easiest = max if self.helps else min
        capacity = easiest(load for load, label in self.seen if label == policy) if holding is None else holding
        # Beyond all values tried: none surely keeps the objectives, none is shown to break one.
        none_sure, none_broken = (inf, 0.0) if self.helps else (0.0, inf)
        sure, broken = none_sure, none_broken
        if self.scenario.replications == 1:
            sure, broken = nan, nan
        elif policy not in self._helped:
            sure = (yield from self._edge(policy, surely_keeps, capacity))[0] or none_sure
            broken = (yield from self._edge(policy, may_keep, capacity))[1] or none_broken
            if self.whole:
                broken += 1 if self.helps else -1
        limits, words = self._limits(policy, breaking)
        if policy in self._helped:
            words += [self._helped[policy]]
        elif holding is None:
            what = "largest value" if self.helps else "least load"
            words += [f"the {what} tried, {capacity:g}, breaks it"]
        elif breaking is None:
            what = "value down" if self.helps else "load up"
            words += [f"no {what} to {capacity:g} breaks it"]
        if holding is not None and self.seen[capacity, policy].warning:
            words += [f"at {capacity:g} {self.seen[capacity, policy].warning}"]
        low, high = (broken, sure) if self.helps else (sure, broken)
        bounds = (">", "<=") if self.helps else ("<", ">=")
        return {
            "policy": policy,
            "capacity": float(capacity),
            "bound": bounds[0] if holding is None else bounds[1] if breaking is None else "",
            "ci95_low": float(low),
            "ci95_high": float(high),
            "limited_by": limits,
            "words": "; ".join(words),
        }

    def curve_of(self, policy: str, capacity: float) -> Steps:
        """Yield the loads that a policy's curve lacks around a capacity."""
        for share in CURVE:
            load = self._rounded(share * capacity)
            tried = [other for other, label in self.seen if label == policy]
            if self.low <= load <= self.high and all(abs(other - load) > NEAR * load for other in tried):
                yield load

    def goes_the_wrong_way(self, *, is_found: bool) -> str:
        """Say why, if no policy's capacity is found and more of a load helps one, or of a resource harms; else ""."""
        if is_found or not self._helped:
            return ""
        other = "capacity finds the largest load" if self.helps else "plan finds the least value that is enough"
        return f"{next(iter(self._helped.values()))}; uhlm-sim {other}"

    def changes_nothing(self) -> str:
        """Say so, if no metric of any policy differs between two loads, else ""; one load alone says nothing."""
        for policy in self.scenario.policy:
            first, *others = (seen.values for (_, label), seen in self.seen.items() if label == policy.label)
            if not others or any(not np.array_equal(first[m], o[m], equal_nan=True) for o in others for m in first):
                return ""
        tried = [load for load, _ in self.seen]
        return f"has no effect in this scenario; from {min(tried):g} to {max(tried):g} no metric of any policy changes"

    def table(self) -> pd.DataFrame:
        """Return a row for each load, policy and metric kept: mean, 95 % interval, replications."""
        metrics = dict.fromkeys([*(objective.metric for objective in self.objectives), *BESIDE])
        rows = [
            (load, policy.label, metric, UNITS[metric], *self.seen[load, policy.label].estimate(metric))
            for policy in self.scenario.policy
            for load in sorted(load for load, label in self.seen if label == policy.label)
            for metric in metrics
        ]
        columns = ["load", "policy", "metric", "unit", "mean", "ci95_low", "ci95_high", "replications"]
        return pd.DataFrame(rows, columns=columns).astype({"load": np.float64})

    def _own_load(self) -> int | float:
        if self.vary.startswith("policy."):
            raise InputError(
                f"--vary {self.vary}: belongs to one policy, and {self.name} compares policies at one value"
            )
        kind = self.scenario.traffic.kind
        readers = READ_BY.get(self.vary.removeprefix("traffic."), (kind,))
        if kind not in readers and ":" not in kind:
            raise InputError(f"--vary {self.vary}: belongs to {' or '.join(readers)} traffic, and this one is {kind}")
        if kind == "replay" and self.vary == "traffic.devices":
            raise InputError(f"--vary {self.vary}: a request file brings its own load, whoever its rows are given to")
        load: Any = self.scenario.model_dump()
        for part in self.vary.split("."):
            if not isinstance(load, dict) or part not in load:
                self._point(1)  # says what is wrong with the key
            load = load[part]
        if isinstance(load, bool) or not isinstance(load, int | float):
            raise InputError(f"--vary {self.vary}: holds {load!r}, not a number")
        if load <= 0:
            raise InputError(f"--vary {self.vary}: is {load:g}; the search needs a number above 0 to start from")
        return load

    def _bound(self, flag: str, load: float) -> float:
        if not 0 < load < inf or (self.whole and load % 1):
            number = "whole number" if self.whole else "number"
            raise InputError(f"{flag} {load:g}: must be a {number} above 0, as {self.vary} is")
        load = int(load) if self.whole else float(load)
        try:
            self._point(load)
        except ScenarioError as error:
            raise InputError(f"{flag} {load:g}: {error}") from None
        return load

    def _point(self, load: float) -> Scenario:
        return sweep_points(self.scenario.model_copy(update={"sweep": {self.vary: [load]}}))[0].scenario

    def _reach(self, own: float) -> float:
        """Return the largest load that a search goes to by itself: one that a scenario may have."""
        high = REACH * own
        while high > own:
            try:
                self._point(high)
                break
            except ScenarioError:
                high = high // 2 if self.whole else high / 2
        return high

    def _edge(self, policy: str, holds: Holds, start: float, *, check: bool = False) -> Steps:
        """Return the neighbours (load that holds, load that doesn't); None for one beyond the bounds."""
        load = start
        holding: float | None = None
        breaking: float | None = None
        while holding is None or breaking is None:
            former, held = load, holds(self.objectives, (yield from self._at(policy, load)))
            if held:
                holding = load
            else:
                breaking = load
            upwards = held != self.helps  # to where it is harder, or easier
            load = min(self._above(policy, load), self.high) if upwards else max(self._below(policy, load), self.low)
            if load == former:
                return holding, breaking
            if check and (holding is None or breaking is None):
                yield from self._at(policy, load)
                if self._is_helped(policy, start, load, held):
                    return (former, None) if held else (None, former)
        while (middle := self._between(*sorted((holding, breaking)))) is not None:
            if holds(self.objectives, (yield from self._at(policy, middle))):
                holding = middle
            else:
                breaking = middle
        return holding, breaking

    def _at(self, policy: str, load: float) -> Steps:
        if (load, policy) not in self.seen:
            yield load
        return self.seen[load, policy]

    def _above(self, policy: str, load: float) -> float:
        return min((other for other, label in self.seen if label == policy and other > load), default=2 * load)

    def _below(self, policy: str, load: float) -> float:
        half = load // 2 if self.whole else load / 2
        return max((other for other, label in self.seen if label == policy and other < load), default=half)

    def _between(self, least: float, most: float) -> float | None:
        if self.whole:
            return (least + most) // 2 if most - least > 1 else None
        return self._rounded(sqrt(least * most)) if most > least * (1 + self._tolerance) else None

    def _rounded(self, load: float) -> float:
        return round(load) if self.whole else float(f"{load:.5g}")

    def _is_helped(self, policy: str, one: float, other: float, held: bool) -> bool:
        """Say whether more load helps, or more of a resource harms: what is broken at both, or all that holds at one.

        By a quarter, in every one of several replications: chance is too small for that.
        """
        small, large = sorted((one, other))
        if self.helps and (self.seen[one, policy].warning or self.seen[other, policy].warning):
            return False  # in a starved cell only the quick requests are seen, the more of them the slower
        helped = {}
        for objective in self.objectives:
            metric = objective.metric
            before, after = (self.seen[load, policy].values[metric] for load in (small, large))
            means = [self.seen[load, policy].estimate(metric)[0] for load in (small, large)]
            gain = before - after if objective.at_most != self.helps else after - before
            much = (gain > 0.25 * abs(before)).all()
            if len(before) > 1 and much and (held or max(map(objective.margin, means)) < 0):
                helped[objective] = f"{metric} is {means[0]:.3g} at {small:g} and {means[1]:.3g} at {large:g}"
        if len(helped) < (len(self.objectives) if held else 1):
            return False
        objective, reason = next(iter(helped.items()))
        how = "worse" if self.helps else "better"
        self._helped[policy] = f"{policy} keeps {objective} the {how} the larger it is ({reason})"
        return True

    def _limits(self, policy: str, load: float | None) -> tuple[str, list[str]]:
        """Return the objectives that break at a load, and what must be said of those without a value."""
        if load is None:
            return "", []
        means = {str(o): (o, self.seen[load, policy].estimate(o.metric)[0]) for o in self.objectives}
        broken = [name for name, (objective, mean) in means.items() if not objective.margin(mean) >= 0]
        none = [f"{o.metric} has no value at {load:g}" for o, mean in means.values() if isnan(mean)]
        return " and ".join(broken), none

    def _simulate(self, load: float, labels: Sequence[str]) -> None:
        if not labels:
            return
        point = self._point(load)
        chosen = [policy for policy in point.policy if policy.label in labels]
        needed = [*chosen, *(point.matched(policy) for policy in chosen if policy.skip_rate == "matched")]
        policies = [policy for policy in point.policy if policy in needed]
        words = f"{self._place}{self.vary} = {load:g}: {', '.join(policy.label for policy in policies)}"

        def tell(what: str, done: int, total: int) -> None:
            if what == "simulating":
                self._progress(words, done, total)

        results = self._run(point.model_copy(update={"policy": policies}), tell)
        self.provenance = self.provenance or results.provenance
        judged = verdicts(results.replications, results.terms).set_index("policy")
        pooled = with_pooled_quantiles(results.replications, results)
        for label, rows in pooled.groupby("policy", sort=False):
            values = rows.pivot(index="metric", columns="replication", values="value").astype(np.float64)
            word, sentence = judged.loc[label, ["verdict", "words"]]
            self.seen[load, str(label)] = Seen(
                dict(zip(map(str, values.index), values.to_numpy(), strict=True)),
                f"it is {word}: {sentence}" if word in BAD else "",
            )
