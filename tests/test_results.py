"""A run's results as a notebook asks them: ratios with intervals, figures on one's own axes, a headline in HTML."""

import sys
from dataclasses import replace
from html.parser import HTMLParser
from inspect import signature

import numpy as np
import pandas as pd
import pytest
from conftest import rendering
from matplotlib.figure import Figure
from matplotlib.text import Text

from uhlm_sim.analysis.digits import ratio
from uhlm_sim.analysis.figures.catalogue import FIGURES, write_figures
from uhlm_sim.analysis.figures.style import looks
from uhlm_sim.analysis.figures.wording import OVER, POINT
from uhlm_sim.analysis.report.sentences import answers
from uhlm_sim.analysis.report.station_tables import pair_rows
from uhlm_sim.analysis.results import Estimate, Results
from uhlm_sim.errors import InputError
from uhlm_sim.experiment import run
from uhlm_sim.scenario_file import parse_scenario
from uhlm_sim.tables import LEGS, OUTPUT_LAW

POLICIES = [
    {"kind": "hlm"},
    {"kind": "u-hlm", "threshold": 0.1},
    {"kind": "u-hlm", "threshold": 0.43},
    {"kind": "u-hlm", "threshold": 0.9},
    {"kind": "rand-hlm", "skip_rate": "matched", "match": "u-hlm(0.43)"},
    {"kind": "slm"},
]


def simulated(trace_file, policies=POLICIES, **changes):
    values = {
        "name": "tiny",
        "description": "Does <it> show?",
        "replications": 2,
        "duration_s": 10.0,
        "warmup_s": 2.0,
        "traffic": {"devices": 3, "think_time_s": 0.5, "max_tokens": 12},
        "tokens": {"kind": "trace", "path": str(trace_file)},
        "slo": {"ttft_s": 2.0, "tpot_s": 0.2},
        "policy": policies,
        **changes,
    }
    return run(parse_scenario(values, "test"), jobs=1)


@pytest.fixture(scope="module")
def single(trace_file):
    return simulated(trace_file)


@pytest.fixture(scope="module")
def swept(trace_file):
    return simulated(trace_file, POLICIES[:3], sweep={"traffic.devices": [1, 4, 16]})


@pytest.fixture(scope="module")
def two(trace_file):
    sweep = {"traffic.devices": [1, 8], "channel.mean_snr_db": [0.0, 20.0]}
    return simulated(trace_file, POLICIES[:2], sweep=sweep, output={"tokens": False})


def tidy(values, sweep=None):
    """Results from {policy: [a value per replication]}."""
    rows = [
        (point, policy, replication, "speed", value)
        for point, policies in enumerate(values)
        for policy, row in policies.items()
        for replication, value in enumerate(row)
    ]
    table = pd.DataFrame(rows, columns=["point", "policy", "replication", "metric", "value"])
    summary = table.assign(unit="1", mean=table["value"], ci95_low=0.0, ci95_high=0.0, replications=1)
    summary = summary[["policy", "metric", "unit", "mean", "ci95_low", "ci95_high", "replications"]]
    if sweep:
        key, at = sweep
        table.insert(1, key, [at[point] for point in table["point"]])
        summary.insert(0, key, table[key])
    told = [{"label": name, "kind": name.partition("(")[0], "exact": True} for name in table["policy"].unique()]
    empty = pd.DataFrame({"point": []})
    return Results(summary, table, empty, None, empty, {"name": "tidy"}, {"policies": told})


def test_a_ratio_is_of_means_and_paired():
    """The replications differ by much more than the policies: only pairs can tell that one is twice the other."""
    found = tidy([{"u-hlm(0.43)": [2.0, 40.0, 200.0], "hlm": [1.0, 20.0, 100.0]}]).ratio("u-hlm", "hlm", "speed")
    assert found == Estimate(2.0, 2.0, 2.0, 3)


