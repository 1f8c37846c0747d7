"""What the search for a capacity leaves: its table, its folder and its figure."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import SCENARIO

from uhlm_sim.errors import InputError
from uhlm_sim.scenario_file import load
from uhlm_sim.search.capacities import Capacity, capacity, write_capacity
from uhlm_sim.search.figure import capacity_figure, capacity_table
from uhlm_sim.search.objectives import Objective

NARROW = {"uplink.bandwidth_hz": 5e3}  # the uplink is what fills up


@pytest.fixture(scope="module")
def found(trace_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Capacity:
    file = tmp_path_factory.mktemp("found") / "tiny.toml"
    file.write_text(SCENARIO.format(trace=trace_file), encoding="utf-8")
    return capacity(load(file, NARROW), "traffic.devices", ["tpot_s.p95<=0.15", "ttft_s.mean<=9"], jobs=1)


def test_the_knee_of_a_whole_load_is_told_whole_and_a_ratio_as_conservative(found: Capacity) -> None:
    assert found.capacities["knee"].notna().any()
    assert "left aside" not in found.text()
    shown = found._shown()
    assert not shown["knee"].str.contains(".", regex=False).any()
    assert "ratio to first (>= 95 %)" in shown


def test_the_folder_holds_tables_figure_and_what_was_asked(found: Capacity, tmp_path: Path) -> None:
    write_capacity(found, tmp_path / "out")
    names = {str(file.relative_to(tmp_path / "out")) for file in (tmp_path / "out").rglob("*.*")}
    figures = {f"figures/capacity.{kind}" for kind in ("png", "pdf", "csv")}
    assert names == {"capacity.csv", "loads.csv", "provenance.json", "scenario.resolved.toml", *figures}
    written = pd.read_csv(tmp_path / "out" / "capacity.csv")
    assert written["capacity"].tolist() == found.capacities["capacity"].tolist()
    assert load(tmp_path / "out" / "scenario.resolved.toml").name == "tiny"
    with pytest.raises(InputError, match="is there already"):
        write_capacity(found, tmp_path / "out")


def test_the_figure_shows_limits_curves_capacities_and_knees_of_its_table(found: Capacity) -> None:
    table = capacity_table(found.capacities, found.loads, found.objectives)
    assert table["mark"].value_counts()["limit"] == 2
    capacities = table[table["mark"] == "capacity"]
    assert capacities["metric"].tolist() == ["tpot_s.p95"] * 2
    assert (capacities["mean"] == 0.15).all()
    panels = found.figure().axes
    assert [ax.get_title() for ax in panels] == ["TPOT p95, s", "TTFT mean, s"]
    drawn = [line for line in panels[0].get_lines() if len(line.get_xdata()) > 2]
    curves = table[(table["mark"] == "curve") & (table["metric"] == "tpot_s.p95")]
    for line, (_, curve) in zip(drawn, curves.groupby("policy", sort=False), strict=True):
        np.testing.assert_array_equal(line.get_xydata(), curve[["load", "mean"]])


def test_the_figure_hides_no_capacity_behind_another_and_shows_those_that_were_not_found() -> None:
    """Four policies break the limit at 20, at 20, nowhere and everywhere: four heights, two dots and two arrows."""
    rows = [("a", 20.0, ""), ("b", 20.0, ""), ("c", 160.0, ">="), ("d", 1.0, "<")]
    capacities = pd.DataFrame(rows, columns=["policy", "capacity", "bound"]).assign(
        ci95_low=19.0, ci95_high=21.0, knee=np.nan, limited_by=["tpot_s.p95<=0.2"] * 2 + ["", "tpot_s.p95<=0.2"]
    )
    curve = pd.DataFrame({"load": [1.0, 20.0, 160.0], "mean": [0.1, 0.2, 0.9], "ci95_low": 0.1, "ci95_high": 0.9})
    loads = pd.concat(curve.assign(policy=name, metric="tpot_s.p95") for name in "abcd")
    (ax,) = capacity_figure(capacities, loads, "traffic.devices", [Objective("tpot_s.p95", True, 0.2)]).axes
    marks = [line for line in ax.get_lines() if line.get_marker() in ("o", "<", ">") and len(line.get_xdata())]
    assert [line.get_marker() for line in marks] == ["o", "o", ">", "<"]
    heights = [line.get_transform().transform(line.get_xydata())[0, 1] for line in marks]
    assert (np.diff(heights) < -3).all()
    assert marks[2].get_xdata()[0] == ax.get_xlim()[1]
