"""The largest load a cell carries: where theory says what it is, and where the question is wrong."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from product_form import THINK_S, TOKENS, mean_value_analysis

from uhlm_sim.analysis.run import Terms
from uhlm_sim.cli import main
from uhlm_sim.errors import InputError
from uhlm_sim.experiment import run
from uhlm_sim.progress import no_progress
from uhlm_sim.scenario import Scenario
from uhlm_sim.scenario_file import load
from uhlm_sim.search.capacities import Capacity, capacity
from uhlm_sim.search.figure import knee
from uhlm_sim.search.objectives import Objective
from uhlm_sim.search.search import Search


def test_the_capacity_of_a_product_form_cell_is_that_of_mean_value_analysis(closed_cell: Scenario) -> None:
    """The limit lies halfway between what theory gives for 18 and for 19 phones."""
    limit_s = np.mean([mean_value_analysis(phones)[0] for phones in (18, 19)])
    found = capacity(closed_cell, "traffic.devices", [f"tpot_s.mean<={limit_s}"], jobs=1, allow_plugins=True)
    row = found.capacities.iloc[0]
    assert row["bound"] == ""
    assert row["ci95_low"] <= 18 <= row["ci95_high"]
    assert row["ci95_high"] - row["ci95_low"] <= 2
    assert abs(row["capacity"] - 18) <= 1
    # So it is at every other load: the interval of the mean, at 99.9 % for ten of them, holds the theory.
    tpot = found.loads[found.loads["metric"] == "tpot_s.mean"]
    assert len(tpot) >= 8
    for seen in tpot.itertuples():
        theory_s, _ = mean_value_analysis(int(seen.load))
        assert abs(seen.mean - theory_s) <= 4.78 / 2.26 * (seen.ci95_high - seen.mean)
    # Power is tokens/s over a token's time, which is requests present over tokens/s.
    power = {n: x**2 / (n - x / TOKENS * THINK_S) for n in range(1, 40) for _, x in [mean_value_analysis(n)]}
    assert row["knee"] == pytest.approx(max(power, key=lambda n: power[n]), rel=0.15)


def test_the_interval_of_a_capacity_covers_it(scenario_file: Path) -> None:
    """A metric whose mean is the load itself breaks 20.5 at 20.5; chance moves all loads of a replication together.

    60 searches at nominal 95 %: four standard errors are 11 %.
    """
    scenario = load(scenario_file, {**QUICK, "traffic.kind": "poisson", "traffic.rate_per_s": 15.0, "replications": 10})
    covered = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        common = rng.normal(0, 3, 10)

        def observed(point, _progress, rng=rng, common=common):
            load = point.traffic.rate_per_s
            values = np.concatenate([load + common + rng.normal(0, 0.3, 10), np.ones(10)])
            names = np.repeat(["tpot_s.mean", "arrival_rate"], 10)
            of_one = {"point": 0, "policy": "hlm", "replication": np.tile(np.arange(10), 2)}
            table = pd.DataFrame({**of_one, "metric": names, "value": values})
            rest = {"requests": pd.DataFrame(), "provenance": {"any": 1}, "terms": {0: Terms(1.0, 11.0, True)}}
            return SimpleNamespace(replications=table, **rest)

        limit = Objective("tpot_s.mean", True, 20.5)
        search = Search(
            scenario, "traffic.rate_per_s", [limit], low=None, high=None, tolerance=0.02,
            simulate=observed, progress=no_progress,
        )  # fmt: skip
        row = search.follow({"hlm": search.capacity_of("hlm")})["hlm"]
        covered += [row["ci95_low"] <= 20.5 <= row["ci95_high"]]
    assert np.mean(covered) >= 0.84


NARROW = {"uplink.bandwidth_hz": 5e3}  # the uplink is what fills up
QUICK = {**NARROW, "policy": [{"kind": "hlm"}], "replications": 2}


@pytest.fixture
def narrow(scenario_file: Path) -> Scenario:
    return load(scenario_file, NARROW)


def devices(found: Capacity, policy: str = "hlm") -> list[float]:
    """Return the loads at which a policy was simulated."""
    return sorted(found.loads.loc[found.loads["policy"] == policy, "load"].unique())


def test_policies_share_the_loads_that_both_want_and_no_load_is_simulated_twice(
    narrow: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulated = []

    def counted(scenario, **how):
        simulated.extend((scenario.traffic.devices, policy.label) for policy in scenario.policy)
        counted.runs += 1
        return run(scenario, **how)

    counted.runs = 0
    monkeypatch.setattr("uhlm_sim.search.capacities.run", counted)
    found = capacity(narrow, "traffic.devices", ["tpot_s.p95<=0.15"], jobs=1)
    assert len(simulated) == len(set(simulated)) > counted.runs
    assert sorted(simulated) == sorted((n, name) for name in ("hlm", "u-hlm(0.43)") for n in devices(found, name))
    rows = found.capacities.set_index("policy")
    for policy, row in rows.iterrows():
        tpot = found.loads[(found.loads["policy"] == policy) & (found.loads["metric"] == "tpot_s.p95")]
        means = tpot.set_index("load")["mean"]
        assert means[row["capacity"]] <= 0.15 < means[row["capacity"] + 1]
        assert row["ci95_low"] <= row["capacity"] <= row["ci95_high"]
        assert row["limited_by"] == "tpot_s.p95<=0.15"
    assert rows["ratio_to_first"].tolist() == [1.0, rows["capacity"].iloc[1] / rows["capacity"].iloc[0]]
    assert rows["ratio_low"].iloc[1] <= rows["ratio_to_first"].iloc[1] <= rows["ratio_high"].iloc[1]


def test_the_interval_ends_where_the_mean_is_shown_to_break_or_no_longer_shown_to_keep(narrow: Scenario) -> None:
    found = capacity(narrow, "traffic.devices", ["tpot_s.p95<=0.15"], jobs=1)
    tpot = found.loads[(found.loads["policy"] == "hlm") & (found.loads["metric"] == "tpot_s.p95")].set_index("load")
    row = found.capacities.iloc[0]
    assert tpot.loc[row["ci95_low"], "ci95_high"] <= 0.15 < tpot.loc[row["ci95_low"] + 1, "ci95_high"]
    assert tpot.loc[row["ci95_high"], "ci95_low"] <= 0.15 < tpot.loc[row["ci95_high"] + 1, "ci95_low"]
    phones = int(row["capacity"])
    there = run(narrow.model_copy(update={"traffic": narrow.traffic.model_copy(update={"devices": phones})}), jobs=1)
    assert there.mean("hlm", "tpot_s.p95").mean == tpot.loc[phones, "mean"], "a percentile is what a run calls so"


def test_a_load_may_be_a_rate(scenario_file: Path) -> None:
    """Neighbouring loads are a tolerance apart."""
    scenario = load(scenario_file, {**QUICK, "traffic.kind": "poisson", "traffic.rate_per_s": 0.2})
    found = capacity(scenario, "traffic.rate_per_s", ["ttft_s.mean<=1.0"], tolerance=0.1, high=10.0, jobs=1)
    for _, row in found.capacities.iterrows():
        tried = np.array(devices(found, row["policy"]))
        above = tried[tried > row["capacity"]].min()
        assert 1 < above / row["capacity"] <= 1.1
        assert row["ci95_low"] <= row["capacity"] <= row["ci95_high"]


def test_the_strictest_of_several_limits_is_the_one_that_is_told(scenario_file: Path) -> None:
    quick = load(scenario_file, QUICK)
    alone = [
        capacity(quick, "traffic.devices", [slo], jobs=1).capacities for slo in ("tpot_s.p95<=0.15", "e2e_s.mean<=3")
    ]
    both = capacity(quick, "traffic.devices", ["tpot_s.p95<=0.15", "e2e_s.mean<=3"], jobs=1).capacities
    assert (alone[0]["capacity"] < alone[1]["capacity"]).all()
    assert both["capacity"].tolist() == alone[0]["capacity"].tolist()
    assert both["limited_by"].tolist() == ["tpot_s.p95<=0.15"]


def test_where_nothing_keeps_a_limit_that_is_said(narrow: Scenario) -> None:
    found = capacity(narrow, "traffic.devices", ["tpot_s.p95<=0.01"], jobs=1)
    row = found.capacities.iloc[0]
    assert (row["bound"], row["capacity"], row["ci95_low"], row["ci95_high"]) == ("<", 1.0, 0.0, 0.0)
    assert np.isnan(row["ratio_to_first"])
    assert row["words"] == "the least load tried, 1, breaks it"
    assert "< 1" in found.text()


def test_where_nothing_breaks_a_limit_that_is_said(narrow: Scenario) -> None:
    found = capacity(narrow, "traffic.devices", ["tpot_s.p95<=100"], high=8, jobs=1)
    row = found.capacities.iloc[0]
    assert (row["bound"], row["capacity"], row["ci95_low"], row["ci95_high"]) == (">=", 8.0, 8.0, np.inf)
    assert row["words"] == "no load up to 8 breaks it"
    assert ">= 8" in found.text()


@pytest.mark.parametrize("bounds", [{"high": 4}, {"low": 2, "high": 4}, {"high": 2}, {"low": 3, "high": 4}])
def test_a_search_that_ends_at_the_first_load_it_tries_says_so(bounds: dict[str, float], scenario_file: Path) -> None:
    """The own load is 4 phones: 4 or fewer, and there is nothing above to compare with."""
    found = capacity(load(scenario_file, QUICK), "traffic.devices", ["tpot_s.p95<=100"], jobs=1, **bounds)
    assert found.capacities[["bound", "capacity"]].to_numpy().tolist() == [[">=", bounds["high"]]]


def test_one_replication_gives_a_capacity_without_an_interval(scenario_file: Path) -> None:
    row = capacity(load(scenario_file, {**QUICK, "replications": 1}), "traffic.devices", ["tpot_s.p95<=0.15"], jobs=1)
    assert row.capacities["capacity"].notna().all()
    assert row.capacities[["ci95_low", "ci95_high"]].isna().all(axis=None)


def test_a_cell_that_cannot_keep_up_at_its_capacity_is_called_so(scenario_file: Path) -> None:
    """Requests that wait for ever make no token slow: TPOT alone doesn't see them."""
    poisson = {"traffic.kind": "poisson", "traffic.rate_per_s": 5.0, "traffic.devices": 2, "duration_s": 60.0}
    found = capacity(
        load(scenario_file, {**QUICK, **poisson}), "traffic.rate_per_s", ["tpot_s.mean<=10"], high=6.0, jobs=1
    )
    assert found.capacities["words"].str.contains("OVERLOADED").all()


