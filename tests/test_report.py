"""A run folder as tables, figures and one HTML file."""

import json
import math
from dataclasses import replace
from html.parser import HTMLParser

import pandas as pd
import pytest
import tomli_w
from made_up_run import POLICIES, run

from uhlm_sim.analysis.digits import number as shown
from uhlm_sim.analysis.figures.catalogue import write_figures
from uhlm_sim.analysis.measures.energy import ENERGY
from uhlm_sim.analysis.measures.intervals import summarise, write_table
from uhlm_sim.analysis.measures.metrics import UNITS
from uhlm_sim.analysis.report.page import write_report
from uhlm_sim.analysis.report.terminal import summary_text
from uhlm_sim.analysis.results import Results
from uhlm_sim.errors import InputError
from uhlm_sim.tables import LEGS


def report(tables, folder):
    folder.mkdir(exist_ok=True)
    path = folder / "report.html"
    write_report(tables, write_figures(tables, folder / "figures"), path)
    return path.read_text(encoding="utf-8")


def folder_of(tables, folder):
    folder.mkdir()
    (folder / "scenario.resolved.toml").write_text(tomli_w.dumps(tables.scenario))
    (folder / "provenance.json").write_text(json.dumps(tables.provenance))
    tables.requests.to_parquet(folder / "requests.parquet")
    if tables.rounds is not None:
        tables.rounds.to_parquet(folder / "rounds.parquet")
    tables.tokens.to_parquet(folder / "tokens.parquet")
    write_table(tables.replications, folder / "replications.csv")
    write_table(tables.stations, folder / "stations.csv")
    write_table(tables.summary, folder / "summary.csv")
    return folder


