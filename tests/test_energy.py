"""Joules: watts times the times in the tables, told only where watts are known."""

from pathlib import Path

import numpy as np
import pytest
from worlds import cell, ready

from uhlm_sim import capacity, load, run
from uhlm_sim.analysis.measures.energy import ENERGY, powers_of
from uhlm_sim.analysis.measures.metrics import replication_metrics
from uhlm_sim.cell.engine import simulate
from uhlm_sim.cell.phones.population import population
from uhlm_sim.cell.radio.mean_snr import mean_snr_db, transmit_power_w
from uhlm_sim.errors import InputError, ScenarioError

RADIO = {"transmit_power_dbm": 20.0, "amplifier_efficiency": 0.25, "circuit_power_w": 0.3}  # 0.1 W radiated, 0.4 drawn
PHONE = {"slm_token_s": 0.02, "slm_prefill_token_s": 0.004, "power_w": 2.0, "radio": RADIO}


def busy(policy=None, **changes):
    """A few phones that share a band and a GPU with batches, on moving channels."""
    values = {
        "duration_s": 20.0,
        "warmup_s": 4.0,
        "traffic": {"devices": 6, "think_time_s": 0.3, "max_tokens": 20},
        "device": PHONE,
        "uplink": {"bandwidth_hz": 5e6},
        "base_station": {"service": {"c_s": 0.02}, "max_batch": 3, "gpus": 2, "gpu_power_w": 100.0},
    }
    scenario = cell(**values | changes)
    return scenario, simulate(scenario, policy or ready("u-hlm", skip_rate=0.4), 0)


def measured(scenario, records):
    people = population(scenario)
    return replication_metrics(
        *records.tables, warmup_s=scenario.warmup_s, duration_s=scenario.duration_s,
        devices=len(people), slo={}, output_law=True, powers=powers_of(scenario, [who.group for who in people]),
        device_class=[who.name[0] for who in people] if scenario.device_class else (),
    )  # fmt: skip


def counted(scenario, records):
    tokens = records.tokens
    return tokens[tokens["committed_s"].between(scenario.warmup_s, scenario.duration_s)]


def test_each_part_is_watts_times_its_leg():
    scenario, records = busy()
    found, tokens = measured(scenario, records), counted(scenario, records)
    sent = tokens[tokens["payload_bits"] > 0]
    stay_s = sent["uplink_wait_s"] + sent["airtime_s"]
    parts = {
        "device": 2.0 * tokens["device_s"].sum(),
        "radio": 0.4 * sent["airtime_s"].sum() + 0.3 * stay_s.sum(),
        "base_station": 100.0 * (sent["verify_s"] / sent["batch_jobs"]).sum(),
    }
    for part, joules in parts.items():
        assert found[f"energy_per_token_j.{part}"] == pytest.approx(joules / len(tokens), rel=1e-12)
    assert found["energy_per_token_j"] == pytest.approx(sum(parts.values()) / len(tokens), rel=1e-12)


def test_the_gpus_energy_over_the_tokens_is_their_busy_and_idle_time_times_watts():
    """The station's own clock against the tokens' rows, up to batches at either end of the window."""
    station = {"service": {"c_s": 0.02}, "max_batch": 3, "gpus": 2, "gpu_power_w": 100.0, "gpu_idle_power_w": 30.0}
    scenario, records = busy(base_station=station, duration_s=60.0)
    found = measured(scenario, records)
    busy_share = found["bs_utilisation"]
    watts = 2 * (100.0 * busy_share + 30.0 * (1 - busy_share))
    assert found["energy_per_token_j.base_station"] * found["token_throughput"] == pytest.approx(watts, rel=2e-3)


