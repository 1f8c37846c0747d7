"""Sentences on phones that differ: by class, by SNR; and on the energy of a token."""

from collections.abc import Iterator
from math import isfinite

import pandas as pd

from uhlm_sim.analysis.digits import listed
from uhlm_sim.analysis.measures.energy import ENERGY, PARTS
from uhlm_sim.analysis.measures.intervals import RATIO, paired_ratio
from uhlm_sim.analysis.measures.metrics import CLASS
from uhlm_sim.analysis.measures.window import in_window
from uhlm_sim.analysis.report.phrases import course, plain, times
from uhlm_sim.analysis.report.points import NONE, Points, places_of
from uhlm_sim.analysis.run import Run

PHONE_RATE = "token_throughput_per_device"
CONSUMERS = dict(zip(PARTS, ("the phone's computing", "its radio", "the base station's share"), strict=True))
CELL = ["point", "replication"]  # whose phones are where they are under every policy


def classes_of(results: Run) -> list[str]:
    """Return the names of the classes of phones, none without classes."""
    return [str(group["name"]) for group in results.scenario.get("device_class", [])]


def of_class(metric: str, name: str) -> str:
    """Return a metric's name for one class: token_throughput.class.far.ratio_to_first."""
    base = metric.removesuffix(RATIO)
    return f"{base}{CLASS}{name}{metric[len(base) :]}"


def of_classes(results: Run, points: Points) -> Iterator[str]:
    """Say at what rate the phones of each class get their tokens under the first policy, and the ratio under others."""
    first, *others = results.policies
    fixed_policy = {str(group["name"]): group.get("policy") for group in results.scenario.get("device_class", [])}
    for name in classes_of(results):
        rate = course(points, points.all(first, of_class(PHONE_RATE, name)), plain, " tokens a second")
        clauses = [f"under {first} an answering phone gets {rate}"]
        for policy in others:
            ratios = points.all(policy, of_class(f"{PHONE_RATE}{RATIO}", name))
            if all(estimate == (1.0, 1.0, 1.0) for estimate in ratios):
                clauses.append(f"under {policy} as many")
                continue
            chance = ", no difference beyond chance" if all(low <= 1 <= high for _, low, high in ratios) else ""
            clauses.append(f"under {policy} {course(points, ratios, times)} times that{chance}")
        always = f" (always {fixed_policy[name]})" if fixed_policy[name] else ""
        yield f"Phones of class {name}{always}: {'; '.join(clauses)}."


def of_energy(results: Run, points: Points) -> Iterator[str]:
    """State the energy of a token under each policy, by its consumers, as far as their power is known."""
    first, *others = results.policies
    known = [part for part in PARTS if any(isfinite(mean) for mean, _, _ in points.all(first, f"{ENERGY[0]}.{part}"))]
    if not known:
        return
    clauses = []
    for policy in results.policies:
        joules = {part: points.all(policy, f"{ENERGY[0]}.{part}") for part in known}
        parts = [f"{CONSUMERS[part]} {course(points, values, plain, ' J')}" for part, values in joules.items()]
        clauses.append(f"under {policy} {listed(parts)}")
    yield f"Energy of a token: {'; '.join(clauses)}."
    if len(known) < len(PARTS):
        missing = listed([CONSUMERS[part] for part in PARTS if part not in known])
        yield f"The power of {missing} isn't known, so neither is the whole energy of a token."
    elif others:
        ratios = [f"{policy} {course(points, points.all(policy, ENERGY[0] + RATIO), times)}" for policy in others]
        yield f"The whole energy of a token, as a multiple of {first}'s: {'; '.join(ratios)}."


def of_near_and_far(results: Run, points: Points) -> Iterator[str]:
    """Compare the mean TPOT of the quarter of the phones with the lowest SNR and of that with the highest.

    Each class is compared within itself, if its phones differ in SNR. Requests unfinished at the end are left out.
    """
    for name in classes_of(results) or [""]:
        requests = results.requests[results.requests["device_class"] == name] if name else results.requests
        phones = requests.drop_duplicates([*CELL, "device"]).set_index([*CELL, "device"])["mean_snr_db"]
        cells = phones.groupby(CELL)
        size, differ = cells.transform("size"), cells.transform("max") > cells.transform("min")
        rank = cells.rank(method="first")
        far, near = phones[differ & (rank <= size // 4)], phones[differ & (rank > size - size // 4)]
        if far.empty:
            continue
        means_s = _means_s(results, {**dict.fromkeys(far.index, "far"), **dict.fromkeys(near.index, "near")})
        who = f"phones of class {name}" if name else "phones"
        place, with_both = places_of(results), means_s.index.unique("policy")
        ratios = []
        for policy in (name for name in results.policies if name in with_both):
            estimates, of_policy = [NONE] * len(points), means_s.xs(policy, level="policy")
            for point, pairs in of_policy.groupby("point"):
                mean, low, high, _ = paired_ratio(pairs["far"], pairs["near"])
                estimates[place[point]] = float(mean), float(low), float(high)
            far_s, near_s = of_policy["far"].mean(), of_policy["near"].mean()
            both = f", {1e3 * far_s:.0f} ms against {1e3 * near_s:.0f} ms" if len(points) == 1 else ""
            ratios.append(f"{policy} {course(points, estimates, times)}{both}")
        if not ratios:
            continue
        if len(points) == 1:
            count = len(far) // cells.ngroups
            they, take = (who, "take") if count > 1 else (who.replace("phones", "phone"), "takes")
            ends = (
                f"{count} {they} of lowest SNR ({far.min():.3g} to {far.max():.3g} dB) {take}",
                f"{count} of highest ({near.min():.3g} to {near.max():.3g} dB)",
            )
        else:
            ends = f"quarter of the {who} with the lowest SNR takes", "quarter with the highest"
        yield f"For a token (mean TPOT) the {ends[0]} this many times as long as the {ends[1]}: {'; '.join(ratios)}."


def _means_s(results: Run, ends: dict[object, str]) -> pd.DataFrame:
    """Return the mean TPOT [s] at each end, "far" and "near", by point, policy and replication."""
    terms = results.terms
    inside = [
        rows[in_window(rows["arrived_s"], *terms[point][:2])] for point, rows in results.requests.groupby("point")
    ]
    requests = pd.concat(inside)
    gaps = (requests["tokens"] - 1).where(requests["tokens"] > 1)
    tpot_s = (requests["finished_s"] - requests["first_token_s"]) / gaps
    end = pd.Series(pd.MultiIndex.from_frame(requests[[*CELL, "device"]]).map(ends), requests.index, name="end")
    by = [requests["point"], requests["policy"].astype(str), end, requests["replication"]]
    return tpot_s.groupby(by).mean().unstack("end").reindex(columns=["far", "near"]).dropna()
