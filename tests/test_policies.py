"""Policies: which keys each kind takes, what code of the user's own may be, and what rounds an answer is made of."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from traces import as_version
from worlds import MadeUpSource, cell

from uhlm_sim.cell.engine import simulate
from uhlm_sim.cell.named import find_names
from uhlm_sim.cell.phones.policies import POLICIES, ReadyPolicy, Scheme, ready_policy
from uhlm_sim.cell.phones.rounds import Choices, Costs, Walk
from uhlm_sim.errors import ScenarioError, SimulationError, TraceError
from uhlm_sim.simulations import find_tokens
from uhlm_sim.tokens.decoding_rule import DecodingRule
from uhlm_sim.tokens.trace import Trace
from uhlm_sim.tokens.tree import Nodes

HLM = DecodingRule("hlm")
NUMBER = {"threshold": 0.43, "skip_rate": 0.3}
TAKES = {"u-hlm": "threshold", "rand-hlm": "skip_rate", "periodic-hlm": "skip_rate"}
COSTS = Costs(100, 0.05, 0.001, 0.0, 800.0, 10, piggyback=True)


def ready(trace_file: Any, policy: dict[str, object], **sections: Any) -> ReadyPolicy:
    scenario = cell(tokens={"path": str(trace_file)}, policy=[policy], **sections)
    return ready_policy(0, scenario, Trace.read(trace_file), find_names(scenario, allow_plugins=True))


@pytest.mark.parametrize("key", NUMBER)
@pytest.mark.parametrize("kind", POLICIES)
def test_a_kind_takes_the_keys_that_are_its_parameters_and_no_other(trace_file: Any, kind: str, key: str) -> None:
    own = {TAKES[kind]: NUMBER[TAKES[kind]]} if kind in TAKES else {}
    assert ready(trace_file, {"kind": kind, **own}).kind == kind
    if TAKES.get(kind) == key:
        with pytest.raises(ScenarioError, match=f"policy.0.kind = '{kind}': needs policy.{key}"):
            ready(trace_file, {"kind": kind})
    else:
        with pytest.raises(ScenarioError, match=rf"policy.0.{key}: belongs to .*, not to {kind}"):
            ready(trace_file, {"kind": kind, **own, key: NUMBER[key]})


def test_each_policy_is_judged_by_its_own_walks(trace_file: Any) -> None:
    """The trace has HLM's own answers on whole distributions, none on the two most probable tokens."""
    hlm = {"kind": "hlm"}
    cut = {"kind": "top-k", "k": 2}
    judged = [
        ready(trace_file, hlm).exact,
        ready(trace_file, hlm, uplink={"payload": cut}).exact,
        ready(trace_file, {**hlm, "payload": cut}).exact,
        ready(trace_file, hlm, channel={"mean_snr_db": 3.0}).exact,
    ]
    assert judged == [True, False, False, True]


def test_what_is_kept_takes_time() -> None:
    scenario = cell(
        device={"slm_token_s": 0.0, "slm_prefill_token_s": 0.0}, traffic={"think_time_s": 0.0, "max_tokens": 12}
    )
    scenario.check_tokens("hlm", always_asks=True)
    with pytest.raises(ValueError, match="slm: a token that is kept takes no time at all"):
        scenario.check_tokens("slm", always_asks=False)


def test_more_tokens_than_a_machine_holds_are_refused() -> None:
    with pytest.raises(ValueError, match=r"tokens of u-hlm: up to .* in one simulation; at most 1e\+08 fit"):
        cell(traffic={"devices": 100_000}, duration_s=1e4).check_tokens("u-hlm", always_asks=False)


def walk_of(accepted: list[bool]) -> Walk:
    tree = MadeUpSource(tokens=len(accepted), prompt_tokens=7).tree(0, 0)
    choices = Choices([False] * len(accepted), accepted, [800.0] * len(accepted))
    return Walk(tree, choose=lambda _: choices, costs=COSTS)


def test_a_window_commits_the_run_of_accepted_drafts_and_one_more_token() -> None:
    """Flags 1 1 0 1 | 1 1 1 1 + bonus | 1: a refusal after two, then all four and the LLM's own, then what is left."""
    walk = walk_of([True, True, False] + [True] * 4 + [False] + [True])
    rounds = [walk.send(4, bonus=True) for _ in range(3)]
    assert [(len(each.drafts_s), each.accepted, each.committed) for each in rounds] == [(4, 2, 3), (4, 4, 5), (1, 1, 1)]
    assert [each.last for each in rounds] == [False, False, True]


