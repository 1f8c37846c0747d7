"""What the shared uplink does with a handful of uploads: timelines to draw by hand, and a slow fluid loop to beat.

Where nothing else is said the band has 1 Hz and carries 1 bit/s per unit of SNR.
"""

import inspect
from functools import partial

import numpy as np
import pytest
from worlds import known_air, transmit

from channel_models import spectral_efficiency
from uhlm_sim.cell.radio.air import Air
from uhlm_sim.cell.radio.allocators import ALLOCATORS, SLOTTED
from uhlm_sim.rng import stream


def still_air(*snr, efficiency_of=lambda snr: snr):
    return Air(np.array(snr, dtype=float), efficiency_of)


def equal_again(_left_bits, snr):
    """Equal share, but not the built-in function: takes the path of an allocator of the user's own."""
    return np.full(len(snr), 1 / len(snr))


def shortest_first(left_bits, snr):
    return (np.arange(len(snr)) == np.argmin(left_bits)).astype(float)


def best_channel_first(_left_bits, snr):
    return (np.arange(len(snr)) == np.argmax(snr)).astype(float)


def timeline(uploads, air, **uplink):
    ended, _ = transmit(uploads, air, **uplink)
    return [(job.device, job.received_s) for job in ended]


def test_one_upload_takes_bits_over_rate():
    ended, band = transmit([(2.0, 0, 6.0)], still_air(3.0))
    assert [(job.device, job.received_s, job.airtime_s) for job in ended] == [(0, 4.0, 2.0)]
    assert (band.counters.busy_s, band.counters.present_s, band.counters.bits) == (2.0, 2.0, 6.0)


@pytest.mark.parametrize("allocator", [{}, {"allocator": equal_again}])
def test_two_uploads_drain_at_half_their_rate_while_both_are_there(allocator):
    """0 alone has sent 2 of 3 bits at t = 2; its last one takes 2 s beside 1, which then has 2 of 4 bits left."""
    uploads, air = [(0.0, 0, 3.0), (2.0, 1, 4.0)], still_air(1.0, 2.0)
    ended, _ = transmit(uploads, air, **allocator)
    assert [(job.device, job.received_s, job.airtime_s) for job in ended] == [(0, 4.0, 3.0), (1, 5.0, 2.0)]


@pytest.mark.parametrize("allocator", [{}, {"allocator": equal_again}])
def test_uploads_that_tie_end_together_in_device_order(allocator):
    uploads = [(1.0, 2, 3.0), (1.0, 0, 3.0), (1.0, 3, 5.0), (1.0, 1, 3.0)]
    assert timeline(uploads, still_air(1, 1, 1, 1), **allocator) == [(0, 13.0), (1, 13.0), (2, 13.0), (3, 15.0)]


@pytest.mark.parametrize("allocator", [{}, {"allocator": equal_again}])
@pytest.mark.parametrize(
    ("power_limited", "last_bits", "end_s"),
    [(False, 0.7 - 0.1 - 0.1, 1.8), (True, 0.7 - 0.1 - 0.2, 0.7)],
)
def test_rounding_does_not_break_a_tie(allocator, power_limited, last_bits, end_s):
    """0.1 + 0.2 is not 0.3 in floating point; uploads that tie but for that end at one instant, in device order.

    Per hertz, each comes with the bits that the others have left; power-limited, with SNR bit/s/Hz, nobody slows down.
    """
    uploads = [(0.0, 2, 0.7), (0.1, 1, 0.7 - 0.1), (0.1 + 0.2, 0, last_bits)]
    ended = timeline(uploads, still_air(1.0, 1.0, 1.0), power_limited=power_limited, **allocator)
    assert [device for device, _ in ended] == [0, 1, 2]
    assert len({at_s for _, at_s in ended}) == 1
    assert ended[0][1] == pytest.approx(end_s, abs=1e-9)


