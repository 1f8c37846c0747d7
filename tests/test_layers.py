"""The order of the rooms, held by reading the imports."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# A module may import from its own layer and from earlier ones.
LAYERS = [
    "errors",
    "rng",
    "names",
    "seams",
    "settings",
    "tokens",
    "scenario",
    "scenario_file",
    "cell",
    "kinds",
    "analysis",
    "provenance",
]
LAYERS += ["simulations", "experiment", "search", "validation", "cli"]
MODULES = sorted(ROOT.glob("uhlm_sim/**/*.py"))


def imports(file: Path) -> list[str]:
    """Return the dotted names that a file imports, inside functions too."""
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found += [node.module or ""]
            found += [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "uhlm_sim" else []
    return found


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(ROOT)))
def test_data_goes_one_way(file: Path) -> None:
    room = file.relative_to(ROOT / "uhlm_sim").parts[0].removesuffix(".py")
    if room == "__init__":
        return
    allowed = LAYERS[: LAYERS.index(room) + 1]
    used = {name.split(".")[1] for name in imports(file) if name.startswith("uhlm_sim.")} - {"__version__"}
    assert used <= set(allowed)


@pytest.mark.parametrize("file", sorted(ROOT.glob("channel_models/*.py")), ids=lambda file: file.name)
def test_channel_models_know_nothing_of_the_simulator(file: Path) -> None:
    assert not {name.split(".")[0] for name in imports(file)} & {"uhlm_sim", "simpy", "pandas", "torch"}


def test_analysis_knows_no_process() -> None:
    used = {name for file in MODULES if "analysis" in file.parts for name in imports(file)}
    assert not {name for name in used if name.startswith(("uhlm_sim.cell", "uhlm_sim.tokens", "simpy"))}


def test_processes_know_no_scenario() -> None:
    for name in ("phones/phone", "radio/uplink", "gpus/base_station", "radio/air", "jobs"):
        used = imports(ROOT / "uhlm_sim" / "cell" / f"{name}.py")
        assert not {module for module in used if "scenario" in module or "pandas" in module}


def test_files_stay_short() -> None:
    long = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in MODULES}
    assert {file: lines for file, lines in long.items() if lines > 400} == {}


def loaded_by(statement: str) -> set[str]:
    """Return the top-level packages that a fresh interpreter has loaded after a statement."""
    code = f"import sys; {statement}; print(' '.join({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_nothing_loads_torch_unless_a_model_is_loaded() -> None:
    loaded = loaded_by("import uhlm_sim.experiment, uhlm_sim.cli, uhlm_sim.tokens.recording")
    assert not loaded & {"torch", "transformers"}


def test_help_loads_nothing_heavy() -> None:
    assert not loaded_by("import uhlm_sim.cli; uhlm_sim.cli.parser()") & {"numpy", "pandas", "simpy", "matplotlib"}


def test_functions_are_looked_into_at_the_seams_only() -> None:
    looks = {file.name for file in MODULES if "inspect.signature" in file.read_text(encoding="utf-8")}
    assert looks == {"seams.py"}
