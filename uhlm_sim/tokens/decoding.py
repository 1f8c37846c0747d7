"""One decoder for all rules: answers grow side by side, and rules that still agree on an answer share its passes.

A branch is one committed prefix of one answer, with every rule that has decoded exactly this so far. All
draws are keyed by prompt, sample and position (`draws.py`), so rules of one answer stay on one branch until
the first token on which they differ; then the branch is split, its cache with it. What a branch costs is paid
once, whatever the number of rules on it.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uhlm_sim.tokens.decoding_rule import DecodingRule
from uhlm_sim.tokens.draws import answer_draws
from uhlm_sim.tokens.model_checks import check_finite
from uhlm_sim.tokens.model_pair import LanguageModel, ModelPair
from uhlm_sim.tokens.prefixes import CommittedPrefixes
from uhlm_sim.tokens.speculative import (
    Floats,
    ThetaLaw,
    accept_or_resample,
    draw_thetas,
    entropy,
    grid_level,
    inverse_cdf,
    softmax,
    tail_masses,
    uncertainty_level,
)
from uhlm_sim.tokens.trace_file import UNKNOWN_LEVEL, Columns

BLOCK_ROWS = 16  # rows of logits that one thread works on: a few megabytes, so that they stay in its cache

Table = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class DecodingSettings:
    """How tokens are drawn: the same for all rules.

    ``temperature``, then ``top_k``, then ``top_p`` shape both models' distributions; temperature 0 is greedy.
    """

    seed: int
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    uncertainty_samples: int = 20
    theta_law: ThetaLaw = "uniform"
    max_tokens: int = 128
    tail_ladder: tuple[int, ...] = ()


@dataclass(frozen=True)
class Answer:
    """One answer to be decoded: prompt number and id, sample, and the prompt's tokens."""

    prompt: int
    prompt_id: str
    sample: int
    tokens: Sequence[int]


def decode(
    pair: ModelPair,
    answers: Sequence[Answer],
    rules: Sequence[DecodingRule],
    settings: DecodingSettings,
    on_step: Callable[[int], None] = lambda _: None,
) -> Columns:
    """Decode every answer under every rule and return a trace's columns, ``path`` being the index of the rule.

    One forward pass of each model a token and branch. Law of a committed token: of x for slm and where a rule
    skips, of y for llm, and accept-or-resample (y again) where the draft is sent. ``on_step`` is told, after
    each token, how many (answer, rule) pairs have not ended.
    """
    draws = [
        answer_draws(settings.seed, a.prompt_id, a.sample, settings.max_tokens, settings.uncertainty_samples)
        for a in answers
    ]
    per_token: Table = {
        name: np.stack([getattr(one, name) for one in draws])
        for name in ("draft", "coin", "resample", "skip", "direct", "theta", "differ")
    }
    # A path is (answer, rule); `branch` says on which row of the batch it is.
    path_answer = np.repeat(np.arange(len(answers)), len(rules))
    path_rule = np.tile(np.arange(len(rules)), len(answers))
    branch = path_answer.copy()
    branch_answer = np.arange(len(answers))
    is_llm = np.array([rule.kind == "llm" for rule in rules])
    end_tokens = np.array(sorted(pair.end_tokens), dtype=np.int64)
    small = CommittedPrefixes(pair.slm, [a.tokens for a in answers], pair.vocabulary_size)
    large = CommittedPrefixes(pair.llm, [a.tokens for a in answers], pair.vocabulary_size)
    pieces: list[Columns] = []
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:
        for position in range(settings.max_tokens):
            x_logits, y_logits = (
                _with_tokens(model, read.logits, pair.no_token, answers, branch_answer, position)
                for model, read in ((pair.slm, small), (pair.llm, large))
            )
            here = {name: values[branch_answer, position] for name, values in per_token.items()}
            facts = _facts(pool, x_logits, y_logits, here, settings)
            skips = _skips(rules, path_rule, facts["level"][branch], here["skip"][branch], settings)
            llm = is_llm[path_rule]
            kept = np.where(skips, facts["draft"][branch], facts["verified"][branch])
            committed = np.where(llm, facts["direct"][branch], kept)
            ends = np.isin(committed, end_tokens)
            pieces.append(_rows(answers, path_answer, path_rule, position, committed, ends, skips, llm, facts, branch))
            going = ~ends
            on_step(int(going.sum()))
            if not going.any() or position + 1 == settings.max_tokens:
                break
            path_answer, path_rule = path_answer[going], path_rule[going]
            # Rules on one branch that committed one token share its successor.
            keys, branch = np.unique(branch[going] * pair.vocabulary_size + committed[going], return_inverse=True)
            parents, tokens = np.divmod(keys, pair.vocabulary_size)
            branch_answer = branch_answer[parents]
            small.commit(parents, tokens)
            large.commit(parents, tokens)
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def _with_tokens(
    model: LanguageModel,
    logits: NDArray[np.float32],
    no_token: NDArray[np.int64],
    answers: Sequence[Answer],
    branch_answer: NDArray[np.int64],
    position: int,
) -> NDArray[np.float32]:
    """Return finite logits with those of ids that no token has at minus infinity, which makes their probability 0."""
    check_finite(model, logits, [answers[i].prompt_id for i in branch_answer], position)
    logits[:, no_token] = -np.inf
    return logits


