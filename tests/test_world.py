"""Every policy of a replication meets the same world: fades, thinks and prompts hang on the device and a number."""

import math

import numpy as np
import pandas as pd
import pytest
from worlds import agrees, cell, ready

from uhlm_sim.cell.engine import simulate
from uhlm_sim.cell.named import find_names
from uhlm_sim.cell.phones.population import population
from uhlm_sim.cell.radio.air import Air
from uhlm_sim.cell.radio.fading import find_fading, make_air
from uhlm_sim.rng import stream

COHERENCE_S, BANDWIDTH_HZ, DEVICES, END_S = 0.25, 10e6, 5, 40.0
POLICIES = [ready("hlm"), ready("u-hlm", skip_rate=0.6), ready("u-hlm", "other", skip_rate=0.3), ready("llm")]


def run(policy, *, devices=DEVICES, seed=1, replication=0, snr_rule="per-hertz", duration_s=END_S, **channel):
    scenario = cell(
        seed=seed,
        duration_s=duration_s,
        traffic={"devices": devices, "think_time_s": 0.7, "max_tokens": 25},
        uplink={"bandwidth_hz": BANDWIDTH_HZ, "snr_rule": snr_rule},
        channel={"coherence_s": COHERENCE_S, **channel},
    )
    return simulate(scenario, policy, replication)


def efficiencies(records):
    """Return bit/s/Hz by (device, block), of uploads that lie within one block: bits over band and airtime."""
    tokens = records.tokens.query("payload_bits > 0 and airtime_s.notna()")
    sent_s = tokens["started_s"] + tokens["device_s"]
    block = np.floor(sent_s / COHERENCE_S).astype(int)
    inside = sent_s + tokens["uplink_wait_s"] + tokens["airtime_s"] < (block + 1) * COHERENCE_S
    rate = tokens["payload_bits"] / tokens["airtime_s"] / BANDWIDTH_HZ
    return rate[inside].groupby([tokens["device"][inside], block[inside].rename("block")]).agg(list)


def thinks_s(records):
    """Return think n of each device, from the last token of request n - 1 to the arrival of request n."""
    requests = records.requests.set_index(["device", "request"])
    free_s = requests["finished_s"].groupby("device").shift(fill_value=0.0)
    return (requests["arrived_s"] - free_s).dropna()


def prompts(records):
    return records.requests.set_index(["device", "request"])["prompt"]


def shared(one, other):
    """Return what two indexed columns have in common, side by side."""
    both = pd.concat([one, other], axis=1, join="inner", keys=["one", "other"])
    assert len(both) > 30
    return both["one"].to_numpy(), both["other"].to_numpy()


def test_the_gain_of_a_device_in_a_block_is_a_function_of_both_whatever_the_policy():
    """Efficiency log2(1 + g X_k), X_k the k-th exponential draw of the stream (seed, fading, replication, device)."""
    for policy in POLICIES[:3]:
        seen = efficiencies(run(policy))
        assert len(seen) > 200
        for device in range(DEVICES):
            gains = stream(1, "fading", 0, device).standard_exponential(int(END_S / COHERENCE_S))
            for block, rates in seen[device].items():
                expected = min(math.log2(1 + 10 * gains[block]), 7.4)
                assert rates == pytest.approx([expected] * len(rates), rel=1e-9)


@pytest.mark.parametrize("policy", POLICIES[1:], ids=lambda policy: policy.label)
def test_two_policies_meet_the_same_thinks_and_prompts(policy):
    hlm, other = run(POLICIES[0]), run(policy)
    np.testing.assert_allclose(*shared(thinks_s(hlm), thinks_s(other)), rtol=0, atol=1e-9)
    np.testing.assert_array_equal(*shared(prompts(hlm), prompts(other)))


def test_a_device_more_changes_no_other_devices_world():
    few, many = run(POLICIES[1]), run(POLICIES[1], devices=DEVICES + 1)
    np.testing.assert_allclose(*shared(thinks_s(few), thinks_s(many)), rtol=0, atol=1e-9)
    np.testing.assert_array_equal(*shared(prompts(few), prompts(many)))
    one, other = shared(efficiencies(few).map(np.mean), efficiencies(many).map(np.mean))
    np.testing.assert_allclose(one, other, rtol=1e-9)


@pytest.mark.parametrize("coherence_s", [COHERENCE_S, "per-upload"])
@pytest.mark.parametrize("snr_rule", ["per-hertz", "power-limited"])
def test_the_same_seed_gives_the_same_tables(snr_rule, coherence_s):
    one, other = (run(POLICIES[1], snr_rule=snr_rule, coherence_s=coherence_s) for _ in range(2))
    for table in ("requests", "tokens", "stations"):
        pd.testing.assert_frame_equal(getattr(one, table), getattr(other, table), check_exact=True)


