"""Sentences that answer a run's question. A difference is stated only if the 95 % interval excludes equality."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from uhlm_sim.analysis.digits import listed
from uhlm_sim.analysis.measures.intervals import RATIO, paired_ratio
from uhlm_sim.analysis.measures.winners import unbeaten
from uhlm_sim.analysis.report.headline import Estimate
from uhlm_sim.analysis.report.phrases import TOO_FEW, course, level, percent, plain, times
from uhlm_sim.analysis.report.points import Points, verdicts_of
from uhlm_sim.analysis.report.sentences_of_bottlenecks import limits
from uhlm_sim.analysis.report.sentences_of_choices import of_choices
from uhlm_sim.analysis.report.sentences_of_classes import of_classes, of_energy, of_near_and_far
from uhlm_sim.analysis.report.sentences_of_winners import of_winners
from uhlm_sim.analysis.run import Run

PROMISE = 0.95  # of the requests that should meet their SLO, of the similarity that should be kept
PROMISE_TEXT = f"{100 * PROMISE:g} %"
FEWEST_THRESHOLDS = 3  # to compare
RESOURCES = ("bandwidth_hz", "mean_snr_db", "gpus", "max_batch", "bits_per_probability", "bits_per_index")


def answers(results: Run) -> list[str]:
    """Return sentences that answer a run's question: what is faster and where, what it costs, what limits the cell.

    They are made from the summary of any run or sweep. First: who is fastest where, near enough to the LLM's law; the
    bottleneck; and where fewer than 95 % of the requests meet their SLO. Then: each policy's ratio to the first one,
    at the ends of the sweep and where it differs from 1; the fastest of those that send drafts, point by point; the
    fastest threshold that keeps 95 % of the first policy's similarity to the LLM's answers; skipping by uncertainty
    against skipping at random; how much of a swept resource the first policy needs to match another; the effect of
    swept names (allocators, orders); the rate of an answering phone; classes of phones; energy. With open arrivals the
    cell's throughput is the load offered, so policies are compared by the rate of an answering phone. Phones of
    unequal SNR are compared, class by class, from the requests. Without intervals (one replication) nothing is
    compared.
    """
    return [*first_answers(results), *further_answers(results)]


def first_answers(results: Run) -> list[str]:
    """Return the sentences to read first: overload, the fastest near the LLM's law, the bottleneck, missed SLOs."""
    points = Points.of(results)
    return [
        *(_overload(results, points) if results.is_open else ()),
        *of_winners(results, points),
        *limits(results, points),
        *_promises(results, points),
    ]


def further_answers(results: Run) -> list[str]:
    """Return the other sentences: each policy beside the first one, and what the sweep or the classes show."""
    points, is_open = Points.of(results), results.is_open
    sentences = [
        *_against_first(results, points, is_open=is_open),
        *(_fastest_that_draft(results, points, is_open=is_open) if len(points) > 1 else ()),
        *_fastest_that_keeps(results, points),
        *_beside_random(results, points),
        *_needed(results, points),
        *of_choices(results, points),
        *(_phone_rates(results, points) if len(points) > 1 else ()),
        *of_near_and_far(results, points),
        *of_classes(results, points),
        *of_energy(results, points),
    ]
    if any(TOO_FEW in sentence for sentence in sentences):
        of_phone = " --set precision.metric=token_throughput_per_device" if is_open else ""
        sentences.append(
            f"Where it says {TOO_FEW}, the 95 % interval is wider than the ratio itself: raise `replications`, or let "
            f"[precision] add them: --set precision.relative=0.05{of_phone}."
        )
    return sentences


def _overload(results: Run, points: Points) -> Iterator[str]:
    """Say where more requests arrive than are answered, and why throughput isn't compared."""
    judged = verdicts_of(results)
    where = points.by_policy(results.policies, lambda *key: judged.get(key, ("", ""))[0] == "OVERLOADED")
    if where:
        yield f"More requests arrive than are answered (OVERLOADED) under {where}."
    at = [terms.is_open for terms in results.terms.values()]
    where = "" if all(at) else points.where(at)
    yield (
        f"Arrivals are open{where}: a cell that keeps up commits the tokens of the answers it is asked for, so its "
        "throughput is the load offered; policies are compared by the rate at which an answering phone gets its tokens."
    )


