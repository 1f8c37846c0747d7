"""Policies: which tokens a phone keeps, which it sends, and what it sends with them.

A policy is one function of a `TokenPath` that returns which of its tokens the phone keeps. The built-in kinds take the
decision from the path itself, where their decoding rule has made it (`tokens/decoding_rule.py`): recorded with the
models in the loop, or teacher-forced on the path of plain HLM. A function of the user's own is always teacher-forced.
"""

from dataclasses import dataclass
from math import ceil, log2
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from uhlm_sim import scenario as settings
from uhlm_sim.cell.phones.phone import Answer
from uhlm_sim.errors import SimulationError
from uhlm_sim.seams import Found, Seam
from uhlm_sim.tokens.calibration import words
from uhlm_sim.tokens.decoding_rule import DecodingRule, RuleKind
from uhlm_sim.tokens.recording import RuleRequest, resolve_rule
from uhlm_sim.tokens.token_set import TokenSet
from uhlm_sim.tokens.trace import TokenPath, TokenSource


class Policy(Protocol):
    """Returns which tokens of an answer the phone keeps (True) instead of sending, from what it knows of them."""

    def __call__(self, path: TokenPath) -> NDArray[np.bool_]: ...


def as_recorded(path: TokenPath) -> NDArray[np.bool_]:
    """Keep what the path's own decoding rule kept."""
    return path.skipped


def hlm(path: TokenPath) -> NDArray[np.bool_]:
    """Send every draft d ~ x; the LLM accepts it or resamples it.

    Accepted with probability min(1, y_d / x_d), else a token is drawn from norm(max(y - x, 0)), so that the answer is
    the LLM's in law (Leviathan, Kalman and Matias, Fast inference from transformers via speculative decoding, 2023).
    The upload carries the SLM's whole distribution x.
    """
    return as_recorded(path)


def u_hlm(path: TokenPath) -> NDArray[np.bool_]:
    """Keep the drafts whose uncertainty u is at most `threshold`, send the others as HLM does.

    u is the share of K samples at perturbed temperatures that differ from the draft. `threshold` is a number in [0, 1],
    or a rule on the fitted law beta = a u + b: risk-averse -b/a, risk-prone (Delta - b)/a with Delta = P(y_d < x_d)
    (Oh, Kim, Park, Ko, Quek and Kim, arXiv 2412.12687, 2024). A phone pays device.uncertainty_s for each u.
    """
    return as_recorded(path)


def rand_hlm(path: TokenPath) -> NDArray[np.bool_]:
    """Keep a share `skip_rate` of the drafts, whatever their uncertainty, send the others as HLM does.

    P(kept) = skip_rate for each draft; "matched" is the share that a u-hlm keeps (the baseline of arXiv 2412.12687,
    2024): what it does less well than u-hlm is what choosing by uncertainty is worth.
    """
    return as_recorded(path)


def slm(path: TokenPath) -> NDArray[np.bool_]:
    """Keep every draft: the phone answers alone, with neither uplink nor LLM."""
    return as_recorded(path)


def llm(path: TokenPath) -> NDArray[np.bool_]:
    """Draft nothing: the base station generates, the phone sends the prompt once and receives token by token."""
    return as_recorded(path)


POLICIES: dict[str, Policy] = {"hlm": hlm, "u-hlm": u_hlm, "rand-hlm": rand_hlm, "slm": slm, "llm": llm}
POLICY = Seam("Policies", ("policy.kind",), POLICIES, ("a `TokenPath`",), params="params")


@dataclass(frozen=True)
class ReadyPolicy:
    """A policy of the scenario with its thresholds resolved and its answers found.

    `threshold` and `skip_rate` are the numbers that the words "risk-averse" and "matched" came to on these tokens.
    """

    label: str
    kind: str
    source: TokenSource
    exact: bool
    keeps: Policy = as_recorded
    recorded: str = ""
    threshold: float | None = None
    skip_rate: float | None = None

    @property
    def words(self) -> str:
        """Say in words what decides, for reports: what a threshold comes to on the grid of u, above all."""
        if self.threshold is not None:
            return f"threshold {self.threshold:.4f} {words(self.threshold, self.source.uncertainty_samples)}"
        return f"skips {100 * self.skip_rate:.1f} % of the tokens at random" if self.skip_rate is not None else ""


def rule_request(policy: settings.Policy, scenario: settings.Scenario) -> RuleRequest:
    """Return the decoding rule that a policy of a built-in kind asks for, its words not yet numbers."""
    match = scenario.matched(policy).threshold if policy.skip_rate == "matched" else None
    return RuleRequest(cast("RuleKind", policy.kind), policy.threshold, policy.skip_rate, match)


def ready_policy(index: int, scenario: settings.Scenario, tokens: TokenSet, found: Found) -> ReadyPolicy:
    """Resolve the scenario's policy number `index` on its tokens. Raises ScenarioError or TraceError."""
    policy = scenario.policy[index]
    named = found[f"policy.{index}.kind"]
    keeps = named.bind({})
    if named.is_own:
        source = tokens.source(DecodingRule("hlm"), forced=True)
        return ReadyPolicy(policy.label, policy.kind, source, source.exact, keeps, source.recorded)
    request = rule_request(policy, scenario)
    fitted = isinstance(request.threshold, str) or isinstance(request.match, str)
    rule = resolve_rule(request, tokens.law() if fitted else None, tokens.skip_rate)
    source = tokens.source(rule)
    return ReadyPolicy(
        label=policy.label,
        kind=policy.kind,
        source=source,
        exact=source.exact,
        recorded=source.recorded,
        threshold=rule.threshold,
        skip_rate=rule.skip_rate,
    )


