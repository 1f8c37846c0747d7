"""The simulator hands a channel what it asks for, plays recordings, and refuses what no channel can do."""

import tomllib
from functools import partial
from itertools import islice

import numpy as np
import pytest
from worlds import agrees, cell, ready

from channel_models import CHANNELS, drop_phones, jakes, read_recording, trace, uplink_snr_db
from uhlm_sim.cell.checks import check_scenario
from uhlm_sim.cell.engine import simulate
from uhlm_sim.cell.named import find_names
from uhlm_sim.cell.phones.population import population
from uhlm_sim.cell.radio import mean_snr
from uhlm_sim.cell.radio.air import BLOCKS_AHEAD
from uhlm_sim.cell.radio.fading import find_fading, make_air
from uhlm_sim.errors import InputError, ScenarioError
from uhlm_sim.experiment import run
from uhlm_sim.rng import stream
from uhlm_sim.scenario_file import load, parse_scenario, write_scenario

ROWS_DB = [[10.0, 0.0], [20.0, -30.0], [13.0, 3.0]]


def written(folder, text, name="snr.csv"):
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return str(file)


@pytest.fixture
def recording(tmp_path):
    return written(tmp_path, "near, far\n" + "".join(f"{near}, {far}\n" for near, far in ROWS_DB))


# Recordings ------------------------------------------------------------------------------------------------------


def test_a_recording_is_read_as_linear_snr_with_a_line_of_names_or_without_from_text_or_an_array(tmp_path, recording):
    linear = 10 ** (np.array(ROWS_DB) / 10)
    np.testing.assert_allclose(read_recording(recording), linear)
    np.testing.assert_allclose(read_recording(written(tmp_path, "10,0\n20,-30\n13,3\n", "bare.csv")), linear)
    np.save(tmp_path / "snr.npy", ROWS_DB)
    np.testing.assert_allclose(read_recording(str(tmp_path / "snr.npy")), linear)
    np.save(tmp_path / "one.npy", [10.0, 20.0])
    np.testing.assert_allclose(read_recording(str(tmp_path / "one.npy")), [[10.0], [100.0]])


def test_a_file_that_has_changed_is_read_again(tmp_path):
    assert read_recording(written(tmp_path, "10\n")).tolist() == [[10.0]]
    assert read_recording(written(tmp_path, "20\n20\n")).tolist() == [[100.0], [100.0]]


@pytest.mark.parametrize("device", [0, 1])
def test_each_device_replays_its_own_column_from_the_first_row_and_round_again(recording, device):
    snr = 10 ** (np.array(ROWS_DB)[:, device] / 10)
    gains = next(trace(stream(1), 7, path=recording, device=device))
    np.testing.assert_allclose(gains, [snr[k % 3] / snr.mean() for k in range(7)])


def test_a_single_column_is_every_devices_each_from_a_row_of_its_own(tmp_path):
    path = written(tmp_path, "snr_db\n" + "\n".join(str(float(row)) for row in range(10)))
    starts = [next(trace(stream(1, device), 10, path=path, device=device)) for device in range(2000)]
    rows = np.array([gains.argmin() for gains in starts])
    assert agrees(4.5, rows, within=0.1)
    ordered = np.sort(starts[0])
    for gains, row in zip(starts, rows, strict=True):
        np.testing.assert_array_equal(np.roll(gains, -row), ordered)


def test_no_signal_at_all_is_a_gain_of_zero(tmp_path):
    gains = next(trace(stream(1), 4, path=written(tmp_path, "0,-inf\n0,3\n"), device=1))
    assert gains.tolist() == [0.0, 2.0, 0.0, 2.0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no rows"),
        ("near,far\n", "no rows"),
        ("1,2\n3\n", "line 2, column 2: is missing"),
        ("1\ntwo\n", "two"),
        ("1\nnan\n", "not a number"),
        ("1\ninf\n", "above 300 dB"),
        ("1,-inf\n2,-inf\n", "no signal at all"),
        (None, "can't be read"),
    ],
)
def test_what_is_no_recording_is_refused_before_the_first_event(tmp_path, text, message):
    path = str(tmp_path / "snr.csv") if text is None else written(tmp_path, text)
    scenario = cell(channel={"kind": "trace", "params": {"path": path}})
    with pytest.raises(ScenarioError, match=message) as refused:
        check_scenario(scenario, [ready()])
    assert str(refused.value).startswith(f"channel.params of trace: {path}: ")


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"no array"])
def test_a_damaged_array_is_refused(tmp_path, content):
    (tmp_path / "snr.npy").write_bytes(content)
    with pytest.raises(ValueError, match=r"snr\.npy: "):
        read_recording(str(tmp_path / "snr.npy"))


