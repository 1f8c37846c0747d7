"""Every sentence of the report holds of the tables it speaks of, whatever the run: over random runs and sweeps."""

import math
import re
from itertools import product

import numpy as np
import pandas as pd
import pytest
from random_runs import random_run
from sentence_checks import CLAIMS, RATE, TIMES, Reader, agrees, is_printed, near, rows_at, says, unbeaten

from uhlm_sim.analysis.measures.intervals import paired_ratio
from uhlm_sim.analysis.report.points import Points

CELL = "token_throughput"
METRIC_WORDS = {"tokens a second": CELL, "TPOT p95": "tpot_s.p95", "TTFT p95": "ttft_s.p95"}


@says(r"More requests arrive than are answered \(OVERLOADED\) under (REST)\.")
def overloaded(run, where):
    assert run.is_open
    assert run.under(where) == run.holding(lambda *key: run.words[key] == "OVERLOADED")


@says("Arrivals are open: a cell that keeps up commits .*")
def open_arrivals(run):
    assert run.is_open


@says(
    "Of the policies within a total variation distance of 0.05 a token of the LLM's law, an answering phone gets its "
    r"tokens fastest, by 1/mean\(delay\), under (REST)\."
)
def fastest(run, text):
    leading = set()
    for policy, where, low, high, whose in re.findall(
        rf"(?:^|; )({run.names})( .*?)? \(([^ ()]+)(?: to ([^ ()]+))? times (?:({run.names})'s rate|the next one's)\)",
        text,
    ):
        here = run.where(where)
        leads = sorted(run.ratio(point, policy, RATE, near(run, point)[1]) for point in here)
        assert agrees(low, "plain", leads[0])
        assert agrees(high or low, "plain", leads[-1])
        assert {near(run, point)[1] for point in here} <= ({whose} if whose else set(run.policies))
        leading |= {(point, policy) for point in here}
    alone = {(point, near(run, point)[0]) for point in run.points if len(near(run, point)) > 1}
    assert leading == {(point, best) for point, best in alone if len(unbeaten(run, point)) == 1}


@says(r"Chance leaves open which is fastest(?P<where>.*?)(?:, between (?P<between>LIST))?\.")
def open_who_is_fastest(run, where, between):
    tied = {point for point in run.points if len(unbeaten(run, point)) > 1}
    assert run.where(where) == tied
    for point in tied if between else ():
        assert set(re.split(", | and ", between)) == set(unbeaten(run, point))


@says(
    r"(As arrivals grow, the first|The) bottleneck is (.+), too close to tell apart, under (REST): "
    r"they are at (REST) of what they can carry\."
)
def limited_by_several(run, _, names, where, loads):
    run.span(loads, rows_at(run, run.under(where), *re.split(", | or ", names))[0]["load"])


@says("As arrivals grow, (.+) would be the first to limit (REST): (?:it is|they are) at (REST) of what .* can carry.")
def would_limit(run, name, where, loads):
    its, _ = rows_at(run, run.under(where), name)
    assert run.is_open
    assert (its["load"] < 0.95).all()
    run.span(loads, its["load"])


@says(
    r"No station limits (REST): ([\d to]+ %) of a token's time is waiting for one"
    r"(?:, and none is above (\d+) % of what it can carry(?: \(the GPUs, with small batches, are"
    r" busy up to (\d+ %) of the time\))?)?\."
)
def no_station_limits(run, where, waits, most, busy):
    _, others = rows_at(run, run.under(where), "phones")
    assert not run.is_open
    means = np.array(
        [
            [run.mean(*key, name)[0] for name in ("uplink_wait_s", "bs_wait_s", "token_delay_s.mean")]
            for key in run.under(where)
        ]
    )
    run.span(waits, means[:, :2].sum(axis=1) / means[:, 2])
    if most:
        assert 100 * others["load"].max() <= int(most) + 0.5
    gpus = others.loc[others["station"] == "GPUs", "utilisation"]
    if len(gpus) and gpus.max() > others["load"].max():
        run.span(busy, [gpus.max()])


