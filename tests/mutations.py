"""Plants small defects in the cell and the tokens, one at a time, and says which ones the tests catch. Run by hand.

    python tests/mutations.py --checkout . --seed 1 --count 40
    python tests/mutations.py --checkout . --reference ../before --seed 1 --count 40

Each mutation changes one line in a way that changes what it computes: `<` for `<=`, `+` for `-`, a lost factor, another
constant, swapped arguments, `min` for `max`, `and` for `or`, a lost `not`. Docstrings, messages of errors and
annotations are left alone. It is planted in a copy of the checkout, never in the checkout itself. The checkout's own
tests that concern its file are run on the copy until one fails: those that import the file, then those that import what
imports it, and of either first those that are named like it; the slow ones, of whole runs and of theory, come last.

A mutation is the text of its line before and after, so that the same ones can be planted in a tree whose files were
moved: only lines that stand once in the two rooms are chosen, in an order that hangs on the seed and the text alone.
With `--reference` they are chosen from that checkout. A line that the checkout no longer has is named, and the next one
of the seed's list takes its place.

A survivor is no proof of a hole: some mutations change nothing that can be seen, such as the width of a tolerance.
"""

import argparse
import ast
import hashlib
import os
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path

import pytest

ROOMS = ("uhlm_sim/cell", "uhlm_sim/tokens")
COMPARISONS = {ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">")}
COMPARISONS |= {ast.Eq: ("==", "!="), ast.NotEq: ("!=", "=="), ast.Is: ("is", "is not"), ast.In: ("in", "not in")}
ARITHMETIC = {ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*")}
OTHER_NAMES = {"min": "max", "max": "min", "minimum": "maximum", "maximum": "minimum", "any": "all", "all": "any"}
OTHER_NAMES |= {"floor": "ceil", "ceil": "floor", "cumsum": "cumprod", "argmin": "argmax", "argmax": "argmin"}
TOLERANCE = re.compile(r"\de-\d|noqa: ARG")  # lines on which a change is not seen
LOADED_ONCE = ("matplotlib.figure", "pandas", "pyarrow.parquet", "pydantic", "scipy.stats", "simpy")
NEAREST = 2  # steps of imports between a test and the file that it concerns
SLOW = {"validate", "capacity", "scenarios", "faults", "interrupted", "reference", "readme", "precision", "models"}
SLOW |= {"cluster", "verdicts"}
NAMED_LIKE = {  # words in the names of the tests that concern a folder most
    "radio": {"uplink", "downlink", "allocators", "allocator", "link", "ciw", "channel"},
    "gpus": {"gpu", "serving", "service", "station", "ciw"},
    "phones": {"cell", "world", "traffic", "records"},
    "cell": {"cell", "records", "contracts"},
}


def computing(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes below one that compute something: no message, docstring, annotation or decorator."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or isinstance(child, ast.Raise | ast.Assert | ast.JoinedStr | ast.Import):
                continue
            yield child
            yield from computing(child)


def between(left: ast.expr, right: ast.expr, old: str, new: str, line: str) -> Iterator[str]:
    """Give the line with another operator between two operands that stand on it."""
    start, end = left.end_col_offset or 0, right.col_offset
    if left.end_lineno == right.lineno and line[start:end].count(old) == 1:
        yield line[:start] + line[start:end].replace(old, new) + line[end:]


def is_text(*nodes: ast.expr) -> bool:
    return any(isinstance(node, ast.JoinedStr | ast.List | ast.Tuple | ast.ListComp) for node in nodes) or any(
        isinstance(node, ast.Constant) and isinstance(node.value, str) for node in nodes
    )


def changed(node: ast.AST, line: str) -> Iterator[str]:
    """Give the ways to change what a node computes, each as its whole line; `line` is where the node ends."""
    match node:
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in COMPARISONS:
            yield from between(left, right, *COMPARISONS[type(op)], line)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC and not is_text(left, right):
            yield from between(left, right, *ARITHMETIC[type(op)], line)
            if isinstance(op, ast.Mult) and left.lineno == node.end_lineno:
                yield line[: left.end_col_offset] + line[node.end_col_offset :]
        case ast.BoolOp(op=op, values=[left, right, *_]):
            words = ("and", "or") if isinstance(op, ast.And) else ("or", "and")
            yield from between(left, right, *words, line)
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand) if node.lineno == node.end_lineno:
            yield line[: node.col_offset] + line[operand.col_offset :]
        case ast.Constant(value=bool(value)):
            yield line[: node.col_offset] + str(not value) + line[node.end_col_offset :]
        case ast.Constant(value=int(value)):
            yield f"{line[: node.col_offset]}{value + 1}{line[node.end_col_offset :]}"
        case ast.Constant(value=float(value)):
            yield f"{line[: node.col_offset]}{2 * value if value else 1.0}{line[node.end_col_offset :]}"
        case ast.Call(func=function, args=arguments):
            name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            end = function.end_col_offset or 0
            if function.end_lineno == node.end_lineno and name in OTHER_NAMES:
                yield line[: end - len(name)] + OTHER_NAMES[name] + line[end:]
            elif len(arguments) == 2 and all(isinstance(each, ast.Name | ast.Attribute) for each in arguments):
                first, second = arguments
                if first.lineno == node.end_lineno and name not in ("isinstance", "range", "getattr"):
                    a, b = (
                        line[first.col_offset : first.end_col_offset],
                        line[second.col_offset : second.end_col_offset],
                    )
                    yield (
                        line[: first.col_offset]
                        + b
                        + line[first.end_col_offset : second.col_offset]
                        + a
                        + (line[second.end_col_offset :])
                    )


def balance(line: str) -> list[int]:
    """Return how many more brackets of each sort a line opens than it closes."""
    return [line.count(opening) - line.count(closing) for opening, closing in ("()", "[]", "{}")]


def lines_of(checkout: Path) -> dict[str, tuple[Path, int]]:
    """Return file and line number of each text that stands once in the rooms, without what it is indented by."""
    places: list[tuple[str, Path, int]] = []
    for room in ROOMS:
        for file in sorted((checkout / room).rglob("*.py")):
            texts = file.read_text(encoding="utf-8").splitlines()
            places += [(text.strip(), file, number) for number, text in enumerate(texts, 1)]
    counted = Counter(text for text, _, _ in places)
    return {text: (file, number) for text, file, number in places if counted[text] == 1}


def mutations(checkout: Path, seed: int) -> list[tuple[str, str]]:
    """Return (line, changed line) of all mutations, one a line, in the seed's order."""
    found: set[tuple[str, str]] = set()
    unique = lines_of(checkout)
    for file in sorted({file for file, _ in unique.values()}):
        source = file.read_text(encoding="utf-8")
        lines = source.splitlines()
        for node in computing(ast.parse(source)):
            line = lines[node.end_lineno - 1] if getattr(node, "end_lineno", None) else ""
            if line.isascii() and line.strip() in unique and not TOLERANCE.search(line):
                found |= {(line.strip(), new.strip()) for new in changed(node, line) if balance(new) == balance(line)}
    first: dict[str, str] = {}
    for old, new in sorted(found, key=lambda pair: hashlib.sha256(f"{seed}\n{pair}".encode()).hexdigest()):
        first.setdefault(old, new)
    return list(first.items())


def users_of(checkout: Path) -> dict[Path, set[Path]]:
    """Return who imports each file; a test is taken to import what its helpers in the tests' folder import."""
    imports = {
        file: imported(file, checkout) for room in ("uhlm_sim", "tests") for file in checkout.glob(f"{room}/**/*.py")
    }
    users: dict[Path, set[Path]] = {}
    for file, used in imports.items():
        helpers = [path for path in used if path.parent == file.parent and path.parent.name == "tests"]
        for path in used.union(*(imports[helper] for helper in helpers)):
            users.setdefault(path, set()).add(file)
    return users


def imported(file: Path, checkout: Path) -> set[Path]:
    """Return the files of the checkout that a file imports, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    paths = [folder / f"{name.replace('.', '/')}.py" for name in names for folder in (checkout, checkout / "tests")]
    return {path for path in paths if path.is_file()}


def tests_of(file: Path, users: dict[Path, set[Path]]) -> list[Path]:
    """Return the test files that concern a file, nearest first."""
    distance, edge = {file: 0}, {file}
    for step in range(1, NEAREST + 1):
        edge = set().union(*(users.get(path, set()) for path in edge)) - distance.keys()
        distance |= dict.fromkeys(edge, step)
    words = {*file.stem.split("_"), *NAMED_LIKE.get(file.parent.name, set())}

    def order(path: Path) -> tuple[object, ...]:
        named = {*path.stem.split("_")}
        return bool(SLOW & named), not words & named, distance[path], path.stat().st_size

    return sorted((path for path in distance if path.name.startswith("test_")), key=order)


def outcome(copy: Path, tests: list[str], limit_s: float) -> str:
    """Run the tests of a copy until one fails; return what became of the mutation in it.

    They run in a fork, which has what others wrote loaded already, and nothing of the copy.
    """
    told = copy.parent / "told.txt"
    testing = get_context("fork").Process(target=run_tests, args=(copy, tests, told))
    testing.start()
    testing.join(limit_s)
    if testing.is_alive():
        testing.kill()
        testing.join()
        return "out of time"
    failed = [line for line in told.read_text().splitlines() if line.startswith(("FAILED ", "ERROR "))]
    if testing.exitcode and not failed:
        raise RuntimeError(f"the tests could not be run:\n{told.read_text()[-2000:]}")
    return f"caught by {failed[0].split(' ')[1]}" if failed else "SURVIVED"


def run_tests(copy: Path, tests: list[str], told: Path) -> None:
    with told.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(copy)
    os.environ["PYTHONPATH"] = str(copy)  # of the processes that tests start
    sys.path.insert(0, str(copy))
    code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *tests])
    sys.stdout.flush()
    os._exit(int(code))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--checkout", type=Path, default=Path(__file__).parent.parent, help="the tree and its tests")
    parser.add_argument("--reference", type=Path, help="the tree to choose lines from")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--skip", type=int, default=0, help="leave out so many at the head of the seed's list")
    parser.add_argument("--limit", type=float, default=900.0, metavar="SECONDS", help="for the tests of one mutation")
    parser.add_argument("--list", action="store_true", help="name the mutations and their tests, run nothing")
    asked = parser.parse_args()
    checkout = asked.checkout.resolve()
    there, users, outcomes, number = lines_of(checkout), users_of(checkout), Counter[str](), 0
    sys.dont_write_bytecode = True  # a change of a line within a second would not be noticed
    for name in LOADED_ONCE:
        import_module(name)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "checkout"
        shutil.copytree(checkout, copy, ignore=shutil.ignore_patterns(".git", ".hypothesis", "__pycache__"))
        for old, new in mutations((asked.reference or checkout).resolve(), asked.seed):
            if number == asked.skip + asked.count:
                break
            if old not in there:
                print(f"gone, the next one takes its place: {old}", flush=True)
                continue
            number += 1
            if number <= asked.skip:
                continue
            file, at = there[old]
            planted, tests = (
                copy / file.relative_to(checkout),
                [str(path.relative_to(checkout)) for path in tests_of(file, users)],
            )
            print(f"{number:3} {file.relative_to(checkout)}:{at}\n      {old}\n      {new}", flush=True)
            if asked.list:
                print(f"      {' '.join(tests)}")
                continue
            honest = planted.read_text(encoding="utf-8")
            lines = honest.splitlines(keepends=True)
            lines[at - 1] = lines[at - 1].replace(old, new)
            planted.write_text("".join(lines), encoding="utf-8")
            begun_s = time.perf_counter()
            told = outcome(copy, tests, asked.limit)
            planted.write_text(honest, encoding="utf-8")
            outcomes[told.partition(" by ")[0]] += 1
            print(f"      {told} ({time.perf_counter() - begun_s:.0f} s)", flush=True)
    print(", ".join(f"{count} {told}" for told, count in outcomes.items()))


if __name__ == "__main__":
    main()
