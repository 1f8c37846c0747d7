"""What each payload makes of a token, by the decoder itself: its law is that of enumeration; lossless ones keep y."""

import numpy as np
import pytest
from scipy import stats

from uhlm_sim.tokens.decoding import DecodingSettings, token_facts, truncate
from uhlm_sim.tokens.speculative import keep_largest, residual, round_to_lattice, softmax

TOKENS, V = 40_000, 8
LOGITS = np.random.default_rng(5).normal(0, 1.5, (2, V)).astype(np.float32)
X, Y = (softmax(row.astype(np.float64)[None])[0] for row in LOGITS)


def committed(sent: np.ndarray, drawn_from: np.ndarray, replaced_from: np.ndarray | None = None) -> np.ndarray:
    """Return the law of what is committed: drafts from one law, judged by what was sent of it."""
    accept = np.minimum(1.0, np.divide(Y, sent, out=np.ones(V), where=sent > 0))
    refused = float((drawn_from * (1 - accept)).sum())
    return drawn_from * accept + refused * (residual(sent, Y) if replaced_from is None else replaced_from)


TOP, CUT, ROUNDED = keep_largest(X[None], 3)[0], truncate(X[None], 3, None)[0], round_to_lattice(X[None], 12)[0]
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
