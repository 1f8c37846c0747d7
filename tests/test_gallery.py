"""The gallery shows built-in scenarios: each one's question, its command, its figure and what its report answers."""

import runpy
from pathlib import Path

import pytest

from uhlm_sim import load, run
from uhlm_sim.analysis.report.sentences import first_answers
from uhlm_sim.names import scenario_folder

DOCS = Path(__file__).parent.parent / "docs"
GALLERY = runpy.run_path(str(DOCS / "gallery.py"))
PARTS = GALLERY["entries"]((DOCS / "gallery.md").read_text(encoding="utf-8"))
BUILT_IN = {file.stem for file in scenario_folder().glob("*.toml")}


def test_every_built_in_scenario_is_in_it() -> None:
    assert set(PARTS) == BUILT_IN


@pytest.mark.parametrize("name", PARTS)
def test_each_scenario_has_its_question_command_and_figure(name: str) -> None:
    part, scenario = PARTS[name], load(name)
    is_pair = scenario.tokens.kind == "models"
    command = f"calibrate {Path(scenario.tokens.path).stem}" if is_pair else f"run {name}"
    assert f"\n\n{scenario.description}\n\n```sh\nuhlm-sim {command}\n```\n\n![" in part
    assert f"(gallery/{name}.png)" in part
    assert (DOCS / "gallery" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert is_pair or 1 <= part.count("\n- ") <= GALLERY["SENTENCES"]


@pytest.mark.parametrize("name", ["smollm2_pair", "qwen_coder_pair"])
def test_a_pairs_entry_is_what_its_command_prints(name: str, tmp_path: Path) -> None:
    assert GALLERY["pair_entry"](name, load(name), tmp_path).strip() == PARTS[name].strip()


def test_an_entry_says_what_the_runs_report_answers(scenario_file: Path, tmp_path: Path) -> None:
    results = run(load(scenario_file), jobs=1)
    part = GALLERY["entry"]("mine", results, tmp_path)
    assert f"- {first_answers(results)[0]}\n" in part
    assert (tmp_path / "mine.png").read_bytes().startswith(b"\x89PNG")
    assert list(GALLERY["entries"](part)) == ["mine"]
