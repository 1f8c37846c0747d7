"""An experiment is the same whoever runs it, whatever is added to it, and whenever it was interrupted."""

from pathlib import Path

import pandas as pd
import pytest

from uhlm_sim.analysis.measures.precision import FEWEST
from uhlm_sim.analysis.run_folder import PARTIAL
from uhlm_sim.errors import InputError, ScenarioError, UhlmError
from uhlm_sim.experiment import PARTS, run
from uhlm_sim.scenario_file import read_scenario

OWN_CODE = """
import numpy as np

def confident(path, level=0.4):
    return path.top1_probability >= level

def alternating(rng, size, note):
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
        'policy=[{kind="hlm"}, {kind="own:confident", name="confident", params={level=0.7}}]',
        "channel.kind=own:alternating",
        f'channel.params.note="{"no name of a file: " * 300}"',
        "uplink.allocator=own:first_device_first",
    ]
    scenario = read_scenario(scenario_file, own)
    with pytest.raises(ScenarioError, match="--allow-plugins"):
        run(scenario, jobs=1)
    tables = run(scenario, jobs=1, allow_plugins=True)
    means = tables.summary.set_index(["policy", "metric"])["mean"]
    assert 0.2 < means["confident", "skip_rate"] < 0.6
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
    together = run(scenario, out=tmp_path / "sweep", jobs=1).summary
    assert list(together.columns[:3]) == ["channel.mean_snr_db", "policy", "metric"]
    for snr_db in (0.0, 20.0):
        alone = run(read_scenario(scenario_file, ["replications=2", f"channel.mean_snr_db={snr_db}"]), jobs=1).summary
        point = together[together["channel.mean_snr_db"] == snr_db].drop(columns="channel.mean_snr_db")
        pd.testing.assert_frame_equal(point.reset_index(drop=True), alone)
    assert (tmp_path / "sweep" / "figures" / "sweep.png").is_file()
    again = read_scenario(tmp_path / "sweep" / "scenario.resolved.toml")
    pd.testing.assert_frame_equal(run(again, jobs=1).summary, together)


FAILS_AT_TWO = """
import numpy as np

def picky(rng, size, worst):
    if worst > 1:
        raise ValueError("not with me")
    while True:
        yield rng.standard_exponential(size)
"""


def test_a_point_that_fails_is_told_and_takes_no_other_down(
    scenario_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "fails_at_two.py"
    module.write_text(FAILS_AT_TWO, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    sweep = 'sweep={"channel.params.worst"=[1.0, 2.0]}'
    scenario = read_scenario(scenario_file, ["channel.kind=fails_at_two:picky", "channel.params.worst=1.0", sweep])
    out = tmp_path / "out"
    results = run(scenario, out=out, jobs=1, allow_plugins=True)
    assert {failure["point"] for failure in results.failed} == {"channel.params.worst = 2.0"}
    assert all("ValueError: not with me (fails_at_two.py, line 6)" in failure["reason"] for failure in results.failed)
    assert set(results.summary["channel.params.worst"]) == {1.0}
    assert not (out / "summary.csv").exists()
    assert len(list((out / PARTS).glob("*.zip"))) == 2 * scenario.replications
    written = pd.read_csv(out / PARTIAL)
    assert set(written["channel.params.worst"]) == {1.0}

    alone = run(scenario.model_copy(update={"sweep": {}}), jobs=1, allow_plugins=True).summary
    pd.testing.assert_frame_equal(results.summary.drop(columns="channel.params.worst"), alone)
    impossible = scenario.model_copy(update={"sweep": {"channel.params.worst": [2.0]}})
    with pytest.raises(ScenarioError, match=r"channel.kind = .*: ValueError: not with me"):
        run(impossible, jobs=1, allow_plugins=True)


def test_replications_are_added_until_the_ratio_is_as_precise_as_asked(scenario_file: Path, tmp_path: Path) -> None:
    most = 40
    settings = ["duration_s=7", "precision.relative=0.03", f"precision.max_replications={most}"]
    scenario = read_scenario(scenario_file, ['sweep={"traffic.devices"=[1, 8]}', *settings])
    results = run(scenario, out=tmp_path / "out", jobs=1)
    ratios = results.summary[
        (results.summary["metric"] == "token_throughput.ratio_to_first") & (results.summary["policy"] != "hlm")
    ].set_index("traffic.devices")
    half = (ratios["ci95_high"] - ratios["ci95_low"]) / 2
    assert ((half <= 0.03 * ratios["mean"]) | (ratios["replications"] == most)).all()
    assert (ratios["replications"] >= FEWEST).all()
    assert ratios["replications"].nunique() == 2, "each point has its own number"
    # Replication by replication it is the run with that fixed number.
    alone = run(
        read_scenario(
            scenario_file, ["duration_s=7", "traffic.devices=8", f"replications={ratios['replications'].loc[8]}"]
        ),
        jobs=1,
    ).summary
    point = results.summary[results.summary["traffic.devices"] == 8].drop(columns="traffic.devices")
    pd.testing.assert_frame_equal(point.reset_index(drop=True), alone)


def test_a_metric_that_does_not_exist_is_refused_before_anything_is_simulated(scenario_file: Path) -> None:
    with pytest.raises(ScenarioError, match=r"did you mean 'ttft_s\.p95'"):
        run(read_scenario(scenario_file, ["precision.relative=0.1", "precision.metric=ttft.p95"]), jobs=1)


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
    with pytest.raises(UhlmError, match="channel must" if kind == "channel" else name):
        run(read_scenario(scenario_file, [setting]), jobs=1, allow_plugins=True)
