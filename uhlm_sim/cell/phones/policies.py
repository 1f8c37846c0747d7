"""Policies: named schemes, each a line that combines a gate, a message and a way of making rounds.

A kind of policy is a function that returns a `Scheme`; its parameters are the keys of the scenario's [[policy]] that it
takes. A kind of the user's own may also be a gate alone, a function of the `Nodes` of a tree that returns which drafts
the phone keeps.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

from uhlm_sim import scenario as settings
from uhlm_sim.cell.phones.network_aware import priced
from uhlm_sim.cell.phones.rounds import WHOLE, Costs, generated, one_draft
from uhlm_sim.cell.phones.schemes import Planner, Scheme
from uhlm_sim.cell.phones.windows import best_window, draft_cost, with_windows
from uhlm_sim.errors import ScenarioError, in_words
from uhlm_sim.seams import Named, NamedFunctions, Seam
from uhlm_sim.tokens.calibration import words
from uhlm_sim.tokens.decoding_rule import HLM, RuleKind
from uhlm_sim.tokens.gates import keep_all, keep_every, keep_none, keep_some, keep_sure
from uhlm_sim.tokens.messages import full_bits, full_distribution, id_bits, message_of, upload_bits
from uhlm_sim.tokens.payload_law import keeps_law
from uhlm_sim.tokens.recording import RuleRequest, resolve_rule
from uhlm_sim.tokens.token_set import TokenSet
from uhlm_sim.tokens.trace import TokenSource

__all__ = ["GATE", "POLICIES", "POLICY", "ReadyPolicy", "Scheme", "class_policies", "payload_costs", "ready_policy"]


UNCERTAINTY = "uncertainty"
# What a built-in scheme's walks hang on; all of a cell where a window is the best one.
SEEN: dict[str, Any] = {"policy": True, "tokens": True, "uplink": {"payload": True}}
SEEN_BY_BEST = {**SEEN, **dict.fromkeys(("device", "uplink", "downlink", "base_station", "channel"), True)}
_known_exact: dict[tuple[str, int, str], bool] = {}  # to walk every answer takes as long as many a simulation


def hlm() -> Scheme:
    """Send every draft d ~ x; the LLM accepts it or resamples it.

    Accepted with probability min(1, y_d / x_d), else a token is drawn from norm(max(y - x, 0)), so that the answer is
    the LLM's in law (Leviathan, Kalman and Matias, Fast inference from transformers via speculative decoding, 2023).
    The upload carries the SLM's whole distribution x, unless `payload` says otherwise.
    """
    return Scheme()


def u_hlm(threshold: float, gate: str = UNCERTAINTY) -> Scheme:
    """Keep the drafts whose uncertainty u is at most `threshold`, send the others as HLM does.

    u is the share of K samples at perturbed temperatures that differ from the draft. `threshold` is a number in [0, 1],
    or a rule on the fitted law beta = a u + b: risk-averse -b/a, risk-prone (Delta - b)/a with Delta = P(y_d < x_d)
    (Oh, Kim, Park, Ko, Quek and Kim, Uncertainty-aware hybrid inference with on-device small and remote large language
    models, arXiv 2412.12687, 2024). A phone pays device.uncertainty_s for each u; `gate` may name another measure of
    doubt, which costs nothing.
    """
    scheme = Scheme(gate=partial(keep_sure, threshold=threshold, gate=gate))
    return replace(scheme, measures_uncertainty=gate == UNCERTAINTY)


def rand_hlm(skip_rate: float) -> Scheme:
    """Keep a share `skip_rate` of the drafts, whatever their uncertainty, send the others as HLM does.

    P(kept) = skip_rate for each draft; "matched" is the share that a u-hlm keeps (the baseline of arXiv 2412.12687,
    2024): what it does less well than u-hlm is what choosing by uncertainty is worth.
    """
    return Scheme(gate=partial(keep_some, skip_rate=skip_rate))


def periodic_hlm(skip_rate: float) -> Scheme:
    """Keep a share `skip_rate` of the drafts, evenly spaced along the answer, send the others as HLM does.

    Draft i, from 0, is kept where floor((i + 1) skip_rate + phase) > floor(i skip_rate + phase), the phase being drawn
    once for each answer: the baseline that needs no measure of doubt.
    """
    return Scheme(gate=partial(keep_every, skip_rate=skip_rate))


def slm() -> Scheme:
    """Keep every draft: the phone answers alone, with neither uplink nor LLM."""
    return Scheme(gate=keep_all)


def llm() -> Scheme:
    """Draft nothing: the base station generates, the phone sends the prompt once and receives token by token."""
    return Scheme(rounds=generated)


POLICIES: dict[str, Callable[..., Scheme]] = {
    "hlm": hlm,
    "u-hlm": u_hlm,
    "rand-hlm": rand_hlm,
    "periodic-hlm": periodic_hlm,
    "slm": slm,
    "llm": llm,
}
OF_DOUBT = ("threshold", "gate")
KEYS = {"threshold": "policy.threshold", "skip_rate": "policy.skip_rate", "gate": "policy.gate"}
POLICY = Seam("Policies", ("policy.kind",), POLICIES, offers=KEYS, params="params")
GATE = Seam("Gates", (), {}, ("the `Nodes`",), params="params")  # what a user's own kind may be, too


@dataclass(frozen=True)
class ReadyPolicy:
    """A policy of the scenario with its thresholds resolved and its answers found.

    `threshold` and `skip_rate` are the numbers that the words "risk-averse" and "matched" came to on these tokens.
    `exact` says that all its answers are its own, as far as can be known before it runs.
    """

    label: str
    kind: str
    source: TokenSource
    exact: bool = False
    scheme: Scheme = field(default_factory=hlm)
    recorded: str = ""
    threshold: float | None = None
    skip_rate: float | None = None
    gate: str = UNCERTAINTY
    price_s: float | None = None

    @property
    def words(self) -> str:
        """Say in words what decides, for reports: what a threshold comes to on the grid of u, above all."""
        if self.price_s is not None:
            return f"keeps a draft while {self.price_s:g} s times its predicted rejection is less than a visit takes"
        if self.threshold is not None and self.gate != UNCERTAINTY:
            return f"threshold {self.threshold:.4f} of {self.gate}"
        if self.threshold is not None:
            return f"threshold {self.threshold:.4f} {words(self.threshold, self.source.uncertainty_samples)}"
        how = "evenly spaced" if self.kind == "periodic-hlm" else "at random"
        return f"skips {100 * self.skip_rate:.1f} % of the tokens, {how}" if self.skip_rate is not None else ""


def rule_request(policy: settings.Policy, scenario: settings.Scenario) -> RuleRequest:
    """Return the decoding rule that a policy asks to be recorded, its words not yet numbers.

    Thresholds by risk, and for other measures than u, walk on what other rules record; so do rates matched to them,
    and policies of the user's own.
    """
    law = (policy.payload or scenario.uplink.payload).law
    if ":" in policy.kind:
        return RuleRequest("hlm", payload=law)
    other = scenario.matched(policy) if policy.skip_rate == "matched" else None
    threshold, match = (
        None if gate is None or isinstance(gate.threshold, settings.Target) else gate.threshold
        for gate in (policy, other)
    )
    for gate, number in ((policy, threshold), (other, match)):
        if gate and gate.threshold is not None and (number is None or gate.gate not in (None, UNCERTAINTY)):
            return RuleRequest("hlm", payload=law)
    kind = cast("RuleKind", policy.kind)
    match_law = "" if other is None else (other.payload or scenario.uplink.payload).law
    return RuleRequest(kind, threshold if kind == "u-hlm" else None, policy.skip_rate, match, law, match_law)


def threshold_of(policy: settings.Policy, tokens: TokenSet) -> float | None:
    """Return a policy's threshold as a number: what the words of a rule, or a risk, come to on the tokens.

    One that moves with the network begins at -1, where nothing is kept.
    """
    threshold, gate = policy.threshold, policy.gate or UNCERTAINTY
    if isinstance(threshold, settings.Target):
        return -1.0 if threshold.risk is None else tokens.threshold_at(threshold.risk, gate)
    if isinstance(threshold, str):
        law = tokens.law(gate)
        return law.risk_averse if threshold == "risk-averse" else law.risk_prone
    return threshold


def price_of(policy: settings.Policy) -> float | None:
    """Return the price by which a policy's threshold moves with the network, None where it doesn't."""
    return policy.threshold.price_s if isinstance(policy.threshold, settings.Target) else None


def ready_policy(index: int, scenario: settings.Scenario, tokens: TokenSet, functions: NamedFunctions) -> ReadyPolicy:
    """Resolve the scenario's policy number `index` on its tokens. Raises ScenarioError or TraceError."""
    policy = scenario.policy[index]
    named = functions[f"policy.{index}.kind"]
    if policy.gate is not None:
        tokens.check_gate(policy.gate)
    windows_by_doubt = policy.draft_tokens == "confident"
    for name in KEYS:
        if getattr(policy, name) is not None and name not in named.asks and not (windows_by_doubt and name in OF_DOUBT):
            owners = [kind for kind, maker in POLICIES.items() if name in Named(POLICY, "", kind, maker).asks]
            raise ScenarioError(f"policy.{index}.{name}: belongs to {', '.join(owners)}, not to {policy.kind}")
    payload = policy.payload or scenario.uplink.payload
    if named.is_own:
        source = tokens.source(HLM.with_payload(payload.law))
        ready = ReadyPolicy(policy.label, policy.kind, source, scheme=_own_scheme(named))
    else:
        gate, threshold = policy.gate or UNCERTAINTY, policy.threshold
        named.bind({"threshold": threshold, "skip_rate": policy.skip_rate, "gate": gate})  # all that it needs is there
        request = rule_request(policy, scenario)
        if policy.skip_rate == "matched":
            other = scenario.matched(policy)
            if other.gate not in (None, UNCERTAINTY):
                raise ScenarioError(f"policy.{index}.match: {other.label} has a threshold for {other.gate}, not for u")
            if price_of(other) is not None:
                raise ScenarioError(f"policy.{index}.match: {other.label} has a threshold that moves with the network")
            law = (other.payload or scenario.uplink.payload).law
            kind = cast("RuleKind", policy.kind)
            request = RuleRequest(kind, None, "matched", threshold_of(other, tokens), payload.law, law)
        number = threshold_of(policy, tokens)
        if request.kind == "u-hlm":
            request = replace(request, threshold=number)
        rule = resolve_rule(request, None, tokens.skip_rate)
        source = tokens.source(rule)
        ready = ReadyPolicy(
            label=policy.label,
            kind=policy.kind,
            source=source,
            scheme=named.bind({"threshold": number, "skip_rate": rule.skip_rate, "gate": gate})(),
            recorded=source.recorded,
            threshold=None if price_of(policy) else number,
            skip_rate=rule.skip_rate,
            gate=gate,
            price_s=price_of(policy),
        )
    try:
        scenario.check_tokens(policy.label, always_asks=ready.scheme.always_asks)
    except ValueError as error:
        raise ScenarioError(str(error)) from None
    scheme = _composed(ready.scheme, policy, f"policy.{index}", scenario, tokens, ready.source)
    ready = replace(ready, scheme=scheme)
    seen = SEEN_BY_BEST if policy.draft_tokens == "best" else SEEN
    key = (tokens.digest, index, scenario.model_dump_json(include=seen))
    if named.is_own or key not in _known_exact:  # code of one's own may be another one when it is asked again
        _known_exact[key] = _is_exact(ready, scenario, grows_exactly=payload.most_loss is None)
    return replace(ready, exact=_known_exact[key])