def test_a_difference_is_paired_too():
    """Differences of 1, 2 and 3: their mean is 2, with t(2) = 4.303 times 1 / sqrt(3) on either side."""
    found = tidy([{"u-hlm(0.43)": [2.0, 42.0, 203.0], "hlm": [1.0, 40.0, 200.0]}]).difference("u-hlm", "hlm", "speed")
    assert (found.mean, found.replications) == (2.0, 3)
    assert found.ci95_high - 2.0 == pytest.approx(4.303 / 3**0.5, rel=1e-3)


def test_a_slow_token_may_wait_for_something_else_than_a_mean_one():
    """Of 1,000 tokens 60 wait a second for the uplink, the others 0.1 to 0.2 s for the GPU."""
    delay_s = np.linspace(0.1, 0.2, 940)
    legs = {name: np.zeros(1000) for name in LEGS}
    legs["bs_wait_s"], legs["uplink_wait_s"] = np.append(delay_s, np.zeros(60)), np.append(np.zeros(940), np.ones(60))
    table = pd.DataFrame({**legs, "point": 0, "policy": "hlm", "committed_s": 1.0})
    run = tidy([{"hlm": [1.0, 2.0]}])
    terms = {"warmup_s": 0.5, "duration_s": 2.0, "name": "tidy"}
    run = replace(run, tokens=pd.concat([table, table.assign(committed_s=0.1)]), scenario=terms)
    run.provenance["closed_loop"] = True
    budget = run.delay_budget().set_index("tokens_at")
    assert budget.loc["all tokens", "tokens"] == 1000, "warm-up is left out"
    assert budget.loc["p50", ["bs_wait_s", "uplink_wait_s"]].tolist() == pytest.approx([delay_s[495:505].mean(), 0])
    assert budget.loc["p95", ["bs_wait_s", "uplink_wait_s"]].tolist() == [0.0, 1.0]
    assert budget.loc["all tokens", "delay_s"] == pytest.approx(0.94 * 0.15 + 0.06)


def test_an_estimate_shows_the_digits_that_its_interval_gives():
    assert repr(Estimate(1.33712, 1.3201, 1.3552, 8)) == "1.337 (1.320 to 1.355), 8 replications"
    assert repr(Estimate(2.0, np.nan, np.nan, 1)) == "≈2.0 (no interval), 1 replication"


def test_a_mean_and_a_ratio_are_those_of_the_summary(single):
    by = single.summary.set_index(["policy", "metric"])
    for metric in ("token_throughput", "tpot_s.p95", "uplink_utilisation"):
        mean, ratio = single.mean("slm", metric), single.ratio("u-hlm(0.43)", "hlm", metric)
        told = by.loc[("slm", metric)]
        assert [mean.mean, mean.ci95_low, mean.ci95_high] == pytest.approx(
            list(told[["mean", "ci95_low", "ci95_high"]])
        )
        told = by.loc[("u-hlm(0.43)", f"{metric}.ratio_to_first")]
        known = [ratio.mean, ratio.ci95_low, ratio.ci95_high, ratio.replications]
        assert known == pytest.approx(list(told[["mean", "ci95_low", "ci95_high", "replications"]]), nan_ok=True)


def test_a_sweep_has_a_row_for_each_point(swept):
    table = swept.ratio("u-hlm(0.43)", "hlm", "token_throughput")
    assert list(table.columns) == ["traffic.devices", "mean", "ci95_low", "ci95_high", "replications"]
    assert list(table["traffic.devices"]) == [1, 4, 16]
    one = swept.at({"traffic.devices": 4})
    assert list(one.ratio("u-hlm(0.43)", "hlm", "token_throughput")["mean"]) == [table["mean"][1]]


