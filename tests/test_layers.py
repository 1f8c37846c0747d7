"""The order of the rooms, held by reading the imports, those for types alone too."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# A module may import from its own layer and from earlier ones.
LAYERS = [
    "errors",
    "rng",
    "version",
    "progress",
    "tables",
    "names",
    "seams",
    "citations",
    "settings",
    "tokens",
    "scenario",
    "scenario_file",
    "cautions",
    "cell",
]
LAYERS += ["keys", "kinds", "analysis", "provenance", "simulations", "experiment", "search", "validation", "cli"]
# Within these two a room, a folder or a file, may import from itself and from those that are named beside it.
ROOMS = {
    "analysis": {
        "digits": "",
        "run": "",
        "measures": "run",
        "run_folder": "run measures",
        "timeline": "run_folder",
        "figures": "digits run measures",
        "report": "digits run measures figures",
        "results": "digits run measures run_folder figures report",
    },
    "cell": {
        "jobs": "",
        "alarm": "jobs",
        "phones": "jobs",
        "radio": "jobs alarm phones",
        "gpus": "jobs alarm phones",
        "records": "phones",
        "laws": "records",
        "named": "phones radio gpus",
        "checks": "named phones radio gpus",
        "engine": "jobs named phones radio gpus records laws",
    },
}
# What a room's stations may know of the phones: who they are. Its setup puts together what the scenario names.
OF_PHONES = {"uhlm_sim.cell.phones.population"}
FILES = sorted(ROOT.glob("uhlm_sim/**/*.py"))
NAMES = {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in FILES}


def imports(file: Path) -> set[str]:
    """Return the modules that a file imports, inside functions too: of this package by the file, of others by name."""
    modules = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            within = {alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            modules |= {name if name in NAMES else str(node.module) for name in within.values()}
    return modules


IMPORTS = {name: imports(file) for name, file in NAMES.items()}


@pytest.mark.parametrize("name", NAMES)
def test_data_goes_one_way(name: str) -> None:
    if name == "uhlm_sim":  # the front door names what lies behind it
        return
    allowed = LAYERS[: LAYERS.index(name.split(".")[1]) + 1]
    assert {used.split(".")[1] for used in IMPORTS[name] if used.startswith("uhlm_sim.")} <= set(allowed)


def test_nothing_goes_through_the_front_door() -> None:
    assert {name for name, used in IMPORTS.items() if "uhlm_sim" in used} == set()


def test_no_files_import_each_other_in_a_circle() -> None:
    TopologicalSorter({name: used & set(NAMES) - {name} for name, used in IMPORTS.items()}).prepare()


@pytest.mark.parametrize(("layer", "room"), [(layer, room) for layer, rooms in ROOMS.items() for room in rooms])
def test_rooms_import_downwards(layer: str, room: str) -> None:
    above = f"uhlm_sim.{layer}."
    files = {name for name in NAMES if f"{name}.".startswith(f"{above}{room}.")}
    used = {module.removeprefix(above) for name in files for module in IMPORTS[name] if module.startswith(above)}
    assert {module.split(".")[0] for module in used} <= {room, *ROOMS[layer][room].split()}


def test_every_room_has_its_place() -> None:
    for layer, rooms in ROOMS.items():
        assert {name.split(".")[2] for name in NAMES if name.startswith(f"uhlm_sim.{layer}.")} == set(rooms)


def test_stations_know_no_phone() -> None:
    stations = [name for name in NAMES if name.startswith(("uhlm_sim.cell.radio.", "uhlm_sim.cell.gpus."))]
    used = {module for name in stations if not name.endswith(".setup") for module in IMPORTS[name]}
    assert {module for module in used if module.startswith("uhlm_sim.cell.phones")} <= OF_PHONES


@pytest.mark.parametrize("file", sorted(ROOT.glob("channel_models/*.py")), ids=lambda file: file.name)
def test_channel_models_know_nothing_of_the_simulator(file: Path) -> None:
    assert not {name.split(".")[0] for name in imports(file)} & {"uhlm_sim", "simpy", "pandas", "torch"}


def test_analysis_knows_no_process() -> None:
    used = {module for name in NAMES if name.startswith("uhlm_sim.analysis") for module in IMPORTS[name]}
    assert not {module for module in used if module.startswith(("uhlm_sim.cell", "uhlm_sim.tokens", "simpy"))}


def test_processes_know_no_scenario() -> None:
    stations = ("radio.uplink", "radio.adaptive_uplink", "gpus.base_station", "gpus.line")
    for process in ("phones.phone", *stations, "radio.air", "alarm", "jobs"):
        used = IMPORTS[f"uhlm_sim.cell.{process}"]
        assert not {module for module in used if "scenario" in module or "pandas" in module}


def test_files_stay_short() -> None:
    long = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in FILES}
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
    looks = {file.name for file in FILES if "inspect.signature" in file.read_text(encoding="utf-8")}
    assert looks == {"seams.py"}
