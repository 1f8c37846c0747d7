"""A relative path in a scenario means the scenario's folder, then the working directory, whoever reads it later."""

import os
from pathlib import Path

import pytest

from uhlm_sim import load, run
from uhlm_sim.errors import ScenarioError
from uhlm_sim.scenario_file import read_scenario, sweep_points, write_scenario

TEXT = """
name = "paths"
duration_s = 3.0
warmup_s = 0.5
replications = 2
tokens = { path = "smollm2-pair" }
traffic = { kind = "replay", file = "requests.csv", devices = 2, max_tokens = 8 }
channel = { kind = "trace", params = { path = "snr.csv" } }
base_station = { service = { kind = "table", path = "times.csv" } }
[[policy]]
kind = "hlm"
"""
FILES = {
    "requests.csv": "timestamp,input_length,output_length\n0.6,7,3\n",
    "snr.csv": "10\n20\n",
    "times.csv": "new_tokens,seconds\n1,0.01\n",
}


@pytest.fixture
def study(tmp_path, monkeypatch):
    """Return a scenario file in a folder with its files; the working directory has files of the same names."""
    for folder in ("study", "elsewhere"):
        (tmp_path / folder).mkdir()
        for name, text in FILES.items():
            (tmp_path / folder / name).write_text(text)
    (tmp_path / "study" / "scenario.toml").write_text(TEXT)
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "study" / "scenario.toml"


def paths(scenario):
    named = scenario.traffic.file, scenario.channel.params["path"], scenario.base_station.service.path
    return [Path(path) for path in named]


def test_files_lie_beside_the_scenario(study):
    assert paths(read_scenario(study)) == [study.parent / name for name in FILES]
    assert read_scenario(study).tokens.path == "smollm2-pair"


def test_what_is_not_beside_the_scenario_is_in_the_working_directory(study):
    for name in FILES:
        (study.parent / name).unlink()
    assert paths(load(study)) == [Path.cwd() / name for name in FILES]
    Path("snr.csv").unlink()
    with pytest.raises(ScenarioError) as refused:
        read_scenario(study)
    assert f"channel.params.path = 'snr.csv': no such file; it is not in {Path.cwd()}, nor in {study.parent}" in str(
        refused.value
    )


def test_an_override_means_the_working_directory_first(study):
    Path("other.csv").write_text(FILES["snr.csv"])
    assert read_scenario(study, ["traffic.file=requests.csv"]).traffic.file == str(Path.cwd() / "requests.csv")
    params = {"path": "other.csv"}
    assert load(study, {"channel.params": params}).channel.params["path"] == str(Path.cwd() / "other.csv")
    assert params == {"path": "other.csv"}


def test_a_missing_trace_and_missing_prompts_are_told_with_where_they_were_sought(study):
    with pytest.raises(
        ScenarioError, match=r"not a built-in trace \(qwen-coder-pair, smollm2-pair\).*it is not in .*elsewhere, nor in"
    ):
        read_scenario(study, ["tokens.path=mine.parquet"])
    tokens = {"kind": "models", "path": "new.parquet", "llm": "a", "slm": "b", "prompts": "mine.jsonl"}
    with pytest.raises(ScenarioError, match=r"tokens.prompts = 'mine.jsonl': no such file"):
        load(study, {"tokens": tokens})
    Path("mine.jsonl").write_text("{}")
    assert load(study, {"tokens": tokens}).tokens.path == str(Path.cwd() / "new.parquet")


def test_swept_files_are_found_and_called_by_their_names(study):
    (study.parent / "late.csv").write_text("timestamp,input_length,output_length\n0.9,7,3\n")
    study.write_text(TEXT + '[sweep]\n"traffic.file" = ["requests.csv", "late.csv"]\n')
    points = sweep_points(read_scenario(study))
    assert [point.scenario.traffic.file for point in points] == [
        str(study.parent / name) for name in ("requests.csv", "late.csv")
    ]
    assert [point.cells for point in points] == [("requests.csv",), ("late.csv",)]


def test_a_resolved_scenario_is_the_same_from_anywhere(study, monkeypatch):
    scenario = read_scenario(study)
    (study.parent / "run").mkdir()
    (study.parent / "run" / "scenario.resolved.toml").write_text(write_scenario(scenario))
    monkeypatch.chdir("/")
    assert read_scenario(study.parent / "run" / "scenario.resolved.toml") == scenario


def test_a_scenario_may_have_a_mark_and_must_be_a_file_of_text(study):
    study.write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
    assert read_scenario(study).name == "paths"
    for content, says in ((TEXT.encode("utf-16"), "line 1: is UTF-16"), (b'name = "a\0"', "line 1: is no UTF-8 text")):
        study.write_bytes(content)
        with pytest.raises(ScenarioError, match=f"scenario.toml: {says}"):
            read_scenario(study)
    os.mkfifo("pipe.csv")
    study.write_text(TEXT.replace("requests.csv", "pipe.csv"))
    with pytest.raises(ScenarioError, match=r"pipe.csv: is a pipe or a device, not a file"):
        run(read_scenario(study), jobs=1)
