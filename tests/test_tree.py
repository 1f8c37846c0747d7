"""The tree of recorded passes: walks replay what was recorded, and say where they leave it."""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from traces import RULES, read_trace
from worlds import MadeUpSource

from uhlm_sim.cell.phones.policies import POLICIES
from uhlm_sim.cell.phones.rounds import WHOLE, Costs, Walk, generated
from uhlm_sim.cell.phones.schemes import Planner, Scheme
from uhlm_sim.cell.phones.windows import Learner, windowed
from uhlm_sim.settings.policy import Payload
from uhlm_sim.tables import QUALITY
from uhlm_sim.tokens.decoding import truncate
from uhlm_sim.tokens.decoding_rule import DecodingRule, at_period
from uhlm_sim.tokens.messages import message_of, top_k_by_token, upload_bits
from uhlm_sim.tokens.speculative import (
    LinearLaw,
    inverse_cdf,
    keep_largest,
    residual,
    round_to_lattice,
    rounded_up,
    tail_masses,
)
from uhlm_sim.tokens.trace import Trace

COSTS = Costs(WHOLE, 0.05, 0.001, 0.0, 800.0, 10, piggyback=True)
SCHEME = {
    "hlm": {},
    "slm": {},
    "llm": {},
    "u-hlm": {"threshold": 0.43, "gate": "uncertainty"},
    "rand-hlm": {"skip_rate": 0.3},
    "periodic-hlm": {"skip_rate": 0.3},
}


def walked(tree: Any, scheme: Scheme) -> Walk:
    planner = Planner("any", scheme, COSTS)
    walk = planner.walk(tree)
    planner.plan(walk)
    return walk


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    return read_trace(tmp_path_factory.mktemp("tree"))


@pytest.mark.parametrize("kind", SCHEME)
def test_a_walk_is_the_recorded_answer_of_its_rule_token_by_token(trace: Trace, kind: str) -> None:
    scheme = POLICIES[kind](**SCHEME[kind])
    entry = next(entry for entry in trace.header.paths if entry.kind == kind)
    for (prompt, sample), tree in trace.trees[""].items():
        walk, answer = walked(tree, scheme), trace.answer(entry.name, prompt, sample)
        assert walk.exact_tokens is None
        nodes = np.array(walk.visited)
        np.testing.assert_array_equal(tree.nodes.position[nodes], np.arange(len(answer)))
        token = tree.nodes.by_llm if scheme.rounds is generated else tree.nodes.verdict
        kept = scheme.gate(tree.nodes)[nodes]
        committed = np.where(kept, tree.nodes.draft[nodes], token[nodes])
        np.testing.assert_array_equal(committed, answer.committed)
        assert walk.quality == pytest.approx([getattr(answer, name) for name in QUALITY], nan_ok=True)


def test_a_walk_that_leaves_the_tree_goes_on_from_hlms_prefix_and_says_where(trace: Trace) -> None:
    """At rates that were never recorded some answers part from all that were."""
    schemes = [POLICIES["rand-hlm"](skip_rate=rate) for rate in (0.1, 0.5, 0.8)]
    lengths = []
    for tree, scheme in product(trace.trees[""].values(), schemes):
        walk = walked(tree, scheme)
        if walk.exact_tokens is None:
            continue
        lengths.append(walk.exact_tokens)
        left_at = walk.exact_tokens  # at an unknown prefix, or at a known one with an unknown verdict
        lost = left_at if walk.visited[left_at] == tree.hlm[left_at] else left_at + 1
        assert lost == left_at or not tree.nodes.judged[walk.visited[left_at]]
        assert walk.visited[lost : lost + 1] == tree.hlm[lost : lost + 1].tolist()
        assert np.isnan(walk.quality).all()
    assert len(lengths) > 3
    assert min(lengths) > 0


def test_a_kept_draft_is_exact_only_where_its_payload_drew_it(tmp_path: Path) -> None:
    """A rounded distribution has drafts of its own: those of x stand for them, and no more."""
    payload = "quantised-8"
    recorded = DecodingRule("hlm", payload=payload)
    trace = read_trace(tmp_path, rules=(*RULES, recorded))
    message = message_of(Payload(kind="quantised", levels=8), trace.header.vocabulary_size, bill="paper")
    scheme = replace(POLICIES["rand-hlm"](skip_rate=0.5), message=message)
    cut = 0
    for (prompt, sample), tree in trace.trees[payload].items():
        walk = walked(tree, scheme)
        own = walked(tree, Scheme(message=message))
        assert own.exact_tokens is None
        assert own.position == len(trace.answer(str(recorded), prompt, sample))
        here = tree.nodes.drawn[walk.visited]
        np.testing.assert_array_equal(here, np.isin(walk.visited, own.visited))
        kept = scheme.gate(tree.nodes)[walk.visited]
        exact = walk.position if walk.exact_tokens is None else walk.exact_tokens
        assert here[:exact].all()
        assert exact == walk.position or not here[exact] or not kept[exact] or walk.visited[exact] == tree.hlm[exact]
        cut += exact < walk.position
        assert np.isnan(walk.quality).all() == (exact < walk.position)
    assert cut > 3, "a kept draft that HLM would have replaced leads away"