def _against_first(results: Run, points: Points, *, is_open: bool) -> Iterator[str]:
    """Compare each policy's tokens a second with the first one's, and state what it skips."""
    first, *others = results.policies
    metric = ("token_throughput_per_device" if is_open else "token_throughput") + RATIO
    does = "an answering phone gets" if is_open else "commits"
    for policy in others:
        ratios = points.all(policy, metric)
        if all(estimate == (1.0, 1.0, 1.0) for estimate in ratios):
            yield f"{policy}: {does} {first}'s tokens a second in every replication."
            continue
        of = f" times {first}'s tokens a second"
        sentence = f"{policy}: {does} {course(points, ratios, times, of)}"
        above, below = ("faster", "slower") if is_open else ("more", "less")
        sides = {above: [low > 1 for _, low, _ in ratios], below: [high < 1 for _, _, high in ratios]}
        differences = [f"{word}{points.where(holds)}" for word, holds in sides.items() if any(holds)]
        if not differences and all(np.isfinite(low) for _, low, _ in ratios):
            sentence += ", no difference beyond chance"
        elif differences and len(points) > 1:
            sentence += f"; {' and '.join(differences)}"
        if len(points) == 1 and not is_open:
            mean_delay = times(points.get(0, policy, f"token_throughput_per_device{RATIO}"))
            mean_rate = times(points.get(0, policy, f"mean_token_rate{RATIO}"))
            sentence += f"; an answering phone is {mean_delay} times as fast by 1/mean(delay), "
            sentence += f"{mean_rate} by mean(1/delay)"
        yield f"{sentence}.{_costs(points, first, policy)}"


def _costs(points: Points, first: str, policy: str) -> str:
    """State a policy's skip rate, total variation distance, similarity and programs that pass, as far as known."""
    skipped, error = points.all(policy, "skip_rate"), points.all(policy, "distribution_error")
    skips = any(mean > 0 for mean, _, _ in skipped)
    if not skips and any(np.isfinite(mean) for mean, _, _ in error):
        return ""
    clauses = [f"skips {level(points, skipped, percent, ' of the tokens')}"] if skips else []
    if any(np.isfinite(mean) for mean, _, _ in error):
        clauses.append(f"has a total variation distance from the LLM of {level(points, error, plain, ' a token')}")
    kept = points.all(policy, f"quality_cosine{RATIO}")
    if any(np.isfinite(mean) for mean, _, _ in kept):
        similarity = level(points, kept, times, f" of {first}'s similarity to the LLM's answers")
        known = [bool(np.isfinite(mean)) for mean, _, _ in kept]
        some = any(np.isfinite(share) and not is_known for (share, _, _), is_known in zip(skipped, known, strict=True))
        is_placed = all(points.place(point) in similarity for point, is_known in enumerate(known) if is_known)
        only = f" (known only{points.where(known)})" if some and not is_placed else ""
        clauses.append(f"has {similarity}{only}")
    solved = points.all(policy, "task_accuracy")
    if any(np.isfinite(mean) for mean, _, _ in solved):
        clauses.append(f"writes programs of which {level(points, solved, percent, ' pass their checks')}")
    return f" It {listed(clauses)}." if clauses else ""


def _fastest_that_draft(results: Run, points: Points, *, is_open: bool) -> Iterator[str]:
    """Name the policies that send drafts and that no other such one beats beyond chance, point by point."""
    kinds = results.kinds
    drafting = [policy for policy in results.policies if kinds.get(policy) not in ("slm", "llm")]
    metric = "token_throughput_per_device" if is_open else "token_throughput"
    table = results.replications[results.replications["metric"] == metric]
    rates = table.pivot(index="replication", columns=["point", "policy"], values="value")
    numbers = table["point"].unique()
    is_whole = all((number, policy) in rates for number in numbers for policy in drafting)
    if len(drafting) < FEWEST_THRESHOLDS or len(rates) < 2 or not is_whole:
        return
    fastest: set[tuple[int, str]] = set()
    for point, number in enumerate(numbers):
        here = rates[number][drafting].dropna(axis="columns", how="all")
        fastest |= {(point, policy) for policy in unbeaten(here)}
    names = points.by_policy(drafting, lambda *key: key in fastest)
    if names:
        yield f"Of the policies that send drafts, none beyond chance faster than these: {names}."


def _fastest_that_keeps(results: Run, points: Points) -> Iterator[str]:
    """Name the fastest of several thresholds that keeps the answers similar, over a sweep or side by side."""
    first = results.policies[0]
    if len(points) > 1 and not points.along.startswith("policy."):
        return
    chosen = [str(entry["label"]) for entry in results.provenance["policies"] if entry["kind"] == "u-hlm"]
    rungs = [(point, policy) for point in range(len(points)) for policy in chosen]
    kept = {rung: points.get(rung[0], rung[1], f"quality_cosine{RATIO}") for rung in rungs}
    rate = "token_throughput_per_device"  # the cell's would rise with the length of the answers, too
    speeds = {rung: points.get(*rung, rate)[0] for rung, (_, low, _) in kept.items() if low >= PROMISE}
    fit = [rung for rung, speed in speeds.items() if np.isfinite(speed)]
    if len(rungs) < FEWEST_THRESHOLDS or not fit:
        return
    point, policy = best = max(fit, key=speeds.__getitem__)
    speed = points.get(point, policy, f"{rate}{RATIO}")
    solved = points.get(point, policy, f"task_accuracy{RATIO}")
    programs = f" Of the programs that pass under {first} it keeps {times(solved)}." if np.isfinite(solved[0]) else ""
    slm = next((name for name, kind in results.kinds.items() if kind == "slm"), "")
    alone = points.get(point, slm, f"quality_cosine{RATIO}")
    little = (
        f" But {slm} keeps {times(alone)} of the similarity, so it tells little here." if alone[1] >= PROMISE else ""
    )
    yield (
        f"The fastest threshold that keeps at least {PROMISE_TEXT} of {first}'s similarity to the LLM's answers, "
        f"beyond chance: {policy}{points.place(point)}, with {times(kept[best])} times the similarity and "
        f"{times(speed)} times the tokens a second of an answering phone.{programs}{little}"
    )


