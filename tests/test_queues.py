"""The queue at each station: by hand, beside the stations' own counters, and beside theory."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up_run import run as made_up
from product_form import UPLOAD_S, VERIFY_S, mean_present

from uhlm_sim.analysis.results import Results
from uhlm_sim.experiment import run
from uhlm_sim.scenario import Scenario
from uhlm_sim.scenario_file import parse_scenario
from uhlm_sim.tables import LEGS

PRESENT = {"uplink": "uplink_present", "GPUs": "bs_present", "downlink": "downlink_present"}
SHARES = ("time_share", "seen_share")
OPEN_RATE = 30.0  # requests a second of a whole cell


def simulated(scenario: Scenario) -> Results:
    return run(scenario, jobs=1, allow_plugins=True)


def one_by_one(results: Results) -> list[Results]:
    """Return the replications of a run, each as a run of its own."""
    assert results.rounds is not None
    numbers = results.replications["replication"].unique()
    return [
        replace(
            results, **{name: _of(getattr(results, name), number) for name in ("rounds", "requests", "replications")}
        )
        for number in numbers
    ]


def _of(table: pd.DataFrame, number: int) -> pd.DataFrame:
    return table[table["replication"] == number]


def by_hand(*rounds: tuple[float, ...], duration_s: float = 10.0) -> Results:
    """Return a run of one policy in two replications whose rounds are given: replication, start and legs."""
    tables = made_up(replications=2)
    rows = pd.DataFrame(rounds, columns=["replication", "started_s", *LEGS])
    rows = rows.assign(point=0, policy="hlm", decision="send", payload_bits=8.0)
    return replace(tables, rounds=rows, scenario={**tables.scenario, "warmup_s": 0.0, "duration_s": duration_s})


def test_what_is_there_over_time_and_what_an_arrival_meets() -> None:
    """Uploads from 1 to 4 and 2 to 4 s, and one from 9 s on that isn't over; in the other replication nothing."""
    over, under_way = (1.0, 0.0, 1.0, 0.0), (*[np.nan] * 5,)
    cell = by_hand((0, 1.0, 0.0, 2.0, *over), (0, 1.5, 0.5, 1.0, *over), (0, 9.0, 0.0, *under_way))
    uplink = cell.queues().set_index("station").loc["uplink"]
    assert uplink["rate_per_s"] == pytest.approx(3 / 20)
    assert [uplink[name] for name in ("wait_s.mean", "wait_s.p50", "stay_s")] == pytest.approx([1.5, 1.5, 2.5])
    assert [uplink[name] for name in ("seen.mean", "seen.p95", "present.mean", "present.p95")] == pytest.approx(
        [1 / 3, 1, 6 / 20, 2]
    )
    lengths = cell.queue_lengths()
    shares = lengths[lengths["station"] == "uplink"][["present", "time_share", "seen_share"]]
    assert shares.to_numpy().tolist() == [[0, 0.8, pytest.approx(2 / 3)], [1, 0.1, pytest.approx(1 / 3)], [2, 0.1, 0.0]]


def test_who_leaves_as_another_comes_isnt_met_and_of_those_who_come_together_each_meets_the_ones_before() -> None:
    legs = (0.0, 0.5, 0.5, 0.0, 1.0, 0.0)
    lengths = by_hand((0, 0.1, 0.2, *legs[1:]), (0, 1.3, *legs), (0, 1.3, *legs), (0, 1.3, *legs)).queue_lengths()
    seen = lengths[lengths["station"] == "uplink"]["seen_share"]
    assert seen.tolist() == pytest.approx([0.5, 0.25, 0.25, 0.0])


@pytest.fixture(scope="module")
def detailed(trace_file: Path) -> Results:
    """Open arrivals in a cell where uploads need access, the downlink is shared and jobs are split into chunks."""
    values = {
        "name": "detailed",
        "replications": 3,
        "duration_s": 25.0,
        "warmup_s": 5.0,
        "traffic": {"kind": "poisson", "devices": 5, "rate_per_s": 0.5, "max_tokens": 8},
        "tokens": {"kind": "trace", "path": str(trace_file)},
        "device": {"slm_token_s": 0.02, "slm_prefill_token_s": 0.002},
        "uplink": {"bandwidth_hz": 8e3, "access_s": 0.01},
        "downlink": {"kind": "shared", "bandwidth_hz": 200.0},
        "base_station": {"service": {"c_s": 0.02, "s_s_per_token": 0.001}, "max_batch": 4, "chunk_tokens": 8},
        "policy": [{"kind": "hlm"}, {"kind": "u-hlm", "threshold": 0.43}, {"kind": "llm"}],
    }
    return simulated(parse_scenario(values))


