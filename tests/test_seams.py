"""What holds of every seam: own code counts as built-in code does, and all that a scenario names makes the run."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from test_contracts import DEVICES, NEEDS, files  # noqa: F401  a fixture
from worlds import cell, ready, with_own

from uhlm_sim.analysis.report.sentences import answers
from uhlm_sim.analysis.results import Results
from uhlm_sim.analysis.run_folder import DIGESTS
from uhlm_sim.cell.engine import simulate
from uhlm_sim.cell.named import SEAMS
from uhlm_sim.errors import InputError
from uhlm_sim.experiment import _identity, run
from uhlm_sim.scenario import Scenario
from uhlm_sim.scenario_file import load
from uhlm_sim.seams import own_modules

OPEN = [key for seam in SEAMS if seam.params for key in seam.keys]  # to code of one's own
LIKE_BUILT_IN = ("traffic.kind", "uplink.allocator", "base_station.batch_rule", "base_station.order")
COUSINS = [(s.keys[0], name, f) for s in SEAMS if s.keys[0] in LIKE_BUILT_IN for name, f in s.functions.items()]
EDITS = ("def mine(*given):\n    return 1\n", "def mine(*given):\n    return 1 + 1\n")


def with_value(key: str, value: Any, **tables: Any) -> Scenario:
    """Return a small scenario with one dotted key set."""
    *parts, last = key.split(".")
    if parts == ["policy"]:
        return cell(policy=[{"kind": "hlm"}, {last: value}], **tables)
    values = deepcopy(tables)
    table = values
    for part in parts:
        table = table.setdefault(part, {})
    table[last] = value
    return cell(**values)


@pytest.mark.parametrize("key", OPEN)
def test_edited_code_of_ones_own_makes_another_run_and_is_sent_to_workers(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"edited_{key.replace('.', '_')}"
    file = tmp_path / f"{module}.py"
    file.write_text(EDITS[0], encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    tables = {"base_station": {"service": {"c_s": 0.01}}} if "service" in key else {}
    scenario = with_value(key, f"{module}:mine", **tables)
    named = list(with_own(scenario).values())
    assert [each.__file__ for each in own_modules(named)] == [str(file)]
    before = _identity(scenario, [], named)
    assert _identity(scenario, [], named) == before
    file.write_text(EDITS[1], encoding="utf-8")
    assert _identity(scenario, [], named) != before


@pytest.mark.parametrize("name", [name for name in NEEDS if name != "constant"])
def test_an_edited_file_makes_another_run(name: str, files: Path) -> None:  # noqa: F811
    tables = deepcopy(NEEDS[name])
    table = tables.get("traffic") or tables.get("channel", {}).get("params") or tables["base_station"]["service"]
    key = "file" if name == "replay" else "path"
    table[key] = str(files / table[key])
    kinds = {"trace": ("channel", "trace"), "replay": ("traffic", "replay")}
    if name in kinds:
        tables[kinds[name][0]]["kind"] = name
    tables.setdefault("traffic", {})["devices"] = DEVICES
    scenario = cell(**tables)
    named = list(with_own(scenario).values())
    before = _identity(scenario, [], named)
    content = Path(table[key]).read_bytes()
    Path(table[key]).write_bytes(content + b"\n")
    assert _identity(scenario, [], named) != before
    Path(table[key]).write_bytes(content)
    assert _identity(scenario, [], named) == before


def test_every_key_of_a_file_belongs_to_a_seam() -> None:
    """Those of the tokens are told by the digest of the tokens."""
    schema = Scenario.model_json_schema()

    def keys(table: dict[str, Any], above: str) -> set[str]:
        if "$ref" in table:
            table = schema["$defs"][table["$ref"].rpartition("/")[2]]
        inner = [*table.get("anyOf", []), *table.get("oneOf", [])]
        below = {f"{above}.{name}".lstrip("."): each for name, each in table.get("properties", {}).items()}
        found = {key for key in below if key.rpartition(".")[2] in ("file", "path")}
        return found.union(*(keys(each, key) for key, each in below.items()), *(keys(each, above) for each in inner))

    of_seams = {f"{seam.keys[0].rpartition('.')[0]}.{file}" for seam in SEAMS for file in seam.files}
    told = {key for key in keys(schema, "") if not key.startswith("tokens.")}
    assert told == {"traffic.file", "base_station.service.path"}
    assert of_seams == told | {"channel.params"}


@pytest.mark.parametrize(("key", "name", "function"), COUSINS, ids=lambda each: each if isinstance(each, str) else "")
def test_a_function_named_as_ones_own_gives_the_same_numbers(key: str, name: str, function: Any, files: Path) -> None:  # noqa: F811
    """So nothing is told by its name: not a closed loop, not how its shares can be drained."""
    tables: dict[str, Any] = {
        "traffic": {"devices": DEVICES, "max_tokens": 10, "think_time_s": 0.2, "rate_per_s": 1.0, "burst": {}},
        "uplink": {"tti_s": 0.002, "weights": [1.0, 2.0, 3.0]},
        "channel": {"mean_snr_db": [0.0, 10.0, 20.0]},
        "base_station": {"min_batch": 2, "max_wait_s": 0.1},
        "slo": {"ttft_s": 1.0, "tpot_s": 0.2},
        "duration_s": 4.0,
        "warmup_s": 1.0,
    }
    if name == "replay":
        tables["traffic"]["file"] = str(files / "requests.csv")
    elif key == "traffic.kind":
        tables["traffic"]["presence"] = {"mean_present_s": 2.0, "mean_absent_s": 0.5}
    built_in, own = (with_value(key, each, **tables) for each in (name, f"{function.__module__}:{function.__name__}"))
    here, there = (simulate(each, ready(tokens=10), 0, functions=with_own(each)) for each in (built_in, own))
    for table in ("requests", "tokens", "stations"):
        pd.testing.assert_frame_equal(getattr(here, table), getattr(there, table), check_exact=True)


OWN = """
from uhlm_sim.cell.radio.allocators import Ratio