def test_a_policy_that_follows_the_sweep_is_named_by_its_kind():
    values = [{"hlm": [1.0, 2.0], "u-hlm(0.2)": [2.0, 4.0]}, {"hlm": [1.0, 2.0], "u-hlm(0.4)": [3.0, 6.0]}]
    results = tidy(values, ("policy.u-hlm.threshold", [0.2, 0.4]))
    assert list(results.ratio("u-hlm", "hlm", "speed")["mean"]) == [2.0, 3.0]
    assert list(results.mean("u-hlm(0.2)", "speed")["replications"]) == [2, 0], "it isn't at the second point"


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda r: r.ratio("u-hlm", "hlm", "token_throughput"), r"'u-hlm': several are of this kind; .*u-hlm\(0.43\)"),
        (lambda r: r.ratio("hml", "hlm", "token_throughput"), r"'hml': this run has none; .*did you mean 'hlm'"),
        (lambda r: r.mean("hlm", "token_troughput"), "did you mean 'token_throughput'"),
        (lambda r: r.plot.over(), "over 1 swept value: this run sweeps nothing"),
        (lambda r: r.plot.ratio_map(), "over 2 swept values: this run sweeps nothing"),
        (
            lambda r: r.plot.frontier(Figure().subplots(), "qualty"),
            r"cost 'qualty': not in this run; .*distribution_error",
        ),
        (lambda r: r.at({"traffic.devices": 3}), "'traffic.devices' isn't swept; this run sweeps nothing"),
    ],
)
def test_what_a_run_has_not_is_said_in_one_sentence(single, ask, message):
    with pytest.raises(InputError, match=message) as caught:
        ask(single)
    assert "\n" not in str(caught.value)


def test_policies_take_the_names_that_a_paper_gives_them(single):
    names = {"u-hlm(0.43)": "U-HLM (0.43)", "hlm": "HLM"}
    renamed = single.renamed(names)
    assert renamed.policies == [names.get(label, label) for label in single.policies]
    new, old = renamed.mean("U-HLM (0.43)", "token_throughput"), single.mean("u-hlm(0.43)", "token_throughput")
    assert new == old
    shown = {text.get_text() for text in renamed.plot.token_time().findobj(Text)}
    assert {"HLM", "U-HLM (0.43)"} <= shown
    assert not shown & set(names)


def test_a_paper_name_keeps_the_colour_and_what_the_sentences_say(single):
    names = {"u-hlm(0.43)": "U-HLM (0.43)", "hlm": "HLM", "slm": "SLM", "rand-hlm": "Rand-HLM"}
    renamed = single.renamed(names)
    old, new = looks(single.policies), looks(renamed.policies)
    assert [new[names.get(label, label)] for label in single.policies] == [old[label] for label in single.policies]
    assert len(answers(renamed)) == len(answers(single))
    assert renamed.scenario["policy"][4]["match"] == "U-HLM (0.43)"


@pytest.mark.parametrize(
    ("names", "message"),
    [({"hml": "HLM"}, "hml.*did you mean"), ({"hlm": "slm"}, "two policies would have one name")],
)
def test_a_name_of_no_policy_or_of_two_is_refused(single, names, message):
    with pytest.raises(InputError, match=message):
        single.renamed(names)


def test_points_that_are_not_there_are_refused(swept):
    with pytest.raises(InputError, match=r"no point of this run has traffic.devices = 5"):
        swept.at({"traffic.devices": 5})
    with pytest.raises(InputError, match=r"did you mean 'traffic.devices'"):
        swept.at({"traffic.device": 4})


