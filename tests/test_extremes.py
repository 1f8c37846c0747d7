"""What is legal but extreme ends in a run that obeys the laws of conservation, or is refused in a sentence, and soon.

Every run here is checked by itself (`uhlm_sim.cell.laws`): bits, jobs, busy time, legs and positions. What more can be
said of it is asserted: where nothing can be sent nothing comes back, where nothing limits a leg it takes no time.
"""

import math
import time
from collections.abc import Iterator

import pandas as pd
import pytest
from worlds import cell, ready

from uhlm_sim.analysis.measures.metrics import replication_metrics
from uhlm_sim.cell.engine import simulate
from uhlm_sim.cell.records import Records
from uhlm_sim.errors import ScenarioError
from uhlm_sim.tables import LEGS

SMALL = {"devices": 3, "think_time_s": 0.5, "max_tokens": 20}


@pytest.fixture(autouse=True)
def soon() -> Iterator[None]:
    began_s = time.perf_counter()
    yield
    assert time.perf_counter() - began_s < 30  # a second or two on an idle core


def run(kind: str = "hlm", source: dict[str, object] | None = None, **changes: object) -> tuple[Records, pd.Series]:
    """Simulate and return the records with their metrics, none of which is infinite."""
    scenario = cell(**{"traffic": SMALL, "duration_s": 4.0, "warmup_s": 0.0, **changes})
    records = simulate(scenario, ready(kind, **(source or {})), 0)
    metrics = replication_metrics(
        *records.tables,
        warmup_s=scenario.warmup_s,
        duration_s=scenario.duration_s,
        devices=scenario.traffic.devices,
        slo=scenario.slo.model_dump(exclude_none=True),
        output_law=True,
    )
    values = pd.Series(metrics, dtype=float)
    assert not (values.abs() == math.inf).any()
    return records, values


def committed(records: Records) -> pd.DataFrame:
    return records.tokens.dropna(subset="committed_s")


def test_one_hertz_carries_no_token_in_a_day() -> None:
    """256 kbit at 7.4 bit/s/Hz at most: 9.6 hours, were it one phone's alone, and it is three's."""
    records, metrics = run(uplink={"bandwidth_hz": 1.0}, duration_s=86_400.0, channel={"coherence_s": 10.0})
    assert len(committed(records)) <= 2
    assert metrics["uplink_utilisation"] == pytest.approx(1.0, abs=1e-3)


def test_a_terahertz_carries_a_token_in_no_time() -> None:
    records, _ = run(uplink={"bandwidth_hz": 1e12})
    tokens = committed(records)
    assert len(tokens) > 50
    assert (tokens["airtime_s"] + tokens["uplink_wait_s"]).max() < 1e-5  # outages last a block, 20 ms


@pytest.mark.parametrize("allocator", ["equal-share", "fdma", "max-rate", "equal-finish", "proportional-fair"])
def test_minus_forty_decibels_is_outage_for_ever(allocator: str) -> None:
    """Rayleigh at -40 dB is above -10 dB with probability exp(-1000): all wait, and the run ends all the same."""
    records, metrics = run(channel={"mean_snr_db": -40.0}, uplink={"allocator": allocator}, duration_s=30.0)
    assert committed(records).empty
    assert len(records.requests) == SMALL["devices"]
    assert metrics["token_throughput"] == 0.0
    assert records.stations["bits"].sum() == 0.0


def test_minus_forty_decibels_carry_bits_where_no_floor_forbids() -> None:
    """log2(1 + 1e-4) B is 1.4 kbit/s: three minutes for 256 kbit."""
    channel = {"kind": "constant", "mean_snr_db": -40.0, "min_snr_db": -40.0}
    traffic = {"devices": 1, "think_time_s": 0.0, "max_tokens": 20}
    records, _ = run(channel=channel, traffic=traffic, duration_s=1000.0)
    bits = records.tokens["payload_bits"].iloc[0]
    assert committed(records)["airtime_s"].iloc[0] == pytest.approx(bits / (10e6 * math.log2(1 + 1e-4)))


def test_a_coherence_time_of_nothing_is_refused_and_a_tiny_one_must_fit() -> None:
    with pytest.raises(ScenarioError, match=r"channel.coherence_s = 0(\.0)?: must be greater than 0"):
        cell(channel={"coherence_s": 0.0})
    with pytest.raises(ScenarioError, match=r"fading blocks: up to .* at most"):
        cell(channel={"coherence_s": 1e-9})
    records, _ = run(channel={"coherence_s": 1e-6}, duration_s=0.5, traffic=SMALL | {"think_time_s": 0.05})
    assert len(committed(records)) > 5


def test_blocks_longer_than_the_run_are_one_gain_for_each_phone() -> None:
    records, _ = run(channel={"coherence_s": 1e6}, traffic=SMALL | {"devices": 1}, duration_s=30.0)
    airtimes = committed(records).loc[lambda tokens: tokens["position"] > 0, "airtime_s"]
    assert airtimes.std() < 1e-9 * airtimes.mean()


