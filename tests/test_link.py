"""Modulation, coding, block errors and retransmissions: timelines to draw by hand, theory, a contract."""

import math
import pickle
import re
from functools import partial

import numpy as np
import pandas as pd
import pytest
import simpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from worlds import cell, known_air, ready, with_own

import channel_models as radio
from channel_models import MCS_EFFICIENCY, block_error, snr_threshold
from uhlm_sim.cell.checks import check_scenario
from uhlm_sim.cell.engine import simulate
from uhlm_sim.cell.jobs import Job, Wakeup
from uhlm_sim.cell.radio.adaptive_uplink import AdaptiveUplink, Link
from uhlm_sim.cell.radio.air import BLOCKS_AHEAD, Air
from uhlm_sim.cell.radio.allocators import ALLOCATORS, equal_share
from uhlm_sim.cell.radio.slots import Slots
from uhlm_sim.errors import ScenarioError
from uhlm_sim.rng import stream

# Timelines to draw by hand: 1 kHz, slots of 1 s, so a slot has 1,000 channel uses; no outer loop.

SLOT_BITS = 1000 * MCS_EFFICIENCY


class Luck:
    """A stand-in for a generator whose coins are known: the first ones as given, then 1 (no error ever)."""

    def __init__(self, *coins):
        self._coins = [*coins]

    def random(self, count):
        coins = self._coins[:count]
        self._coins = self._coins[count:]
        return np.array([*coins, *[1.0] * (count - len(coins))])


def transmit(uploads, snr, coins, name="equal-share", air=None, power_limited=False, **link):
    """Send (time, device, bits); return (end, airtime) by device, and the band."""
    env, ended = simpy.Environment(), {}
    link = Link(**{"outer_step_db": 0.0, "max_transmissions": 3, "round_trip_slots": 2, **link})
    make = air or (lambda: Air(np.array(snr, dtype=float), radio.spectral_efficiency))

    def deliver(job):
        ended[job.device] = (env.now, job.airtime_s)

    band = AdaptiveUplink(
        env,
        bandwidth_hz=1000.0,
        air=make(),
        known=make(),
        link=link,
        slots=Slots(len(snr), 1.0, 10.0),
        coins_of=lambda device: Luck(*coins[device]),
        deliver=deliver,
        allocator=ALLOCATORS[name],
        power_limited=power_limited,
    )

    def source():
        for at_s, device, bits in uploads:
            if at_s > env.now:
                yield env.timeout(at_s - env.now)
            band.send(Job(device, bits, 1, env.now, Wakeup(env)))

    env.process(source())
    env.run()
    band.settle()
    counted = band.counters
    assert counted.busy_s == pytest.approx(sum(airtime_s for _, airtime_s in ended.values()), rel=1e-12)
    assert counted.bits == pytest.approx(counted.block_bits, rel=1e-12)
    return ended, counted


def snr_for(mcs, error=0.05, uses=1000.0):
    """An SNR at which an MCS is chosen, and fails with less than the target of 0.1."""
    return float(snr_threshold(mcs, uses * MCS_EFFICIENCY[mcs], error))


def test_an_upload_waits_for_an_edge_and_ends_with_its_last_slot():
    """MCS 10 carries 1,328 bits a slot: 3,000 from t = 1/2 take the slots from 1 to 4, the last in part."""
    ended, counted = transmit([(0.5, 0, 3000.0)], [snr_for(10)], [[]])
    assert ended == {0: (4.0, 3.0)}
    assert (counted.blocks, counted.mcs_sum, counted.block_errors, counted.bits) == (3, 30, 0, 3000.0)


def test_a_block_that_fails_is_sent_again_after_the_round_trip_and_combined():
    """Slots 0 1 2 3 carry the blocks a b a c of one upload: a fails in slot 0, is sent again in slot 2, c after it.

    Its coin is below the error at one SNR, and above that at twice the SNR.
    """
    snr = snr_for(10)
    ended, counted = transmit([(0.0, 0, 2.5 * SLOT_BITS[10])], [snr], [[0.049]])
    assert block_error(10, SLOT_BITS[10], 2 * snr) < 0.049 < block_error(10, SLOT_BITS[10], snr)
    assert ended == {0: (4.0, 4.0)}
    assert (counted.blocks, counted.block_errors, counted.retransmissions, counted.lost_blocks) == (3, 1, 1, 0)


