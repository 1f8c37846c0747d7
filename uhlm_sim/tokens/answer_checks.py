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
import textwrap
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import joblib

from uhlm_sim.errors import InputError
from uhlm_sim.progress import Progress, no_progress

PROCESS = Path(__file__).with_name("answer_process.py")
SECONDS, WAIT_S = 5, 30  # of computing, and in all
BYTES = 2**30
BLOCK = re.compile(r"```([^\n`]*)\n(.*?)(?:```|\Z)", re.DOTALL)


def code_of(text: str) -> str:
    """Return the first fenced block of an answer that says it is Python, else the first, else all of the text.

    A block that was cut ends with the text.
    """
    blocks = BLOCK.findall(text)
    marked = [code for word, code in blocks if word.strip().lower().startswith("py")]
    return textwrap.dedent(next(iter([*marked, *(code for _, code in blocks)]), text))


def passes(code: str, checks: Sequence[str]) -> bool:
    """Say whether a program runs and every check, a Python expression over its names, is true after it.

    It has `SECONDS` of processor time, `WAIT_S` in all, `BYTES` of memory and the standard library, and ends as failed
    at its first write to a file, process or connection. An answer without a check passes if its code runs.
    """
    secret = secrets.token_hex(16)
    order = {"code": code, "checks": list(checks), "secret": secret, "seconds": SECONDS, "bytes": BYTES}
    with tempfile.TemporaryDirectory(prefix="uhlm-sim-answer-") as folder:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", str(PROCESS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={},
            start_new_session=True,
        )
        try:
            answer, _ = process.communicate((json.dumps(order) + "\n").encode(), timeout=WAIT_S)
        except subprocess.TimeoutExpired:
            return False
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    return answer == secret.encode()


@cache
def check_machine() -> None:
    """Raise InputError where programs can't be run within limits: anywhere but on Linux, or where these don't hold."""
    if sys.platform != "linux":
        raise InputError("answers can be run on Linux alone, where a process can be limited")
    too_large = f"held = bytearray({2 * BYTES})"
    if not passes("import dataclasses\nx = 1", ["x == 1"]) or passes("x = 1", ["x == 2"]) or passes(too_large, []):
        raise InputError("answers can't be run here: a process with limits doesn't do as it should")


def all_passes(answers: Sequence[tuple[str, Sequence[str]]], progress: Progress = no_progress) -> list[bool]:
    """Return for (text, checks) pairs whether the text's code passes, on all cores; equal ones run once.

    Raises InputError as `check_machine` does.
    """
    check_machine()
    runs = list(dict.fromkeys((code_of(text), tuple(checks)) for text, checks in answers))
    results = {}
    pool = ThreadPoolExecutor(joblib.cpu_count())
    try:
        for done, (run, result) in enumerate(zip(runs, pool.map(lambda run: passes(*run), runs), strict=True), start=1):
            results[run] = result
            progress("running programs", done, len(runs))
    finally:
        pool.shutdown(cancel_futures=True)
    return [results[code_of(text), tuple(checks)] for text, checks in answers]