def test_matched_rand_hlm_brings_the_policy_that_it_matches(scenario_file: Path) -> None:
    policies = [{"kind": "rand-hlm", "skip_rate": "matched"}, {"kind": "u-hlm", "threshold": 0.43}, {"kind": "hlm"}]
    found = capacity(
        load(scenario_file, {**QUICK, "policy": policies}), "traffic.devices", ["tpot_s.p95<=0.15"], jobs=1
    )
    assert found.capacities["policy"].tolist() == ["rand-hlm", "u-hlm(0.43)", "hlm"]
    assert (found.capacities["bound"] == "").all()


WRONG = {
    "no metric": ("traffic.devices", ["tpot.p95<=0.2"], "did you mean 'tpot_s.p95'"),
    "no statistic": ("traffic.devices", ["tpot_s<=0.2"], "it has tpot_s.mean"),
    "no operator": ("traffic.devices", ["tpot_s.p95=0.2"], "metric<=value"),
    "no number": ("traffic.devices", ["tpot_s.p95<=fast"], "'fast' is not a finite number"),
    "no finite number": ("traffic.devices", ["tpot_s.p95<=inf"], "'inf' is not a finite number"),
    "below any time": ("traffic.devices", ["tpot_s.p95<=-1"], "'tpot_s.p95<=-1': nothing keeps it.* never below 0"),
    "above any share": ("traffic.devices", ["skip_rate>=1.1"], "nothing keeps it.* never above 1"),
    "kept by any share": ("traffic.devices", ["skip_rate<=1"], "nothing breaks it.* never above 1"),
    "kept by any rate": ("traffic.devices", ["token_throughput>=0"], "nothing breaks it.* never below 0"),
    "below any cosine": ("traffic.devices", ["quality_cosine<=-2"], "nothing keeps it.* never below -1"),
    "no limit": ("traffic.devices", [], "at least one"),
    "no [slo]": ("traffic.devices", ["slo_attainment>=0.95"], r"slo_attainment.*\[slo\]"),
    "no key": ("traffic.devces", ["tpot_s.p95<=0.2"], "did you mean 'devices'"),
    "no numeric key": ("traffic.kind", ["tpot_s.p95<=0.2"], "holds 'closed', not a number"),
    "a policy's key": ("policy.u-hlm(0.43).threshold", ["tpot_s.p95<=0.2"], "belongs to one policy"),
    "a key of other traffic": (
        "traffic.rate_per_s",
        ["tpot_s.p95<=0.2"],
        "belongs to poisson or bursty traffic.* is closed",
    ),
    "more is better": ("uplink.bandwidth_hz", ["tpot_s.p95<=0.00001"], "the better the larger"),
    "more is better, found above": ("uplink.bandwidth_hz", ["tpot_s.p95<=1"], "the better the larger"),
    "no effect": ("base_station.max_batch", ["tpot_s.p95<=100"], "no effect.* from 64 to 4096 no metric"),
}