@pytest.mark.parametrize("allocator", [{}, {"allocator": equal_again}])
def test_power_in_less_bandwidth_raises_the_snr(allocator):
    """At SNR 1, log2(1 + n) bit/s in all for n uploads: 1 alone, 2 for three. From t = 0 three get 2/3 each."""
    air = still_air(1.0, 1.0, 1.0, efficiency_of=lambda snr: np.log2(1 + snr))
    uploads = [(0.0, 0, 2.0), (0.0, 1, 2.0), (0.0, 2, 3.0)]
    limited, fixed = (dict(timeline(uploads, air, power_limited=rule, **allocator)) for rule in (True, False))
    assert limited == pytest.approx({0: 3.0, 1: 3.0, 2: 4.0}, abs=1e-9)
    assert fixed == pytest.approx({0: 6.0, 1: 6.0, 2: 7.0}, abs=1e-9)


@pytest.mark.parametrize("options", [{}, {"allocator": equal_again}, {"power_limited": True}])
def test_an_upload_drains_across_blocks(options):
    """Blocks of 1 s at 1, 3, 0 and 2 bit/s: 5 bits take the first two, wait out the third, and half of the fourth."""
    ended, band = transmit([(0.0, 0, 5.0)], known_air([[1, 3, 0, 2]], 1.0), **options)
    assert [(job.received_s, job.airtime_s) for job in ended] == [(3.5, 3.5)]
    assert (band.counters.busy_s, band.counters.bits) == (3.5, 5.0)


@pytest.mark.parametrize("allocator", [{}, {"allocator": equal_again}])
def test_an_upload_in_outage_keeps_its_share_of_the_band(allocator):
    """Device 0 is in outage until t = 10, yet device 1 has only half the band."""
    ended, _ = transmit([(0.0, 0, 1.0), (1.0, 1, 2.0)], known_air([[0, 1], [1, 1]], 10.0), **allocator)
    assert [(job.device, job.received_s, job.airtime_s) for job in ended] == [(1, 5.0, 2.0), (0, 11.0, 9.0)]


def test_an_allocator_that_knows_the_channel_passes_an_outage_over():
    uploads, air = [(0.0, 0, 1.0), (1.0, 1, 2.0)], known_air([[0, 1], [1, 1]], 10.0)
    ended, _ = transmit(uploads, air, allocator=best_channel_first)
    assert [(job.device, job.received_s, job.airtime_s) for job in ended] == [(1, 3.0, 2.0), (0, 11.0, 9.0)]


@pytest.mark.parametrize("back_s", [3.25, 3.0, 700.5])
@pytest.mark.parametrize("options", [{}, {"allocator": equal_again}, {"power_limited": True}])
def test_after_an_idle_gap_the_gain_is_that_of_the_present_block(back_s, options):
    gains = np.arange(1.0, 1001.0)
    uploads = [(0.0, 0, 0.5), (back_s, 0, 0.5)]
    assert timeline(uploads, known_air([gains], 1.0), **options) == [
        (0, 0.5),
        (0, pytest.approx(back_s + 0.5 / (int(back_s) + 1), abs=1e-12)),
    ]


def test_the_shortest_goes_first_where_the_allocator_says_so():
    """1 interrupts 0 at t = 1, 2 waits for 1 and beats what is left of 0."""
    ended, band = transmit([(0, 0, 5), (1, 1, 2), (2, 2, 3)], still_air(1, 1, 1), allocator=shortest_first)
    assert [(job.device, job.received_s, job.airtime_s) for job in ended] == [(1, 3.0, 2.0), (2, 6.0, 3.0), (0, 10, 5)]
    assert band.counters.busy_s == 10.0


