"""Scenario files: reads TOML with overrides, writes TOML, words errors. The only place that knows file syntax."""

import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, get_args

import tomli_w
from pydantic import ValidationError

from channel_models.text_table import decode, read_content
from uhlm_sim.errors import ScenarioError, TraceError, did_you_mean, without_unit
from uhlm_sim.names import find_scenario, load_presets, scenario_folder
from uhlm_sim.scenario import DeviceClass, Policy, Scenario, Section, SkipRate
from uhlm_sim.settings.tokens import TOKENS
from uhlm_sim.tokens.prompts import BUILT_IN_PROMPTS
from uhlm_sim.tokens.trace_file import BUILT_IN, locate

NO_TABLE = ("literal_error", "float_type")
LISTED: dict[Any, type[Section]] = {"policy": Policy, "device_class": DeviceClass, "skip_rates": SkipRate}
FILES = {  # keys that name a file -> the kind that reads it, and the key of that kind
    "tokens.path": ("trace", "tokens.kind"),
    "tokens.prompts": ("models", "tokens.kind"),
    "channel.params.path": ("trace", "channel.kind"),
    "traffic.file": ("replay", "traffic.kind"),
    "base_station.service.path": ("table", "base_station.service.kind"),
}
ONE_KIND = f"must be one of {', '.join(TOKENS)}"
UNSWEPT = {  # keys that all points share, and why
    "policy": "name a policy and its key, as in policy.u-hlm(0.43).threshold",
    "replications": "it is of all points; [precision] gives each what it needs",
    "sweep": "a sweep has no sweeps",
    "version": "it is the file's",
}
MOST_POINTS, MOST_SIMULATIONS = 10_000, 1_000_000


def read_scenario(path: Path, overrides: Sequence[str] = (), seed: int | None = None) -> Scenario:
    """Read a scenario file, with `a.b=value` overrides and a seed. Raises ScenarioError that says what is wrong.

    A relative path in it is looked for in the file's folder, then in the working directory; one in an override the
    other way round. The scenario has the whole path.
    """
    values = _read_toml(path)
    for override in overrides:
        _override(values, override)
    find_files(values, [Path.cwd(), path.parent], _called(path))
    if seed is not None:
        values["seed"] = seed
    try:
        return parse_scenario(values, _called(path))
    except ScenarioError:
        if overrides:
            parse_scenario(_read_toml(path), _called(path))  # what is wrong with the file is said of the file
            parse_scenario(values, f"{_called(path)} with --set {' --set '.join(overrides)}")
        raise


def load(scenario: str | Path, overrides: Mapping[str, Any] | None = None, *, seed: int | None = None) -> Scenario:
    """Load a built-in scenario by name, or a file, with values of its dotted keys replaced: {"traffic.devices": 40}.

    Relative paths are looked for as in `read_scenario`. Raises ScenarioError that says what is wrong.
    """
    path = find_scenario(str(scenario))
    values = _read_toml(path)
    for key, value in (overrides or {}).items():
        _assign(values, _key_path(values, key), deepcopy(value), key)
    find_files(values, [Path.cwd(), path.parent], _called(path))
    return parse_scenario(values if seed is None else {**values, "seed": seed}, _called(path))