def test_the_middle_point_has_its_tables_alone(swept):
    middle = swept.middle_point()
    values = sorted(swept.summary["traffic.devices"].unique())
    (devices,) = set(middle.replications["traffic.devices"])
    assert devices == values[len(values) // 2]
    (point,) = set(middle.replications["point"])
    for table in (middle.requests, middle.tokens, middle.stations):
        assert set(table["point"]) == {point}
    assert len(middle.tokens) < len(swept.tokens)


# Figures of one point; the run here knows no power, so it has no energy.
METHODS = [name for name, figure in FIGURES.items() if POINT in figure.kinds and name != "energy"]


@pytest.mark.parametrize("method", METHODS)
def test_a_figure_on_ones_own_axes_leaves_the_rest_alone(single, method):
    figure = Figure()
    mine, other = figure.subplots(1, 2)
    assert getattr(single.plot, method)(mine) is mine
    assert mine.has_data()
    assert not other.has_data()
    assert figure.axes == [mine, other]
    assert not figure.legends
    assert mine.get_xlabel()
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


@pytest.mark.parametrize("method", METHODS)
def test_a_figure_of_its_own_shows_itself_in_a_notebook(single, method):
    assert getattr(single.plot, method)()._repr_png_().startswith(b"\x89PNG")


def test_figures_over_a_sweep_go_on_ones_own_axes_too(swept, two):
    ax = Figure().subplots()
    assert swept.plot.over("token_throughput_per_device", ax) is ax
    assert [line.get_label() for line in ax.lines] == ["hlm", "u-hlm(0.1)", "u-hlm(0.43)", "1/n"]
    assert ax.get_ylabel() == "A phone, 1/mean(delay), tokens/s"
    ax = swept.plot.over("ttft_s.p95", Figure().subplots())
    assert [line.get_label() for line in ax.lines][-1] == "SLO"
    ax = Figure().subplots()
    assert two.plot.ratio_map("u-hlm", ax) is ax
    assert len(ax.texts) == 4
    with pytest.raises(InputError, match="'hml': this run has none"):
        two.plot.attainment_map("hml")
    with pytest.raises(InputError, match="'hlm': no map of it"):
        two.plot.ratio_map("hlm")
    with pytest.raises(InputError, match="kept no token tables"):
        two.plot.token_time()
    assert two.plot.attainment_map().axes


@pytest.mark.parametrize("name", [name for name, figure in FIGURES.items() if OVER in figure.kinds])
def test_every_figure_over_a_sweep_is_a_method_of_the_plots(swept, name):
    assert name in dir(swept.plot)
    assert "run" not in signature(getattr(swept.plot, name)).parameters
    assert getattr(swept.plot, name)().axes


def test_a_figure_that_is_not_there_has_a_neighbour_named(swept):
    with pytest.raises(AttributeError, match="no figure 'latencys'; did you mean 'latency'"):
        swept.plot.latencys()


def written(results, folder):
    return {figure.name: figure for figure in write_figures(results, folder)}


@pytest.mark.usefixtures("rendered")
def test_each_figure_has_its_png_its_pdf_and_its_data(single, tmp_path):
    figures = written(single, tmp_path)
    assert list(figures) == [
        "throughput",
        "legs",
        "token_time",
        "ttft",
        "queues",
        "queue_lengths",
        "batches",
        "frontier",
    ]
    for name, figure in figures.items():
        assert figure.png.read_bytes().startswith(b"\x89PNG")
        assert figure.png.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
        assert figure.data == tmp_path / f"{name}.csv"
        assert len(pd.read_csv(figure.data))
    assert len(list(tmp_path.iterdir())) == 3 * len(figures)


@pytest.fixture(scope="module")
def swept_figures(swept, tmp_path_factory):
    with rendering():
        return written(swept, tmp_path_factory.mktemp("figures"))


@pytest.mark.parametrize("name", ["sweep", "latency", "batches", "legs"])
def test_the_data_beside_a_figure_are_rows_of_the_summary(swept, swept_figures, name):
    data = pd.read_csv(swept_figures[name].data)
    data = data[~data["policy"].isin(["1/n", "SLO"])]
    summary = swept.summary.set_index(["traffic.devices", "policy", "metric"])["mean"]
    rows = list(data[["traffic.devices", "policy", "metric"]].itertuples(index=False, name=None))
    assert len(rows) == len(set(rows)) >= 12
    assert data["mean"].to_numpy() == pytest.approx(summary.loc[rows].to_numpy(), rel=1e-8)


@pytest.mark.usefixtures("rendered")
def test_a_sweep_of_two_values_is_drawn_as_maps(two, tmp_path):
    figures = written(two, tmp_path)
    assert list(figures)[:3] == ["winner_map", "ratio_map", "slo_map"]
    data = pd.read_csv(figures["slo_map"].data)
    assert len(data) == 2 * 2 * 2
    assert "ttft_s = 2, tpot_s = 0.2" in figures["slo_map"].caption


def test_a_rule_beside_a_number_is_drawn_as_lines_for_each_rule(trace_file, tmp_path):
    sweep = {"uplink.snr_rule": ["per-hertz", "power-limited"], "uplink.bandwidth_hz": [2e6, 10e6]}
    figures = written(simulated(trace_file, POLICIES[:2], sweep=sweep, replications=1), tmp_path)
    assert list(figures)[:4] == ["sweep_1", "latency_1", "sweep_2", "latency_2"]
    assert "Drawn for uplink.snr_rule = power-limited." in figures["sweep_2"].caption
    assert "One replication, no interval." in figures["sweep_2"].caption


def test_a_cell_that_never_asks_has_no_figure_of_batches_or_queues(trace_file, tmp_path):
    figures = written(simulated(trace_file, [{"kind": "slm"}]), tmp_path)
    assert list(figures) == ["throughput", "legs", "token_time", "ttft"]


def test_captions_name_the_policies_that_ran_on_others_answers(single, tmp_path):
    told = [entry | {"exact": entry["label"] != "slm"} for entry in single.provenance["policies"]]
    tidy = single.replications
    its_answers = (tidy["policy"] == "slm") & tidy["metric"].isin(OUTPUT_LAW)
    tidy = tidy.assign(value=tidy["value"].mask(its_answers))
    forced = replace(single, replications=tidy, provenance={**single.provenance, "policies": told})
    for figure in write_figures(forced, tmp_path):
        assert figure.caption.endswith("where its own tokens were never recorded: slm.")


class Cells(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.rows, self.tags = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])

    def handle_data(self, data):
        if self.rows:
            self.rows[-1].append(data)