@pytest.mark.parametrize("drafts", [1, 2, 4, 12])
def test_a_window_of_any_length_with_its_bonus_commits_the_text_of_hlm(trace: Trace, drafts: int) -> None:
    """All drafts accepted, the next token is the LLM's own: what HLM commits there, whatever its own draft was."""
    for tree in trace.trees[""].values():
        plain = walked(tree, Scheme())
        window = walked(tree, Scheme(rounds=lambda walk: windowed(walk, drafts=drafts, bonus=True)))
        assert window.visited == plain.visited
        assert window.exact_tokens is None


def test_windows_of_independent_drafts_commit_what_theory_says() -> None:
    """E[committed] = (1 - a^(g+1)) / (1 - a) for a window of g drafts, each accepted with probability a."""
    rng = np.random.default_rng(5)
    source = MadeUpSource(tokens=20_000, prompts=1)
    tree = source.tree(0, 0)
    for drafts, acceptance in ((1, 0.6), (4, 0.6), (8, 0.8)):
        planner = Planner("any", Scheme(), COSTS)
        walk = planner.walk(tree)
        walk._choices.accepted[:] = (rng.random(20_000) < acceptance).tolist()
        sizes = np.array([visit.committed for visit in windowed(walk, drafts=drafts, bonus=True)][:-1])
        theory = (1 - acceptance ** (drafts + 1)) / (1 - acceptance)
        assert abs(sizes.mean() - theory) < 4 * sizes.std() / np.sqrt(len(sizes))


def test_the_learner_finds_the_window_that_costs_least_a_token() -> None:
    """UCB-SpecStop's simulation, arXiv 2606.20591: a = 0.7, a draft 1, a verification 0.5, delay 10 each way: g = 5."""
    acceptance, draft_s, verify_s, delay_s = 0.7, 1.0, 0.5, 10.0
    rng, learner, chosen = np.random.default_rng(3), Learner(10), []
    for _ in range(6000):
        drafts = learner.choose()
        accepted = int((rng.random(drafts) < acceptance).cumprod().sum())
        learner.see(drafts, drafts * (draft_s + verify_s) + 2 * delay_s + verify_s, min(accepted + 1, drafts))
        chosen.append(drafts)
    share = np.bincount(chosen[3000:], minlength=11) / 3000
    assert share[4:8].sum() > 0.6
    assert share[1:3].sum() < 0.1


def test_uploads_are_billed_by_what_they_carry() -> None:
    assert upload_bits(Payload(kind="ids"), 32_000, bill="paper") == 15 + 8
    assert upload_bits(Payload(), 32_000, bill="all") == 32_000 * 8 + 15


