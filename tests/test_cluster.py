"""On a cluster an experiment is what it is on one machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import assert_same_tables
from distributed import LocalCluster

from uhlm_sim.errors import InputError
from uhlm_sim.experiment import PARTS, run
from uhlm_sim.scenario_file import read_scenario

SWEEP = 'sweep={"channel.mean_snr_db"=[0.0, 20.0]}'


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """The address of a Dask scheduler with two workers, each a process of its own."""
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        yield cluster.scheduler_address


def test_a_sweep_on_a_cluster_of_two_workers_gives_the_same_bytes(
    scheduler: str, scenario_file: Path, tmp_path: Path
) -> None:
    scenario = read_scenario(scenario_file, [SWEEP])
    run(scenario, out=tmp_path / "here", jobs=1)
    run(scenario, out=tmp_path / "there", cluster=scheduler)
    assert_same_tables(tmp_path / "here", tmp_path / "there")


def test_a_run_begun_here_goes_on_on_a_cluster(scheduler: str, scenario_file: Path, tmp_path: Path) -> None:
    scenario = read_scenario(scenario_file)
    out = tmp_path / "out"

    def die(what: str, done: int, _total: int) -> None:
        if what != "simulating" or done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(scenario, out=out, jobs=1, progress=die)
    before = {part: part.stat().st_mtime_ns for part in (out / PARTS).glob("*.zip")}
    told: list[int] = []
    run(scenario, out=out, resume=True, cluster=scheduler, progress=lambda _what, done, _total: told.append(done))
    assert len(before) == told[0] == 2
    assert (out / "summary.csv").is_file()


def test_an_address_where_no_scheduler_answers_is_told(scenario_file: Path, tmp_path: Path) -> None:
    for address in ("tcp://127.0.0.1:1", "nonsense://x"):
        with pytest.raises(InputError, match=f"--cluster {address}"):
            run(read_scenario(scenario_file), out=tmp_path / "out", cluster=address)
    assert not (tmp_path / "out").exists()


def test_code_of_ones_own_is_sent_to_the_workers(
    scheduler: str, scenario_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "only here"
    folder.mkdir()
    (folder / "sent_along.py").write_text("def bold(path):\n    return path.x_draft > 0.3\n", encoding="utf-8")
    monkeypatch.syspath_prepend(folder)
    scenario = read_scenario(scenario_file, ['policy=[{kind="hlm"}, {kind="sent_along:bold"}]'])
    results = run(scenario, cluster=scheduler, allow_plugins=True)
    assert results.failed == []
    assert set(results.policies) == {"hlm", "sent_along:bold"}