class Page(HTMLParser):
    """Collects a page's tags with their attributes, its text, and its tables' rows."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.rows, self.in_cell = [], [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.in_cell = True

    def handle_endtag(self, tag):
        self.in_cell = self.in_cell and tag not in ("td", "th")

    def handle_data(self, data):
        self.words.append(data)
        if self.in_cell:
            self.rows[-1][-1] += data.strip()


@pytest.fixture(scope="module")
def tables():
    return run(forced=["u-hlm(0.43)"])


@pytest.fixture(scope="module")
def folder(tables, tmp_path_factory):
    """A folder with the figures and the report."""
    folder = tmp_path_factory.mktemp("report")
    report(tables, folder)
    return folder


@pytest.fixture(scope="module")
def text(folder):
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_the_report_loads_nothing(text, page):
    loads = [value for _, attrs in page.tags for key, value in attrs.items() if key in ("src", "data")]
    assert loads
    assert all(value.startswith("data:image/png;base64,") for value in loads)
    assert all(tag == "a" for tag, attrs in page.tags if "href" in attrs), "to be followed, not loaded"
    assert not {tag for tag, _ in page.tags} & {"link", "iframe", "object"}
    assert [attrs for tag, attrs in page.tags if tag == "script"] == [{}], "one script, in the page"
    assert "@import" not in text
    assert "url(" not in text


def test_the_report_says_what_was_asked(page):
    words = " ".join(page.words)
    for said in ("two phones <test>", "Does U-HLM keep & send?", "Below −10 dB nothing is sent.", "a benchmark,"):
        assert said in words


def test_the_headline_gives_each_policy_its_numbers(tables, page):
    rows = {row[0].rstrip("\u2009†"): row for row in page.rows[6:9]}
    assert list(rows) == list(POLICIES)
    for policy, row in rows.items():
        for column, metric in ((1, "token_throughput"), (2, "token_throughput_per_device"), (3, "mean_token_rate")):
            at = tables.summary[(tables.summary["policy"] == policy) & (tables.summary["metric"] == metric)].iloc[0]
            assert row[column] == "".join(shown(at["mean"], at["ci95_low"], at["ci95_high"]))
    assert rows["slm"][-4:] == ["100.0± 0", "20.00± 0", "0.2000± 0", "0.6000"]
    assert rows["hlm"][4] == "1"


def test_a_few_numbers_and_one_figure_come_first_and_the_rest_is_folded(tables, text, page):
    titles, *rows = page.rows[:4]
    assert titles[1:6] == ["bottleneck", "tokens/s, cell", "cell, to hlm", "tokens/s, a phone", "TPOT p95, ms"]
    assert titles[6:] == ["TTFT p95, s", "skip rate, %", "total variation", "cosine to LLM's"]
    mean = tables.summary.set_index(["policy", "metric"])["mean"]
    for policy, row in zip(POLICIES, rows, strict=True):
        assert float(row[2].partition("±")[0]) == pytest.approx(mean[policy, "token_throughput"], rel=1e-3)
        assert row[1].partition(" (")[0] in ("uplink", "no station")
        assert "±" not in row[-1], "quality has no interval"
    opened = text.index('<details class="part">')
    assert text.index("</table>") < text.index("Figure 1.") < opened < text.index("Figure 2.")
    assert text[opened:].count('<details class="part">') == text[opened:].count("<h2>"), "nothing stands outside"


def test_the_parts_of_the_page_can_be_linked_and_are_closed(text, page):
    anchors = [attrs["href"][1:] for tag, attrs in page.tags if attrs.get("href", "").startswith("#")]
    names = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert set(anchors) <= set(names)
    assert len(names) == len(set(names))
    inside = [attrs["id"] for tag, attrs in page.tags if tag == "span" and "id" in attrs]  # so that a link unfolds
    assert ["answers", *inside] == anchors[: len(inside) + 1]
    assert len(inside) == text.count('<details class="part">')
    for tag in ("details", "summary", "div", "table", "figure"):
        assert text.count(f"<{tag}") == text.count(f"</{tag}>")


def test_each_station_stands_beside_its_bound(page, tables):
    """The uplink is in use 20 % of the time for X tokens a second. How large batches may be isn't known: no GPUs."""
    rows = [row for row in page.rows if len(row) == 8 and row[1] in ("uplink", "GPUs", "phones")]
    assert [row[1] for row in rows] == ["uplink", "phones"] * 3
    assert [row[0].removesuffix("\u2009†") for row in rows[::2]] == list(POLICIES)
    rate = tables.summary.set_index(["policy", "metric"])["mean"]["hlm", "token_throughput"]
    demand = f"{1e3 * 0.2 / rate:.3g}"
    assert [rows[0][column] for column in (2, 4, 5, 7)] == ["20.0", demand, "", "20.0"]
    assert rows[0][6].startswith(f"{rate / 0.2:.2f}±")


def test_the_legs_of_slow_tokens_add_up_to_their_delay(tables, page):
    budget = tables.delay_budget()
    assert budget["tokens_at"].tolist() == ["all tokens", "p50", "p95", "p99"] * len(POLICIES)
    assert budget[list(LEGS)].sum(axis=1).to_numpy() == pytest.approx(budget["delay_s"].to_numpy())
    rows = [row for row in page.rows if len(row) == 9 and row[1] in ("all tokens", "p50", "p95", "p99")]
    assert [float(row[2]) for row in rows] == pytest.approx(1e3 * budget["delay_s"].to_numpy(), abs=0.06)


def test_the_queues_of_the_page_are_those_of_the_table(tables, page):
    queues = tables.queues()
    rows = [row for row in page.rows if len(row) == 11 and row[1] in ("uplink", "GPUs")]
    assert [row[1] for row in rows] == queues["station"].tolist() == ["uplink", "GPUs"] * 2, "the SLM alone has none"
    for column, name in ((7, "seen.mean"), (9, "present.mean")):
        assert [float(row[column].partition("±")[0]) for row in rows] == pytest.approx(queues[name].tolist(), abs=0.006)
    assert [float(row[10]) for row in rows] == queues["present.p95"].tolist()


def test_every_metric_is_in_the_full_table(page):
    assert set(UNITS) - set(ENERGY) <= {row[0] for row in page.rows if row}  # no phone's power is known here


