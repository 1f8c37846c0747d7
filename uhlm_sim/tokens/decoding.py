"""One decoder for all rules: answers grow side by side, and rules that still agree on an answer share its passes.

A branch is one committed prefix of one answer, with every rule that has decoded exactly this so far. All
draws are keyed by prompt, sample and position (`draws.py`), so rules of one answer stay on one branch until
the first token on which they differ; then the branch is split, its cache with it. What a branch costs is paid
once, whatever the number of rules on it.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uhlm_sim.tokens.decoding_rule import DecodingRule
from uhlm_sim.tokens.draws import answer_draws
from uhlm_sim.tokens.model_checks import check_finite
from uhlm_sim.tokens.model_pair import LanguageModel, ModelPair
from uhlm_sim.tokens.payload_law import OWN_TOKEN, draws_anew, parts
from uhlm_sim.tokens.prefixes import CommittedPrefixes
from uhlm_sim.tokens.speculative import (
    Floats,
    ThetaLaw,
    accept_or_resample,
    accept_probability,
    draw_thetas,
    entropy,
    inverse_cdf,
    keep_largest,
    only_largest,
    probability_of,
    round_to_lattice,
    rounded_up,
    softmax,
    tail_masses,
    two_largest,
    uncertainty_level,
)
from uhlm_sim.tokens.trace_file import TAIL_BITS, UNKNOWN_LEVEL, Columns
from uhlm_sim.tokens.tree import NO_TOKEN, UNKNOWN, AnswerTree

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
    """One answer to be decoded: prompt number and id, sample, and the prompt's tokens.

    ``trees`` has by payload what is recorded already: what is decoded anew takes that over where it comes by.
    """

    prompt: int
    prompt_id: str
    sample: int
    tokens: Sequence[int]
    trees: Mapping[str, AnswerTree] = field(default_factory=dict)


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
    branch_node = np.array([answer.trees[""].root if answer.trees else UNKNOWN for answer in answers])
    is_llm = np.array([rule.kind == "llm" for rule in rules])
    payloads = list(dict.fromkeys(rule.payload for rule in rules))
    payload_of = np.array([payloads.index(rule.payload) for rule in rules])
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
            known = _known(answers, branch_answer, branch_node, ["", *payloads])
            of_payload = _facts(pool, x_logits, y_logits, here | known, payloads, settings)
            facts = {  # a row a path
                name: np.stack([of_payload[payload][name] for payload in payloads])[payload_of[path_rule], branch]
                for name in of_payload[payloads[0]]
            }
            skips = np.zeros(len(branch), dtype=np.bool_)
            for number, rule in enumerate(rules):
                paths = np.flatnonzero(path_rule == number)
                coin, phase = here["skip"][branch[paths]], per_token["skip"][path_answer[paths], 0]
                where = np.full(len(paths), position)
                skips[paths] = rule.skips(where, facts["level"][paths], coin, phase, settings.uncertainty_samples)
            llm = is_llm[path_rule]
            kept = np.where(skips, facts["draft"], facts["verified"])
            committed = np.where(llm, facts["direct"], kept)
            ends = np.isin(committed, end_tokens)
            pieces.append(_rows(answers, path_answer, path_rule, position, committed, ends, skips, llm, facts))
            going = ~ends
            on_step(int(going.sum()))
            if not going.any() or position + 1 == settings.max_tokens:
                break
            path_answer, path_rule = path_answer[going], path_rule[going]
            # Rules on one branch that committed one token share its successor.
            keys, branch = np.unique(branch[going] * pair.vocabulary_size + committed[going], return_inverse=True)
            parents, tokens = np.divmod(keys, pair.vocabulary_size)
            branch_node = np.array(
                [_child(answers[branch_answer[b]], branch_node[b], t) for b, t in zip(parents, tokens, strict=True)]
            )
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


def _child(answer: Answer, node: int, token: int) -> int:
    """Return the node after a token, UNKNOWN where no recorded answer went there."""
    if node < 0:
        return UNKNOWN
    for tree in answer.trees.values():
        nodes = tree.nodes
        for of, after in ((nodes.draft, nodes.after_draft), (nodes.verdict, nodes.after_verdict)):
            if of[node] == token and after[node] >= 0:
                return int(after[node])
    return UNKNOWN


def _known(
    answers: Sequence[Answer], branch_answer: NDArray[np.int64], branch_node: NDArray[np.int64], payloads: Sequence[str]
) -> Table:
    """Return what is recorded of the next token of each branch, by payload and fact: "top-30 draft"; NaN where unknown.

    Only what was recorded under the payload itself counts; the LLM's own token is under "".
    """
    names = ["draft", "verdict", "by_llm", "uncertainty", "x_draft", "y_draft", "entropy", "top1_probability"]
    names += ["second_probability"]
    known = {f"{payload} {name}": np.full(len(branch_node), np.nan) for payload in payloads for name in names}
    for payload in dict.fromkeys(payloads):
        tails: list[NDArray[np.floating]] = []
        for branch, (answer, node) in enumerate(zip(branch_answer.tolist(), branch_node.tolist(), strict=True)):
            tree = answers[answer].trees.get(payload)
            tail = np.empty(0)
            if tree is not None and node >= 0:
                is_recorded = tree.nodes.recorded[node]
                tail = tree.nodes.tail_mass[node] if is_recorded else tail
                for name in names if is_recorded else ["by_llm"]:
                    value = getattr(tree.nodes, name)[node]
                    known[f"{payload} {name}"][branch] = np.nan if value == NO_TOKEN else value
            tails.append(tail)
        width = max(map(len, tails), default=0)
        known[f"{payload} tails"] = np.array([tail if len(tail) else np.full(width, np.nan) for tail in tails])
    return known


def _facts(
    pool: ThreadPoolExecutor,
    x_logits: NDArray[np.float32],
    y_logits: NDArray[np.float32],
    draws: Table,
    payloads: Sequence[str],
    settings: DecodingSettings,
) -> dict[str, Table]:
    """Return what is true of the next token of each branch under each payload: block by block, on all cores."""
    blocks = [slice(start, start + BLOCK_ROWS) for start in range(0, len(x_logits), BLOCK_ROWS)]

    def one(rows: slice) -> dict[str, Table]:
        mine = {name: values[rows] for name, values in draws.items()}
        return token_facts(x_logits[rows], y_logits[rows], mine, payloads, settings)

    parts = list(pool.map(one, blocks))
    return {
        payload: {name: np.concatenate([part[payload][name] for part in parts]) for name in parts[0][payload]}
        for payload in payloads
    }


def token_facts(
    x_logits: NDArray[np.float32],
    y_logits: NDArray[np.float32],
    draws: Table,
    payloads: Sequence[str],
    settings: DecodingSettings,
) -> dict[str, Table]:
    """Return by payload the draft, its uncertainty and probabilities, and what the LLM would commit, for each row.

    ``draws`` are one position's uniforms of `AnswerDraws` for each row of logits, and what `_known` says of it.
    ``verified`` is the draft or its replacement, ``direct`` the LLM's own draw. With a payload the LLM judges by what
    is left of x (see `payload_law.py`), and ``x_draft`` is the draft's probability there.
    """
    x, y = (
        truncate(softmax(logits, settings.temperature), settings.top_k, settings.top_p)
        for logits in (x_logits, y_logits)
    )
    thetas = draw_thetas(settings.theta_law, draws["theta"])
    tails = tail_masses(x, settings.tail_ladder) if settings.tail_ladder else np.empty((len(x), 0))
    tails = rounded_up(tails, TAIL_BITS)
    first, second = two_largest(x)

    def recorded(payload: str, name: str, computed: NDArray[Any]) -> NDArray[Any]:
        known = draws.get(f"{payload} {name}")
        if known is None or known.shape != computed.shape:
            return computed
        return np.where(np.isnan(known), computed, known).astype(computed.dtype)

    direct = recorded("", "by_llm", inverse_cdf(y, draws["direct"]))
    full_draft = recorded("", "draft", inverse_cdf(x, draws["draft"]))
    facts = {}
    for payload in payloads:
        sent = _left_of(x, payload)
        drafted = payload if draws_anew(payload) else ""  # the payload under which the same draft is recorded
        draft = recorded(payload, "draft", inverse_cdf(sent, draws["draft"])) if drafted else full_draft
        level = uncertainty_level(x_logits, draft, thetas, draws["differ"])
        u = recorded(drafted, "uncertainty", level / settings.uncertainty_samples)
        x_draft = recorded("" if sent is x else payload, "x_draft", probability_of(sent, draft))
        y_draft = recorded(drafted, "y_draft", probability_of(y, draft))
        chance = accept_probability(x_draft, y_draft)
        verified, accepted = accept_or_resample(sent, y, draft, draws["coin"], draws["resample"], chance=chance)
        if payload == OWN_TOKEN:
            verified = np.where(accepted, draft, direct)
        facts[payload] = {
            "draft": draft,
            "level": np.rint(u * settings.uncertainty_samples).astype(level.dtype),
            "x_draft": x_draft,
            "y_draft": y_draft,
            "accept_coin": draws["coin"].astype(np.float32),
            "verified": recorded(payload, "verdict", verified),
            "direct": direct,
            "entropy": recorded("", "entropy", entropy(x)),
            "top1_probability": recorded("", "top1_probability", first),
            "second_probability": recorded("", "second_probability", second),
            **{f"tail_{k}": recorded("", "tails", tails)[:, i] for i, k in enumerate(settings.tail_ladder)},
        }
    return facts


def _left_of(x: Floats, payload: str) -> Floats:
    """Return what the LLM knows of distributions x by a payload's law."""
    word, number = parts(payload)
    leave = {"top": keep_largest, "truncated": only_largest, "quantised": round_to_lattice}
    return leave[word](x, number) if word in leave else x


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
) -> Columns:
    """Return one position's rows, one a path, in the columns of a trace."""
    rows = {name: values for name, values in facts.items() if name not in ("verified", "direct")}
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
