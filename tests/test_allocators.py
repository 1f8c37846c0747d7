"""Who gets the uplink: timelines to draw by hand for each allocator, and a contract for all of them.

Where nothing else is said the band has 1 Hz and carries 1 bit/s per unit of SNR.
"""

import pickle
import re
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from worlds import cell, check_with_own, known_air, ready, shannon, still_air, timeline, transmit, with_own

from channel_models import spectral_efficiency
from uhlm_sim.cell.checks import check_scenario
from uhlm_sim.cell.engine import simulate
from uhlm_sim.cell.radio.air import Air
from uhlm_sim.cell.radio.allocators import ALLOCATORS
from uhlm_sim.cell.radio.slots import Slots
from uhlm_sim.errors import ScenarioError
from uhlm_sim.rng import stream
from uhlm_sim.scenario_file import read_scenario

SLOTS = ["round-robin", "proportional-fair-slots"]
FLUID = [name for name in ALLOCATORS if name not in SLOTS]
CHANNELS = {
    "still": {"kind": "constant", "mean_snr_db": 3.0},
    "in blocks": {"kind": "rayleigh", "mean_snr_db": -5.0, "coherence_s": 0.01},
    "per upload": {"kind": "rayleigh", "mean_snr_db": 3.0, "coherence_s": "per-upload"},
}


# One device.


