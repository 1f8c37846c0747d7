"""Figures draw what their table says: the numbers are read back from the artists."""

import math
import sys
import warnings

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from uhlm_sim.analysis.figures import bars, batches, ecdf, legs, queues, throughput, uncertainty_law
from uhlm_sim.analysis.figures.style import LEG_COLOURS, RC, looks, save
from uhlm_sim.tables import LEGS

pytestmark = pytest.mark.usefixtures("rendered")
POLICIES = ["hlm", "u-hlm(0.43)", "slm"]
METRICS = ("token_throughput", *throughput.READINGS)
UNIT = {"token_throughput": "tokens/s"}


def summary(values, half=1.0):
    """One row per policy and metric from {metric: [a mean per policy]}."""
    rows = [
        (policy, metric, UNIT.get(metric, "s"), mean, mean - half, mean + half, 8)
        for metric, means in values.items()
        for policy, mean in zip(POLICIES, means, strict=True)
    ]
    return pd.DataFrame(rows, columns=["policy", "metric", "unit", "mean", "ci95_low", "ci95_high", "replications"])


def axes():
    return Figure().subplots()


def rounds(*rows):
    return pd.DataFrame(
        rows, columns=["policy", "replication", "started_s", "committed_s", "decision", "payload_bits", *LEGS]
    )


def tokens(*rows):
    columns = ["policy", "replication", "started_s", "committed_s", "decision", "payload_bits", *LEGS]
    return pd.DataFrame(rows, columns=columns)


def test_bars_are_as_long_as_the_means_and_lines_as_the_intervals():
    ax = axes()
    bars.draw_metric(ax, summary({"token_throughput": [100, 150, 180]}), "token_throughput", looks(POLICIES))
    assert [bar.get_width() for bar in ax.patches] == [100, 150, 180]
    intervals = [list(line[:, 0]) for lines in ax.collections for line in lines.get_segments()]
    assert intervals == [ends for ends in ([99, 101], [149, 151], [179, 181]) for _ in range(2)], "white behind black"
    assert [label.get_text() for label in ax.get_yticklabels()] == POLICIES
    assert ax.get_ylim()[0] > ax.get_ylim()[1], "the first policy is on top"
    assert ax.get_xlabel() == "tokens/s"
    assert ax.get_xlim()[0] == 0


def test_both_readings_of_a_phones_rate_stand_side_by_side():
    ax = axes()
    table = summary({"token_throughput_per_device": [8, 12, 19], "mean_token_rate": [8, 15, 19]})
    throughput.draw_token_rates(ax, table, looks(POLICIES))
    assert [bar.get_width() for bar in ax.patches] == [8, 12, 19, 8, 15, 19]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["1/mean(delay)", "mean(1/delay)"]


def test_one_replication_draws_bars_without_intervals():
    table = summary({"token_throughput": [1.0, math.nan, 3.0]}, half=math.nan)
    ax = axes()
    bars.draw_metric(ax, table, "token_throughput", looks(POLICIES))
    assert ax.patches[0].get_width() == 1.0
    assert len(ax.texts) == 2, "no value, no number"


def test_legs_stack_up_to_the_time_of_a_token():
    table = summary({leg: [0.01 * (i + 1), 0.0, 0.005] for i, leg in enumerate(LEGS)})
    ax = axes()
    legs.draw_legs(ax, table)
    first = [container.patches[0] for container in ax.containers]
    assert [bar.get_width() for bar in first] == pytest.approx([10, 20, 30, 40, 50, 60])
    assert first[-1].get_x() + first[-1].get_width() == pytest.approx(210)
    assert [to_hex(bar.get_facecolor()) for bar in first] == [LEG_COLOURS[leg][1] for leg in LEGS]
    assert [text.get_text() for text in ax.texts] == ["210", "0", "30"]


def test_a_small_sample_is_drawn_whole():
    table = ecdf.ecdf_table(pd.DataFrame({"policy": "hlm", "delay_s": [0.3, math.nan, 0.1, 0.2, 0.2]}), "delay_s")
    assert list(table["delay_s"]) == [0.1, 0.2, 0.2, 0.3]
    assert list(table["share"]) == [0.25, 0.5, 0.75, 1.0]
    ax = axes()
    ecdf.draw_ecdf(ax, table, "delay_s", looks(["hlm"]))
    x, y = ax.lines[0].get_data()
    assert list(zip(x, y, strict=True))[:3] == [(0.1, 0.0), (0.1, 0.25), (0.2, 0.5)]


