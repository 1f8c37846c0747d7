"""What goes wrong around a run is told in a line, leaves nothing that looks finished, and can be resumed from."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from conftest import SCENARIO, assert_same_tables
from traces import write_trace

from uhlm_sim.cli import main
from uhlm_sim.experiment import PARTS, run
from uhlm_sim.scenario_file import read_scenario

# Root may write anywhere. Without its capabilities it may do what the owner of a file may.
WITHOUT_CAPABILITIES = """
import ctypes, os, sys
from uhlm_sim.cli import main
if os.geteuid() == 0 and sys.platform == "linux":
    version, nothing = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert ctypes.CDLL(None).capset(version, nothing) == 0
for words in sys.stdin:
    try:
        main(words.rstrip("\\n").split("\\t"))
    except SystemExit as end:
        print(f"exit {end.code}", file=sys.stderr)
"""


@pytest.fixture(scope="module")
def scenario_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scenario of 16 simulations, some tenths of a second each."""
    folder = tmp_path_factory.mktemp("faults")
    text = SCENARIO.format(trace=write_trace(folder / "made-up.parquet"))
    file = folder / "tiny.toml"
    text = text.replace("replications = 3", "replications = 8").replace("duration_s = 12.0", "duration_s = 100.0")
    file.write_text(text, encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def unbroken(scenario_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing befell."""
    out = tmp_path_factory.mktemp("unbroken") / "out"
    run(read_scenario(scenario_file), out=out, jobs=1)
    return out


def assert_resumes(scenario_file: Path, out: Path, unbroken: Path) -> None:
    """Assert that what is there looks unfinished, and ends as a run that nothing befell."""
    assert not (out / "summary.csv").exists()
    run(read_scenario(scenario_file), out=out, jobs=1, resume=True)
    assert_same_tables(out, unbroken)


def test_a_full_disk_is_told_and_the_run_goes_on_when_there_is_room(
    scenario_file: Path, unbroken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No file may grow beyond a size: the scenario's, a simulation's, that of the rounds, of the tokens."""
    out, largest = tmp_path / "out", resource.getrlimit(resource.RLIMIT_FSIZE)
    for largest_bytes, parts in ((500, None), (2_000, 0), (200_000, 16), (950_000, 16)):
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_bytes, largest[1]))
        try:
            with pytest.raises(SystemExit) as ended:
                main(["run", str(scenario_file), "--jobs", "1", "--resume", "--out", str(out)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, largest)
        told = capsys.readouterr()
        assert ended.value.code == 1
        assert told.out == ""
        assert told.err.startswith("uhlm-sim: the run failed: [Errno 27] ")
        assert "File too large" in told.err
        assert len(told.err.splitlines()) == 1
        assert (len(list((out / PARTS).glob("*.zip"))) if out.exists() else None) == parts
    assert_resumes(scenario_file, out, unbroken)


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(scenario_file: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    models = f"tokens={{kind='models', path='{locked}/pair.parquet', llm='package:none', slm='package:none'}}"
    commands = [
        ["run", scenario_file, "--out", locked / "out"],
        ["capacity", scenario_file, "--vary", "traffic.devices", "--slo", "tpot_s.p95<=1", "--out", locked / "out"],
        ["validate", "--out", locked / "out"],
        ["calibrate", scenario_file.with_name("made-up.parquet"), "--out", locked / "out"],
        ["record", scenario_file, "--set", models],
    ]
    lines = "".join("\t".join(map(str, words)) + "\n" for words in commands)
    program = [sys.executable, "-c", WITHOUT_CAPABILITIES]
    done = subprocess.run(program, input=lines, capture_output=True, text=True, check=False)
    told = done.stderr.splitlines()
    assert told[1::2] == ["exit 2"] * len(commands), done.stderr
    assert all(line.startswith(f"uhlm-sim: {locked}") and "Permission denied" in line for line in told[0::2])
    assert done.stdout == ""
    assert list(locked.iterdir()) == []


def test_a_killed_worker_and_an_interrupt_from_the_keyboard_are_told_and_the_run_resumes(
    scenario_file: Path, unbroken: Path, tmp_path: Path
) -> None:
    """A worker that is killed takes the run with it, an interrupt takes all processes; what was finished stays."""
    out = tmp_path / "out"

    def kill_a_worker(process: subprocess.Popen[str]) -> None:
        max(psutil.Process(process.pid).children(), key=lambda child: child.cpu_times().user).kill()

    def interrupt_all(process: subprocess.Popen[str]) -> None:
        os.killpg(process.pid, signal.SIGINT)

    code, told = befallen(scenario_file, out, kill_a_worker)
    assert code == 1, told
    assert told.startswith("uhlm-sim: the run failed: a worker process died")
    assert "--resume goes on" in told
    code, told = befallen(scenario_file, out, interrupt_all)
    assert code == 130, told
    assert told.splitlines() == [f"to go on, repeat the command with --resume --out {out}", "uhlm-sim: interrupted"]
    assert_resumes(scenario_file, out, unbroken)


def befallen(scenario_file: Path, out: Path, fault: Callable[[subprocess.Popen[str]], None]) -> tuple[int, str]:
    """Run on two processes, let something befall them once one more part is there; return exit code and stderr."""
    program = [sys.executable, "-m", "uhlm_sim.cli", "run", str(scenario_file), "--jobs", "2", "--resume"]
    before = len(list((out / PARTS).glob("*.zip")))
    process = subprocess.Popen(
        [*program, "--out", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a process group of its own, as a shell gives it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a script's background command ignores it
    )
    try:
        until(lambda: len(list((out / PARTS).glob("*.zip"))) > before or process.poll() is not None)
        assert process.poll() is None, "it ended before anything could befall it"
        fault(process)
        _, told = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    until(lambda: not session_of(process))
    return process.returncode, told


def until(holds: Callable[[], object], seconds: float = 120.0) -> None:
    end_s = time.perf_counter() + seconds
    while not holds():
        assert time.perf_counter() < end_s
        time.sleep(0.02)


def session_of(process: subprocess.Popen[str]) -> list[int]:
    """Return the living processes of a session, whoever is their parent by now."""
    found = []
    for each in psutil.process_iter(["status"]):
        try:
            if os.getsid(each.pid) == process.pid and each.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(each.pid)
        except ProcessLookupError:
            continue
    return found
