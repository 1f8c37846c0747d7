"""A threshold that moves with the network: fixed where nothing moves, higher where the cell is busy."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from channel_models import CHANNELS
from uhlm_sim.cell.engine import simulate
from uhlm_sim.cell.named import find_names
from uhlm_sim.cell.phones.policies import ready_policy
from uhlm_sim.cell.radio.air import BLOCKS_AHEAD
from uhlm_sim.cell.records import Records
from uhlm_sim.errors import ScenarioError
from uhlm_sim.rng import stream
from uhlm_sim.scenario import Scenario, SyntheticTokens
from uhlm_sim.scenario_file import parse_scenario
from uhlm_sim.tokens.synthetic import Synthetic

A, B, V, BANDWIDTH_HZ, SNR_DB = 0.82, -0.06, 32_000, 10e6, 7.0
UPLOAD_S = 8 * V / (BANDWIDTH_HZ * math.log2(1 + 10 ** (SNR_DB / 10)))
ACCESS_S, STEP_S, DOWNLINK_S = 0.01, 0.02, 0.005
VISIT_S = ACCESS_S + UPLOAD_S + STEP_S + DOWNLINK_S


def scenario(threshold: Any, devices: int = 1, channel: Any = None, **policy: Any) -> Scenario:
    values = {
        "name": "priced",
        "duration_s": 60.0,
        "warmup_s": 0.0,
        "traffic": {"devices": devices, "think_time_s": 1.0, "max_tokens": 40},
        "tokens": {"kind": "synthetic", "a": A, "b": B, "skip_rates": [{"threshold": 0.43, "rate": 0.46}]},
        "channel": channel or {"kind": "constant", "mean_snr_db": SNR_DB},
        "uplink": {"bandwidth_hz": BANDWIDTH_HZ, "access_s": ACCESS_S},
        "base_station": {"service": {"c_s": STEP_S, "s_s_per_token": 0.0}, "downlink_s": DOWNLINK_S},
        "policy": [{"kind": "u-hlm", "threshold": threshold, "name": "any", **policy}],
    }
    return parse_scenario(values, "priced")


def played(world: Scenario) -> Records:
    assert isinstance(world.tokens, SyntheticTokens)
    functions = find_names(world)
    return simulate(world, ready_policy(0, world, Synthetic(world.tokens), functions), 0, functions=functions)


@pytest.mark.parametrize("price_s", [0.3, 0.6, 2.0])
def test_a_lone_phone_on_a_constant_channel_has_the_threshold_of_theory(price_s: float) -> None:
    """A visit always takes T, so drafts with (a u + b) price < T are kept: u_th = (T / price - b) / a."""
    fixed = min((VISIT_S / price_s - B) / A, 1.0)
    moving, still = played(scenario({"price_s": price_s})), played(scenario(fixed))
    # A run of kept drafts is one round where it is planned; here each of them is chosen, and so one.
    own, its = (records.tokens.drop(columns="round").iloc[:-1] for records in (moving, still))
    pd.testing.assert_frame_equal(own, its, atol=1e-9)
    kept = moving.tokens["decision"] == "skip"
    assert kept.any()
    assert moving.tokens.loc[kept, "uncertainty"].max() <= fixed


def test_a_lone_phone_follows_its_own_fades_also_while_it_sends_nothing() -> None:
    """Kept is what risks less than a visit at the SNR of the block in which the draft is chosen; in outage, all."""
    price_s, coherence_s = 0.1, 0.5
    channel = {"kind": "rayleigh", "mean_snr_db": 0.0, "coherence_s": coherence_s}
    world = scenario({"price_s": price_s}, channel=channel)
    tokens = played(world).tokens.iloc[:-1]
    runs = CHANNELS["rayleigh"](stream(world.seed, "fading", 0, 0), BLOCKS_AHEAD)
    blocks = (tokens["started_s"] / coherence_s * (1 + 1e-12)).astype(int)
    snr = next(runs)[blocks]
    efficiency = np.where(snr >= 0.1, np.minimum(np.log2(1 + snr), 7.4), 0.0)
    with np.errstate(divide="ignore"):
        visit_s = ACCESS_S + 8 * V / (BANDWIDTH_HZ * efficiency) + STEP_S + DOWNLINK_S
    beta = np.clip(A * tokens["uncertainty"] + B, 0, 1)
    kept = (tokens["decision"] == "skip").to_numpy()
    assert 0.1 < kept.mean() < 0.9
    np.testing.assert_array_equal(kept, (beta * price_s < visit_s).to_numpy())


def test_phones_keep_more_in_a_busy_cell() -> None:
    few, some, many = (
        np.mean(played(scenario({"price_s": 0.3}, devices)).tokens["decision"] == "skip") for devices in (8, 24, 48)
    )
    assert few + 0.05 < some < many - 0.05


@pytest.mark.parametrize(
    ("threshold", "policy", "says"),
    [
        ({"price_s": 1.0, "risk": 0.1}, {}, "needs risk or price_s, one of them"),
        ({}, {}, "needs risk or price_s, one of them"),
        ({"price_s": 0.0}, {}, "greater than 0"),
        ({"price_s": 1.0}, {"draft_tokens": 2}, "policy.0.threshold: with price_s drafts are sent one by one"),
    ],
)
def test_what_a_moving_threshold_cannot_be_is_said_with_its_key(threshold: Any, policy: Any, says: str) -> None:
    with pytest.raises(ScenarioError, match=says):
        played(scenario(threshold, **policy))
