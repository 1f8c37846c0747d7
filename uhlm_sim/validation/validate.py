"""All claims together: simulated in parallel, judged as one family, and reported."""

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from uhlm_sim.errors import InputError, UhlmError, did_you_mean
from uhlm_sim.progress import Progress, no_progress
from uhlm_sim.simulations import in_processes
from uhlm_sim.validation import allocators as rules
from uhlm_sim.validation import base_station, channel, link, schemes, serving, tokens, traffic, uplink, whole
from uhlm_sim.validation.findings import LEVEL, Claim, Finding, Trial

STATIONS: dict[str, tuple[Claim, ...]] = {
    "Tokens": tokens.CLAIMS,
    "Channel": channel.CLAIMS,
    "Shared uplink": uplink.CLAIMS + rules.CLAIMS,
    "Link and downlink": link.CLAIMS,
    "Base station": base_station.CLAIMS + serving.CLAIMS,
    "Traffic, classes, energy": traffic.CLAIMS,
    "Windows and payloads": schemes.CLAIMS,
    "The whole cell": whole.CLAIMS,
}
FAMILY = 0.01  # a model without fault fails one validation in a hundred, at most
QUICK, FULL = 1, 12  # sizes of a trial
HOLDS, OUTSIDE, FAILS = "holds", "outside", "FAILS"
COLUMNS = ["station", "name", "claim", "source", "unit", "theory", "simulated", "ci95_low", "ci95_high", "p_value", "z"]
COLUMNS += ["error", "limit", "how", "verdict", "reason", "curve", "at"]


@dataclass(frozen=True)
class Validation:
    """Every claim with its finding and verdict.

    `table` has a row per claim and the columns COLUMNS, which `Claim` and `Finding` define; `z` is the p-value as a
    signed number of standard errors. `allowed` is how many rows may lie outside their 95 % interval.
    """

    table: pd.DataFrame
    allowed: int
    seed: int
    quick: bool

    @property
    def outside(self) -> int:
        """How many statistical claims lie outside their 95 % interval."""
        return int((self.table["p_value"] < 1 - LEVEL).sum())

    @property
    def failed(self) -> list[str]:
        """The names of the claims that fail, each for itself."""
        return [str(name) for name in self.table.loc[self.table["verdict"] == FAILS, "name"]]

    @property
    def passed(self) -> bool:
        """Whether no claim fails and no more lie outside their interval than may."""
        return not self.failed and self.outside <= self.allowed

    def text(self) -> str:
        """Return the table that a terminal shows, and the verdict with its reason."""
        lines = []
        for station, rows in self.table.groupby("station", sort=False):
            lines += [str(station), *_aligned([cells(row) for row in rows.to_dict("records")]), ""]
        failing = self.table[self.table["reason"] != ""]
        lines += [f"{row['name']}: {row['reason']}" for row in failing.to_dict("records")]
        return "\n".join([*lines, *self.words()])

    def words(self) -> list[str]:
        """Return the verdict over all rows, and how it was reached, in sentences."""
        statistical = int(self.table["p_value"].notna().sum())
        size = "quick size" if self.quick else "full size"
        verdict = "PASSED" if self.passed else "FAILED"
        failed = f"{len(self.failed)} of {len(self.table)} claims fail" if self.failed else "no claim fails"
        return [
            f"{verdict}: {failed} ({size}, seed {self.seed}).",
            f"{statistical} claims are statistical: {self.outside} lie outside their 95 % interval, and up to "
            f"{self.allowed} may by chance; one fails if it is too far off to be the worst of {statistical} (Holm). A "
            f"model without fault passes all this in at least {1 - FAMILY:.0%} of seeds.",
            f"{len(self.table) - statistical} claims are exact: one fails if its error is above its limit, as a rule "
            "1e-9 of the largest value.",
        ]


def claims(only: Collection[str] = ()) -> list[tuple[str, Claim]]:
    """Return (station, claim) of all claims, or of those named. Raises InputError for a name that there isn't."""
    named = [(station, claim) for station, group in STATIONS.items() for claim in group]
    names = [claim.name for _, claim in named]
    for name in only:
        if name not in names:
            raise InputError(f"no claim is called '{name}'{did_you_mean(name, names)}")
    return [(station, claim) for station, claim in named if not only or claim.name in only]