def _beside_random(results: Run, points: Points) -> Iterator[str]:
    """Compare skipping by uncertainty with skipping as many tokens at random: distance, else rejection risk."""
    kinds = {label: str(entry["kind"]) for label, entry in _entries(results).items()}
    for policy, entry in _entries(results).items():
        if entry.get("skip_rate") != "matched":
            continue
        matched = entry.get("match", "u-hlm")
        match = matched if matched in kinds else next((label for label, kind in kinds.items() if kind == matched), "")
        for metric, words, show in (
            ("distribution_error", "a total variation distance from the LLM of", plain),
            ("rejection_risk", "a rejection risk of", percent),
        ):
            pairs = list(zip(points.all(match, metric), points.all(policy, metric), strict=True))
            less = [its[2] < random[1] for its, random in pairs]
            if any(less):
                where = points.where(less)
                holds = [point for point, is_less in enumerate(less) if is_less]
                middle = holds[len(holds) // 2]
                its, random = pairs[middle]
                skipped = _rates(points.get(middle, match, "skip_rate"), points.get(middle, policy, "skip_rate"))
                both = f"{match} has {words} {show(its)}, {policy} of {show(random)}{points.place(middle)}"
                yield f"Skipping {skipped}, {both}" + (f"; {match} lower{where}." if where else ".")
                break


def _rates(one: Estimate, other: Estimate) -> str:
    """Write two skip rates, as equal if their intervals overlap."""
    both = f"{percent(one)} and {percent(other)}"
    is_equal = one[1] <= other[2] and other[1] <= one[2]
    return f"as often ({both} of the tokens)" if is_equal else f"{both} of the tokens"


def _needed(results: Run, points: Points) -> Iterator[str]:
    """State how much of a swept resource the first policy needs to commit as many tokens as another one.

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
        groups_of: dict[str, list[str]] = {}  # what is said -> of which groups
        for group, members in points.groups:
            clauses, beyond = [], []
            for point in (point for point in members if ahead[point][1] > 1):
                its = rates[names[point], policy]
                against = [paired_ratio(rates[names[other], first], its) for other in members]
                short = [other for other, (_, _, high, _) in zip(members, against, strict=True) if high < 1]
                enough = [other for other, (_, low, _, _) in zip(members, against, strict=True) if low > 1]
                if short and enough:
                    range_of_first = points.between(short, enough, members)
                    clauses.append(f"at {points.value(point)} as much as {first} {range_of_first}")
                elif len(short) == len(members):
                    beyond.append(point)
            if beyond:
                where = "everywhere" if len(beyond) == len(members) else f"at {points.value(*beyond)}"
                clauses.append(f"{where} more than {first} at any value here")
            if clauses:
                groups_of.setdefault(", ".join(clauses), []).append(group)
        for clause, groups in groups_of.items():
            under = f", with {' or '.join(groups)}," if all(groups) else ""
            yield f"{policy} commits{under} {clause}."


def _phone_rates(results: Run, points: Points) -> Iterator[str]:
    """State the token rate of an answering phone over the sweep, and where it is below half of its highest."""
    clauses = []
    for policy in results.policies:
        rates = points.all(policy, "token_throughput_per_device")
        most = max((low for _, low, _ in rates if np.isfinite(low)), default=np.nan)
        halved = [high < most / 2 for _, _, high in rates]
        half = f" (less than half of its highest{points.where(halved)})" if any(halved) else ""
        clauses.append(f"{policy} {level(points, rates, plain)}{half}")
    yield f"Tokens a second of an answering phone, 1/mean(delay): {'; '.join(clauses)}."


def _promises(results: Run, points: Points) -> Iterator[str]:
    """State where fewer than 95 % of the requests meet the SLO."""
    slo = ", ".join(f"{key} ≤ {value:g}" for key, value in results.scenario.get("slo", {}).items())
    if not slo:
        return
    met = {policy: points.all(policy, "slo_attainment") for policy in results.policies}
    where = points.by_policy(results.policies, lambda point, policy: met[policy][point][2] < PROMISE)
    if where:
        yield f"Of the requests that were decided, fewer than {PROMISE_TEXT} meet the SLO ({slo}) under {where}."
    elif all(low >= PROMISE for estimates in met.values() for _, low, _ in estimates):
        yield f"Of the requests that were decided, at least {PROMISE_TEXT} meet the SLO ({slo}) under every policy."


def _entries(results: Run) -> dict[str, dict[str, Any]]:
    """Return the scenario's own entry for each policy's label; none where a sweep changes the labels."""
    entries = results.scenario.get("policy", [])
    return dict(zip(results.policies, entries, strict=True)) if len(entries) == len(results.policies) else {}
