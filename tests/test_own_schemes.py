"""Schemes of a user's own: windows, a compressed upload and a choice by the load, each a few lines in one file."""

from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
from traces import RULES, read_trace, write_trace
from worlds import cell

from uhlm_sim.cell.engine import simulate
from uhlm_sim.cell.named import find_names
from uhlm_sim.cell.phones.policies import ready_policy, rule_request
from uhlm_sim.cell.phones.rounds import WHOLE, Costs
from uhlm_sim.cell.phones.schemes import Planner, Scheme
from uhlm_sim.cell.records import Records
from uhlm_sim.errors import ScenarioError
from uhlm_sim.experiment import run
from uhlm_sim.scenario import Scenario
from uhlm_sim.scenario_file import read_scenario
from uhlm_sim.simulations import find_tokens
from uhlm_sim.tables import LEGS
from uhlm_sim.tokens.decoding_rule import DecodingRule
from uhlm_sim.tokens.recording import RuleRequest, resolve_rule
from uhlm_sim.tokens.trace import Trace
from uhlm_sim.tokens.tree import NO_TOKEN

COSTS = Costs(WHOLE, 0.05, 0.001, 0.0, 800.0, 10, piggyback=True)

WINDOWS = """
    from uhlm_sim.cell.phones.policies import Scheme

    def windows(walk):  # up to 4 drafts a visit, and the LLM's own token where all are accepted
        while walk.left:
            yield walk.send(4, bonus=True)

    def scheme():
        return Scheme(rounds=windows)
"""
TOP_K = """
    from functools import partial

    import numpy as np
    from uhlm_sim.cell.phones.policies import Scheme
    from uhlm_sim.tokens.messages import Message

    def top_k(nodes, distribution_bits, k):  # k entries of 8 bits and an index of 15; full HLM's verdict, a proxy
        return Message(np.full(len(nodes), k * (8.0 + 15.0)), nodes.accepted)

    def scheme(k=30):
        return Scheme(message=partial(top_k, k=int(k)))
"""
LOADED = """
    from uhlm_sim.cell.phones.policies import Scheme

    def choose(walk, cell, uploads):  # keep a draft of little uncertainty while others are sending
        while walk.left:
            sure = walk.nodes.uncertainty[walk.node] <= 0.5
            yield walk.keep() if sure and cell.active_uploads >= uploads else walk.send()

    def scheme(uploads=1):
        return Scheme(rounds=lambda walk, cell: choose(walk, cell, uploads), looks_at_cell=True)
"""


@dataclass(frozen=True)
class Own:
    """A scenario file beside a file of the user's own code, under a policy of that name."""

    scenario: Scenario
    records: Records


