"""The delay budget: where tokens spend their time, the slow ones apart from the usual ones."""

import numpy as np
import pandas as pd

from uhlm_sim.analysis.run import Run
from uhlm_sim.tables import LEGS

QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
AROUND = 0.005  # a row is the mean of the tokens whose rank lies this near its quantile's: one token in a hundred
ALL = "all tokens"


def delay_budget(run: Run) -> pd.DataFrame:
    """Return the legs of a token's delay by policy: of all tokens, and of those around the median, p95 and p99.

    Columns: the sweep's, `policy`, `tokens_at` ("all tokens", "p50", "p95", "p99"), `delay_s` and its legs [s]:
    `device_s`, `uplink_wait_s`, `airtime_s`, `bs_wait_s`, `verify_s`, `downlink_s`, which add up to it; `tokens`, how
    many the row is a mean of. Tokens committed in the window count, of all replications together. Around a quantile q
    of the delay are the tokens of the ranks (q - 0.005) n to (q + 0.005) n: what a slow token waits for needn't be what
    a mean token waits for. Left out: intervals, and the time between tokens. Empty for a run that kept no tokens.
    """
    rows = []
    for number, (warmup_s, duration_s, _) in run.terms.items() if run.tokens is not None else ():
        here = run.tokens[run.tokens["point"] == number] if run.tokens is not None else pd.DataFrame()
        here = here[here["committed_s"].between(warmup_s, duration_s)]
        swept = run.replications.loc[run.replications["point"] == number, run.sweep].iloc[0].to_dict()
        for policy in run.policies:
            legs = here.loc[here["policy"] == policy, list(LEGS)].to_numpy(dtype=np.float64)
            legs = legs[np.argsort(legs.sum(axis=1), kind="stable")]
            if not len(legs):
                continue
            chosen = {ALL: legs}
            for name, q in QUANTILES.items():
                first, last = int((q - AROUND) * len(legs)), int(np.ceil((q + AROUND) * len(legs)))
                chosen[name] = legs[first : max(last, first + 1)]
            for name, of_them in chosen.items():
                means = of_them.mean(axis=0)
                at = {**swept, "policy": policy, "tokens_at": name, "delay_s": means.sum()}
                rows.append({**at, **dict(zip(LEGS, means, strict=True)), "tokens": len(of_them)})
    return pd.DataFrame(rows, columns=[*run.sweep, "policy", "tokens_at", "delay_s", *LEGS, "tokens"])
