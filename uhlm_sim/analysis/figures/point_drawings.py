"""The figures of one point of a run, with what their captions say."""

from collections.abc import Iterator

import pandas as pd

from uhlm_sim.analysis.figures import drawing, plots, queues, swept
from uhlm_sim.analysis.figures.drawing import Drawing
from uhlm_sim.analysis.measures.energy import ENERGY
from uhlm_sim.analysis.run import Run


def point_drawings(results: Run) -> Iterator[Drawing]:
    """Give the figures of one point: of a sweep the middle one, without those that are drawn over the sweep."""
    one = results.middle_point()
    note = drawing.drawn_for(one.summary, results.sweep) + drawing.forced(results)
    is_drawn_over = len(swept.varied(results.summary, results.sweep)) == 1
    if not is_drawn_over:
        yield from _bars(one, note)
    table = plots.energy_table(one.summary)
    if len(table):
        yield Drawing(
            "energy",
            "Energy of a token",
            f"Mean over all tokens committed {drawing.window(one)}: the phone's power times its computing; the radio's "
            "times the time of sending; a GPU's times the verification, shared by the jobs of a batch. What isn't "
            f"known is missing.{drawing.intervals(one, 'Lines') if _is_whole(table) else ''}{note}",
            table,
            plots.energy_figure(table),
        )
    yield from _distributions(one, note)
    table = plots.batch_table(one.summary)
    if len(table) and not is_drawn_over:
        yield Drawing(
            "batches",
            "Batch size",
            f"Mean over the batches that the GPUs served {drawing.window(one)}: jobs (left), and tokens that the LLM "
            "hadn't processed before (right), since the prompt and kept drafts come with the next upload. Policies "
            f"that never ask the LLM are missing.{drawing.intervals(one, 'Lines')}{note}",
            table,
            plots.batch_figure(table, one.policies),
        )


def _is_whole(table: pd.DataFrame) -> bool:
    return bool((table["metric"] == ENERGY[0]).any())


def _bars(one: Run, note: str) -> Iterator[Drawing]:
    window = drawing.window(one)
    table = plots.throughput_table(one.summary)
    bands = drawing.intervals(one, "Lines") if drawing.several(one) else " One replication gives no interval."
    yield Drawing(
        "throughput",
        "Throughput by policy",
        f"Left: tokens a second that all phones together committed {window}. Right: the rate at which a phone that "
        "is answering gets tokens, as 1/mean(delay) (full) and as mean(1/delay) (light); a token's delay is "
        "the time from the start of its draft until it is at the device. Tokens that the LLM generates overlap "
        f"with the downlink of the one before, so there TPOT is shorter.{bands}{note}",
        table,
        plots.throughput_figure(table, one.policies),
    )
    table = plots.legs_table(one.summary)
    yield Drawing(
        "legs",
        "Where a token's time goes",
        f"Mean time of each leg over all tokens committed {window}; a token without a leg counts zero for it, so a "
        "bar ends at the mean time of a token. Airtime is the upload's share of the band, integrated over its "
        "stay, and uplink wait the rest of that stay; verification is the whole service time of the token's "
        f"batch.{note}",
        table,
        plots.legs_figure(table),
    )


def _distributions(one: Run, note: str) -> Iterator[Drawing]:
    window, over, policies = drawing.window(one), drawing.over(one), one.policies
    start_s, end_s = one.window_s
    if one.tokens is not None:
        table = _ordered(plots.token_time_table(one.tokens, one.window_s), policies)
        yield Drawing(
            "token_time",
            "Time per token",
            f"Share of the tokens committed {window} that took at most the time on the axis; {over} pooled. Kept "
            f"drafts cost the device alone: they are the step at the left.{note}",
            table,
            plots.ecdf_figure(table, "delay_s", "time per token, s", "tokens", policies),
        )
    table = _ordered(plots.ttft_table(one.requests, one.window_s), policies)
    if len(table):
        yield Drawing(
            "ttft",
            "Time to first token",
            f"Share of the requests that arrived {window} whose first token was at the device within the time on the "
            f"axis; {over} pooled. Requests without a first token at the end are left out.{note}",
            table,
            plots.ecdf_figure(table, "ttft_s", "time to first token, s", "requests", policies),
        )
    table = queues.queue_table(one.tokens, end_s) if one.tokens is not None else pd.DataFrame()
    if len(table):
        yield Drawing(
            "queues",
            "Jobs present over time",
            f"Uploads at the uplink (left) and jobs waiting or in service at the base station (right), mean over {over}"
            f"{'; bands are 95 % intervals' if drawing.several(one) else ''}. The shaded warm-up of {start_s:g} s is "
            f"left out of every metric.{note}",
            table,
            queues.queue_figure(table, start_s, policies),
        )


def _ordered(table: pd.DataFrame, policies: list[str]) -> pd.DataFrame:
    """Put a table's policies into the run's order."""
    place = table["policy"].map({name: i for i, name in enumerate(policies)})
    return table.iloc[place.argsort(kind="stable")]
