"""The linear law of a model pair: fitted on calibration prompts, judged on evaluation prompts.

Tokens of one answer depend on each other, so every interval here counts prompts, not tokens: a mean over
tokens is a ratio of sums over prompts (clusters), and its 95 % interval takes Student's t with prompts - 1
degrees of freedom.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from uhlm_sim.tokens.decoding_rule import DecodingRule, at_period
from uhlm_sim.tokens.gates import DOUBTS
from uhlm_sim.tokens.speculative import LinearLaw, grid_level, predicted_risk, rejection_probability
from uhlm_sim.tokens.trace import Trace

BOOTSTRAP_DRAWS = 2000


def words(threshold: float, uncertainty_samples: int) -> str:
    """Say what a threshold does on the grid of K, such as "skips nothing" where it lies below 0."""
    level = grid_level(threshold, uncertainty_samples)
    if level < 0:
        return "skips nothing"
    if level >= uncertainty_samples:
        return "skips everything"
    return f"skips u <= {level / uncertainty_samples:.2f}"


@dataclass(frozen=True)
class Calibration:
    """The law of a model pair from its calibration prompts, and its check on the evaluation prompts.

    ``intervals`` holds (low, high) for a, b, delta, risk_averse, risk_prone: percentiles of a bootstrap over
    prompts.

    ``bins``: one row per split ("calibration", "evaluation") and level of u: ``uncertainty``, ``tokens``,
    ``rejection`` (mean beta) with ``ci95_low``, ``ci95_high``, and ``predicted`` (the line).

    ``risk``: one row per level that a threshold can have, -1 (skips nothing) to K (everything), as ``level``
    and ``threshold`` (level / K). ``predicted_skip_rate``, ``predicted`` and ``bound`` use the line and the
    calibration tokens' u; ``skip_rate``, ``realised``, ``realised_low``, ``realised_high`` are E[beta;
    skipped] on the evaluation prompts along the prefixes of hlm, and ``rejection_risk`` is the mean beta of a
    skipped token there. ``own_path``, ``own_skip_rate``, ``own_realised``, ``own_low``, ``own_high``,
    ``own_rejection_risk`` are the same along the rule's own recorded path, NaN where none was recorded. Risks
    are per token of the answer, skipped or not; rejection risks per skipped token.
    """

    a: float
    b: float
    delta: float
    risk_averse: float
    risk_prone: float
    uncertainty_samples: int
    correlation: float
    mean_rejection: float
    prompts: int
    tokens: int
    intervals: dict[str, tuple[float, float]]
    bins: pd.DataFrame
    risk: pd.DataFrame

    @property
    def law(self) -> LinearLaw:
        return LinearLaw(self.a, self.b, self.delta)

    def threshold(self, name: str) -> float:
        """Return the value of "risk-averse" or "risk-prone", unclipped."""
        return {"risk-averse": self.risk_averse, "risk-prone": self.risk_prone}[name]

    def words(self, threshold: float) -> str:
        """Say what a threshold does on this pair's grid: "skips nothing", "skips everything", "skips u <= 0.40"."""
        return words(threshold, self.uncertainty_samples)


def clustered_mean(
    values: NDArray[np.floating], clusters: NDArray[Any], counts: NDArray[Any] | None = None
) -> tuple[float, float, float]:
    """Return (mean, low, high) of values over tokens, with a 95 % interval over clusters (here prompts).

    With ``counts`` (0 or 1 a token) the mean is sum(values x counts) / sum(counts). The ratio's variance is
    linearised (Cochran, Sampling Techniques, section 6.4; no finite population). NaN without tokens, NaN
    interval for one cluster.
    """
    weights = np.ones(len(values)) if counts is None else np.asarray(counts, dtype=np.float64)
    _, index = np.unique(clusters, return_inverse=True)
    sums = np.bincount(index, weights=np.where(weights > 0, values, 0.0) * weights)
    sizes = np.bincount(index, weights=weights)
    total, groups = sizes.sum(), int((sizes > 0).sum())
    if total == 0:
        return math.nan, math.nan, math.nan
    mean = float(sums.sum() / total)
    if groups < 2:
        return mean, math.nan, math.nan
    spread = math.sqrt(groups / (groups - 1) * float(((sums - mean * sizes) ** 2).sum())) / total
    reach = float(stats.t.ppf(0.975, groups - 1)) * spread
    return mean, mean - reach, mean + reach


def calibrate_trace(trace: Trace) -> Calibration:
    """Judge the law of a trace, fitted on its calibration prompts, on its evaluation prompts; TraceError as `law`."""
    law, fitted, judged = trace.law(), trace.hlm_tokens("calibration"), trace.hlm_tokens("evaluation")
    samples = trace.header.uncertainty_samples
    beta = rejection_probability(fitted["x_draft"], fitted["y_draft"])
    varies = float(np.ptp(beta)) > 0
    return Calibration(
        a=law.a,
        b=law.b,
        delta=law.delta,
        risk_averse=law.risk_averse,
        risk_prone=law.risk_prone,
        uncertainty_samples=samples,
        correlation=float(np.corrcoef(fitted["uncertainty"], beta)[0, 1]) if varies else math.nan,
        mean_rejection=float(beta.mean()),
        prompts=int(fitted["prompt"].nunique()),
        tokens=len(fitted),
        intervals=_bootstrap(fitted, beta),
        bins=pd.concat(
            [_bins(table, split, law, samples) for split, table in (("calibration", fitted), ("evaluation", judged))],
            ignore_index=True,
        ),
        risk=_risk(trace, law, fitted, judged, samples),
    )


