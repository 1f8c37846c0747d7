"""Who is fastest: the policy with the most tokens a second among those near enough to the LLM's law."""

import json

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from uhlm_sim.analysis.figures.winner_map import draw_winners
from uhlm_sim.analysis.measures.winners import RATE, winners
from uhlm_sim.errors import InputError

KEYS = ["channel.mean_snr_db", "traffic.devices"]


def replications(rates: dict[str, list[float]], errors: dict[str, float], point: int = 0, **at: float) -> pd.DataFrame:
    """Return the rows of one point: each policy's rate in each replication, and its distance from the LLM's law."""
    rows = [
        {"point": point, **at, "policy": policy, "replication": number, "metric": metric, "value": value}
        for policy, values in rates.items()
        for number, rate in enumerate(values)
        for metric, value in ((RATE, rate), ("distribution_error", errors[policy]))
    ]
    return pd.DataFrame(rows)


def test_a_policy_too_far_from_the_llm_or_of_unknown_distance_has_no_part() -> None:
    rates = {
        "llm": [10.0, 11.0, 9.0],
        "far": [30.0, 30.0, 30.0],
        "unknown": [40.0, 40.0, 40.0],
        "near": [5.0, 5.5, 4.5],
    }
    table = winners(replications(rates, {"llm": 0.0, "far": 0.2, "unknown": np.nan, "near": 0.04}))
    assert table.loc[0, ["best", "second", "unbeaten"]].tolist() == ["llm", "near", ("llm",)]
    assert table.loc[0, "lead"] == pytest.approx(2.0)
    assert table.loc[0, "lead_low"] == pytest.approx(2.0), "paired: the ratio is 2 in each replication"
    alone = winners(replications({"far": [1.0, 2.0]}, {"far": 0.2}))
    assert alone.empty


def test_a_floor_on_task_accuracy_is_a_share_of_what_the_llms_law_gives() -> None:
    """The LLM solves 0.60 and HLM 0.64, so 0.9 of their law's 0.62 is 0.558."""
    solved = {"llm": 0.60, "hlm": 0.64, "near": 0.56, "far": 0.50, "unknown": np.nan}
    rates = {name: [10.0 * place, 11.0 * place] for place, name in enumerate(solved, 1)}
    tables = replications(rates, {"llm": 0.0, "hlm": 0.0, "near": 0.1, "far": 0.1, "unknown": 0.1})
    accuracy = tables[tables["metric"] == RATE].assign(metric="task_accuracy")
    accuracy["value"] = accuracy["policy"].map(solved)
    both = pd.concat([tables, accuracy])
    floors: list[dict[str, float]] = [{}, {"task_accuracy": 0.9}, {"task_accuracy": 0.99}]
    best = [winners(both, most_error=1.0, least_shares=floor).loc[0, "best"] for floor in floors]
    assert best == ["unknown", "near", "hlm"], "what has the LLM's law keeps every floor"
    with pytest.raises(InputError, match=r"'task_acuracy' is not one of task_accuracy, .*did you mean"):
        winners(both, least_shares={"task_acuracy": 0.9})
    with pytest.raises(InputError, match="task_accuracy = 95; it must be a share, 0 to 1"):
        winners(both, least_shares={"task_accuracy": 95})


def test_a_lead_that_chance_may_have_made_is_told_as_open() -> None:
    rng = np.random.default_rng(1)
    opens = 0
    for _ in range(200):
        rates = {name: (10 + rng.standard_normal(5)).tolist() for name in ("one", "other")}
        opens += len(winners(replications(rates, {"one": 0.0, "other": 0.0})).loc[0, "unbeaten"]) > 1
    assert 180 < opens < 198, "at 95 % two equal ones are told apart in a twentieth of all cases"


def test_each_cell_of_the_map_has_the_colour_of_its_fastest_and_its_lead() -> None:
    fast, slow = [20.0, 20.5, 19.5], [10.0, 10.2, 9.8]
    tables = [
        replications(
            {"llm": fast, "hlm": slow}, {"llm": 0.0, "hlm": 0.0}, 0, **dict(zip(KEYS, (0.0, 10), strict=True))
        ),
        replications(
            {"llm": slow, "hlm": fast}, {"llm": 0.0, "hlm": 0.0}, 1, **dict(zip(KEYS, (0.0, 50), strict=True))
        ),
    ]
    ax = Figure().subplots()
    draw_winners(ax, winners(pd.concat(tables), KEYS), {"llm": "#000000", "hlm": "#0072b2"})
    assert [text.get_text() for text in ax.texts] == ["2.00", "2.00"]
    shown = [(cell.get_y(), cell.get_gid()) for cell in ax.patches if isinstance(cell, Rectangle)]
    assert [y for y, _ in shown] == [-0.5, 0.5]
    assert ax.yaxis_inverted()
    upper, lower = (json.loads(str(mark)) for _, mark in shown)
    policy, [[at, [[metric, rate, *_]]]] = upper
    assert (policy, at, metric, rate) == ("hlm", "0 dB and 50 phones", "token_throughput_per_device", 20.0)
    assert lower[0] == "llm", "numbers grow upwards"
