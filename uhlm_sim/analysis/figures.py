"""The figures of one run: which are drawn, from what, and what their captions say."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from uhlm_sim.analysis import plots, style
from uhlm_sim.analysis.metrics import in_window
from uhlm_sim.analysis.results import Results
from uhlm_sim.analysis.sweeps import sweep_figures


@dataclass(frozen=True)
class ReportFigure:
    """A drawn figure: where its PNG lies (its PDF beside it), its title, and what is seen and how counted."""

    name: str
    title: str
    caption: str
    png: Path
    width_in: float

    @property
    def narrow(self) -> bool:
        """Whether two of them fit side by side."""
        return self.width_in <= style.COLUMN_IN


def write_figures(tables: Results, folder: Path | str) -> list[ReportFigure]:
    """Draw a run's figures into a folder as PNG (200 dpi) and PDF; return them in the report's order.

    Without token tables there is no distribution of token times and no queue. Of a sweep, metrics are drawn over
    it, and the rest for its first point.
    """
    first = tables.summary[tables.sweep].head(1).to_dict("records")
    at = ", ".join(f"{name} = {value}" for row in first for name, value in row.items())
    note = f" Drawn for {at}." if at else ""
    if tables.forced:
        note += f" Teacher-forced, on the answers of another policy: {', '.join(tables.forced)}."
    one = tables.first_point()
    drawn = [
        *((name, title, caption, figure) for name, title, caption, figure in sweep_figures(tables)),
        *((name, title, caption + note, figure) for name, title, caption, figure in _figures(one)),
    ]
    return [
        ReportFigure(name, title, caption, style.save(figure, Path(folder), name), figure.get_figwidth())
        for name, title, caption, figure in drawn
    ]


def _figures(tables: Results) -> Iterator[tuple[str, str, str, Figure]]:
    start_s, end_s = tables.window_s
    count = int(tables.summary["replications"].max())
    window = f"between {start_s:g} s and {end_s:g} s"
    over = f"{count} replications" if count > 1 else "one replication"
    yield (
        "throughput",
        "Throughput by policy",
        f"Left: tokens a second that all phones together committed {window}. Right: the rate at which a phone that "
        "is answering gets tokens, as 1/mean(delay) (full) and as the mean of 1/delay (light); a token's delay is "
        "the time from the start of its draft until it is at the device. Tokens that the LLM generates overlap with "
        "the downlink of the one before, so there TPOT is shorter. "
        + (f"Lines are 95 % intervals over {over}." if count > 1 else "One replication gives no interval."),
        plots.throughput_figure(tables.summary),
    )
    yield (
        "legs",
        "Where a token's time goes",
        f"Mean time of each leg over all tokens committed {window}; a token without a leg counts zero for it, so a bar "
        "ends at the mean time of a token. Airtime is the upload's share of the band, integrated over its stay, and "
        "uplink wait the rest of that stay; verification is the whole service time of the token's batch.",
        plots.legs_figure(tables.summary),
    )
    if tables.tokens is not None:
        cut = tables.tokens[in_window(tables.tokens["committed_s"], start_s, end_s)]
        delays = pd.DataFrame({"policy": cut["policy"], "delay_s": cut["committed_s"] - cut["started_s"]})
        curve = _ordered(plots.ecdf_table(delays, "delay_s"), tables)
        yield (
            "token_time",
            "Time per token",
            f"Share of the tokens committed {window} that took at most the time on the axis; {over} pooled. Kept "
            "drafts cost the device alone: they are the step at the left.",
            plots.ecdf_figure(curve, "delay_s", "time per token, s", "tokens"),
        )
    asked = tables.requests[in_window(tables.requests["arrived_s"], start_s, end_s)]
    waits = pd.DataFrame({"policy": asked["policy"], "ttft_s": asked["first_token_s"] - asked["arrived_s"]})
    curve = _ordered(plots.ecdf_table(waits, "ttft_s"), tables)
    yield (
        "ttft",
        "Time to first token",
        f"Share of the requests that arrived {window} whose first token was at the device within the time on the "
        f"axis; {over} pooled. Requests without a first token at the end are left out.",
        plots.ecdf_figure(curve, "ttft_s", "time to first token, s", "requests"),
    )
    if tables.tokens is not None:
        yield (
            "queues",
            "Jobs present over time",
            f"Uploads at the uplink (left) and jobs waiting or in service at the base station (right), mean over {over}"
            + ("; bands are 95 % intervals" if count > 1 else "")
            + f". The shaded warm-up of {start_s:g} s is left out of every metric.",
            plots.queue_figure(plots.queue_table(tables.tokens, end_s), start_s, tables.policies),
        )


def _ordered(table: pd.DataFrame, tables: Results) -> pd.DataFrame:
    """Put a table's policies into the run's order."""
    place = table["policy"].map({name: i for i, name in enumerate(tables.policies)})
    return table.iloc[place.argsort(kind="stable")]