def test_a_large_sample_is_thinned_to_points_that_lie_on_its_curve():
    values = np.random.default_rng(1).exponential(size=100_000)
    table = ecdf.ecdf_table(pd.DataFrame({"policy": "hlm", "x": values}), "x")
    assert len(table) == 400
    assert list(table["share"]) == pytest.approx([np.mean(values <= x) for x in table["x"]])
    assert (table["x"].iloc[0], table["x"].iloc[-1]) == (values.min(), values.max())
    assert table["share"].diff().max() < 1.1 / 400


def test_nothing_to_draw_is_no_error():
    assert ecdf.ecdf_table(pd.DataFrame({"policy": [], "x": []}), "x").empty
    assert queues.queue_table(rounds(), 10.0).empty


def test_jobs_present_are_counted_at_each_station_for_as_long_as_they_stay():
    """At the uplink from 1 to 3 s, at the base station from 3 to 4 s; and one upload that isn't over at the end."""
    table = queues.queue_table(
        rounds(
            ("hlm", 0, 0.5, 4.5, "send", 8, 0.5, 1.5, 0.5, 0.25, 0.75, 0.5),
            ("hlm", 0, 8.0, math.nan, "send", 8, 0.5, math.nan, math.nan, math.nan, math.nan, math.nan),
            ("hlm", 0, 2.0, 2.5, "skip", 0, 0.5, 0, 0, 0, 0, 0),
        ),
        duration_s=10.0,
        bins=10,
    )
    uplink, base = (table[table["station"] == name]["mean"].to_list() for name in ("uplink", "base_station"))
    assert uplink == pytest.approx([0, 1, 1, 0, 0, 0, 0, 0, 0.5, 1])
    assert base == pytest.approx([0, 0, 0, 1, 0, 0, 0, 0, 0, 0])
    assert table["time_s"].iloc[0] == 0.5


def test_queues_are_averaged_over_replications():
    one = ("hlm", 0, 0.0, 4.0, "send", 8, 1.0, 1.0, 1.0, 0.0, 1.0, 0.0)
    table = queues.queue_table(rounds(one, ("hlm", 1, *one[2:]), ("hlm", 1, *one[2:])), 4.0, bins=4)
    uplink = table[table["station"] == "uplink"]
    assert list(uplink["mean"]) == [0, 1.5, 1.5, 0]
    assert list(uplink["ci95_high"] - uplink["mean"] > 0) == [False, True, True, False]
    ax = axes()
    queues.draw_queue(ax, table, "uplink", looks(["hlm"]), warmup_s=1.0)
    assert list(ax.lines[0].get_ydata()) == [0, 1.5, 1.5, 0]
    assert ax.patches[0].get_width() == 1.0, "the warm-up is shaded"


def test_a_policy_that_never_comes_to_a_station_has_no_line_there():
    kept = ("slm", 0, 0.0, 1.0, "skip", 0, 1.0, 0, 0, 0, 0, 0)
    generated = ("llm", 0, 0.0, 2.0, "send", 0, 0, 0, 0, 1.0, 1.0, 0)
    table = queues.queue_table(rounds(kept, generated), 4.0)
    assert list(table[["policy", "station"]].drop_duplicates().itertuples(index=False, name=None)) == [
        ("llm", "base_station")
    ]


def test_the_law_has_its_bins_its_line_and_its_thresholds():
    bins = pd.DataFrame(
        {
            "uncertainty": [0.0, 0.5, 1.0],
            "tokens": [100, 50, 0],
            "rejection": [0.05, 0.3, math.nan],
            "ci95_low": [0.03, 0.2, math.nan],
            "ci95_high": [0.07, 0.4, math.nan],
        }
    )
    ax = axes()
    uncertainty_law.draw_uncertainty_law(ax, bins, 0.6, -0.05, {"risk-averse": 0.083, "risk-prone": 1.2, "other": -0.1})
    intervals, markers = ax.collections
    assert markers.get_offsets().data.tolist() == [[0.0, 0.05], [0.5, 0.3]]
    assert [list(line[:, 1]) for line in intervals.get_segments()] == [[0.03, 0.07], [0.2, 0.4]]
    fit, averse = ax.lines[:2]
    assert fit.get_ydata()[[0, -1]].tolist() == pytest.approx([-0.05, 0.55])
    assert list(averse.get_xdata()) == [0.083, 0.083]
    texts = ax.get_legend_handles_labels()[1]
    assert "fit: 0.60 u − 0.05" in texts
    assert "risk-prone: 1.2, skips everything" in texts
    assert "other: −0.1, skips nothing" in texts


