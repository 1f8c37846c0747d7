"""The shared downlink: timelines to draw by hand, what an answer is billed, the order of answers, the laws."""

import math

import numpy as np
import pandas as pd
import pytest
import simpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from worlds import cell, ready

from uhlm_sim.analysis.measures.metrics import replication_metrics
from uhlm_sim.cell import engine
from uhlm_sim.cell.checks import check_scenario
from uhlm_sim.cell.engine import simulate
from uhlm_sim.cell.gpus.base_station import BaseStation
from uhlm_sim.cell.jobs import Job, Wakeup
from uhlm_sim.cell.phones.phone import Log, Phone
from uhlm_sim.cell.phones.rounds import Answer, Round
from uhlm_sim.cell.radio.air import Air
from uhlm_sim.cell.radio.allocators import ALLOCATORS
from uhlm_sim.cell.radio.downlink import Downlink
from uhlm_sim.errors import ScenarioError, SimulationError

SHARED = {"kind": "shared", "bandwidth_hz": 2e4}


def answers(asked, devices=2, early=(), **options):
    """Send (time, device, bits) down 1 Hz at 1 bit/s; return (job number, when it was down, when it was done)."""
    env, told, jobs = simpy.Environment(), [], []
    air = Air(np.ones(devices), lambda snr: snr)
    downlink = Downlink(env, bandwidth_hz=1.0, air=air, **options)

    def source():
        for number, (at_s, device, bits) in enumerate(asked):
            if at_s > env.now:
                yield env.timeout(at_s - env.now)
            job = Job(device, 0.0, 1, env.now, Wakeup(env), rest_s=0.5)
            job.answer_bits, job.early = bits, number in early
            job.done.callbacks.append(lambda _event, number=number, job=job: told.append((number, job, env.now)))
            jobs.append(job)
            downlink.send(job)

    env.process(source())
    env.run()
    downlink.settle()
    return [(number, job.returned_s, at_s) for number, job, at_s in told], downlink.counters


def test_two_phones_share_the_band():
    """2 bits from t = 0 and 1 bit from t = 1: the second has half the band until 3, when 0 has none left either."""
    told, counted = answers([(0.0, 0, 2.0), (1.0, 1, 1.0)])
    assert told == [(0, 3.0, 3.5), (1, 3.0, 3.5)]
    assert (counted.arrivals, counted.departures, counted.bits) == (2, 2, 3.0)
    assert (counted.busy_s, counted.present_s) == (3.0, 5.0)


def test_answers_to_one_phone_go_in_order_and_wait_for_each_other():
    """0 has 2 bits and then 1 bit, phone 1 has 3 bits: halves until t = 6, as long as 0 has something to send."""
    told, counted = answers([(0.0, 0, 2.0), (0.0, 0, 1.0), (0.0, 1, 3.0)])
    assert told == [(0, 4.0, 4.5), (1, 6.0, 6.5), (2, 6.0, 6.5)]
    assert counted.present_s == 4.0 + 6.0 + 6.0


def test_an_early_job_is_done_at_its_verdict_and_comes_down_later():
    told, _ = answers([(0.0, 0, 2.0), (1.0, 0, 1.0)], early=[0])
    assert told == [(0, 2.0, 0.0), (1, 3.0, 3.5)]


def test_the_downlink_has_any_allocator():
    told, counted = answers([(0.0, 0, 2.0), (1.0, 1, 1.0)], allocator=ALLOCATORS["fdma"])
    assert told == [(1, 3.0, 3.5), (0, 4.0, 4.5)]
    assert counted.busy_s == 4.0 / 2 + 2.0 / 2