@pytest.fixture
def play(tmp_path: Path, scenario_file: Path, trace_file: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that runs a scenario with code of the user's own, and simulates one replication of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def played(module: str, code: str, *settings: str) -> Own:
        lines = dedent(code)
        assert len(lines.splitlines()) <= 30
        (tmp_path / f"{module}.py").write_text(lines, encoding="utf-8")
        scenario = read_scenario(scenario_file, [f'policy=[{{kind="{module}:scheme", name="own"}}]', *settings])
        results = run(scenario, jobs=1, allow_plugins=True)
        assert results.policies == ["own"]
        functions = find_names(scenario, allow_plugins=True)
        policy = ready_policy(0, scenario, Trace.read(trace_file), functions)
        return Own(scenario, simulate(scenario, policy, 0, functions=functions))

    return played


def test_a_window_commits_the_accepted_run_and_one_token_more(play: Any) -> None:
    """4 drafts a visit, fewer where they end the answer; then a refused one's replacement, or the LLM's own token."""
    own = play("windowed", WINDOWS, "channel.kind=constant")
    requests = own.records.requests.query("finished").set_index(["device", "request"])
    rounds = own.records.rounds.set_index(["device", "request"]).loc[requests.index]
    left = requests["tokens"].reindex(rounds.index) - rounds["first_position"]
    refused = rounds["accepted"] < rounds["drafted"]
    assert (rounds["drafted"] <= 4).all()
    assert (rounds["drafted"] == 4)[~refused & (left > 4)].all()
    assert (rounds["committed"] == rounds["accepted"] + (refused | (left > rounds["accepted"]))).all()
    assert rounds.groupby(level=[0, 1])["committed"].sum().equals(requests["tokens"])
    assert 0.2 < refused.mean() < 0.8


def test_the_tokens_of_a_window_come_together_and_its_first_has_the_legs(play: Any) -> None:
    tokens = play("windowed_too", WINDOWS).records.tokens
    done = tokens[tokens["committed_s"].notna()]
    together = done.groupby(["device", "request", "round"])
    assert (together["committed_s"].nunique() == 1).all()
    assert (together.size() > 1).any()
    followers = done[together.cumcount() > 0]
    assert (followers[list(LEGS)] == 0).all(axis=None)
    assert set(followers["outcome"]) <= {"accepted", "resampled", "generated"}
    np.testing.assert_allclose(done[list(LEGS)].sum(axis=1), done["committed_s"] - done["started_s"], atol=1e-9)


def test_a_top_k_message_weighs_k_entries_and_the_ids_that_ride_along(play: Any) -> None:
    rounds = play("compressed", TOP_K).records.rounds
    later = rounds[(rounds["round"] > 0) & (rounds["decision"] == "send")]
    assert set(later["payload_bits"]) == {30 * 23}


def test_a_scheme_that_looks_at_the_uplink_keeps_drafts_only_while_others_send(play: Any) -> None:
    """Alone in its cell a phone never sees another's upload; where many share a narrow band it often does."""
    narrow = "uplink.bandwidth_hz=1e5"
    alone = play("loaded", LOADED, "traffic.devices=1", narrow).records
    crowd = play("loaded_too", LOADED, "traffic.devices=8", narrow).records
    assert set(alone.rounds["decision"].dropna()) == {"send"}
    kept = crowd.tokens[crowd.tokens["decision"] == "skip"]
    assert len(kept) > 10
    assert (kept["uncertainty"] <= 0.5).all()


def test_the_ways_to_say_hlm_give_the_same_bytes(tmp_path: Path, scenario_file: Path) -> None:
    """One draft without bonus token, and all V entries with free indices, judged or drawn from, are HLM."""
    ways = {
        "a": "",
        "b": ", draft_tokens=1, bonus_token=false",
        "c": ', payload={kind="top-k", k=9999999, bits_per_index=0}',
    }
    ways |= {"d": ', payload={kind="truncated", k=9999999}'}
    policies = [f'{{kind="hlm", name="{name}"{keys}}}' for name, keys in ways.items()]
    run(read_scenario(scenario_file, [f"policy=[{', '.join(policies)}]"]), out=tmp_path / "out", jobs=1)
    rows = (tmp_path / "out" / "summary.csv").read_text(encoding="utf-8").splitlines()
    plain, *others = ([row[1:] for row in rows if row.startswith(f"{name},")] for name in ways)
    assert len(plain) > 100
    for other in others:
        assert other[: len(plain)] == plain  # after that its ratios to the first


def test_entries_by_token_need_distributions_and_uploads_of_one_weight_need_a_number(tmp_path: Path) -> None:
    by_token = {"kind": "hlm", "payload": {"kind": "top-k", "most_loss": 0.3}}
    synthetic = {"kind": "synthetic", "a": 0.8, "b": -0.1, "skip_rates": [{"threshold": 0.4, "rate": 0.5}]}
    without = Trace.read(write_trace(tmp_path / "without.parquet", tail_ladder=()))
    for tokens in (synthetic, {"path": without.file}):
        scenario = cell(tokens=tokens, policy=[by_token])
        with pytest.raises(ScenarioError, match=r"policy.0: payload.most_loss needs .* give payload.k in its place"):
            ready_policy(0, scenario, find_tokens(scenario.tokens), find_names(scenario))
    trace = read_trace(tmp_path)
    scenario = cell(tokens={"path": trace.file}, policy=[{**by_token, "draft_tokens": "best"}])
    with pytest.raises(ScenarioError, match=r"policy.0.draft_tokens = 'best': takes uploads of equal weight"):
        ready_policy(0, scenario, trace, find_names(scenario))


LEFT_OF_X = [{"kind": "quantised", "levels": 8}, {"kind": "truncated", "k": 3}, {"kind": "top-k", "k": 3}]


@pytest.mark.parametrize("payload", LEFT_OF_X, ids=lambda payload: payload["kind"])
def test_who_uploads_nothing_is_exact_whatever_an_upload_would_carry(tmp_path: Path, payload: dict[str, Any]) -> None:
    trace = read_trace(tmp_path)
    scenario = cell(tokens={"path": trace.file}, uplink={"payload": payload}, policy=[{"kind": "slm"}, {"kind": "llm"}])
    functions = find_names(scenario)
    assert all(ready_policy(number, scenario, trace, functions).exact for number in range(2))


def test_a_scheme_of_ones_own_walks_what_was_recorded_under_its_payload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_gate.py").write_text(
        "import numpy as np\ndef gate(nodes):\n    return np.zeros(len(nodes), dtype=bool)\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(tmp_path)
    trace = read_trace(tmp_path, rules=(*RULES, DecodingRule("hlm", payload="quantised-8")))
    own = {"kind": "own_gate:gate", "payload": {"kind": "quantised", "levels": 8}}
    scenario = cell(tokens={"path": trace.file}, policy=[own])
    assert ready_policy(0, scenario, trace, find_names(scenario, allow_plugins=True)).exact
    assert rule_request(scenario.policy[0], scenario) == RuleRequest("hlm", payload="quantised-8")


@pytest.mark.parametrize("other", [{"threshold": 0.43}, {"threshold": {"risk": 0.3}}, {"threshold": "risk-prone"}])
@pytest.mark.parametrize("payload", [None, {"kind": "quantised", "levels": 8}])
def test_a_recording_holds_what_a_run_asks_for(tmp_path: Path, other: dict[str, Any], payload: Any) -> None:
    """Of a rate that is matched, too: rule and payload of the other policy, or HLM's tree where only the run knows."""
    policies = [{"kind": "u-hlm", "payload": payload, **other}, {"kind": "rand-hlm", "skip_rate": "matched"}]
    trace = read_trace(tmp_path)
    scenario = cell(tokens={"path": trace.file}, policy=policies)
    policy = ready_policy(1, scenario, trace, find_names(scenario))
    request = rule_request(scenario.policy[1], scenario)
    if isinstance(other["threshold"], dict):
        assert request == RuleRequest("hlm")
    else:
        assert resolve_rule(request, trace.law(), trace.skip_rate).skip_rate == policy.skip_rate


def test_windows_of_a_lossy_payload_have_a_bonus_token_of_the_llms_law(tmp_path: Path) -> None:
    """It is what HLM commits there, not a verdict on a draft that nobody sent."""
    trace = read_trace(tmp_path, rules=(*RULES, DecodingRule("hlm", payload="top-4")))
    full, cut = trace.trees[""][0, 0].nodes, trace.trees["top-4"][0, 0].nodes
    known = cut.bonus != NO_TOKEN
    assert known.sum() > 50
    np.testing.assert_array_equal(cut.bonus[known], full.verdict[known])


def test_a_token_of_the_llm_that_was_never_recorded_is_not_exact(tmp_path: Path) -> None:
    trace = read_trace(tmp_path)

    def drafts_first(walk: Any) -> Any:
        yield walk.keep(2)
        while walk.left:
            yield walk.generate()

    for tree in trace.trees[""].values():
        walk = Planner("own", Scheme(rounds=drafts_first), COSTS).walk(tree)
        Planner("own", Scheme(rounds=drafts_first), COSTS).plan(walk)
        exact = walk.position if walk.exact_tokens is None else walk.exact_tokens
        assert (tree.nodes.by_llm[walk.visited[2:exact]] != NO_TOKEN).all()


def test_the_distribution_that_comes_down_is_billed_as_the_policys_own(tmp_path: Path) -> None:
    trace = read_trace(tmp_path)
    payload = {"kind": "ids", "bits_per_probability": 16}
    scenario = cell(tokens={"path": trace.file}, policy=[{"kind": "hlm", "payload": payload}])
    message = ready_policy(0, scenario, trace, find_names(scenario)).scheme.message
    assert message(trace.trees[""][0, 0].nodes, 1.0).refusal_bits == 16 * trace.header.vocabulary_size


def test_a_matched_share_is_that_of_the_other_policys_own_payload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounded = DecodingRule("u-hlm", threshold=0.43, payload="quantised-8")
    trace = read_trace(tmp_path, rules=(*RULES, DecodingRule("hlm", payload="quantised-8"), rounded))
    monkeypatch.setattr(Trace, "skip_rate", lambda _, rule: 0.25 if rule == rounded else 0.5)
    other = {"kind": "u-hlm", "threshold": 0.43, "payload": {"kind": "quantised", "levels": 8}}
    scenario = cell(tokens={"path": trace.file}, policy=[other, {"kind": "rand-hlm", "skip_rate": "matched"}])
    assert ready_policy(1, scenario, trace, find_names(scenario)).skip_rate == 0.25


def test_entries_by_token_take_u_and_never_more_bits_than_a_whole_distribution(tmp_path: Path) -> None:
    """On a recorded trace whose V is small: k entries with their ids could weigh more than V without."""
    trace = read_trace(tmp_path)
    payload = {"kind": "top-k", "most_loss": 0.3}
    scenario = cell(tokens={"path": trace.file}, policy=[{"kind": "hlm", "payload": payload}])
    policy = ready_policy(0, scenario, trace, find_names(scenario))
    assert policy.scheme.measures_uncertainty
    bits = policy.scheme.message(trace.trees[""][0, 0].nodes, 0.0).draft_bits
    assert bits.max() <= 8 * trace.header.vocabulary_size
    assert bits.min() < bits.max()