def gate_risks(trace: Trace) -> pd.DataFrame:
    """Return what each gate risks at each share of drafts that it keeps, on the evaluation prompts along hlm.

    One row a gate and share, 1/20, 2/20, ... as near as its measure of doubt can tell drafts apart: ``gate``,
    ``share_kept``, and the mean beta of a kept draft, ``rejection_risk``, with ``low``, ``high`` (95 % over prompts).
    "random" keeps any draft as likely, "periodic" by `at_period`; "oracle" knows beta, which no phone does: no gate can
    risk less. A measure that the trace doesn't know is left out. Raises TraceError if there is no path hlm.
    """
    table = trace.hlm_tokens("evaluation")
    beta = rejection_probability(table["x_draft"], table["y_draft"])
    prompts, positions = table["prompt"].to_numpy(), table["position"].to_numpy()
    phases = [trace.skip_coins(*answer)[0] for answer in zip(prompts.tolist(), table["sample"].tolist(), strict=True)]
    doubts = {gate: np.asarray(doubt(table, trace.header.vocabulary_size)) for gate, doubt in DOUBTS.items()}
    doubts |= {"random": np.zeros(len(beta)), "oracle": beta}
    rows = []
    for share in np.arange(1, 21) / 20:
        kept = {gate: doubt <= np.quantile(doubt, share) for gate, doubt in doubts.items() if not np.isnan(doubt).any()}
        for gate, keeps in (kept | {"periodic": at_period(positions, share, np.array(phases))}).items():
            risk, low, high = clustered_mean(beta, prompts, keeps)
            rows.append((gate, share if gate == "random" else float(keeps.mean()), risk, low, high))
    names = ["gate", "share_kept", "rejection_risk", "low", "high"]
    return pd.DataFrame(rows, columns=names).drop_duplicates(["gate", "share_kept"], ignore_index=True)


def _bootstrap(tokens: pd.DataFrame, beta: NDArray[np.float64]) -> dict[str, tuple[float, float]]:
    """Return percentile intervals of the law over resampled prompts, from sums that each prompt contributes."""
    u = tokens["uncertainty"].to_numpy()
    below = (tokens["y_draft"] < tokens["x_draft"]).to_numpy()
    _, index = np.unique(tokens["prompt"], return_inverse=True)
    parts = [np.ones(len(u)), u, u * u, beta, u * beta, below.astype(np.float64)]
    sums = np.stack([np.bincount(index, weights=part) for part in parts], axis=1)
    # A fixed seed: the same trace gives the same interval, and nothing else draws from it.
    picks = np.random.default_rng(0).integers(0, len(sums), (BOOTSTRAP_DRAWS, len(sums)))
    n, su, suu, sb, sub, sd = sums[picks].sum(axis=1).T
    with np.errstate(divide="ignore", invalid="ignore"):
        a = (sub - su * sb / n) / (suu - su * su / n)
        b = (sb - a * su) / n
        delta = sd / n
        drawn = {"a": a, "b": b, "delta": delta, "risk_averse": -b / a, "risk_prone": (delta - b) / a}
    intervals = {}
    for name, values in drawn.items():
        finite = values[np.isfinite(values)]
        low, high = np.percentile(finite, [2.5, 97.5]) if len(finite) else (math.nan, math.nan)
        intervals[name] = (float(low), float(high))
    return intervals


def _bins(tokens: pd.DataFrame, split: str, law: LinearLaw, samples: int) -> pd.DataFrame:
    beta = rejection_probability(tokens["x_draft"], tokens["y_draft"])
    levels, prompts = tokens["level"].to_numpy(), tokens["prompt"].to_numpy()
    rows = []
    for level in range(samples + 1):
        here = levels == level
        mean, low, high = clustered_mean(beta[here], prompts[here])
        u = level / samples
        rows.append((split, level, u, int(here.sum()), mean, low, high, float(law.rejection(u))))
    names = ["split", "level", "uncertainty", "tokens", "rejection", "ci95_low", "ci95_high", "predicted"]
    return pd.DataFrame(rows, columns=names)


def _risk(trace: Trace, law: LinearLaw, fitted: pd.DataFrame, judged: pd.DataFrame, samples: int) -> pd.DataFrame:
    rows = []
    for level in range(-1, samples + 1):
        predicted = predicted_risk(law, fitted["uncertainty"], level / samples, samples)
        skips = (judged["level"] <= level).to_numpy()
        own_path = trace.find(DecodingRule("u-hlm", threshold=level / samples))
        row: dict[str, Any] = {
            "level": level,
            "threshold": level / samples,
            "predicted_skip_rate": predicted.skipped,
            "predicted": predicted.risk,
            "bound": predicted.bound,
        }
        row |= _realised(judged, skips, "skip_rate", "realised", "realised_low", "realised_high", "rejection_risk")
        names = ("own_skip_rate", "own_realised", "own_low", "own_high", "own_rejection_risk")
        row["own_path"] = own_path
        if own_path is None:
            row |= dict.fromkeys(names, math.nan)
        else:
            table = trace.tokens(own_path)
            row |= _realised(table, table["skipped"].to_numpy(), *names)
        rows.append(row)
    return pd.DataFrame(rows)


def _realised(tokens: pd.DataFrame, skips: NDArray[np.bool_], *names: str) -> dict[str, float]:
    """Return share skipped, E[beta; skipped] with its interval, and mean beta of the skipped, under the given names."""
    beta = rejection_probability(tokens["x_draft"], tokens["y_draft"])
    mean, low, high = clustered_mean(np.where(skips, beta, 0.0), tokens["prompt"].to_numpy())
    per_skipped = float(beta[skips].mean()) if skips.any() else math.nan
    return dict(zip(names, (float(skips.mean()), mean, low, high, per_skipped), strict=True))
