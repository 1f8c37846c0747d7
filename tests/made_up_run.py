"""The tables of a made-up run: two phones under three policies."""

import numpy as np
import pandas as pd

from uhlm_sim.analysis.measures.intervals import summarise
from uhlm_sim.analysis.measures.metrics import replication_metrics
from uhlm_sim.analysis.results import Results
from uhlm_sim.tables import LEGS

POLICIES = {"hlm": 0.0, "u-hlm(0.43)": 0.5, "slm": 1.0}


def simulated(policy, replication):
    """Two phones that answer for 20 s; half of the tokens of U-HLM are kept, all of the SLM's."""
    rng = np.random.default_rng(replication)
    rows = []
    for device in (0, 1):
        now = rng.random()
        for position in range(40):
            kept = (position % 2 < 2 * POLICIES[policy] - 0.5) if POLICIES[policy] else False
            legs = [0.2, *([0.0] * 5 if kept else rng.uniform(0.01, 0.1, 5))]
            done = now + sum(legs)
            words = ("skip", "skipped") if kept else ("send", "accepted")
            rows.append(
                (device, 0, position, now, done, *words, 0.8, 0 if kept else 8000, *legs, *([0 if kept else 1] * 3))
            )
            now = done
    columns = ["device", "request", "position", "started_s", "committed_s", "decision", "outcome"]
    columns += ["accept_probability", "payload_bits", *LEGS, "batch_jobs", "batch_tokens", "steps"]
    tokens = pd.DataFrame(rows, columns=columns)
    tokens = tokens.assign(drafted=1, accepted=(tokens["decision"] == "send").astype(int), exact=True)
    ends = tokens.groupby("device")["committed_s"]
    requests = pd.DataFrame(
        {"device": [0, 1], "request": 0, "arrived_s": tokens.groupby("device")["started_s"].min()}
    ).assign(
        first_token_s=ends.min(),
        finished_s=ends.max(),
        tokens=40,
        mean_snr_db=10.0,
        quality_cosine=0.6,
        quality_cosine_reference=0.5,
        task_passed=np.nan,
    )
    counted = [(s, t, 0.3 * t, 0.2 * t, 1) for s in ("uplink", "base_station") for t in (0.0, 20.0)]
    stations = pd.DataFrame(counted, columns=["station", "at_s", "present_s", "busy_s", "servers"])
    return requests, tokens, tokens, stations  # one token a round


def run(replications=3, forced=()):
    """Return the tables of a run of all policies."""
    parts = {"requests": [], "rounds": [], "tokens": [], "stations": []}
    values = []
    for policy in POLICIES:
        for replication in range(replications):
            tables = simulated(policy, replication)
            settings = {
                "warmup_s": 0.0,
                "duration_s": 20.0,
                "devices": 2,
                "slo": {},
                "output_law": policy not in forced,
            }
            found = replication_metrics(*tables, **settings)
            values += [(0, policy, replication, name, value) for name, value in found.items()]
            for name, table in zip(parts, tables, strict=True):
                keys = {"point": 0, "policy": policy, "replication": replication}
                parts[name].append(table.assign(**keys))
    tidy = pd.DataFrame(values, columns=["point", "policy", "replication", "metric", "value"])
    told = [
        {"label": name, "kind": name.partition("(")[0], "exact": name not in forced, "path": "hlm"}
        | {"threshold": 0.43 if "u-" in name else None, "words": ""}
        for name in POLICIES
    ]
    return Results(
        summary=summarise(tidy, "hlm"),
        replications=tidy,
        **{name: pd.concat(tables, ignore_index=True) for name, tables in parts.items()},
        scenario={
            "name": "two phones <test>",
            "description": "Does U-HLM keep & send?",
            "replications": replications,
            "seed": 1,
            "warmup_s": 0.0,
            "duration_s": 20.0,
            "traffic": {"kind": "closed", "devices": 2},
            "channel": {"params": {}, "kind": "constant"},
        },
        provenance={
            "version": "0.1.0",
            "seed": 1,
            "closed_loop": True,
            "trace": {"temperature": 0.7, "models": {"slm": {"name": "small"}}},
            "policies": told,
            "assumptions": ["Below −10 dB nothing is sent."],
            "presets": [{"name": "phone", "source": "a benchmark, http://example.org"}],
        },
    )
