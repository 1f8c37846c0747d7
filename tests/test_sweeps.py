"""Figures over a sweep draw what their table says, and the table is the summary's."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from uhlm_sim.analysis.figures import frontier, latency, legs_over, maps
from uhlm_sim.analysis.figures.axes import varied
from uhlm_sim.analysis.figures.over_sweep import draw_over, guide_rows, over_table, with_guides, with_verdicts
from uhlm_sim.analysis.figures.style import looks

COLUMNS = ["policy", "metric", "unit", "mean", "ci95_low", "ci95_high", "replications"]
X = "traffic.devices"


def rows(metric, values, half=0.1, unit="tokens/s", **sweep):
    """One row per policy of a metric at one point."""
    told = [(policy, metric, unit, mean, mean - half, mean + half, 6) for policy, mean in values.items()]
    return pd.DataFrame(told, columns=COLUMNS).assign(**sweep)


def over(values, metric="token_throughput", x=X, **kwargs):
    """A summary of one metric over a swept key, from {x: {policy: mean}}."""
    return pd.concat([rows(metric, means, **kwargs, **{x: at}) for at, means in values.items()], ignore_index=True)


def axes():
    return Figure().subplots()


def test_a_line_goes_through_the_means_and_its_band_through_the_interval():
    table = over_table(over({1: {"hlm": 10.0}, 4: {"hlm": 30.0}, 2: {"hlm": 20.0}}), X, ["token_throughput"])
    ax = axes()
    draw_over(ax, table, "token_throughput", looks(["hlm"]))
    assert list(zip(*ax.lines[0].get_data(), strict=True)) == [(1, 10), (2, 20), (4, 30)]
    (path,) = ax.collections[0].get_paths()
    assert {tuple(at) for at in path.vertices.round(6)} >= {(1, 9.9), (1, 10.1), (4, 29.9), (4, 30.1)}
    assert ax.get_xlabel() == "phones"
    assert ax.get_ylim()[0] == 0, "a rate is drawn from 0"


@pytest.mark.parametrize(("values", "scale"), [([1, 2, 80], "log"), ([5, 10, 40], "linear"), ([0, 1, 80], "linear")])
def test_values_beyond_a_decade_stand_on_a_logarithmic_axis(values, scale):
    table = over_table(over({x: {"hlm": 10.0} for x in values}), X, ["token_throughput"])
    ax = axes()
    draw_over(ax, table, "token_throughput", looks(["hlm"]))
    assert ax.get_xscale() == scale


def test_a_ratio_without_an_interval_is_a_cross_and_its_band_no_wall():
    """Fieller's set is no interval at 1 phone, and reaches below 0 at 2: on a logarithmic axis it ends at the frame."""
    metric = "token_throughput.ratio_to_first"
    table = over_table(over({x: {"hlm": 1.0, "llm": 2.0 * x} for x in (1, 2, 20)}, metric, unit="1"), X, [metric])
    llm = table["policy"] == "llm"
    table.loc[llm & (table[X] == 1), ["ci95_low", "ci95_high"]] = math.nan
    table.loc[llm & (table[X] == 2), "ci95_low"] = -3.0
    ax = axes()
    draw_over(ax, table, metric, looks(["hlm", "llm"]))
    (crosses,) = (line for line in ax.lines if line.get_marker() == "x")
    assert list(zip(*crosses.get_data(), strict=True)) == [(1, 2.0)]
    assert ax.get_yscale() == "log"
    (band,) = ax.collections[-1].get_paths()
    assert (2, ax.get_ylim()[0]) in {tuple(at) for at in band.vertices}
    assert band.vertices[:, 1].min() > 0


def test_words_stand_in_the_sweeps_order_with_no_line_between_them():
    key = "policy.u-hlm(0.43).threshold"
    values = {"risk-averse": {"hlm": 1.0, "slm": 3.0}, 0.43: {"hlm": 1.0, "slm": 3.0}, "0.9": {"hlm": 1.0, "slm": 3.0}}
    table = over_table(over(values, x=key), key, ["token_throughput"])
    ax = axes()
    draw_over(ax, table, "token_throughput", looks(["hlm", "slm"]))
    assert [label.get_text() for label in ax.get_xticklabels()] == ["risk-\naverse", "0.43", "0.9"]
    assert {line.get_linestyle() for line in ax.lines} == {"None"}
    hlm, slm = (line.get_xdata() for line in ax.lines)
    assert (hlm < slm).all(), "side by side"
    assert (np.abs(hlm - [0, 1, 2]) < 0.5).all()


