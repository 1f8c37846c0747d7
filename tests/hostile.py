"""Hostile scenarios, made at random from the model's own schema, and what becomes of them.

Everything is drawn from a `random.Random` that the caller brings: the tests hand in Hypothesis's, which shrinks what it
finds, and `fuzz.py` one that is seeded with the number of the case. The JSON schema and the scenarios that ship are
what scenarios are made of, so a new key, kind or scenario is fuzzed as soon as it is there.
"""

import copy
import importlib
import inspect
import math
import pkgutil
import random
import signal
import tomllib
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import tomli_w
from pydantic import ValidationError

import channel_models
import uhlm_sim.cell
from uhlm_sim.errors import InputError, SimulationError
from uhlm_sim.experiment import run
from uhlm_sim.names import load_presets, scenario_folder
from uhlm_sim.scenario import Scenario
from uhlm_sim.scenario_file import parse_scenario, read_scenario, sweep_points, write_scenario

Table = dict[str, Any]
ODD_TEXTS = ["", " ", "\x00", "nan", "é\u0301", "\U0001f4f1", "\u202e", "x" * 5000, "../../..", "a:b", ":", "os:getcwd"]
ODD_TEXTS += ["{{ 7 }}", "<script>", "$\\frac", "%s%n", "'; --", "hlm", "=1+1", "\ufffe", "\n", "/dev/null", "."]
ODD_NUMBERS = [0, -1, 1, 2**31, 2**63 - 1, 2**63, -(2**63), 10**30, 10**400, 0.0, -0.0, 5e-324, 1e-300, 1e308]
ODD_NUMBERS += [math.inf, -math.inf, math.nan, 0.1, 1e-6, 1e6, 1e12, True, False]


class FoundError(BaseException):
    """A case that ended as none may: a traceback, a broken law, a hang, a silent difference."""


# -- scenarios ------------------------------------------------------------------------------------------------------


@cache
def schema() -> Table:
    return Scenario.model_json_schema()


@cache
def words() -> dict[str, list[str]]:
    """Return what a scenario may name: kinds of every seam, presets, and the parameters of what the seams hold.

    A seam is a dictionary of functions, in capitals, in a module of the cell or among the channel models.
    """
    seams: list[dict[str, Any]] = []
    for package in (uhlm_sim.cell, channel_models):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            module = vars(importlib.import_module(found.name))
            seams += [value for name, value in module.items() if name.isupper() and isinstance(value, dict)]
        seams += [value for name, value in vars(package).items() if name.isupper() and isinstance(value, dict)]
    functions = [each for seam in seams for each in seam.values() if inspect.isroutine(each)]
    kinds = [str(name) for seam in seams for name in seam]
    presets = [name for named in load_presets().values() for name in named]
    params = [name for function in functions for name in inspect.signature(function).parameters]
    return {"kinds": sorted({*kinds, *presets}), "params": sorted(set(params))}


def resolve(node: Table) -> Table:
    while "$ref" in node:
        node = schema()["$defs"][node["$ref"].rpartition("/")[2]]
    return node


def legal(node: Table, chance: random.Random) -> Any:
    """Return a value that the schema allows, its bounds themselves rather often."""
    node = resolve(node)
    for branches in ("anyOf", "oneOf"):
        if branches in node:
            return legal(chance.choice([each for each in node[branches] if each.get("type") != "null"]), chance)
    if "enum" in node or "const" in node:
        return chance.choice(node.get("enum") or [node["const"]])
    kind = node.get("type")
    if kind in ("integer", "number"):
        return number(node, chance)
    if kind == "boolean":
        return chance.random() < 0.5
    if kind == "array":
        return [legal(node["items"], chance) for _ in range(max(node.get("minItems", 0), chance.randrange(4)))]
    if kind == "object" and "properties" in node:
        needed = node.get("required", [])
        return {k: legal(v, chance) for k, v in node["properties"].items() if k in needed or chance.random() < 0.3}
    if kind == "object":
        chosen = [chance.choice(words()["params"]) for _ in range(chance.randrange(3))]
        return {name: legal(node["additionalProperties"], chance) for name in chosen}
    return chance.choice(words()["kinds"] if chance.random() < 0.9 else ODD_TEXTS)