def test_another_replication_or_seed_is_another_world():
    worlds = [run(POLICIES[0], **change) for change in ({}, {"replication": 1}, {"seed": 2})]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not np.isin(thinks_s(worlds[one]), thinks_s(worlds[other])).any()
        same = np.equal(*shared(prompts(worlds[one]), prompts(worlds[other])))
        assert same.mean() < 0.4
        rates = shared(*(efficiencies(worlds[n]).map(np.mean) for n in (one, other)))
        assert np.isclose(*rates).mean() < 0.2


def test_devices_of_one_world_differ():
    records = run(POLICIES[0])
    assert thinks_s(records).is_unique
    first = prompts(records).unstack("device").dropna()
    assert (first[0] != first[1]).any()


def test_prompts_are_asked_for_uniformly():
    """20 prompts: each has the share 1/20, and their number has mean 9.5."""
    asked = pd.concat([prompts(run(ready("slm"), replication=n, duration_s=60.0)) for n in range(8)])
    assert asked.nunique() == 20
    assert agrees(9.5, asked, within=0.1)


def per_upload(policy, **channel):
    records = run(policy, coherence_s="per-upload", **channel)
    sent = records.tokens.query("payload_bits > 0 and airtime_s.notna()").set_index(["device", "request", "position"])
    return records, sent["payload_bits"] / sent["airtime_s"] / BANDWIDTH_HZ


def test_a_gain_per_upload_is_keyed_by_request_and_position_whatever_the_policy():
    """Both policies send position 7 of the same request: at the same rate, though one skipped the six before."""
    rates = [per_upload(policy)[1] for policy in POLICIES[:3]]
    for other in rates[1:]:
        np.testing.assert_allclose(*shared(rates[0], other), rtol=1e-9)
    one, other = rates[0], per_upload(POLICIES[0], devices=DEVICES + 2)[1]
    np.testing.assert_allclose(*shared(one, other), rtol=1e-9)


def test_a_gain_per_upload_follows_rayleigh():
    """P(log2(1 + g X) > r) = exp(-(2^r - 1)/g)."""
    rates = pd.concat([per_upload(POLICIES[0], replication=n)[1] for n in range(6)])
    for r in (1.0, 3.0, 4.0):
        assert agrees(math.exp(-(2**r - 1) / 10), rates > r, within=0.15)


def test_a_gain_per_upload_is_clamped_at_the_floor_and_counted():
    """The slowest rate is log2(1 + min_snr), met with probability 1 - exp(-min_snr/g)."""
    clamped, finished = [], []
    for replication in range(6):
        records, rates = per_upload(POLICIES[0], replication=replication, min_snr_db=3.0)
        slowest = math.log2(1 + 10**0.3)
        assert rates.min() == pytest.approx(slowest, rel=1e-9)
        at_floor = np.isclose(rates, slowest, rtol=1e-9, atol=0)
        clamped += [records.clamped_uploads]
        finished += at_floor.tolist()
        begun = records.stations.query("station == 'uplink' and at_s == @END_S")["arrivals"].item()
        assert at_floor.sum() <= records.clamped_uploads <= at_floor.sum() + begun - len(rates)
    assert agrees(1 - math.exp(-(10**0.3) / 10), finished, within=0.15)
    assert sum(clamped) > 0


def test_block_fading_clamps_nothing():
    assert run(POLICIES[0], min_snr_db=3.0).clamped_uploads == 0


def test_a_constant_channel_at_its_very_floor_can_send():
    for snr_db in (-78.0, -22.0, -10.0, 6.3, 25.0):
        channel = {"kind": "constant", "mean_snr_db": snr_db, "min_snr_db": snr_db}
        scenario = cell(channel=channel, uplink={"bandwidth_hz": 1e13}, duration_s=1.0, warmup_s=0.1)
        fading_of = find_fading(scenario, find_names(scenario)["channel.kind"])
        air = make_air(scenario, fading_of, 0, np.array([snr_db]), population(scenario))
        assert (air.efficiency() > 0).all()


def test_the_floor_of_a_fade_per_upload_applies_to_the_band_in_use():
    air = Air(np.array([0.1]), lambda snr: np.log2(1 + snr), per_upload=True, min_snr=1.0)
    assert air.set_gain(0, 1.0, share=0.05) == pytest.approx(np.log2(1 + 0.1 / 0.05))
    assert air.clamped == 0
    assert air.set_gain(0, 1.0) == pytest.approx(1.0)
    assert air.clamped == 1
    assert air.efficiency(0.5)[0] == pytest.approx(1.0)
    assert air.efficiency(0.05)[0] == pytest.approx(np.log2(3.0))
