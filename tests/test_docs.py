"""The page of the tables names what there is, with its unit, and nothing else. The trace's page tells its numbers."""

import re
import runpy
from pathlib import Path

import pandas as pd
import pytest
from hostile import all_places
from worlds import cell, ready

from uhlm_sim.analysis.measures.intervals import summarise
from uhlm_sim.analysis.measures.metrics import UNITS, replication_metrics
from uhlm_sim.cell.engine import simulate
from uhlm_sim.cell.named import SEAMS
from uhlm_sim.simulations import TABLES
from uhlm_sim.tokens.quality import answer_quality
from uhlm_sim.tokens.trace import Trace

DOCS = Path(__file__).parent.parent / "docs"
PAGE = (DOCS / "tables.md").read_text(encoding="utf-8")
SECTIONS = {text.split("\n", 1)[0]: text for text in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]}
KEYS = ["point", "policy", "replication"]


def named(title: str) -> list[tuple[str, str]]:
    """Return (name, unit) for every name in the first column of a section's table.

    A name that starts with a dot is a statistic of the one before it.
    """
    found: list[tuple[str, str]] = []
    for row in re.findall(r"^\| (`.*) \|$", SECTIONS[title], flags=re.MULTILINE):
        names, unit, *_ = (text.strip() for text in row.split("|"))
        for name in re.findall(r"`([^`]+)`", names):
            base = found[-1][0].partition(".")[0] if name.startswith(".") else ""
            found.append((base + name, unit))
    return found


def test_every_metric_has_its_unit_and_meaning_in_the_reference() -> None:
    page = (DOCS / "reference" / "metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(.+?)` \| (.+?) \| .+? \| (.+) \|$", page, flags=re.MULTILINE)
    assert {name: unit for name, unit, _ in rows} == UNITS


@pytest.mark.parametrize("table", TABLES)
def test_every_column_of_a_table_has_its_row_in_the_tables_order(table: str) -> None:
    (title,) = (title for title in SECTIONS if title.startswith(f"{table}."))
    columns = getattr(simulate(cell(), ready(), 0), table).columns
    assert [name for name, _ in named(title)] == [*KEYS, *columns]


def test_every_column_of_replications_and_summary_has_its_row() -> None:
    scenario = cell()
    records = simulate(scenario, ready(), 0)
    window = {"warmup_s": scenario.warmup_s, "duration_s": scenario.duration_s}
    metrics = replication_metrics(
        *records.tables,
        **window,
        devices=20,
        slo={},
        output_law=True,
    )
    columns = [name for name, _ in named("replications.csv")]
    assert columns == [*KEYS, "metric", "value"]
    rows = [dict(zip(columns, (0, "hlm", 0, *metric), strict=True)) for metric in metrics.items()]
    assert [name for name, _ in named("summary.csv")] == list(summarise(pd.DataFrame(rows), "hlm").columns)


def test_a_column_whose_name_ends_in_a_unit_is_said_to_have_it() -> None:
    units = {"_s": "s", "_bits": "bit", "_db": "dB"}
    rows = [row for title in SECTIONS if title.endswith((".parquet", "stations.csv")) for row in named(title)]
    ending = [(name, unit, units[end]) for name, unit in rows for end in units if name.endswith(end)]
    assert len(ending) > 10
    assert [row for row in ending if row[1] != row[2]] == []


def test_the_reference_is_what_the_code_says() -> None:
    told = runpy.run_path(str(DOCS / "reference.py"))["render"]()
    there = {file.name: file.read_text(encoding="utf-8") for file in (DOCS / "reference").glob("*.md")}
    stale = sorted(name for name in told.keys() | there.keys() if told.get(name) != there.get(name))
    assert not stale, f"docs/reference is out of date in {', '.join(stale)}; write it again: python docs/reference.py"
    pages = "\n".join(there.values())
    names = [name for seam in SEAMS for name in seam.functions]
    assert [name for name in names if f"\n### {name}\n" not in pages] == []


def test_every_file_that_the_page_links_to_is_there() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", PAGE)
    assert links
    assert [link for link in links if not (DOCS / link).exists()] == []


def test_every_switch_on_the_page_of_the_model_is_a_key_of_the_scenario() -> None:
    page = (Path(__file__).parent.parent / "docs" / "model.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| .* \| .* \| (.*) \|$", page.partition("## Assumptions")[2], flags=re.MULTILINE)
    switches = [text for row in rows for text in re.findall(r"`([^`]+)`", row)]
    keys = {".".join(at[-n:]) for at, _ in all_places() for n in (1, 2, 3)} | {"[channel.geometry]"}
    assert len(switches) > 20
    assert [switch for switch in switches if switch.partition(" = ")[0] not in keys] == []


def test_the_quality_that_the_page_of_the_trace_tells_is_the_traces() -> None:
    text = (DOCS / "trace.md").read_text(encoding="utf-8")
    section = next(part for part in text.split("\n## ") if part.startswith("How near the answers come"))
    found = answer_quality(Trace.read("smollm2-pair")).set_index("path")
    rows = re.findall(r"^\| ([^|, ]*(?:hlm|slm|llm)[^|, ]*)[^|]*\| (.*) \|$", section, flags=re.MULTILINE)
    assert len(rows) > 10
    measures = ("cosine", "cosine_to_hlm", "reference", "reference_to_llm", "distribution_error")
    for path, cells in rows:
        for measure, words in zip(measures, cells.split(" | "), strict=True):
            told = [float(number) for number in re.findall(r"[\d.]+", words)]
            decimals = len(words.split(" ")[0].partition(".")[2])
            values = [found.loc[path, name] for name in (measure, f"{measure}.low", f"{measure}.high")]
            assert told == [round(value, decimals) for value in values[: len(told)]], (path, measure)
