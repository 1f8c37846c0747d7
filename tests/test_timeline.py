"""A timeline holds every round, leg and batch once, and opens where the Trace Event format is read."""

import json
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from worlds import cell, ready

from uhlm_sim.analysis.timeline import GPUS, PHONES, timeline_events, write_timeline
from uhlm_sim.cell.engine import simulate
from uhlm_sim.errors import InputError

RECORDS = simulate(
    cell(traffic={"devices": 6, "think_time_s": 0.5}, base_station={"gpus": 2, "max_batch": 2}, duration_s=20.0),
    ready("u-hlm", skip_rate=0.5),
    0,
)
EVENTS = timeline_events(RECORDS.rounds)
SLICES = [event for event in EVENTS if event["ph"] == "X"]


def test_every_committed_round_is_one_slice_on_its_phone() -> None:
    rounds = [event for event in SLICES if "args" in event and event["pid"] == PHONES]
    committed = RECORDS.rounds.dropna(subset="committed_s")
    assert len(rounds) == len(committed)
    lasted_s = (committed["committed_s"] - committed["started_s"]).sum()
    assert sum(event["dur"] for event in rounds) * 1e-6 == pytest.approx(lasted_s, abs=1e-6 * len(rounds))


def test_the_gpus_are_as_busy_as_the_station_counted() -> None:
    batches = [event for event in SLICES if event["pid"] == GPUS]
    end = RECORDS.stations.query("station == 'base_station' and at_s == 20.0").iloc[0]
    in_progress_s = 2 * 0.1  # a batch that the end cut off has no slice
    assert sum(event["dur"] for event in batches) * 1e-6 == pytest.approx(end["busy_s"], abs=in_progress_s)
    assert {event["tid"] for event in batches} == {0, 1}
    for gpu in (0, 1):
        own = sorted((event["ts"], event["dur"]) for event in batches if event["tid"] == gpu)
        assert all(ts + dur <= later + 0.01 for (ts, dur), (later, _) in pairwise(own))


def test_uploads_present_are_never_negative_nor_more_than_phones() -> None:
    counts = [event["args"]["uploads"] for event in EVENTS if event["ph"] == "C"]
    assert min(counts) >= 0
    assert max(counts) <= 6


def test_a_timeline_of_a_run_folder_is_plain_json(tmp_path: Path) -> None:
    RECORDS.rounds.assign(point=0, policy="mine", replication=0).to_parquet(tmp_path / "rounds.parquet")
    (tmp_path / "scenario.resolved.toml").touch()
    out = tmp_path / "timeline.json"
    assert write_timeline(tmp_path, out) == len(RECORDS.rounds)
    assert {"ph", "name", "pid", "tid"} <= set(json.loads(out.read_text())["traceEvents"][0])


def test_what_a_timeline_is_asked_for_in_vain_is_named(tmp_path: Path) -> None:
    out = tmp_path / "timeline.json"
    with pytest.raises(InputError, match="isn't a run folder"):
        write_timeline(tmp_path, out)
    (tmp_path / "scenario.resolved.toml").touch()
    with pytest.raises(InputError, match="without tables of rounds"):
        write_timeline(tmp_path, out)
    tables = [RECORDS.rounds.assign(point=0, policy="mine", replication=number) for number in range(8)]
    pd.concat(tables).to_parquet(tmp_path / "rounds.parquet")
    with pytest.raises(InputError, match=r"no policy 'other' at point 0; there are mine$"):
        write_timeline(tmp_path, out, policy="other")
    with pytest.raises(InputError, match="no replication 99; there are 0 to 7"):
        write_timeline(tmp_path, out, replication=99)
    with pytest.raises(InputError, match="no point 3; there is 0 only"):
        write_timeline(tmp_path, out, point=3)