def test_more_devices_than_columns_are_refused(recording):
    channel = {"kind": "trace", "params": {"path": recording}}
    check_scenario(cell(channel=channel, traffic={"devices": 2}), [ready()])
    with pytest.raises(ScenarioError, match="has 2 columns, none for device 2"):
        check_scenario(cell(channel=channel, traffic={"devices": 3}), [ready()])


def fading_of(scenario):
    return find_fading(scenario, find_names(scenario)["channel.kind"])


def mean_snr_db(scenario, replication):
    return mean_snr.mean_snr_db(scenario, replication, population(scenario))


# In the cell -----------------------------------------------------------------------------------------------------


def air_of(scenario, blocks):
    """Return the SNR of every device in the first blocks (block, device)."""
    air = make_air(scenario, fading_of(scenario), 0, mean_snr_db(scenario, 0), population(scenario))
    return np.array([air.enter(block) or air.snr for block in range(blocks)])


def test_in_the_cell_row_k_of_the_recording_is_block_k_around_the_mean_that_the_scenario_gives(recording):
    snr = 10 ** (np.array(ROWS_DB) / 10)
    scenario = cell(
        channel={"kind": "trace", "params": {"path": recording}, "mean_snr_db": [10.0, 20.0]}, traffic={"devices": 2}
    )
    expected = [[10, 100] * snr[k % 3] / snr.mean(axis=0) for k in range(BLOCKS_AHEAD + 5)]
    np.testing.assert_allclose(air_of(scenario, BLOCKS_AHEAD + 5), expected)


def test_a_moving_phone_is_sampled_once_a_coherence_time():
    params = {"speed_m_per_s": 3.0, "carrier_hz": 2e9}
    scenario = cell(channel={"kind": "jakes", "coherence_s": 0.005, "params": params, "mean_snr_db": 0.0})
    gains = next(jakes(stream(1, "fading", 0, 19), 300, block_s=0.005, **params))
    np.testing.assert_array_equal(air_of(scenario, 300)[:, 19], gains)


def test_a_phone_moves_at_the_carrier_of_its_path_loss():
    channel = {"kind": "jakes", "coherence_s": 0.001, "params": {"speed_m_per_s": 3.0}}
    scenario = cell(channel={**channel, "geometry": {"carrier_hz": 28e9, "shadowing": False}})
    found = next(fading_of(scenario)(7)(stream(1, "own"), 300))
    expected = next(jakes(stream(1, "own"), 300, block_s=0.001, speed_m_per_s=3.0, carrier_hz=28e9))
    np.testing.assert_array_equal(found, expected)
    without = cell(channel={**channel, "mean_snr_db": 10.0})
    assert "carrier_hz" not in fading_of(without)(7).keywords  # the model's own default


def test_two_carriers_in_one_scenario_are_refused():
    channel = {"kind": "jakes", "params": {"carrier_hz": 3.5e9}}
    check_scenario(cell(channel={**channel, "geometry": {"carrier_hz": 3.5e9}}), [ready()])
    with pytest.raises(ScenarioError) as refused:
        check_scenario(cell(channel={**channel, "geometry": {"carrier_hz": 28e9}}), [ready()])
    told = "channel.params.carrier_hz = 3500000000: must be channel.geometry.carrier_hz = 28000000000, or be left out"
    assert str(refused.value) == told


@pytest.mark.parametrize("kind", ["jakes", "trace"])
def test_a_channel_that_goes_on_from_block_to_block_has_no_gain_per_upload(kind):
    with pytest.raises(ScenarioError, match="coherence_s = 'per-upload'"):
        check_scenario(cell(channel={"kind": kind, "coherence_s": "per-upload"}), [ready()])


