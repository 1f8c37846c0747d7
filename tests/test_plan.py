"""The least of a resource that is enough, beside theory and beside a capacity search."""

from math import log2
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from product_form import UPLOAD_S, mean_value_analysis

from uhlm_sim.analysis.run import Terms
from uhlm_sim.cli import main
from uhlm_sim.errors import InputError
from uhlm_sim.progress import no_progress
from uhlm_sim.scenario import Scenario
from uhlm_sim.scenario_file import load
from uhlm_sim.search.capacities import capacity
from uhlm_sim.search.objectives import Objective
from uhlm_sim.search.plans import plan
from uhlm_sim.search.search import Search

QUICK = {"policy": [{"kind": "hlm"}, {"kind": "slm"}], "replications": 2, "duration_s": 20.0, "warmup_s": 5.0}


def test_the_bandwidth_of_a_product_form_cell_is_that_of_mean_value_analysis(closed_cell: Scenario) -> None:
    """What 18 phones need so that a token takes as long as theory says for UPLOAD_S; and it carries 18 phones."""
    theory_hz = 400 / UPLOAD_S / log2(11)
    limit = f"tpot_s.mean<={mean_value_analysis(18)[0]}"
    cell = closed_cell.model_copy(update={"replications": 5})
    wide = {"traffic": cell.traffic.model_copy(update={"devices": 18})}
    wide["uplink"] = cell.uplink.model_copy(update={"bandwidth_hz": 1.5 * theory_hz})
    found = plan(cell.model_copy(update=wide), "uplink.bandwidth_hz", [limit], jobs=1, allow_plugins=True)
    row = found.needs.iloc[0]
    assert row["bound"] == ""
    assert row["ci95_low"] <= theory_hz <= row["ci95_high"]
    assert row["needed"] == pytest.approx(theory_hz, rel=0.1)
    tried = found.tried[found.tried["metric"] == "tpot_s.mean"]
    for seen in tried.itertuples():
        theory_s, _ = mean_value_analysis(18, UPLOAD_S * theory_hz / seen.value)
        assert abs(seen.mean - theory_s) <= 8.61 / 2.78 * (seen.ci95_high - seen.mean)  # 99.9 %
    there = cell.uplink.model_copy(update={"bandwidth_hz": row["needed"]})
    same = cell.model_copy(update={"uplink": there})
    other_way = capacity(same, "traffic.devices", [limit], low=9, high=36, jobs=1, allow_plugins=True)
    row = other_way.capacities.iloc[0]
    assert row["ci95_low"] <= 18 <= row["ci95_high"]


def searched(scenario: Scenario, key: str, metric_of: Any, limit: Objective, **bounds: Any) -> dict[str, Any]:
    """Return the row of a search for the least of a key, where a metric is a function of it and chance."""

    def observed(point: Scenario, _progress: Any) -> Any:
        value: Any = point.model_dump()
        for part in key.split("."):
            value = value[part]
        values = np.concatenate([metric_of(value) + np.array([-0.1, 0.1, 0.0]), np.ones(3)])
        names = np.repeat([limit.metric, "arrival_rate"], 3)
        of_one = {"point": 0, "policy": "hlm", "replication": np.tile(np.arange(3), 2)}
        table = pd.DataFrame({**of_one, "metric": names, "value": values})
        rest = {"requests": pd.DataFrame(), "provenance": {"any": 1}, "terms": {0: Terms(1.0, 11.0, True)}}
        return SimpleNamespace(replications=table, **rest)

    given = {"low": None, "high": None, "tolerance": 0.01, **bounds}
    search = Search(scenario, key, [limit], simulate=observed, progress=no_progress, helps=True, **given)
    row: dict[str, Any] = search.follow({"hlm": search.capacity_of("hlm")})["hlm"]
    return row


@pytest.mark.parametrize("own", [1, 4, 16])
def test_the_least_whole_number_is_found_from_either_side(scenario_file: Path, own: int) -> None:
    """100 / n is at most 17 from n = 6 on; of 16 +- 0.25 and 20 +- 0.25 no interval reaches the limit."""
    scenario = load(scenario_file, {"policy": [{"kind": "hlm"}], "replications": 3, "base_station.gpus": own})
    row = searched(scenario, "base_station.gpus", lambda n: 100 / n, Objective("tpot_s.mean", True, 17.0))
    assert (row["capacity"], row["bound"], row["limited_by"]) == (6.0, "", "tpot_s.mean<=17")
    assert (row["ci95_low"], row["ci95_high"]) == (6.0, 6.0)


