"""Write docs/reference/ from the docstrings and dictionaries of the code: `python docs/reference.py`."""

import inspect
import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

import channel_models
import uhlm_sim
from uhlm_sim.analysis import figures
from uhlm_sim.analysis.figures.catalogue import FIGURES, Plots, RunFigure
from uhlm_sim.analysis.measures import bottleneck
from uhlm_sim.analysis.measures.metrics import METRICS
from uhlm_sim.analysis.results import Results
from uhlm_sim.analysis.run import Run
from uhlm_sim.cell.named import SEAMS
from uhlm_sim.keys import keys_of_a_scenario
from uhlm_sim.names import load_presets
from uhlm_sim.search.capacities import Capacity
from uhlm_sim.search.plans import Plan

FOLDER = Path(__file__).parent / "reference"
Section = tuple[str, str, Mapping[str, Any]]  # heading, words below it, what is listed: text makes a table


def pages() -> dict[str, tuple[str, list[Section]]]:
    """Return file -> title and sections. What a scenario may name has a page by the table of its key."""
    found: dict[str, tuple[str, list[Section]]] = {}
    for seam in SEAMS:
        room = seam.keys[0].partition(".")[0]
        _, sections = found.setdefault(f"{room}.md", (room.replace("_", " ").capitalize(), []))
        sections.append((seam.heading, f"What {' or '.join(f'`{key}`' for key in seam.keys)} may be.", seam.functions))
        if seam.offers:
            sections.append((f"What {seam.heading.lower()} may ask for", "By the name of a parameter.", seam.offers))
    taken = [function for seam in SEAMS for function in seam.functions.values()]
    physics = [(name, getattr(channel_models, name)) for name in channel_models.__all__]
    others = {name: each for name, each in physics if callable(each) and each not in taken}
    found["channel.md"][1].append(
        ("Functions and classes", "Of `channel_models`, with the simulator or without.", others)
    )
    presets = [(f"{key}: {name}", told) for key, each in load_presets().items() for name, told in each.items()]
    found["presets.md"] = ("Presets", [("Presets", "For `device.slm` and `base_station.llm`.", dict(presets))])
    dash = "A dash: no default, or one that a preset or another key gives. In brackets: keys of one kind alone."
    keys = {"key": "type | default | meaning"}
    for name, key in keys_of_a_scenario().items():
        keys[name] = f"{key.allowed} | {f'`{key.default}`' if key.default else '–'} | {key.meaning}"
    found["scenario.md"] = ("Keys of a scenario", [("Keys of a scenario", dash, keys)])
    words = "Metrics of `summary.csv`. W is the window's length; [tables.md](../tables.md) says how to read them."
    metrics = {m.name: f"{m.unit} | {m.family} | {m.meaning}" for m in METRICS.values()}
    found["metrics.md"] = ("Metrics", [("Metrics", words, {"metric": "unit | family | meaning", **metrics})])
    front = {name: getattr(uhlm_sim, name) for name in uhlm_sim.__all__}
    calls = {name: each for name, each in front.items() if inspect.isroutine(each)}
    classes = [(owner.__name__, "", members(owner)) for owner in (Results, Run, Capacity, Plan)]
    station = (bottleneck.__name__, inspect.getdoc(bottleneck) or "", public(bottleneck))
    found["python.md"] = ("Python", [("uhlm_sim", "", calls), *classes, station])
    files = [import_module(f"{figures.__name__}.{file.name}") for file in iter_modules(figures.__path__)]
    drawn = [file for file in files if any(name.startswith("draw_") for name in public(file))]
    functions = [{name: each for name, each in public(file).items() if name not in RunFigure._fields} for file in drawn]
    modules = [(file.__name__, inspect.getdoc(file) or "", names) for file, names in zip(drawn, functions, strict=True)]
    plots = Plots(None)  # type: ignore[arg-type]  # only asked for its methods
    methods = {f".{name}": getattr(plots, name) for name in FIGURES}
    found["figures.md"] = ("Figures", [("results.plot", "", members(Plots) | methods), *modules])
    return found


def public(module: ModuleType) -> dict[str, Any]:
    """Return a module's own public functions and classes."""
    own = {name: each for name, each in vars(module).items() if getattr(each, "__module__", "") == module.__name__}
    return {name: each for name, each in own.items() if not name.startswith("_") and inspect.getdoc(each)}


def members(owner: type) -> dict[str, Any]:
    """Return a class with its public methods and properties."""
    own = {name: each for name, each in vars(owner).items() if not name.startswith("_")}
    told = {name: each for name, each in own.items() if isinstance(each, property) or inspect.isroutine(each)}
    return {owner.__name__: owner, **{f".{name}": each for name, each in told.items()}}


def entry(name: str, each: Any) -> str:
    """Return an entry's heading, how it is called, and its docstring; of a preset its fields and its source."""
    if isinstance(each, Mapping):
        fields = "\n".join(f"- `{key}` = {value}" for key, value in each.items() if key != "source")
        return f"### {name}\n\n{each['source']}.\n\n{fields}"
    text = re.sub(r"(`[^`]*`)|([*<])", lambda found: found[1] or f"\\{found[2]}", inspect.getdoc(each) or "")
    if isinstance(each, property) or inspect.isclass(each):
        return f"### {name}\n\n{text}"
    function = getattr(each, "__func__", each)
    title = name.removeprefix(".") if name.startswith(".") else function.__name__
    called = inspect.signature(function)
    plain = [taken.replace(annotation=taken.empty) for taken in called.parameters.values()]
    bare = called.replace(parameters=plain, return_annotation=called.empty)
    plainly = re.sub(r"<function (\w+) at \w+>", r"\1", f"{title}{bare}")
    return f"### {name}\n\n`{plainly}`\n\n{text}"


def listing(listed: Mapping[str, Any]) -> str:
    """Return what a section lists: texts as a table, whose first row names its columns, others one after the other."""
    if not all(isinstance(each, str) for each in listed.values()):
        return "\n\n".join(entry(name, each) for name, each in listed.items())
    (first, columns), *rows = (listed if {"key", "metric"} & listed.keys() else {"name": "meaning", **listed}).items()
    lines = [f"| {first} | {columns} |", "|---" * (columns.count("|") + 2) + "|"]
    return "\n".join([*lines, *(f"| `{name}` | {told} |" for name, told in rows)])


def render() -> dict[str, str]:
    """Return every page's text by the name of its file."""
    told = "Written by `python docs/reference.py` from the docstrings of the code: change those, and run it again."
    lines, written = [], {}
    for file, (title, sections) in pages().items():
        lines.append(f"- [{title}]({file}): {', '.join(heading for heading, _, _ in sections)}")
        parts = [f"# {title}"]
        for heading, words, listed in sections:
            parts += [f"## {heading}" if heading != title else "", words, listing(listed)]
        written[file] = "\n\n".join(part for part in parts if part) + "\n"
    return {"README.md": "\n\n".join(["# Reference", told, "\n".join(lines)]) + "\n", **written}


if __name__ == "__main__":
    pages = render()
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.md"):
        old.unlink()
    for name, text in pages.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