@pytest.mark.parametrize(
    ("kind", "params", "message"),
    [
        ("rician", {"k_factor": 3.0}, r"'k_factor'; params allowed: k_factor_db; did you mean 'k_factor_db'\?$"),
        ("rayleigh", {"shape": 3.0}, "unexpected keyword argument 'shape'; params allowed: none$"),
        ("jakes", {"speed_m_s": 3.0}, r"allowed: speed_m_per_s, carrier_hz; did you mean 'speed_m_per_s'\?$"),
        ("jakes", {"block_s": 0.1}, "'block_s' comes from the cell$"),
        ("jakes", {"speed_m_per_s": -3.0}, "speed_m_per_s = -3: must be 0 or greater"),
        ("nakagami", {"shape": 0.3}, "at least 0.5"),
        ("nakagami", {"shape": "two"}, "shape = 'two' must be a number"),
        ("jakes", {"speed_m_per_s": "fast"}, "speed_m_per_s = 'fast' must be a number"),
        ("trace", {}, "path"),
    ],
)
def test_wrong_parameters_are_told_before_the_first_event(kind, params, message):
    with pytest.raises(ScenarioError, match=message) as refused:
        check_scenario(cell(channel={"kind": kind, "params": params}), [ready()])
    assert str(refused.value).startswith(f"channel.params of {kind}: ")


@pytest.mark.parametrize("name", CHANNELS)
def test_every_channel_runs_in_a_cell_that_keeps_its_laws(name, recording):
    params = {"trace": {"path": recording}}.get(name, {})
    scenario = cell(
        channel={"kind": name, "params": params},
        traffic={"devices": 2},
        duration_s=10.0,
    )
    check_scenario(scenario, [ready()])
    records = simulate(scenario, ready(), 0)  # raises if a law is broken
    assert records.tokens["committed_s"].notna().sum() > 10


def test_a_channel_of_ones_own_may_ask_for_the_block_and_the_device():
    handed = []

    def own(rng, size, *, block_s, device, scale):
        handed.append((block_s, device, scale))
        while True:
            yield rng.random(size)

    CHANNELS["own"] = own
    try:
        fading = fading_of(cell(channel={"kind": "own", "coherence_s": 0.1, "params": {"scale": 2.0}}))(7)
        list(islice(fading(stream(1), 3), 1))
    finally:
        del CHANNELS["own"]
    assert handed == [(0.1, 7, 2.0)]
    assert isinstance(fading, partial)


# Places ----------------------------------------------------------------------------------------------------------

CLOSE = {"radius_m": 300.0, "model": "umi", "min_distance_m": 10.0, "p0_dbm": -90.0, "alpha": 0.8}


def placed(geometry, **changes):
    return cell(channel={"geometry": geometry, **changes.pop("channel", {})}, **changes)


def test_a_phones_mean_snr_is_that_of_its_own_draw_through_the_link_budget():
    found = mean_snr_db(placed(CLOSE), 3)
    for device in (0, 11, 19):
        drop = drop_phones(stream(1, "drop", 3, device), 1, model="umi", radius_m=300.0, min_distance_m=10.0)
        by_hand = uplink_snr_db(drop.loss_db, bandwidth_hz=10e6, p0_dbm=-90.0, alpha=0.8)
        assert found[device] == by_hand[0]


def test_another_phone_moves_no_one_and_another_replication_moves_all():
    twenty = mean_snr_db(placed(CLOSE, traffic={"devices": 20}), 0)
    np.testing.assert_array_equal(mean_snr_db(placed(CLOSE, traffic={"devices": 30}), 0)[:20], twenty)
    assert (mean_snr_db(placed(CLOSE), 1) != twenty).all()


def test_twice_the_band_spreads_the_power_of_a_phone_without_control_over_3_db_less():
    wide, narrow = (mean_snr_db(placed({}, uplink={"bandwidth_hz": band_hz}), 0) for band_hz in (20e6, 10e6))
    np.testing.assert_allclose(narrow - wide, 10 * np.log10(2))


def test_every_request_tells_the_mean_snr_of_its_phone_in_its_replication():
    scenario = placed(CLOSE, traffic={"devices": 5})
    for replication in (0, 1):
        requests = simulate(scenario, ready(), replication).requests
        told = requests.groupby("device")["mean_snr_db"].unique()
        assert {device: list(values) for device, values in told.items()} == {
            device: [mean_snr_db(scenario, replication)[device]] for device in told.index
        }