def class_policies(scenario: settings.Scenario, tokens: TokenSet, found: Found) -> dict[str, ReadyPolicy]:
    """Return by their labels the policies that some class of devices always runs, resolved on its tokens."""
    wanted = {each.policy for each in scenario.device_class}
    labels = enumerate(policy.label for policy in scenario.policy)
    return {label: ready_policy(index, scenario, tokens, found) for index, label in labels if label in wanted}


@dataclass(frozen=True)
class Costs:
    """What tokens cost a phone and the air; the fields of the scenario that `plan_answer` needs."""

    max_tokens: int
    slm_token_s: float
    slm_prefill_token_s: float
    uncertainty_s: float
    distribution_bits: float
    id_bits: int
    piggyback: bool
    context_tokens: int = 0
    resample_bits: float | None = None  # of the answer to a draft that is replaced; None: answers have no bits


def payload_costs(scenario: settings.Scenario, vocabulary_size: int) -> Costs:
    """Return the costs of a scenario whose uploads are billed for a vocabulary of V entries.

    A distribution is V (bits_per_probability + bits_per_index) bits, an id ceil(log2 V).
    """
    payload, downlink = scenario.uplink.payload, scenario.downlink
    distribution_bits = vocabulary_size * (payload.bits_per_probability + payload.bits_per_index)
    id_bits = ceil(log2(vocabulary_size))
    resample_bits = float(distribution_bits if downlink.on_resample == "distribution" else id_bits)
    return Costs(
        max_tokens=scenario.traffic.max_tokens,
        slm_token_s=scenario.device.slm_token_s,
        slm_prefill_token_s=scenario.device.slm_prefill_token_s,
        uncertainty_s=scenario.device.uncertainty_s,
        distribution_bits=distribution_bits,
        id_bits=id_bits,
        piggyback=scenario.base_station.sync == "piggyback",
        context_tokens=scenario.tokens.context_tokens,
        resample_bits=resample_bits if downlink.kind == "shared" else None,
    )


def plan_answer(index: int, path: TokenPath, policy: ReadyPolicy, costs: Costs) -> Answer:
    """Return what an answer makes its phone compute, send and ask of the LLM, token by token.

    A sent token carries the SLM's distribution (its own id is free) and, with piggyback, the ids that the base station
    doesn't know: the prompt's and all committed ones with a request's first job, later those skipped since the last
    job. The LLM then processes these positions and the last committed one, which it may have chosen itself; so 1 a job
    for HLM, 1 + skipped since then for U-HLM, and prompt_tokens + position for the first job. With `free` sync ids
    cost nothing and every job is one position.

    The kind `llm` computes nothing on the phone, sends the prompt's ids once, and is one job a token.

    Where answers have bits, each is an id, but for drafts that the LLM replaces.
    """
    n = min(len(path), costs.max_tokens)
    answer_bits = None
    if costs.resample_bits is not None:
        is_id = np.full(n, True) if policy.kind == "llm" else path.accepted[:n]
        answer_bits = np.where(is_id, float(costs.id_bits), costs.resample_bits).tolist()
    if policy.kind == "llm":
        bits = [0.0] * n
        jobs = [1] * n
        if costs.piggyback:
            bits[0], jobs[0] = float(path.prompt_tokens * costs.id_bits), path.prompt_tokens
        return Answer(index, path.prompt, path.prompt_tokens, [0.0] * n, [True] * n, bits, jobs, True, answer_bits)

    kept = np.asarray(policy.keeps(path))
    if kept.dtype != np.bool_ or kept.shape != (len(path),):
        raise SimulationError(
            f"policy {policy.label}: returned {kept.dtype} of shape {kept.shape} for an answer of {len(path)} tokens; "
            "it must return one bool a token, True where the phone keeps it"
        )
    sends = ~kept[:n]
    positions = np.flatnonzero(sends)
    jobs_at = np.diff(positions, prepend=0)
    jobs_at[:1] += path.prompt_tokens
    unknown_ids = jobs_at - 1
    unknown_ids[:1] += 1
    if not costs.piggyback:
        jobs_at, unknown_ids = np.ones_like(jobs_at), np.zeros_like(unknown_ids)
    payload_bits, llm_tokens = np.zeros(n), np.zeros(n, dtype=np.int64)
    payload_bits[positions] = costs.distribution_bits + costs.id_bits * unknown_ids
    llm_tokens[positions] = jobs_at

    measures = policy.kind == "u-hlm" or policy.kind not in POLICIES
    compute_s = np.full(n, costs.slm_token_s + (costs.uncertainty_s if measures else 0.0))
    compute_s[0] += path.prompt_tokens * costs.slm_prefill_token_s
    return Answer(
        index,
        path.prompt,
        path.prompt_tokens,
        compute_s.tolist(),
        sends.tolist(),
        payload_bits.tolist(),
        llm_tokens.tolist(),
        answer_bits=answer_bits,
    )