def phone_log(pipelined, answer_bits, until_s=100.0, service_s=1.0, downlink_s=0.25):
    """One phone's answer of as many tokens as `answer_bits`, each verified in `service_s`, at 1 bit/s down."""
    env, log = simpy.Environment(), Log()
    downlink = Downlink(env, bandwidth_hz=1.0, air=Air(np.ones(1), lambda snr: snr))
    station = BaseStation(env, service_s=lambda _n: service_s, send_down=downlink.send)
    n = len(answer_bits)
    drafts_s = () if pipelined else (2.0,)
    plan = tuple(
        Round(drafts_s, sum(drafts_s), 1, 0, 0.0, 1, pipelined, bits, last=place + 1 == n)
        for place, bits in enumerate(answer_bits)
    )
    answer = Answer(0, plan)
    times = iter([0.0])
    phone = Phone(
        env,
        0,
        next_arrival=lambda _free_s: next(times, 1e9),
        next_answer=lambda: answer,
        upload=station.submit,
        submit=station.submit,
        gain_of=None,
        downlink_s=downlink_s,
        log=log,
        downlink_is_shared=True,
    )
    env.process(phone.run())
    env.run(until=until_s)
    phone.close(until_s, open_loop=False)
    rows = np.array(log.rounds).reshape(-1, len(Log.ROUND))
    column = {name: rows[:, k] for k, name in enumerate(Log.ROUND)}
    order = np.argsort(column["first_position"])
    return [
        tuple(column[name][row].item() for name in ("started_s", "verified_s", "committed_s"))
        for row in order
        if column["started_s"][row] < until_s
    ]


def test_a_phone_that_drafts_waits_for_its_answer_and_the_latency():
    """2 s of drafting, 1 s of verification, then 3 or 1 bits, then 1/4 s; the next draft begins after that."""
    assert phone_log(False, [3.0, 1.0]) == [(0.0, 3.0, 6.25), (6.25, 9.25, 10.5)]


def test_pipelined_tokens_overtake_nobody():
    """Verified at 1, 2 and 3; down at 4, 5 and 6, one after the other; the last is waited for."""
    assert phone_log(True, [3.0, 1.0, 1.0]) == [(0.0, 1.0, 4.25), (1.0, 2.0, 5.25), (2.0, 3.0, 6.25)]


def test_what_the_end_cuts_off_on_its_way_down_is_written_down_unknown():
    first, second, third = phone_log(True, [3.0, 1.0, 1.0], until_s=4.5)
    assert first == (0.0, 1.0, 4.25)
    assert second[:2] == (1.0, 2.0)
    assert third[:2] == (2.0, 3.0)
    assert math.isnan(second[2])
    assert math.isnan(third[2])


# The whole cell.


def run(kind="hlm", **changes):
    scenario = cell(**changes)
    policy = ready(kind, skip_rate=0.4 if kind == "u-hlm" else 1.0 if kind == "slm" else 0.0)
    check_scenario(scenario, [policy])
    return scenario, simulate(scenario, policy, 0)


def metrics_of(scenario, records):
    window = {"warmup_s": scenario.warmup_s, "duration_s": scenario.duration_s}
    return replication_metrics(
        *records.tables,
        **window,
        devices=20,
        slo={},
        output_law=True,
    )


def test_alone_a_token_comes_down_in_its_bits_over_the_rate_and_the_latency():
    """ceil(log2 32,000) = 15 bits at 20 kHz log2(1 + 10^0.6); a draft that is replaced has 32,000 x 8."""
    rate = 2e4 * math.log2(1 + 10**0.6)
    changes = {
        "traffic": {"devices": 1, "think_time_s": 0.1},
        "channel": {"kind": "constant", "mean_snr_db": 3.0},
        "downlink": {**SHARED, "snr_offset_db": 3.0, "on_resample": "distribution"},
        "duration_s": 60.0,
    }
    _, records = run(**changes)
    done = records.tokens.dropna(subset="committed_s")
    bits = np.where(done["outcome"] == "resampled", 256_000, 15)
    assert set(done["outcome"]) == {"accepted", "resampled"}
    np.testing.assert_allclose(done["downlink_s"], bits / rate + 0.005, rtol=1e-9)


def test_a_wide_downlink_is_the_constant_one():
    one = {"traffic": {"devices": 1, "think_time_s": 0.5}}
    for kind in ("hlm", "u-hlm", "llm", "slm"):
        scenario, wide = run(kind, **one, downlink={"kind": "shared", "bandwidth_hz": 1e13, "snr_offset_db": 90.0})
        _, constant = run(kind, **one)
        numbers = [table.select_dtypes("number").to_numpy(dtype=float) for table in (wide.tokens, constant.tokens)]
        np.testing.assert_allclose(*numbers, atol=1e-6)
        assert metrics_of(scenario, wide)["downlink_utilisation"] < 1e-6
        assert np.isnan(metrics_of(scenario, constant)["downlink_utilisation"])


