"""What one replication says: its three tables, cut to the window, as one number per metric.

Tokens count where they are committed, requests where they arrive, both within [warmup_s, duration_s]. Legs
and utilisations come from different books on purpose: legs from the token rows, utilisations from the
counters that the stations keep themselves.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from uhlm_sim.analysis.measures.energy import ENERGY, Powers, energies
from uhlm_sim.errors import InputError, did_you_mean
from uhlm_sim.tables import LEGS, OUTPUT_LAW, QUALITY

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

STATISTICS = ("mean", "p50", "p90", "p95", "p99")
LATENCIES = ("ttft_s", "tpot_s", "itl_s", "e2e_s", "token_delay_s")
SLO_KEYS = ("ttft_s", "tpot_s", "e2e_s")
CLASS = ".class."  # between a metric's name and that of the class of devices that it is of

UNITS: dict[str, str] = {
    "token_throughput": "tokens/s",
    "token_throughput_per_device": "tokens/s",
    "mean_token_rate": "tokens/s",
    "request_throughput": "requests/s",
    "arrival_rate": "requests/s",
    "goodput": "requests/s",
    "slo_attainment": "1",
    "fairness_jain": "1",
    **{f"{name}.{statistic}": "s" for name in LATENCIES for statistic in STATISTICS},
    "phone_wait_s": "s",
    "skip_rate": "1",
    "transmission_rate": "1",
    "resample_rate": "1",
    "rejection_risk": "1",
    "true_skip_rate": "1",
    "kept_rate": "1",
    "distribution_error": "1",
    **dict.fromkeys(QUALITY, "1"),
    "uplink_bits_per_token": "bit",
    **dict.fromkeys(ENERGY, "J"),
    **dict.fromkeys(LEGS, "s"),
    **{f"{leg}.{statistic}": "s" for leg in LEGS for statistic in ("leg_mean", "leg_p95")},
    "uplink_utilisation": "1",
    "bs_utilisation": "1",
    "downlink_utilisation": "1",
    "uplink_present": "jobs",
    "bs_present": "jobs",
    "downlink_present": "jobs",
    "block_error_rate": "1",
    "retransmissions": "1",
    "mcs": "1",
    "batch_jobs": "jobs",
    "batch_tokens": "tokens",
    "batch_s": "s",
    "batch_job_s": "s",
    "kv_cache_usage": "1",
    "kv_cache_present": "requests",
    "evictions": "requests",
    "recomputed_share": "1",
    "requests": "requests",
    "completed_requests": "requests",
    "unfinished_requests": "requests",
    "requests_present": "requests",
    "backlog_growth": "requests/s",
    "completed_tokens": "tokens",
    "unfinished_tokens": "tokens",
}


def replication_metrics(
    requests: pd.DataFrame,
    tokens: pd.DataFrame,
    stations: pd.DataFrame,
    *,
    warmup_s: float,
    duration_s: float,
    devices: int,
    slo: Mapping[str, float],
    output_law: bool,
    powers: Powers | None = None,
    device_class: Sequence[str] = (),
) -> dict[str, float]:
    """Return every metric of one simulation, keyed and ordered as UNITS; NaN where one has no meaning.

    Throughput: `token_throughput` is the cell's, tokens committed in the window over its length. With delay =
    committed_s - started_s, `token_throughput_per_device` is 1/mean(delay) and `mean_token_rate` is
    mean(1/delay): a tenth of slow tokens lowers the first and hardly moves the second, so both are given.
    `request_throughput` counts requests that arrived in the window and were finished before the end (those
    under way at the end are missing from it), `arrival_rate` all that arrived. `goodput` counts those that
    meet every SLO. `slo_attainment` is their share of the requests decided; an unfinished one is decided
    (missed) once it has broken an SLO: no first token in time, too long in all, or a pace so far that is too
    slow. Without an SLO both are NaN. `fairness_jain` is (sum x)^2 / (n sum x^2) over n devices' tokens/s.

    Latency: `ttft_s` to the first token at the device, waiting at the phone included; `e2e_s` to the last
    one; `tpot_s` = (e2e - ttft)/(tokens - 1), of finished requests; `itl_s` between successive tokens.
    `phone_wait_s` is how long a request of the window waited for its phone, from its arrival until its first token
    began: 0 in a closed loop.

    Tokens: `skip_rate` and `transmission_rate` are shares of all tokens, `resample_rate` of the drafts sent.
    Over skipped tokens `rejection_risk` = mean(1 - accept probability) and `true_skip_rate` = mean(accept
    probability); no coin is drawn. They belong to a prefix and hold on a teacher-forced path too.
    `distribution_error` is the mean over all tokens of 1 - accept probability where skipped and 0 elsewhere:
    E[beta; skipped], which is exactly the total variation distance between the committed token's law and the
    LLM's at a prefix, averaged over the prefixes (`uhlm_sim.tokens.quality`); 0 for hlm and llm.
    `kept_rate` = 1 - resampled/tokens belongs to the answer: NaN if `output_law` is false, which says that
    the policy ran on another policy's answer. So do `quality_cosine`, to the LLM's answer to the same prompt, and
    `quality_cosine_reference`, to the prompt's reference: means over the requests of the window, each the number
    of the whole recorded answer, however much of it was given by the end: those that were are the short ones.

    Legs: a bare name is the mean over all tokens, zero for those without it, so that the six add up to
    token_delay_s.mean. `.leg_mean` and `.leg_p95` are over the tokens that have the leg: an upload
    (uplink_wait_s, airtime_s), a job at the base station (bs_wait_s, verify_s, downlink_s), device_s > 0.

    Stations: time averages over the window by the stations' own counters: `uplink_utilisation` share of the
    band held, `bs_utilisation` busy GPU time over gpus x time, `_present` jobs waiting or in service; those of the
    downlink are NaN where it is a constant. Per transport block, NaN for a link without them: `block_error_rate` is the
    share of first transmissions that failed, `retransmissions` how many followed, `mcs` the mean index.
    `batch_jobs`, `batch_tokens` and `batch_s`, its seconds, are means over batches: n rows see a batch of n jobs, so
    each weighs 1/n, and that for each of its steps. `batch_job_s` is what one more job adds to a batch's seconds, by
    least squares over these batches and at least 0; NaN if all are of one size. Where the LLM's memory is limited,
    `kv_cache_usage` is the time average of positions held over its capacity, `kv_cache_present` that of the requests
    that hold some, `evictions` are the requests that lost theirs in the window, and `recomputed_share` is that of the
    positions that the LLM processed again, of all that it processed for the tokens committed in the window.

    Counts: `requests` arrived in the window and `completed_requests` of them; `unfinished_requests` and
    `unfinished_tokens` are all those under way when the run was cut, whenever they began. `requests_present`
    is the mean number arrived and not finished, `backlog_growth` that number's least-squares slope.

    Energy: `energy_per_token_j` and its parts (`uhlm_sim.analysis.measures.energy`), left out without `powers`.

    Classes: with `device_class`, the class of each device, every metric of requests and tokens is given for each class
    too, as token_throughput.class.NAME.

    InputError for an SLO on something else than ttft_s, tpot_s or e2e_s.
    """
    for key in slo:
        if key not in SLO_KEYS:
            raise InputError(f"slo.{key}: allowed are {', '.join(SLO_KEYS)}{did_you_mean(key, SLO_KEYS)}")
    window = {"warmup_s": warmup_s, "duration_s": duration_s}
    counted = _of_stations(stations, **window) | _of_memory(tokens, stations, **window)
    gpus = stations.loc[_is(stations["station"], "base_station"), "servers"].max()
    committed = int(in_window(tokens["committed_s"], **window).sum())
    idle_s = gpus * (1 - counted["bs_utilisation"]) * (duration_s - warmup_s) / max(committed, 1)

    def of_phones(requests: pd.DataFrame, tokens: pd.DataFrame, devices: int) -> dict[str, float]:
        found = _of_requests(requests, slo=slo, **window)
        found["phone_wait_s"] = _mean(_phone_waits(requests, tokens, **window))
        found |= _of_tokens(tokens, devices=devices, **window)
        if powers is not None:
            found |= energies(tokens[in_window(tokens["committed_s"], **window)], powers, idle_s)
        return found | (dict.fromkeys(OUTPUT_LAW, np.nan) if not output_law else {})

    found = of_phones(requests, tokens, devices) | counted
    measured = {name: float(found[name]) for name in UNITS if name in found}
    for name in dict.fromkeys(device_class):
        mine = np.array([each == name for each in device_class])
        asked, given = (table[mine[table["device"].to_numpy()]] for table in (requests, tokens))
        found = of_phones(asked, given, int(mine.sum()))
        measured |= {f"{metric}{CLASS}{name}": float(found[metric]) for metric in UNITS if metric in found}
    return measured


def unit_of(metric: str) -> str:
    """Return the unit of a metric, a class's too; "" for one that isn't known."""
    return UNITS.get(metric.partition(CLASS)[0], "")


def in_window(times_s: pd.Series, warmup_s: float, duration_s: float) -> Mask:
    """Say which times lie within [warmup_s, duration_s]; one that is null doesn't."""
    values = _floats(times_s)
    return np.asarray((values >= warmup_s) & (values <= duration_s))


