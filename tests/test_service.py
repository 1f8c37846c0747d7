"""Service times from Python: found before the first event, drawn from their own stream, looked at each time."""

import tomllib
from pathlib import Path

import numpy as np
import pytest
from worlds import agrees, cell, check_with_own, ready, with_own

from uhlm_sim.cell.checks import check_scenario
from uhlm_sim.cell.engine import simulate
from uhlm_sim.cell.gpus.service import service_times
from uhlm_sim.cell.named import find_names
from uhlm_sim.errors import ScenarioError, SimulationError
from uhlm_sim.names import find_scenario
from uhlm_sim.rng import stream
from uhlm_sim.scenario_file import parse_scenario, read_scenario, sweep_points, write_scenario

OWN = """
def exponential(service, rng, scale=1.0):
    return lambda new_tokens: scale * rng.exponential(service.c_s)

def nothing(service, rng):
    return None

def gives(service, rng, seconds=0.0):
    return lambda new_tokens: seconds

def words(service, rng):
    return lambda new_tokens: "soon"
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's own, by name."""
    (tmp_path / "own_times.py").write_text(OWN, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return "own_times"


KEY = "base_station.service.kind"


def served_by(kind, duration_s=5.0, **params):
    service = {"kind": kind, "c_s": 0.02, "params": params}
    return cell(base_station={"service": service}, duration_s=duration_s, warmup_s=1.0)


def test_own_times_see_the_scenarios_numbers_and_the_replications_stream(own):
    scenario = served_by(f"{own}:exponential", scale=3.0)
    for replication in (0, 1):
        times = service_times(scenario, replication, with_own(scenario)[KEY])
        drawn = 3.0 * stream(1, "service", replication).exponential(0.02, 5)
        assert [times(1) for _ in range(5)] == pytest.approx(drawn.tolist())


def test_own_times_are_what_the_base_station_takes(own):
    scenario = served_by(f"{own}:exponential", duration_s=60.0)
    records = simulate(scenario, ready(), 0, functions=with_own(scenario))
    drawn_s = records.tokens["verify_s"].dropna().unique()
    assert agrees(0.02, drawn_s, within=0.15)
    assert np.std(drawn_s) == pytest.approx(0.02, rel=0.15)


def test_the_kind_of_a_preset_is_fitted():
    faster = cell(base_station={"llm": "llama2-7b-h100"})
    assert faster.base_station.service.kind == "fitted"
    assert service_times(faster, 0, find_names(faster)[KEY])(12) == pytest.approx(0.005562 + 0.0012)


def test_own_times_survive_being_written(own):
    scenario = served_by(f"{own}:exponential", scale=3.0)
    assert f'kind = "{own}:exponential"' in write_scenario(scenario)
    assert parse_scenario(scenario.model_dump(mode="json", exclude_none=True)) == scenario


@pytest.mark.parametrize(
    ("kind", "params", "told"),
    [
        ("fited", {}, "base_station.service.kind = 'fited'.*did you mean 'fitted'"),
        ("fitted", {"scale": 2.0}, "base_station.service.params of fitted.*scale"),
        ("own_times:exponential", {"scal": 2.0}, "base_station.service.params of own_times:exponential.*scal"),
        ("own_times:missing", {}, "base_station.service.kind = 'own_times:missing'.*imported"),
    ],
)
@pytest.mark.usefixtures("own")
def test_a_wrong_kind_is_told_before_the_first_event(kind, params, told):
    with pytest.raises(ScenarioError, match=told):
        check_with_own(served_by(kind, **params))


def roof(max_batch=16, **service):
    scenario = cell(
        base_station={"llm": "llama2-7b-a100", "max_batch": max_batch, "service": {"kind": "roofline", **service}}
    )
    check_scenario(scenario, [ready()])
    return service_times(scenario, 0, find_names(scenario)[KEY])


def test_a_roofline_reads_all_weights_or_computes():
    """Llama-2-7B in FP16, A100-80: 13.48 GB at 2,039 GB/s; 13.48 GFLOP a position at 18 and 38 % of 312 TFLOP/s."""
    flop, peak = 2 * 6.74e9, 312e12
    read_s = 6.74e9 * 2 / 2.039e12
    assert roof()(1) == roof()(16) == pytest.approx(read_s)
    assert roof()(512) == pytest.approx(16 * flop / (0.18 * peak) + 496 * flop / (0.38 * peak))
    assert roof(max_batch=100)(100) == pytest.approx(100 * flop / (0.18 * peak))
    assert roof(attention_s=0.001, bytes_per_parameter=1.0)(1) == pytest.approx(0.001 + read_s / 2)


@pytest.mark.parametrize(
    ("service", "seconds"),
    [
        ({"kind": "roofline"}, 524_288 / 2.039e12),  # 32 layers of 4,096 keys and values in FP16, at 2,039 GB/s
        ({"kind": "roofline", "s_s_per_context": 0.0}, 0.0),
        ({}, 0.0),
        ({"s_s_per_context": 1.5e-7}, 1.5e-7),
    ],
)
def test_a_roofline_reads_the_keys_and_values_that_it_holds(service, seconds):
    scenario = cell(base_station={"llm": "llama2-7b-a100", "service": service})
    again = parse_scenario(tomllib.loads(write_scenario(scenario)))
    assert [one.base_station.s_s_per_context for one in (scenario, again)] == pytest.approx([seconds, seconds])


def test_a_roofline_of_any_model_and_gpu_needs_all_of_its_numbers():
    numbers = {"parameters": 1e9, "bytes_per_parameter": 2.0, "peak_flop_per_s": 1e14, "memory_byte_per_s": 1e12}
    shares = {"mfu_prefill": 0.5, "mfu_decode": 0.5}
    scenario = cell(base_station={"service": {"kind": "roofline", **numbers, **shares}})
    assert scenario.base_station.llm is None
    assert service_times(scenario, 0, find_names(scenario)[KEY])(1) == pytest.approx(0.002)
    with pytest.raises(
        ScenarioError, match=r"no roofline: service needs parameters.*llama2-7b-a100, llama2-7b-h100, qwen-1500m-a100"
    ):
        cell(base_station={"llm": "llama2-7b-a40", "service": {"kind": "roofline"}})


def test_a_preset_of_the_roofline_is_exchanged_as_a_whole():
    scenario = read_scenario(find_scenario("quickstart"), ["base_station.service.kind=roofline"])
    swept = scenario.model_copy(update={"sweep": {"base_station.llm": ["llama2-7b-a100", "llama2-7b-h100"]}})
    times = [service_times(point.scenario, 0, find_names(point.scenario)[KEY])(1) for point in sweep_points(swept)]
    assert times == pytest.approx([13.48e9 / 2.039e12, 13.48e9 / 3.35e12])


def test_a_preset_beside_times_of_ones_own_keeps_its_name_and_must_have_one(tmp_path):
    """It still says what a position of the KV cache takes, and what a GPU draws."""
    (tmp_path / "times.csv").write_text("new_tokens,seconds\n8,0.01\n")
    service = {"kind": "table", "path": str(tmp_path / "times.csv")}
    station = cell(base_station={"llm": "llama2-7b-a40", "kv_bytes": 1e9, "service": service}).base_station
    assert station.kv_capacity_tokens == int(1e9 // 524_288)
    with pytest.raises(ScenarioError, match="no preset 'llama3'"):
        cell(base_station={"llm": "llama3", "service": service})


def tabled(path):
    scenario = cell(base_station={"service": {"kind": "table", "path": str(path)}})
    check_scenario(scenario, [ready()])
    return service_times(scenario, 0, find_names(scenario)[KEY])


def test_a_table_is_straight_lines_between_its_rows_and_beyond_the_last(tmp_path):
    (tmp_path / "times.csv").write_text("new_tokens,seconds\n8,0.01\n16,0.02\n32,0.03\n")
    times = tabled(tmp_path / "times.csv")
    asked = [1, 8, 12, 16, 24, 32, 64]
    assert [times(n) for n in asked] == pytest.approx([0.01, 0.01, 0.015, 0.02, 0.025, 0.03, 0.05])
    (tmp_path / "one.csv").write_text("new_tokens,seconds\n8,0.01\n")
    assert tabled(tmp_path / "one.csv")(100) == 0.01


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ("new_tokens,second\n1,0.1", "columns new_tokens, seconds"),
        ("new_tokens,seconds\n1,fast", "columns new_tokens, seconds"),
        ("new_tokens,seconds\n1,0,1", "line 2: has 3 fields"),
        ("new_tokens,seconds\n1,0.1\n\n2,0.2", "line 3: is blank"),
        ("new_tokens,seconds\n2,0.1\n1,0.2", "rising"),
        ("new_tokens,seconds\n", "at least one"),
        ("new_tokens,seconds\n1,0.0", "greater than 0"),
        ("new_tokens,seconds\n1,0.2\n2,0.1", "not fall"),
        (None, "can't be read"),
    ],
)
def test_a_table_that_is_none_is_told_before_the_first_event(tmp_path, rows, told):
    file = tmp_path / "times.csv"
    if rows is not None:
        file.write_text(rows)
    with pytest.raises(ScenarioError, match=f"base_station.service.path = '.*times.csv': .*{told}"):
        tabled(file)


def test_a_table_without_a_file_is_refused():
    with pytest.raises(ScenarioError, match=r"base_station.service: table needs path"):
        cell(base_station={"service": {"kind": "table"}})


def test_own_times_need_leave(own):
    with pytest.raises(ScenarioError, match="--allow-plugins"):
        check_scenario(served_by(f"{own}:exponential"), [ready()])


@pytest.mark.parametrize(
    ("kind", "params", "told"),
    [
        ("gives", {"seconds": 0.0}, r"own_times:gives: gave 0\.0 .* finite number greater than 0"),
        ("gives", {"seconds": -1.0}, "gave -1.0"),
        ("words", {}, "gave 'soon'"),
        ("nothing", {}, "own_times:nothing: returned None"),
    ],
)
def test_times_that_are_none_are_refused_by_name(own, kind, params, told):
    scenario = served_by(f"{own}:{kind}", **params)
    with pytest.raises(SimulationError, match=told):
        simulate(scenario, ready(), 0, functions=with_own(scenario))