def test_a_resolved_scenario_with_places_reads_back_the_same():
    scenario = placed(CLOSE)
    assert scenario.channel.mean_snr_db == "geometry"
    assert parse_scenario(tomllib.loads(write_scenario(scenario))) == scenario


def test_a_recording_keeps_its_own_mean_unless_the_scenario_gives_another(recording):
    channel = {"kind": "trace", "params": {"path": recording}}
    own = cell(channel=channel, traffic={"devices": 2})
    linear = 10 ** (np.array(ROWS_DB) / 10)
    np.testing.assert_allclose(mean_snr_db(own, 0), 10 * np.log10(linear.mean(axis=0)))
    np.testing.assert_allclose(air_of(own, 7), [linear[k % 3] for k in range(7)])
    other = cell(channel={**channel, "mean_snr_db": 4.0}, traffic={"devices": 2})
    assert mean_snr_db(other, 0).tolist() == [4.0, 4.0]


def test_a_recording_of_one_device_gives_all_their_mean(tmp_path):
    channel = {"kind": "trace", "params": {"path": written(tmp_path, "10\n20\n")}}
    np.testing.assert_allclose(mean_snr_db(cell(channel=channel), 0), np.full(20, 10 * np.log10(55)))


@pytest.mark.parametrize(
    ("channel", "message"),
    [
        ({"geometry": {}, "mean_snr_db": 3.0}, r"\[channel.geometry\] gives mean_snr_db"),
        ({"mean_snr_db": "geometry"}, r"needs a table \[channel.geometry\]"),
        ({"mean_snr_db": "recorded"}, 'belongs to kind = "trace"'),
        ({"geometry": {"radius": 3.0}}, "did you mean 'radius_m'"),
        ({"geometry": {"model": "indoor"}}, "channel.geometry.model = 'indoor': must be 'uma', 'umi' or 'rma'"),
        ({"geometry": {"radius_m": 5001.0}}, "channel.geometry.radius_m"),
    ],
)
def test_a_scenario_that_contradicts_itself_about_places_is_refused(channel, message):
    with pytest.raises(ScenarioError, match=message):
        cell(channel=channel)


@pytest.mark.parametrize(
    ("geometry", "kind", "message"),
    [
        ({"min_distance_m": 250.0}, "rayleigh", "within the cell"),
        ({"model": "rma", "carrier_hz": 60e9}, "rayleigh", "carrier_hz"),
        ({"radius_m": 5000.0, "sight": "never"}, "constant", "could never send"),
    ],
)
def test_places_that_can_not_be_are_told_before_the_first_event(geometry, kind, message):
    with pytest.raises(ScenarioError, match=message) as refused:
        check_scenario(placed(geometry, channel={"kind": kind}), [ready()])
    assert str(refused.value).startswith("channel.geometry: ")


def test_a_run_is_not_gone_on_with_another_recording(tmp_path):
    path = written(tmp_path, "10\n20\n")
    changes = {"channel.kind": "trace", "channel.params": {"path": path}, "duration_s": 5.0, "warmup_s": 1.0}
    scenario = load("quickstart", {**changes, "replications": 2, "channel.mean_snr_db": "recorded"})
    run(scenario, out=tmp_path / "run", jobs=1)
    run(scenario, out=tmp_path / "run", jobs=1, resume=True)
    written(tmp_path, "10\n21\n")
    with pytest.raises(InputError, match="holds something else"):
        run(scenario, out=tmp_path / "run", jobs=1, resume=True)


@pytest.mark.parametrize(
    ("limits", "bit_per_s_hz"), [({"snr_gap_db": 3.0}, np.log2(1 + 10**0.7)), ({"max_spectral_efficiency": 2.0}, 2.0)]
)
def test_a_phone_sends_at_the_rate_that_gap_and_cap_leave(limits, bit_per_s_hz):
    scenario = cell(channel={"kind": "constant", "mean_snr_db": 10.0, **limits}, traffic={"devices": 1})
    tokens = simulate(scenario, ready(), 0).tokens.dropna()
    rate = bit_per_s_hz * scenario.uplink.bandwidth_hz
    np.testing.assert_allclose(tokens["airtime_s"], tokens["payload_bits"] / rate)
