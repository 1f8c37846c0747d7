"""A second cell, advanced in small fixed steps by a loop of its own, meets the same world and tells the same story.

It shares no code with the simulator: no events, no virtual time, no queue objects. Every stage of a token ends at the
first step after its time, so its error is of the order of the step, and halves with it.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pytest
from worlds import cell, ready

from uhlm_sim.cell.engine import simulate
from uhlm_sim.rng import stream

TOKENS, PROMPT_TOKENS, PROMPTS = 12, 10, 20  # of the answers that `ready` makes up
DRAFT_S, PREFILL_S, THINK_S, DOWNLINK_S = 0.031, 0.0013, 0.4, 0.007
BASE_S, PER_TOKEN_S, FREE_TOKENS = 0.017, 0.0011, 3
COHERENCE_S, SNR, CAP, BANDWIDTH_HZ, VOCABULARY, ID_BITS = 0.25, 10.0, 7.4, 6e6, 32_000, 15
LOWEST_SNR, SKIP_RATE, EPSILON = 0.1, 0.4, 1e-9


@dataclass
class SteppedPhone:
    thinks_s: list[float]
    gains: list[float]
    answers: list[list[bool]]  # by request: which tokens it keeps
    stage: str = "think"
    left: float = 0.0  # seconds, or bits while it uploads
    position: int = 0
    unknown_ids: int = PROMPT_TOKENS  # what the LLM hasn't seen of this answer
    asked: bool = False
    request: int = 0
    started_s: float = 0.0
    committed_s: list[float] = field(default_factory=list)
    delays_s: list[float] = field(default_factory=list)


def stepped(phones: list[SteppedPhone], step_s: float, end_s: float, gpus: int, max_batch: int, limited: bool) -> None:
    """Advance the cell by `step_s` at a time: each phone's stage, then the band, then the GPUs."""
    queue: list[int] = []
    serving: list[tuple[float, list[int]]] = []  # seconds left, phones
    for phone in phones:
        phone.left = phone.thinks_s[0]
    for step in range(round(end_s / step_s)):
        now_s = step * step_s
        uploading = [phone for phone in phones if phone.stage == "upload"]
        for phone in uploading:
            snr = SNR * phone.gains[int(now_s / COHERENCE_S + 1e-9)] * (len(uploading) if limited else 1)
            efficiency = min(math.log2(1 + snr), CAP) if snr >= LOWEST_SNR else 0.0
            phone.left -= efficiency * BANDWIDTH_HZ / len(uploading) * step_s
        for number, phone in enumerate(phones):
            if phone.stage in ("think", "draft", "downlink"):
                phone.left -= step_s
            if phone.left <= EPSILON and phone.stage != "verify":
                advance(phone, number, now_s + step_s, queue)
        serving = [(left_s - step_s, batch) for left_s, batch in serving]
        for _, batch in [each for each in serving if each[0] <= EPSILON]:
            for number in batch:
                phones[number].stage, phones[number].left = "downlink", DOWNLINK_S
        serving = [each for each in serving if each[0] > EPSILON]
        while queue and len(serving) < gpus:
            batch, queue[:] = queue[:max_batch], queue[max_batch:]
            new_tokens = sum(phones[number].unknown_ids for number in batch)
            for number in batch:
                phones[number].unknown_ids, phones[number].asked = 0, True
            serving.append((BASE_S + PER_TOKEN_S * max(0, new_tokens - FREE_TOKENS), batch))


def advance(phone: SteppedPhone, number: int, now_s: float, queue: list[int]) -> None:
    """Put a phone whose stage is over into the next one."""
    if phone.stage == "upload":
        phone.stage = "verify"
        queue.append(number)
        return
    keeps = phone.answers[phone.request][phone.position]
    if phone.stage == "draft" and not keeps:
        ids = phone.unknown_ids - phone.asked  # the LLM knows what it said itself
        phone.stage, phone.left = "upload", 8.0 * VOCABULARY + ID_BITS * ids
        return
    if phone.stage in ("draft", "downlink"):  # a token is committed
        phone.committed_s.append(now_s)
        phone.delays_s.append(now_s - phone.started_s)
        phone.position += 1
        phone.unknown_ids += 1
    if phone.position == TOKENS:
        phone.request += 1
        phone.stage, phone.left, phone.position = "think", phone.thinks_s[phone.request], 0
        phone.unknown_ids, phone.asked = PROMPT_TOKENS, False
        return
    phone.started_s = now_s
    phone.stage, phone.left = "draft", DRAFT_S + (PREFILL_S * PROMPT_TOKENS if phone.position == 0 else 0.0)