def test_a_policy_whose_label_follows_the_sweep_is_one_line():
    key = "policy.u-hlm(0.2).threshold"
    summary = over({x: {"hlm": 1.0, f"u-hlm({x})": 1.0 + x, "u-hlm(risk-prone)": 2.0} for x in (0.2, 0.4)}, x=key)
    table = over_table(summary, key, ["token_throughput"])
    assert list(table["policy"].unique()) == ["hlm", "u-hlm", "u-hlm(risk-prone)"]
    assert list(table.loc[table["policy"] == "u-hlm", "mean"]) == [1.2, 1.4]


def test_two_policies_that_follow_the_sweep_at_once_keep_their_labels():
    summary = over({x: {f"u-hlm({x})": 1.0, f"u-hlm({x}, b)": 2.0} for x in (0.2, 0.4)}, x="own")
    assert over_table(summary, "own", ["token_throughput"])["policy"].nunique() == 4


def test_the_guide_meets_the_first_policy_where_its_cell_is_full():
    """Processor sharing: a phone's rate is R up to n0 phones and R n0 / n beyond."""
    rate = {n: 12.0 * min(1.0, 10 / n) for n in (1, 5, 10, 20, 80)}
    summary = over({n: {"hlm": rate[n], "slm": 12.0} for n in rate}, metric="token_throughput_per_device")
    table = with_guides(over_table(summary, X, ["token_throughput_per_device"]), {})
    guide = table[table["policy"] == "1/n"].set_index(X)["mean"]
    assert guide[[10, 20, 80]].to_dict() == pytest.approx({n: rate[n] for n in (10, 20, 80)})
    assert guide[1] == pytest.approx(120.0), "one phone of a full cell would have it all"
    other = over_table(summary.rename(columns={X: "channel.mean_snr_db"}), "channel.mean_snr_db", ["token_thr"])
    assert guide_rows(other, {}).empty, "only phones share"


def test_an_slo_is_drawn_for_every_percentile_of_its_latency():
    summary = pd.concat(
        over({1: {"hlm": 1.0}, 2: {"hlm": 1.5}}, metric=metric, unit="s") for metric in latency.LATENCIES
    )
    table = with_guides(over_table(summary, X, list(latency.LATENCIES)), {"ttft_s": 2.0})
    limits = table[table["policy"] == "SLO"]
    assert sorted(limits["metric"].unique()) == ["ttft_s.p50", "ttft_s.p95", "ttft_s.p99"]
    assert set(limits["mean"]) == {2.0}
    figure = latency.latency_figure(table)
    above = [ax for ax in figure.axes if ax.get_title().startswith("TTFT")]
    assert len({ax.get_ylim() for ax in above}) == 1, "percentiles of one latency share their scale"
    assert above[0].get_ylim()[1] > 2.0, "the limit is in the frame"


def test_the_shares_of_the_legs_stack_up_to_all_of_the_time():
    means = {"device_s": 0.05, "uplink_wait_s": 0.1, "airtime_s": 0.03, "verify_s": 0.02}
    summary = pd.concat(over({1: {"hlm": s}, 2: {"hlm": 2 * s}}, metric=leg, unit="s") for leg, s in means.items())
    table = legs_over.legs_over_table(summary, X)
    ax = axes()
    legs_over.draw_legs_over(ax, table, "hlm")
    last = ax.containers[4].patches
    assert [bar.get_y() + bar.get_height() for bar in last] == pytest.approx([100, 100])
    assert ax.containers[1].patches[0].get_height() == pytest.approx(50)
    assert [text.get_text() for text in ax.texts] == ["200", "400"], "the mean time of a token in ms"


