"""Phones of several classes: each has its own device, channel, traffic and policy, and notices only what it shares."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from worlds import cell, ready

from uhlm_sim import load, run
from uhlm_sim.cell.checks import check_scenario
from uhlm_sim.cell.engine import simulate
from uhlm_sim.cell.phones.population import population, weights_of
from uhlm_sim.errors import ScenarioError
from uhlm_sim.settings.device_class import class_sizes

NEAR = {"name": "near", "count": 2, "mean_snr_db": 20.0, "slm_token_s": 0.03, "weight": 3.0}
FAR = {"name": "far", "count": 3, "think_time_s": 0.2}
TRAFFIC = {"think_time_s": 1.0, "max_tokens": 15}


def classed(*classes, **changes):
    return cell(device_class=list(classes), **{"traffic": TRAFFIC, "duration_s": 20.0, **changes})


def of(records, scenario, name):
    """Return a class's tokens with the phone's number in its class."""
    number = {who.device: who.name[1] for who in population(scenario) if who.name[0] == name}
    tokens = records.tokens[records.tokens["device"].isin(number)]
    return tokens.assign(device=tokens["device"].map(number)).reset_index(drop=True)


def test_counts_say_how_many_phones_there_are_and_shares_divide_them():
    scenario = classed(NEAR, FAR)
    assert scenario.traffic.devices == 5
    assert [who.name for who in population(scenario)] == [("near", 0), ("near", 1), ("far", 0), ("far", 1), ("far", 2)]
    thirds = [{"name": name, "share": 1 / 3} for name in "abc"]
    for devices in (3, 7, 20, 1000):
        sizes = class_sizes(classed(*thirds, traffic={"devices": devices}).device_class, devices)
        assert sum(sizes) == devices
        assert max(sizes) - min(sizes) <= 1


def test_a_class_has_what_it_says_in_place_of_the_scenarios_own():
    scenario = classed(NEAR, FAR, device={"slm_token_s": 0.1, "slm_prefill_token_s": 0.0})
    records = simulate(scenario, ready("slm"), 0)
    requests, tokens = records.requests, records.tokens.query("position > 0")
    assert requests.groupby("device_class", observed=True)["mean_snr_db"].unique().to_dict() == {
        "near": [20.0],
        "far": [10.0],
    }
    assert tokens.groupby("device")["device_s"].mean().round(9).tolist() == [0.03] * 2 + [0.1] * 3
    assert weights_of(scenario, population(scenario)).tolist() == [3.0] * 2 + [1.0] * 3


def test_a_class_with_a_preset_takes_its_times_and_power_and_keeps_the_rest():
    board = {"name": "board", "count": 1, "slm": "dragon-q8b-1b-4bit", "uncertainty_s": 0.01}
    phone = {"slm_token_s": 0.1, "slm_prefill_token_s": 0.0, "power_w": 4.0}
    group, other = classed(board, FAR, device=phone).groups
    assert (group.device.slm_token_s, group.device.power_w, group.device.uncertainty_s) == (0.0258, 23.7, 0.01)
    assert (other.device.slm_token_s, other.device.power_w, other.traffic.think_time_s) == (0.1, 4.0, 0.2)


def test_on_its_own_band_and_gpus_a_class_behaves_as_if_it_were_alone():
    """fdma over four phones either way; the other class draws other numbers and stands before or behind."""
    own = {"name": "mine", "count": 2, "mean_snr_db": 5.0}
    changes = {"uplink": {"allocator": "fdma"}, "base_station": {"gpus": 4, "max_batch": 1}}
    found = []
    for classes in ([own, {"name": "a", "count": 2}], [{"name": "b", "count": 2, "think_time_s": 0.1}, own]):
        scenario = classed(*classes, **changes)
        found.append(of(simulate(scenario, ready("u-hlm", skip_rate=0.4), 0), scenario, "mine"))
    assert len(found[0]) > 100
    batches = ["batch_jobs", "batch_tokens"]
    pd.testing.assert_frame_equal(found[0].drop(columns=batches), found[1].drop(columns=batches), rtol=1e-9, atol=1e-9)


def test_another_class_and_more_phones_of_one_change_no_draw_of_the_others():
    """Prompts and thinks hang on (class, number in it), even where all share band and GPU."""
    worlds = []
    for classes in ([NEAR, FAR], [{"name": "new", "count": 3}, {**NEAR, "count": 4}, FAR]):
        scenario = classed(*classes)
        requests = simulate(scenario, ready(), 0).requests
        names = {who.device: who.name for who in population(scenario)}
        free_s = requests.groupby("device")["finished_s"].shift(fill_value=0.0)
        table = requests.assign(think_s=requests["arrived_s"] - free_s, name=requests["device"].map(names))
        worlds.append(table.set_index(["name", "request"])[["prompt", "think_s"]].dropna())
    both = worlds[0].join(worlds[1].add_suffix("_too"), how="inner")
    assert len(both) > 20
    assert (both["prompt"] == both["prompt_too"]).all()
    np.testing.assert_allclose(both["think_s"], both["think_s_too"], atol=1e-9)


def test_a_class_runs_its_own_policy_whatever_is_compared(scenario_file: Path) -> None:
    classes = [{"name": "always", "share": 0.5, "policy": "u-hlm(0.43)"}, {"name": "compared", "share": 0.5}]
    results = run(load(scenario_file, {"device_class": classes}), jobs=1)
    skipped = {
        (policy, name): results.mean(policy, f"skip_rate.class.{name}").mean
        for policy in results.policies
        for name in ("always", "compared")
    }
    assert skipped["hlm", "compared"] == 0.0
    assert skipped["hlm", "always"] == pytest.approx(skipped["u-hlm(0.43)", "always"], rel=0.2)
    assert skipped["hlm", "always"] > 0.1


def test_a_class_that_the_llm_answers_has_generated_tokens_and_the_others_drafts():
    own = {"name": "served", "count": 2, "policy": "llm"}
    scenario = classed(own, FAR, policy=[{"kind": "hlm"}, {"kind": "llm"}])
    records = simulate(scenario, ready(), 0, of_class={"llm": ready("llm")})
    outcomes = records.tokens.groupby(records.tokens["device"] < 2)["outcome"].unique()
    assert set(outcomes[True].dropna()) == {"generated"}
    assert set(outcomes[False].dropna()) == {"accepted", "resampled"}


def test_the_metrics_of_the_classes_are_those_of_their_rows_and_add_up(scenario_file: Path, tmp_path: Path) -> None:
    classes = [{"name": "near", "count": 1, "mean_snr_db": 25.0}, {"name": "far", "count": 3}]
    values = {"traffic": {"think_time_s": 1.0, "max_tokens": 12}, "device_class": classes}
    results = run(load(scenario_file, values), out=tmp_path / "run", jobs=1)
    whole = results.mean("hlm", "token_throughput").mean
    parts = [results.mean("hlm", f"token_throughput.class.{name}").mean for name in ("near", "far")]
    assert sum(parts) == pytest.approx(whole)
    tokens = pd.read_parquet(tmp_path / "run" / "tokens.parquet").query("policy == 'hlm' and device == 0")
    assert parts[0] == pytest.approx(tokens["committed_s"].between(2.0, 12.0).sum() / 10.0 / 3)
    units = results.summary.set_index("metric")["unit"]
    assert units["ttft_s.p95.class.far"].unique().tolist() == ["s"]
    assert not [name for name in units.index if name.startswith("bs_utilisation.class")]
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Phones by class: 1 near; 3 far." in page
    assert "Phones of class near: under hlm an answering phone gets" in page


def test_without_classes_there_is_neither_column_nor_metric(scenario_file: Path) -> None:
    results = run(load(scenario_file), jobs=1)
    assert "device_class" not in results.requests
    assert not results.summary["metric"].str.contains("class").any()


def test_a_key_of_a_class_is_swept_by_the_classs_name(scenario_file: Path, tmp_path: Path) -> None:
    classes = [{"name": "near", "share": 0.5}, {"name": "far", "share": 0.5, "mean_snr_db": 0.0}]
    sweep = {"device_class.far.mean_snr_db": [0.0, 20.0]}
    values = {"device_class": classes, "sweep": sweep, "output.tokens": False}
    results = run(load(scenario_file, values), out=tmp_path / "run", jobs=1)
    rate = results.mean("hlm", "token_throughput_per_device.class.far")
    assert rate["device_class.far.mean_snr_db"].tolist() == [0.0, 20.0]
    assert rate["mean"].iloc[1] > rate["mean"].iloc[0]
    assert "mean_snr_db = swept" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("classes", "changes", "says"),
    [
        ([NEAR, NEAR], {}, "two device classes are called 'near'"),
        ([{"name": "x"}], {}, "device_class.x: needs either a count or a share"),
        ([{"name": "x", "count": 1, "share": 0.5}], {}, "needs either a count or a share"),
        ([NEAR, {"name": "x", "share": 1.0}], {}, "have either counts or shares, all of them"),
        ([{"name": "x", "share": 0.7}], {}, "add up to 0.7, not to 1"),
        ([NEAR, FAR], {"traffic": {"devices": 9}}, "have 5 phones, traffic.devices = 9: leave that out"),
        ([{"name": n, "share": 0.5} for n in "ab"], {"traffic": {"devices": 1}}, "leaves the class . without a phone"),
        ([{**FAR, "policy": "hml"}], {}, "device_class.far.policy = 'hml': must be one of hlm; did you mean 'hlm'"),
        ([{**FAR, "slm": "phone"}], {}, "no preset 'phone'"),
        ([{**FAR, "sml": "x"}], {}, "unknown key 'device_class.far.sml'.*did you mean 'slm'"),
        ([{**FAR, "rate_per_s": 1.0}], {}, "device_class.far.rate_per_s: has no meaning here"),
        ([NEAR], {"uplink": {"weights": [1.0, 1.0]}}, "device_class.near.weight: has no meaning here"),
        ([NEAR], {"channel": {"mean_snr_db": [1.0, 1.0]}}, "device_class.near.mean_snr_db: has no meaning here"),
    ],
)
def test_classes_that_do_not_fit_are_told(classes, changes, says):
    with pytest.raises(ScenarioError, match=says):
        classed(*classes, **changes)


def test_a_class_that_could_never_send_and_an_allocator_without_weights_are_told():
    lost = classed({**FAR, "mean_snr_db": -30.0}, channel={"kind": "constant"})
    with pytest.raises(ScenarioError, match=r"device_class.far: device 0 has a mean SNR of -30.0 dB"):
        check_scenario(lost, [ready()])
    check_scenario(classed(NEAR, FAR, uplink={"allocator": "weighted"}), [ready()])
    with pytest.raises(ScenarioError, match="or a device class with a weight"):
        check_scenario(classed(FAR, uplink={"allocator": "weighted"}), [ready()])