def test_while_it_waits_for_its_round_trip_a_phone_without_bits_leaves_the_band():
    """One block each from t = 0 and 1: 0 fails in slot 0, 1 has slot 1 for itself, 0 comes back in slot 2."""
    ended, _ = transmit(
        [(0.0, 0, SLOT_BITS[10]), (0.75, 1, SLOT_BITS[10])], [snr_for(10)] * 2, [[0.049], []], round_trip_slots=2
    )
    assert ended == {0: (3.0, 2.0), 1: (2.0, 1.0)}


def test_a_block_sent_again_has_its_share_before_anything_new():
    """Halves of slot 0: 0 fails. In slot 2 it has its half again, and 1, which goes on, the other half."""
    snr = snr_for(10, uses=500.0)
    uploads = [(0.0, 0, SLOT_BITS[10] / 2), (0.0, 1, 3 * SLOT_BITS[10] / 2 + SLOT_BITS[10] / 2)]
    ended, counted = transmit(uploads, [snr] * 2, [[0.049], []])
    # 1 has a half, all of slot 1 (one slot's bits) and the half beside the retransmission: two slots' bits in all.
    assert ended == {0: (3.0, 1.0), 1: (3.0, 2.0)}
    assert counted.busy_s == 3.0


def test_after_its_last_transmission_a_block_gives_its_bits_back():
    """A coin of 0 always fails: twice in slots 0 and 2, then slot 4 sends the bits anew with that slot's coin."""
    ended, counted = transmit([(0.0, 0, 100.0)], [snr_for(10)], [[0.0]], max_transmissions=2)
    assert ended == {0: (5.0, 3.0)}
    assert (counted.blocks, counted.block_errors, counted.retransmissions, counted.lost_blocks) == (2, 1, 1, 1)


def test_the_mcs_follows_the_snr_of_a_while_ago():
    """SNR for MCS 20 in blocks of 2 s, then for MCS 5; seen 1 s late. In slot 2 a block of MCS 20 still goes out."""
    high, low = snr_for(20), snr_for(5)
    air = partial(known_air, [[high, low, low, low]], 2.0)
    _, counted = transmit([(0.0, 0, 1.5e4)], [1.0], [[]], air=air, csi_delay_s=1.0)
    assert block_error(20, SLOT_BITS[20], low) == pytest.approx(1.0)
    # slots 0 1 2 at MCS 20, then the rest at MCS 5; coins of 1 never fail
    rest = math.ceil((1.5e4 - 3 * SLOT_BITS[20]) / SLOT_BITS[5])
    assert counted.mcs_sum == 3 * 20 + rest * 5


def test_limited_power_counts_in_the_share_that_is_used():
    """Two phones at half the band have twice the SNR there, so an MCS that one alone could not have."""
    snr = snr_for(10, uses=500.0) / 2
    _, counted = transmit([(0.0, 0, 600.0), (0.0, 1, 600.0)], [snr] * 2, [[], []], power_limited=True)
    assert (counted.blocks, counted.mcs_sum) == (2, 20)
    _, counted = transmit([(0.0, 0, 600.0), (0.0, 1, 600.0)], [snr] * 2, [[], []])
    assert counted.mcs_sum / counted.blocks < 10


def test_who_is_seen_below_the_lowest_mcs_waits_for_a_better_block():
    """SNR 0.1 until t = 2, seen at once: nothing is sent and the band is unused; then one slot does it."""
    _, counted = transmit([(0.0, 0, 100.0)], [1.0], [[]], air=partial(known_air, [[0.1]], 2.0))
    assert (counted.blocks, counted.busy_s, counted.present_s) == (1, 1.0, 3.0)


