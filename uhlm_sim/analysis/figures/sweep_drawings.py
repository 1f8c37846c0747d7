"""The figures of a run over its sweep, and the frontier of its thresholds, with what their captions say."""

from collections.abc import Iterator
from dataclasses import replace

import pandas as pd

from uhlm_sim.analysis.figures import bounds, drawing, frontier, maps, sweeps, swept
from uhlm_sim.analysis.figures.drawing import Drawing
from uhlm_sim.analysis.figures.plotting import frontier_of, joined_policies, latency_table, swept_threshold
from uhlm_sim.analysis.measures.bottleneck import load_table
from uhlm_sim.analysis.measures.intervals import RATIO
from uhlm_sim.analysis.results import Results

FEW = 4  # words that are compared in figures of their own, not in a map


def sweep_drawings(results: Results) -> Iterator[Drawing]:
    """Give the figures over the swept values: lines over one, maps over two; of more, over the first two.

    Where one of two takes a few words, such as rules to compare, there are lines over the other for each word.
    """
    keys = swept.varied(results.summary, results.sweep)
    middle = results.middle_point().summary
    rest = middle[keys[2:]].head(1).to_dict("records")[0] if keys else {}
    some = results.at(rest)
    note = drawing.drawn_for(some.summary, keys[2:]) + drawing.forced(results)
    words = [key for key in keys[:2] if not swept.is_numeric(some.summary[key])]
    if len(keys) == 1:
        yield from _lines(some, keys[0], note)
    elif len(words) == 1 and some.summary[words[0]].nunique() <= FEW:
        x = next(key for key in keys[:2] if key not in words)
        for number, word in enumerate(some.summary[words[0]].unique(), 1):
            part = some.at({words[0]: word})
            for each in _lines(part, x, f"{drawing.drawn_for(part.summary, words)}{note}"):
                if each.name in ("sweep", "latency"):
                    yield replace(each, name=f"{each.name}_{number}", title=f"{each.title}, {word}")
    elif keys:
        yield from _maps(some, keys[0], keys[1], note)


def _lines(results: Results, x: str, note: str) -> Iterator[Drawing]:
    summary = results.summary
    policies = list(sweeps.joined(summary, x).unique())
    words = swept.key_words(x)
    others = [name for name in results.sweep if name != x and summary[name].astype(str).nunique() > 1]
    together = f" With it goes {' and '.join(map(swept.key_words, others))}." if others else ""
    bands = drawing.intervals(results, "Bands")
    table = sweeps.with_guides(sweeps.over_table(summary, x, list(sweeps.PANELS)), {})
    guide = " The dotted 1/n is a phone's share of a full cell." if table["policy"].eq("1/n").any() else ""
    yield Drawing(
        "sweep",
        f"Over {words}",
        f"Each policy against {words}.{together}{bands} Ratios are to {policies[0]}, paired by replication. A phone's "
        "rate is 1/mean(delay); a token's delay is the time from the start of its draft until it is at the device."
        f"{guide}{_crosses(table)}{note}",
        table,
        sweeps.over_figure(table, policies=policies),
    )
    table = latency_table(results, x)
    partial = f" Hollow points are {' or '.join(sweeps.PARTIAL)}: they are the latencies of the quicker requests."
    hollow = partial if table["verdict"].isin(sweeps.PARTIAL).any() else ""
    limit = " The dashed line is the SLO." if table["policy"].eq("SLO").any() else ""
    if len(table):
        yield Drawing(
            "latency",
            f"Latency percentiles over {words}",
            "Above, time to first token, waiting at the phone included. Below, time per output token after it, (e2e − "
            "TTFT)/(tokens − 1), of finished requests. Percentiles are taken within a replication, then averaged."
            f"{bands}{limit}{hollow}{_crosses(table)}{note}",
            table,
            sweeps.latency_figure(table, policies),
        )
    table = sweeps.over_table(summary, x, list(sweeps.BATCHES))
    if len(table):
        yield Drawing(
            "batches",
            f"Batch size over {words}",
            "Mean over the batches that the GPUs served: jobs (left), and tokens that the LLM hadn't processed before "
            "(right), since the prompt and kept drafts come with the next upload. Policies that never ask the LLM are "
            f"missing.{bands}{_crosses(table)}{note}",
            table,
            sweeps.over_figure(table, sweeps.BATCHES, policies),
        )
    table = sweeps.legs_over_table(summary, x)
    if table.empty:  # nothing was committed at any point
        return
    if x in bounds.LOADS:
        yield _bounds(results, x, f"{bands}{note}")
    yield Drawing(
        "legs",
        f"Where a token's time goes over {words}",
        f"Share of each leg in the mean time of the tokens committed {drawing.window(results)}; a token without a leg "
        "counts zero for it. Above each bar stands that mean time in milliseconds. Means over "
        f"{drawing.over(results)}.{note}",
        table,
        sweeps.legs_over_figure(table),
    )