@says(r"Chance leaves open whether (the [^,]+?) limits? (REST), at ([\d to]+ %) of what could be carried\.")
def perhaps_limits(run, names, where, loads):
    its, _ = rows_at(run, run.under(where), *names.split(" or "), "phones")
    assert not run.is_open
    run.span(loads, its.loc[its["station"] != "phones", "load"])


@says(r"The phones themselves limit (REST): each answers one request at a time, and they are at (REST) of what .*")
def phones_limit(run, where, loads):
    its, _ = rows_at(run, run.under(where), "the phones themselves")
    assert run.is_open
    run.span(loads, its["load"])


@says(
    r"The (uplink|downlink|GPUs) limits? (REST): (?:it is|they are) busy ([\d to]+ %) of the time"
    r"(?: at ([\d to]+ %) of a full batch's pace)?(?:, and ([\d to]+ %) of a token's time is waiting"
    r" for (?:it|them))?\."
)
def station_limits(run, name, where, busy, pace, waits):
    its, _ = rows_at(run, run.under(where), name)
    run.span(busy, its["utilisation"])
    for said, shares in ((pace, its["load"] / its["utilisation"]), (waits, its["wait_share"])):
        if said:
            run.span(said, shares)


@says(r"Of the requests that were decided, fewer than 95 % meet the SLO \(ttft_s ≤ 2\) under (?!every)(REST)\.")
def missed(run, where):
    assert run.under(where) == run.holding(lambda *key: run.mean(*key, "slo_attainment")[2] < 0.95)


@says(r"Of the requests that were decided, at least 95 % meet the SLO \(ttft_s ≤ 2\) under every policy\.")
def kept(run):
    assert all(run.mean(*key, "slo_attainment")[1] >= 0.95 - 1e-9 for key in product(run.points, run.policies))


@says(r"(POLICY): (?:commits|an answering phone gets) (POLICY)'s tokens a second in every replication\.")
def equals_first(run, policy, first):
    for point in run.points:
        its, others = (run.of(point, name, RATE if run.is_open else CELL) for name in (policy, first))
        assert np.allclose(its, others, rtol=1e-9)
        assert len(its) > 1


@says(
    rf"(POLICY): (commits|an answering phone gets) (?P<values>.*) times (?P<first>POLICY)'s tokens a second"
    rf"(?P<places>(?: at .*?)?)(?P<chance>, no difference beyond chance)?(?:;"
    rf" (?P<sides>(?:more|less|faster|slower)[^;]*?))?"
    rf"(?:; an answering phone is (?P<mean>{TIMES}) times as fast by 1/mean\(delay\),"
    rf" (?P<rate>{TIMES}) by mean\(1/delay\))?"
    r"\.(?P<costs> It .*\.)?"
)
def against_first(run, policy, does, values, first, places, chance, sides, mean, rate, costs):
    assert does.startswith("an") == run.is_open
    assert first == run.policies[0]
    ratios = run.all(run.ratio, policy, RATE if run.is_open else CELL)
    run.course(
        f"{values} times {first}'s tokens a second{places}", "times", ratios, f" times {first}'s tokens a second"
    )
    above = {point for point in run.points if ratios[point][1] > 1 + 1e-9}
    below = {point for point in run.points if ratios[point][2] < 1 - 1e-9}
    if chance:
        assert all(low <= 1 + 1e-9 and high >= 1 - 1e-9 for _, low, high in ratios)
    for side in re.split(r" and (?=less|slower)", sides or ""):
        word, _, where = side.partition(" ")
        assert not word or run.where(f" {where}" if where else "") == (above if word in ("more", "faster") else below)
    if len(run.points) > 1:
        assert ("more" in (sides or "") or "faster" in (sides or "")) == bool(above)
        assert ("less" in (sides or "") or "slower" in (sides or "")) == bool(below)
    for text, metric in ((mean, RATE), (rate, "mean_token_rate")):
        assert not text or agrees(text, "times", run.ratio(0, policy, metric))
    costs_of(run, policy, first, costs) if costs else None


