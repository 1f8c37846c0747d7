"""Run the programs that models wrote, each in a process of its own, and say which do what was asked for.

A guard against accidents, and against programs that loop, fork, fill the memory, write files or open connections. It is
no wall against an attacker: where answers may come from one, use a machine that has nothing to lose.
"""

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from uhlm_sim.errors import InputError

PROCESS = Path(__file__).with_name("answer_process.py")
SECONDS = 5  # of computing, and of waiting
BYTES = 2**30
FENCED = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)


def code_of(text: str) -> str:
    """Return the first fenced block of an answer, even one that was cut; without one all of it."""
    block = FENCED.search(text)
    return block[1] if block else text


def passes(code: str, checks: Sequence[str]) -> bool:
    """Say whether a program runs and every check, a Python expression over its names, is true after it.

    It has `SECONDS` of time and `BYTES` of memory, and ends as failed at its first write to a file, process or
    connection. An answer without a check passes if its code runs.
    """
    secret = secrets.token_hex(16)
    order = {"code": code, "checks": list(checks), "secret": secret, "seconds": SECONDS, "bytes": BYTES}
    with tempfile.TemporaryDirectory(prefix="uhlm-sim-answer-") as folder:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(PROCESS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={},
            start_new_session=True,
        )
        try:
            said, _ = process.communicate((json.dumps(order) + "\n").encode(), timeout=2 * SECONDS)
        except subprocess.TimeoutExpired:
            return False
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    return said == secret.encode()


def all_passes(
    answers: Sequence[tuple[str, Sequence[str]]], progress: Callable[[int, int], None] = lambda *_: None
) -> list[bool]:
    """Return for (text, checks) pairs whether the text's code passes, on all cores; equal ones run once.

    Raises InputError where processes can't be limited: on Windows.
    """
    if os.name != "posix":
        raise InputError("answers can be run on Linux and macOS alone, where a process can be limited")
    runs = list(dict.fromkeys((code_of(text), tuple(checks)) for text, checks in answers))
    results = {}
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for done, (run, result) in enumerate(zip(runs, pool.map(lambda run: passes(*run), runs), strict=True), start=1):
            results[run] = result
            progress(done, len(runs))
    return [results[code_of(text), tuple(checks)] for text, checks in answers]