def test_a_teacher_forced_policy_is_marked_wherever_it_stands(page):
    words = " ".join(page.words)
    assert "where its own tokens were never recorded" in words
    marked = words.count("Teacher-forced where its own tokens were never recorded: u-hlm(0.43)")
    assert marked == 1 + words.count("Figure "), "under the table and under each figure"
    for first in (1, 6):
        assert [row[0] for row in page.rows[first : first + 3]] == ["hlm", "u-hlm(0.43)\u2009†", "slm"]


def test_figures_are_there_as_png_and_pdf(folder):
    for name in ("throughput", "legs", "token_time", "ttft", "queues"):
        assert (folder / f"figures/{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (folder / f"figures/{name}.pdf").read_bytes().startswith(b"%PDF")


def test_the_same_tables_give_the_same_bytes_in_memory_and_from_the_folder(tables, text, tmp_path):
    read = Results.read(folder_of(tables, tmp_path / "run"))
    assert read.policies == list(POLICIES)
    assert report(read, tmp_path) == text


def test_without_token_tables_the_figures_that_need_them_are_left_out(tables, tmp_path):
    folder = folder_of(tables, tmp_path / "run")
    (folder / "rounds.parquet").unlink(missing_ok=True)
    (folder / "tokens.parquet").unlink()
    figures = write_figures(Results.read(folder), tmp_path / "figures")
    assert [figure.name for figure in figures] == ["throughput", "legs", "ttft", "batches"]


def test_one_replication_makes_a_report_without_intervals(tmp_path):
    words = " ".join(Page(report(run(replications=1), tmp_path)).words)
    assert "One replication gives no interval" in words
    assert "±" not in words
    assert "nan" not in words.split()


def swept_over_snr(tables, **changes):
    """Return the run's tables twice over, as a sweep over the SNR."""
    points = [table.assign(point=i) for i in (0, 1) for table in [tables.replications]]
    key = "channel.mean_snr_db"
    tidy = pd.concat([table.assign(**{key: 10.0 * table["point"]}) for table in points], ignore_index=True)
    return Results(
        summary=summarise(tidy, "hlm"),
        replications=tidy,
        requests=pd.concat([tables.requests, tables.requests.assign(point=1)]),
        tokens=None,
        stations=pd.concat([tables.stations, tables.stations.assign(point=1)]),
        scenario=tables.scenario,
        provenance={**tables.provenance, **changes},
    )


def test_a_sweep_is_two_tables_and_a_folded_one_for_each_point(tables, tmp_path):
    text = report(swept_over_snr(tables), tmp_path)
    rows = Page(text).rows
    assert [row[:2] for row in rows[:3]] == [["channel.mean_snr_db", "hlm"], ["0", rows[1][1]], ["10", rows[2][1]]]
    for point in ("0", "10"):
        assert text.count(f"<details><summary>channel.mean_snr_db = {point}</summary>") == 1


def test_a_sweep_in_memory_and_from_its_folder_is_one_report(tables, tmp_path):
    swept = swept_over_snr(tables)
    folder = folder_of(replace(swept, tokens=tables.tokens), tmp_path / "run")
    (folder / "rounds.parquet").unlink(missing_ok=True)
    (folder / "tokens.parquet").unlink()
    assert report(Results.read(folder), tmp_path / "a") == report(swept, tmp_path / "b")


def test_the_terminal_shows_a_sweep_as_two_tables_of_a_row_a_point(tables, tmp_path):
    swept = swept_over_snr(tables)
    text = summary_text(swept)
    lines = text.splitlines()
    for title in ("Tokens a second of the cell", "Ratio to hlm"):
        top = lines.index(title)
        assert lines[top + 1].split() == ["channel.mean_snr_db", "hlm", "u-hlm(0.43)", "*", "slm"]
        assert [line.split()[0] for line in lines[top + 2 : top + 4]] == ["0", "10"]
    folder = folder_of(replace(swept, tokens=tables.tokens), tmp_path / "run")
    assert summary_text(Results.read(folder)) == text


def test_the_terminal_shows_a_single_point_as_a_row_a_policy(tables):
    lines = summary_text(tables).splitlines()
    rows = [line.split()[0] for line in lines[lines.index(next(x for x in lines if x.startswith("policy"))) + 1 :][:3]]
    assert rows == list(POLICIES)
    assert any(line.startswith("- slm: commits") for line in lines)
    assert all(len(line) <= 120 for line in lines if line.startswith(("- ", "  ")))


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        ((1.05, 0.683, 5.48), "1.1 (0.7 to 5.5)"),
        ((1.9, 0.9, 3.0), "1.9 (0.9 to 3.0)"),
        ((0.9222, math.nan, math.nan), "≈0.92 (no interval)"),
    ],
)
def test_the_terminal_rounds_no_interval_away_and_marks_a_ratio_without_one(tables, estimate, text):
    summary = tables.summary.copy()
    of_slm = (summary["policy"] == "slm") & (summary["metric"] == "token_throughput.ratio_to_first")
    summary.loc[of_slm, ["mean", "ci95_low", "ci95_high"]] = estimate
    row = next(line for line in summary_text(replace(tables, summary=summary)).splitlines() if line.startswith("slm "))
    assert text in row


