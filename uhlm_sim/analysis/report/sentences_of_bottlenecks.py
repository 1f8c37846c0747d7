"""Sentences on which station limits which policies."""

from collections.abc import Iterator, Sequence

import pandas as pd

from uhlm_sim.analysis.digits import listed
from uhlm_sim.analysis.measures.bottleneck import FULL, PHONES, STATIONS, bottleneck_table
from uhlm_sim.analysis.report.points import Points
from uhlm_sim.analysis.run import Run


def limits(results: Run, points: Points) -> Iterator[str]:
    """Name the station that limits each policy, where it does, and how near it is to its bound.

    In a closed loop a station limits, or none does: then the phones' own work and thinking take the time. With open
    arrivals the load limits a cell that keeps up; then the station that fills first as arrivals grow is named, which
    may be the phones themselves, for each answers one request at a time.
    """
    table = bottleneck_table(results)
    is_open = [terms.is_open for terms in results.terms.values()]
    by_limit: dict[tuple[tuple[str, ...], bool, bool], pd.DataFrame] = {}
    for _, rows in table.groupby(["point", "policy"], sort=False) if len(table) else ():
        limiting = rows[rows["limits"]]
        open_here = is_open[int(rows["point"].iloc[0])]
        would_be = open_here and bool(limiting["load"].iloc[0] < FULL)
        key = (tuple(limiting["station"]), open_here, would_be)
        by_limit[key] = pd.concat([by_limit.get(key, rows.head(0)), rows])
    order = [station.name for station in STATIONS] + [PHONES]
    for key in sorted(by_limit, key=lambda key: (len(key[0]), [order.index(name) for name in key[0]], key[1:])):
        names, open_here, would_be = key
        rows = by_limit[key]
        here = set(zip(rows["point"], rows["policy"], strict=True))
        where = points.by_policy(results.policies, lambda *at, here=here: at in here)
        if open_here or PHONES not in names:
            yield _sentence(names, where, rows, would_be=would_be)
        else:
            yield _perhaps(names, where, rows) if len(names) > 1 else _no_station(where, rows)


def _perhaps(names: Sequence[str], where: str, rows: pd.DataFrame) -> str:
    """Say that a closed loop's phones are as near to their bound as stations are to theirs."""
    stations = [station for station in STATIONS if station.name in names]
    which = " or ".join(f"the {station.name}" for station in stations)
    limit = "limit" if stations[-1].are == "are" else "limits"
    near = _span(rows.loc[rows["station"].isin([station.name for station in stations]), "load"])
    return f"Chance leaves open whether {which} {limit} {where}, at {near} of what could be carried."


def _no_station(where: str, rows: pd.DataFrame) -> str:
    """Say that no station limits, the share of a token's time that is waiting, and how near the nearest is."""
    others = rows[rows["station"] != PHONES]
    waits = others.groupby(["point", "policy"])["wait_share"].sum() if len(others) else pd.Series([0.0])
    sentence = f"No station limits {where}: {_span(waits)} of a token's time is waiting for one"
    if others.empty:
        return f"{sentence}."
    sentence += f", and none is above {100 * others['load'].max():.0f} % of what it can carry"
    gpus = others[others["station"] == "GPUs"]
    is_busier = len(gpus) and gpus["utilisation"].max() > others["load"].max()
    busy = f" (the GPUs, with small batches, are busy up to {100 * gpus['utilisation'].max():.0f} % of the time)"
    return f"{sentence}{busy if is_busier else ''}."


def _sentence(names: Sequence[str], where: str, rows: pd.DataFrame, *, would_be: bool) -> str:
    stations = [station for station in STATIONS if station.name == names[0]]
    its = rows[rows["station"] == names[0]]
    is_many = len(names) > 1 or not stations or stations[0].are == "are"
    subject = listed([f"the {name}" if name != PHONES else "the phones themselves" for name in names])
    it, it_is = ("they", "they are") if is_many else ("it", "it is")
    near = f"{it_is} at {_span(rows.loc[rows['station'].isin(names), 'load'])} of what {it} can carry."
    if len(names) > 1:
        first = "As arrivals grow, the first bottleneck" if would_be else "The bottleneck"
        which = " or ".join(subject.rsplit(" and ", 1))
        return f"{first} is {which}, too close to tell apart, under {where}: {near}"
    if would_be:
        return f"As arrivals grow, {subject} would be the first to limit {where}: {near}"
    sentence = f"{subject[0].upper()}{subject[1:]} {'limit' if is_many else 'limits'} {where}"
    if not stations:
        return f"{sentence}: each answers one request at a time, and {near}"
    pace = f" at {_span(its['load'] / its['utilisation'])} of a full batch's pace" if stations[0].batch else ""
    sentence += f": {it_is} busy {_span(its['utilisation'])} of the time{pace}"
    waits = f", and {_span(its['wait_share'])} of a token's time is waiting for {'them' if is_many else 'it'}."
    return f"{sentence}{waits if its['wait_share'].notna().any() else '.'}"


def _span(shares: pd.Series) -> str:
    low, high = (f"{100 * value:.0f}" for value in (shares.min(), shares.max()))
    return f"{high} %" if low == high else f"{low} to {high} %"
