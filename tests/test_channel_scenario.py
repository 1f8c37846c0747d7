"""The simulator hands a channel what it asks for, plays recordings, and refuses what no channel can do."""

from functools import partial
from itertools import islice

import numpy as np
import pytest
from worlds import agrees, cell, ready

from channel_models import CHANNELS, jakes, read_recording, trace
from uhlm_sim.cell.air import BLOCKS_AHEAD
from uhlm_sim.cell.engine import check_scenario, find_fading, make_air, simulate
from uhlm_sim.errors import ScenarioError
from uhlm_sim.rng import stream

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
        ("1,2\n3\n", "columns changed"),
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


# In the cell -----------------------------------------------------------------------------------------------------


def air_of(scenario, blocks):
    """Return the SNR of every device in the first blocks (block, device)."""
    air = make_air(scenario, find_fading(scenario), 0)
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


@pytest.mark.parametrize("kind", ["jakes", "trace"])
def test_a_channel_that_goes_on_from_block_to_block_has_no_gain_per_upload(kind):
    with pytest.raises(ScenarioError, match="coherence_s = 'per-upload'"):
        check_scenario(cell(channel={"kind": kind, "coherence_s": "per-upload"}), [ready()])


@pytest.mark.parametrize(
    ("kind", "params", "message"),
    [
        ("rician", {"k_factor": 3.0}, "unexpected keyword argument 'k_factor'"),
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
        fading_of = find_fading(cell(channel={"kind": "own", "coherence_s": 0.1, "params": {"scale": 2.0}}))
        list(islice(fading_of(7)(stream(1), 3), 1))
    finally:
        del CHANNELS["own"]
    assert handed == [(0.1, 7, 2.0)]
    assert isinstance(fading_of(7), partial)