def test_a_policy_looks_the_same_in_whatever_company():
    alone = looks(["u-hlm(risk-averse)"])["u-hlm(risk-averse)"]
    assert looks(["hlm", "slm", "u-hlm(0.43)", "u-hlm(risk-averse)"])["u-hlm(risk-averse)"] == alone


def test_many_policies_are_all_told_apart():
    names = ["hlm", "slm", "llm", *(f"u-hlm({i / 20})" for i in range(20)), "rand-hlm", "own:gate"]
    found = looks(names)
    assert list(found) == names
    assert len(set(found.values())) == len(names)


def test_a_long_ladder_darkens_with_the_threshold():
    found = looks(["hlm", *(f"u-hlm({i / 10})" for i in range(1, 8))])
    light = [sum(int(found[f"u-hlm({i / 10})"].colour[j : j + 2], 16) for j in (1, 3, 5)) for i in range(1, 8)]
    assert light == sorted(light, reverse=True)
    assert found["hlm"] == looks(["hlm"])["hlm"]


def test_policies_that_never_ask_the_llm_have_no_batch():
    table = batches.batch_table(summary({"batch_jobs": [1.2, 1.1, math.nan], "batch_tokens": [1.5, 4.0, math.nan]}))
    assert set(table["policy"]) == {"hlm", "u-hlm(0.43)"}
    left, right = batches.batch_figure(table, POLICIES).axes
    assert [bar.get_width() for bar in left.patches] == [1.2, 1.1]
    assert [bar.get_width() for bar in right.patches] == [1.5, 4.0]
    assert to_hex(right.patches[1].get_facecolor()) == looks(POLICIES)["u-hlm(0.43)"].colour


def test_drawing_leaves_no_global_state(tmp_path):
    before = dict(mpl.rcParams)
    save(throughput.throughput_figure(summary({m: [1.0, 2.0, 3.0] for m in METRICS})), tmp_path, "a")
    assert dict(mpl.rcParams) == before
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_a_name_that_the_font_can_not_draw_is_no_warning(tmp_path):
    table = summary({m: [1.0, 2.0, 3.0] for m in METRICS}).replace({"policy": {"hlm": "📱"}})
    assert "📱" in table["policy"].tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save(throughput.throughput_figure(table), tmp_path, "a")


def test_the_same_figure_is_the_same_bytes(tmp_path):
    table = summary({leg: [0.1, 0.2, 0.3] for leg in LEGS})
    for name in ("a", "b"):
        save(bars.stacked(table, legs.draw_legs), tmp_path, name)
    for kind in ("png", "pdf"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()


def test_a_figure_keeps_the_papers_style_when_it_is_saved_without_it():
    figure = throughput.throughput_figure(summary({m: [1.0, 2.0, 3.0] for m in METRICS}))
    figure.draw_without_rendering()
    assert {label.get_fontsize() for ax in figure.axes for label in ax.get_xticklabels()} == {RC["xtick.labelsize"]}
    assert not figure.axes[0].spines["top"].get_visible()


@pytest.mark.parametrize(("longest_s", "scale"), [(1.9, "linear"), (19.0, "log")])
def test_times_of_less_than_a_decade_stand_on_a_linear_axis(longest_s, scale):
    """A logarithmic one would have a single number."""
    table = ecdf.ecdf_table(pd.DataFrame({"policy": "hlm", "ttft_s": [0.7, 1.0, longest_s]}), "ttft_s")
    ax = ecdf.ecdf_figure(table, "ttft_s", "s", "requests").axes[0]
    assert ax.get_xscale() == scale