def _floats(column: pd.Series) -> Floats:
    return column.to_numpy(dtype=np.float64, na_value=np.nan)


def _is(column: pd.Series, word: str) -> Mask:
    return np.asarray(column.eq(word).to_numpy(dtype=bool, na_value=False))


def _mean(values: Floats) -> float:
    return float(values.mean()) if values.size else np.nan


def _known_mean(values: Floats) -> float:
    return _mean(values[~np.isnan(values)])


def _share(part: Mask, whole: Mask) -> float:
    count = int(whole.sum())
    return int((part & whole).sum()) / count if count else np.nan


def _statistics(name: str, values: Floats) -> dict[str, float]:
    percentiles = np.percentile(values, [50, 90, 95, 99]) if values.size else np.full(4, np.nan)
    return {f"{name}.{word}": x for word, x in zip(STATISTICS, [_mean(values), *percentiles], strict=True)}


def _of_requests(
    requests: pd.DataFrame, warmup_s: float, duration_s: float, slo: Mapping[str, float]
) -> dict[str, float]:
    window_s = duration_s - warmup_s
    arrived_s = _floats(requests["arrived_s"])
    first_s, finished_s = _floats(requests["first_token_s"]), _floats(requests["finished_s"])
    count = _floats(requests["tokens"])
    started, done = ~np.isnan(first_s), ~np.isnan(finished_s)
    inside = in_window(requests["arrived_s"], warmup_s, duration_s)

    ttft_s, e2e_s = first_s - arrived_s, finished_s - arrived_s
    several = done & (count > 1)
    tpot_s = np.full(len(requests), np.nan)
    np.divide(finished_s - first_s, count - 1, out=tpot_s, where=several)

    # What has passed of each latency: its value if known, else how long it has lasted by the end. The pace of
    # an unfinished request counts the gap it is waiting in, which can only grow.
    pace_s = np.full(len(requests), 0.0)
    np.divide(duration_s - first_s, count, out=pace_s, where=started & (count > 0))
    so_far = {
        "ttft_s": np.where(started, ttft_s, duration_s - arrived_s),
        "tpot_s": np.where(done, np.nan_to_num(tpot_s), pace_s),
        "e2e_s": np.where(done, e2e_s, duration_s - arrived_s),
    }
    broken = np.zeros(len(requests), dtype=bool)
    for key, limit in slo.items():
        broken |= so_far[key] > limit
    met, decided = inside & done & ~broken, inside & (done | broken)

    since_s = np.clip(arrived_s, warmup_s, duration_s)
    until_s = np.clip(np.where(done, finished_s, duration_s), warmup_s, duration_s)
    middle_s = (warmup_s + duration_s) / 2
    # Least-squares slope of N(t): 12/W^3 times the integral of (t - middle) N(t), request by request.
    moment = ((until_s - middle_s) ** 2 - (since_s - middle_s) ** 2) / 2
    return {
        "request_throughput": (inside & done).sum() / window_s,
        "arrival_rate": inside.sum() / window_s,
        "goodput": met.sum() / window_s if slo else np.nan,
        "slo_attainment": _share(met, decided) if slo else np.nan,
        **_statistics("ttft_s", ttft_s[inside & started]),
        **_statistics("tpot_s", tpot_s[inside & several]),
        **_statistics("e2e_s", e2e_s[inside & done]),
        **{name: _known_mean(_floats(requests[name])[inside]) for name in QUALITY},
        "requests": inside.sum(),
        "completed_requests": (inside & done).sum(),
        "unfinished_requests": (~done).sum(),
        "requests_present": (until_s - since_s).sum() / window_s,
        "backlog_growth": 12 / window_s**3 * moment.sum(),
    }