def test_a_precision_that_was_not_reached_is_told_with_the_number_that_was_run(tables, tmp_path):
    def asked(relative):
        wanted = {"metric": "mean_token_rate", "relative": relative, "max_replications": 20}
        return replace(tables, scenario={**tables.scenario, "precision": wanted})

    said = "not reached with 20 replications, the most allowed: in mean_token_rate the half-width of the ratio to hlm"
    for text in (summary_text(asked(1e-4)), " ".join(Page(report(asked(1e-4), tmp_path)).words)):
        words = " ".join(text.split())
        assert said in words
        assert "is above 0.01 % of it under u-hlm(0.43) and slm, up to" in words
        assert "3 replications (3 asked for, but a precision takes at least 20) of 20 s" in words
    assert "not reached" not in summary_text(asked(0.9))


def test_a_policy_that_is_forced_at_some_points_is_said_to_be_so_there(tables, tmp_path):
    swept = swept_over_snr(tables)
    tidy = swept.replications.copy()
    tidy.loc[(tidy["policy"] == "u-hlm(0.43)") & (tidy["metric"] == "kept_rate") & (tidy["point"] == 0), "value"] = 0.9
    swept = replace(swept, replications=tidy, summary=summarise(tidy, "hlm"))
    assert (swept.forced, swept.forced_in_part) == (["u-hlm(0.43)"], ["u-hlm(0.43)"])
    assert summary_text(swept).endswith("where its own tokens were never recorded (exact_share): u-hlm(0.43) at 10 dB")
    words = " ".join(" ".join(Page(report(swept, tmp_path)).words).split())
    assert "where its own tokens were never recorded: u-hlm(0.43) at 10 dB." in words
    assert "where its own tokens were never recorded: u-hlm(0.43) (at some points)." in words
    assert swept.at({"channel.mean_snr_db": 0.0}).forced == []


def test_what_failed_stands_at_the_top(tables, tmp_path):
    told = {"point": "channel.mean_snr_db = 20", "policy": "slm", "reason": "bits went missing"}
    swept = swept_over_snr(tables, failed=[{**told, "replication": number} for number in (1, 2)])
    words = " ".join("".join(Page(report(swept, tmp_path)).words).split())
    assert "FAILED. 2 simulations broke off. Their points are missing" in words
    heading = words.index("Answers", words.index("FAILED"))
    assert words.index("channel.mean_snr_db = 20, slm: bits went missing (2 replications)") < heading
    assert "FAILED: channel.mean_snr_db = 20, slm: bits went missing (2 replications)" in summary_text(swept)


def test_what_mser_5_would_cut_is_told_of_each_policy(page):
    said = [row[-1] for row in page.rows if row and row[0] in POLICIES and "MSER-5" in row[-1]]
    assert len(said) == len(POLICIES)
    assert "Was the warm-up long enough? MSER-5" in " ".join(page.words)


