"""The glossary names what there is: metrics, keys, columns, legs and verdicts."""

import re
from pathlib import Path

from worlds import cell, ready

from uhlm_sim.analysis.measures.metrics import UNITS
from uhlm_sim.analysis.report.page import MEANING
from uhlm_sim.cell.engine import simulate
from uhlm_sim.keys import keys_of_a_scenario
from uhlm_sim.tables import LEGS

PAGE = (Path(__file__).parent.parent / "docs" / "glossary.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| ([^|]+?) \| (.+) \|$", PAGE, flags=re.MULTILINE)
TERMS = {term: meaning for term, meaning in ROWS if term not in ("term", "---")}
NAMES = [found for meaning in TERMS.values() for found in re.findall(r"(key |column |)`([^`]+)`", meaning)]


def test_every_name_is_that_of_a_key_a_column_or_a_metric() -> None:
    keys = set()
    for key in keys_of_a_scenario():
        keys |= {key, key.rpartition(".")[0]}
    metrics = set(UNITS) | {name.partition(".")[0] for name in UNITS} | {f"{name}.ratio_to_first" for name in UNITS}
    known = {"key ": keys, "column ": set(simulate(cell(), ready(), 0).tokens.columns), "": metrics}
    assert len(NAMES) > 30
    assert [name for kind, name in NAMES if name not in known[kind]] == []


def test_every_leg_and_every_verdict_has_its_place() -> None:
    assert tuple(re.findall(r"`(\w+)`", TERMS["legs"])) == LEGS
    assert set(MEANING) <= set(", ".join(TERMS).split(", "))


def test_terms_are_explained_once() -> None:
    terms = [term for row, _ in ROWS if row not in ("term", "---") for term in row.split(", ")]
    assert len(terms) == len(set(terms))