def test_in_a_fixed_split_nobody_feels_what_others_send_again():
    """A phone that fails three times in each of its slots leaves the other with its half of the band, all the time."""
    both = [(0.0, 0, SLOT_BITS[5]), (0.0, 1, 2 * SLOT_BITS[5])]
    ends = [
        transmit(both, [snr_for(5)] * 2, [[0.0] * failing, []], name="fdma", round_trip_slots=1)[0][1]
        for failing in (0, 6)
    ]
    assert ends[0] == ends[1]


@pytest.mark.parametrize("name", ["proportional-fair", "proportional-fair-slots", "shortest-first", "round-robin"])
def test_a_phone_that_the_lowest_mcs_just_reaches_is_not_passed_over_for_its_errors(name):
    """0.2 dB above the threshold and beside an upload without end; its errors, of a tenth, don't take its turns."""
    env, done = simpy.Environment(), []
    snr = np.array([float(snr_threshold(0, 1e4 * MCS_EFFICIENCY[0], 0.1)) * 10**0.02, 10**1.5])

    def deliver(job):
        done.append(job.device)
        band.send(Job(0, 2e4, 1, env.now, Wakeup(env)))

    band = AdaptiveUplink(
        env,
        bandwidth_hz=1e7,
        air=Air(snr.copy(), radio.spectral_efficiency),
        known=Air(snr.copy(), radio.spectral_efficiency),
        link=Link(),
        slots=Slots(2, 1e-3, 0.1),
        coins_of=np.random.default_rng,
        deliver=deliver,
        allocator=ALLOCATORS[name],
    )
    for device, bits in enumerate((2e4, 1e9)):
        band.send(Job(device, bits, 1, 0.0, Wakeup(env)))
    env.run(until=2.0)
    assert len(done) > 50


# Theory.


def test_without_the_outer_loop_far_less_than_the_target_fails():
    """Rayleigh at 10 dB in blocks of 10 ms, seen at once. With the loop it is a tenth, which the validation holds."""

    def share(replication, step_db):
        env = simpy.Environment()

        def air():
            gains_of = lambda device: radio.rayleigh(stream(1, "loop", replication, device), BLOCKS_AHEAD)  # noqa: E731
            return Air(np.full(4, 10.0), radio.spectral_efficiency, gains_of=gains_of, coherence_s=0.01)

        band = AdaptiveUplink(
            env,
            bandwidth_hz=1e6,
            air=air(),
            known=air(),
            link=Link(target_error=0.1, outer_step_db=step_db, csi_delay_s=0.0),
            slots=Slots(4, 1e-3, 0.1),
            coins_of=lambda device: stream(1, "coins", replication, device),
            deliver=lambda job: band.send(Job(job.device, 1e5, 1, env.now, Wakeup(env))),
        )
        for device in range(4):
            band.send(Job(device, 1e5, 1, 0.0, Wakeup(env)))
        env.run(until=0.5)  # by then the loop has settled
        errors, blocks = band.counters.block_errors, band.counters.blocks
        env.run(until=1.5)
        return (band.counters.block_errors - errors) / (band.counters.blocks - blocks)

    assert share(0, 0.0) < 0.05 < share(0, 0.5)


