"""The report: one run as one HTML file that needs no network."""

import base64
import json
import math
import os
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from copy import deepcopy
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup, escape

from uhlm_sim.analysis.figures.catalogue import ReportFigure
from uhlm_sim.analysis.figures.style import LEG_COLOURS
from uhlm_sim.analysis.measures.bottleneck import bottleneck_table
from uhlm_sim.analysis.measures.budget import delay_budget
from uhlm_sim.analysis.measures.energy import ENERGY
from uhlm_sim.analysis.measures.intervals import RATIO
from uhlm_sim.analysis.measures.metrics import METRICS
from uhlm_sim.analysis.measures.queues import queues
from uhlm_sim.analysis.report.headline import ANSWERS, GLANCE, HEADLINE, OVER_SWEEP, Column, cell
from uhlm_sim.analysis.report.inline_figure import inline
from uhlm_sim.analysis.report.points import (
    Points,
    alarms,
    failures_of,
    forced_where,
    replications_of,
    unmet_precision,
    verdicts_of,
    warmups_of,
)
from uhlm_sim.analysis.report.sentences import first_answers, further_answers
from uhlm_sim.analysis.report.sentences_of_classes import classes_of, of_class
from uhlm_sim.analysis.report.station_tables import budget_rows, limit_words, pair_rows, queue_rows, station_rows
from uhlm_sim.analysis.run import Run
from uhlm_sim.scenario import READ_BY, Policy
from uhlm_sim.tables import LEGS

RATIOS = (
    ("tokens/s, cell", "token_throughput"),
    ("tokens/s, 1/mean(delay)", "token_throughput_per_device"),
    ("tokens/s, mean(1/delay)", "mean_token_rate"),
    ("TTFT p50", "ttft_s.p50"),
    ("TTFT p95", "ttft_s.p95"),
    ("TPOT p50", "tpot_s.p50"),
    ("TPOT p95", "tpot_s.p95"),
    ("uplink bits a token", "uplink_bits_per_token"),
    ("uplink utilisation", "uplink_utilisation"),
    ("GPU utilisation", "bs_utilisation"),
    ("energy a token", "energy_per_token_j"),
    ("cosine to the LLM's answers", "quality_cosine"),
    ("programs that pass their checks", "task_accuracy"),
)

PARTS = {  # anchor -> title, those that every page has and those that some have
    "answers": "Answers",
    "result": "Result",
    "stability": "Did the cell keep up?",
    "bottleneck-table": "What limits the cell?",
    "queue-table": "How long are the queues?",
    "figures": "More figures",
    "assumptions": "Assumptions",
    "scenario": "The scenario as run",
    "points": "Every point",
    "metrics": "All metrics",
    "references": "References",
    "provenance": "Provenance",
}
RECORDED = ("quality_cosine", "quality_cosine_reference", "task_accuracy")  # of answers that were recorded once
ELSEWHERE = ("policies", "assumptions", "presets", "failed", "references")  # of the provenance: in parts of their own
# What a verdict means for who reads the numbers.
MEANING = {
    "OVERLOADED": "more requests come than are answered, so latencies grow with the length of the run",
    "CUT SHORT": "many requests were unfinished at the end, so latencies miss the long ones; throughput doesn't",
    "BACKLOGGED": "most of what a user waits is queue, or the queue still grows",
}
UNFOLDED = 60  # points of a sweep whose every metric still fits into a page that a browser opens at once


