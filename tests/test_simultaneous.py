"""What happens at one instant is one batch: phones in step, held against a cell in rational arithmetic."""

import heapq
from fractions import Fraction
from itertools import count

import numpy as np
import pytest
from worlds import cell, ready

from uhlm_sim.cell.engine import simulate
from uhlm_sim.cell.phones.population import population

PHONES, TOKENS, PROMPT, END_S = 12, 15, 10, 30.0
SLM_S, PREFILL_S, THINK_S, STEP_S, DOWN_S = 0.05, 0.002, 1.0, 0.02, 0.005
FULL_BITS, ID_BITS, BANDWIDTH_HZ = 256_000, 15, 10e6


def exact_batches(scenario, replication, efficiency):
    """Play fdma, drafts and a GPU that takes all who wait, in fractions; return (device, request, position) -> jobs.

    At each instant uploads arrive and steps end first; then the GPU, if it is free, looks at its queue.
    """
    rate = Fraction(BANDWIDTH_HZ) / PHONES * Fraction(efficiency)
    thinks = [who.stream(scenario.seed, "arrivals", replication) for who in population(scenario)]
    events, order, queue, batches, busy = [], count(), [], {}, False

    def at(time, what, *job):
        heapq.heappush(events, (time, next(order), what, job))

    def draft(time, device, request, position):
        ids = PROMPT if position == 0 else 0
        drafted = time + Fraction(SLM_S) + ids * Fraction(PREFILL_S)
        at(drafted + (FULL_BITS + ids * ID_BITS) / rate, "arrive", device, request, position)

    def ask(time, device, request):
        draft(time + Fraction(THINK_S * thinks[device].standard_exponential()), device, request, 0)

    for device in range(PHONES):
        ask(Fraction(0), device, 0)
    while events and events[0][0] <= END_S:
        now = events[0][0]
        while events and events[0][0] == now:
            _, _, what, job = heapq.heappop(events)
            if what == "arrive":
                queue.append(job)
                continue
            busy = False
            for device, request, position in job:
                ready_s = now + Fraction(DOWN_S)
                ask(ready_s, device, request + 1) if position + 1 == TOKENS else draft(
                    ready_s, device, request, position + 1
                )
        if queue and not busy:
            batches |= dict.fromkeys(queue, len(queue))
            at(now + Fraction(STEP_S), "end", *queue)
            queue, busy = [], True
    return batches


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_phones_in_step_share_the_batches_that_rational_arithmetic_gives(seed):
    scenario = cell(
        seed=seed,
        traffic={"devices": PHONES, "think_time_s": THINK_S, "max_tokens": TOKENS},
        device={"slm_token_s": SLM_S, "slm_prefill_token_s": PREFILL_S},
        uplink={"bandwidth_hz": BANDWIDTH_HZ, "allocator": "fdma"},
        channel={"kind": "constant", "mean_snr_db": 10.0},
        base_station={
            "service": {"c_s": STEP_S, "s_s_per_token": 0.0, "free_tokens": 1, "attention_s": 0.0},
            "max_batch": PHONES,
            "downlink_s": DOWN_S,
        },
        duration_s=END_S,
        warmup_s=1.0,
    )
    tokens = simulate(scenario, ready(tokens=50, prompt_tokens=PROMPT), 0).tokens
    exact = exact_batches(scenario, 0, float(np.log2(11.0)))
    served = tokens[tokens["batch_jobs"] > 0]
    simulated = dict(
        zip(
            served[["device", "request", "position"]].itertuples(index=False, name=None),
            served["batch_jobs"],
            strict=True,
        )
    )
    assert simulated == exact
    assert max(exact.values()) > 2