# The whole cell.


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_every_run_keeps_the_laws_and_repeats_itself(data):
    """Bits of blocks are bits of uploads, delivered once; airtime is band in use: `simulate` refuses what differs."""
    devices = data.draw(st.integers(1, 5))
    kind, params = data.draw(
        st.sampled_from(
            [("constant", {}), ("rayleigh", {}), ("rician", {"k_factor_db": 3.0}), ("nakagami", {}), ("jakes", {})]
        )
    )
    scenario = cell(
        seed=data.draw(st.integers(0, 1000)),
        traffic={"devices": devices, "think_time_s": data.draw(st.floats(0, 1)), "max_tokens": 10},
        uplink={
            "allocator": data.draw(st.sampled_from(sorted(ALLOCATORS))),
            "snr_rule": data.draw(st.sampled_from(["per-hertz", "power-limited"])),
            "bandwidth_hz": data.draw(st.floats(1e6, 1e7)),
            "weights": data.draw(st.lists(st.floats(0.01, 100), min_size=devices, max_size=devices)),
            "tti_s": data.draw(st.sampled_from([0.002, 0.007])),
            "link": {
                "kind": "adaptive",
                "target_block_error": data.draw(st.floats(0.001, 0.9)),
                "outer_loop": data.draw(st.booleans()),
                "outer_loop_step_db": data.draw(st.floats(0.01, 10)),
                "csi_delay_s": data.draw(st.floats(0, 0.05)),
                "max_transmissions": data.draw(st.integers(1, 6)),
                "harq_round_trip_slots": data.draw(st.integers(1, 12)),
                "overhead": data.draw(st.floats(0, 0.9)),
            },
        },
        channel={"kind": kind, "params": params, "coherence_s": 0.01, "mean_snr_db": data.draw(st.floats(0, 40))},
        duration_s=2.0,
        warmup_s=0.5,
    )
    check_scenario(scenario, [ready()])
    records, again = (simulate(scenario, ready(), 0) for _ in range(2))
    for one, other in ((records.tokens, again.tokens), (records.stations, again.stations)):
        pd.testing.assert_frame_equal(one, other, check_exact=True)
    done = records.tokens[records.tokens["committed_s"].notna()]
    assert (done[["airtime_s", "uplink_wait_s"]] >= -1e-9).all(axis=None)
    assert not records.stations.drop(columns="station").isna().any(axis=None)
    uplink = records.stations[records.stations["station"] == "uplink"]
    assert (uplink["busy_s"] <= uplink["at_s"] * (1 + 1e-9)).all()


def test_an_allocator_of_ones_own_and_the_equal_share_are_one_if_they_say_the_same(tmp_path, monkeypatch):
    (tmp_path / "own_equal.py").write_text(
        "import numpy as np\n\ndef same(left_bits, snr):\n    return np.full(len(snr), 1 / len(snr))\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)

    def tokens(allocator):
        uplink = {"allocator": allocator, "tti_s": 0.002, "link": {"kind": "adaptive"}}
        scenario = cell(traffic={"devices": 4, "think_time_s": 0.2}, uplink=uplink, duration_s=3.0, warmup_s=1.0)
        check_scenario(scenario, [ready()], with_own(scenario))
        return simulate(scenario, ready(), 0, functions=with_own(scenario)).tokens

    pd.testing.assert_frame_equal(tokens("own_equal:same"), tokens("equal-share"), check_exact=True)


def refused(match, **changes):
    with pytest.raises(ScenarioError, match=match):
        check_scenario(cell(**changes), [ready()])


def test_what_the_link_can_not_have_is_told_before_the_first_event():
    link = {"kind": "adaptive"}
    refused(r"uplink.tti_s: the adaptive link needs the length of a slot", uplink={"link": link})
    uplink = {"link": link, "tti_s": 1e-3}
    refused("'per-upload': uplink.link.kind = 'adaptive' needs", uplink=uplink, channel={"coherence_s": "per-upload"})
    refused(
        "-9.0 dB is too little for the lowest modulation",
        uplink=uplink,
        channel={"kind": "constant", "mean_snr_db": -9.0},
    )
    refused("target_block_error = 1.0: must be less than 1", uplink={"link": {"target_block_error": 1.0}})
    refused("link.kind = 'adaptiv': must be 'shannon' or 'adaptive'", uplink={"link": {"kind": "adaptiv"}})
    refused("max_transmissions = 0: must be greater than or equal to 1", uplink={"link": {"max_transmissions": 0}})


def test_the_physics_says_its_source_and_what_it_leaves_out_and_travels():
    assert re.search(r"Polyanskiy.*2010", block_error.__doc__ or "", flags=re.DOTALL)
    assert "Left out: " in (block_error.__doc__ or "")
    assert pickle.loads(pickle.dumps(block_error)) is block_error
    assert equal_share is ALLOCATORS["equal-share"]