def number(node: Table, chance: random.Random) -> float:
    low = node.get("minimum", node.get("exclusiveMinimum", 0.0))
    high = node.get("maximum", node.get("exclusiveMaximum", max(1e12, low)))
    usual = node.get("default")
    if isinstance(usual, int | float) and chance.random() < 0.5:
        value = usual * chance.uniform(0.5, 2.0)
    elif chance.random() < 0.3:
        value = chance.choice([low, high])
    elif low < 0:
        value = chance.uniform(low, high)
    else:  # over all magnitudes
        value = low + math.exp(chance.uniform(math.log(1e-9), math.log(max(high - low, 1e-9))))
    value = min(max(value, low), high)
    return round(value) if node["type"] == "integer" else float(value)


def odd(chance: random.Random, depth: int = 0) -> Any:
    """Return any value at all that TOML can hold, wrong nearly everywhere."""
    kind = chance.randrange(4 if depth < 3 else 2)
    if kind == 0:
        return chance.choice(ODD_NUMBERS)
    if kind == 1:
        return chance.choice([*ODD_TEXTS, chance.choice(words()["kinds"])])
    if kind == 2:
        return [odd(chance, depth + 1) for _ in range(chance.randrange(4))]
    keys = [*ODD_TEXTS, *words()["params"], "kind", "name"]
    return {chance.choice(keys): odd(chance, depth + 1) for _ in range(chance.randrange(3))}


def places(node: Table, at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Table]]:
    """Yield every key of the file with its schema, tables and what they hold."""
    node = resolve(node)
    for branch in [node, *node.get("anyOf", []), *node.get("oneOf", [])]:
        for key, value in resolve(branch).get("properties", {}).items():
            yield (*at, key), value
            yield from places(value, (*at, key))


@cache
def all_places() -> list[tuple[tuple[str, ...], Table]]:
    return list(places(schema()))


@cache
def shipped() -> list[str]:
    return [file.read_text(encoding="utf-8") for file in sorted(scenario_folder().glob("*.toml"))]


UNSWEPT = ("sweep", "policy", "replications", "precision", "tokens")  # legal, but more work than a case may be
POLICIES: list[Table] = [{"kind": kind} for kind in ("hlm", "slm", "llm")]
POLICIES += [{"kind": "u-hlm", "threshold": threshold} for threshold in (0, 0.43, 1.0, "risk-averse", "risk-prone")]
POLICIES += [{"kind": "rand-hlm", "skip_rate": rate} for rate in (0.0, 0.5, 1, "matched")]


def scenario(chance: random.Random, trace: str) -> Table:
    """Return a scenario that is mostly legal and small: a shipped one or the least, with some keys drawn anew."""
    values: Table = {"name": "fuzz", "tokens": {"path": trace}}
    if chance.random() < 0.5:
        values = tomllib.loads(chance.choice(shipped()))
    values["policy"] = copy.deepcopy(chance.sample(POLICIES, chance.randint(1, 3)))
    for _ in range(chance.randrange(8)):
        at, node = chance.choice(all_places())
        put(values, at, legal(node, chance))
    tame(values, chance, trace)
    if chance.random() < 0.8:
        mend(values, chance, trace)
    if chance.random() < 0.1:
        put(values, ("policy", "0", chance.choice(["name", "match", "params", "kind"])), odd(chance))
    if chance.random() < 0.15:
        at, node = chance.choice([(at, node) for at, node in all_places() if at[0] not in UNSWEPT])
        values["sweep"] = {".".join(at): [legal(node, chance) for _ in range(chance.randint(1, 2))]}
    for _ in range(chance.choice([0, 0, 0, 1, 1, 2])):
        at = chance.choice([*(at for at, _ in all_places()), (chance.choice(ODD_TEXTS),), ("channel", "x")])
        put(values, at, odd(chance))
    return values