def test_an_answer_of_one_token_has_no_time_per_output_token() -> None:
    records, metrics = run(traffic=SMALL | {"max_tokens": 1})
    assert (records.requests["tokens"] <= 1).all()
    assert records.requests["finished"].any()
    assert math.isnan(metrics["tpot_s.mean"])
    assert metrics["ttft_s.mean"] == pytest.approx(metrics["e2e_s.mean"])


def test_ten_thousand_phones_share_a_band() -> None:
    traffic = {"devices": 10_000, "think_time_s": 30.0, "max_tokens": 2}
    records, metrics = run("hlm", traffic=traffic, duration_s=2.0)
    assert records.requests["device"].nunique() > 300
    assert metrics["uplink_utilisation"] > 0.85


@pytest.mark.parametrize("kind", ["hlm", "u-hlm", "slm", "llm"])
def test_a_microsecond_is_a_run_too(kind: str) -> None:
    records, metrics = run(kind, duration_s=1e-6, traffic=SMALL | {"think_time_s": 0.0})
    assert committed(records).empty
    assert len(records.requests) == SMALL["devices"]
    assert metrics["token_throughput"] == 0.0


def test_who_never_thinks_never_rests() -> None:
    """Closed loop without thinking: on a phone that has none to wait for, tokens follow each other without a gap."""
    records, _ = run("slm", traffic=SMALL | {"think_time_s": 0.0})
    for _, tokens in committed(records).groupby("device"):
        gaps_s = tokens["started_s"].to_numpy()[1:] - tokens["committed_s"].to_numpy()[:-1]
        assert abs(gaps_s).max() < 1e-9


def test_who_thinks_for_days_asks_nothing() -> None:
    records, metrics = run(traffic=SMALL | {"think_time_s": 1e6}, duration_s=60.0)
    assert records.requests.empty
    assert records.tokens.empty
    assert metrics["token_throughput"] == 0.0


@pytest.mark.parametrize(("vocabulary", "id_bits"), [(2, 1), (10_000_000, 24)])
def test_a_vocabulary_of_two_or_ten_million_is_billed(vocabulary: int, id_bits: int) -> None:
    """V 8 bits, and ceil(log2 V) for each of the prompt's ids with the first job; 80 Mbit take their time."""
    tokens = {"kind": "trace", "path": "made-up", "vocabulary_size": vocabulary}
    records, _ = run(tokens=tokens, duration_s=20.0)
    bits = records.tokens[records.tokens["payload_bits"] > 0].groupby("position")["payload_bits"].first()
    assert bits.loc[0] == 8 * vocabulary + 10 * id_bits
    assert (bits.loc[1:] == 8 * vocabulary).all()


def test_thresholds_of_nothing_and_everything_are_the_policies_beside_them() -> None:
    """What skips nothing waits as HLM does; what skips all is the SLM alone, never heard by the base station."""
    none, hlm = (run(kind, {"skip_rate": 0.0})[0].tokens for kind in ("u-hlm", "hlm"))
    pd.testing.assert_frame_equal(none[list(LEGS)], hlm[list(LEGS)])
    every, slm = (run(kind, {"skip_rate": 1.0})[0] for kind in ("u-hlm", "slm"))
    pd.testing.assert_frame_equal(every.tokens[list(LEGS)], slm.tokens[list(LEGS)])
    assert every.stations["arrivals"].sum() == 0


def test_a_token_a_second_in_one_batch_of_all_keeps_the_gpu_busy() -> None:
    station = {"max_batch": 100_000, "service": {"c_s": 1e-9, "s_s_per_token": 1.0}}
    records, metrics = run(base_station=station, duration_s=60.0)
    assert metrics["bs_utilisation"] == pytest.approx(1.0, abs=0.1)
    assert len(committed(records)) > 0


@pytest.mark.parametrize(
    "traffic",
    [
        {"presence": {"mean_present_s": 1e-6, "mean_absent_s": 100.0}},
        {"kind": "poisson", "rate_per_s": 1e-6, "presence": {"mean_present_s": 1e-6, "mean_absent_s": 100.0}},
        {"kind": "bursty", "burst": {"mean_burst_s": 1e-5, "mean_calm_s": 1e-5, "factor": 2.0}, "rate_per_s": 1e-6},
    ],
    ids=["a phone that is hardly ever there", "nor asked then", "bursts that bring nothing"],
)
def test_what_may_never_be_asked_is_looked_for_until_the_run_ends(traffic: dict[str, object]) -> None:
    """A first request might come after as many comings and goings as there are seconds in a year."""
    records, _ = run(traffic=SMALL | traffic, duration_s=0.1)
    assert records.requests.empty
    with pytest.raises(ScenarioError, match=r"(comings and goings|bursts and calms): up to .* in one simulation"):
        cell(traffic=SMALL | traffic | {"devices": 100_000, "think_time_s": 1e6}, duration_s=1e6, warmup_s=0.0)
