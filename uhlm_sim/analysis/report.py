"""The report: one run as one HTML file that needs no network."""

import base64
import json
import math
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from uhlm_sim.analysis.figures import ReportFigure, write_figures
from uhlm_sim.analysis.intervals import RATIO, verdicts
from uhlm_sim.analysis.metrics import LATENCIES, LEGS, UNITS
from uhlm_sim.analysis.results import Results

__all__ = ["ReportFigure", "Results", "write_figures", "write_report"]

# Headline columns: (group, name, metric, shown as). A share is shown in per cent, `ms` in milliseconds.
HEADLINE = (
    ("Throughput, tokens/s", "cell", "token_throughput", ""),
    ("Throughput, tokens/s", "1 / mean delay", "token_throughput_per_device", ""),
    ("Throughput, tokens/s", "mean of 1 / delay", "mean_token_rate", ""),
    ("Cell against {first}", "ratio", f"token_throughput{RATIO}", "range"),
    ("TTFT, s", "p50", "ttft_s.p50", ""),
    ("TTFT, s", "p95", "ttft_s.p95", ""),
    ("TPOT, ms", "p50", "tpot_s.p50", "ms"),
    ("TPOT, ms", "p95", "tpot_s.p95", "ms"),
    ("Utilisation, %", "uplink", "uplink_utilisation", "%"),
    ("Utilisation, %", "GPUs", "bs_utilisation", "%"),
    ("Tokens, %", "skipped", "skip_rate", "%"),
    ("Tokens, %", "sent", "transmission_rate", "%"),
    ("Risk, %", "of skipped", "rejection_risk", "%"),
    ("Drafts sent, %", "resampled", "resample_rate", "%"),
)

RATIOS = (
    ("tokens/s, cell", "token_throughput"),
    ("tokens/s, 1 / mean delay", "token_throughput_per_device"),
    ("tokens/s, mean of 1 / delay", "mean_token_rate"),
    ("TTFT p50", "ttft_s.p50"),
    ("TTFT p95", "ttft_s.p95"),
    ("TPOT p50", "tpot_s.p50"),
    ("TPOT p95", "tpot_s.p95"),
    ("uplink bits a token", "uplink_bits_per_token"),
    ("uplink utilisation", "uplink_utilisation"),
    ("GPU utilisation", "bs_utilisation"),
)

FAMILIES = {
    "Throughput and service": list(UNITS)[:8],
    "Latency": [name for name in UNITS if name.partition(".")[0] in LATENCIES],
    "Tokens": list(UNITS)[list(UNITS).index("skip_rate") : list(UNITS).index("uplink_bits_per_token") + 1],
    "Legs of a token": [name for name in UNITS if name.partition(".")[0] in LEGS],
    "Stations": list(UNITS)[list(UNITS).index("uplink_utilisation") : list(UNITS).index("batch_tokens") + 1],
    "Counts, a replication": list(UNITS)[list(UNITS).index("requests") :],
}


def write_report(tables: Results, figures: list[ReportFigure], path: Path | str) -> None:
    """Write the report: one HTML file with its figures inside, no script, nothing loaded; same tables, same bytes."""
    start_s, end_s = tables.window_s
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(files(__package__).joinpath("report.html.j2").read_text(encoding="utf-8"))
    first = tables.policies[0]
    text = template.render(
        scenario=tables.scenario,
        provenance=tables.provenance,
        first=first,
        start_s=f"{start_s:g}",
        end_s=f"{end_s:g}",
        replications=int(tables.summary["replications"].max()),
        groups=_groups(first),
        forced=tables.forced,
        points=[_point(values, rows, first) for values, rows in _points(tables)],
        verdicts=_verdicts(tables),
        is_open=_is_open(tables),
        figures=[(f, base64.b64encode(f.png.read_bytes()).decode()) for f in figures],
        settings=_settings(tables.scenario),
        origin=_origin(tables.provenance),
    )
    Path(path).write_text(text, encoding="utf-8")


def number(mean: float, low: float, high: float, scale: float = 1.0) -> tuple[str, str]:
    """Return a mean and its interval's half-width as text: as many digits as the interval gives, at most four.

    The half-width has two digits, or one where the mean's last digit is coarser. Zeros and values without an
    interval have an empty second text, a null mean is a dash.
    """
    mean, half = mean * scale, (high - low) / 2 * scale
    if half < 1e-9 * abs(mean):
        half = 0.0  # replications that agree but for rounding
    if not math.isfinite(mean):
        return "–", ""
    if mean == 0 and not half > 0:
        return "0", ""
    if abs(mean) < 1e-4:
        return f"{mean:.3g}".replace("-", "−"), f"± {half:.1g}".replace("-", "−") if half >= 0 else ""
    finest = 3 - _magnitude(mean)
    known = half > 0
    decimals = min(max(min(1 - _magnitude(half), finest) if known else finest, 0), 9)
    text = f"{mean:,.{decimals}f}".replace("-", "−")
    if not known:
        return text, "± 0" if half == 0 else ""
    rounded = f"{half:,.{decimals}f}"
    return text, f"± {rounded}" if float(rounded.replace(",", "")) else "± " + f"{half:.1g}"


def _magnitude(x: float) -> int:
    return math.floor(math.log10(abs(x))) if x else 0


def ratio(mean: float, low: float, high: float) -> tuple[str, str]:
    """Return a ratio and its interval as text, the interval as its two ends: it needn't be symmetric."""
    text = number(mean, low, high)[0]
    if low == high == mean:
        return f"{mean:.4g}", ""
    if not (math.isfinite(low) and math.isfinite(high)):
        return text, ""
    digits = ".3g" if "e" in text else f".{len(text.partition('.')[2])}f"
    return text, f"{low:{digits}} to {high:{digits}}".replace("-", "−")


