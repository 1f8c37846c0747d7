"""The metrics of one replication: a row for each, with its unit, its meaning and the function that computes it.

To add a metric, add a row: summary.csv, the report, the reference and the checks of names take it from METRICS. Legs
come from the rows of tokens, utilisations from the counters that stations keep themselves: two books, on purpose.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf

import numpy as np
import pandas as pd

from uhlm_sim.analysis.measures import formulas
from uhlm_sim.analysis.measures.energy import ENERGY, Powers
from uhlm_sim.analysis.measures.formulas import mean, percentile, share
from uhlm_sim.analysis.measures.window import Floats, Window
from uhlm_sim.errors import InputError, did_you_mean
from uhlm_sim.tables import LEGS, LLM_LAW, OUTPUT_LAW

SLO_KEYS = ("ttft_s", "tpot_s", "e2e_s")
CLASS = ".class."  # between the name of a metric and that of a class of devices


@dataclass(frozen=True)
class Metric:
    """A metric of summary.csv. In its meaning W is the window's length, and null is a missing value (NaN).

    `bounds` are the least and the greatest value that it may have. `of_stations` marks what stations count: it is of
    the cell, while all other metrics are given for each class of devices too.
    """

    name: str
    unit: str
    family: str
    meaning: str
    measure: Callable[[Window], float]
    bounds: tuple[float, float] = (0.0, inf)
    of_stations: bool = False


Statistic = Callable[[Floats], float]


def _of(statistic: Statistic, values: Callable[[Window], Floats]) -> Callable[[Window], float]:
    return lambda window: statistic(values(window))


def _latency(name: str, meaning: str, values: Callable[[Window], Floats]) -> list[Metric]:
    statistics: dict[str, Statistic] = {"mean": mean}
    statistics |= {f"p{rank}": partial(percentile, rank) for rank in (50, 90, 95, 99)}
    return [Metric(f"{name}.{word}", "s", LATENCY, meaning, _of(of, values)) for word, of in statistics.items()]


def _energy(name: str, meaning: str) -> Metric:
    return Metric(name, "J", "Energy", meaning, lambda w: w.energy_j[name])


def _mean_leg(leg: str) -> Metric:
    return Metric(leg, "s", LEG, f"mean of the column `{leg}` over all tokens", lambda w: mean(w.column(leg)))


def _own_leg(leg: str, whose: str) -> list[Metric]:
    """Return the rows of a leg over the tokens that have it."""
    values = partial(formulas.of_leg, leg)
    return [
        Metric(f"{leg}.leg_mean", "s", LEG, f"mean of `{leg}` over {whose}", _of(mean, values)),
        Metric(f"{leg}.leg_p95", "s", LEG, "95th percentile of the same", _of(partial(percentile, 95), values)),
    ]


SERVICE, LATENCY, TOKENS, QUALITY = "Throughput and service", "Latency", "Tokens", "Risk and quality"
LEG, STATION, BLOCK, DOWNLINK = "Legs of a token", "Stations", "Blocks of the uplink", "Downlink"
MEMORY, COUNT = "Memory of the LLM", "Counts, a replication"
SHARE, COSINE = (0.0, 1.0), (-1.0, 1.0)  # bounds
UPLOADED, BATCHED = "the tokens with `payload_bits` > 0", "the tokens that were in a batch"

_ROWS = (
    Metric("token_throughput", "tokens/s", SERVICE, "tokens that all phones committed in the window / W",
           lambda w: len(w.committed) / w.length_s),
    Metric("token_throughput_per_device", "tokens/s", SERVICE, "1 / mean(delay) over these tokens",
           lambda w: 1 / w.delay_s.mean() if w.delay_s.any() else np.nan),
    Metric("mean_token_rate", "tokens/s", SERVICE, "mean(1 / delay) over these tokens", formulas.mean_token_rate),
    Metric("request_throughput", "requests/s", SERVICE,
           "requests finished in the window, whenever they arrived / W", lambda w: w.completed.sum() / w.length_s),
    Metric("arrival_rate", "requests/s", SERVICE, "requests that arrived in the window / W",
           lambda w: w.arrived.sum() / w.length_s),
    Metric("goodput", "requests/s", SERVICE,
           "those of `request_throughput` that met every SLO / W; null without an SLO", formulas.goodput),
    Metric("slo_attainment", "1", SERVICE,
           "of the requests that arrived in the window and are decided, those that met every SLO; null without any, or"
           " without an SLO",
           formulas.slo_attainment, SHARE),
    Metric("fairness_jain", "1", SERVICE,
           "(sum x)^2 / (n sum x^2), x the tokens that each of the n phones committed in the window",
           formulas.fairness_jain, SHARE),
    *_latency("ttft_s", "`first_token_s - arrived_s`: requests of the window that have a first token",
              lambda w: w.ttft_s),
    *_latency("tpot_s", "(e2e - TTFT) / (tokens - 1): finished requests of the window with two tokens or more",
              lambda w: w.tpot_s),
    *_latency("itl_s", "time between successive tokens of a request, the later one in the window", lambda w: w.gaps_s),
    *_latency("e2e_s", "`finished_s - arrived_s`: finished requests of the window", lambda w: w.e2e_s),
    *_latency("token_delay_s", "delay of the tokens committed in the window", lambda w: w.delay_s),
    Metric("phone_wait_s", "s", LATENCY,
           "mean time from arrival until position 0 began (`started_s`): requests of the window that have begun",
           lambda w: mean(w.phone_wait_s)),
    Metric("skip_rate", "1", TOKENS, "skipped / tokens", lambda w: share(w.skipped), SHARE),
    Metric("transmission_rate", "1", TOKENS, "sent / tokens: 1 - `skip_rate`; 1 for `llm`",
           lambda w: share(w.sent), SHARE),
    Metric("resample_rate", "1", TOKENS,
           "resampled / sent: of the drafts that the LLM saw, the share it replaced; null without any",
           lambda w: share(w.resampled, w.sent & w.drafted), SHARE),
    Metric("acceptance_length", "tokens", TOKENS,
           "mean drafts that a visit with drafts has accepted; null without any",
           lambda w: mean(w.of_visits("accepted")[w.of_visits("drafted") > 0])),
    Metric("wasted_drafts", "1", TOKENS,
           "drafts after a refused one, which nobody looks at, over tokens: sums over the rounds of the window",
           formulas.wasted_drafts),
    Metric("rounds_per_token", "1", TOKENS, "rounds committed in the window / tokens: visits, and runs of kept drafts",
           formulas.rounds_per_token),
    Metric("exact_share", "1", QUALITY,
           "share of the tokens up to which prefix, draft and verdict were recorded for this policy; after that others"
           " stand for them: of HLM at that length, or of a whole distribution",
           lambda w: share(w.exact), SHARE),
    Metric("rejection_risk", "1", QUALITY,
           "mean beta = mean(1 - `accept_probability`) over skipped tokens; null if none was skipped",
           lambda w: 1 - formulas.chance_to_be_accepted(w), SHARE),
    Metric("true_skip_rate", "1", QUALITY, "mean `accept_probability` over skipped tokens: 1 - `rejection_risk`",
           formulas.chance_to_be_accepted, SHARE),
    Metric("kept_rate", "1", QUALITY,
           "1 - resampled / tokens: share of the answer that is the SLM's own draft; null for `llm`",
           lambda w: 1 - share(w.resampled, w.drafted), SHARE),
    Metric("distribution_error", "1", QUALITY,
           "mean over all tokens of 1 - `accept_probability` where skipped, 0 elsewhere: the total variation distance"
           " between the committed token's law and the LLM's; null where uploads are cut so that it isn't known",
           formulas.distribution_error, SHARE),
    Metric("quality_cosine", "1", QUALITY,
           "mean of that column over the requests of the window, finished or not; null for `llm`",
           lambda w: formulas.quality(w, "quality_cosine"), COSINE),
    Metric("quality_cosine_reference", "1", QUALITY, "mean of that column over the same requests",
           lambda w: formulas.quality(w, "quality_cosine_reference"), COSINE),
    Metric("task_accuracy", "1", QUALITY,
           "mean of `task_passed` over the same requests, if their prompt has checks: the share whose code passes them",
           lambda w: formulas.quality(w, "task_passed"), SHARE),
    Metric("uplink_bits_per_token", "bit", TOKENS, "mean `payload_bits`, 0 for skipped tokens",
           lambda w: mean(w.column("payload_bits"))),
    _energy("energy_per_token_j", "the three parts together; null unless all are known"),
    _energy("energy_per_token_j.device", "mean of `device.power_w` times `device_s` over all tokens"),
    _energy("energy_per_token_j.radio",
            "mean of P / `amplifier_efficiency` times radiating time, plus `circuit_power_w` times `sending_s`"),
    _energy("energy_per_token_j.base_station",
            "mean of `gpu_power_w` times `verify_s` / `batch_jobs`, plus idle GPUs"),
    *map(_mean_leg, LEGS),
    *_own_leg("device_s", "the tokens where it is above 0"),
    *_own_leg("uplink_wait_s", UPLOADED),
    *_own_leg("airtime_s", UPLOADED),
    *_own_leg("bs_wait_s", BATCHED),
    *_own_leg("verify_s", BATCHED),
    *_own_leg("downlink_s", BATCHED),
    Metric("uplink_utilisation", "1", STATION, "growth of the uplink's `busy_s` / W: mean share of the band held",
           lambda w: w.utilisation("uplink"), SHARE, of_stations=True),
    Metric("bs_utilisation", "1", STATION, "growth of the base station's `busy_s` / (`servers` W): busy GPU time",
           lambda w: w.utilisation("base_station"), SHARE, of_stations=True),
    Metric("downlink_utilisation", "1", DOWNLINK,
           "growth of the downlink's `busy_s` / W; null where the downlink is a constant",
           lambda w: w.utilisation("downlink"), SHARE, of_stations=True),
    Metric("uplink_present", "jobs", STATION,
           "growth of the uplink's `present_s` / W: mean number of uploads under way",
           lambda w: w.present("uplink"), of_stations=True),
    Metric("bs_present", "jobs", STATION,
           "growth of the base station's `present_s` / W: mean number of jobs waiting or in service",
           lambda w: w.present("base_station"), of_stations=True),
    Metric("downlink_present", "jobs", DOWNLINK,
           "growth of the downlink's `present_s` / W: mean number of answers on their way; null likewise",
           lambda w: w.present("downlink"), of_stations=True),
    Metric("block_error_rate", "1", BLOCK,
           "growth of `block_errors` / growth of `blocks`: first transmissions that failed; null without blocks",
           lambda w: w.per_block("block_errors"), SHARE, of_stations=True),
    Metric("retransmissions", "1", BLOCK, "growth of `retransmissions` / growth of `blocks`; null likewise",
           lambda w: w.per_block("retransmissions"), of_stations=True),
    Metric("mcs", "1", BLOCK,
           "growth of `mcs_sum` / growth of `blocks`: mean index of modulation and coding; null likewise",
           lambda w: w.per_block("mcs_sum"), of_stations=True),
    Metric("batch_jobs", "jobs", STATION, "mean jobs of a batch", formulas.batch_jobs),
    Metric("batch_tokens", "tokens", STATION, "mean new positions of a batch",
           lambda w: formulas.batch_mean(w, w.of_visits("batch_tokens"))),
    Metric("batch_s", "s", STATION, "mean seconds of a batch", lambda w: formulas.batch_mean(w, w.step_s)),
    Metric("batch_job_s", "s", STATION,
           "what one more job adds to them: least-squares slope over batches, at least 0; null if all are of one size",
           formulas.batch_job_s),
    Metric("kv_cache_usage", "1", MEMORY,
           "growth of the memory's `busy_s` / (`servers` W): mean share of it held; null where it isn't simulated",
           lambda w: w.utilisation("kv_cache"), SHARE, of_stations=True),
    Metric("kv_cache_present", "requests", MEMORY,
           "growth of the memory's `present_s` / W: mean number of requests that hold some; null likewise",
           lambda w: w.present("kv_cache"), of_stations=True),
    Metric("evictions", "requests", MEMORY,
           "growth of the memory's `departures`: requests that lost their memory in the window; null likewise",
           lambda w: w.growth("kv_cache", "departures"), of_stations=True),
    Metric("recomputed_share", "1", MEMORY,
           "`recomputed_tokens` / `llm_tokens`, sums over the tokens committed in the window; null likewise",
           formulas.recomputed_share, SHARE, of_stations=True),
    Metric("requests", "requests", COUNT, "arrived in the window", lambda w: w.arrived.sum()),
    Metric("completed_requests", "requests", COUNT, "finished in the window, whenever they arrived",
           lambda w: w.completed.sum()),
    Metric("unfinished_requests", "requests", COUNT, "not finished at the end, whenever they arrived",
           lambda w: (~w.finished).sum()),
    Metric("requests_present", "requests", COUNT, "mean number arrived and not finished, over the window",
           lambda w: (w.presence_s[1] - w.presence_s[0]).sum() / w.length_s),
    Metric("backlog_growth", "requests/s", COUNT, "least-squares slope of that number over the window",
           formulas.backlog_growth, (-inf, inf)),
    Metric("completed_tokens", "tokens", COUNT, "committed in the window", lambda w: len(w.committed)),
    Metric("unfinished_tokens", "tokens", COUNT,
           "in progress at the end; up to several a phone for `llm`, whose tokens overlap",
           lambda w: w.tokens["committed_s"].isna().sum()),
)  # fmt: skip
METRICS = {metric.name: metric for metric in _ROWS}
UNITS = {metric.name: metric.unit for metric in _ROWS}
LATENCIES = tuple(name.removesuffix(".p50") for name in METRICS if name.endswith(".p50"))


def replication_metrics(
    requests: pd.DataFrame,
    rounds: pd.DataFrame,
    tokens: pd.DataFrame,
    stations: pd.DataFrame,
    *,
    warmup_s: float,
    duration_s: float,
    devices: int,
    slo: Mapping[str, float],
    output_law: bool,
    keeps_law: bool = True,
    powers: Powers | None = None,
    device_class: Sequence[str] = (),
) -> dict[str, float]:
    """Return every metric of one simulation by name, in the order of METRICS; NaN where one has no meaning.

    `output_law` False says that the policy ran on another policy's answers: what describes the answer is NaN.
    `keeps_law` False says that what the LLM commits isn't of its own law: its distance from it is NaN. Without
    `powers` there are no metrics of energy. With `device_class`, the class of each device, every metric but those of
    stations is given for each class too, as token_throughput.class.NAME.

    Raises InputError for an SLO on something else than ttft_s, tpot_s or e2e_s.
    """
    for key in slo:
        if key not in SLO_KEYS:
            raise InputError(f"slo.{key}: allowed are {', '.join(SLO_KEYS)}{did_you_mean(key, SLO_KEYS)}")
    cell = Window(requests, rounds, tokens, stations, warmup_s, duration_s, devices, slo, powers)
    kept = [metric for metric in _ROWS if powers is not None or metric.name not in ENERGY]

    unknown = {*(() if output_law else OUTPUT_LAW), *(() if keeps_law else LLM_LAW)}

    def measured(metric: Metric, window: Window) -> float:
        return np.nan if metric.name in unknown else float(metric.measure(window))

    values = {metric.name: measured(metric, cell) for metric in kept}
    for name in dict.fromkeys(device_class):
        window = cell.of_devices(np.array([other == name for other in device_class]))
        values |= {f"{m.name}{CLASS}{name}": measured(m, window) for m in kept if not m.of_stations}
    return values


def unit_of(metric: str) -> str:
    """Return the unit of a metric, a class's too; "" for one that isn't known."""
    return UNITS.get(metric.partition(CLASS)[0], "")