def validate(
    *,
    seed: int = 1,
    quick: bool = False,
    jobs: int = -1,
    only: Collection[str] = (),
    progress: Progress = no_progress,
) -> Validation:
    """Compare the simulator with theory, claim by claim, on `jobs` processes (-1: all cores).

    Each claim has random streams of its own, named by the claim, so that rows are independent and a claim's result
    hangs on neither the others nor the number of processes. `only` names the claims to look at, all if empty.
    """
    chosen = claims(only)
    size = QUICK if quick else FULL
    findings: dict[int, Finding] = {}
    calls = ((number, claim, Trial(claim.name, seed, size)) for number, (_, claim) in enumerate(chosen))
    arriving = in_processes(_check, calls, jobs)
    progress("validating", 0, len(chosen))
    for number, finding in arriving:
        findings[number] = finding
        progress("validating", len(findings), len(chosen))
    rows = [
        {"station": station, "name": claim.name, "claim": claim.text, "source": claim.source, "unit": claim.unit}
        | asdict(findings[number])
        | {"curve": claim.curve, "at": claim.at}
        for number, (station, claim) in enumerate(chosen)
    ]
    table, allowed = judge(pd.DataFrame(rows))
    return Validation(table, allowed, seed, quick)


def judge(table: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Add each row's verdict and its reason; return how many may lie outside their 95 % interval, too.

    Half of FAMILY is Holm's (1979): the p-values, from the smallest up, fail while the k-th of n is at most
    FAMILY / 2 / (n - k + 1). The other half is the count's: of n independent intervals that cover 95 %, more than
    `allowed` miss with at most that probability (binomial), which finds a model that is a little wrong everywhere.
    """
    p_value = table["p_value"]
    statistical = p_value.dropna().sort_values(kind="stable")
    limits = FAMILY / 2 / np.arange(len(statistical), 0, -1)
    rejected = statistical.index[np.cumprod(statistical.to_numpy() <= limits).astype(bool)]
    allowed = int(stats.binom.isf(FAMILY / 2, len(statistical), 1 - LEVEL)) if len(statistical) else 0
    far = table.index.isin(rejected)
    wrong = (table["error"] > table["limit"]).to_numpy()
    broken = (table["broken"] != "").to_numpy()
    lies_outside = (p_value < 1 - LEVEL).to_numpy()
    reason = np.where(far, "further from theory than chance explains", np.where(wrong, "not exact", table["broken"]))
    z = np.sign(table["simulated"] - table["theory"]) * stats.norm.isf(p_value / 2)
    verdict = np.where(far | wrong | broken, FAILS, np.where(lies_outside, OUTSIDE, HOLDS))
    judged = table.rename(columns={"low": "ci95_low", "high": "ci95_high"})
    return judged.assign(z=z, verdict=verdict, reason=reason)[COLUMNS], allowed


def cells(row: Mapping[Any, Any]) -> list[str]:
    """Return verdict, theory, simulated, interval and claim of a row, as they are shown."""
    theory, simulated, low, high, error, limit = (
        float(row[name]) for name in ("theory", "simulated", "ci95_low", "ci95_high", "error", "limit")
    )
    interval = f"({low:.4g}, {high:.4g})"
    if not math.isnan(error):
        interval = f"error {error:.0e}" if error else "error 0"
    elif math.isnan(low):
        interval = "" if math.isnan(limit) else f"up to {limit:.3g}"
    unit = "" if row["unit"] in ("1", "any", "ratio") else f" [{row['unit']}]"
    shown = ["-" if math.isnan(value) else f"{value:.4g}" for value in (theory, simulated)]
    return [str(row["verdict"]), *shown, interval, f"{row['claim']}{unit}"]


def _check(number: int, claim: Claim, trial: Trial) -> tuple[int, Finding]:
    """Return a claim's number and finding; if the simulation raises, the finding has the reason."""
    try:
        return number, claim.check(trial)
    except UhlmError as error:
        return number, Finding(math.nan, math.nan, "", broken=str(error))


def _aligned(rows: list[list[str]]) -> list[str]:
    heading = ["", "theory", "simulated", "95 % interval", "claim"]
    widths = [max(len(row[column]) for row in [heading, *rows]) for column in range(4)]
    return [
        "  ".join(["", row[0].ljust(widths[0]), *map(str.rjust, row[1:4], widths[1:4]), row[4]])
        for row in [heading, *rows]
    ]