def costs_of(run, policy, first, costs):
    clauses = re.split(r"(?:, | and )(?=has |skips |writes )", costs.removeprefix(" It ").removesuffix("."))
    for clause in clauses:
        verb, _, rest = clause.partition(" ")
        if verb == "skips":
            run.course(rest, "percent", run.all(run.mean, policy, "skip_rate"), " of the tokens")
        elif verb == "writes":
            rest = rest.removeprefix("programs of which ")
            run.course(rest, "percent", run.all(run.mean, policy, "task_accuracy"), " pass their checks")
        elif "total variation" in rest:
            rest = rest.removeprefix("a total variation distance from the LLM of ")
            run.course(rest, "plain", run.all(run.mean, policy, "distribution_error"), " a token")
        else:
            text, only = re.fullmatch(r"(.*?)(?: \(known only( .*)\))?", rest).groups()
            kept = run.all(run.ratio, policy, "quality_cosine")
            run.course(text, "times", kept, f" of {first}'s similarity to the LLM's answers")
            known = {point for point in run.points if math.isfinite(kept[point][0])}
            assert not only or run.where(only) == known


@says(r"Of the policies that send drafts, none beyond chance faster than these: (REST)\.")
def unbeaten_drafts(run, where):
    kinds, metric = run.results.kinds, RATE if run.is_open else CELL
    drafting = [name for name in run.policies if kinds[name] not in ("slm", "llm")]

    def is_unbeaten(point, name):
        means = {other: run.mean(point, other, metric)[0] for other in drafting}
        known = {other: mean for other, mean in means.items() if math.isfinite(mean)}
        return name in known and not any(run.ratio(point, other, metric, name)[1] > 1 for other in known)

    assert run.under(where) == run.holding(is_unbeaten)


@says(
    r"The fastest threshold that keeps at least 95 % of (POLICY)'s similarity to the LLM's answers, beyond chance: "
    rf"(POLICY)(?: at (.+?))?, with ({TIMES}) times the similarity and ({TIMES}) times the tokens a"
    rf" second of an answering phone\.(?: Of the programs that pass under POLICY it keeps ({TIMES})\.)?"
    rf"(?: But slm keeps ({TIMES}) of the similarity, so it tells little here\.)?"
)
def fastest_threshold(run, first, policy, place, similarity, speed, programs, of_slm):
    point = run.place(place) if place else 0
    thresholds = [name for name in run.policies if run.results.kinds[name] == "u-hlm"]
    fit = {
        key: run.mean(*key, RATE)[0]
        for key in product(run.points, thresholds)
        if run.ratio(*key, "quality_cosine")[1] >= 0.95 - 1e-9
    }
    assert first == run.policies[0]
    assert fit[point, policy] == np.nanmax(list(fit.values()))
    assert agrees(similarity, "times", run.ratio(point, policy, "quality_cosine"))
    assert agrees(speed, "times", run.ratio(point, policy, RATE))
    assert (programs is None) == np.isnan(run.ratio(point, policy, "task_accuracy")[0])
    assert programs is None or agrees(programs, "times", run.ratio(point, policy, "task_accuracy"))
    alone = run.ratio(point, "slm", "quality_cosine") if "slm" in run.policies else (np.nan,) * 3
    assert (of_slm is not None) == bool(alone[1] >= 0.95 - 1e-9)
    assert of_slm is None or agrees(of_slm, "times", alone)


