"""Which policy is fastest at each point of a sweep, among those whose answers are near enough to the LLM's."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from uhlm_sim.analysis.measures.intervals import paired_ratio, student_t
from uhlm_sim.errors import InputError, did_you_mean

MOST_ERROR = 0.05  # total variation distance of a token's law from the LLM's
FLOORS = ("task_accuracy", "quality_cosine", "quality_cosine_reference")  # of which more is better
RATE = "token_throughput_per_device"
COLUMNS = ["best", "rate", "rate_low", "rate_high", "second", "lead", "lead_low", "lead_high", "unbeaten"]


def winners(
    replications: pd.DataFrame,
    keys: Sequence[str] = (),
    *,
    metric: str = RATE,
    most_error: float = MOST_ERROR,
    least_shares: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Return a row a point: its ``point`` and keys, and which policy has the largest mean of a metric there.

    Only policies take part whose mean distribution_error is at most ``most_error``, and whose mean of each metric of
    ``least_shares``, such as task_accuracy, is at least that share of what the LLM's law gives: the mean of the
    policies whose distribution_error is 0, which keep every floor. Means are compared, not intervals. One of which
    something of this, or the rate, isn't known has no part. ``best`` has the ``rate`` with its interval, ``second``
    is the next one, and ``lead`` the ratio of both, paired by replication, with its 95 % interval (`paired_ratio`).
    ``unbeaten`` is a tuple of labels, ``best`` first, that no other leads beyond chance. Points without such a
    policy are left out; where there is one alone ``second`` is "" and its lead NaN. Raises InputError for a floor on
    a metric that isn't there.
    """
    floors = least_shares or {}
    for name, share in floors.items():
        if name not in FLOORS:
            raise InputError(f"least_shares: '{name}' is not one of {', '.join(FLOORS)}{did_you_mean(name, FLOORS)}")
        if not isinstance(share, int | float) or not 0.0 <= share <= 1.0:
            raise InputError(f"least_shares: {name} = {share!r}; it must be a share, 0 to 1")
    rows = []
    for number, at in replications.groupby("point", sort=False):
        errors = at[at["metric"] == "distribution_error"].groupby("policy", sort=False)["value"].mean()
        near = [str(policy) for policy in errors.index[errors <= most_error]]
        exact = errors.index[errors == 0.0]
        for name, share in floors.items():
            means = at[at["metric"] == name].groupby("policy", sort=False)["value"].mean()
            least = share * means.reindex(exact).mean()
            near = [policy for policy in near if policy in exact or means.get(policy, np.nan) >= least]
        table = at[(at["metric"] == metric) & at["policy"].isin(near)]
        rates = table.pivot(index="replication", columns="policy", values="value").dropna(axis="columns", how="all")
        order = [str(policy) for policy in rates.mean().sort_values(ascending=False, kind="stable").index]
        if not order:
            continue
        second, *_ = [*order[1:], ""]
        lead = [float(x) for x in paired_ratio(rates[order[0]], rates[second])[:3]] if second else [float("nan")] * 3
        values = [at[key].iloc[0] for key in keys]
        rate = [float(x) for x in student_t(rates[order[0]])[:3]]
        rows.append([number, *values, order[0], *rate, second, *lead, unbeaten(rates[order])])
    return pd.DataFrame(rows, columns=["point", *keys, *COLUMNS])


def unbeaten(rates: pd.DataFrame) -> tuple[str, ...]:
    """Return the columns that no other one leads beyond chance: a row for each replication, which pairs them."""
    values = {str(policy): rates[policy] for policy in rates}
    return tuple(
        policy
        for policy, its in values.items()
        if not any(paired_ratio(other, its)[1] > 1 for name, other in values.items() if name != policy)
    )
