"""Live tokens: models in the simulation's loop give what recording and replaying them gives, and are asked once."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tiny_models import write_prompts

from uhlm_sim.cell.engine import simulate
from uhlm_sim.cell.named import find_names
from uhlm_sim.cell.phones.policies import ready_policy
from uhlm_sim.cell.records import Records
from uhlm_sim.experiment import record_missing, run
from uhlm_sim.scenario import Scenario
from uhlm_sim.scenario_file import parse_scenario
from uhlm_sim.simulations import find_tokens
from uhlm_sim.tokens import live
from uhlm_sim.tokens.live import Live, open_live
from uhlm_sim.tokens.models import load_pair
from uhlm_sim.tokens.recording_settings import RecordingSettings

pytestmark = pytest.mark.models

POLICIES: list[dict[str, Any]] = [
    {"kind": "hlm"},
    {"kind": "slm"},
    {"kind": "llm"},
    {"kind": "u-hlm", "threshold": 0.3},
    {"kind": "u-hlm", "threshold": 0.6},
    {"kind": "hlm", "draft_tokens": 3},
    {"kind": "hlm", "payload": {"kind": "top-k", "k": 4}},
    {"kind": "hlm", "payload": {"kind": "quantised", "levels": 8}},
    {"kind": "hlm", "payload": {"kind": "truncated", "k": 4}},
    {"kind": "hlm", "payload": {"kind": "ids", "replaced_by": "base-station"}},
    {"kind": "hlm", "payload": {"kind": "quantised", "levels": 8}, "draft_tokens": 2},
    {"kind": "periodic-hlm", "skip_rate": 0.4},
]


@pytest.fixture
def world(folders: list[str], tmp_path: Path) -> Any:
    """Return a function that makes a scenario of two tiny models, their tokens of a kind."""
    prompts = write_prompts(tmp_path / "prompts.jsonl")

    def made(kind: str, *policies: Mapping[str, Any]) -> Scenario:
        tokens = {
            "kind": kind, "path": str(tmp_path / f"{kind}.parquet"), "slm": folders[0], "llm": folders[0],
            "slm_drop_layers": [1], "dtype": "float32", "prompts": prompts, "encoder": "none", "max_tokens": 12,
        }  # fmt: skip
        values = {
            "name": "live", "tokens": tokens, "policy": list(policies), "duration_s": 20.0, "warmup_s": 0.0,
            "traffic": {"devices": 4, "think_time_s": 0.2, "max_tokens": 12}, "replications": 1,
        }  # fmt: skip
        return parse_scenario(values, "live")

    return made


def played(scenario: Scenario) -> Records:
    record_missing(scenario)
    policy = ready_policy(0, scenario, find_tokens(scenario.tokens), find_names(scenario))
    return simulate(scenario, policy, 0)


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_a_live_run_is_token_for_token_what_recording_and_replaying_gives(world: Any, policy: dict[str, Any]) -> None:
    replayed, in_the_loop = played(world("models", policy)), played(world("live", policy))
    assert len(replayed.tokens) > 200
    # The passes are of one prefix instead of many side by side: probabilities differ in their last digits.
    for name in ("requests", "rounds", "tokens"):
        one, other = (getattr(records, name) for records in (in_the_loop, replayed))
        if name == "tokens":  # of a draft that the LLM's own token stands for a recording knows nothing
            one, other = (table[table["committed_s"].notna()] for table in (one, other))
        pd.testing.assert_frame_equal(one, other, rtol=0, atol=2e-5)
    assert in_the_loop.tokens["exact"].all()


def test_a_scheme_that_follows_the_network_is_exact_when_it_is_live(world: Any) -> None:
    price = {"kind": "u-hlm", "threshold": {"price_s": 0.3}}
    recorded = run(world("models", {"kind": "hlm"}, {"kind": "slm"}, price), jobs=1)
    in_the_loop = run(world("live", {"kind": "hlm"}, {"kind": "slm"}, price), jobs=1)

    def exact_share(results: Any) -> float:
        table = results.replications.query("metric == 'exact_share'").set_index("policy")["value"]
        return float(table["u-hlm(price 0.3 s)"])

    assert exact_share(recorded) < 1
    assert exact_share(in_the_loop) == 1
    assert "u-hlm(price 0.3 s)" not in in_the_loop.forced


def test_entries_by_token_are_not_called_exact_as_their_verdicts_are_those_of_all_entries(world: Any) -> None:
    scenario = world("live", {"kind": "hlm", "payload": {"kind": "top-k", "most_loss": 0.5}}, {"kind": "hlm"})
    record_missing(scenario)
    tokens, functions = find_tokens(scenario.tokens), find_names(scenario)
    assert [ready_policy(number, scenario, tokens, functions).exact for number in range(2)] == [False, True]


def test_a_second_run_replays_the_passes_of_the_first_without_the_models(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = world("live", {"kind": "u-hlm", "threshold": 0.5})
    first = played(scenario)
    tokens = find_tokens(scenario.tokens)
    assert isinstance(tokens, Live)
    tokens.keep()

    def no_models(*_: Any, **__: Any) -> None:
        raise AssertionError("the models are loaded again")

    monkeypatch.setattr(live, "load_recorded", no_models)
    again = open_live(RecordingSettings.of(scenario.tokens), Path(scenario.tokens.path))
    second = simulate(scenario, ready_policy(0, scenario, again, find_names(scenario)), 0)
    pd.testing.assert_frame_equal(second.tokens, first.tokens)


def test_a_prefix_gives_the_same_numbers_whatever_was_asked_before(folders: list[str]) -> None:
    """Also where the vocabulary has ids without a token, and where the walk jumps back."""
    pair = replace(load_pair(folders[0], folders[0], slm_drop_layers=(1,)), no_token=np.array([5]))
    straight, jumping = (live.Passes(lambda: pair, lambda _: [2, 3, 4]) for _ in range(2))
    for prefix in ((), (6,), (6, 7), (6, 7, 8)):
        wanted = straight.logits(0, 0, prefix)
    for prefix in ((), (), (9,), (9, 10), (6, 7, 8), (6, 7, 8)):
        got = jumping.logits(0, 0, prefix)
    np.testing.assert_array_equal(got, wanted)
    assert np.isneginf(got[0][0, 5])