@says(
    r"Skipping (?:as often \((?P<alike>.*)\)|(?P<rates>.*) of the tokens), (?P<its>POLICY) has "
    r"a (?P<metric>total variation distance from the LLM|rejection risk) of (?P<less>.+?), "
    r"(?P<random>POLICY) of (?P<more>[\d.≈]+(?: %)?)(?: at (?P<place>.*?))?(?:; POLICY lower(?P<where>.*))?\."
)
def beside_random(run, alike, rates, its, metric, less, random, more, place, where):
    point, name = run.place(place) if place else 0, "rejection_risk" if "risk" in metric else "distribution_error"
    show = "percent" if "risk" in metric else "plain"
    assert agrees(less, show, run.mean(point, its, name))
    assert agrees(more, show, run.mean(point, random, name))
    lower = {at for at in run.points if run.mean(at, its, name)[2] < run.mean(at, random, name)[1]}
    assert point in lower
    assert (run.where(where) if where else {0}) == lower
    one, other = run.mean(point, its, "skip_rate"), run.mean(point, random, "skip_rate")
    assert bool(alike) == (one[1] <= other[2] + 1e-9 and other[1] <= one[2] + 1e-9)
    shown = (alike or rates).removesuffix(" of the tokens").split(" and ")
    assert all(agrees(text, "percent", truth) for text, truth in zip(shown, (one, other), strict=True))


@says(r"(POLICY) commits(?:, with (?P<groups>.*?),)? (?P<clauses>(?:at|everywhere) .*)\.")
def needed(run, policy, groups, clauses):
    here = set().union(*(run.having(name)[1] for name in groups.split(" or "))) if groups else set(run.points)

    along = Points.of(run.results).along
    others = [key for key in run.keys if key != along]
    groups_of = run.at.groupby(others[0]).groups if others else {"": run.points}

    def against(point, other):
        return ratio_of(run.of(other, run.policies[0], CELL), run.of(point, policy, CELL))

    for clause in re.split(r", (?=at .*? (?:as much|more)|everywhere)", clauses):
        where, short, enough = re.fullmatch(
            r"(everywhere|at .+?) (?:more than .+ at any value here|as much as .+ between (.+) and (.+))", clause
        ).groups()
        for point in here & run.within(where):
            group = next(members for members in groups_of.values() if point in members)
            assert run.ratio(point, policy, CELL)[1] > 1
            if not short:
                assert all(against(point, other)[2] < 1 for other in group)
                continue
            ends = [[other for other in group if run.item(along, other) == end] for end in (short, enough)]
            ratios = [against(point, *end) for end in ends]
            assert min(high for _, _, high in ratios) < 1 < max(low for _, low, _ in ratios)


@says(r"(POLICY), as a multiple of its value at (.+?): (REST)\.")
def choices(run, policy, first, text):
    names = [run.item(run.keys[0], point) for point in run.points]
    assert first == names[0]
    for clause in text.split("; "):
        words = next(words for words in (*METRIC_WORDS, "requests that meet the SLO") if clause.startswith(words))
        metric, shown = METRIC_WORDS.get(words), clause[len(words) + 1 :]
        if metric is None:
            run.course(shown, "percent", run.all(run.mean, policy, "slo_attainment"))
            continue
        first_values = whole(run, policy, metric)
        run.course(shown, "times", [ratio_of(its, first_values[0]) for its in first_values])


def whole(run, policy, metric):
    """Return a metric at every point in the replications in which no point lacks it."""
    values = np.array([run.of(point, policy, metric) for point in run.points])
    return values[:, ~np.isnan(values).any(axis=0)]


def ratio_of(one, other):
    return tuple(map(float, paired_ratio(one, other)[:3]))


@says(
    "Between the best and the worst .+ (?:the (share) of requests that meet the SLO differs by|TPOT"
    " p95 differs) (REST)\\."
)
def widest_choice(run, share, text):
    found = re.findall(rf"(?:^|, | and )({TIMES}) (?:times|percentage points) under ({run.names})", text)
    gaps = []
    for shown, policy in found:
        values = whole(run, policy, "slo_attainment" if share else "tpot_s.p95")
        most, least = values[values.mean(axis=1).argmax()], values[values.mean(axis=1).argmin()]
        gaps.append(100 * (most - least).mean() if share else most.mean() / least.mean())
        assert is_printed(shown.partition(" ")[0], gaps[-1])
    assert len(found) > 1
    assert np.all(np.diff(gaps) <= 1e-9 * np.abs(gaps[1:]))


