"""The error of teacher forcing: a rule on its own recorded path against the same rule forced on the path of hlm."""

from typing import Any

import numpy as np
import pandas as pd

from uhlm_sim.tokens.calibration import clustered_mean
from uhlm_sim.tokens.decoding_rule import HLM, LLM, SLM
from uhlm_sim.tokens.speculative import rejection_probability
from uhlm_sim.tokens.trace import Trace, TraceSource

MEASURES = ("skip_rate", "rejection_risk", "kept_rate", "tokens_per_answer")


def forcing_gap(trace: Trace) -> pd.DataFrame:
    """Return exact and forced measures of each recorded u-hlm and rand-hlm path, on the evaluation prompts.

    Columns: ``path``, and for each measure ``<measure>.exact``, ``<measure>.forced`` and, of their paired difference
    (forced - exact), ``<measure>.gap``, ``.gap_low``, ``.gap_high`` (95 % interval over prompts). Measures: share of
    tokens skipped; mean beta of a skipped token; kept_rate = 1 - resampled / tokens; tokens per answer. The interval
    linearises both ratios; NaN where nothing is skipped. Raises TraceError if there is no path hlm.
    """
    rows = []
    forced_on = trace.source(HLM).recorded
    for entry in trace.header.paths:
        if entry.rule in (HLM, SLM, LLM):
            continue
        exact = _answers(TraceSource(trace, entry.rule, entry.name, exact=True))
        forced = _answers(TraceSource(trace, entry.rule, forced_on, exact=False))
        row: dict[str, Any] = {"path": entry.name}
        for measure in MEASURES:
            row |= _compare(measure, exact, forced)
        rows.append(row)
    return pd.DataFrame(rows)


def _answers(source: TraceSource) -> pd.DataFrame:
    """Return one row an answer: for each measure, a sum (``<measure>.top``) and what divides it (``.bottom``)."""
    rows = []
    for prompt in range(source.prompts):
        for sample in range(source.samples):
            path = source.path(prompt, sample)
            beta = rejection_probability(path.x_draft, path.y_draft)
            resampled = ~path.skipped & ~path.accepted
            n, skipped = len(path), int(path.skipped.sum())
            tops = (skipped, float(beta[path.skipped].sum()), n - int(resampled.sum()), n)
            row: dict[str, Any] = {"prompt": prompt}
            for measure, top, bottom in zip(MEASURES, tops, (n, skipped, n, 1), strict=True):
                row |= {f"{measure}.top": top, f"{measure}.bottom": bottom}
            rows.append(row)
    return pd.DataFrame(rows)


def _compare(measure: str, exact: pd.DataFrame, forced: pd.DataFrame) -> dict[str, float]:
    means, parts = [], []
    for table in (exact, forced):
        top, bottom = (table[f"{measure}.{end}"].to_numpy(dtype=np.float64) for end in ("top", "bottom"))
        mean = top.sum() / bottom.sum() if bottom.sum() else np.nan
        means.append(float(mean))
        # The linearised ratio: its mean over answers is the ratio, its spread the ratio's.
        parts.append(mean + (top - mean * bottom) / bottom.mean() if bottom.sum() else np.full(len(top), np.nan))
    gap, low, high = clustered_mean(parts[1] - parts[0], exact["prompt"].to_numpy())
    return {
        f"{measure}.exact": means[0],
        f"{measure}.forced": means[1],
        f"{measure}.gap": gap,
        f"{measure}.gap_low": low,
        f"{measure}.gap_high": high,
    }