def test_a_need_beyond_the_bounds_is_said_to_be(scenario_file: Path) -> None:
    scenario = load(scenario_file, {"policy": [{"kind": "hlm"}], "replications": 3, "base_station.gpus": 4})
    key, limit = "base_station.gpus", Objective("tpot_s.mean", True, 17.0)
    row = searched(scenario, key, lambda n: 100 / n, limit, high=5)
    assert (row["capacity"], row["bound"], row["words"]) == (5.0, ">", "the largest value tried, 5, breaks it")
    row = searched(scenario, key, lambda n: 10 / n, limit)
    assert (row["capacity"], row["bound"], row["words"]) == (1.0, "<=", "no value down to 1 breaks it")


def test_the_least_real_number_has_the_interval_that_chance_leaves(scenario_file: Path) -> None:
    """1e6 / x with means +- 0.248 (t of 3, spread 0.1) crosses 20 at 5e4; the interval ends where it can't be told."""
    scenario = load(scenario_file, {"policy": [{"kind": "hlm"}], "replications": 3, "uplink.bandwidth_hz": 1e4})
    row = searched(scenario, "uplink.bandwidth_hz", lambda x: 1e6 / x, Objective("tpot_s.mean", True, 20.0))
    assert row["capacity"] == pytest.approx(5e4, rel=0.01)
    assert row["ci95_low"] == pytest.approx(1e6 / 20.248, rel=0.01)
    assert row["ci95_high"] == pytest.approx(1e6 / 19.752, rel=0.01)


def test_a_swept_resource_is_searched_and_other_sweeps_stay(scenario_file: Path) -> None:
    swept = {"uplink.bandwidth_hz": [1e5, 1e6], "base_station.downlink_s": [0.0, 0.02]}
    cell = load(scenario_file, {**QUICK, "sweep": swept, "uplink.bandwidth_hz": 2e4})
    found = plan(cell, "uplink.bandwidth_hz", ["tpot_s.mean<=0.1"], low=500.0, high=1e6, tolerance=0.3, jobs=1)
    assert found.needs["base_station.downlink_s"].tolist() == [0.0, 0.0, 0.02, 0.02]
    assert found.left_aside == ("the sweep over uplink.bandwidth_hz",)
    assert found.scenario["sweep"] == {"base_station.downlink_s": [0.0, 0.02]}
    assert [row[4] for row in found._shown().itertuples(index=False)] == ["1", "-", "1", "-"], "SLM needs none"
    zipped = cell.model_copy(update={"sweep": {**swept, "zip": True}})
    with pytest.raises(InputError, match=r"sweeps it in pairs with base_station.downlink_s"):
        plan(zipped, "uplink.bandwidth_hz", ["tpot_s.mean<=0.1"], jobs=1)


def test_what_grows_worse_is_refused_and_capacity_named(scenario_file: Path) -> None:
    scenario = load(scenario_file, {**QUICK, "uplink.bandwidth_hz": 5e3})
    with pytest.raises(InputError, match=r"the worse the larger it is \(.*; uhlm-sim capacity finds the largest load"):
        plan(scenario, "traffic.devices", ["tpot_s.p95<=0.0001"], jobs=1)


def test_the_command_plans_each_point_of_a_sweep_and_writes_the_folder(
    scenario_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SLM sends nothing: any bandwidth is enough for it."""
    asked = ["plan", str(scenario_file), "--for", "traffic.devices=4", "--vary", "uplink.bandwidth_hz", "--jobs", "1"]
    asked += ["--slo", "tpot_s.mean<=0.1", "--low", "500", "--high", "1e6", "--out", str(tmp_path / "out")]
    asked += ["--set", 'policy=[{kind="hlm"}, {kind="slm"}]', "--set", "replications=2"]
    main([*asked, "--set", 'sweep={"base_station.downlink_s"=[0.0, 0.02]}'])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("tiny: the least uplink.bandwidth_hz with tpot_s.mean<=0.1")
    table = pd.read_csv(tmp_path / "out" / "plan.csv")
    assert table["base_station.downlink_s"].tolist() == [0.0, 0.0, 0.02, 0.02]
    assert table["policy"].tolist() == ["hlm", "slm"] * 2
    hlm = table[table["policy"] == "hlm"]["needed"]
    assert hlm.iloc[0] < hlm.iloc[1], "what the downlink takes the uplink must give"
    assert (table[table["policy"] == "slm"]["bound"] == "<=").all()
    files = {str(file.relative_to(tmp_path / "out")) for file in (tmp_path / "out").rglob("*.*")}
    assert files == {
        *("plan.csv", "tried.csv", "scenario.resolved.toml", "provenance.json"),
        *(f"figures/plan.{kind}" for kind in ("png", "pdf", "csv")),
    }