@pytest.mark.parametrize("text", ["distribution_error<=0", "slo_attainment>=1", "backlog_growth<=-0.1", "e2e_s.p50>=9"])
def test_a_limit_that_a_value_may_keep_and_another_break_is_read(text: str) -> None:
    assert str(Objective.parse(text)) == text


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_question_is_refused_in_words(what: str, scenario_file: Path) -> None:
    vary, slo, told = WRONG[what]
    scenario = load(scenario_file, NARROW)
    with pytest.raises(InputError, match=told):
        capacity(scenario, vary, slo, jobs=1)


@pytest.mark.parametrize("error", [InputError, KeyboardInterrupt])
def test_a_search_that_ends_early_leaves_no_folder(
    error: type[BaseException], narrow: Scenario, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "results" / "out"

    def stopped(*_: object, **__: object) -> None:
        assert out.is_dir()
        raise error

    monkeypatch.setattr("uhlm_sim.search.capacities.run", stopped)
    with pytest.raises(error):
        capacity(narrow, "traffic.devices", ["tpot_s.p95<=0.15"], out=out, jobs=1)
    assert not out.parent.exists()


BOUNDS = {
    r"--low 0: must be a whole number above 0, as traffic\.devices is": {"low": 0},
    "--high 7.5: must be a whole number above 0": {"high": 7.5},
    "--high nan: must be": {"high": float("nan")},
    "--low 5: must be below --high 4": {"low": 5, "high": 4},
    r"--low 1 \(not given\): must be below --high 1": {"high": 1},
    r"--low 64: must be below --high 64 \(not given\)": {"low": 64},
    r"--high 1e\+06: .*traffic\.devices": {"high": 1e6},
}


@pytest.mark.parametrize("told", BOUNDS)
def test_bounds_must_leave_loads(told: str, narrow: Scenario) -> None:
    with pytest.raises(InputError, match=told):
        capacity(narrow, "traffic.devices", ["tpot_s.p95<=0.2"], jobs=1, **BOUNDS[told])


def test_a_sweep_over_something_else_is_refused(scenario_file: Path) -> None:
    scenario = load(scenario_file, {**NARROW, "sweep": {"channel.mean_snr_db": [0.0, 10.0]}})
    with pytest.raises(InputError, match=r"sweeps channel\.mean_snr_db"):
        capacity(scenario, "traffic.devices", ["tpot_s.p95<=0.2"], jobs=1)


def test_a_sweep_over_the_load_itself_and_a_precision_are_left_aside_in_words(scenario_file: Path) -> None:
    asked = {"sweep": {"traffic.devices": [1, 2]}, "precision": {"relative": 0.1}}
    found = capacity(load(scenario_file, {**QUICK, **asked}), "traffic.devices", ["tpot_s.p95<=9"], high=4, jobs=1)
    assert "left aside: the sweep over traffic.devices and the precision of the scenario" in found.text()
    assert found.left_aside == ("the sweep over traffic.devices", "the precision")


def test_the_knee_of_an_open_queue_is_at_half_its_capacity() -> None:
    """M/M/1: power X / T = X (mu - X), greatest at X = mu / 2 (Kleinrock 1979)."""
    mu = 8.0
    load = np.array([1.0, 2.0, 3.0, 4.5, 6.0, 7.5])
    metrics = {"token_throughput": load, "requests_present": load / (mu - load)}
    loads = pd.concat(pd.DataFrame({"load": load, "metric": name, "mean": mean}) for name, mean in metrics.items())
    assert knee(loads) == pytest.approx(mu / 2, rel=0.05)
    assert np.isnan(knee(loads[loads["load"] < 4]))


def test_the_command_prints_the_table_and_writes_the_folder(
    scenario_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["capacity", str(scenario_file), "--vary", "traffic.devices", "--slo", "tpot_s.p95<=0.15", "--jobs", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["uhlm-sim"])
        main([*asked, "--out", str(tmp_path / "out"), "--set", "uplink.bandwidth_hz=5e3", "--set", "replications=2"])
        printed = capsys.readouterr().out
        assert "traffic.devices" in printed
        assert (tmp_path / "out" / "capacity.csv").is_file()
        with pytest.raises(SystemExit) as stopped:
            main([*asked, "--out", str(tmp_path / "out")])
    assert stopped.value.code == 2
    assert "is there already" in capsys.readouterr().err
