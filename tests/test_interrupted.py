"""A run that is killed, at whatever moment and however often, ends like one that wasn't."""

import os
import random
import time
from multiprocessing import get_context
from pathlib import Path

import pytest
from conftest import assert_same_tables

from uhlm_sim.errors import InputError
from uhlm_sim.experiment import PARTS, run
from uhlm_sim.scenario_file import read_scenario

SETTINGS = ["replications=5", "duration_s=20.0", "traffic.devices=10", 'sweep={"channel.mean_snr_db"=[0.0, 20.0]}']


def parts_of(out: Path) -> dict[str, int]:
    """Return the finished simulations of an interrupted run, and when each was written."""
    return {part.name: part.stat().st_mtime_ns for part in (out / PARTS).glob("*.zip")}


def test_a_run_killed_again_and_again_gives_the_same_bytes_and_simulates_nothing_twice(
    scenario_file: Path, tmp_path: Path
) -> None:
    scenario = read_scenario(scenario_file, SETTINGS)
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    run(scenario, out=unbroken, jobs=1)
    processes = get_context("forkserver")  # imports once for all of them
    processes.set_forkserver_preload(["uhlm_sim.experiment"])
    chance, finished = random.Random(1), dict[str, int]()
    for parts in (0, 1, 11, 20):  # before it simulates, twice while it does, and while the report is drawn
        process = processes.Process(target=run, args=(scenario,), kwargs={"out": killed, "jobs": 1, "resume": True})
        process.start()
        while len(parts_of(killed)) < parts and process.is_alive():
            time.sleep(0.01)
        time.sleep(chance.uniform(0.1, 0.3))
        assert process.is_alive(), "it ended before it was killed"
        process.kill()
        process.join()
        now = parts_of(killed)
        assert finished.items() <= now.items(), "a finished simulation was made again"
        finished = now
    assert len(finished) == 20
    run(scenario, out=killed, jobs=1, resume=True)
    assert_same_tables(killed, unbroken)


def test_what_a_killed_run_leaves_looks_unfinished(scenario_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def die(what: str, done: int, _total: int) -> None:
        if what != "simulating" or done == 3:
            raise KeyboardInterrupt

    scenario = read_scenario(scenario_file)
    with pytest.raises(KeyboardInterrupt):
        run(scenario, out=out, jobs=1, progress=die)
    assert len(parts_of(out)) == 3
    assert sorted(path.name for path in out.iterdir()) == [PARTS, "scenario.resolved.toml"]
    with pytest.raises(InputError, match="--resume"):
        run(scenario, out=out, jobs=1)


def test_a_damaged_part_is_made_again(scenario_file: Path, tmp_path: Path) -> None:
    scenario = read_scenario(scenario_file)
    unbroken, out = tmp_path / "unbroken", tmp_path / "out"
    run(scenario, out=unbroken, jobs=1)

    def die(what: str, _done: int, _total: int) -> None:
        if what != "simulating":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(scenario, out=out, jobs=1, progress=die)
    cut, flipped = sorted((out / PARTS).glob("*.zip"))[:2]
    cut.write_bytes(cut.read_bytes()[:-20])
    flipped.write_bytes(flipped.read_bytes().replace(b"PAR1", b"PAR2"))
    run(scenario, out=out, jobs=1, resume=True)
    assert (out / "summary.csv").read_bytes() == (unbroken / "summary.csv").read_bytes()


def test_a_second_run_in_one_folder_is_told_who_has_it(scenario_file: Path, tmp_path: Path) -> None:
    scenario, out = read_scenario(scenario_file), tmp_path / "out"
    refused = []

    def run_beside(what: str, done: int, _total: int) -> None:
        if what == "simulating" and done == 1 and not refused:
            refused.append(True)
            with pytest.raises(InputError, match=rf"out: process {os.getpid()} is writing there"):
                run(scenario, out=out, jobs=1, resume=True)

    run(scenario, out=out, jobs=1, progress=run_beside)
    assert refused
    run(scenario, out=out, jobs=1, resume=True)  # finished: nothing to hold
