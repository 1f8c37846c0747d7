"""Tables of text are read as they are written, or refused by line: nothing is guessed, nothing closes up."""

import os
import random
import re
from collections import Counter

import fuzz_tables
import numpy as np
import pytest
from worlds import cell, ready

from channel_models import RateLaw, RecordingFormat, read_recording, spectral_efficiency
from channel_models.text_table import number, read_table
from uhlm_sim.cell.checks import check_scenario
from uhlm_sim.cell.engine import simulate
from uhlm_sim.errors import ScenarioError
from uhlm_sim.provenance import assumptions
from uhlm_sim.tokens.synthetic import Synthetic


@pytest.fixture
def written(tmp_path):
    def write(content, name="table.csv"):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(tmp_path / name)

    return write


# Text --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", ["a,b\n1,2\n3,4\n", "\ufeffa,b\n1,2\n3,4", "a , b\r\n1, 2\r\n3,\t4\r\n", 'a,"b"\n1,"2"\n3,4\n']
)
def test_a_mark_line_ends_blanks_and_quotes_are_no_content(content, written):
    table = read_table(written(content))
    assert table.names == ["a", "b"]
    assert table.numbers(1).tolist() == [2.0, 4.0]


def test_objects_of_json_lines_are_rows_in_the_order_of_the_first_ones_keys(written):
    table = read_table(written('{"a": 1.50, "b": [1, 2]}\n{"b": null, "a": "2"}\n', "table.jsonl"))
    assert (table.names, table.rows, table.lines) == (["a", "b"], [["1.50", "['1', '2']"], ["2", ""]], [1, 2])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a,b\n1,2\n\n3,4\n", "line 3: is blank"),
        ("a\n1\n\n", "line 3: is blank"),
        ("a,b\n1,2\n3\n", "line 3, column 'b': is missing; the line is cut off"),
        ("a,b\n1,2\n1,5,2\n", "line 3: has 3 fields, and line 1 has 2"),
        ("a,1\n1,2\n", "line 1: must be names, or numbers"),
        ("1;5\n2;5\n", "line 1: must be names, or numbers"),
        ('a,b\n1,"2\n3,4\n', "line 3: unexpected end of data"),
        (b"a\n1\n\xe9\n", "line 3: is no UTF-8 text (byte 0xe9)"),
        (b"\xef\xbb\xbfa\n1\n\xe9\n", "line 3: is no UTF-8 text (byte 0xe9)"),
        (b"a\n1\0\n", "line 2: is no UTF-8 text (byte 0x00)"),
        ("a\n1\n".encode("utf-16"), "line 1: is UTF-16"),
    ],
)
def test_what_is_no_table_is_refused_by_line(content, says, written):
    with pytest.raises(ValueError, match=f"^{re.escape(says)}"):
        read_table(written(content))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"a": 1}\n\n', "line 2: is no JSON"),
        ('{"a": 1, "a": 2}\n', "line 1: must be an object, with each key once"),
        ('[["a", 1]]\n', "line 1: must be an object"),
        ('{"a": 1}\n{"b": 1}\n', "line 2: has the keys b, and line 1 has a"),
        ("[" * 100_000, "line 1: is no JSON"),
    ],
)
def test_what_is_no_table_of_json_lines_is_refused_by_line(content, says, written):
    with pytest.raises(ValueError, match=f"^{re.escape(says)}"):
        read_table(written(content, "table.jsonl"))


@pytest.mark.parametrize("text", ["1,5", "1_000", "1'000", "0x1f", "\u0661", "\u00a01", "1e", "--1", "1 000", "", " "])
def test_a_number_has_a_decimal_point_and_nothing_else(text):
    assert [number(right) for right in (" 1.5", "-.5e-1", "+2.", "-inf")] == [1.5, -0.05, 2.0, -np.inf]
    with pytest.raises(ValueError, match=r"must be a number with a decimal point|is blank"):
        number(text)


def test_what_would_never_end_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    os.mkfifo(tmp_path / "pipe.npy")
    for path in (tmp_path / "pipe.csv", tmp_path / "pipe.npy", "/dev/zero"):
        with pytest.raises(ValueError, match="is a pipe or a device, not a file"):
            read_recording(str(path))
    with pytest.raises(ValueError, match="is a folder, not a file"):
        read_recording(str(tmp_path))


# Recordings --------------------------------------------------------------------------------------------------------

DRIVE = "time,rsrp,SNR\n100.0,-90,10\n100.1,-91,20\n100.4,-92,0\n"


def decibels(*values):
    return 10 ** (np.array(values)[:, None] / 10)


def test_a_mark_makes_no_header_of_the_first_row(written):
    np.testing.assert_allclose(read_recording(written("\ufeff0\n20\n20\n")), decibels(0.0, 20.0, 20.0))


def test_a_gap_of_a_recording_is_refused_and_silence_is_written(written):
    with pytest.raises(ValueError, match=r"table\.csv: is no recording in dB \(line 3: is blank"):
        read_recording(written("SNR\n20\n\n20\n\n"))
    np.testing.assert_allclose(read_recording(written("SNR\n20\n-inf\n", "silent.csv"))[:, 0], [100.0, 0.0])


def test_a_column_is_meant_by_its_name_and_scaled(written):
    path = written("SNR,noise\n100,-95\n200,-96\n")
    scaled = RecordingFormat(column="SNR", scale=0.1, offset=-3.0)
    np.testing.assert_allclose(read_recording(path, scaled), decibels(7.0, 17.0))
    assert read_recording(path, RecordingFormat(column="SNR", unit="linear"))[:, 0].tolist() == [100.0, 200.0]
    with pytest.raises(ValueError, match="line 1: no column 'snr'; there are SNR, noise"):
        read_recording(path, RecordingFormat(column="snr"))