def _of_tokens(tokens: pd.DataFrame, warmup_s: float, duration_s: float, devices: int) -> dict[str, float]:
    committed_s = _floats(tokens["committed_s"])
    cut = in_window(tokens["committed_s"], warmup_s, duration_s)
    inside = tokens[cut]
    delay_s = committed_s[cut] - _floats(inside["started_s"])
    skipped, sent = _is(inside["decision"], "skip"), _is(inside["decision"], "send")
    everything = np.ones(len(inside), dtype=bool)
    generated, resampled = _is(inside["outcome"], "generated"), _is(inside["outcome"], "resampled")
    drafts = sent & ~generated
    accept_probability = _floats(inside["accept_probability"])
    accepted = _mean(accept_probability[skipped])
    payload_bits, jobs = _floats(inside["payload_bits"]), _floats(inside["batch_jobs"])
    per_device = np.bincount(inside["device"].to_numpy(dtype=np.int64), minlength=devices).astype(np.float64)

    found = {
        "token_throughput": len(inside) / (duration_s - warmup_s),
        "token_throughput_per_device": 1 / delay_s.mean() if delay_s.any() else np.nan,
        "mean_token_rate": float((1 / delay_s).mean()) if delay_s.size and delay_s.all() else np.nan,
        "fairness_jain": per_device.sum() ** 2 / (devices * (per_device**2).sum()) if len(inside) else np.nan,
        **_statistics("itl_s", _gaps(tokens, committed_s, cut)),
        **_statistics("token_delay_s", delay_s),
        "skip_rate": _share(skipped, everything),
        "transmission_rate": _share(sent, everything),
        "resample_rate": _share(resampled, drafts),
        "rejection_risk": 1 - accepted,
        "true_skip_rate": accepted,
        "kept_rate": 1 - _share(resampled, ~generated),
        "distribution_error": _mean(np.where(skipped, 1 - accept_probability, 0.0)),
        "uplink_bits_per_token": _mean(payload_bits),
        "completed_tokens": len(inside),
        "unfinished_tokens": np.isnan(committed_s).sum(),
    }
    uploaded, computed = payload_bits > 0, jobs > 0
    for leg in LEGS:
        values = _floats(inside[leg])
        has = {"device_s": values > 0, "uplink_wait_s": uploaded, "airtime_s": uploaded}.get(leg, computed)
        found[leg] = _mean(values)
        found[f"{leg}.leg_mean"] = _mean(values[has])
        found[f"{leg}.leg_p95"] = float(np.percentile(values[has], 95)) if has.any() else np.nan
    steps = _floats(inside["steps"])[computed]
    weight = steps / jobs[computed]
    batches = weight.sum()
    found["batch_jobs"] = steps.sum() / batches if batches else np.nan
    batch_tokens = _floats(inside["batch_tokens"])[computed]
    found["batch_tokens"] = (batch_tokens * weight).sum() / batches if batches else np.nan
    step_s = _floats(inside["verify_s"])[computed] / steps
    found["batch_s"] = (step_s * weight).sum() / batches if batches else np.nan
    more = jobs[computed] - found["batch_jobs"]
    spread = (more**2 * weight).sum()
    found["batch_job_s"] = max((more * step_s * weight).sum() / spread, 0.0) if spread > 1e-9 * batches else np.nan
    return found