def parse_scenario(values: dict[str, Any], where: str = "scenario") -> Scenario:
    """Turn plain values into a Scenario. Raises ScenarioError with one line for each key that is wrong."""
    try:
        json.dumps(values, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError as error:
        raise ScenarioError(f"{where}: {error.object[error.start : error.end]!r} is no UTF-8 text") from None
    try:
        return Scenario.model_validate(values)
    except ValidationError as error:
        messages: dict[str, list[str]] = {}
        entries = error.errors(include_url=False)
        above = {entry["loc"][:length] for entry in entries if entry["type"] not in NO_TABLE for length in range(9)}
        for entry in entries:
            if isinstance(entry["input"], dict) and entry["type"] in NO_TABLE and entry["loc"][:-1] in above:
                continue  # a table was given: what is wrong in it is told, and no word or number is meant
            subject, message = _explain(dict(entry), values)
            messages.setdefault(subject, []).append(message)
        lines = (f"{where}: {subject}: {_either(alternatives)}" for subject, alternatives in messages.items())
        raise ScenarioError("\n".join(lines)) from None


def write_scenario(scenario: Scenario) -> str:
    """Return the scenario, all defaults and presets filled in, as TOML that reads back the same."""
    return tomli_w.dumps(scenario.model_dump(mode="json", exclude_none=True))


@dataclass(frozen=True)
class Point:
    """One combination of a sweep's values, and the scenario it gives; without a sweep, no values."""

    values: dict[str, Any]
    scenario: Scenario

    @property
    def cells(self) -> tuple[Any, ...]:
        """Return the values as tables hold them: a list or a table of the file as its text."""
        return tuple(str(value) if isinstance(value, list | dict) else value for value in self.values.values())

    @property
    def words(self) -> str:
        return ", ".join(f"{key} = {value}" for key, value in self.values.items())


def sweep_points(scenario: Scenario) -> list[Point]:
    """Return the scenario's points: the product of the sweep's lists, the last key fastest, or with `zip` their pairs.

    Raises ScenarioError for a list that is none or empty, a key that all points share, lists of different lengths to be
    zipped, more than MOST_POINTS or MOST_SIMULATIONS, a point that is there twice, points of synthetic and of real
    tokens, and whatever is wrong with a point, told with its values.
    """
    zips = scenario.sweep.get("zip", False)
    if not isinstance(zips, bool):
        raise ScenarioError(f"sweep.zip = {zips!r}: must be true or false")
    lists = {key: given for key, given in scenario.sweep.items() if key != "zip"}
    for key, given in lists.items():
        if not isinstance(given, list) or not given:
            raise ScenarioError(f"sweep.{key}: must be a list of at least one value")
        table = key.partition(".")[0]
        if key in UNSWEPT or table == "sweep":
            raise ScenarioError(f"sweep.{key}: can't be swept: {UNSWEPT[table]}")
    if not lists:
        return _bounded([Point({}, scenario.model_copy(update={"sweep": {}}))])
    columns = [given for given in lists.values() if isinstance(given, list)]
    if zips:
        if len({len(column) for column in columns}) > 1:
            raise ScenarioError("sweep: lists to be zipped must have the same length")
        rows = list(zip(*columns, strict=True))
    else:
        if math.prod(len(column) for column in columns) > MOST_POINTS:
            raise ScenarioError(f"sweep: more than {MOST_POINTS:,} points")
        rows = list(product(*columns))
    seen = set()
    for row in rows:
        cells = tuple(repr(value) if isinstance(value, list | dict) else value for value in row)
        if cells in seen:
            same = ", ".join(f"{key} = {value}" for key, value in zip(lists, row, strict=True))
            raise ScenarioError(f"sweep: the point {same} is there twice")
        seen.add(cells)
    points = []
    named = {key: [Path(str(value)).name for value in given] for key, given in zip(lists, columns, strict=True)}
    short = [key for key, names in named.items() if key in FILES and len(set(names)) == len(names)]
    for row in rows:
        swept = dict(zip(lists, row, strict=True))
        values: dict[str, Any] = scenario.model_dump(mode="json", exclude_none=True, exclude={"sweep"})
        paths = {key: _key_path(values, key) for key in swept}
        for key, value in swept.items():
            _assign(values, paths[key], deepcopy(value), f"sweep.{key}")
        swept |= {key: Path(str(swept[key])).name for key in short}  # tables say the same wherever the files lie
        words = Point(swept, scenario).words
        points.append(Point(swept, parse_scenario(values, f"sweep point {words}")))
    return _bounded(points)


def _bounded(points: list[Point]) -> list[Point]:
    """Return the points. Raises ScenarioError for too much work, and for tables that are of two kinds."""
    simulations = sum(len(point.scenario.policy) * point.scenario.replications for point in points)
    if simulations > MOST_SIMULATIONS:
        raise ScenarioError(
            f"points x policies x replications: {simulations:,} simulations; at most {MOST_SIMULATIONS:,}"
        )
    kinds = sorted({point.scenario.tokens.kind for point in points})
    if len(kinds) > 1 and "synthetic" in kinds:
        raise ScenarioError(f"sweep: points of tokens.kind {' and '.join(kinds)}; run each kind by itself")
    return points


def _called(path: Path) -> str:
    """Return the name of a scenario in messages: the path of a file, the name of a built-in one."""
    return f"scenario {path.stem}" if path.parent == scenario_folder() else str(path)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        text = decode(read_content(path))
    except ValueError as error:
        raise ScenarioError(f"{path}: {error}") from None
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ScenarioError(f"{path}: not valid TOML: {error}") from None
    find_files(values, [path.parent, Path.cwd()])
    return values


def find_files(values: dict[str, Any], folders: Sequence[Path], where: str | None = None) -> None:
    """Make every relative path of a file whole, swept ones too: it is in the first of the folders that has it.

    A trace that is still to be recorded comes into the working directory. With `where`, the name of the scenario, a
    file that is in none of the folders raises ScenarioError.
    """
    kinds = {kind_key: _value_at(values, kind_key.split(".")) for _, kind_key in FILES.values()}
    for key, (kind, kind_key) in FILES.items():
        *parents, name = key.split(".")
        table, here = _value_at(values, parents), kinds[kind_key]
        value = table.get(name) if isinstance(table, dict) else None
        if not isinstance(value, str) or not value or (key == "tokens.prompts" and value in BUILT_IN_PROMPTS):
            continue
        if key == "tokens.path" and _exists(BUILT_IN / f"{value}.parquet"):
            continue
        there = next((folder / value for folder in folders if _exists(folder / value)), None)
        if there is not None:
            table[name] = str(there.absolute())
        elif key == "tokens.path" and here in ("models", "live"):
            table[name] = str(Path(value).absolute()) if where else value
        elif where and (here == kind or (kind, here) == ("models", "live") or (key == "tokens.path" and here is None)):
            _refuse_file(key, value, folders, where)
    swept = values.get("sweep")
    for key, given in swept.items() if isinstance(swept, dict) else ():
        if not isinstance(given, list) or not any(f"{file}.".startswith(f"{key}.") for file in FILES):
            continue
        for index, value in enumerate(given):
            point: dict[str, Any] = {}
            for kind_key, kind in (kinds | {key: value}).items():
                _assign(point, kind_key.split("."), kind, f"sweep.{key}")
            find_files(point, folders, where)
            given[index] = _value_at(point, key.split("."))


def _refuse_file(key: str, value: str, folders: Sequence[Path], where: str) -> None:
    places = ", nor in ".join(dict.fromkeys(str(folder.absolute()) for folder in folders))
    try:
        reason = f"{key} = '{value}': no such file"
        if key == "tokens.path":
            locate(value)
    except TraceError as error:
        reason = str(error)
    raise ScenarioError(f"{where}: {reason}; it is not in {places}")


def _exists(file: Path) -> bool:
    try:
        return file.exists()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _value_at(values: Any, path: Sequence[str]) -> Any:
    for part in path:
        values = values.get(part) if isinstance(values, dict) else None
    return values


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ScenarioError(f"--set {override}: write it as key=value, for instance --set channel.mean_snr_db=5")
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        if any(text.count(opens) > text.count(closes) for opens, closes in ("[]", "{}")):
            raise ScenarioError(f"--set {override}: a bracket isn't closed") from None
        parsed = {"value": text.strip()}
        parsed |= {"more": ""} if len(text.strip().splitlines()) > 1 else {}
    if len(parsed) > 1 or "\n" in key or "\r" in key:
        raise ScenarioError(f"--set {override!r}: must be one key and one value; text follows after the end of a line")
    _assign(values, _key_path(values, key.strip()), parsed["value"], f"--set {override}")


def _assign(values: dict[str, Any], path: Sequence[Any], value: Any, where: str) -> None:
    """Set a key; a new preset's name first removes what the former preset filled in."""
    table: Any = values
    *parents, last = path
    for parent in parents:
        table = table.setdefault(parent, {}) if isinstance(table, dict) else table[parent]
        if not isinstance(table, dict | list):
            raise ScenarioError(f"{where}: '{parent}' is a value, not a table")
    if isinstance(table, list):
        raise ScenarioError(f"{where}: name the table and its key, as in policy.u-hlm(0.43).threshold")
    if (*parents, last) in (("device", "slm"), ("base_station", "llm")):
        former = load_presets()[last].get(str(table.get(last)), {})
        former = {**load_presets()["roofline"].get(str(table.get(last)), {}), **former}
        for filled in (table, table.get("service", {})):
            for field, filling in former.items():
                if filled.get(field) == filling:
                    del filled[field]
    table[last] = value


def _key_path(values: dict[str, Any], key: str) -> list[Any]:
    """Split a dotted key; `policy.<label>.<key>` finds the policy by its label, or by its kind if only one has it.

    `device_class.<name>.<key>` finds a class by its name.
    """
    if key.startswith("device_class."):
        _, name, *parts = key.split(".")
        entries = values.get("device_class", [])
        places = [index for index, entry in enumerate(entries) if isinstance(entry, dict) and entry.get("name") == name]
        if len(places) != 1:
            names = ", ".join(str(entry.get("name")) for entry in entries if isinstance(entry, dict))
            raise ScenarioError(f"{key}: no single device class is called '{name}'; there are {names or 'none'}")
        return ["device_class", places[0], *parts]
    if not key.startswith("policy."):
        return key.split(".")
    rest = key.removeprefix("policy.")
    entries = values.get("policy", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ScenarioError(f"{key}: policy must be a list of tables, [[policy]]")
    labels = [_label(entry) for entry in entries]
    kinds = [str(entry.get("kind")) for entry in entries]
    for known in (labels, kinds):
        for index, label in enumerate(known):
            if rest.startswith(f"{label}.") and known.count(label) == 1:
                return ["policy", index, *rest.removeprefix(f"{label}.").split(".")]
    if rest in (*labels, *kinds):
        raise ScenarioError(f"{key}: names no key of the policy; write it as policy.u-hlm(0.43).threshold")
    label = rest.rpartition(".")[0] or rest
    raise ScenarioError(f"{key}: no single policy is called '{label}'; there are {', '.join(map(str, labels))}")


def _label(entry: dict[str, Any]) -> str:
    """Return the label of a policy's plain values; of invalid ones its name or kind."""
    try:
        return Policy.model_validate(entry).label
    except ValidationError:
        return str(entry.get("name") or entry.get("kind"))


def _explain(error: dict[str, Any], values: dict[str, Any]) -> tuple[str, str]:
    """Return which key is wrong with its value, and what is allowed."""
    loc = error["loc"]
    is_key = error["type"] in ("extra_forbidden", "missing")  # then the last part was read from the file
    parts = [part for i, part in enumerate(loc) if i == 0 or (is_key and i + 1 == len(loc)) or not _is_branch(part)]
    if parts[:1] == ["policy"] and len(parts) > 1 and isinstance(values["policy"][parts[1]], dict):
        parts[1] = _label(values["policy"][parts[1]])
    if parts[:1] == ["device_class"] and len(parts) > 1 and isinstance(values["device_class"][parts[1]], dict):
        parts[1] = str(values["device_class"][parts[1]].get("name", parts[1]))
    key = ".".join(str(part) for part in parts) if parts else "the scenario"
    value = error.get("input")
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        fields = list(TOKENS[loc[1]].model_fields) if loc[0] == "tokens" and len(loc) == 3 else _fields_of(parts[:-1])
        hint = did_you_mean(str(parts[-1]), fields)
        return f"unknown key '{key}'", f"allowed here are {', '.join(fields)}{hint}"
    if error["type"] == "missing":
        return key, "is missing"
    if error["type"] == "union_tag_not_found":
        return f"{key}.kind", f"is missing; it {ONE_KIND}"
    if error["type"] == "union_tag_invalid":
        return f"{key}.kind = '{error['ctx']['tag']}'", ONE_KIND
    if parts[:2] == ["sweep", "zip"]:
        return f"sweep.zip = {value!r}", "must be true or false"
    if parts[:1] == ["sweep"] and len(parts) > 1:
        allowed = 'must be a list of values, or a range "first:last:step", as "-5:25:5"'
        return f"sweep.{_dotted(parts[1:], values['sweep'])} = {value!r}", allowed
    if isinstance(value, float) and not math.isfinite(value):
        message = "must be a finite number"
    shown = "" if isinstance(value, dict | list) else f" = {value!r}"
    words = {"Input should": "must", "List should": "must", "a valid list": "a list"}
    for theirs, ours in words.items():
        message = message.replace(theirs, ours)
    if error["type"] in ("model_type", "model_attributes_type", "dict_type"):
        message = "must be a table"
    return key + shown, message + (without_unit(value) if isinstance(value, str) else "")


def _dotted(parts: Sequence[Any], sweep: dict[str, Any]) -> str:
    """Return the swept key that an error belongs to, without pydantic's names for the branches of a union."""
    return str(parts[0]) if str(parts[0]) in sweep else ".".join(map(str, parts))


def _either(messages: list[str]) -> str:
    """Join what the branches of a union ask for: "must be greater than 0 or 'per-upload'"."""
    first, *others = dict.fromkeys(messages)
    return " or ".join([first, *(other.removeprefix("must be ") for other in others)])


def _is_branch(part: Any) -> bool:
    """Say whether a part of an error's path is pydantic's name for a union's branch, not a key of the file."""
    return isinstance(part, str) and (part in (*TOKENS, "Target", "float", "str") or "[" in part or "-" in part)


def _fields_of(path: Sequence[Any]) -> list[str]:
    """Return the keys that are allowed in the table at a path."""
    section: Any = Scenario
    for part in path:
        if part in LISTED:
            section = LISTED[part]
        elif part in section.model_fields:  # else it says which one of a list, a policy's label or a number
            given = section.model_fields[part].annotation
            kinds = [kind for kind in (given, *get_args(given)) if isinstance(kind, type) and issubclass(kind, Section)]
            section = next(iter(kinds), section)
    return list(section.model_fields)
