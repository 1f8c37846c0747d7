"""What one upload costs the uplink under each allocator, with 10, 100 and 1,000 uploads always active.

Run `python benchmarks/allocators.py`. Every upload that ends is followed at once by another of the same device, on a
channel that stands still, so an upload is an arrival and a departure; fading adds one more step for every block's edge.
Allocators by slots take one for every slot too, here of 1 ms on 10 MHz: the last column tells how many an upload has.
So does the adaptive link whoever allots, and its slots are dearer: blocks are coded, fail and are sent again.
Under equal finish all uploads end together, their next ones begin together, and shares are found once for all of them;
"apart" lets each begin at a time of its own, where shares are found for every one. Proportional fair is equal share
where nothing fades; "fading" gives each upload a gain of its own.
Each figure is the least of five, since a machine shared with others only ever adds to it. The aim is 60 us with 100
active and no slots, on a machine where a bare timeout of SimPy takes 0.7 us; the first line tells what that is here.
"""

import sys
import time
from functools import partial

import numpy as np
import simpy
from main_loop import bare_timeout_s

from channel_models import spectral_efficiency
from uhlm_sim.cell.jobs import Job
from uhlm_sim.cell.radio.adaptive_uplink import AdaptiveUplink, Link
from uhlm_sim.cell.radio.air import Air
from uhlm_sim.cell.radio.allocators import ALLOCATORS, SLOTTED, named_allocator
from uhlm_sim.cell.radio.slots import Slots
from uhlm_sim.cell.radio.uplink import Uplink


def upload_s(name: str, active: int, uploads: int, *, power_limited: bool, how: str = "") -> tuple[float, float]:
    """Return the seconds that one upload takes this machine, and how many slots pass meanwhile."""
    env, rng, ended = simpy.Environment(), np.random.default_rng(1), 0
    bits = rng.exponential(2.56e5, uploads + 2 * active).tolist()
    efficiency_of = partial(spectral_efficiency, min_snr=0.1, max_spectral_efficiency=7.4)

    def deliver(job: Job) -> None:
        nonlocal ended
        ended += 1
        apart = job.device / active if how == "apart" else 0.0
        env.timeout(1e-4 * (1.0 + apart)).callbacks.append(lambda _event: send(job.device))

    def send(device: int) -> None:
        uplink.send(Job(device, bits.pop(), 1, env.now, None, gain=gains.pop() if gains else 1.0))

    gains = rng.exponential(1.0, len(bits)).tolist() if how == "fading" else []
    air = Air(10 ** rng.uniform(0.0, 3.0, active), efficiency_of, per_upload=how == "fading", min_snr=0.1)
    weights = rng.uniform(1.0, 2.0, active)
    by_slots = how == "adaptive" or SLOTTED & set(named_allocator(ALLOCATORS[name]).asks)
    slots = Slots(active, 1e-3, 0.1) if by_slots else None
    options = {"allocator": ALLOCATORS[name], "weights": weights, "slots": slots, "power_limited": power_limited}
    make = Uplink
    if how == "adaptive":
        make = AdaptiveUplink
        options |= {"known": air, "link": Link(overhead=0.14), "coins_of": np.random.default_rng}
    uplink = make(env, bandwidth_hz=1e7, air=air, deliver=deliver, **options)
    for device in range(active):
        send(device)
    begun, began_s = ended, time.perf_counter()
    while ended - begun < uploads:
        env.step()
    return (time.perf_counter() - began_s) / (ended - begun), (0.0 if slots is None else slots.number / ended)


def main() -> None:
    """Print the table."""
    timeout_us = min(bare_timeout_s() for _ in range(5)) * 1e6
    print("us an upload, per hertz / power-limited")
    print(f"a bare timeout takes {timeout_us:.2f} us here, so aim at {60.0 * timeout_us / 0.7:.0f}\n")
    sizes = (10, 100, 1_000)
    print("allocator                " + "".join(f"{active:>9,} active   " for active in sizes) + " slots")
    lines = [(name, "") for name in ALLOCATORS] + [("equal-finish", "apart"), ("proportional-fair", "fading")]
    lines += [(name, "adaptive") for name in ("equal-share", "round-robin")]
    for name, how in lines:
        cells, slots = [], 0.0
        for active in sizes:
            both = []
            for limited in (False, True):
                count = 200 if how == "adaptive" else 2_000
                seconds, slots = min(upload_s(name, active, count, power_limited=limited, how=how) for _ in range(5))
                both.append(seconds * 1e6)
            cells.append(f"{both[0]:>8.0f} / {both[1]:<8.0f}")
        title = f"{name}, {how}" if how else name
        print(f"{title:<24}" + "".join(cells) + (f"{slots:>6.1f}" if slots else ""))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