Estimates = Mapping[tuple[str, str], tuple[float, float, float]]
NONE = (math.nan, math.nan, math.nan)


def _points(tables: Results) -> Iterator[tuple[str, pd.DataFrame]]:
    """Give each point of the sweep in words with its part of the summary."""
    if not tables.sweep:
        yield "", tables.summary
        return
    for values, rows in tables.summary.groupby(tables.sweep, sort=False, dropna=False):
        yield ", ".join(f"{name} = {value}" for name, value in zip(tables.sweep, values, strict=True)), rows


def _point(words: str, rows: pd.DataFrame, first: str) -> dict[str, Any]:
    """Lay a point's summary out for the template: cells are (text, interval)."""
    keys = zip(rows["policy"].astype(str), rows["metric"], strict=True)
    # The digits that summary.csv has, so that a report of tables in memory is the one of the folder.
    values = rows[["mean", "ci95_low", "ci95_high"]].map(lambda value: float(f"{value:.9g}"))
    found: Estimates = dict(zip(keys, values.itertuples(index=False, name=None), strict=True))
    policies = [str(name) for name in rows["policy"].unique()]

    def cell(policy: str, metric: str, shown: str) -> tuple[str, str]:
        estimate = found.get((policy, metric), NONE)
        if shown == "range":
            return ("1", "") if policy == first else ratio(*estimate)
        return number(*estimate, scale={"%": 100.0, "ms": 1000.0}.get(shown, 1.0))

    others = [name for name in policies if name != first]
    return {
        "words": words,
        "policies": policies,
        "headline": [(name, [cell(name, m, shown) for _, _, m, shown in HEADLINE]) for name in policies],
        "others": others,
        "ratios": [(text, [cell(name, f"{metric}{RATIO}", "range") for name in others]) for text, metric in RATIOS],
        "sentences": [(name, _sentence(found, name, first)) for name in others],
        "families": [
            (title, [(m, UNITS[m], [cell(name, m, "") for name in policies]) for m in metrics])
            for title, metrics in FAMILIES.items()
        ],
    }


def _sentence(found: Estimates, policy: str, first: str) -> str:
    """Say in a sentence what a policy does to the first one's throughput, in all three readings."""

    def times(metric: str) -> tuple[str, str]:
        return ratio(*found.get((policy, f"{metric}{RATIO}"), NONE))

    kept = number(*found.get((policy, "skip_rate"), NONE), scale=100.0)[0]
    if found.get((policy, f"token_throughput{RATIO}")) == (1.0, 1.0, 1.0):
        return f"{first}'s throughput in every replication. {kept} % of the tokens are kept unasked."
    cell, ends = times("token_throughput")
    return (
        f"{cell} times {first}'s tokens a second in the cell{f' ({ends})' if ends else ''}; an answering phone is "
        f"{times('token_throughput_per_device')[0]} times as fast by 1/mean(delay), {times('mean_token_rate')[0]} "
        f"times by the mean of 1/delay. {kept} % of the tokens are kept unasked."
    )


def _groups(first: str) -> list[tuple[str, int, list[str]]]:
    """Return the headline's column groups: title, width, column names."""
    groups: dict[str, list[str]] = {}
    for group, name, _, _ in HEADLINE:
        groups.setdefault(group.format(first=first), []).append(name)
    return [(group, len(names), names) for group, names in groups.items()]


def _is_open(tables: Results) -> bool:
    return bool(tables.scenario["traffic"]["kind"] != "closed")


def _verdicts(tables: Results) -> list[tuple[str, str, str]]:
    start_s, end_s = tables.window_s
    found = verdicts(tables.replications, window_s=end_s - start_s, open_arrivals=_is_open(tables))
    names = [name for name in found.columns if name not in ("point", "policy", "verdict", "words")]
    where = [", ".join(f"{n} = {v}" for n, v in zip(names, row, strict=True)) for row in found[names].to_numpy()]
    labels = [f"{p}, {w}" if w else str(p) for p, w in zip(found["policy"], where, strict=True)]
    return list(zip(labels, found["verdict"], found["words"], strict=True))


def _settings(scenario: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the resolved scenario as (section, "key = value, ..."), the run's own keys first."""
    own = {k: v for k, v in scenario.items() if not isinstance(v, (dict, list)) and k not in ("name", "description")}
    sections = [("run", own)] + [(k, v) for k, v in scenario.items() if isinstance(v, dict)]
    policies = [("policy", policy) for policy in scenario.get("policy", [])]
    return [(name, _plain(values)) for name, values in sections + policies if values]


def _origin(provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the provenance as (key, words), without what has a table of its own."""
    rows = [(k, v) for k, v in provenance.items() if k not in ("policies", "assumptions", "presets")]
    return [(name, _plain(value) if isinstance(value, dict) else str(value)) for name, value in rows]


def _plain(values: Mapping[str, Any]) -> str:
    """Write a mapping as "key = value, ...": nested ones as JSON, lists of mappings by their names."""

    def words(value: Any) -> str:
        if isinstance(value, list) and value and all(isinstance(v, dict) and "name" in v for v in value):
            return " ".join(str(v["name"]) for v in value)
        if isinstance(value, float):
            return f"{value:.9g}"
        return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)

    # Mappings last, as in a TOML file: the order is the same however the values were read.
    items = sorted(values.items(), key=lambda item: isinstance(item[1], dict))
    return ", ".join(f"{name} = {words(value)}" for name, value in items if value not in ({}, [], None))