def _skips(
    rules: Sequence[DecodingRule],
    path_rule: NDArray[np.int64],
    level: NDArray[np.integer],
    coin: NDArray[np.float64],
    settings: DecodingSettings,
) -> NDArray[np.bool_]:
    """Return each path's own decision. Every rule is a level and a rate: skip if K u <= level or coin < rate."""
    levels = {"slm": settings.uncertainty_samples}
    highest = [
        grid_level(rule.threshold, settings.uncertainty_samples)
        if rule.threshold is not None
        else levels.get(rule.kind, -1)
        for rule in rules
    ]
    rates = [rule.skip_rate or 0.0 for rule in rules]
    return np.asarray((level <= np.array(highest)[path_rule]) | (coin < np.array(rates)[path_rule]))


def _facts(
    pool: ThreadPoolExecutor,
    x_logits: NDArray[np.float32],
    y_logits: NDArray[np.float32],
    draws: Table,
    settings: DecodingSettings,
) -> Table:
    """Return what is true of the next token of each branch, whatever its rules: block by block, on all cores."""
    blocks = [slice(start, start + BLOCK_ROWS) for start in range(0, len(x_logits), BLOCK_ROWS)]

    def one(rows: slice) -> Table:
        mine = {name: values[rows] for name, values in draws.items()}
        return token_facts(x_logits[rows], y_logits[rows], mine, settings)

    parts = list(pool.map(one, blocks))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def token_facts(
    x_logits: NDArray[np.float32], y_logits: NDArray[np.float32], draws: Table, settings: DecodingSettings
) -> Table:
    """Return the draft, its uncertainty and probabilities, and what the LLM would commit, for each row of logits.

    ``draws`` are one position's uniforms of `AnswerDraws` for each row. ``verified`` is the draft or its
    replacement, ``direct`` the LLM's own draw.
    """
    x, y = (
        truncate(softmax(logits, settings.temperature), settings.top_k, settings.top_p)
        for logits in (x_logits, y_logits)
    )
    draft = inverse_cdf(x, draws["draft"])
    thetas = draw_thetas(settings.theta_law, draws["theta"])
    verified, _ = accept_or_resample(x, y, draft, draws["coin"], draws["resample"])
    tails = tail_masses(x, settings.tail_ladder) if settings.tail_ladder else np.empty((len(x), 0))
    return {
        "draft": draft,
        "level": uncertainty_level(x_logits, draft, thetas, draws["differ"]),
        "x_draft": np.take_along_axis(x, draft[:, None], axis=1)[:, 0],
        "y_draft": np.take_along_axis(y, draft[:, None], axis=1)[:, 0],
        "accept_coin": draws["coin"].astype(np.float32),
        "verified": verified,
        "direct": inverse_cdf(y, draws["direct"]),
        "entropy": entropy(x),
        "top1_probability": x.max(axis=1),
        **{f"tail_{k}": tails[:, i] for i, k in enumerate(settings.tail_ladder)},
    }


def truncate(x: Floats, top_k: int | None, top_p: float | None) -> Floats:
    """Return distributions (..., V) cut to their top k tokens, then to their nucleus, at sum 1 again; None cuts none.

    The nucleus is the fewest of the most probable tokens whose mass is at least ``top_p`` (Holtzman et al., arXiv
    1904.09751). Tokens as probable as the least one that stays do stay.
    """
    size = x.shape[-1]
    for cut in ("top_k", "top_p"):
        if cut == "top_k" and top_k is not None and top_k < size:
            least = np.partition(x, size - top_k, axis=-1)[..., size - top_k, None]
        elif cut == "top_p" and top_p is not None and top_p < 1:
            falling = -np.sort(-x, axis=-1)
            before = falling.cumsum(axis=-1, dtype=np.float64) - falling
            stays = (before < top_p).sum(axis=-1, keepdims=True)
            least = np.take_along_axis(falling, stays - 1, axis=-1)
        else:
            continue
        x = np.where(x >= least, x, 0)
        x = np.asarray(x / x.sum(axis=-1, keepdims=True))
    return x


def _rows(
    answers: Sequence[Answer],
    path_answer: NDArray[np.int64],
    path_rule: NDArray[np.int64],
    position: int,
    committed: NDArray[np.int64],
    ends: NDArray[np.bool_],
    skips: NDArray[np.bool_],
    llm: NDArray[np.bool_],
    facts: Table,
    branch: NDArray[np.int64],
) -> Columns:
    """Return one position's rows, one a path, in the columns of a trace."""
    rows = {name: facts[name][branch] for name in facts if name not in ("verified", "direct")}
    for name in rows:
        # The LLM alone drafts nothing: its rows repeat the committed token and know nothing of a draft.
        if name == "draft":
            rows[name] = np.where(llm, committed, rows[name])
        elif name == "level":
            rows[name] = np.where(llm, UNKNOWN_LEVEL, rows[name])
        else:
            rows[name] = np.where(llm, 0, rows[name])
    return rows | {
        "prompt": np.array([answers[a].prompt for a in path_answer]),
        "sample": np.array([answers[a].sample for a in path_answer]),
        "path": path_rule,
        "position": np.full(len(path_rule), position),
        "committed": committed,
        "skipped": skips & ~llm,
        "end": ends,
    }
