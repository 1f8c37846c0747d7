"""Names of built-in scenarios and presets."""

import tomllib
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
    beside = map(str, path.parent.glob("*.toml")) if path.suffix else ()
    hint = did_you_mean(name_or_path, [*beside, *names])
    raise ScenarioError(f"{name_or_path}: no such file, nor a built-in scenario ({', '.join(names)}){hint}")
