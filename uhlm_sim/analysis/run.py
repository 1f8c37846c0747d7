"""A finished run as tables: what measures, figures and the report are handed."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import pandas as pd

from uhlm_sim.errors import InputError, did_you_mean
from uhlm_sim.tables import OUTPUT_LAW

ESTIMATE = ("mean", "ci95_low", "ci95_high", "replications")
SUMMARY_COLUMNS = ("policy", "metric", "unit", *ESTIMATE)


class Terms(NamedTuple):
    """What a point is judged by: its window, and whether requests arrive whatever the cell does."""

    warmup_s: float
    duration_s: float
    is_open: bool


@dataclass(frozen=True, repr=False)
class Run:
    """What a run wrote: tables with the columns of the run folder, the resolved scenario and the provenance.

    `replications` is tidy (point, sweep columns..., policy, replication, metric, value). `rounds` and `tokens` are None
    where the run kept none; of their columns only ROUND_COLUMNS, TOKEN_COLUMNS and `point` are used.
    """

    summary: pd.DataFrame
    replications: pd.DataFrame
    requests: pd.DataFrame
    tokens: pd.DataFrame | None
    stations: pd.DataFrame
    scenario: dict[str, Any]
    provenance: dict[str, Any]
    rounds: pd.DataFrame | None = None

    @property
    def terms(self) -> dict[Any, Terms]:
        """Return by number of each point here the terms that it was simulated on.

        Provenances of older versions have the first point's alone.
        """
        one = {key: float(self.scenario[key]) for key in ("warmup_s", "duration_s")}
        one["closed_loop"] = self.provenance["closed_loop"]
        points = self.provenance.get("points") or {}
        of = {number: points[number] if points else one for number in self.replications["point"].unique()}
        return {number: Terms(p["warmup_s"], p["duration_s"], not p["closed_loop"]) for number, p in of.items()}

    @property
    def window_s(self) -> tuple[float, float]:
        """Return the times in which tokens and requests count, (warmup_s, duration_s), at the first point here."""
        return next(iter(self.terms.values()))[:2]

    @property
    def window_words(self) -> tuple[str, str]:
        """Return the same as text, from the least to the most where points differ: ("20", "60 to 120")."""
        starts_s, ends_s, _ = zip(*self.terms.values(), strict=True)
        spans = [
            f"{min(at_s):g}" + (f" to {max(at_s):g}" if min(at_s) < max(at_s) else "") for at_s in (starts_s, ends_s)
        ]
        return spans[0], spans[1]

    @property
    def sweep(self) -> list[str]:
        """Return the names of the sweep's columns, none for a single point."""
        return [str(name) for name in self.summary.columns if name not in SUMMARY_COLUMNS]

    @property
    def policies(self) -> list[str]:
        """Return the policies' labels in the run's order."""
        return [str(name) for name in self.summary["policy"].unique()]

    @property
    def kinds(self) -> dict[str, str]:
        """Return each label's kind of policy."""
        return {str(policy["label"]): str(policy["kind"]) for policy in self.provenance["policies"]}

    @property
    def ladders(self) -> dict[str, str]:
        """Return each label's kind of policy, and by what it decides unless that is a threshold for the uncertainty."""
        entries = {str(entry["label"]): entry for entry in self.provenance["policies"]}
        by = {label: "price" if entry.get("price_s") else entry.get("gate") for label, entry in entries.items()}
        return {
            label: f"{kind} by {by[label]}" if kind == "u-hlm" and by[label] else kind
            for label, kind in self.kinds.items()
        }

    @property
    def is_open(self) -> bool:
        """Say whether at any point requests arrive whatever the cell does; else phones ask after their last answer."""
        return any(terms.is_open for terms in self.terms.values())

    @property
    def forced(self) -> list[str]:
        """Return the policies that ran teacher-forced, on the answers of another one, at any of the points here."""
        labels = [str(policy["label"]) for policy in self.provenance["policies"] if not policy["exact"]]
        points = self.replications.groupby("policy")["point"].nunique()
        return [label for label in labels if self._points_of_its_own(label) < points.get(label, 1)]

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

    def kept_tokens(self) -> pd.DataFrame:
        """Return the tokens; InputError where the run kept none."""
        if self.tokens is None:
            raise InputError("this run kept no token tables (output.tokens = false)")
        return self.tokens

    def kept_rounds(self) -> pd.DataFrame:
        """Return the rounds; InputError where the run kept none."""
        if self.rounds is None:
            raise InputError("this run kept no tables of rounds (output.tokens = false, or an older version)")
        return self.rounds

    def named(self, name: str) -> list[str]:
        """Return the labels of the policy that a label or a kind names: a swept one has another label at each point.

        InputError where there is none, or where several of one kind are at the same point.
        """
        labels = {str(label): str(label).partition("(")[0] for label in self.replications["policy"].unique()}
        kinds = labels | self.kinds
        meant = [name] if name in labels else [label for label in labels if kinds[label] == name]
        rows = self.replications[self.replications["policy"].isin(meant)]
        if not meant or rows.groupby("point")["policy"].nunique().max() > 1:
            wrong = "several are of this kind" if meant else "this run has none"
            hint = did_you_mean(name, [*labels, *kinds.values()]) if not meant else ""
            raise InputError(f"policy '{name}': {wrong}; its policies are {', '.join(labels)}{hint}")
        return meant

    def renamed(self, names: Mapping[str, str]) -> Self:
        """Return the run with other labels for its policies, for figures and tables in the words of a paper.

        ``names`` goes from labels, or kinds that one policy has at each point, to new labels: {"u-hlm(0.43)": "U-HLM
        (0.43)"}. Swept keys and the sentences of the assumptions keep the labels that the run was given. Raises
        InputError for a label that the run hasn't got, and where two policies of a point would have one name.
        """
        for name in names.values():
            if not isinstance(name, str) or not name.strip():
                raise InputError(f"{name!r}: a policy's name must be a text that isn't empty")
        new = {label: name for old, name in names.items() for label in self.named(old)}

        def relabelled(label: object) -> object:
            return new.get(str(label), label)

        def entry(old: Mapping[str, Any], *keys: str) -> dict[str, Any]:
            return {**old, **{key: relabelled(old[key]) for key in keys if key in old}}

        tables: dict[str, Any] = {
            name: table.assign(policy=table["policy"].astype(object).map(relabelled))
            for name, table in vars(self).items()
            if isinstance(table, pd.DataFrame)
        }
        at = self.replications.groupby("point")["policy"].nunique()
        if not at.equals(tables["replications"].groupby("point")["policy"].nunique()):
            raise InputError(f"{', '.join(names.values())}: two policies would have one name")
        provenance, scenario = dict(self.provenance), dict(self.scenario)
        provenance["policies"] = [entry(old, "label") for old in provenance["policies"]]
        provenance["failed"] = [entry(old, "policy") for old in self.failed]
        labels = [policy["label"] for policy in provenance["policies"]]
        policies = [entry(old, "match") for old in scenario.get("policy", [])]
        scenario["policy"] = [{**old, "name": label} for old, label in zip(policies, labels, strict=True)]
        scenario["device_class"] = [entry(old, "policy") for old in scenario.get("device_class", [])]
        return replace(self, **tables, provenance=provenance, scenario=scenario)

    def middle_point(self) -> Self:
        """Return the tables of the sweep's middle point alone; of a run without a sweep, all.

        Policies often coincide at a sweep's ends. Numbers are ordered, words stay as given; of an even number of values
        the upper middle is taken. Where no point has all the middle values, it is the middle one of all points.
        """
        points = self.summary[self.sweep].drop_duplicates(ignore_index=True)
        values = [points[key].drop_duplicates() for key in self.sweep]
        ordered = [column.sort_values() if pd.api.types.is_numeric_dtype(column) else column for column in values]
        middle = {key: column.iloc[len(column) // 2] for key, column in zip(self.sweep, ordered, strict=True)}
        is_there = bool((points == pd.Series(middle)).all(axis="columns").any()) if middle else True
        return self.at(middle if is_there else points.iloc[len(points) // 2].to_dict())

    def at(self, values: Mapping[Any, Any]) -> Self:
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
            missing = ", ".join(f"{key} = {value}" for key, value in values.items())
            raise InputError(f"no point of this run has {missing}")

        def of_points(table: pd.DataFrame) -> pd.DataFrame:
            return table[table["point"].isin(replications["point"])]

        return replace(
            self,
            summary=here(self.summary),
            replications=replications,
            requests=of_points(self.requests),
            tokens=None if self.tokens is None else of_points(self.tokens),
            stations=of_points(self.stations),
            rounds=None if self.rounds is None else of_points(self.rounds),
        )


def source_of(provenance: Mapping[str, Any]) -> str:
    """Return "synthetic" for a run whose tokens were drawn from a fitted law, else nothing."""
    return "synthetic" if "synthetic" in provenance else ""