def law_of_committed(sent: np.ndarray, drawn_from: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the law of what is committed, by enumeration: drafts from one law, judged by what was sent of it."""
    accept = np.minimum(1.0, np.divide(y, sent, out=np.ones_like(y), where=sent > 0))
    refused = float((drawn_from * (1 - accept)).sum())
    return drawn_from * accept + refused * residual(sent, y)


def test_a_quantised_upload_keeps_the_llms_law_and_a_top_k_one_does_not() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        x, y = rng.dirichlet(np.full(8, 0.5), 2)
        rounded, largest = round_to_lattice(x, 12), keep_largest(x, 3)
        assert rounded.sum() == pytest.approx(1)
        assert np.abs(rounded - x).max() <= 1.5 / 12
        assert law_of_committed(rounded, rounded, y) == pytest.approx(y)
        cut = truncate(x, 3, None)
        assert (cut > 0).sum() == 3
        assert law_of_committed(cut, cut, y) == pytest.approx(y)
        assert law_of_committed(keep_largest(x, 8), x, y) == pytest.approx(y)
        assert largest.sum() == pytest.approx(1)
        # The law moves by no more than what is sent moves.
        moved = np.abs(law_of_committed(largest, x, y) - y).sum() / 2
        assert moved <= np.abs(largest - x).sum() / 2 + 1e-12


def test_the_fewest_entries_that_lose_little_lose_no_more_than_they_may() -> None:
    """CU-HLM's bound on the loss of k entries, computed in full beside its stand-in of twice the mass outside."""
    rng, ladder, law, most = np.random.default_rng(3), (3, 10), LinearLaw(0.8, -0.1, 0.3), 0.5
    x = rng.dirichlet(np.full(40, 0.1), 300).astype(np.float64)
    draft = inverse_cdf(x, rng.random(300))
    x_draft, u = x[np.arange(300), draft], rng.random(300)
    made_up = MadeUpSource(tokens=300, vocabulary_size=40).tree(0, 0).nodes
    nodes = replace(
        made_up, x_draft=x_draft, y_draft=x_draft, uncertainty=u, tail_ladder=ladder, tail_mass=tail_masses(x, ladder)
    )
    message = top_k_by_token(nodes, 0.0, whole_bits=40.0 * 8, entry_bits=14, extra_bits=0, most_loss=most, law=law)
    assert set(message.draft_bits) == {3.0 * 14, 10.0 * 14, 40.0 * 8}, "all three are used here"
    softplus = np.log1p(np.exp([np.full(300, -1.0), -np.clip(0.8 * u - 0.1, 0, 1)]))
    weight = (1 - x_draft) * softplus[0] + x_draft * softplus[1]
    for k, bits in ((3, 42.0), (10, 140.0)):
        loss = np.abs(keep_largest(x, k) - x).sum(axis=1) / weight
        assert (loss[message.draft_bits == bits] <= most).all()
        assert (loss[message.draft_bits > bits] > most / 2).all(), (
            "the mass outside is at most the loss, so twice of it at most twice"
        )


def test_evenly_spaced_drafts_are_the_share_that_was_asked_for() -> None:
    position, phases = np.arange(1000), (np.arange(500) + 0.5) / 500
    for rate in (0.0, 0.1, 1 / 3, 0.5, 0.77, 1.0):
        kept = at_period(position, rate, 0.4)
        assert kept.sum() == pytest.approx(1000 * rate, abs=1)
        assert not kept.any() or np.ptp(np.diff(np.flatnonzero(kept))) <= 1, "never two spaces that differ by two"
        at_first = [at_period(np.arange(3), rate, phase) for phase in phases]
        np.testing.assert_allclose(np.mean(at_first, axis=0), rate, atol=1 / 500, err_msg="short answers keep it, too")


def test_a_token_that_the_phone_drew_is_told_with_its_next_upload() -> None:
    """The LLM knows what it commits itself: only with ids, after a refusal, the phone has to tell 10 bits more."""
    source = MadeUpSource(tokens=40, vocabulary_size=1000)
    sent = {kind: message_of(Payload(kind=kind), 1000, bill="paper") for kind in ("full", "ids")}
    extra = []
    for message in sent.values():
        rounds = Planner("any", Scheme(message=message), COSTS).plan(
            Planner("any", Scheme(message=message), COSTS).walk(source.tree(0, 0))
        )
        bits = np.array([visit.payload_bits for visit in rounds])[1:]
        extra.append(bits - bits.min())
    refused = ~source.tree(0, 0).nodes.accepted[:-1]
    assert 5 < refused.sum() < 35
    np.testing.assert_array_equal(extra[0], 0)
    np.testing.assert_array_equal(extra[1], 10.0 * refused)


def test_a_tail_is_rounded_up_to_a_few_bits() -> None:
    tails = np.random.default_rng(4).random(1000).astype(np.float32) ** 8
    rounded = rounded_up(tails, 5)
    assert (rounded >= tails).all()
    assert (rounded <= tails * (1 + 1 / 16) + 2.0**-16).all()
    np.testing.assert_array_equal(rounded.astype(np.float16), rounded)
    np.testing.assert_array_equal(rounded_up(rounded, 5), rounded)
    assert rounded_up(np.zeros(1), 5) == 0


def test_a_fine_lattice_draws_the_same_drafts() -> None:
    rng = np.random.default_rng(2)
    x, uniforms = rng.dirichlet(np.ones(50), 200), rng.random(200)
    same = inverse_cdf(round_to_lattice(x, 10**7), uniforms) == inverse_cdf(x, uniforms)
    assert same.mean() > 0.99


def test_of_equal_answers_what_one_knows_of_its_quality_is_known_of_all(tmp_path: Path) -> None:
    """A path that was added later, its programs never run, takes nothing away from those that were."""
    read = read_trace(tmp_path)
    columns = dict(read.columns)
    known = np.where(columns["path"] == 0, np.float32(1), np.float32(np.nan))
    columns["task_passed"] = np.where(columns["prompt"] < read.prompts, known, np.float32(np.nan))
    trace = Trace(read.header, columns, read.digest)
    for tree in trace.trees[""].values():
        assert walked(tree, Scheme()).quality[QUALITY.index("task_passed")] == 1