def test_the_counters_metrics_are_those_of_the_rows():
    scenario, records = run("llm", downlink={**SHARED, "bandwidth_hz": 3e3}, channel={"kind": "constant"})
    found = metrics_of(scenario, records)
    tokens = records.rounds
    verified_s = tokens[["started_s", "device_s", "uplink_wait_s", "airtime_s", "bs_wait_s", "verify_s"]].sum(axis=1)
    returned_s = records.answers["returned_s"].fillna(np.inf)
    known = tokens["verify_s"].notna()
    stay_s = (returned_s.clip(5.0, 30.0) - verified_s.clip(5.0, 30.0))[known].sum()
    assert found["downlink_present"] == pytest.approx(stay_s / 25.0, rel=1e-9)
    assert 0.1 < found["downlink_utilisation"] < 0.9
    gaps = tokens.groupby(["device", "request"])["committed_s"].diff().dropna()
    assert (gaps > 0).all()


def test_a_downlink_that_miscounts_its_bits_breaks_a_law(monkeypatch):
    honest = engine.station_row

    def short(name, *arguments):
        row = honest(name, *arguments)
        return row | {"bits": row["bits"] - 15} if name == "downlink" else row

    monkeypatch.setattr(engine, "station_row", short)
    with pytest.raises(SimulationError, match="downlink at 5 s: bits in are bits out"):
        run(downlink=SHARED)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_every_run_keeps_the_laws_and_repeats_itself(data):
    devices = data.draw(st.integers(1, 5))
    kind = data.draw(st.sampled_from(["hlm", "u-hlm", "llm", "slm"]))
    changes = {
        "seed": data.draw(st.integers(0, 1000)),
        "traffic": {
            "kind": data.draw(st.sampled_from(["closed", "poisson"])),
            "devices": devices,
            "think_time_s": data.draw(st.floats(0, 1)),
            "rate_per_s": data.draw(st.floats(0.1, 2)),
            "max_tokens": data.draw(st.integers(1, 20)),
        },
        "uplink": {"weights": [1.0 + n for n in range(devices)]},
        "downlink": {
            "kind": "shared",
            "bandwidth_hz": data.draw(st.floats(1e2, 1e6)),
            "snr_offset_db": data.draw(st.floats(-3, 30)),
            "on_resample": data.draw(st.sampled_from(["id", "distribution"])),
            "allocator": data.draw(st.sampled_from(sorted(ALLOCATORS))),
            "tti_s": 0.01,
        },
        "channel": {"kind": data.draw(st.sampled_from(["constant", "rayleigh"])), "coherence_s": 0.05},
        "base_station": {
            "downlink_s": data.draw(st.sampled_from([0.0, 0.003])),
            "gpus": 2,
            **data.draw(st.sampled_from([{}, {"kv_tokens": 100}, {"chunk_tokens": 16, "max_batch": 16}])),
        },
        "duration_s": 3.0,
        "warmup_s": 1.0,
    }
    (_, records), (_, again) = run(kind, **changes), run(kind, **changes)
    for one, other in ((records.tokens, again.tokens), (records.stations, again.stations)):
        pd.testing.assert_frame_equal(one, other, check_exact=True)
    assert not records.stations.drop(columns="station").isna().any(axis=None)


def test_what_the_downlink_can_not_have_is_told_before_the_first_event():
    def refused(match, **changes):
        with pytest.raises(ScenarioError, match=match):
            check_scenario(cell(**changes), [ready()])

    refused("'per-upload': downlink.kind = 'shared' needs", downlink=SHARED, channel={"coherence_s": "per-upload"})
    refused("downlink.tti_s: round-robin needs", downlink={**SHARED, "allocator": "round-robin"})
    refused("downlink.allocator = 'equal'", downlink={**SHARED, "allocator": "equal"})
    refused("uplink.weights: weighted needs", downlink={**SHARED, "allocator": "weighted"})
    far = {**SHARED, "snr_offset_db": -30.0}
    refused("downlink: a mean SNR of -20.0 dB is below", downlink=far, channel={"kind": "constant"})
    refused("downlink.bandwidth_hz = 0: must be greater than 0", downlink={"bandwidth_hz": 0})
    refused("unknown key 'downlink.bandwith_hz'.*bandwidth_hz", downlink={"bandwith_hz": 1e6})
