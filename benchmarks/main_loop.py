"""What an HLM token costs, in units of a bare SimPy timeout measured in the same process, and in memory.

Run `python benchmarks/main_loop.py`. Each row is the best of three; the timeout is measured beside every run, since a
machine's speed drifts. A run's cost is everything: the events, full records, their tables and their checks.
"""

import sys
import time
import tracemalloc
from dataclasses import replace
from functools import partial
from pathlib import Path

import simpy

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from worlds import cell, ready

from uhlm_sim.cell.engine import simulate
from uhlm_sim.cell.phones.network_aware import priced
from uhlm_sim.cell.phones.policies import ReadyPolicy
from uhlm_sim.cell.phones.windows import windowed
from uhlm_sim.scenario import Scenario
from uhlm_sim.tokens.speculative import LinearLaw

BLOCK_FADING = {"kind": "rayleigh", "coherence_s": 0.02}


def bare_timeout_s(count: int = 200_000) -> float:
    """Return the seconds that one timeout of one process takes."""

    def sleeper(env: simpy.Environment):
        while True:
            yield env.timeout(1.0)

    env = simpy.Environment()
    env.process(sleeper(env))
    began_s = time.perf_counter()
    env.run(until=count)
    return (time.perf_counter() - began_s) / count


def busy_cell(devices: int, channel: dict[str, object], tokens: int, bandwidth_hz: float) -> Scenario:
    """Return a cell of phones without think time that commits about so many tokens."""
    uplink_bit_s = bandwidth_hz * (3.459 if channel["kind"] == "constant" else 2.9)
    rate = min(uplink_bit_s / 256_000, devices / 0.09)
    duration_s = tokens / rate
    return cell(
        traffic={"devices": devices, "think_time_s": 0.0, "max_tokens": 50},
        channel=channel,
        uplink={"bandwidth_hz": bandwidth_hz},
        base_station={"max_batch": 64},
        duration_s=duration_s,
        warmup_s=0.0,
    )


def cost(scenario: Scenario, policy: ReadyPolicy) -> tuple[int, float]:
    """Return the committed tokens and the cost of one in bare timeouts."""
    best = float("inf")
    for _ in range(3):
        unit_s = bare_timeout_s()
        began_s = time.perf_counter()
        records = simulate(scenario, policy, 0)
        seconds = time.perf_counter() - began_s
        tokens = int(records.tokens["committed_s"].notna().sum())
        best = min(best, seconds / tokens / unit_s)
    return tokens, best


def main() -> None:
    """Print the table."""
    print(f"a bare timeout takes {bare_timeout_s() * 1e6:.2f} us\n")
    print("devices  channel                uplink     tokens   timeouts/token")
    constant = {"kind": "constant"}
    rows = [
        (100, constant, 1e7, "saturated"),
        (100, constant, 1e9, "free"),
        (100, BLOCK_FADING, 1e7, "saturated"),
        (100, BLOCK_FADING, 1e9, "free"),
        *((devices, constant, 1e5 * devices, "saturated") for devices in (10, 100, 1_000, 10_000)),
    ]
    for devices, channel, bandwidth_hz, state in rows:
        # As many tokens a phone in every row, so that setting a phone up weighs the same.
        tokens, timeouts = cost(busy_cell(devices, channel, max(40_000, 100 * devices), bandwidth_hz), ready())
        name = "constant" if channel is constant else "rayleigh, 20 ms"
        print(f"{devices:>7}  {name:<20}   {state:<9} {tokens:>7}   {timeouts:>8.1f}")

    print("\ntimeouts/token of 100 devices, constant channel, uplink saturated, where drafts are kept, too")
    kept = ready("u-hlm")
    law = LinearLaw(0.8, -0.1, 0.3)
    moving = partial(priced, price_s=2.0, law=law, gate="uncertainty")
    for name, scheme in (
        ("planned, a threshold", kept.scheme),
        ("planned, windows of 4", replace(kept.scheme, rounds=partial(windowed, drafts=4, bonus=True))),
        ("draft by draft, a price", replace(kept.scheme, rounds=moving, looks_at_cell=True)),
    ):
        tokens, timeouts = cost(busy_cell(100, constant, 40_000, 1e7), replace(kept, scheme=scheme))
        print(f"{name:<26} {tokens:>7}   {timeouts:>8.1f}")

    scenario = busy_cell(100, BLOCK_FADING, 200_000, 1e8)
    tracemalloc.start()
    records = simulate(scenario, ready(), 0)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    print(f"\npeak memory {peak_bytes / len(records.tokens):.0f} bytes a recorded token, at {len(records.tokens):,}")


if __name__ == "__main__":
    main()
