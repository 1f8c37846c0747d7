"""Throw hostile input at the program, many thousand cases of it, and stop at the first that ends as none may.

    python tests/fuzz.py --scenarios 20000 --command-line 200 --traces 2000 --folders 500 --seed 1

Scenario files are read and, where they are legal, run; some by the command line, figures and report and all. Traces and
run folders are damaged or forged and used. A case may end in a result that obeys the laws of conservation, or in one
error of ours; it prints how many ended how. A traceback, a warning, a broken law, another exit code, a silent
difference or more than its time is a finding: it is shown, its files are kept in fuzz-finding, and the exit code is 1.
A case hangs on the seed, its kind and its number alone; `--only scenario:17` repeats one.
"""

import argparse
import contextlib
import faulthandler
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # a scenario may name a model that isn't there

from hostile import POLICIES, FoundError, as_file, play, scenario, time_limit
from hostile_files import play_damaged, play_folder, play_forged, play_parts
from traces import write_trace

import uhlm_sim.scenario
from uhlm_sim.errors import InputError
from uhlm_sim.experiment import PARTS, run
from uhlm_sim.scenario_file import parse_scenario, read_scenario
from uhlm_sim.tokens.trace import Trace

MAX_STEPS = 2e4  # of a legal simulation here, so that a case takes a second and not an hour
LIMIT_S = 60.0  # of computing, for one case
WAIT_S = 600.0  # by the clock, for one that waits or hangs where Python has no say
CHUNK = 20


