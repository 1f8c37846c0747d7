"""What each payload makes of a token, by the decoder itself: its law is that of enumeration; lossless ones keep y."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from traces import RULES, read_trace

from uhlm_sim.settings.policy import Payload
from uhlm_sim.tokens.decoding import DecodingSettings, token_facts
from uhlm_sim.tokens.decoding_rule import SLM, DecodingRule
from uhlm_sim.tokens.messages import upload_bits
from uhlm_sim.tokens.payload_law import keeps_law
from uhlm_sim.tokens.quality import answer_quality
from uhlm_sim.tokens.speculative import keep_largest, only_largest, residual, round_to_lattice, softmax

TOKENS, V = 40_000, 8
LOGITS = np.random.default_rng(5).normal(0, 1.5, (2, V)).astype(np.float32)
X, Y = (softmax(row.astype(np.float64)[None])[0] for row in LOGITS)


def committed(sent: np.ndarray, drawn_from: np.ndarray, replaced_from: np.ndarray | None = None) -> np.ndarray:
    """Return the law of what is committed: drafts from one law, judged by what was sent of it."""
    accept = np.minimum(1.0, np.divide(Y, sent, out=np.ones(V), where=sent > 0))
    refused = float((drawn_from * (1 - accept)).sum())
    return drawn_from * accept + refused * (residual(sent, Y) if replaced_from is None else replaced_from)


TOP, CUT, ROUNDED = keep_largest(X[None], 3)[0], only_largest(X[None], 3)[0], round_to_lattice(X[None], 12)[0]
LAWS = {
    "": committed(X, X),
    "top-3": committed(TOP, X),
    "truncated-3": committed(CUT, CUT),
    "quantised-12": committed(ROUNDED, ROUNDED),
    "ids-own-token": committed(X, X, replaced_from=Y),
}
DISTANCE = {payload: float(np.abs(law - Y).sum() / 2) for payload, law in LAWS.items()}


def test_lossless_payloads_keep_the_llms_law_and_the_others_move_it_by_so_much() -> None:
    for payload in ("", "truncated-3", "quantised-12"):
        assert DISTANCE[payload] == pytest.approx(0, abs=1e-12)
    assert 0.001 < DISTANCE["top-3"] <= np.abs(TOP - X).sum() / 2
    # A replacement by y instead of the residual: sum over t of |min(x, y) + R y - y| / 2, R the share refused.
    refused = np.maximum(X - Y, 0).sum()
    assert DISTANCE["ids-own-token"] == pytest.approx(np.abs(np.minimum(X, Y) + refused * Y - Y).sum() / 2)
    assert DISTANCE["ids-own-token"] > 0.02


def test_of_equal_members_no_more_than_k_stay() -> None:
    equal = np.full((1, 6), 1 / 6)
    assert np.sort(only_largest(equal, 4)[0]).tolist() == [0, 0, 0.25, 0.25, 0.25, 0.25]
    np.testing.assert_array_equal(only_largest(X[None], V)[0], X)


@pytest.mark.parametrize("payload", ["", "ids-own-token", "top-3"])
def test_a_draft_of_x_is_judged_by_what_is_recorded_of_it_under_a_whole_distribution(payload: str) -> None:
    """Passes of another batch differ in the last digits, and the same draft must not."""
    draws = {name: np.full(1, 0.3) for name in ("draft", "coin", "resample", "direct")}
    draws |= {name: np.full((1, 2), 0.3) for name in ("theta", "differ")}
    settings = DecodingSettings(seed=1, uncertainty_samples=2)
    known = {" draft": np.array([2.0]), " x_draft": np.array([0.25]), " y_draft": np.array([0.125])}
    facts = token_facts(LOGITS[:1], LOGITS[1:], draws | known, [payload], settings)[payload]
    assert facts["draft"][0] == 2
    assert facts["y_draft"][0] == 0.125
    assert (facts["x_draft"][0] == 0.25) == (payload != "top-3"), "the k largest leave another x"


@pytest.mark.parametrize("word", ["", "top-4", "truncated-4", "quantised-9", "ids-own-token"])
def test_a_rule_that_keeps_all_is_slm_unless_drafts_are_drawn_from_its_payload(word: str) -> None:
    keeps_all = DecodingRule("u-hlm", threshold=1.0, payload=word)
    assert (keeps_all.same_as(20) == SLM.same_as(20)) == (word not in ("truncated-4", "quantised-9"))


@pytest.mark.parametrize("word", ["", "top-4", "truncated-4", "quantised-9", "ids-own-token", f"top-{V}"])
def test_a_law_is_kept_where_drafts_are_drawn_from_what_they_are_judged_by(word: str) -> None:
    assert keeps_law(word, V) == (word not in ("top-4", "ids-own-token"))


def test_the_error_of_answers_whose_uploads_lose_something_is_not_known(tmp_path: Path) -> None:
    lossy = [DecodingRule("hlm", payload=word) for word in ("top-4", "ids-own-token", "quantised-9")]
    table = answer_quality(read_trace(tmp_path, rules=(*RULES, *lossy))).set_index("path")["distribution_error"]
    assert table.isna().to_dict() == {name: name in ("hlm(top-4)", "hlm(ids-own-token)") for name in table.index}


@pytest.mark.parametrize(
    ("payload", "paper", "everything"),
    [
        ({"kind": "full"}, 8 * 1000, 8 * 1000 + 10),
        ({"kind": "top-k", "k": 30}, 30 * 18, 30 * 18 + 10),
        ({"kind": "top-k", "k": 30, "bits_per_index": 0}, 30 * 8, 30 * 8 + 10),
        ({"kind": "truncated", "k": 30}, 30 * 8, 30 * 18 + 10),
        ({"kind": "truncated", "k": 30, "bits_per_index": 0}, 30 * 8, 30 * 8 + 10),
        ({"kind": "truncated", "k": 2000}, 8 * 1000, 8 * 1000 + 10),
        ({"kind": "top-k", "k": 2000}, 18 * 1000, 18 * 1000 + 10),
    ],
)
def test_a_bill_counts_what_the_paper_counts_or_all_ids_that_are_not_given(
    payload: dict[str, Any], paper: int, everything: int
) -> None:
    sent = Payload(**payload)
    assert [upload_bits(sent, 1000, bill=bill) for bill in ("paper", "all")] == [paper, everything]


@pytest.mark.parametrize("payload", LAWS)
def test_the_decoder_commits_tokens_by_the_law_of_enumeration(payload: str) -> None:
    rng = np.random.default_rng(6)
    draws = {name: rng.random(TOKENS) for name in ("draft", "coin", "resample", "direct")}
    draws |= {name: rng.random((TOKENS, 2)) for name in ("theta", "differ")}
    x, y = (np.broadcast_to(row, (TOKENS, V)).copy() for row in LOGITS)
    facts = token_facts(x, y, draws, [payload], DecodingSettings(seed=1, uncertainty_samples=2))[payload]
    counts = np.bincount(facts["verified"], minlength=V)
    assert stats.chisquare(counts, TOKENS * LAWS[payload]).pvalue > 1e-3
    if DISTANCE[payload] > 0.02:
        assert stats.chisquare(counts, TOKENS * Y).pvalue < 1e-6, "enough tokens to tell the laws apart"