def _phone_waits(requests: pd.DataFrame, tokens: pd.DataFrame, warmup_s: float, duration_s: float) -> Floats:
    """Return how long each request of the window waited for its phone; those still waiting at the end are left out."""
    keys = ["device", "request"]
    asked = requests.loc[in_window(requests["arrived_s"], warmup_s, duration_s), [*keys, "arrived_s"]]
    first = tokens.loc[tokens["position"] == 0, [*keys, "started_s"]]
    began = asked.reset_index(drop=True).merge(first.reset_index(drop=True), on=keys)
    return _floats(began["started_s"]) - _floats(began["arrived_s"])


def _gaps(tokens: pd.DataFrame, committed_s: Floats, cut: Mask) -> Floats:
    """Return the time between successive tokens of one request, counted where the later one is committed."""
    keys = [tokens[name].to_numpy() for name in ("position", "request", "device")]
    order = np.lexsort(keys)
    position, request, device = (key[order] for key in keys)
    follows = (np.diff(device) == 0) & (np.diff(request) == 0) & (np.diff(position) == 1)
    gaps_s = np.diff(committed_s[order])
    return np.asarray(gaps_s[follows & cut[order][1:] & ~np.isnan(gaps_s)])


def _of_stations(stations: pd.DataFrame, warmup_s: float, duration_s: float) -> dict[str, float]:
    at_s = _floats(stations["at_s"])
    found: dict[str, float] = {}
    for station, name in (("uplink", "uplink"), ("base_station", "bs"), ("downlink", "downlink")):
        here = _is(stations["station"], station)
        start, end = stations[here & (at_s == warmup_s)], stations[here & (at_s == duration_s)]
        for counter, metric in (("busy_s", "utilisation"), ("present_s", "present")):
            found[f"{name}_{metric}"] = np.nan
            if len(start) and len(end):
                grown = _floats(end[counter])[0] - _floats(start[counter])[0]
                servers = _floats(end["servers"])[0] if counter == "busy_s" else 1.0
                found[f"{name}_{metric}"] = grown / (servers * (duration_s - warmup_s))
    return found | _of_blocks(stations[_is(stations["station"], "uplink")], warmup_s, duration_s)


