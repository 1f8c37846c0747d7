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
    by_limit: dict[tuple[str, ...], pd.DataFrame] = {}
    undecided = table.head(0)
    for _, rows in table.groupby(["point", "policy"], sort=False) if len(table) else ():
        names = tuple(rows.loc[rows["limits"], "station"])
        if len(names) > 1 and PHONES in names and not is_open[int(rows["point"].iloc[0])]:
            undecided = pd.concat([undecided, rows])
        else:
            by_limit[names] = pd.concat([by_limit.get(names, rows.head(0)), rows])
    order = [station.name for station in STATIONS] + [PHONES]
    for names in sorted(by_limit, key=lambda names: (len(names), [order.index(name) for name in names])):
        for would_be in (False, True):
            rows = by_limit[names]
            its = rows[rows["station"] == names[0]]
            its = its[(its["point"].map(is_open.__getitem__) & (its["load"] < FULL)) == would_be]
            here = set(zip(its["point"], its["policy"], strict=True))
            where = points.by_policy(results.policies, lambda *key, here=here: key in here)
            rows = rows[[key in here for key in zip(rows["point"], rows["policy"], strict=True)]]
            if where and names == (PHONES,) and not its["point"].map(is_open.__getitem__).all():
                yield _no_station(where, rows)
            elif where:
                yield _sentence(names, where, rows, would_be=would_be)
    if len(undecided):
        here = set(zip(undecided["point"], undecided["policy"], strict=True))
        near = undecided[undecided["limits"] & (undecided["station"] != PHONES)]
        stations = [station for station in STATIONS if station.name in set(near["station"])]
        which = " or ".join(f"the {station.name}" for station in stations)
        limit = "limit" if stations[-1].are == "are" else "limits"
        where = points.by_policy(results.policies, lambda *key: key in here)
        yield f"Chance leaves open whether {which} {limit} {where}, at {_span(near['load'])} of what could be carried."


def _no_station(where: str, rows: pd.DataFrame) -> str:
    """Say that none limits a closed loop, what its tokens wait for nevertheless, and how near the nearest is."""
    phones, others = rows[rows["station"] == PHONES], rows[rows["station"] != PHONES]
    sentence = f"No station limits {where}: tokens wait for one {_span(phones['wait_share'])} of their time"
    if others.empty:
        return f"{sentence}."
    sentence += f", and none is above {100 * others['load'].max():.0f} % of what it could carry in full batches"
    gpus = others[others["station"] == "GPUs"]
    is_busier = len(gpus) and gpus["utilisation"].max() > others["load"].max()
    busy = f" (the GPUs are busy up to {100 * gpus['utilisation'].max():.0f} % of the time)" if is_busier else ""
    return f"{sentence}{busy}."


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