@pytest.mark.parametrize("allocator", ["equal-share", "fdma", "equal-finish", "tdma", "max-rate", "shortest-first"])
@pytest.mark.parametrize("rule", ["per-hertz", "power-limited"])
def test_a_phone_radiates_all_its_power_while_it_has_any_of_the_band_if_power_is_limited(allocator, rule):
    """Who shares the band sends all the while; who has it alone sends for its airtime: no outage, no ties."""
    uplink = {"bandwidth_hz": 5e6, "allocator": allocator, "snr_rule": rule}
    scenario, records = busy(uplink=uplink, channel={"min_snr_db": -100.0})
    sent = records.rounds.query("payload_bits > 0 and airtime_s.notna()")
    stay_s = sent["uplink_wait_s"] + sent["airtime_s"]
    shares_band = allocator in ("equal-share", "fdma", "equal-finish")
    np.testing.assert_allclose(sent["sending_s"], stay_s if shares_band else sent["airtime_s"], rtol=1e-6, atol=1e-9)
    assert (stay_s > sent["airtime_s"] + 1e-3).mean() > 0.2
    tokens = counted(scenario, records)
    rounds = records.rounds[records.rounds["committed_s"].between(scenario.warmup_s, scenario.duration_s)]
    radiating_s = rounds["sending_s"] if rule == "power-limited" else rounds["airtime_s"]
    joules = 0.4 * radiating_s.sum() + 0.3 * rounds["sending_s"].sum()
    assert measured(scenario, records)["energy_per_token_j.radio"] == pytest.approx(joules / len(tokens), rel=1e-12)


def test_a_phone_alone_costs_the_same_under_either_rule():
    radio = []
    for rule in ("per-hertz", "power-limited"):
        traffic = {"devices": 1, "think_time_s": 0.3, "max_tokens": 20}
        found = measured(*busy(traffic=traffic, uplink={"bandwidth_hz": 5e6, "snr_rule": rule}))
        radio.append(found["energy_per_token_j.radio"])
    assert radio[0] == pytest.approx(radio[1], rel=1e-9)


def test_who_does_not_send_spends_nothing_on_it_and_the_llm_nothing_on_the_phone():
    alone = measured(*busy(ready("slm")))
    assert [alone[f"energy_per_token_j.{part}"] for part in ("radio", "base_station")] == [0.0, 0.0]
    served = measured(*busy(ready("llm")))
    assert served["energy_per_token_j.device"] == 0.0
    assert served["energy_per_token_j.base_station"] > 0.5


def test_what_is_not_known_is_null_and_so_is_the_whole():
    found = measured(*busy(device={**PHONE, "radio": None}))
    assert np.isnan([found["energy_per_token_j"], found["energy_per_token_j.radio"]]).all()
    assert found["energy_per_token_j.device"] > 0
    found = measured(*busy(base_station={"service": {"c_s": 0.02}}))
    assert np.isnan([found["energy_per_token_j"], found["energy_per_token_j.base_station"]]).all()


def test_without_a_phones_power_there_is_no_metric_and_no_column():
    scenario, records = busy(device={"slm_token_s": 0.02, "slm_prefill_token_s": 0.004})
    assert not set(ENERGY) & measured(scenario, records).keys()
    assert "sending_s" not in records.rounds


def test_presets_bring_the_powers_that_have_a_source():
    board = cell(device={"slm": "dragon-q8b-1b-4bit"}, base_station={"llm": "llama2-7b-h100"})
    assert (board.device.power_w, board.base_station.gpu_power_w) == (23.7, 700.0)
    assert cell(device={"slm": "dragon-q8b-1b-4bit", "power_w": 9.0}).device.power_w == 9.0
    phone = cell()
    assert (phone.device.power_w, phone.base_station.gpu_power_w) == (None, 400.0)
    assert powers_of(phone, [0]) is None
    assert cell(base_station={"llm": "llama2-7b-a40"}).base_station.gpu_power_w == 300.0


def test_classes_differ_in_power_and_their_tokens_average_to_the_cells():
    classes = [{"name": "weak", "count": 2, "power_w": 1.0}, {"name": "strong", "count": 4}]
    station = {"service": {"c_s": 0.02}, "gpu_power_w": 100.0, "gpu_idle_power_w": 20.0}
    traffic = {"think_time_s": 0.3, "max_tokens": 20}
    found = measured(*busy(device_class=classes, base_station=station, traffic=traffic))
    for part in ("", ".device", ".radio", ".base_station"):
        name = f"energy_per_token_j{part}"
        weights = [found[f"completed_tokens.class.{each}"] for each in ("weak", "strong")]
        joules = np.average([found[f"{name}.class.{each}"] for each in ("weak", "strong")], weights=weights)
        assert found[name] == pytest.approx(joules, rel=1e-12)
    per_s = [found[f"energy_per_token_j.device.class.{n}"] / found[f"device_s.class.{n}"] for n in ("weak", "strong")]
    assert per_s == pytest.approx([1.0, 2.0])