def both_cells(
    steps_s: list[float],
    devices: int,
    end_s: float,
    seed: int,
    *,
    gpus: int = 1,
    max_batch: int = 1,
    limited: bool = False,
) -> tuple[pd.DataFrame, list[list[SteppedPhone]]]:
    """Return the simulator's committed tokens, and the stepped phones for each step, of one random world."""
    policy = ready("u-hlm", tokens=TOKENS, prompt_tokens=PROMPT_TOKENS, prompts=PROMPTS, skip_rate=SKIP_RATE)
    scenario = cell(
        seed=seed,
        duration_s=end_s,
        warmup_s=0.0,
        traffic={"devices": devices, "think_time_s": THINK_S, "max_tokens": TOKENS},
        device={"slm_token_s": DRAFT_S, "slm_prefill_token_s": PREFILL_S},
        uplink={"bandwidth_hz": BANDWIDTH_HZ, "snr_rule": "power-limited" if limited else "per-hertz"},
        channel={"mean_snr_db": 10.0, "coherence_s": COHERENCE_S, "max_spectral_efficiency": CAP},
        base_station={
            "service": {"c_s": BASE_S, "s_s_per_token": PER_TOKEN_S, "free_tokens": FREE_TOKENS},
            "gpus": gpus,
            "max_batch": max_batch,
            "order": "first-come",
            "downlink_s": DOWNLINK_S,
        },
    )
    tokens = simulate(scenario, policy, 0).tokens.dropna(subset="committed_s").sort_values(["device", "committed_s"])
    worlds = []
    for step_s in steps_s:
        phones = [world(device, policy, end_s, seed) for device in range(devices)]
        stepped(phones, step_s, end_s, gpus, max_batch, limited)
        worlds.append(phones)
    return tokens, worlds


def world(device: int, policy: Any, end_s: float, seed: int) -> SteppedPhone:
    """Return a phone with the thinks, prompts and gains that seed, replication and device stand for."""
    count = int(end_s / THINK_S) + 50
    asked = stream(seed, "prompts", 0, device).integers(PROMPTS, size=count)
    return SteppedPhone(
        thinks_s=(THINK_S * stream(seed, "arrivals", 0, device).standard_exponential(count)).tolist(),
        gains=stream(seed, "fading", 0, device).standard_exponential(int(end_s / COHERENCE_S) + 2).tolist(),
        answers=[(policy.source.tree(int(prompt), 0).nodes.skip_coin < SKIP_RATE).tolist() for prompt in asked],
    )


@pytest.mark.parametrize(  # worlds in which no two jobs reach the base station within a few steps
    ("seed", "devices", "limited"), [(4, 1, False), (8, 2, True), (8, 3, False), (4, 3, True)]
)
def test_token_by_token_the_difference_is_that_of_the_step(seed: int, devices: int, limited: bool) -> None:
    """Batches of one: every commit lies within some tens of steps; a quarter of the step is a quarter of the error.

    Two jobs that arrive nearer to each other than the steps' drift may be served in the other order; what follows is
    then another story however small the step. Most worlds of three phones have such a pair somewhere.
    """
    steps_s = [1e-4, 2.5e-5]
    tokens, worlds = both_cells(steps_s, devices, 8.0, seed, limited=limited)
    mean_s = (tokens["committed_s"] - tokens["started_s"]).mean()
    apart_s = []
    for phones in worlds:
        differences = []
        for device, phone in enumerate(phones):
            exact_s = tokens.loc[tokens["device"] == device, "committed_s"].to_numpy()
            assert abs(len(exact_s) - len(phone.committed_s)) <= 1, "one commit may fall beyond the end"
            common = min(len(exact_s), len(phone.committed_s))
            differences.append(np.abs(exact_s[:common] - phone.committed_s[:common]))
        apart_s.append(np.concatenate(differences))
        assert len(apart_s[-1]) >= 70 * devices
    assert apart_s[-1].max() < 150 * steps_s[-1]
    assert 0.125 < apart_s[-1].mean() / apart_s[0].mean() < 0.5, "a quarter of the step: about a quarter of the error"
    finest = np.concatenate([phone.delays_s for phone in worlds[-1]]).mean()
    assert abs(finest / mean_s - 1) < 1e-3


def test_the_error_falls_in_proportion_to_the_step() -> None:
    """Steps of 200 to 25 us: commit times and the mean token time go to the simulator's with slope 1 on a log scale."""
    steps_s = [2e-4, 1e-4, 5e-5, 2.5e-5]
    tokens, worlds = both_cells(steps_s, 2, 8.0, 4)
    exact_s = {device: rows["committed_s"].to_numpy() for device, rows in tokens.groupby("device")}
    mean_s = (tokens["committed_s"] - tokens["started_s"]).mean()
    apart_s, relative = [], []
    for phones in worlds:
        counts = [min(len(phone.committed_s), len(exact_s[device])) for device, phone in enumerate(phones)]
        differences = [
            np.subtract(p.committed_s[:n], exact_s[d][:n]) for d, (p, n) in enumerate(zip(phones, counts, strict=True))
        ]
        apart_s.append(np.abs(np.concatenate(differences)).mean())
        relative.append(abs(np.concatenate([phone.delays_s for phone in phones]).mean() / mean_s - 1))
    for errors in (apart_s, relative):
        slope = np.polyfit(np.log(steps_s), np.log(errors), 1)[0]
        assert 0.85 < slope < 1.15
    assert relative[-1] < 1e-3


def test_a_busy_cell_with_batches_has_the_same_mean_token_time() -> None:
    """Eight phones, two GPUs, batches of up to four: over worlds, the paired difference of means is chance or steps."""
    step_s, ratios = 4e-4, []
    for seed in range(16):
        tokens, (phones,) = both_cells([step_s], 8, 12.0, seed, gpus=2, max_batch=4)
        stepped_s = np.concatenate([phone.delays_s for phone in phones]).mean()
        ratios.append(stepped_s / (tokens["committed_s"] - tokens["started_s"]).mean())
    error = np.std(ratios, ddof=1) / math.sqrt(len(ratios))
    assert error < 4e-3, "enough worlds to tell"
    assert abs(np.mean(ratios) - 1) < 4 * error + 1e-3
