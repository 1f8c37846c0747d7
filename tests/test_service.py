"""Service times from Python: found before the first event, drawn from their own stream, looked at each time."""

from pathlib import Path

import numpy as np
import pytest
from worlds import agrees, cell, ready

from uhlm_sim.cell.checks import check_scenario
from uhlm_sim.cell.engine import simulate
from uhlm_sim.cell.service import service_times
from uhlm_sim.errors import ScenarioError, SimulationError
from uhlm_sim.rng import stream
from uhlm_sim.scenario_file import parse_scenario, write_scenario

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


def served_by(kind, duration_s=5.0, **params):
    service = {"kind": kind, "c_s": 0.02, "params": params}
    return cell(base_station={"service": service}, duration_s=duration_s, warmup_s=1.0)


def test_own_times_see_the_scenarios_numbers_and_the_replications_stream(own):
    scenario = served_by(f"{own}:exponential", scale=3.0)
    for replication in (0, 1):
        times = service_times(scenario, replication, allow_plugins=True)
        drawn = 3.0 * stream(1, "service", replication).exponential(0.02, 5)
        assert [times(1) for _ in range(5)] == pytest.approx(drawn.tolist())


def test_own_times_are_what_the_base_station_takes(own):
    records = simulate(served_by(f"{own}:exponential", duration_s=60.0), ready(), 0, allow_plugins=True)
    drawn_s = records.tokens["verify_s"].dropna().unique()
    assert agrees(0.02, drawn_s, within=0.15)
    assert np.std(drawn_s) == pytest.approx(0.02, rel=0.15)


def test_the_kind_of_a_preset_is_fitted():
    service = cell(base_station={"llm": "llama2-7b-h100"}).base_station.service
    assert service.kind == "fitted"
    assert service_times(cell(base_station={"llm": "llama2-7b-h100"}), 0)(12) == pytest.approx(0.005562 + 0.0012)


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
        check_scenario(served_by(kind, **params), [ready()], allow_plugins=True)


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
    with pytest.raises(SimulationError, match=told):
        simulate(served_by(f"{own}:{kind}", **params), ready(), 0, allow_plugins=True)
