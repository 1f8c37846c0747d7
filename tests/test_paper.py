"""The page on the paper says what its commands print. The long ones are held by `python docs/paper.py --check`."""

import re
import runpy
from pathlib import Path

import numpy as np

PAPER = runpy.run_path(str(Path(__file__).parent.parent / "docs" / "paper.py"))
TEXT, OF_PAIR = (page.read_text(encoding="utf-8") for page in PAPER["PAGES"])
PRINTED = [block[4] for block in PAPER["BLOCK"].finditer(TEXT)]
SKIPPED = 0.4593


def numbers(text: str) -> list[str]:
    """Return what has a decimal point; an arXiv number is a name, and so is 1.1B."""
    return re.findall(r"(?<![\d.])\d+\.\d+(?![\d.B])", re.sub(r"(arXiv |abs/)?\b\d{4}\.\d{5}\b", "", text))


def rows(title: str) -> list[list[float]]:
    """Return the numbers of the printed table whose head has this title, line by line."""
    (table,) = (text for text in PRINTED if title in text)
    return [[float(n) for n in re.findall(r"-?\d+(?:\.\d+)?", line)] for line in table.splitlines()[-7:]]


def test_the_quick_commands_print_what_stands_under_them() -> None:
    assert TEXT.count("<!-- quick -->") == 5
    assert PAPER["renewed"](TEXT, quick=True) == TEXT


def test_the_page_of_a_trace_prints_what_stands_there() -> None:
    assert OF_PAIR.count("<!-- quick -->") == len(list(PAPER["BLOCK"].finditer(OF_PAIR))) == 5
    assert PAPER["renewed"](OF_PAIR, quick=True) == OF_PAIR


def test_every_command_has_its_output() -> None:
    code = re.findall(r"```(?:sh|python)\n", TEXT)
    assert len(PRINTED) == len(code) - 1  # all but how to check the page
    assert all(PRINTED)


def test_every_number_in_the_words_is_printed_or_cited() -> None:
    words = re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL)
    is_cited = ("## What the papers say", "## A testbed")
    cited = [section for section in re.split(r"(?m)^(?=## )", words) if section.startswith(is_cited)]
    tables = "\n".join(line for section in cited for line in section.splitlines() if line.startswith("|"))
    known = {*numbers(tables), *numbers("\n".join(PRINTED))}
    found = [number for number in numbers(words) if number not in known]
    assert found == []


def test_the_printed_speed_ups_of_one_phone_obey_the_formula_beside_them() -> None:
    """1/(1 - s + s/r), with r the printed delay of HLM over the 52 ms that a draft takes."""
    table = rows("SNR dB  HLM s/token")
    assert [row[0] for row in table] == [-5, 0, 5, 10, 15, 20, 25]
    for _, delay_s, speed, low, high, _, _, _ in table:
        theory = 1 / (1 - SKIPPED + SKIPPED * 0.052 / delay_s)
        assert abs(speed - theory) < 2 * (high - low) / 2  # two half-widths: seven points are looked at
        assert speed < 1 / (1 - SKIPPED)


def test_under_load_a_phone_passes_the_bound_of_one_phone_and_the_cell_does_not() -> None:
    table = np.array(rows("U-HLM over HLM (synthetic)"))
    bound = 1 / (1 - SKIPPED)
    cell, phone = table[:, 1:4], table[:, 4:7]
    assert (cell[:, 1] < bound).all()  # the lower end of the interval
    assert phone[:, 1].max() > bound
