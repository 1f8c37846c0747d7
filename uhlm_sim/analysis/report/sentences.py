"""What a run says to its question, in sentences. Nothing is called more or less that its intervals leave open."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from uhlm_sim.analysis.digits import listed
from uhlm_sim.analysis.measures.bottleneck import limits
from uhlm_sim.analysis.measures.intervals import RATIO, paired_ratio
from uhlm_sim.analysis.report.near_and_far import of_near_and_far
from uhlm_sim.analysis.report.phrases import course, level, percent, plain, times
from uhlm_sim.analysis.report.points import Estimate, Points, verdicts_of
from uhlm_sim.analysis.report.sentences_of_choices import of_choices
from uhlm_sim.analysis.report.sentences_of_classes import of_classes, of_energy
from uhlm_sim.analysis.results import Results

PROMISE = 0.95  # of the requests that should meet their SLO, of the similarity that should be kept
PROMISE_SAID = f"{100 * PROMISE:g} %"
LADDER = 3  # thresholds that make one
RESOURCES = ("bandwidth_hz", "mean_snr_db", "gpus", "max_batch", "bits_per_probability", "bits_per_index")


def answers(results: Results) -> list[str]:
    """Return sentences that answer a run's question: what is faster and where, what it costs, what limits the cell.

    Said for any run or sweep from its summary: each policy against the first one (paired ratios), at the sweep's ends
    and where the interval lies beyond 1; of a swept threshold the fastest that keeps 95 % of the first's similarity
    to the LLM's answers; what choosing by uncertainty saves beside skipping as often at random; of a swept resource how
    much the first policy needs for what another commits; of swept words what each does to a policy, beside the first,
    and under which policy that is most; the rate of an answering phone; what each class of phones gets, and what a
    token costs in joules; which station limits which policy and from where; and where fewer than 95 % of the requests
    meet their SLO. With open arrivals the cell's throughput is the load offered, so there policies are compared by the
    rate of an answering phone. Phones of unequal SNR are compared, class by class, from the requests. Without intervals
    (one replication) nothing is compared.
    """
    points = Points.of(results)
    is_open = not results.closed_loop
    return [
        *(_overload(results, points) if is_open else ()),
        *_against_first(results, points, is_open=is_open),
        *_fastest_that_keeps(results, points),
        *_beside_random(results, points),
        *_needed(results, points),
        *of_choices(results, points),
        *(_phone_rates(results, points) if len(points) > 1 else ()),
        *of_near_and_far(results, points),
        *of_classes(results, points),
        *of_energy(results, points),
        *limits(results, points),
        *_promises(results, points),
    ]


def _overload(results: Results, points: Points) -> Iterator[str]:
    """Say where more requests arrive than are answered, and why throughput isn't compared."""
    judged = verdicts_of(results)
    found = points.by_policy(results.policies, lambda *key: judged.get(key, ("", ""))[0] == "OVERLOADED")
    if found:
        yield f"More requests arrive than are answered (OVERLOADED) under {found}."
    yield (
        "Arrivals are open: a cell that keeps up commits the tokens of the answers it is asked for, so its throughput "
        "is the load offered; policies are compared by the rate at which an answering phone gets its tokens."
    )


def _against_first(results: Results, points: Points, *, is_open: bool) -> Iterator[str]:
    """Say how much more or less than the first one each policy commits, where beyond chance, and what it costs."""
    first, *others = results.policies
    metric = ("token_throughput_per_device" if is_open else "token_throughput") + RATIO
    does = "an answering phone gets" if is_open else "commits"
    for policy in others:
        found = points.all(policy, metric)
        if all(estimate == (1.0, 1.0, 1.0) for estimate in found):
            yield f"{policy}: the same as {first} in every replication."
            continue
        of = f" times {first}'s tokens a second"
        told = f"{policy}: {does} {course(points, found, times, of)}"
        above, below = ("faster", "slower") if is_open else ("more", "less")
        sides = {above: [low > 1 for _, low, _ in found], below: [high < 1 for _, _, high in found]}
        said = [f"{word}{points.where(holds)}" for word, holds in sides.items() if any(holds)]
        if not said and all(np.isfinite(low) for _, low, _ in found):
            told += ", no difference beyond chance"
        elif said and len(points) > 1:
            told += f"; {' and '.join(said)}"
        if len(points) == 1 and not is_open:
            mean_delay = times(points.get(0, policy, f"token_throughput_per_device{RATIO}"))
            mean_rate = times(points.get(0, policy, f"mean_token_rate{RATIO}"))
            told += f"; an answering phone is {mean_delay} times as fast by 1/mean(delay), {mean_rate} by mean(1/delay)"
        yield f"{told}.{_costs(points, first, policy)}"