@pytest.mark.parametrize(("time_unit", "block_s"), [("s", 0.1), ("ms", 0.0001)])
def test_rows_hold_until_the_next_ones_time_and_the_last_as_long_as_the_one_before(time_unit, block_s, written):
    snr = read_recording(
        written(DRIVE), RecordingFormat(column="SNR", time_column="time", time_unit=time_unit, block_s=block_s)
    )
    np.testing.assert_allclose(snr, decibels(10.0, 20.0, 20.0, 20.0, 0.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        (DRIVE, {}, "column 'time' is no device's"),
        (DRIVE.replace("100.4", "100.1"), {"column": "SNR", "time_column": "time"}, "line 4: times must rise"),
        (DRIVE, {"column": "SNR", "time_column": "time", "block_s": 1e-9}, "more than 10,000,000 blocks"),
        ("SNR\n10\n1e999\n", {}, "above 300 dB"),
        ("SNR\n10\n-163811\n", {}, "below -300 dB and not -inf"),
        ("SNR\n10\n20\n", {"unit": "dBm"}, "unit = 'dBm'.*allowed are unit dB, linear, mbit/s"),
        ("SNR\n10\n20\n", {"scale": 0.0}, "scale any but 0"),
        ("SNR\n10\n-1\n", {"unit": "linear"}, "below 0"),
        ("rate\n1\n75\n", {"unit": "mbit/s", "rate_law": RateLaw(10e6, max_spectral_efficiency=7.4)}, "75 Mbit/s: 10"),
        (
            "rate\n20\n1\n",
            {"unit": "mbit/s", "rate_law": RateLaw(10e6, min_snr=0.1)},
            "1 Mbit/s: 10 MHz carry 0, or 1.3",
        ),
    ],
)
def test_a_recording_that_says_something_else_is_refused(text, options, says, written):
    with pytest.raises(ValueError, match=says):
        read_recording(written(text), RecordingFormat(**{"block_s": 0.1, **options}))


def test_a_rate_becomes_the_snr_that_gives_it():
    law = {"snr_gap": 2.0, "max_spectral_efficiency": 7.4}
    rates = np.array([0.0, 1e3, 20e6, 74e6])
    np.testing.assert_allclose(spectral_efficiency(RateLaw(10e6, **law).snr(rates), **law) * 10e6, rates)


def test_a_phone_sends_at_the_rate_of_the_recording(written):
    channel = {"kind": "trace", "params": {"path": written("rate\n20\n"), "unit": "mbit/s"}, "snr_gap_db": 3.0}
    scenario = cell(channel=channel, traffic={"devices": 1})
    check_scenario(scenario, [ready()])
    tokens = simulate(scenario, ready(), 0).tokens.dropna()
    np.testing.assert_allclose(tokens["airtime_s"], tokens["payload_bits"] / 20e6)
    with pytest.raises(ScenarioError, match="another mean SNR would change the rates"):
        cell(channel={**channel, "mean_snr_db": 3.0})
    with pytest.raises(ScenarioError, match=r"device_class.far.mean_snr_db: another mean SNR would change the rates"):
        check_scenario(cell(channel=channel, device_class=[{"name": "far", "share": 1.0, "mean_snr_db": 3}]), [ready()])
    with pytest.raises(ScenarioError, match=r"needs the rates of uplink.link.kind = 'shannon'"):
        check_scenario(cell(channel=channel, uplink={"tti_s": 0.001, "link": {"kind": "adaptive"}}), [ready()])


def test_more_columns_than_phones_need_a_name(written):
    path = written("near,mid,far\n10,5,0\n20,15,10\n")
    channel = {"kind": "trace", "params": {"path": path}}
    check_scenario(cell(channel=channel, traffic={"devices": 3}), [ready()])
    with pytest.raises(ScenarioError, match=r"has 3 columns for 2 devices; column = '...' names one for all"):
        check_scenario(cell(channel=channel, traffic={"devices": 2}), [ready()])
    named = {"kind": "trace", "params": {"path": path, "column": "mid"}}
    check_scenario(cell(channel=named, traffic={"devices": 2}), [ready()])


def test_the_report_names_the_recording_its_length_and_that_it_repeats(written):
    tokens = {"kind": "synthetic", "a": 0.8, "b": 0.0, "skip_rates": [{"threshold": 0.4, "rate": 0.5}]}
    channel = {"kind": "trace", "params": {"path": written("10\n20\n0\n")}, "coherence_s": 0.5}
    scenario = cell(channel=channel, tokens=tokens)
    said = " ".join(assumptions(scenario, Synthetic(scenario.tokens), [ready()], 0))
    assert re.search(
        r"recorded: table.csv \(SHA-256 [0-9a-f]{16}\) has 3 blocks, 1.5 s, one for all phones.* and repeats: the run "
        r"is 20 times as long",
        said,
    )


def test_a_thousand_damaged_tables_are_read_right_or_refused(tmp_path):
    """`python tests/fuzz_tables.py` plays 20,000."""
    with np.errstate(divide="ignore"):  # the oracle takes logarithms of no signal
        ended = Counter(fuzz_tables.case(random.Random(f"test {number}"), tmp_path) for number in range(1000))
    assert min(ended.values()) > 20