def put(values: Table, at: tuple[str, ...], value: Any) -> None:
    """Set a key; `policy` is a list, of which the first is meant. What stands in the way is replaced."""
    table: Any = values
    for key, following in zip(at, [*at[1:], ""], strict=True):
        if isinstance(table, list):
            table = table[0] if table else {}
            if key.isdigit():
                continue
        if not isinstance(table, dict):
            return
        if key == at[-1] and not following:
            table[key] = value
        elif not isinstance(table.get(key), dict | list):
            table[key] = {}
        table = table.get(key)


def mend(values: Table, chance: random.Random, trace: str) -> None:
    """Take out what doesn't fit the rest, key by key, until nothing is wrong or it goes on too long."""
    for _ in range(12):
        try:
            Scenario.model_validate(values)
            return
        except ValidationError as error:
            told = error.errors(include_url=False)[0]
        tables: list[tuple[Any, Any]] = [(values, None)]
        for key in told["loc"]:
            table = tables[-1][0]
            if isinstance(table, dict) and key in table:
                tables.append((table[key], key))
        if told["loc"][:1] == ("tokens",):
            values["tokens"] = {"path": trace}
        elif len(tables) > 1 and (told["type"] == "missing" or not isinstance(tables[-1][0], dict)):
            del tables[-2][0][tables[-1][1]]
        else:  # of two keys that don't go together either may go
            table = tables[-1][0]
            spare = [key for key in table if key not in ("name", "tokens", "policy", "path", "kind", "duration_s")]
            if not spare:
                return
            del table[chance.choice(spare)]


def tame(values: Table, chance: random.Random, trace: str) -> None:
    """Make it small: seconds and a few phones, one or two replications, the small trace; lists as long as needed."""
    values["duration_s"] = math.exp(chance.uniform(math.log(1e-6), math.log(6.0)))
    values["warmup_s"] = values["duration_s"] * chance.choice([0.0, chance.random()])
    values["replications"] = chance.randint(1, 2)
    values.pop("sweep", None)
    if values.pop("precision", None) and chance.random() < 0.1:
        values["precision"] = {"relative": 0.5, "max_replications": 20}
    tokens = values.get("tokens")
    if isinstance(tokens, dict) and tokens.get("kind") == "synthetic" and chance.random() < 0.9:
        tokens["prompts"] = chance.randint(1, 20)
    elif not isinstance(tokens, dict) or tokens.get("kind") != "models" or chance.random() < 0.98:
        values["tokens"] = {"path": trace}
        if isinstance(tokens, dict) and isinstance(tokens.get("vocabulary_size"), int):
            values["tokens"]["vocabulary_size"] = tokens["vocabulary_size"]
    else:  # those that ship would be loaded, and decode
        tokens["llm"] = chance.choice(["nobody/nothing", "package:nothing", "/dev/null"])
    traffic = values.setdefault("traffic", {})
    if isinstance(traffic, dict):
        traffic["devices"] = devices = chance.choice([1, 2, 3, chance.randint(1, 40)])
        traffic["max_tokens"] = min(int(traffic.get("max_tokens", 12)), 12)
        for section, key in (("channel", "mean_snr_db"), ("uplink", "weights")):
            table = values.get(section)
            if isinstance(table, dict) and isinstance(table.get(key), list):
                table[key] = (table[key] * devices)[:devices]