def test_the_records_have_as_many_at_each_station_as_it_counts_itself(detailed: Results) -> None:
    table = detailed.queues()
    assert len(table) == 4 * 3, "uplink, GPUs, downlink and phones of three policies"
    for row in table[table["station"].isin(PRESENT)].to_dict("records"):
        counted = detailed.mean(row["policy"], PRESENT[row["station"]])
        cut_s = 5 * 0.005 if row["station"] == "downlink" else 0.0  # answers on their way at the end: there till then
        assert [row[f"present.mean{end}"] for end in ("", "_low", "_high")] == pytest.approx(
            [counted.mean, counted.ci95_low, counted.ci95_high], rel=1e-6, abs=cut_s / 20.0
        )
    for row in table[table["station"] == "phones"].to_dict("records"):
        assert 5 * row["present.mean"] == pytest.approx(detailed.mean(row["policy"], "requests_present").mean, rel=1e-6)
        assert row["wait_s.mean"] == pytest.approx(detailed.mean(row["policy"], "phone_wait_s").mean, rel=0.1)


def test_littles_law_holds_at_each_station(detailed: Results) -> None:
    """N = lambda T, but for the stays that the ends of the window cut: at most a few of hundreds."""
    table = detailed.queues()
    assert table["present.mean"].min() > 0
    np.testing.assert_allclose(table["rate_per_s"] * table["stay_s"], table["present.mean"], rtol=0.05)


def test_a_row_of_the_distribution_has_the_means_of_the_table(detailed: Results) -> None:
    lengths, table = detailed.queue_lengths(), detailed.queues().set_index(["policy", "station"])
    for key, one in lengths.groupby(["policy", "station"]):
        assert one[["time_share", "seen_share"]].sum().tolist() == pytest.approx([1.0, 1.0])
        means = [(one["present"] * one[share]).sum() for share in ("time_share", "seen_share")]
        assert means == pytest.approx(table.loc[key, ["present.mean", "seen.mean"]].tolist())


@pytest.fixture
def open_cell(closed_cell: Scenario) -> Results:
    """So many phones that requests hardly ever wait for one: uploads of one draft each are a Poisson process."""
    phones = {"kind": "poisson", "devices": 300, "rate_per_s": OPEN_RATE / 300, "max_tokens": 1}
    traffic = closed_cell.traffic.model_copy(update=phones)
    return simulated(closed_cell.model_copy(update={"traffic": traffic, "duration_s": 45.0, "replications": 8}))


def test_poisson_arrivals_see_time_averages_and_both_are_geometric(open_cell: Results) -> None:
    """P(N >= n) = rho^n at a processor-sharing uplink, whatever its sizes, and at an exponential GPU after it."""
    by_replication = [one.queue_lengths() for one in one_by_one(open_cell)]
    for station, load in (("uplink", OPEN_RATE * UPLOAD_S), ("GPUs", OPEN_RATE * VERIFY_S)):
        tails = np.zeros((len(by_replication), 2, 3))
        for row, table in zip(tails, by_replication, strict=True):
            one = table[table["station"] == station]
            row[:] = [[one.loc[one["present"] >= n, share].sum() for n in (1, 2, 3)] for share in SHARES]
        error, theory = tails.std(axis=0, ddof=1) / len(tails) ** 0.5, load ** np.array([1, 2, 3])
        assert (error < 0.15 * theory).all(), "enough to tell"
        assert (np.abs(tails.mean(axis=0) - theory) < 4 * error).all()
        apart = tails[:, 0] - tails[:, 1]
        error = apart.std(axis=0, ddof=1) / len(tails) ** 0.5
        assert (error < 0.02).all()
        assert (np.abs(apart.mean(axis=0)) < 4 * error).all()


def test_a_job_of_a_closed_cell_meets_the_cell_with_one_phone_less(closed_cell: Scenario) -> None:
    """Over time there are as many as mean value analysis says of N phones; a job meets as many as it says of N - 1."""
    phones = 2
    traffic = closed_cell.traffic.model_copy(update={"devices": phones})
    cell = closed_cell.model_copy(update={"traffic": traffic, "duration_s": 100.0})
    table = simulated(cell).queues().set_index("station")
    for station, all_phones in mean_present(phones).items():
        others = mean_present(phones - 1)[station]
        for name, theory in (("present.mean", all_phones), ("seen.mean", others)):
            half = (table.loc[station, f"{name}_high"] - table.loc[station, f"{name}_low"]) / 2
            assert abs(table.loc[station, name] - theory) < 1.8 * half  # 4 standard errors
            assert 2.5 * half < all_phones - others, "enough to tell one phone less"
