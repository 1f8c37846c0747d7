"""What each class of phones gets, and what a token costs in joules: sentences, and the classes' table."""

from collections.abc import Iterator
from math import isfinite

from uhlm_sim.analysis.digits import listed
from uhlm_sim.analysis.measures.energy import ENERGY, PARTS
from uhlm_sim.analysis.measures.intervals import RATIO
from uhlm_sim.analysis.measures.metrics import CLASS
from uhlm_sim.analysis.report.phrases import course, plain, times
from uhlm_sim.analysis.report.points import Points
from uhlm_sim.analysis.run import Run

RATE = "token_throughput_per_device"
WORDS = dict(zip(PARTS, ("the phone's computing", "its radio", "the base station's share"), strict=True))


def classes_of(results: Run) -> list[str]:
    """Return the names of the classes of phones, none without classes."""
    return [str(each["name"]) for each in results.scenario.get("device_class", [])]


def of_class(metric: str, name: str) -> str:
    """Return a metric's name for one class: token_throughput.class.far.ratio_to_first."""
    base = metric.removesuffix(RATIO)
    return f"{base}{CLASS}{name}{metric[len(base) :]}"


def of_classes(results: Run, points: Points) -> Iterator[str]:
    """Say how fast the phones of each class get their tokens, and what another policy does to them."""
    first, *others = results.policies
    own = {str(each["name"]): each.get("policy") for each in results.scenario.get("device_class", [])}
    for name in classes_of(results):
        rate = course(points, points.all(first, of_class(RATE, name)), plain, " tokens a second")
        told = [f"under {first} an answering phone gets {rate}"]
        for policy in others:
            found = points.all(policy, of_class(f"{RATE}{RATIO}", name))
            if all(estimate == (1.0, 1.0, 1.0) for estimate in found):
                told.append(f"under {policy} as many")
                continue
            chance = all(low <= 1 <= high for _, low, high in found)
            told.append(f"under {policy} {course(points, found, times)} times that" + (", by chance" if chance else ""))
        always = f" (always {own[name]})" if own[name] else ""
        yield f"Phones of class {name}{always}: {'; '.join(told)}."


def of_energy(results: Run, points: Points) -> Iterator[str]:
    """Say what a token costs in joules and where they go, as far as powers are known."""
    first, *others = results.policies
    known = [part for part in PARTS if any(isfinite(mean) for mean, _, _ in points.all(first, f"{ENERGY[0]}.{part}"))]
    if not known:
        return
    told = []
    for policy in results.policies:
        parts = [
            f"{WORDS[part]} {course(points, points.all(policy, f'{ENERGY[0]}.{part}'), plain, ' J')}" for part in known
        ]
        told.append(f"under {policy} {listed(parts)}")
    yield f"Energy of a token: {'; '.join(told)}."
    if len(known) < len(PARTS):
        missing = listed([WORDS[part] for part in PARTS if part not in known])
        yield f"The energy of {missing} isn't known, for want of its power, so neither is the whole."
    elif others:
        ratios = [f"{policy} {course(points, points.all(policy, ENERGY[0] + RATIO), times)}" for policy in others]
        yield f"All of it together, in times of {first}'s: {'; '.join(ratios)}."