def as_file(values: Table, chance: random.Random) -> bytes:
    """Return the scenario as the bytes of a file, now and then not quite TOML."""
    try:
        text = tomli_w.dumps(values)
    except (TypeError, ValueError):
        text = repr(values)
    data = text.encode("utf-8", "surrogatepass")
    if chance.random() < 0.8:
        return data
    lines = text.splitlines() or [""]
    spoils: list[Callable[[], bytes]] = [
        lambda: b"\xef\xbb\xbf" + data,
        lambda: data.replace(b"\n", b"\r\n"),
        lambda: text.encode("utf-16"),
        lambda: b"",
        lambda: chance.randbytes(chance.randrange(200)),
        lambda: damaged(data, chance),
        lambda: "\n".join([*lines, chance.choice(lines)]).encode("utf-8", "surrogatepass"),
        lambda: data + b"x = " + b"[" * chance.choice([10, 3000, 100_000]),
        lambda: data + b"\nx = " + b"9" * chance.choice([10, 5000, 100_000]),
        lambda: b"\n".join(chance.sample(data.splitlines(), len(data.splitlines()))),
    ]
    return chance.choice(spoils)()


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Return bytes with a piece flipped, cut, zeroed, repeated, moved or put in."""
    spoiled = bytearray(data)
    at = chance.randrange(max(len(data), 1))
    length = chance.choice([1, 4, 64, max(len(data) // 3, 1)])
    kind = chance.randrange(6)
    if kind == 0 and data:
        for _ in range(chance.choice([1, 1, 3])):
            spoiled[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    elif kind == 1:
        del spoiled[at:]
    elif kind == 2:
        spoiled[at : at + length] = bytes(len(spoiled[at : at + length]))
    elif kind == 3:
        spoiled[at:at] = chance.randbytes(length)
    elif kind == 4:
        spoiled[at:at] = spoiled[at : at + length]
    else:
        del spoiled[at : at + length]
    return bytes(spoiled)


# -- what becomes of them -------------------------------------------------------------------------------------------


def play(file: Path) -> str:
    """Read a scenario file and run it in memory; return how it ended. Raises FoundError, and lets no other way out.

    What ran has obeyed its laws of conservation, or the run had failed. It is also written and read again, to
    the same scenario; a few are run once more, to the same table, and a few drawn.
    """
    try:
        read = read_scenario(file)
        points = sweep_points(read)
    except InputError as error:
        one_message(error)
        return f"refused as a file: {type(error).__name__}"
    if parse_scenario(tomllib.loads(write_scenario(read))) != read:
        raise FoundError("written and read it is another scenario")
    try:
        results = run(read, jobs=1)
    except InputError as error:
        one_message(error)
        return f"refused before the run: {type(error).__name__}"
    except SimulationError as error:
        raise FoundError(f"a run of legal values failed: {error}") from error
    if results.failed:
        raise FoundError(f"a point of legal values failed: {results.failed[0]['reason']}")
    expected = {policy.label for point in points for policy in point.scenario.policy}
    if set(results.policies) != expected:
        raise FoundError(f"{expected} were to be run, {results.policies} were")
    numbers = results.summary[["mean", "ci95_low", "ci95_high"]]
    infinite = results.summary[(numbers.abs() == math.inf).any(axis=1)]
    if len(infinite):
        raise FoundError(f"the summary holds an infinite number:\n{infinite}")
    one_in = zlib.crc32(file.read_bytes())
    if one_in % 64 == 1:
        results.write_report(file.parent)
    if one_in % 16 == 0:
        pd.testing.assert_frame_equal(run(read, jobs=1).summary, results.summary)
    return "ran"


def one_message(error: InputError) -> None:
    text = str(error)
    if not text.strip() or any(not line.strip() or len(line) > 20_000 for line in text.splitlines()):
        raise FoundError(f"a message that says nothing or too much: {text[:300]!r}")


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise FoundError inside if it computes for longer, however busy the machine is with something else."""

    def too_long(*_: object) -> None:
        raise FoundError(f"not done after computing for {seconds:g} s")

    former = signal.signal(signal.SIGPROF, too_long)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, former)