def two_keys(metric, values, **kwargs):
    """A summary of one metric over users (rows) and SNR (columns) for u-hlm, with hlm at 1."""
    parts = [
        rows(metric, {"hlm": 1.0, "u-hlm": mean}, **kwargs, **{X: users, "channel.mean_snr_db": 10.0 * j})
        for users, row in values.items()
        for j, mean in enumerate(row)
    ]
    return pd.concat(parts, ignore_index=True)


def test_a_map_grows_to_the_right_and_upwards_and_says_what_is_not_told_apart():
    summary = two_keys("token_throughput.ratio_to_first", {20: [2.0, 1.05], 5: [1.5, 0.8]}, unit="1")
    table = maps.map_table(summary, X, "channel.mean_snr_db", "token_throughput.ratio_to_first")
    assert set(table["policy"]) == {"u-hlm"}, "no ratio of the first policy to itself"
    ax = axes()
    maps.draw_map(ax, table, "u-hlm")
    cells = dict(json.loads(str(cell.get_gid()))[1][0] for cell in ax.patches if cell.get_gid())
    assert {at: value[0][1] for at, value in cells.items()} == {
        "5 phones and 0 dB": 1.5, "20 phones and 0 dB": 2.0, "5 phones and 10 dB": 0.8, "20 phones and 10 dB": 1.05,
    }  # fmt: skip
    assert [label.get_text() for label in ax.get_xticklabels()] == ["5", "20"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["10", "0"]
    assert [text.get_text() for text in ax.texts] == ["0.80", "(1.05)", "1.50", "2.00"], "row by row from above"


def test_the_contour_is_where_the_ratio_is_one():
    """Between 1/2 and 2 the logarithm is 0 half-way, all along the map and up to its frame."""
    summary = two_keys("token_throughput.ratio_to_first", {5: [0.5, 0.5], 20: [2.0, 2.0]}, unit="1")
    table = maps.map_table(summary, X, "channel.mean_snr_db", "token_throughput.ratio_to_first")
    ax = axes()
    maps.draw_map(ax, table, "u-hlm")
    contour = ax.collections[-1].get_paths()[0].vertices
    assert contour[:, 0] == pytest.approx(np.full(len(contour), 1.0))
    assert sorted({contour[:, 1].min(), contour[:, 1].max()}) == [0, 2]


def test_a_map_without_a_break_even_has_no_contour():
    summary = two_keys("slo_attainment", {5: [1.0, 1.0], 20: [0.97, 0.96]}, unit="1")
    ax = axes()
    maps.draw_map(ax, maps.map_table(summary, X, "channel.mean_snr_db", "slo_attainment"), "u-hlm")
    assert len(ax.collections) == 1
    assert [text.get_text() for text in ax.texts] == ["100", "96", "100", "97"]


def ladder(labels, **costs):
    """A summary in which u-hlm's speed and costs grow with what it skips."""
    parts = [rows("skip_rate", labels, unit="1"), rows(frontier.SPEED, {k: 1 + s for k, s in labels.items()}, unit="1")]
    parts += [rows(cost, {k: of(k, s) for k, s in labels.items()}, unit="1") for cost, of in costs.items()]
    return pd.concat(parts, ignore_index=True)


LABELS = {"hlm": 0.0, "u-hlm(0.9)": 0.8, "u-hlm(0.1)": 0.1, "u-hlm(0.43)": 0.3, "rand-hlm": 0.3, "slm": 1.0}
KINDS = {label: label.partition("(")[0] for label in LABELS}


def error(label, skipped):
    return skipped * (1.0 if label == "rand-hlm" else 0.5)


def test_an_llm_far_ahead_stands_alone_on_a_logarithmic_axis():
    llm = pd.concat([rows(frontier.SPEED, {"llm": 13.0}, unit="1"), rows("distribution_error", {"llm": 0.0}, unit="1")])
    near = ladder(LABELS, distribution_error=error)
    scales = {}
    for name, summary in (("without", near), ("with", pd.concat([near, llm], ignore_index=True))):
        table = frontier.frontier_table(summary, KINDS | {"llm": "llm"})
        ax = axes()
        frontier.draw_frontier(ax, table, "distribution_error", looks([*LABELS, "llm"]))
        stars = [line for line in ax.lines if line.get_marker() == "*"]
        scales[name] = (ax.get_xscale(), [(line.get_xdata()[0], line.get_ydata()[0]) for line in stars])
    assert scales == {"without": ("linear", []), "with": ("log", [(13.0, 0.0)])}


def test_the_frontier_goes_along_each_rule_from_hlm_to_slm():
    table = frontier.frontier_table(ladder(LABELS, distribution_error=error), KINDS)
    assert frontier.is_frontier(table)
    ax = axes()
    frontier.draw_frontier(ax, table, "distribution_error", looks(list(LABELS)))
    u_hlm, rand = ax.lines[:2]
    assert list(u_hlm.get_xdata()) == pytest.approx([1.0, 1.1, 1.3, 1.8, 2.0])
    assert list(u_hlm.get_ydata()) == pytest.approx([0.0, 0.05, 0.15, 0.4, 0.5])
    assert list(rand.get_xdata()) == pytest.approx([1.0, 1.3, 2.0])
    assert [text.get_text() for text in ax.texts] == ["0.9", "0.43", "0.1"]


def test_a_cost_that_nobody_knows_has_no_panel():
    table = frontier.frontier_table(ladder(LABELS, distribution_error=error), KINDS)
    assert len(frontier.frontier_figure(table).axes) == 1
    both = ladder(LABELS, distribution_error=error, quality_cosine=lambda *_: 0.5)
    assert len(frontier.frontier_figure(frontier.frontier_table(both, KINDS)).axes) == 2


def test_two_thresholds_are_no_ladder():
    few = {label: LABELS[label] for label in ("hlm", "u-hlm(0.9)", "u-hlm(0.1)", "slm")}
    assert not frontier.is_frontier(frontier.frontier_table(ladder(few, distribution_error=error), KINDS))


def test_a_swept_threshold_is_a_ladder_in_which_what_stays_stands_once():
    key = "policy.u-hlm.threshold"
    points = [
        ladder({"hlm": 0.0, "u-hlm": skipped, "slm": 1.0}, distribution_error=error).assign(**{key: threshold})
        for threshold, skipped in ((0.1, 0.05), (0.4, 0.3), (0.9, 0.7))
    ]
    table = frontier.frontier_table(pd.concat(points), {"hlm": "hlm", "u-hlm": "u-hlm", "slm": "slm"}, [key])
    assert list(table["policy"]) == ["hlm", "slm", "u-hlm", "u-hlm", "u-hlm"]
    assert list(table["setting"])[2:] == ["0.1", "0.4", "0.9"]
    assert frontier.is_frontier(table)


def test_a_key_that_follows_from_the_others_is_no_axis():
    pairs = pd.DataFrame({"a": [1, 2, 3], "b": [5, 5, 6], "c": ["x", "x", "x"]})
    assert varied(pairs, ["a", "b", "c"]) == ["a"]
    product = pd.DataFrame({"a": [1, 1, 2, 2], "b": [5, 6, 5, 6]})
    assert varied(product, ["a", "b"]) == ["a", "b"]
    both = product.assign(c=[10.0, 13.0, 10.0, 7.0])
    assert varied(both, ["a", "b", "c"]) == ["a", "b"], "it takes two to know the third"


def test_latencies_of_the_quicker_requests_are_hollow():
    summary = over({1: {"hlm": 1.0, "slm": 1.0}, 2: {"hlm": 9.0, "slm": 1.0}}, metric="ttft_s.p95", unit="s")
    words = {X: [1, 1, 2, 2], "policy": ["hlm", "slm"] * 2, "verdict": ["STABLE", "STABLE", "OVERLOADED", "BACKLOGGED"]}
    table = with_verdicts(over_table(summary, X, ["ttft_s.p95"]), pd.DataFrame(words).assign(point=0))
    assert table.groupby("policy")["verdict"].last().to_dict() == {"hlm": "OVERLOADED", "slm": "BACKLOGGED"}
    ax = axes()
    draw_over(ax, table, "ttft_s.p95", looks(["hlm", "slm"]))
    (hollow,) = (line for line in ax.lines if line.get_markerfacecolor() == "white")
    assert list(zip(*hollow.get_data(), strict=True)) == [(2, 9.0)]