@pytest.mark.parametrize("name", FLUID[1:])
@pytest.mark.parametrize(
    ("snr_rule", "channel"), [("per-hertz", "still"), ("power-limited", "in blocks"), ("per-hertz", "per upload")]
)
def test_alone_in_the_cell_a_device_has_the_whole_band_whoever_allots_it(name, snr_rule, channel):
    """A third of the blocks are in outage, where the band is held in vain."""

    def tokens(allocator):
        scenario = cell(
            traffic={"devices": 1, "think_time_s": 0.5, "max_tokens": 20},
            uplink={"allocator": allocator, "snr_rule": snr_rule, "weights": [3.0]},
            channel={"min_snr_db": -9.0, **CHANNELS[channel]},
            duration_s=6.0,
            warmup_s=1.0,
        )
        return simulate(scenario, ready(), 0).tokens.select_dtypes("number")

    here, equal = tokens(name), tokens("equal-share")
    assert len(here) > 15
    np.testing.assert_allclose(here.to_numpy(dtype=float), equal.to_numpy(dtype=float), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", SLOTS)
@pytest.mark.parametrize("snr_rule", ["per-hertz", "power-limited"])
def test_alone_in_the_cell_slots_add_the_wait_for_an_edge_at_most(name, snr_rule):
    def stay_s(**uplink):
        scenario = cell(
            traffic={"devices": 1, "think_time_s": 0.5, "max_tokens": 20},
            uplink={"snr_rule": snr_rule, **uplink},
            channel={"kind": "constant", "mean_snr_db": 3.0},
        )
        tokens = simulate(scenario, ready(), 0).tokens.dropna(subset="committed_s")
        return (tokens["airtime_s"] + tokens["uplink_wait_s"]).groupby([tokens["request"], tokens["position"]]).sum()

    waits_s = (stay_s(allocator=name, tti_s=0.004) - stay_s(allocator="equal-share")).dropna()
    assert len(waits_s) > 100
    assert waits_s.between(-1e-9, 0.004 + 1e-9).all()
    assert waits_s.max() > 0.003


# Timelines to draw by hand.


def test_a_fixed_split_leaves_unused_what_the_others_do_not_use():
    """A quarter of the band each: 3 bits at 1 bit/s/Hz take 12 s, beside others or alone."""
    uploads = [(0.0, 0, 3.0), (2.0, 1, 3.0)]
    assert timeline(uploads, still_air(1, 2, 1, 1), "fdma") == {0: (12.0, 3.0), 1: (8.0, 1.5)}


def test_a_fixed_split_of_limited_power_has_all_power_in_its_part():
    """A quarter of the band at four times the SNR: 1/4 log2(1 + 4 x 3/4) = 1/2 bit/s."""
    air = still_air(0.75, 1, 1, 1, efficiency_of=shannon)
    assert timeline([(0.0, 0, 3.0)], air, "fdma", power_limited=True) == {0: (6.0, 1.5)}


def test_one_at_a_time_is_in_order_of_arrival():
    uploads = [(0.0, 2, 3.0), (1.0, 1, 2.0), (2.0, 0, 1.0)]
    assert timeline(uploads, still_air(1, 2, 1), "tdma") == {2: (3.0, 3.0), 1: (4.0, 1.0), 0: (5.0, 1.0)}


def test_the_best_snr_has_all_in_every_block():
    """SNR 1, 3, 0, 2, 1 and 2, 1, 0, 4, 1 in blocks of 1 s, 5 bits each.

    1 sends 2, 0 sends 3, the third block is an outage that both hold in vain; 1 needs 3/4 of the fourth, where 0 then
    sends 1/2, and the last 3/2 in the fifth.
    """
    air = known_air([[1, 3, 0, 2, 1], [2, 1, 0, 4, 1]], 1.0)
    assert timeline([(0, 0, 5), (0, 1, 5)], air, "max-rate") == {1: (3.75, 2.25), 0: (5.5, 3.25)}


def test_all_end_together_per_hertz():
    """Needs of 2/1 and 4/2 Hz s end at t = 4; 1 Hz s more at t = 1 makes that 5, for all three."""
    uploads = [(0.0, 0, 2.0), (0.0, 1, 4.0), (1.0, 2, 1.0)]
    ended = timeline(uploads, still_air(1, 2, 1), "equal-finish")
    assert {device: at_s for device, (at_s, _) in ended.items()} == {0: 5.0, 1: 5.0, 2: 5.0}
    assert [ended[device][1] for device in (0, 1, 2)] == pytest.approx([2.0, 2.0, 1.0])


def test_all_end_together_with_limited_power():
    """SNR 3/4 in 1/4 and 3/4 of the band: log2(1 + 3)/4 = 1/2 and 3/4 log2(1 + 1) = 3/4 bit/s, for 1 and 3/2 bits."""
    ended = timeline(
        [(0, 0, 1), (0, 1, 1.5)], still_air(0.75, 0.75, efficiency_of=shannon), "equal-finish", power_limited=True
    )
    assert ended == {0: (pytest.approx(2.0), pytest.approx(0.5)), 1: (pytest.approx(2.0), pytest.approx(1.5))}
    assert ended[0][0] == ended[1][0]


def test_weights_share_out_the_band():
    """Shares of 1/4 and 3/4: 1 has sent its 3 bits at t = 4, when 0 has 1 of 2 left, which then takes 1 s."""
    uploads, weights = [(0, 0, 2), (0, 1, 3)], np.array([1.0, 3.0])
    assert timeline(uploads, still_air(1, 1), "weighted", weights=weights) == {1: (4.0, 3.0), 0: (5.0, 2.0)}


def test_proportional_fair_looks_at_the_snr_relative_to_its_mean():
    """Means 1 and 10, gains 2 and 1, then 1/2 and 1: a block each, though 1 is stronger in both. Then ties: halves."""
    air = known_air([[2, 0.5], [1, 1]], 1.0, [1.0, 10.0])
    ended = timeline([(0, 0, 2.5), (0, 1, 15.0)], air, "proportional-fair")
    assert ended == {0: (3.0, 1.5), 1: (3.0, 1.5)}


@pytest.mark.parametrize("power_limited", [False, True])
def test_without_fading_proportional_fair_is_equal_share_on_its_clock_as_in_epochs(power_limited):
    """Air that says it may fade, but never does, is followed epoch by epoch."""
    uploads, snr = [(0.0, 0, 2.0), (0.4, 1, 3.0), (0.9, 2, 0.5), (1.1, 3, 4.0)], np.array([1.0, 2.0, 5.0, 30.0])
    told = {"power_limited": power_limited}
    equal = timeline(uploads, Air(snr, shannon), "equal-share", **told)
    assert timeline(uploads, Air(snr, shannon), "proportional-fair", **told) == equal
    in_epochs = timeline(uploads, Air(snr, shannon, per_upload=True), "proportional-fair", **told)
    assert in_epochs == {device: pytest.approx(both, rel=1e-12) for device, both in equal.items()}


@pytest.mark.parametrize("name", ["max-rate", "equal-finish", "shortest-first", "proportional-fair"])
def test_who_knows_the_channel_passes_an_outage_over(name):
    """Device 0 is in outage until t = 10 and holds the band only while it is alone."""
    air = known_air([[0, 1], [1, 1]], 10.0)
    assert timeline([(0.0, 0, 1.0), (1.0, 1, 2.0)], air, name) == {1: (3.0, 2.0), 0: (11.0, 9.0)}


def test_one_at_a_time_waits_out_an_outage():
    air = known_air([[0, 1], [1, 1]], 10.0)
    assert timeline([(0.0, 0, 1.0), (1.0, 1, 2.0)], air, "tdma") == {0: (11.0, 11.0), 1: (13.0, 2.0)}


# Slots.


def slotted(uploads, air, name, tti_s, average_s=10.0, **uplink):
    return timeline(uploads, air, name, slots=Slots(air.devices, tti_s, average_s), **uplink)


@pytest.mark.parametrize("name", SLOTS)
def test_alone_an_upload_waits_for_the_slots_edge_only(name):
    """Of 1 s: one from t = 1/4 begins at 1 and drains through its edges, one at an edge begins at once."""
    uploads = [(0.25, 0, 2.5), (7.0, 0, 0.5), (7.75, 0, 1.0)]
    ended, _ = transmit(uploads, still_air(1.0), allocator=ALLOCATORS[name], slots=Slots(1, 1.0, 10.0))
    assert [(job.received_s, job.airtime_s) for job in ended] == [(3.5, 2.5), (7.5, 0.5), (9.0, 1.0)]


def test_round_robin_goes_round_slot_by_slot():
    """0 1 2 0 1 2: 0 ends in the middle of its second slot, the rest of which is lost; a fade of 1 costs its slot."""
    air = known_air([[1, 1, 1, 1, 1, 1], [1, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]], 1.0)
    ended = slotted([(0, 0, 1.5), (0, 1, 1), (0, 2, 2)], air, "round-robin", 1.0)
    assert ended == {0: (3.5, 1.5), 1: (5.0, 2.0), 2: (6.0, 2.0)}


def test_round_robin_by_short_slots_is_equal_share():
    """Ten uploads of unequal SNR, slots of 0.1 ms: all have the fluid's airtime, and end some rounds from it."""
    rng, tti_s = stream(1, "rounds"), 1e-4
    uploads = [(at_s, device, rng.uniform(0.05, 0.2)) for device, at_s in enumerate(np.sort(rng.uniform(0, 0.2, 10)))]
    snr = rng.uniform(1, 3, 10)
    by_slots = slotted(uploads, still_air(*snr), "round-robin", tti_s)
    for device, (at_s, airtime_s) in timeline(uploads, still_air(*snr), "equal-share").items():
        assert by_slots[device] == (pytest.approx(at_s, abs=100 * tti_s), pytest.approx(airtime_s, abs=1e-9))


@pytest.mark.parametrize(("coherence_s", "tti_s", "at_s"), [(0.1, 0.1, 0.37), (0.1, 0.05, 0.37), (0.02, 0.02, 0.013)])
def test_a_slot_that_begins_with_a_block_is_given_by_the_blocks_own_fades(coherence_s, tti_s, at_s):
    """Of two phones one fades, block by block: nobody has a slot in vain, whichever edge comes first by a hair."""
    gains, seconds = [[1, 0] * 50, [0, 1] * 50], 20 * coherence_s
    uploads = [(at_s, 0, seconds), (at_s, 1, seconds)]
    ended = slotted(uploads, known_air(gains, coherence_s), "proportional-fair-slots", tti_s)
    assert [airtime_s for _, airtime_s in ended.values()] == pytest.approx([seconds, seconds])


def test_weights_of_the_scenario_make_up_for_the_efficiency():
    """Twice the weight for half the bit/s/Hz at the mean SNR."""
    scenario = read_scenario(Path(__file__).parent.parent / "scenarios" / "allocators.toml")
    snr = 10 ** (np.array(scenario.channel.mean_snr_db) / 10)
    efficiency = spectral_efficiency(snr, max_spectral_efficiency=scenario.channel.max_spectral_efficiency)
    assert np.array(scenario.uplink.weights) * efficiency == pytest.approx(np.full(20, efficiency[0]), rel=0.05)


# The contract.


@pytest.mark.parametrize("name", ALLOCATORS)
def test_an_allocator_says_its_equation_its_source_and_what_it_leaves_out_and_travels(name):
    allocator = ALLOCATORS[name]
    said = allocator.__doc__
    assert "share_i" in said
    assert re.search(r"\([^)]*\b(19|20)\d\d\b", said)
    assert "Left out: " in said
    assert pickle.loads(pickle.dumps(allocator)) is allocator


@pytest.mark.parametrize("name", ALLOCATORS)
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_every_run_keeps_the_laws_and_repeats_itself(name, data):
    """Bits in are bits out and airtime is the band in use, at most all of it: `simulate` refuses a run that differs."""
    devices = data.draw(st.integers(1, 6))
    each = partial(st.lists, min_size=devices, max_size=devices)
    kind = data.draw(st.sampled_from(["constant", "rayleigh"]))
    scenario = cell(
        seed=data.draw(st.integers(0, 1000)),
        traffic={"devices": devices, "think_time_s": data.draw(st.floats(0, 2)), "max_tokens": 10},
        uplink={
            "allocator": name,
            "snr_rule": data.draw(st.sampled_from(["per-hertz", "power-limited"])),
            "bandwidth_hz": data.draw(st.floats(1e6, 1e7)),
            "weights": data.draw(each(st.floats(0.01, 100))),
            "tti_s": data.draw(st.sampled_from([0.001, 0.007])),
        },
        channel={
            "kind": kind,
            "coherence_s": data.draw(st.sampled_from([0.01, 0.1, "per-upload"])),
            "mean_snr_db": data.draw(each(st.floats(-9, 40))),
            "snr_gap_db": data.draw(st.floats(0, 10)),
        },
        duration_s=3.0,
        warmup_s=1.0,
    )
    check_scenario(scenario, [ready()])
    records, again = (simulate(scenario, ready(), 0) for _ in range(2))
    for one, other in ((records.tokens, again.tokens), (records.stations, again.stations)):
        pd.testing.assert_frame_equal(one, other, check_exact=True)
    done = records.tokens[records.tokens["committed_s"].notna()]
    assert (done[["airtime_s", "uplink_wait_s"]] >= -1e-12).all(axis=None)
    uplink = records.stations[records.stations["station"] == "uplink"]
    assert (uplink["busy_s"] <= uplink["at_s"] * (1 + 1e-9)).all()


# An allocator of one's own.

OWN = """
import numpy as np

def far_first(left_bits, snr, exponent, mean_snr, devices, device):
    assert len(left_bits) == len(snr) == len(mean_snr) == len(device) <= devices == 3
    return mean_snr ** -exponent / (mean_snr ** -exponent).sum()
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_allocator.py").write_text(OWN, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return "own_allocator:far_first"


def of_three(**uplink):
    return cell(
        traffic={"devices": 3, "think_time_s": 0.0},
        channel={"kind": "constant", "mean_snr_db": [0.0, 3.0, 6.0]},
        uplink=uplink,
        duration_s=8.0,
        warmup_s=1.0,
    )


def test_an_allocator_of_ones_own_is_handed_what_it_names(own):
    """With exponent 0 it is equal share; with 2 the far phone's uploads end sooner than they did."""

    def stay_s(allocator, **params):
        scenario = of_three(allocator=allocator, params=params)
        check_scenario(scenario, [ready()], with_own(scenario))
        tokens = simulate(scenario, ready(), 0, functions=with_own(scenario)).tokens.dropna(subset="committed_s")
        return (tokens["airtime_s"] + tokens["uplink_wait_s"]).groupby(tokens["device"]).mean()

    equal = stay_s("equal-share")
    assert stay_s(own, exponent=0.0).to_numpy() == pytest.approx(equal.to_numpy(), rel=1e-9)
    assert stay_s(own, exponent=2.0)[0] < equal[0]


def test_what_an_allocator_lacks_is_told_before_the_first_event(own):
    def refused(match, **uplink):
        with pytest.raises(ScenarioError, match=match):
            check_with_own(of_three(**uplink))

    refused(r"missing a required argument: 'exponent'.*mean_snr, efficiency", allocator=own)
    close = {"exponent": 1.0, "exponnet": 1.0}
    refused("'exponnet'; params allowed: exponent; did you mean 'exponent'", allocator=own, params=close)
    refused("unexpected keyword argument 'exponent'; params allowed: none", allocator="tdma", params={"exponent": 1.0})
    refused("'devices' comes from the uplink", allocator=own, params={"exponent": 1.0, "devices": 9.0})
    refused("uplink.weights: weighted needs one for each phone", allocator="weighted")
    refused("uplink.tti_s: round-robin needs the length of a slot", allocator="round-robin")
    with pytest.raises(ScenarioError, match=r"uplink.weights has 2 values for traffic.devices = 3"):
        of_three(allocator="weighted", weights=[1.0, 2.0])
