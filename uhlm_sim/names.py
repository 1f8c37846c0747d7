"""Names that a scenario may use: built-in scenarios, presets, kinds and their params, objects of the user's own."""

import importlib
import inspect
import tomllib
from collections.abc import Callable, Collection, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from uhlm_sim.errors import ScenarioError, did_you_mean


@cache
def load_presets() -> dict[str, dict[str, dict[str, Any]]]:
    """Return the presets: kind (`slm`, `llm`, `roofline`) -> name -> fields, its `source` among them."""
    return tomllib.loads(files("uhlm_sim").joinpath("presets.toml").read_text(encoding="utf-8"))


def scenario_folder() -> Path:
    """Return the folder of built-in scenarios: inside an installed package, else beside it in a checkout."""
    package = Path(__file__).parent
    installed = package / "scenarios"
    return installed if installed.is_dir() else package.parent / "scenarios"


def find_scenario(name_or_path: str) -> Path:
    """Return the file of a built-in scenario or of a path. Raises ScenarioError if there is neither."""
    path = Path(name_or_path)
    try:
        if path.is_file():
            return path
    except OSError as error:  # a name too long for a file, or a folder that can't be entered
        raise ScenarioError(f"{name_or_path}: can't be read ({error})") from None
    names = {file.stem: file for file in sorted(scenario_folder().glob("*.toml"))}
    if name_or_path in names:
        return names[name_or_path]
    hint = did_you_mean(name_or_path, names)
    raise ScenarioError(f"{name_or_path}: no such file, nor a built-in scenario ({', '.join(names)}){hint}")


def find_kind(kind: str, table: Mapping[str, Any], key: str, *, allow_plugins: bool) -> Any:
    """Return what a `kind` names: an entry of the table, or a user's own `module:object`.

    Raises ScenarioError for an unknown name, and for a user's object that may not or can't be imported.
    """
    if kind in table:
        return table[kind]
    module, colon, attribute = kind.partition(":")
    if not colon:
        raise ScenarioError(f"{key} = '{kind}': must be one of {', '.join(table)}{did_you_mean(kind, table)}")
    if not allow_plugins:
        raise ScenarioError(f"{key} = '{kind}': code of your own runs only with --allow-plugins")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # the user's own module may raise anything
        told = f"{type(error).__name__}: {error}"
        raise ScenarioError(f"{key} = '{kind}': can't be imported ({told})") from None


def check_params(
    function: Callable[..., Any], first: int, params: Mapping[str, Any], handed: Collection[str] = ()
) -> None:
    """Try a call with `first` values, what is `handed` by name, and the params of a scenario.

    Raises ValueError, naming the params that the function takes, if it can't be called so.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise ValueError(str(error)) from None
    try:
        signature.bind(*[None] * first, **{**dict.fromkeys(handed), **params})
    except TypeError as error:
        own = [name for name in list(signature.parameters)[first:] if name in params or name not in handed]
        unknown = next((name for name in params if name not in own), "")
        raise ValueError(f"{error}; params allowed: {', '.join(own) or 'none'}{did_you_mean(unknown, own)}") from None