def test_the_transmit_power_is_the_geometrys():
    geometry = {"geometry": {"max_power_dbm": 26.0}}
    radio = {"amplifier_efficiency": 0.4, "circuit_power_w": 0.0}
    assert cell(device={"radio": radio}).transmit_power_w == pytest.approx(0.19953, rel=1e-4)
    assert cell(device={"radio": radio}, channel=geometry).transmit_power_w == pytest.approx(0.39811, rel=1e-4)
    with pytest.raises(ScenarioError, match=r"device.radio.amplifier_efficiency: is missing"):
        cell(device={"radio": {"circuit_power_w": 0.1}})


def test_under_power_control_a_phone_near_by_radiates_less_and_is_heard_as_well():
    """P = min(Pmax, P0 + 10 lg(B / 180 kHz) + L): below Pmax every mean SNR is P0 over the noise in 180 kHz."""
    geometry = {"p0_dbm": -115.0, "alpha": 1.0, "radius_m": 150.0, "noise_figure_db": 5.0}
    radio = {"amplifier_efficiency": 0.25, "circuit_power_w": 0.0}
    scenario, records = busy(
        channel={"kind": "constant", "geometry": geometry}, device={**PHONE, "radio": radio}, duration_s=30.0
    )
    power_w = transmit_power_w(scenario, 0, population(scenario))
    assert (power_w < scenario.transmit_power_w).all()
    assert power_w.max() > 3 * power_w.min()
    heard_db = mean_snr_db(scenario, 0, population(scenario))
    np.testing.assert_allclose(heard_db, -115.0 - (-174.0 + 10 * np.log10(180e3) + 5.0), atol=1e-9)
    found = replication_metrics(
        *records.tables, warmup_s=scenario.warmup_s, duration_s=scenario.duration_s,
        devices=6, slo={}, output_law=True, powers=powers_of(scenario, [0] * 6, power_w),
    )  # fmt: skip
    tokens = counted(scenario, records)
    joules = (power_w[tokens["device"]] / 0.25 * tokens["airtime_s"].fillna(0.0)).sum()
    assert found["energy_per_token_j.radio"] == pytest.approx(joules / len(tokens), rel=1e-12)


def test_power_control_with_another_power_is_refused():
    geometry = {"geometry": {"p0_dbm": -90.0}}
    with pytest.raises(ScenarioError, match=r"power control sets a power for each hertz.*not with .power-limited"):
        cell(channel=geometry, uplink={"snr_rule": "power-limited"})
    with pytest.raises(ScenarioError, match=r"transmit_power_dbm: channel.geometry.p0_dbm sets the power"):
        cell(channel=geometry, device={"radio": RADIO})


def test_the_report_tells_joules_and_draws_them(scenario_file: Path, tmp_path: Path) -> None:
    results = run(load(scenario_file, {"device.power_w": 2.0, "device.radio": RADIO}), out=tmp_path / "run", jobs=1)
    ratio = results.ratio("u-hlm(0.43)", "hlm", "energy_per_token_j")
    assert 0 < ratio.mean < 1
    rows = results.summary.set_index(["policy", "metric"])["mean"]
    parts = [rows["hlm", f"energy_per_token_j.{part}"] for part in ("device", "radio", "base_station")]
    assert sum(parts) == pytest.approx(rows["hlm", "energy_per_token_j"])
    assert {file.suffix for file in (tmp_path / "run" / "figures").glob("energy.*")} == {".png", ".pdf", ".csv"}
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Energy of a token: under hlm the phone&#39;s computing" in page
    assert "thermal design power: an upper bound" in page
    assert results.plot.energy().get_axes()[0].get_xlabel() == "mean energy of a token, J"


def test_a_report_without_the_radios_power_says_so(scenario_file: Path, tmp_path: Path) -> None:
    run(load(scenario_file, {"device.power_w": 2.0}), out=tmp_path / "run", jobs=1)
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "The power of its radio isn&#39;t known, so neither is the whole energy of a token." in page


def test_a_precision_in_joules_needs_watts(scenario_file: Path) -> None:
    wanted = {"precision": {"metric": "energy_per_token_j", "relative": 0.1, "max_replications": 20}}
    with pytest.raises(ScenarioError, match=r"precision.metric = 'energy_per_token_j': needs device.power_w"):
        run(load(scenario_file, wanted), jobs=1)


def test_an_objective_in_joules_needs_watts(scenario_file: Path) -> None:
    with pytest.raises(InputError, match=r"needs device.power_w or device.radio, and the scenario has neither"):
        capacity(load(scenario_file), "traffic.devices", ["energy_per_token_j<=3"], jobs=1)