class Bench:
    """What all cases of a worker share: a folder of its own, a small trace, two finished runs, an interrupted one."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="fuzz-"))
        self.trace = write_trace(self.home / "small.parquet")
        values: dict[str, Any] = {"name": "small", "duration_s": 3.0, "warmup_s": 0.5, "replications": 2}
        values |= {"policy": [POLICIES[0], POLICIES[4]], "tokens": {"path": str(self.trace)}}
        values |= {"traffic": {"devices": 2, "think_time_s": 0.3, "max_tokens": 8}}
        self.scenario, self.other = (parse_scenario({**values, "seed": seed}) for seed in (1, 2))

    @cache  # noqa: B019 - there is one of them
    def run_folder(self) -> Path:
        for name, each in (("run", self.scenario), ("other", self.other)):
            run(each, out=self.home / name, jobs=1)
        return self.home / "run"

    @cache  # noqa: B019
    def parts(self) -> dict[str, bytes]:
        def stop(what: str, _done: int, _total: int) -> None:
            if what != "simulating":
                raise KeyboardInterrupt

        out = self.home / "interrupted"
        with contextlib.suppress(KeyboardInterrupt):
            run(self.scenario, out=out, jobs=1, progress=stop)
        return {file.name: file.read_bytes() for file in (out / PARTS).glob("*.zip")}


@cache
def bench() -> Bench:
    return Bench()


@cache
def reference(path: str) -> tuple[bytes, Trace]:
    trace = Trace.read(path)
    return Path(trace.file).read_bytes(), trace


def scenario_case(chance: random.Random, folder: Path) -> str:
    file = folder / "scenario.toml"
    file.write_bytes(as_file(scenario(chance, str(bench().trace)), chance))
    return play(file)


def command_line_case(chance: random.Random, folder: Path) -> str:
    """Run it by the command line: it ends as it does in this process, in words, and leaves a whole folder or none."""
    file, out = folder / "scenario.toml", folder / "out"
    file.write_bytes(as_file(scenario(chance, str(bench().trace)), chance))
    expected = 0
    try:
        run(read_scenario(file), jobs=1)
    except InputError as error:
        if f"at most {MAX_STEPS:g} fit" in str(error):
            return "left out, too much work"
        expected = 2
    command = [sys.executable, "-m", "uhlm_sim.cli", "run", str(file), "--jobs", "1", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, timeout=WAIT_S / 2)
    told = f"exit {done.returncode} instead of {expected}\n{done.stderr[-4000:]}"
    if done.returncode != expected or "Traceback" in done.stderr or "Warning" in done.stderr:
        raise FoundError(told)
    whole = (out / "summary.csv").is_file() and (out / "report.html").is_file()
    if expected == 0:
        if not whole or (out / PARTS).exists() or not done.stdout:
            raise FoundError(f"no whole folder\n{told}")
    elif out.exists() or done.stdout or not done.stderr.startswith("uhlm-sim: "):
        raise FoundError(f"not one message and nothing else\n{told}")
    return f"exit {done.returncode}"


def trace_case(chance: random.Random, folder: Path) -> str:
    path = str(bench().trace) if chance.random() < 0.95 else "smollm2-pair"
    if chance.random() < 0.5:
        return play_damaged(*reference(path), chance, folder)
    return play_forged(bench().trace, chance, folder)


def folder_case(chance: random.Random, folder: Path) -> str:
    whole, home = bench().run_folder(), bench().home
    if chance.random() < 0.9:
        return play_folder(whole, bench().scenario, home / "other", chance, folder)
    return play_parts(whole, bench().parts(), bench().scenario, chance, folder)


CASES: dict[str, Callable[[random.Random, Path], str]] = {
    "scenario": scenario_case,
    "command-line": command_line_case,
    "trace": trace_case,
    "folder": folder_case,
}


def case(kind: str, number: int, seed: int) -> tuple[str, str | None]:
    """Return how a case ended, or with a None before it what was found."""
    folder = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=bench().home))
    uhlm_sim.scenario.MAX_STEPS = MAX_STEPS
    faulthandler.dump_traceback_later(WAIT_S, exit=True)
    try:
        with warnings.catch_warnings(), contextlib.chdir(folder), time_limit(LIMIT_S):
            warnings.simplefilter("error")
            outcome = CASES[kind](random.Random(f"{seed} {kind} {number}"), folder)
        shutil.rmtree(folder)
    except (Exception, FoundError):
        return f"{kind}:{number}\n{traceback.format_exc()}", str(folder)
    finally:
        faulthandler.cancel_dump_traceback_later()
    return f"{kind}: {outcome}", None


def chunk(kind: str, first: int, last: int, seed: int) -> list[tuple[str, str | None]]:
    ended = []
    for number in range(first, last):
        ended.append(case(kind, number, seed))
        if ended[-1][1] is not None:
            break
    return ended


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for kind, size in (("scenario", 20_000), ("command-line", 200), ("trace", 2_000), ("folder", 500)):
        parser.add_argument(f"--{kind.removesuffix('s')}s" if kind != "command-line" else f"--{kind}", type=int,
                            default=size, dest=kind, metavar="N", help=f"cases of it (default: {size})")  # fmt: skip
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), metavar="N", help="processes (default: all cores)")
    parser.add_argument("--only", metavar="KIND:NUMBER", help="repeat one case, here")
    args = parser.parse_args()
    if args.only:
        kind, _, number = args.only.rpartition(":")
        told, kept = case(kind, int(number), args.seed)
        print(told, kept or "", sep="\n")
        sys.exit(1 if kept else 0)
    sys.exit(1 if fuzz({kind: getattr(args, kind) for kind in CASES}, args.seed, args.jobs) else 0)


def fuzz(sizes: dict[str, int], seed: int, jobs: int) -> bool:
    """Play all cases, print how they ended, and return whether something was found."""
    began_s, counts = time.perf_counter(), Counter[str]()
    with ProcessPoolExecutor(jobs) as pool:
        chunks = [(kind, at, min(at + CHUNK, size)) for kind, size in sizes.items() for at in range(0, size, CHUNK)]
        random.Random(seed).shuffle(chunks)  # long and short ones side by side
        waiting = [pool.submit(chunk, *each, seed) for each in chunks]
        for done in as_completed(waiting):
            for told, kept in done.result():
                if kept is not None:
                    pool.shutdown(wait=False, cancel_futures=True)
                    shutil.rmtree("fuzz-finding", ignore_errors=True)
                    shutil.copytree(kept, "fuzz-finding")
                    print(f"FOUND {told}\npython tests/fuzz.py --seed {seed} --only {told.splitlines()[0]}")
                    return True
                counts[told] += 1
    for told, count in sorted(counts.items()):
        print(f"{count:>7,}  {told}")
    print(f"{counts.total():,} cases, none ended as it may not (seed {seed})")
    print(f"{time.perf_counter() - began_s:.0f} s on {jobs} processes", file=sys.stderr)
    return False


if __name__ == "__main__":
    main()
