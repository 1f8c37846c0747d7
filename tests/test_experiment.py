"""An experiment is the same whoever runs it, whatever is added to it, and whenever it was interrupted."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from uhlm_sim.errors import InputError, ScenarioError, SimulationError
from uhlm_sim.experiment import PARTS, run
from uhlm_sim.scenario_file import read_scenario

OWN_CODE = """
import numpy as np

def confident(path, level=0.4):
    return path.top1_probability >= level

def alternating(rng, size):
    while True:
        yield np.resize([0.5, 1.5], size)

def first_device_first(left_bits, snr):
    return np.eye(len(left_bits))[0]
"""


def test_one_and_two_workers_give_the_same_bytes(scenario_file: Path, tmp_path: Path) -> None:
    scenario = read_scenario(scenario_file)
    for jobs in (1, 2):
        run(scenario, out=tmp_path / str(jobs), jobs=jobs)
    for name in ("summary.csv", "replications.csv", "stations.csv"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_an_added_policy_changes_no_other_policys_rows(scenario_file: Path) -> None:
    scenario = read_scenario(scenario_file)
    fewer = scenario.model_copy(update={"policy": scenario.policy[:1]})
    both, alone = (run(each, jobs=1).summary for each in (scenario, fewer))
    pd.testing.assert_frame_equal(both[both["policy"] == "hlm"], alone)


def test_without_out_nothing_is_written(scenario_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    tables = run(read_scenario(scenario_file), jobs=1)
    assert list(empty.iterdir()) == []
    assert tables.tokens is not None
    assert set(tables.tokens["policy"].unique()) == {"hlm", "u-hlm(0.43)"}


def test_token_tables_can_be_left_out(scenario_file: Path, tmp_path: Path) -> None:
    tables = run(read_scenario(scenario_file, ["output.tokens=false"]), out=tmp_path / "out", jobs=1)
    assert tables.tokens is None
    assert not (tmp_path / "out" / "tokens.parquet").exists()
    assert (tmp_path / "out" / "report.html").exists()


def test_a_killed_run_looks_unfinished_and_resumes_to_the_same_bytes(scenario_file: Path, tmp_path: Path) -> None:
    settings = ["replications=6", "duration_s=60.0", "traffic.devices=10"]
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    scenario = read_scenario(scenario_file, settings)
    run(scenario, out=unbroken, jobs=1)

    sets = [word for setting in settings for word in ("--set", setting)]
    command = [
        sys.executable,
        "-m",
        "uhlm_sim.cli",
        "run",
        str(scenario_file),
        *sets,
        "--jobs",
        "1",
        "--out",
        str(killed),
    ]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    parts = killed / PARTS
    while not (parts.exists() and any(part.suffix != ".tmp" for part in parts.iterdir())):
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "summary.csv").exists()
    assert not (killed / "report.html").exists()
    with pytest.raises(InputError, match="--resume"):
        run(scenario, out=killed, jobs=1)
    done_before = {part: part.stat().st_mtime_ns for part in parts.iterdir() if part.suffix != ".tmp"}
    again = []

    def watch(_what: str, _done: int, _total: int) -> None:
        again.extend(part for part, when in done_before.items() if parts.exists() and part.stat().st_mtime_ns != when)

    run(scenario, out=killed, jobs=1, resume=True, progress=watch)
    assert done_before
    assert again == []
    assert (killed / "summary.csv").read_bytes() == (unbroken / "summary.csv").read_bytes()
    tables = [pd.read_parquet(folder / "tokens.parquet") for folder in (killed, unbroken)]
    pd.testing.assert_frame_equal(*tables)


def test_a_finished_run_resumes_at_once_and_another_scenario_is_refused(scenario_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    scenario = read_scenario(scenario_file)
    first = run(scenario, out=out, jobs=1)
    before = (out / "summary.csv").stat().st_mtime_ns
    second = run(scenario, out=out, jobs=1, resume=True)
    assert (out / "summary.csv").stat().st_mtime_ns == before
    pd.testing.assert_frame_equal(first.summary, second.summary, rtol=1e-8)
    with pytest.raises(InputError, match="something else"):
        run(read_scenario(scenario_file, seed=9), out=out, jobs=1, resume=True)


def test_a_policy_a_channel_and_an_allocator_of_ones_own_run_from_a_scenario(
    scenario_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.py").write_text(OWN_CODE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    own = [
        'policy=[{kind="hlm"}, {kind="own:confident", name="confident", params={level=0.5}}]',
        "channel.kind=own:alternating",
        "uplink.allocator=own:first_device_first",
    ]
    scenario = read_scenario(scenario_file, own)
    with pytest.raises(ScenarioError, match="--allow-plugins"):
        run(scenario, jobs=1)
    tables = run(scenario, jobs=1, allow_plugins=True)
    means = tables.summary.set_index(["policy", "metric"])["mean"]
    assert 0.4 < means["confident", "skip_rate"] < 0.8
    assert means["hlm", "skip_rate"] == 0
    told = {entry["label"]: entry["exact"] for entry in tables.provenance["policies"]}
    assert told == {"hlm": True, "confident": False}


def test_a_parameter_that_ones_own_code_does_not_take_is_told(
    scenario_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own2.py").write_text(OWN_CODE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    scenario = read_scenario(scenario_file, ['policy=[{kind="own2:confident", params={levl=0.5}}]'])
    with pytest.raises(ScenarioError, match="levl"):
        run(scenario, jobs=1, allow_plugins=True)


def test_a_sweep_runs_every_point_as_if_it_were_alone(scenario_file: Path, tmp_path: Path) -> None:
    sweep = 'sweep={"channel.mean_snr_db"=[0.0, 20.0]}'
    scenario = read_scenario(scenario_file, ["replications=2", sweep])
    together = run(scenario, out=tmp_path / "sweep", jobs=2).summary
    assert list(together.columns[:3]) == ["channel.mean_snr_db", "policy", "metric"]
    for snr_db in (0.0, 20.0):
        alone = run(read_scenario(scenario_file, ["replications=2", f"channel.mean_snr_db={snr_db}"]), jobs=1).summary
        point = together[together["channel.mean_snr_db"] == snr_db].drop(columns="channel.mean_snr_db")
        pd.testing.assert_frame_equal(point.reset_index(drop=True), alone)
    assert (tmp_path / "sweep" / "figures" / "sweep.png").stat().st_size > 10_000
    again = read_scenario(tmp_path / "sweep" / "scenario.resolved.toml")
    pd.testing.assert_frame_equal(run(again, jobs=1).summary, together)


NONSENSE = {
    "allocator:ones": "def ones(left_bits, snr):\n    import numpy as np\n    return np.ones(len(left_bits))\n",
    "allocator:minus": "def minus(left_bits, snr):\n    return -0.1 * left_bits / left_bits\n",
    "allocator:one": "def one(left_bits, snr):\n    return [0.5] * (len(left_bits) + 1)\n",
    "channel:below": "def below(rng, size):\n    while True:\n        yield -rng.random(size)\n",
    "channel:once": "def once(rng, size):\n    yield rng.random(size)\n",
    "policy:three": "def three(path):\n    return [True, False, True]\n",
    "policy:floats": "def floats(path):\n    return path.uncertainty\n",
}


@pytest.mark.parametrize("what", NONSENSE)
def test_own_code_that_returns_nonsense_is_refused_by_name(
    what: str, scenario_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, name = what.split(":")
    module = f"nonsense_{name}"
    (tmp_path / f"{module}.py").write_text(NONSENSE[what], encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    setting = {
        "allocator": f"uplink.allocator={module}:{name}",
        "channel": f"channel.kind={module}:{name}",
        "policy": f'policy=[{{kind="{module}:{name}"}}]',
    }[kind]
    with pytest.raises(SimulationError, match="channel must" if kind == "channel" else name):
        run(read_scenario(scenario_file, [setting]), jobs=1, allow_plugins=True)
