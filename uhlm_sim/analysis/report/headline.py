"""The headline: the metrics that terminal, notebook and report show of each policy, and their titles in each."""

from dataclasses import dataclass
from math import isnan

from uhlm_sim.analysis.digits import number, ratio
from uhlm_sim.analysis.measures.intervals import RATIO

Estimate = tuple[float, float, float]  # mean and its 95 % interval
THROUGHPUT, UTILISATION, ANSWERS = "Throughput, tokens/s", "Utilisation, %", "Answers"
OVER_SWEEP = {  # what is shown at each point, by whether arrivals are open: there the cell's throughput is the load
    True: ("Tokens a second of an answering phone, 1/mean(delay)", "token_throughput_per_device"),
    False: ("Tokens a second of the cell", "token_throughput"),
}


@dataclass(frozen=True)
class Column:
    """A metric with its titles: on the page (below that of a group), in a notebook, in the terminal; "" shows it not.

    Page and notebook multiply by `factor`; the terminal shows SI units.
    """

    metric: str
    group: str
    page: str
    notebook: str = ""
    terminal: str = ""
    factor: float = 1.0


HEADLINE = (
    Column("token_throughput", THROUGHPUT, "cell", "tokens/s, cell", "tokens/s"),
    Column(f"token_throughput{RATIO}", "Cell against {first}", "ratio", "ratio", "ratio to first"),
    Column("token_throughput_per_device", THROUGHPUT, "1/mean(delay)", "tokens/s, a phone", "1/mean(delay)"),
    Column("mean_token_rate", THROUGHPUT, "mean(1/delay)", "", "mean(1/delay)"),
    Column("ttft_s.p50", "TTFT, s", "p50", "", "TTFT p50 s"),
    Column("ttft_s.p95", "TTFT, s", "p95", "TTFT p95, s", "TTFT p95 s"),
    Column("tpot_s.p50", "TPOT, ms", "p50", "", "TPOT p50 s", 1e3),
    Column("tpot_s.p95", "TPOT, ms", "p95", "TPOT p95, ms", "TPOT p95 s", 1e3),
    Column("uplink_utilisation", UTILISATION, "uplink", "uplink, %", "uplink", 100.0),
    Column("bs_utilisation", UTILISATION, "GPUs", "GPUs, %", "GPU", 100.0),
    Column("energy_per_token_j", "Energy", "J a token", "", "J/token"),
    Column("skip_rate", "Tokens, %", "skip rate", "skip rate, %", "skip rate", 100.0),
    Column("rejection_risk", "Risk, %", "rejection risk", "rejection risk, %", "rejection risk", 100.0),
    Column("distribution_error", ANSWERS, "total variation"),
    Column("quality_cosine", ANSWERS, "cosine to LLM's"),
    Column("task_accuracy", ANSWERS, "programs that pass, %", factor=100.0),
)

# What is seen first of each policy; of how good its answers are, the first that is known.
GLANCE: tuple[tuple[str, ...], ...] = (
    ("token_throughput",),
    (f"token_throughput{RATIO}",),
    ("token_throughput_per_device",),
    ("tpot_s.p95",),
    ("ttft_s.p95",),
    ("skip_rate",),
    ("distribution_error",),
    ("task_accuracy", "quality_cosine"),
)


def cell(metric: str, estimate: Estimate, factor: float = 1.0) -> tuple[str, str]:
    """Return a value and its interval as text: of a ratio both ends, else the half-width."""
    if not metric.endswith(RATIO):
        return number(*estimate, scale=factor)
    return ("1", "") if estimate[0] == 1.0 and isnan(estimate[1]) else ratio(*estimate)  # a policy beside itself


def in_one(metric: str, estimate: Estimate, factor: float = 1.0) -> str:
    """Return a value with its interval behind it: "98.3 ± 1.2", "1.41 (1.38 to 1.44)"."""
    text, interval = cell(metric, estimate, factor)
    return f"{text} ({interval})" if interval and metric.endswith(RATIO) else f"{text} {interval}".strip()