def test_the_headline_has_a_row_for_each_policy_and_point_and_loads_nothing(single, swept):
    page = Cells(single._repr_html_())
    assert [row[0] for row in page.rows[1:7]] == [f"{p} †" if p in single.forced else p for p in single.policies]
    assert not {"src", "href"} & {name for _, attrs in page.tags for name in attrs}
    assert "<it>" not in single._repr_html_()
    assert "Does &lt;it&gt; show?" in single._repr_html_()
    page = Cells(swept._repr_html_())
    assert [row[:2] for row in page.rows[1:3]] == [["1", "hlm"], ["1", "u-hlm(0.1)"]]
    assert len(page.rows) == 1 + 3 * 3
    assert repr(swept) == "<Results of tiny: 3 policies, 3 points>"


def test_simulations_that_failed_are_named(single):
    assert single.failed == []
    failure = {"point": "traffic.devices = 9", "policy": "hlm", "replication": 0, "reason": "too many"}
    broken = replace(single, provenance={**single.provenance, "failed": [failure]})
    assert broken.failed == [failure]
    assert "Failed simulations: 1" in broken._repr_html_()


def test_any_two_policies_stand_beside_each_other_as_the_ratio_of_the_results(trace_file):
    run_of_four = simulated(trace_file, replications=4)
    rows = dict(pair_rows(run_of_four))
    assert list(rows) == run_of_four.policies
    for policy, other in (("slm", "u-hlm(0.9)"), ("u-hlm(0.1)", "hlm")):
        shown = rows[policy][run_of_four.policies.index(other)]
        estimate = run_of_four.ratio(policy, other, "token_throughput_per_device")
        assert shown == ratio(estimate.mean, estimate.ci95_low, estimate.ci95_high)
    assert all(row[place] == ("1", "") for place, row in enumerate(rows.values()))
    assert pair_rows(simulated(trace_file, POLICIES[:2], replications=4)) == [], "the first one is beside each already"
