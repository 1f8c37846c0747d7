"""Sentences on who is fastest, point by point, among the policies near enough to the LLM's law."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from uhlm_sim.analysis.digits import listed
from uhlm_sim.analysis.measures.winners import MOST_ERROR, winners
from uhlm_sim.analysis.report.headline import Estimate
from uhlm_sim.analysis.report.phrases import plain
from uhlm_sim.analysis.report.points import Points, places_of
from uhlm_sim.analysis.run import Run


def of_winners(results: Run, points: Points) -> Iterator[str]:
    """Say where each policy leads the others beyond chance, by how much, and where chance leaves it open."""
    table = winners(results.replications)
    table = table[table["second"] != ""]
    if table.empty or table["lead_low"].isna().all():
        return
    place = places_of(results)
    leads: dict[tuple[int, str], Estimate] = {
        (place[row["point"]], row["best"]): (row["lead"], row["lead_low"], row["lead_high"])
        for row in table.to_dict("records")
        if len(row["unbeaten"]) == 1
    }
    clauses = []
    for policy in dict.fromkeys(policy for _, policy in leads):
        where = points.where([(point, policy) in leads for point in range(len(points))])
        ratios = [plain(lead) for (_, name), lead in sorted(leads.items(), key=lambda item: item[1]) if name == policy]
        next_ones = set(table.loc[table["best"] == policy, "second"])
        whose = f"{next(iter(next_ones))}'s rate" if len(next_ones) == 1 else "the next one's"
        clauses.append(f"{policy}{where} ({' to '.join(dict.fromkeys([ratios[0], ratios[-1]]))} times {whose})")
    what = (
        f"Of the policies within a total variation distance of {MOST_ERROR:g} a token of the LLM's law, an answering "
    )
    what += "phone gets its tokens fastest, by 1/mean(delay), under"
    if clauses:
        yield f"{what} {'; '.join(clauses)}."
    tied = table[table["unbeaten"].map(len) > 1]
    if not tied.empty:
        yield f"Chance leaves open which is fastest{_where_open(tied, place, points)}."


def _where_open(tied: pd.DataFrame, place: dict[Any, int], points: Points) -> str:
    """Say at which points, and between which policies; of many different sets only where."""
    at = {place[number] for number in tied["point"]}
    where = points.where([point in at for point in range(len(points))])
    sets = {tuple(sorted(names)) for names in tied["unbeaten"]}
    between = f", between {listed(list(*sets))}" if len(sets) == 1 else ""
    return f"{where}{between}"