def _costs(points: Points, first: str, policy: str) -> str:
    """Say what a policy skips and what that does to its answers, as far as it is known."""
    skipped = points.all(policy, "skip_rate")
    if not any(mean > 0 for mean, _, _ in skipped):
        return ""
    said = [f"keeps {level(points, skipped, percent, ' of the tokens')} unasked"]
    error = points.all(policy, "distribution_error")
    if any(np.isfinite(mean) for mean, _, _ in error):
        said.append(f"moves the law of a token by {level(points, error, plain, ' in total variation')}")
    kept = points.all(policy, f"quality_cosine{RATIO}")
    if any(np.isfinite(mean) for mean, _, _ in kept):
        of = f" of {first}'s similarity to the LLM's answers"
        known = [bool(np.isfinite(mean)) for mean, _, _ in kept]
        some = any(np.isfinite(share) and not is_known for (share, _, _), is_known in zip(skipped, known, strict=True))
        said.append(f"has {level(points, kept, times, of)}" + (f" (known only{points.where(known)})" if some else ""))
    return f" It {listed(said)}."


def _fastest_that_keeps(results: Results, points: Points) -> Iterator[str]:
    """Say of a ladder of thresholds, over the sweep or side by side, which fast one keeps the answers similar."""
    first = results.policies[0]
    if len(points) > 1 and not points.along.startswith("policy."):
        return
    chosen = [str(told["label"]) for told in results.provenance["policies"] if told["kind"] == "u-hlm"]
    rungs = [(point, policy) for point in range(len(points)) for policy in chosen]
    kept = {rung: points.get(rung[0], rung[1], f"quality_cosine{RATIO}") for rung in rungs}
    fit = [rung for rung, (_, low, _) in kept.items() if low >= PROMISE]
    if len(rungs) < LADDER or not fit:
        return
    rate = "token_throughput_per_device"  # the cell's would rise with the length of the answers, too
    point, policy = best = max(fit, key=lambda rung: points.get(rung[0], rung[1], rate)[0])
    speed = points.get(point, policy, f"{rate}{RATIO}")
    yield (
        f"The fastest that keeps at least {PROMISE_SAID} of {first}'s similarity to the LLM's answers, beyond chance: "
        f"{policy}{points.place(point)}, with {times(kept[best])} times the similarity and "
        f"{times(speed)} times the tokens a second of an answering phone."
    )