def write_report(tables: Run, figures: list[ReportFigure], path: Path | str) -> None:
    """Write the report: one HTML file with its figures inside, nothing loaded; same tables, same bytes.

    Its script only adds controls: without it all is shown. Beside each figure stand links to its files, relative to
    the report; they work where the folder is kept whole.
    """
    path = Path(path)
    start_s, end_s = tables.window_words
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: files(__package__).joinpath(name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["code"] = _code
    template = environment.get_template("report.html.j2")
    first = tables.policies[0]
    is_open = tables.is_open
    points = Points.of(tables)
    judged, warmups = verdicts_of(tables), warmups_of(tables)
    counts = tables.replications.groupby("point")["replication"].nunique()
    bottlenecks = bottleneck_table(tables) if len(points) <= UNFOLDED else pd.DataFrame()
    stations = station_rows(points, bottlenecks) if len(bottlenecks) else []
    references = tables.provenance.get("references", [])
    waiting = queue_rows(queues(tables)) if len(points) == 1 else []
    present = {
        "bottleneck-table": bool(stations),
        "queue-table": bool(waiting),
        "figures": len(figures) > 1,
        "references": bool(references),
    }
    present |= {"points": len(points) > 1, "metrics": len(points) == 1}
    text = template.render(
        scenario=tables.scenario,
        source=tables.source,
        provenance=tables.provenance,
        failed=len(tables.failed),
        failures=failures_of(tables),
        answers=[_parted(sentence, tables.policies) for sentence in first_answers(tables)],
        further_answers=[_parted(sentence, tables.policies) for sentence in further_answers(tables)],
        first=first,
        policies=tables.policies,
        start_s=start_s,
        end_s=end_s,
        replications=int(counts.max()),
        counted=replications_of(tables),
        unmet=unmet_precision(tables, points),
        groups=_groups(_columns(_known(points)), first),
        forced=tables.forced,
        forced_in_part=tables.forced_in_part,
        forced_where=forced_where(tables, points),
        swept=_over_sweep(points, tables.policies, *OVER_SWEEP[is_open]),
        swept_keys=tables.sweep,
        swept_policies=any(key.startswith("policy.") for key in tables.sweep),
        count=len(points),
        points=[
            _point(points, number, tables.policies, classes_of(tables))
            for number in points.in_order()
            if len(points) <= UNFOLDED
        ],
        alarms=[(word, where, MEANING[word]) for word, where in alarms(points, tables.policies, judged)],
        verdicts=[
            (name, points.words(at), *judged[at, name], warmups.get((at, name), (0.0, ""))[1])
            for name in tables.policies
            for at in points.in_order()
            if (at, name) in judged
        ],
        warmup=_warmup(tables, points, warmups),
        stations=stations,
        legs=[LEG_COLOURS[leg][0] for leg in LEGS],
        budget=budget_rows(delay_budget(tables)) if len(points) == 1 else [],
        queues=waiting,
        pairs=pair_rows(tables) if len(points) == 1 else [],
        generates="llm" in tables.kinds.values(),
        glance=_glance(points, tables.policies, bottlenecks, is_open=is_open) if len(points) == 1 else None,
        parts=[(name, title) for name, title in PARTS.items() if present.get(name, True)],
        is_open=is_open,
        figures=[(f, _picture(f, first), _files(f, path.parent)) for f in figures],
        settings=_settings(_with_swept(tables.scenario, tables.sweep)),
        origin=_origin(tables.provenance),
        references=references,
    )
    path.write_text(text, encoding="utf-8")


def _cell(points: Points, point: int, policy: str, metric: str, factor: float = 1.0) -> tuple[str, str]:
    """Return a value and its interval as text.

    What was recorded has none: what other prompts would change isn't in an interval over replications of the same ones.
    """
    text, interval = cell(metric, points.get(point, policy, metric), factor)
    return text, "" if metric.removesuffix(RATIO) in RECORDED else interval


def _over_sweep(
    points: Points, policies: Sequence[str], title: str, metric: str
) -> list[tuple[str, list[tuple[list[str], list[tuple[str, str]]]]]]:
    """Return the tables over a sweep: title, then for each point its values and a cell for each policy."""
    if len(points) == 1:
        return []
    tables = ((title, metric), (f"Ratio to {policies[0]}", f"{metric}{RATIO}"))
    return [
        (
            caption,
            [(points.values(at), [_cell(points, at, name, shown) for name in policies]) for at in points.in_order()],
        )
        for caption, shown in tables
    ]


def _point(points: Points, number: int, policies: Sequence[str], classes: Sequence[str]) -> dict[str, Any]:
    """Lay a point's summary out for the template: cells are (text, interval)."""
    first = policies[0]
    present = [name for name in policies if (number, name, "token_throughput") in points.estimates]
    others = [name for name in present if name != first]
    known = _known(points)
    columns = _columns(known)
    return {
        "words": points.words(number),
        "policies": present,
        "headline": [(p, [_cell(points, number, p, c.metric, c.factor) for c in columns]) for p in present],
        "others": others,
        "ratios": [
            (text, [_cell(points, number, p, f"{metric}{RATIO}") for p in others])
            for text, metric in RATIOS
            if f"{metric}{RATIO}" in known
        ],
        "families": [
            (family, [(m, METRICS[m].unit, [_cell(points, number, p, m) for p in present]) for m in metrics])
            for family, metrics in _families(known).items()
        ],
        "classes": _classes(points, number, present, classes),
    }


def _glance(points: Points, policies: Sequence[str], bottlenecks: pd.DataFrame, *, is_open: bool) -> dict[str, Any]:
    """Lay the few numbers out that are seen first: titles, and for each policy its cells and what limits it."""
    known = _known(points)
    metrics = [next((name for name in names if name in known), "") for names in GLANCE]
    columns = [column for metric in metrics for column in HEADLINE if column.metric == metric]
    rows = []
    for policy in policies:
        cells = [_cell(points, 0, policy, c.metric, c.factor) for c in columns]
        rows.append((policy, cells, limit_words(bottlenecks, policy, is_open=is_open)))
    titles = [c.page if c.group == ANSWERS else c.notebook or c.page for c in columns]
    titles = [
        f"cell, to {policies[0]}" if c.metric.endswith(RATIO) else title
        for c, title in zip(columns, titles, strict=True)
    ]
    return {"titles": titles, "rows": rows}


def _classes(points: Points, number: int, policies: Sequence[str], classes: Sequence[str]) -> dict[str, Any] | None:
    """Lay the headline of each class of phones out: a row for each class and policy."""
    known = _known(points)
    columns = _columns({c.metric for c in HEADLINE if any(of_class(c.metric, name) in known for name in classes)})
    rows = [
        (name, p, [_cell(points, number, p, of_class(c.metric, name), c.factor) for c in columns])
        for name in classes
        for p in policies
    ]
    return {"groups": _groups(columns, policies[0]), "rows": rows} if rows else None


def _families(known: AbstractSet[str]) -> dict[str, list[str]]:
    """Return every metric under its family; of energies those that are known."""
    families: dict[str, list[str]] = {}
    for metric in METRICS.values():
        if metric.name not in ENERGY or metric.name in known:
            families.setdefault(metric.family, []).append(metric.name)
    return families


def _columns(known: AbstractSet[str]) -> list[Column]:
    """Return the headline's columns that have a value, group by group."""
    groups = list(dict.fromkeys(column.group for column in HEADLINE))
    shown = [column for column in HEADLINE if column.metric in known]
    return sorted(shown, key=lambda column: groups.index(column.group))


def _known(points: Points) -> set[str]:
    """Return the metrics that have a value somewhere."""
    return {metric for (_, _, metric), (mean, _, _) in points.estimates.items() if not math.isnan(mean)}


def _groups(columns: Sequence[Column], first: str) -> list[tuple[str, int, list[str]]]:
    """Return the headline's column groups: title, width, column names."""
    groups: dict[str, list[str]] = {}
    for column in columns:
        groups.setdefault(column.group.format(first=first), []).append(column.page)
    return [(group, len(names), names) for group, names in groups.items()]


def _parted(sentence: str, policies: Sequence[str]) -> tuple[str, str]:
    """Part a sentence about one policy after its label, which is shown bold."""
    label, colon, rest = sentence.partition(": ")
    return (label, rest) if colon and label in policies else ("", sentence)


def _warmup(tables: Run, points: Points, proposed: Mapping[tuple[int, str], tuple[float, str]]) -> str:
    """State where MSER-5 would cut more than the warm-up of the point."""
    cut_s = [terms.warmup_s for terms in tables.terms.values()]
    more = points.by_policy(tables.policies, lambda *key: proposed.get(key, (0.0, ""))[0] > cut_s[key[0]])
    unsteady = points.by_policy(tables.policies, lambda *key: math.isnan(proposed.get(key, (0.0, ""))[0]))
    clauses = [f"would cut more under {more}"] if more else []
    clauses += [f"finds no steady state (its cut lies past half of the run) under {unsteady}"] if unsteady else []
    no_more = f"would cut no more than the {tables.window_words[0]} s of warm-up"
    return f"MSER-5 {'; it '.join(clauses) if clauses else no_more}."


def _picture(figure: ReportFigure, first: str) -> str:
    """Return a figure for the page: its SVG if it has one, else its PNG in base64."""
    return inline(figure.svg, figure.title, first) if figure.svg else base64.b64encode(figure.png.read_bytes()).decode()


def _files(figure: ReportFigure, folder: Path) -> list[tuple[str, str]]:
    """Return a figure's files for a paper as (name, link from the folder of the report)."""
    there = (figure.png.with_suffix(".pdf"), figure.data)
    return [(file.name, Path(os.path.relpath(file, folder)).as_posix()) for file in there]


def _code(text: str) -> Markup:
    """Set what stands between backticks as code."""
    parts = text.split("`")
    return Markup("").join(Markup("<code>{}</code>").format(p) if i % 2 else escape(p) for i, p in enumerate(parts))


def _with_swept(scenario: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """Return a scenario with the word "swept" for each value that the sweep replaces."""
    shown: dict[str, Any] = deepcopy(dict(scenario))
    for key in keys:
        table: Any = shown
        rest = key
        if key.startswith("policy."):  # policy.<label>.<key>, and a label may have dots
            rest = key.removeprefix("policy.")
            named = [(name, entry) for entry in shown.get("policy", []) for name in _names(entry)]
            name, table = next(((n, entry) for n, entry in named if rest.startswith(f"{n}.")), ("", {}))
            rest = rest.removeprefix(f"{name}.")
        elif key.startswith("device_class."):
            name, _, rest = key.removeprefix("device_class.").partition(".")
            table = next((group for group in shown.get("device_class", []) if group["name"] == name), {})
        *parents, last = rest.split(".")
        for parent in parents:
            table = table.setdefault(parent, {})
        table[last] = "swept"
    return shown


def _names(entry: Mapping[str, Any]) -> list[str]:
    """Return the names by which a sweep may refer to a policy: its label and its kind."""
    return [Policy.model_validate(entry).label, str(entry["kind"])]


def _settings(scenario: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the resolved scenario as (section, "key = value, ..."), the run's own keys first."""
    single = {k: v for k, v in scenario.items() if not isinstance(v, (dict, list))}
    top_level = {k: v for k, v in single.items() if k not in ("name", "description")}
    sections = [("run", top_level)] + [(k, v) for k, v in scenario.items() if isinstance(v, dict)]
    policies = [("policy", policy) for policy in scenario.get("policy", [])]
    kind = scenario["traffic"]["kind"]
    unused = [key for key, kinds in READ_BY.items() if kind not in kinds and ":" not in kind]
    shown = [
        (name, {k: v for k, v in values.items() if name != "traffic" or k not in unused}) for name, values in sections
    ]
    classes = [("device_class", group) for group in scenario.get("device_class", [])]
    return [(name, _plain(values)) for name, values in shown + classes + policies if values]


def _origin(provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the provenance as (key, words), without what has a table of its own."""
    rows = [(k, v) for k, v in provenance.items() if k not in ELSEWHERE]
    rows = [(k, "not a checkout" if k == "git_revision" and v is None else v) for k, v in rows]
    return [(name, _plain(value) if isinstance(value, dict) else str(value)) for name, value in rows]


def _plain(values: Mapping[str, Any]) -> str:
    """Write a mapping as "key = value, ...": nested ones as JSON, lists of mappings by their names."""

    def words(value: Any) -> str:
        if isinstance(value, list) and value and all(isinstance(v, dict) and "name" in v for v in value):
            return " ".join(str(v["name"]) for v in value)
        if isinstance(value, float):
            return f"{value:.9g}"
        return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list, bool)) else str(value)

    # Mappings last, as in a TOML file: the order is the same however the values were read.
    items = sorted(values.items(), key=lambda item: isinstance(item[1], dict))
    return ", ".join(f"{name} = {words(value)}" for name, value in items if value not in ({}, [], None))