def _bounds(results: Results, x: str, note: str) -> Drawing:
    table = load_table(results, x)
    is_open = not results.closed_loop
    meets = "" if is_open else " Where it meets the least of the others is N*: beyond it phones queue."
    offered = " Dotted: what the arrivals ask for." if is_open else ""
    return Drawing(
        "bottleneck",
        f"What limits the cell over {swept.key_words(x)}",
        "Tokens a second of the cell beside the asymptotic bounds of queueing theory. The grey line is N phones that "
        "wait for nobody, taken from where they are fewest: a token holds its phone for Z + S, Z outside the shared "
        f"stations and S in service.{meets} Each other line is a station in use all the time, 1/D, with D its time per "
        "token at the most load and GPUs with full batches; one that lies above the frame doesn't limit."
        f"{offered}{note}",
        table,
        bounds.bounds_figure(table, results.policies),
    )


def _crosses(table: pd.DataFrame) -> str:
    return " Crosses have no interval: they are the least certain." if sweeps.without_interval(table).any() else ""


def _maps(results: Results, x: str, y: str, note: str) -> Iterator[Drawing]:
    words = f"{swept.key_words(x)} and {swept.key_words(y)}"
    summary, policies = results.summary, results.policies
    table = maps.map_table(summary, x, y, f"token_throughput{RATIO}")
    if len(table):
        brackets = " A number in brackets has an interval that holds 1." if drawing.several(results) else ""
        yield Drawing(
            "ratio_map",
            f"Throughput over {words}",
            f"Tokens a second of the cell as a ratio to {policies[0]}, of means over {drawing.over(results)}, paired."
            f"{brackets} The line is where both are equal, interpolated between the cells.{note}",
            table,
            maps.map_figure(table, policies),
        )
    table = maps.map_table(summary, x, y, maps.ATTAINMENT)
    if len(table):
        limits = ", ".join(f"{name} = {limit:g}" for name, limit in results.scenario.get("slo", {}).items())
        yield Drawing(
            "slo_map",
            f"Requests that meet the SLOs over {words}",
            f"Share of the decided requests that meet every SLO ({limits}), in per cent, mean over "
            f"{drawing.over(results)}. The line is where {100 * maps.MET:.0f} % do, interpolated between the cells."
            f"{note}",
            table,
            maps.map_figure(table, policies),
        )


def frontier_drawing(results: Results) -> Iterator[Drawing]:
    """Give the frontier where there is a ladder of thresholds: swept, or as policies of the middle point."""
    table = frontier_of(results)
    if not frontier.is_frontier(table):
        return
    at = "" if swept_threshold(results) else drawing.drawn_for(results.middle_point().summary, results.sweep)
    note = at + drawing.forced(results)
    said = [frontier.SAID[metric] for metric in frontier.SAID if table["metric"].eq(metric).any()]
    yield Drawing(
        "frontier",
        "Accuracy against token rate",
        f"A phone's token rate, 1/mean(delay), as a ratio to {results.policies[0]}, against what each setting costs; "
        f"U-HLM's threshold stands beside it. {' '.join(said)} Each rule's line starts at hlm, which keeps nothing, "
        f"and ends at slm, which keeps everything.{drawing.intervals(results, 'Thin lines')}{note}",
        table,
        frontier.frontier_figure(table, joined_policies(results)),
    )
