"""What a report offers beside reading: values in its first figure, and hooks for a script that it can do without."""

import re
from dataclasses import replace
from importlib.resources import files
from xml.etree import ElementTree

import pytest
from conftest import rendering
from made_up_run import POLICIES, run
from matplotlib.figure import Figure
from test_report import Page, swept_over_snr
from test_sweeps import KINDS, LABELS, error, ladder

from uhlm_sim.analysis.figures import frontier, style
from uhlm_sim.analysis.figures.catalogue import write_figures
from uhlm_sim.analysis.figures.marks import Point, Value, mark
from uhlm_sim.analysis.report.inline_figure import inline
from uhlm_sim.analysis.report.page import write_report

RATES = ("token_throughput", "token_throughput_per_device", "mean_token_rate")


def svg_of(figure):
    with rendering():
        return style.svg(figure)


def inlined(figure):
    return ElementTree.fromstring(inline(svg_of(figure), "A figure", "hlm"))


def titles(root, tag):
    return [element.findtext("title") for element in root.iter(tag) if element.get("role") == "img"]


@pytest.fixture(scope="module")
def tables():
    return run()


@pytest.fixture(scope="module")
def text(tables, tmp_path_factory):
    """The page, with its first figure as it is drawn."""
    folder = tmp_path_factory.mktemp("report")
    first, *others = write_figures(tables, folder / "figures")
    assert first.svg
    assert not any(figure.svg for figure in others)
    write_report(tables, [replace(first, svg=svg_of(tables.plot.throughput())), *others], folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_each_bar_is_titled_with_the_number_of_the_table(tables, page):
    cells = {row[0]: row[2:] for row in page.rows if row and row[0] in RATES}
    in_table = {
        f"{policy}: {rate} {value} tokens/s".replace(" ", "")
        for rate, row in cells.items()
        for policy, value in zip(POLICIES, row, strict=True)
    }
    in_figure = titles(inlined(tables.plot.throughput()), "g")
    assert len(in_figure) == len(in_table) == len(RATES) * len(POLICIES), "one a bar, none for its interval and label"
    assert {title.replace(" ", "") for title in in_figure} == in_table


def test_each_point_of_a_line_is_titled_with_its_place_and_its_number(tables):
    swept = swept_over_snr(tables)
    figure = swept.plot.over("token_throughput")
    mean = tables.summary.set_index(["policy", "metric"])["mean"]
    said = re.compile(r"(.+) at (\d+) dB: token_throughput ([\d.]+) ± [\d.]+ tokens/s")
    points = [said.fullmatch(title).groups() for title in titles(inlined(figure), "circle")]
    assert [point[:2] for point in points] == [(policy, snr) for policy in POLICIES for snr in ("0", "10")]
    for policy, _, value in points:
        assert float(value) == pytest.approx(mean[policy, "token_throughput"], rel=1e-3)


def test_a_ratio_is_titled_as_one(tables):
    figure = swept_over_snr(tables).plot.over("token_throughput.ratio_to_first")
    first, *_, last = titles(inlined(figure), "circle")
    assert first == "hlm at 0 dB: token_throughput, ratio to hlm 1"
    assert re.fullmatch(r"slm at 10 dB: token_throughput, ratio to hlm [\d.]+ \([\d.]+ to [\d.]+\)", last)


def test_a_threshold_is_titled_with_its_speed_and_its_cost():
    figure = frontier.frontier_figure(frontier.frontier_table(ladder(LABELS, distribution_error=error), KINDS))
    shown = dict(title.split(": ") for title in titles(inlined(figure), "circle"))
    assert set(shown) == set(LABELS)
    ratio, cost = shown["u-hlm(0.9)"].split("), ")
    assert ratio == "token_throughput_per_device, ratio to hlm 1.80 (1.70 to 1.90"
    assert cost == "distribution_error 0.40 ± 0.10", "half of what it skips"


def test_a_label_with_markup_in_it_stays_text():
    label = 'a<b>&"c" [1]'
    figure = Figure()
    mark(figure.subplots().plot([1, 2], [3, 4], "o"), label, [Point("", [Value("goodput", y, y, y)]) for y in (3, 4)])
    root = inlined(figure)
    (group,) = [element for element in root.iter("g") if element.get("class") == "mark"]
    assert group.get("data-policy") == label
    assert titles(root, "circle") == [f"{label}: goodput {y}.000 ± 0 requests/s" for y in (3, 4)]


def test_what_the_figure_refers_to_is_in_it_and_named_once(text, page):
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    body = text[: text.index("<script>")]
    referred = re.findall(r"url\(([^)]*)\)", body) + [attrs["href"] for tag, attrs in page.tags if tag == "use"]
    assert referred
    assert {name[0] for name in referred} == {"#"}, "nothing outside the page"
    assert {name[1:] for name in referred} <= set(ids)
    svg = body[body.index("<svg") : body.index("</svg>")]
    assert not re.findall(r"<style|<metadata|<image|xmlns", svg)


def test_a_figure_drawn_twice_is_the_same_text(tables):
    once, again = (svg_of(tables.plot.throughput()) for _ in range(2))
    assert once == again
    assert "<dc:date>" not in once


def test_every_row_and_column_of_a_policy_can_be_hidden_and_none_is(text, page):
    for tag in ("tr", "th", "g"):
        assert {attrs["data-policy"] for name, attrs in page.tags if name == tag and "data-policy" in attrs} == {
            *POLICIES
        }
    for row, (_, attrs) in zip(page.rows, [tag for tag in page.tags if tag[0] == "tr"], strict=True):
        if row and row[0].removesuffix("\u2009†") in POLICIES:
            assert attrs["data-policy"] == row[0].removesuffix("\u2009†")
    made_by_the_script = {"button", "fieldset", "input"}
    assert not {tag for tag, _ in page.tags} & made_by_the_script
    assert not [attrs for _, attrs in page.tags if {"hidden", "aria-sort", "tabindex"} & set(attrs)]
    assert not [attrs for _, attrs in page.tags if "off" in (attrs.get("class") or "").split()]
    screen = text[text.index("<style>") : text.index("@media print")]
    assert re.findall(r"([^{}\n]+) \{ display: none", screen) == [".off"]


def test_tables_whose_rows_belong_together_are_not_sorted(text):
    bodies = re.findall(r'<table class="([^"]*sortable)">.*?<tbody>(.*?)</tbody>', text, flags=re.DOTALL)
    assert len(bodies) == 3, "the first table, the result and the policies"
    assert not any("colspan" in body or "rowspan" in body or 'td class="policy"></td>' in body for _, body in bodies)


def test_script_and_figure_are_small_and_call_nobody(text):
    script = files("uhlm_sim.analysis.report").joinpath("page.js").read_text(encoding="utf-8")
    assert script.strip() in text
    assert len(script.splitlines()) <= 100
    assert not re.findall(r"fetch|XMLHttpRequest|WebSocket|import|http|Storage|cookie|eval|innerHTML", script)
    assert len(text[text.index("<svg") : text.index("</svg>")]) < 40_000