def _is_exact(policy: ReadyPolicy, scenario: settings.Scenario, *, grows_exactly: bool) -> bool:
    """Say whether every answer's walk stays on what was recorded, to its own end.

    Of a scheme that looks at the cell only its run can tell: see `exact_share`. ``grows_exactly``: so does each walk
    where the models are at hand.
    """
    source, first = policy.source, policy.source.tree(0, 0)
    if first.is_chain or policy.scheme.looks_at_cell:
        return True
    if first.grows:
        return grows_exactly
    planner = Planner(policy.label, policy.scheme, payload_costs(scenario, source.vocabulary_size))
    trees = (source.tree(prompt, sample) for prompt in range(source.prompts) for sample in range(source.samples))
    walks = (planner.walk(tree, max_tokens=WHOLE) for tree in trees)
    return all(planner.plan(walk) and walk.exact_tokens is None for walk in walks)


def _composed(
    scheme: Scheme,
    policy: settings.Policy,
    key: str,
    scenario: settings.Scenario,
    tokens: TokenSet,
    source: TokenSource,
) -> Scheme:
    """Return a scheme with the window and the payload of its policy. Raises ScenarioError if it sends no drafts."""
    vocabulary_size = scenario.tokens.vocabulary_size or source.vocabulary_size
    ladder = source.tree(0, 0).nodes.tail_ladder
    sends_drafts = scheme.rounds is not generated and not scheme.never_asks
    given = {
        "draft_tokens": policy.draft_tokens is not None,
        "bonus_token": policy.bonus_token is not None,
        "payload": policy.payload is not None,
        "bill": policy.bill != "paper",
    }
    for name, is_given in given.items():
        if is_given and not sends_drafts:
            raise ScenarioError(f"{key}.{name}: belongs to a policy that sends its drafts, not to {policy.kind}")
        if is_given and scheme.rounds is not one_draft and name in ("draft_tokens", "bonus_token"):
            raise ScenarioError(f"{key}.{name}: {policy.kind} makes rounds of its own")
    payload = policy.payload or scenario.uplink.payload
    if scheme.message is full_distribution and sends_drafts:
        law, exact_law = None, keeps_law(payload.law, vocabulary_size)
        if payload.most_loss is not None:
            if not ladder:
                raise ScenarioError(
                    f"{key}: payload.most_loss needs the SLM's distribution at each token, which these tokens lack; "
                    "give payload.k in its place"
                )
            law, exact_law = tokens.law(), False
            scheme = replace(scheme, measures_uncertainty=True)  # the bound is made of u
        message = message_of(payload, vocabulary_size, bill=policy.bill, law=law)
        scheme = replace(scheme, message=message, keeps_law=exact_law)
    price_s, gate = price_of(policy), policy.gate or UNCERTAINTY
    if price_s is not None:
        if policy.draft_tokens is not None or policy.has_bonus:
            raise ScenarioError(f"{key}.threshold: with price_s drafts are sent one by one")
        moving = partial(priced, price_s=price_s, law=tokens.law(gate), gate=gate)
        return replace(scheme, rounds=moving, looks_at_cell=True)
    if policy.draft_tokens is None and not policy.has_bonus:
        return scheme
    if policy.draft_tokens == "confident":
        threshold = threshold_of(policy, tokens)
        if scheme.gate is not keep_none or threshold is None:
            raise ScenarioError(f"{key}.draft_tokens = 'confident': is for hlm, with policy.threshold")
        goes_on = partial(keep_sure, threshold=threshold, gate=gate)
        scheme = replace(scheme, goes_on=goes_on, measures_uncertainty=gate == UNCERTAINTY)

    def best(most: int) -> int:
        if payload.most_loss is not None:
            raise ScenarioError(
                f"{key}.draft_tokens = 'best': takes uploads of equal weight, and payload.most_loss changes theirs"
            )
        draft_s = scenario.device.slm_token_s + scheme.measures_uncertainty * scenario.device.uncertainty_s
        bits = upload_bits(payload, vocabulary_size, bill=policy.bill)
        return best_window(tokens.acceptance(), draft_cost(scenario, draft_s, bits, key), most)

    return with_windows(scheme, policy, best)