def thinks(scenario, rng):
    return lambda free_s: free_s + scenario.traffic.think_time_s * rng.standard_exponential()

thinks.closed_loop = True

def pauses(scenario, rng):
    return thinks(scenario, rng)

def alike(left_bits, snr):
    return [1 / len(snr)] * len(snr)

alike.ratio = Ratio()
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_seams.py").write_text(OWN, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("own")
def test_a_closed_loop_of_ones_own_is_reported_as_one(scenario_file: Path, tmp_path: Path) -> None:
    built_in = run(load(scenario_file), jobs=1)
    scenario = load(scenario_file, {"traffic.kind": "own_seams:thinks", "uplink.allocator": "own_seams:alike"})
    mine = run(scenario, jobs=1, out=tmp_path / "mine", allow_plugins=True)
    pd.testing.assert_frame_equal(mine.summary, built_in.summary)
    assert not mine.is_open
    assert not built_in.is_open
    assert answers(mine) == answers(built_in)
    assert "Arrivals are open" not in (tmp_path / "mine" / "report.html").read_text(encoding="utf-8")
    assert not Results.read(tmp_path / "mine").is_open
    unsaid = run(load(scenario_file, {"traffic.kind": "own_seams:pauses"}), jobs=1, allow_plugins=True)
    assert unsaid.is_open


@pytest.mark.parametrize("key", [key for key in OPEN if not key.startswith("policy.")])
def test_code_of_ones_own_that_raises_is_named_before_there_is_a_folder(
    key: str, scenario_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"raises_{key.replace('.', '_')}"
    (tmp_path / f"{module}.py").write_text("def mine(*given):\n    return [][1]\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    values = {key: f"{module}:mine"} | ({"downlink.kind": "shared"} if key.startswith("downlink") else {})
    with pytest.raises(InputError, match=f"{key}.*{module}:mine"):
        run(load(scenario_file, values), jobs=1, out=tmp_path / "run", allow_plugins=True)
    assert not (tmp_path / "run").exists()


def test_a_folder_that_does_not_tell_whether_its_loop_is_closed_tells_it_by_its_traffic(
    scenario_file: Path, tmp_path: Path
) -> None:
    run(load(scenario_file, {"replications": 1}), jobs=1, out=tmp_path / "run")
    file = tmp_path / "run" / "provenance.json"
    told = json.loads(file.read_text(encoding="utf-8"))
    assert told.pop("closed_loop")
    told.pop(DIGESTS)
    file.write_text(json.dumps(told), encoding="utf-8")
    assert not Results.read(tmp_path / "run").is_open
