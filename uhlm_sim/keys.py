"""The keys of a scenario in words: what each may be, its default and what it means."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from uhlm_sim.errors import InputError, did_you_mean
from uhlm_sim.scenario import Scenario

BOUNDS = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
WORDS = {"null": "unset", "object": "table"}


class Key(NamedTuple):
    """What a key may be, as "number > 0, ≤ 10", its default as JSON ("" for none), and what it means."""

    allowed: str
    default: str
    meaning: str


def keys_of_a_scenario() -> dict[str, Key]:
    """Return every dotted key of a scenario; keys of one kind alone have it in brackets: tokens[models].dtype."""
    schema = Scenario.model_json_schema()
    return dict(_keys_of(schema, schema["$defs"]))


def keys_named(name: str) -> dict[str, Key]:
    """Return the keys that are, or begin with, a dotted name. Raises InputError if there is none."""
    keys = keys_of_a_scenario()
    plain = {key: re.sub(r"\[.*?\]", "", key) for key in keys}
    chosen = {key: keys[key] for key in keys if name in (key, plain[key]) or plain[key].startswith(f"{name}.")}
    if not chosen:
        tables = {key.rpartition(".")[0] for key in plain.values()} - {""}
        hint = did_you_mean(name, sorted({*plain.values(), *tables}))
        raise InputError(f"schema {name}: a scenario has no such key{hint}; uhlm-sim schema lists all")
    return chosen


def _keys_of(schema: Mapping[str, Any], tables: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Key]]:
    for name, field in schema.get("properties", {}).items():
        options = [field, *field.get("anyOf", []), *field.get("oneOf", []), field.get("items", {})]
        inner = [tables[option["$ref"].rpartition("/")[2]] for option in options if "$ref" in option]
        plain = [option for option in field.get("anyOf", []) if "$ref" not in option]
        if not inner or any(option.get("type") != "null" for option in plain):
            allowed = " or ".join(dict.fromkeys(_allowed(option) for option in plain or [field]))
            default = "" if field.get("default") is None else json.dumps(field["default"])
            yield f"{above}{name}", Key(allowed, default, field.get("description", ""))
        for table in inner:
            kind = f"[{table['properties']['kind']['const']}]" if len(inner) > 1 else ""
            yield from _keys_of(table, tables, f"{above}{name}{kind}.")


def _allowed(option: Mapping[str, Any]) -> str:
    """Say what a value may be: "number > 0, ≤ 10"."""
    if "const" in option or "enum" in option:
        return ", ".join(f"`{json.dumps(value)}`" for value in option.get("enum", [option.get("const")]))
    if option.get("type") == "array":
        return f"list of {_allowed(option['items'])}"
    kind = str(option.get("type", "anything"))
    return f"{WORDS.get(kind, kind)} {', '.join(f'{BOUNDS[b]} {option[b]:g}' for b in BOUNDS if b in option)}".strip()
