"""What the README prints, works: its commands are run, shortened, and its code is the user's own code."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from uhlm_sim.cli import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHORT = ["--set", "replications=1", "--set", "duration_s=4", "--set", "warmup_s=1", "--jobs", "1"]


def blocks(language: str) -> list[str]:
    """Return the README's code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


OWN = next(block for block in blocks("python") if "def confident" in block)
NOTEBOOK = next(block for block in blocks("python") if "load(" in block)
# test_validate.py gives the first of these, test_scenarios.py runs the others.
ELSEWHERE = ["uhlm-sim validate --quick"]
ELSEWHERE += [f"uhlm-sim run {name}" for name in ("who_wins", "users_sweep", "threshold_frontier")]
COMMANDS = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("uhlm-sim ")]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The user's own code is in the folder where the command is given, and nothing of it stays behind."""
    (tmp_path / "own.py").write_text(OWN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("own", None)
    yield
    sys.modules.pop("own", None)


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("command", [command for command in COMMANDS if command not in ELSEWHERE])
def test_a_command_of_the_readme_does_what_it_says(
    command: str, scenario_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario_file.rename(tmp_path / "my.toml")
    arguments = shlex.split(command)[1:]
    main(arguments + (SHORT if arguments[0] in ("run", "capacity") else []))
    assert capsys.readouterr().out


def test_the_installed_command_imports_ones_own_policy_and_nothing_else_of_the_present_folder(
    scenario_file: Path, tmp_path: Path
) -> None:
    """It and its workers; the policy is the README's, and keeps what it says."""
    (tmp_path / "own.py").write_text(OWN, encoding="utf-8")
    for name in ("json", "simpy"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('planted')\n")
    policies = 'policy=[{kind="hlm"}, {kind="own:confident", params={level=0.4}}]'
    command = [str(Path(sys.executable).with_name("uhlm-sim")), "run", str(scenario_file)]
    options = ["--jobs", "2", "--allow-plugins", "--set", policies, "--set", "duration_s=4"]
    done = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "own:confident" in done.stdout


def test_the_notebook_of_the_readme_runs() -> None:
    short = {"replications": 2, "duration_s": 6.0, "warmup_s": 2.0}
    names: dict[str, Any] = {}
    exec(NOTEBOOK.replace("40}", f"40, **{short}}}"), names)
    assert names["results"].ratio("hlm", "hlm", "token_throughput").mean == 1.0


def test_the_check_before_a_change_lands_runs_the_readmes_test_command() -> None:
    marked = README[README.index("<!-- tests -->") : README.index("<!-- end -->")]
    command = next(line for line in marked.splitlines() if line.startswith("python3"))
    assert command.endswith("pytest -q -n 2")
    assert "<!-- tests -->" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_every_file_that_the_readme_links_to_is_there() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if not link.startswith("http")]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
