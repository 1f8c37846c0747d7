"""The formulas of metrics that are longer than their row: numbers from a window; NaN where one has no meaning."""

import numpy as np

from uhlm_sim.analysis.measures.window import Floats, Mask, Window


def mean(values: Floats) -> float:
    """Return the mean, NaN of nothing."""
    return float(values.mean()) if values.size else np.nan


def percentile(rank: float, values: Floats) -> float:
    """Return a percentile, interpolated linearly; NaN of nothing."""
    return float(np.percentile(values, rank)) if values.size else np.nan


def share(part: Mask, whole: Mask | None = None) -> float:
    """Return how many of the whole (None: of all) are in the part, as a share; NaN of nothing."""
    whole = np.ones_like(part) if whole is None else whole
    count = int(whole.sum())
    return int((part & whole).sum()) / count if count else np.nan


def goodput(window: Window) -> float:
    """Return the requests a second that were finished in the window and had met every SLO."""
    met = window.completed & ~window.broke_slo
    return int(met.sum()) / window.length_s if window.slo else np.nan


def slo_attainment(window: Window) -> float:
    """Return the share of the window's requests that met every SLO, of those that are decided.

    A request is decided once it is finished, or has broken an SLO.
    """
    decided = window.arrived & (window.finished | window.broke_slo)
    return share(window.finished & ~window.broke_slo, decided) if window.slo else np.nan


def fairness_jain(window: Window) -> float:
    """Return (sum x)^2 / (n sum x^2) over the tokens x of n devices."""
    devices = window.committed["device"].to_numpy(dtype=np.int64)
    tokens = np.bincount(devices, minlength=window.devices).astype(np.float64)
    return tokens.sum() ** 2 / (window.devices * (tokens**2).sum()) if len(devices) else np.nan


def mean_token_rate(window: Window) -> float:
    """Return mean(1/delay)."""
    return mean(1 / window.delay_s) if window.delay_s.all() else np.nan


def quality(window: Window, column: str) -> float:
    """Return the mean quality of the window's requests, finished or not, where it is known.

    It is that of the whole recorded answer. The finished requests alone would be the short ones; of a scheme that looks
    at the cell no others are known.
    """
    known = window.requests[column].to_numpy(dtype=np.float64, na_value=np.nan)[window.arrived]
    return mean(known[~np.isnan(known)])


def backlog_growth(window: Window) -> float:
    """Return the least-squares slope of N(t): 12/W^3 times the integral of (t - middle) N(t), request by request."""
    since_s, until_s = window.presence_s
    middle_s = (window.warmup_s + window.duration_s) / 2
    moment = ((until_s - middle_s) ** 2 - (since_s - middle_s) ** 2) / 2
    return float(12 / window.length_s**3 * moment.sum())


def wasted_drafts(window: Window) -> float:
    """Return how many drafts came after a refused one in their visit, for each token committed."""
    drafted, accepted = window.of_visits("drafted"), window.of_visits("accepted")
    wasted = drafted - accepted - (drafted > accepted)
    return float(wasted.sum()) / len(window.committed) if len(window.committed) else np.nan


def rounds_per_token(window: Window) -> float:
    """Return how many rounds there were for each token committed."""
    return len(window.rounds_done) / len(window.committed) if len(window.committed) else np.nan


def chance_to_be_accepted(window: Window) -> float:
    """Return the mean chance that the LLM would have accepted a skipped token; no coin is drawn."""
    return mean(window.column("accept_probability")[window.skipped])


def distribution_error(window: Window) -> float:
    """Return E[beta; skipped], the mean over all tokens of 1 - accept probability where skipped and 0 elsewhere.

    At a prefix that is the total variation distance between the committed token's law and the LLM's
    (`uhlm_sim.tokens.quality`).
    """
    return mean(np.where(window.skipped, 1 - window.column("accept_probability"), 0.0))


def of_leg(leg: str, window: Window) -> Floats:
    """Return a leg's times of the tokens that have it: an upload, a job at the base station, any time on the device."""
    times_s = window.column(leg)
    if leg == "device_s":
        return times_s[times_s > 0]
    has = "payload_bits" if leg in ("uplink_wait_s", "airtime_s") else "batch_jobs"
    return times_s[window.column(has) > 0]


def batch_jobs(window: Window) -> float:
    """Return the mean jobs of a batch."""
    batches = window.batch_weight.sum()
    return window.of_visits("steps").sum() / batches if batches else np.nan


def batch_mean(window: Window, values: Floats) -> float:
    """Return the mean over batches of a value of each visit."""
    batches = window.batch_weight.sum()
    return (values * window.batch_weight).sum() / batches if batches else np.nan


def batch_job_s(window: Window) -> float:
    """Return what one more job adds to a batch's seconds: the least-squares slope, at least 0."""
    weight, more = window.batch_weight, window.of_visits("batch_jobs") - batch_jobs(window)
    spread = (more**2 * weight).sum()
    slope = (more * window.step_s * weight).sum() / spread if spread > 1e-9 * weight.sum() else np.nan
    return slope if np.isnan(slope) else max(slope, 0.0)


def recomputed_share(window: Window) -> float:
    """Return the share of positions that the LLM processed again, of all that it processed for the tokens."""
    if np.isnan(window.growth("kv_cache", "busy_s")):
        return np.nan
    processed = window.visits["llm_tokens"].sum()
    return window.visits["recomputed_tokens"].sum() / processed if processed else np.nan