def test_the_llm_processes_what_it_has_not_seen_and_the_drafts() -> None:
    """The prompt's 7 and 4 drafts; then the replacement and 4 drafts; then the bonus token and the 2 that are left."""
    walk = walk_of([True, True, False] + [True] * 4 + [False] + [True] * 2)
    assert [walk.send(4, bonus=True).llm_tokens for _ in range(3)] == [7 + 4, 1 + 4, 1 + 2]
    one_by_one = walk_of([True] * 3)
    assert [one_by_one.send().llm_tokens for _ in range(3)] == [7, 1, 1]


def test_ids_that_the_base_station_does_not_know_ride_along() -> None:
    """The prompt's 7, then the 2 that were kept; each draft is a message of 800 bits, an id 10."""
    walk = walk_of([True] * 8)
    first = walk.send(2, bonus=True)
    walk.keep(2)
    assert (first.payload_bits, walk.send().payload_bits) == (2 * 800 + 7 * 10, 800 + 2 * 10)


def test_the_first_draft_waits_for_the_prompt() -> None:
    walk = walk_of([True] * 4)
    assert walk.keep(3).drafts_s == pytest.approx((0.05 + 7 * 0.001, 0.05, 0.05))
    assert walk.send().drafts_s == (0.05,)


def too_short(walk: Walk) -> Any:
    yield walk.keep(1)


def test_rounds_that_end_before_the_answer_are_refused() -> None:
    policy = ReadyPolicy("short", "own:short", MadeUpSource(), False, Scheme(rounds=too_short))
    with pytest.raises(SimulationError, match="policy short: its rounds end at token 1, before the answer does"):
        simulate(cell(), policy, 0)
    chosen = ReadyPolicy(
        "short",
        "own:short",
        MadeUpSource(),
        False,
        Scheme(rounds=lambda walk, _cell: too_short(walk), looks_at_cell=True),
    )
    with pytest.raises(SimulationError, match="rounds ended before its answer"):
        simulate(cell(), chosen, 0)


@pytest.mark.parametrize("name", ["uncertainty", "accept_coin", "x_draft", "after_draft", "verdict"])
def test_a_gate_cannot_change_what_other_policies_see(trace_file: Any, name: str) -> None:
    def rewrite(nodes: Nodes) -> Any:
        getattr(nodes, name)[:] = 0
        return nodes.accepted

    policy = ReadyPolicy("mine", "own:rewrite", Trace.read(trace_file).source(HLM), False, Scheme(gate=rewrite))
    with pytest.raises(ValueError, match="read-only"):
        simulate(cell(), policy, 0)


@pytest.mark.parametrize("key", ["threshold", "risk"])
def test_a_gate_of_which_the_tokens_know_nothing_is_refused(trace_file: Any, tmp_path: Path, key: str) -> None:
    """A threshold on NaN would keep no draft, in silence."""
    threshold = 0.3 if key == "threshold" else {"risk": 0.1}
    policy = {"kind": "u-hlm", "gate": "margin", "threshold": threshold}
    assert ready(trace_file, policy).gate == "margin"
    old = tmp_path / "old.parquet"
    shutil.copy(trace_file, old)
    with pytest.raises(TraceError, match=r"gate = 'margin' needs what some of its tokens lack"):
        ready(as_version(2, old), policy)
    synthetic = cell(tokens={"kind": "synthetic", "a": 0.8, "b": -0.1, "skip_rates": [{"threshold": 0.4, "rate": 0.5}]})
    tokens = find_tokens(synthetic.tokens)
    scenario = cell(tokens=synthetic.tokens.model_dump(exclude_unset=True), policy=[policy])
    with pytest.raises(ScenarioError, match=r"policy.gate = 'margin': synthetic tokens have no distribution"):
        ready_policy(0, scenario, tokens, find_names(scenario))


def test_what_is_no_scheme_is_refused(trace_file: Any) -> None:
    with pytest.raises(ScenarioError, match="must take a path, or return a Scheme"):
        ready(trace_file, {"kind": "uhlm_sim.names:load_presets"})
    with pytest.raises(ScenarioError, match=r"policy.0.params of uhlm_sim.tokens.gates:keep_all: .*no_such"):
        ready(trace_file, {"kind": "uhlm_sim.tokens.gates:keep_all", "params": {"no_such": 1.0}})
