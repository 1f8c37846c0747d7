"""Programs that models write: right ones pass, wrong ones don't, and none does harm."""

import ast
import copy
from pathlib import Path

import pytest

from uhlm_sim.tokens import answer_checks
from uhlm_sim.tokens.answer_checks import all_passes, check_machine, code_of, passes
from uhlm_sim.tokens.prompts import Prompt, read_prompts

PROBLEMS = [prompt for prompt in read_prompts("coding") if prompt.checks]
FINE = "def one():\n    return 1\n"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait little for what never ends."""
    check_machine()
    monkeypatch.setattr(answer_checks, "SECONDS", 1)
    monkeypatch.setattr(answer_checks, "WAIT_S", 6)


def test_the_set_has_programming_problems_and_instructions_in_both_splits() -> None:
    prompts = read_prompts("coding")
    for split, count in (("evaluation", 60), ("calibration", 30)):
        mine = [prompt for prompt in prompts if prompt.split == split]
        assert sum(prompt.category == "programming" for prompt in mine) == count
        assert len(mine) == 2 * count
    assert all(len(prompt.checks) >= 3 for prompt in prompts if prompt.category == "programming")


def test_the_instructions_of_the_set_are_built_in_ones() -> None:
    built_in = read_prompts()
    assert all(prompt in built_in for prompt in read_prompts("coding") if prompt.category != "programming")


def test_every_reference_passes_all_checks_and_an_empty_answer_none() -> None:
    whole = [(prompt.reference, prompt.checks) for prompt in PROBLEMS]
    assert all_passes(whole) == [True] * len(PROBLEMS)
    # In one process a problem: an answer without the function fails each of its checks alone.
    none_holds = [("", [f"all_fail({list(prompt.checks)!r})"]) for prompt in PROBLEMS]
    fails = "def all_fail(checks):\n    for check in checks:\n        try:\n            eval(check)\n"
    fails += "        except NameError:\n            continue\n        return False\n    return True\n"
    assert all_passes([(fails, checks) for _, checks in none_holds]) == [True] * len(PROBLEMS)


SWAPS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Mod: ast.Mult, ast.FloorDiv: ast.Mult, ast.Div: ast.Mult,
    ast.Lt: ast.GtE, ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.GtE: ast.Lt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.And: ast.Or, ast.Or: ast.And, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip


class Changes(ast.NodeTransformer):
    """Changes the node number `wanted` of those that it can change."""

    def __init__(self, wanted: int) -> None:
        self.wanted, self.seen = wanted, 0

    def generic_visit(self, node: ast.AST) -> ast.AST:
        node = super().generic_visit(node)
        is_number = isinstance(node, ast.Constant) and type(node.value) is int
        if type(node) in SWAPS or is_number:
            self.seen += 1
            if self.seen == self.wanted:
                return ast.Constant(node.value + 1) if is_number else SWAPS[type(node)]()  # type: ignore[attr-defined]
        return node


def mutants(prompt: Prompt) -> list[str]:
    tree, wanted, texts = ast.parse(prompt.reference), 1, []
    while True:
        changes = Changes(wanted)
        changed = changes.visit(copy.deepcopy(tree))
        if changes.seen < wanted:
            return texts
        texts.append(ast.unparse(ast.fix_missing_locations(changed)))
        wanted += 1


def test_a_reference_with_one_change_fails() -> None:
    """An operator or number changed; a few changes leave a program right, such as a search that starts lower."""
    runs = [(text, prompt.checks, prompt.id) for prompt in PROBLEMS for text in mutants(prompt)[:3]]
    passed = all_passes([(text, checks) for text, checks, _ in runs])
    assert len(runs) > 150
    assert sum(passed) < 0.12 * len(runs)
    caught = {key for (_, _, key), survives in zip(runs, passed, strict=True) if not survives}
    assert {key for _, _, key in runs} - caught == set(), "each problem has a change that its checks see"


HARM = {
    "loops": "while True:\n    pass",
    "sleeps": "import time\ntime.sleep(60)",
    "forks": "import os\nos.fork()",
    "starts a process": "import subprocess\nsubprocess.run(['true'])",
    "starts a process from below": "import _posixsubprocess\n_posixsubprocess.fork_exec()",
    "calls a shell": "import os\nos.system('true')",
    "allocates 10 GB": "text = bytearray(10 * 2**30)",
    "allocates 10 GB in pieces": "held = []\nwhile True:\n    held.append(bytearray(2**20))",
    "writes outside": "open('FOLDER/made', 'w').write('x')",
    "writes inside": "open('here', 'w').write('x')",
    "writes from below": "import os\nos.open('FOLDER/made', os.O_CREAT | os.O_WRONLY)",
    "removes": "import os\nos.remove('FOLDER/mine')",
    "makes a folder": "import os\nos.mkdir('FOLDER/made')",
    "makes a pipe": "import os\nos.mkfifo('FOLDER/made')",
    "shares memory": "from multiprocessing import shared_memory\nshared_memory.SharedMemory(create=True, size=9)",
    "opens a socket": "import socket\nsocket.socket().connect(('127.0.0.1', 9))",
    "hides what it does": "import socket\ntry:\n    socket.socket()\nexcept BaseException:\n    pass",
    "calls machine code": "import ctypes\nctypes.CDLL(None)",
    "ends as if all were well": "import os\nos._exit(0)",
    "leaves": "raise SystemExit(0)",
    "lifts its limits": "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
    "kills": "import os\nos.kill(os.getppid(), 9)",
    "writes without an end": "while True:\n    print('x' * 2**20)",
    "goes too deep": "def f():\n    f()\nf()",
}


@pytest.mark.parametrize("harm", HARM)
def test_a_program_that_does_more_than_compute_is_stopped_and_counts_as_failed(harm: str, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine", encoding="utf-8")
    code = HARM[harm].replace("FOLDER", str(tmp_path))
    assert not passes(FINE + code, ["one() == 1"])
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]
    assert (tmp_path / "mine").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Sure!\n```python\ndef f():\n    return 1\n```\nIt returns 1.", "def f():\n    return 1\n"),
        ("```\nx = 1\n```\n```\nx = 2\n```", "x = 1\n"),
        ("```py\nx = 1", "x = 1"),
        ("x = 1", "x = 1"),
        ("First:\n```sh\npip install it\n```\n  ```python\n  x = 1\n  y = 2\n  ```", "x = 1\ny = 2\n"),
        ("", ""),
    ],
)
def test_the_code_of_an_answer_is_its_first_block(text: str, code: str) -> None:
    assert code_of(text) == code


def test_what_a_program_prints_or_imports_does_not_matter() -> None:
    code = "import math, re, random, itertools, collections, functools, string, datetime, heapq, typing, sys\n"
    code += "import asyncio, subprocess, statistics, threading, os\nfrom dataclasses import dataclass\n"
    code += "@dataclass\nclass Point:\n    x: 'int' = 1\n\nthreading.Thread(target=print).start()\n"
    code += "os.environ['A'] = 'b'\nprint('hello')\nassert sys.stdin.read() == ''\n" + FINE
    assert passes(code, ["one() == 1"])
    assert not passes(FINE, ["one() == 2"])
    assert not passes("def one(:\n", ["one() == 1"])
    assert passes("if __name__ == '__main__':\n    input()\n" + FINE, ["one() == 1"]), "it is no main program"