def fluid(uploads, share_of, se_of, coherence_s):
    """The uplink as a loop, from event to event: when each upload ends and its airtime. se_of(...) is bit/s/Hz."""
    now, block, coming, left, ended, airtime = 0.0, 0, sorted(uploads), {}, {}, {}
    while coming or left:
        devices = sorted(left)
        bits = np.array([left[device] for device in devices])
        shares = share_of(devices, bits, block) if devices else np.empty(0)
        rates = shares * se_of(devices, shares, block)
        with np.errstate(divide="ignore"):
            step_s = min([*(bits / rates), (block + 1) * coherence_s - now, *(up[0] - now for up in coming[:1])])
        now += step_s
        left = dict(zip(devices, bits - step_s * rates, strict=True))
        for device, share in zip(devices, shares, strict=True):
            airtime[device] = airtime.get(device, 0.0) + step_s * share
        for device in [device for device in devices if left[device] < 1e-9]:
            ended[device] = now
            del left[device]
        if coming and coming[0][0] <= now + 1e-12:
            _, device, left_bits, *_ = coming.pop(0)
            left[device] = left_bits
        block += now >= (block + 1) * coherence_s - 1e-12
    return ended, airtime


FLUID = [each for each in ALLOCATORS.values() if not SLOTTED & inspect.signature(each).parameters.keys()]
OWN = [equal_again, shortest_first, best_channel_first]


@pytest.mark.parametrize("allocator", [*FLUID, *OWN])
@pytest.mark.parametrize("power_limited", [False, True])
@pytest.mark.parametrize("fades", ["never", "in blocks", "per upload"])
def test_uploads_end_when_a_slow_fluid_loop_says(allocator, power_limited, fades):
    """60 phones of different SNR, one upload each, up to 30 at once; floor and cap bind now and then."""
    count, blocks, mean_snr = 60, 4000, np.geomspace(0.3, 300.0, 60)
    se = partial(spectral_efficiency, min_snr=0.2, max_spectral_efficiency=6.0)
    rng = stream(1, "fluid", fades)
    gains = rng.exponential(1.0, (count, blocks if fades == "in blocks" else 1))
    starts_s, bits = np.sort(rng.uniform(0, 10, count)), rng.exponential(1.0, count)
    uploads = list(zip(starts_s, rng.permutation(count), bits, strict=True))
    if fades == "never":
        gains[:], coherence_s, air = 1.0, np.inf, Air(mean_snr, se)
    elif fades == "per upload":
        gains = np.maximum(gains, 0.2001 / mean_snr[:, None])
        uploads = [(at_s, device, bits, gains[device, 0]) for at_s, device, bits in uploads]
        coherence_s, air = np.inf, Air(mean_snr, se, per_upload=True, min_snr=0.2)
    else:
        gains[:, -1] = 1.0  # and from then on
        coherence_s, air = 0.05, known_air(gains, 0.05, mean_snr, se)

    def se_of(devices, shares, block):
        snr = mean_snr[devices] * gains[devices, min(block, gains.shape[1] - 1)]
        return se(snr / np.where(shares > 0, shares, 1.0)) if power_limited else se(snr)

    weights, order = rng.uniform(1, 3, count), [device for _, device, *_ in uploads]

    def share_of(devices, bits, block):
        snr = mean_snr[devices] * gains[devices, min(block, gains.shape[1] - 1)]
        told = {
            "devices": count,
            "arrival": np.array([order.index(device) for device in devices]),
            "mean_snr": mean_snr[devices],
            "efficiency": se(snr),
            "efficiency_of": se,
            "power_limited": power_limited,
            "weight": weights[devices],
        }
        asked = list(inspect.signature(allocator).parameters)[2:]
        return allocator(bits, snr, **{name: told[name] for name in asked})

    ended, band = transmit(uploads, air, allocator=allocator, weights=weights, power_limited=power_limited)
    expected, airtime = fluid(uploads, share_of, se_of, coherence_s)
    assert {job.device: job.received_s for job in ended} == pytest.approx(expected, abs=1e-7)
    assert {job.device: job.airtime_s for job in ended} == pytest.approx(airtime, abs=1e-7)
    assert band.counters.bits == pytest.approx(bits.sum(), rel=1e-12)
    assert band.counters.busy_s == pytest.approx(sum(job.airtime_s for job in ended), rel=1e-9)
    assert band.counters.present_s == pytest.approx(sum(job.received_s - job.sent_s for job in ended), rel=1e-9)
