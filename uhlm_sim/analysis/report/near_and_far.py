"""How much longer phones of little SNR take for a token than those of much: a sentence for all, or for each class."""

from collections.abc import Iterator

import pandas as pd

from uhlm_sim.analysis.measures.intervals import paired_ratio
from uhlm_sim.analysis.measures.metrics import in_window
from uhlm_sim.analysis.report.phrases import course, times
from uhlm_sim.analysis.report.points import NONE, Points, places_of
from uhlm_sim.analysis.report.sentences_of_classes import classes_of
from uhlm_sim.analysis.run import Run

CELL = ["point", "replication"]  # whose phones are where they are under every policy


def of_near_and_far(results: Run, points: Points) -> Iterator[str]:
    """Say how much longer the phones of least SNR take for a token than those of most, a quarter of them each.

    Of each class by itself, where its phones differ in SNR. Left out: answers that aren't whole when the run ends.
    """
    for name in classes_of(results) or [""]:
        asked = results.requests[results.requests["device_class"] == name] if name else results.requests
        phones = asked.drop_duplicates([*CELL, "device"]).set_index([*CELL, "device"])["mean_snr_db"]
        cells = phones.groupby(CELL)
        size, differ = cells.transform("size"), cells.transform("max") > cells.transform("min")
        rank = cells.rank(method="first")
        far, near = phones[differ & (rank <= size // 4)], phones[differ & (rank > size - size // 4)]
        if far.empty:
            continue
        means_s = _means_s(results, {**dict.fromkeys(far.index, "far"), **dict.fromkeys(near.index, "near")})
        who = f"phones of class {name}" if name else "phones"
        place = places_of(results)
        told = []
        for policy in (each for each in results.policies if each in means_s.index.unique("policy")):
            found, of_policy = [NONE] * len(points), means_s.xs(policy, level="policy")
            for point, pairs in of_policy.groupby("point"):
                mean, low, high, _ = paired_ratio(pairs["far"], pairs["near"])
                found[place[point]] = float(mean), float(low), float(high)
            far_s, near_s = of_policy["far"].mean(), of_policy["near"].mean()
            both = f", {1e3 * far_s:.0f} ms against {1e3 * near_s:.0f} ms" if len(points) == 1 else ""
            told.append(f"{policy} {course(points, found, times)}{both}")
        if not told:
            continue
        if len(points) == 1:
            count = len(far) // cells.ngroups
            they, take = (who, "take") if count > 1 else (who.replace("phones", "phone"), "takes")
            ends = (
                f"{count} {they} of least SNR ({far.min():.3g} to {far.max():.3g} dB) {take}",
                f"{count} of most ({near.min():.3g} to {near.max():.3g} dB)",
            )
        else:
            ends = f"quarter of the {who} with least SNR takes", "quarter with most"
        yield f"For a token (mean TPOT) the {ends[0]} this many times as long as the {ends[1]}: {'; '.join(told)}."


def _means_s(results: Run, ends: dict[object, str]) -> pd.DataFrame:
    """Return the mean TPOT [s] at each end, "far" and "near", by point, policy and replication."""
    asked = results.requests[in_window(results.requests["arrived_s"], *results.window_s)]
    tpot_s = (asked["finished_s"] - asked["first_token_s"]) / (asked["tokens"] - 1).where(asked["tokens"] > 1)
    end = pd.Series(pd.MultiIndex.from_frame(asked[[*CELL, "device"]]).map(ends), asked.index, name="end")
    by = [asked["point"], asked["policy"].astype(str), end, asked["replication"]]
    return tpot_s.groupby(by).mean().unstack("end").reindex(columns=["far", "near"]).dropna()