@says(r"Tokens a second of an answering phone, 1/mean\(delay\): (REST)\.")
def rate_of_a_phone(run, text):
    clauses = re.findall(rf"(?:^|; )({run.names}) (.*?)(?: \(less than half of its highest(.*?)\))?(?=$|; )", text)
    assert [policy for policy, _, _ in clauses] == run.policies
    for policy, shown, where in clauses:
        rates = run.all(run.mean, policy, RATE)
        run.course(shown, "plain", rates)
        most = max((low for _, low, _ in rates if math.isfinite(low)), default=math.nan)
        halved = {point for point in run.points if rates[point][2] < most / 2}
        assert (run.where(where) if where else set()) == halved


@says(r"For a token \(mean TPOT\) the (?P<ends>.+?) takes? this many times as long as the .*?: (?P<text>POLICY.*)\.")
def near_and_far(run, ends, text):
    group = re.search(r"of class (\w+)", ends)
    requests = run.results.requests
    requests = requests[requests["device_class"] == group[1]] if group else requests
    phones = requests.groupby("device")["mean_snr_db"].first().sort_values()
    quarter = len(phones) // 4
    long = requests[(requests["tokens"] > 1) & (requests["arrived_s"] <= 100.0)]
    tpot_s = (long["finished_s"] - long["first_token_s"]) / (long["tokens"] - 1)
    by = [long["point"], long["policy"], long["replication"]]
    far, near = (
        tpot_s[long["device"].isin(devices)].groupby(by).mean().rename(name)
        for name, devices in (("far", phones.index[:quarter]), ("near", phones.index[-quarter:]))
    )
    both = pd.concat([far, near], axis=1).dropna()
    for clause in text.split("; "):
        policy, shown, times = re.fullmatch(rf"({run.names}) (.*?)(?:, (\d+ ms against \d+ ms))?", clause).groups()
        ratios = []
        for point in run.points:
            here = both[(both.index.get_level_values(0) == point) & (both.index.get_level_values(1) == policy)]
            ratios.append(ratio_of(here["far"], here["near"]))
            if times:
                assert times == f"{1e3 * here['far'].mean():.0f} ms against {1e3 * here['near'].mean():.0f} ms"
        run.course(shown, "times", ratios)


@says(r"Phones of class (\w+): (.*)\.")
def class_of_phones(run, name, text):
    metric = f"{RATE}.class.{name}"
    for clause in text.split("; "):
        policy, rest = re.fullmatch(rf"under ({run.names}) (.*)", clause).groups()
        ratios = run.all(run.ratio, policy, metric)
        if rest.startswith("an answering"):
            rest = rest.removeprefix("an answering phone gets ")
            run.course(rest, "plain", run.all(run.mean, policy, metric), " tokens a second")
        elif rest == "as many":
            assert all(low == high == 1 for _, low, high in ratios)
        else:
            shown, chance = re.fullmatch(r"(.*) times that(, no difference beyond chance)?", rest).groups()
            run.course(shown, "times", ratios)
            assert bool(chance) == all(low <= 1 <= high for _, low, high in ratios)


@says("Where it says too few replications, the 95 % interval is wider than the ratio itself: .*")
def too_few(run):
    assert any("(too few replications)" in sentence for sentence in run.sentences)


def check(run, sentence):
    """Hold a sentence against the tables; one that no pattern reads is no sentence of the report."""
    for pattern, claim in CLAIMS.items():
        words = pattern.replace("POLICY", f"(?:{run.names})").replace("LIST", run.list).replace("(REST)", "(.+)")
        found = re.fullmatch(words, sentence)
        if found:
            claim(run, *found.groups())
            return claim
    raise AssertionError("no check reads this sentence")


@pytest.mark.parametrize("seed", range(12))
def test_a_sentence_holds_of_its_tables(seed):
    run = Reader(random_run(seed))
    for sentence in run.sentences:
        try:
            check(run, sentence)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {sentence}") from error