def _own_scheme(named: Named) -> Scheme:
    """Return the scheme of a user's function: the `Scheme` that it returns, or one with the function as its gate."""
    try:
        make = named.bind({})
    except ScenarioError:
        return Scheme(gate=replace(named, seam=GATE).bind({}), measures_uncertainty=True)
    try:
        scheme = make()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the user's own code may raise anything
        raise ScenarioError(f"{named.key} = '{named.name}': {in_words(error)}") from None
    if not isinstance(scheme, Scheme):
        raise ScenarioError(f"{named.key} = '{named.name}': gave {scheme!r}; it must take a path, or return a Scheme")
    return scheme


def class_policies(scenario: settings.Scenario, tokens: TokenSet, functions: NamedFunctions) -> dict[str, ReadyPolicy]:
    """Return label -> policy for the policies that some device class always runs, resolved on the tokens."""
    always_run = {device_class.policy for device_class in scenario.device_class}
    labels = enumerate(policy.label for policy in scenario.policy)
    return {label: ready_policy(index, scenario, tokens, functions) for index, label in labels if label in always_run}


def payload_costs(scenario: settings.Scenario, vocabulary_size: int) -> Costs:
    """Return the costs of a scenario whose uploads are billed for a vocabulary of V entries.

    A distribution is V (bits_per_probability + bits_per_index) bits, an id ceil(log2 V).
    """
    downlink, of_id = scenario.downlink, id_bits(vocabulary_size)
    distribution_bits = full_bits(scenario.uplink.payload, vocabulary_size)
    resample_bits = float(distribution_bits if downlink.on_resample == "distribution" else of_id)
    return Costs(
        max_tokens=scenario.traffic.max_tokens,
        slm_token_s=scenario.device.slm_token_s,
        slm_prefill_token_s=scenario.device.slm_prefill_token_s,
        uncertainty_s=scenario.device.uncertainty_s,
        distribution_bits=distribution_bits,
        id_bits=of_id,
        piggyback=scenario.base_station.sync == "piggyback",
        context_tokens=scenario.tokens.context_tokens,
        resample_bits=resample_bits if downlink.kind == "shared" else None,
    )