def _of_blocks(uplink: pd.DataFrame, warmup_s: float, duration_s: float) -> dict[str, float]:
    counted = uplink.reindex(columns=["at_s", "blocks", "block_errors", "retransmissions", "mcs_sum"]).set_index("at_s")
    ends = [counted[counted.index == at_s].sum() for at_s in (warmup_s, duration_s)]
    blocks, errors, retransmissions, mcs_sum = (ends[1] - ends[0]).to_numpy(dtype=np.float64)
    per_block = 1 / blocks if blocks > 0 else np.nan
    return {
        "block_error_rate": errors * per_block,
        "retransmissions": retransmissions * per_block,
        "mcs": mcs_sum * per_block,
    }


def _of_memory(tokens: pd.DataFrame, stations: pd.DataFrame, warmup_s: float, duration_s: float) -> dict[str, float]:
    here = _is(stations["station"], "kv_cache")
    at_s = _floats(stations["at_s"])
    start, end = stations[here & (at_s == warmup_s)], stations[here & (at_s == duration_s)]
    if not (len(start) and len(end)):
        return dict.fromkeys(("kv_cache_usage", "kv_cache_present", "evictions", "recomputed_share"), np.nan)
    grown = {name: _floats(end[name])[0] - _floats(start[name])[0] for name in ("busy_s", "present_s", "departures")}
    inside = tokens[in_window(tokens["committed_s"], warmup_s, duration_s)]
    processed = inside["llm_tokens"].sum()
    return {
        "kv_cache_usage": grown["busy_s"] / (_floats(end["servers"])[0] * (duration_s - warmup_s)),
        "kv_cache_present": grown["present_s"] / (duration_s - warmup_s),
        "evictions": grown["departures"],
        "recomputed_share": inside["recomputed_tokens"].sum() / processed if processed else np.nan,
    }