def _beside_random(results: Results, points: Points) -> Iterator[str]:
    """Say what choosing by uncertainty saves beside skipping as many tokens at random."""
    kinds = {label: str(entry["kind"]) for label, entry in _entries(results).items()}
    for policy, entry in _entries(results).items():
        if entry.get("skip_rate") != "matched":
            continue
        wanted = entry.get("match", "u-hlm")
        match = wanted if wanted in kinds else next((label for label, kind in kinds.items() if kind == wanted), "")
        for metric, words, show in (
            ("distribution_error", "moves the law of a token by", plain),
            ("rejection_risk", "keeps tokens that the LLM would refuse with a chance of", percent),
        ):
            pairs = list(zip(points.all(match, metric), points.all(policy, metric), strict=True))
            less = [its[2] < random[1] for its, random in pairs]
            if any(less):
                where = points.where(less)
                holds = [point for point, is_less in enumerate(less) if is_less]
                middle = holds[len(holds) // 2]
                its, random = pairs[middle]
                skipped = _rates(points.get(middle, match, "skip_rate"), points.get(middle, policy, "skip_rate"))
                yield (
                    f"Skipping {skipped}, {match} {words} {show(its)} and {policy} {show(random)}{points.place(middle)}"
                    + (f"; {match} less{where}." if where else ".")
                )
                break


def _rates(one: Estimate, other: Estimate) -> str:
    """Say two shares of skipped tokens, as equal only where chance alone may part them."""
    both = f"{percent(one)} and {percent(other)}"
    is_equal = one[1] <= other[2] and other[1] <= one[2]
    return f"as often ({both} of the tokens)" if is_equal else f"{both} of the tokens"


def _needed(results: Results, points: Points) -> Iterator[str]:
    """Say how much of a swept resource the first policy needs to commit what another one does.

    All points meet the same world, so two points are compared in pairs of replications, as two policies are.
    """
    if points.along.rpartition(".")[2] not in RESOURCES or not points.is_ordered or len(points) == 1:
        return
    table = results.replications[results.replications["metric"] == "token_throughput"]
    rates = table.pivot(index="replication", columns=["point", "policy"], values="value")
    names = list(dict.fromkeys(table["point"]))
    first, *others = results.policies
    for policy in (name for name in others if _entries(results).get(name, {}).get("skip_rate") != "matched"):
        ahead = points.all(policy, f"token_throughput{RATIO}")
        for group, members in points.groups:
            told, beyond = [], []
            for point in (point for point in members if ahead[point][1] > 1):
                its = rates[names[point], policy]
                against = [paired_ratio(rates[names[other], first], its) for other in members]
                short = [other for other, (_, _, high, _) in zip(members, against, strict=True) if high < 1]
                enough = [other for other, (_, low, _, _) in zip(members, against, strict=True) if low > 1]
                if short and enough:
                    told.append(f"at {points.value(point)} as much as {first} {points.between(short, enough, members)}")
                elif len(short) == len(members):
                    beyond.append(point)
            if beyond:
                where = "everywhere" if len(beyond) == len(members) else f"at {points.value(*beyond)}"
                told.append(f"{where} more than {first} at any value here")
            if told:
                yield f"{policy} commits{f', with {group},' if group else ''} {', '.join(told)}."


def _phone_rates(results: Results, points: Points) -> Iterator[str]:
    """Say what an answering phone gets along the sweep, and where that is less than half of the most."""
    told = []
    for policy in results.policies:
        rates = points.all(policy, "token_throughput_per_device")
        most = max((low for _, low, _ in rates if np.isfinite(low)), default=np.nan)
        halved = [high < most / 2 for _, _, high in rates]
        half = f" (less than half of its most{points.where(halved)})" if any(halved) else ""
        told.append(f"{policy} {level(points, rates, plain)}{half}")
    yield f"Tokens a second of an answering phone, 1/mean(delay): {'; '.join(told)}."


def _promises(results: Results, points: Points) -> Iterator[str]:
    """Say where requests miss their SLO."""
    slo = ", ".join(f"{key} ≤ {value:g}" for key, value in results.scenario.get("slo", {}).items())
    if not slo:
        return
    met = {policy: points.all(policy, "slo_attainment") for policy in results.policies}
    found = points.by_policy(results.policies, lambda point, policy: met[policy][point][2] < PROMISE)
    if found:
        yield f"Fewer than {PROMISE_SAID} of the requests meet the SLO ({slo}) under {found}."
    elif all(low >= PROMISE for estimates in met.values() for _, low, _ in estimates):
        yield f"At least {PROMISE_SAID} of the requests meet the SLO ({slo}) under every policy."


def _entries(results: Results) -> dict[str, dict[str, Any]]:
    """Return the scenario's own entry for each policy's label; none where a sweep changes the labels."""
    entries = results.scenario.get("policy", [])
    return dict(zip(results.policies, entries, strict=True)) if len(entries) == len(results.policies) else {}