def test_each_figure_names_the_files_it_is_in(folder, page):
    links = [attrs["href"] for tag, attrs in page.tags if tag == "a" and attrs["href"][0] != "#"]
    assert {"figures/throughput.pdf", "figures/legs.pdf"} <= set(links)
    assert all((folder / link).is_file() for link in links)


def test_a_setting_that_the_traffic_does_not_use_is_not_shown(tables, tmp_path):
    both = {"devices": 2, "rate_per_s": 0.5, "think_time_s": 3.0}
    for kind, unused in (("closed", "rate_per_s"), ("poisson", "think_time_s")):
        scenario = {**tables.scenario, "traffic": {"kind": kind, **both}}
        words = " ".join(Page(report(replace(tables, scenario=scenario), tmp_path / kind)).words)
        assert (f"{unused} =" in words) is False
        assert f"kind = {kind}, devices = 2" in words


def test_a_swept_value_is_not_shown_as_the_one_that_was_run(tables, tmp_path):
    scenario = {
        **tables.scenario,
        "output": {"tokens": False},
        "policy": [{"kind": "hlm"}, {"kind": "u-hlm", "threshold": 0.43, "name": "mine"}, {"kind": "slm"}],
        "sweep": {"channel.mean_snr_db": [0.0, 10.0]},
    }
    swept = replace(swept_over_snr(tables, git_revision=None), scenario=scenario)
    assumed = {**swept.provenance, "assumptions": ["What `uhlm-sim calibrate` says."]}
    text = report(replace(swept, provenance=assumed), tmp_path / "one")
    words = " ".join(Page(text).words)
    assert "mean_snr_db = swept" in words
    assert "tokens = false" in words
    assert "not a checkout" in words
    assert "None" not in words
    assert "What <code>uhlm-sim calibrate</code> says." in text
    key = {"channel.mean_snr_db": "policy.mine.threshold"}
    renamed = {name: getattr(swept, name).rename(columns=key) for name in ("summary", "replications")}
    words = " ".join(Page(report(replace(swept, **renamed), tmp_path / "two")).words)
    assert "kind = u-hlm, threshold = swept, name = mine" in words


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda folder: (folder / "summary.csv").unlink(), "not a finished run, it has no summary.csv"),
        (lambda folder: (folder / "requests.parquet").unlink(), "not a finished run, it has no requests.parquet"),
        (lambda folder: (folder / "provenance.json").write_text("{"), "can't be read as a run"),
        (lambda folder: (folder / "scenario.resolved.toml").write_text("= 1"), "can't be read as a run"),
        (lambda folder: (folder / "tokens.parquet").write_bytes(b"PAR1 no more"), "can't be read as a run"),
        (lambda folder: (folder / "summary.csv").write_text(""), "can't be read as a run"),
        (lambda folder: (folder / "summary.csv").write_text("a,b\n1,2\n"), "summary.csv has no policy"),
    ],
)
def test_a_folder_that_is_no_finished_run_is_refused_in_one_sentence(tables, tmp_path, break_it, message):
    folder = folder_of(tables, tmp_path / "run")
    break_it(folder)
    with pytest.raises(InputError) as caught:
        Results.read(folder)
    assert message in str(caught.value)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_whose_failed_points_were_left_out_is_read_with_what_failed(tables, tmp_path):
    told = {"point": "channel.mean_snr_db = 20", "policy": "slm", "replication": 1, "reason": "bits went missing"}
    swept = swept_over_snr(tables, failed=[told])
    folder = folder_of(replace(swept, tokens=tables.tokens), tmp_path / "run")
    (folder / "summary.csv").rename(folder / "summary.partial.csv")
    assert Results.read(folder).failed == [told]
    (folder / "provenance.json").write_text(json.dumps(tables.provenance))
    with pytest.raises(InputError, match=r"not a finished run, it has no summary.csv"):
        Results.read(folder)


def test_no_folder_at_all_is_refused_and_the_one_beside_it_named(tmp_path):
    (tmp_path / "quickstart").mkdir()
    with pytest.raises(InputError, match=r"not a finished run, .*; did you mean '.*/quickstart'"):
        Results.read(tmp_path / "quikstart")
