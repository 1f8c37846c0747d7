"""Tables of runs that were never simulated: random policies, metrics, ties, gaps and sweeps, from a seed."""

import numpy as np
import pandas as pd

from uhlm_sim.analysis.measures.intervals import summarise
from uhlm_sim.analysis.results import Results

SWEEPS = {
    "traffic.devices": [1, 10, 80],
    "channel.mean_snr_db": [-5.0, 0.0, 10.0],
    "uplink.bandwidth_hz": [5e6, 10e6, 20e6],
    "uplink.payload.bits_per_probability": [2, 4, 8],
    "policy.u-hlm(0.2).threshold": [0.2, 0.3, 0.5],
    "base_station.order": ["first-come", "shortest-work", "fewest-uploads"],
    "uplink.allocator": ["equal-share", "max-rate"],
}
KINDS = {
    **{key: {} for key in ("hlm", "llm", "slm", "rand-hlm")},
    **{f"u-hlm({level})": {"threshold": level} for level in (0.2, 0.43, "risk-prone")},
}
RATES = ("token_throughput", "token_throughput_per_device", "mean_token_rate")
LATENCIES = ("tpot_s.p95", "ttft_s.p95", "e2e_s.mean", "phone_wait_s", "uplink_wait_s", "bs_wait_s", "batch_s")
SHARES = ("uplink_utilisation", "bs_utilisation", "skip_rate", "rejection_risk", "task_accuracy", "slo_attainment")
ENERGIES = ("device", "radio", "base_station")
CLASSES = ("near", "far")


def random_run(seed):
    """Return a run of one to six policies, at one point or over one or two swept keys, with 1 to 8 replications."""
    rng = np.random.default_rng(seed)
    names = [str(name) for name in rng.permutation(list(KINDS))[: rng.integers(1, 6)]]
    if rng.random() < 0.3 and "llm" in names:
        names = ["llm", *(name for name in names if name != "llm")]
    keys = [str(key) for key in rng.permutation(list(SWEEPS))[: rng.integers(0, 3)]]
    at = pd.DataFrame([{}])
    for key in keys:
        values = pd.DataFrame({key: SWEEPS[key][: 4 - len(keys)]})
        at = at.merge(values.sample(frac=1.0, random_state=int(rng.integers(99))), how="cross")
    replications, is_open = int(rng.choice([1, 2, 3, 8])), bool(rng.random() < 0.4)
    classes = CLASSES if rng.random() < 0.4 else ()
    values = _values(rng, names, len(at), replications, classes)
    tidy = pd.DataFrame(
        [
            (point, *swept, policy, replication, metric, value)
            for point, swept in enumerate(at.itertuples(index=False, name=None))
            for policy in names
            for metric, table in values[policy].items()
            for replication, value in enumerate(table[point])
        ],
        columns=["point", *keys, "policy", "replication", "metric", "value"],
    )
    scenario = {
        "name": f"random {seed}",
        "traffic": {"kind": "poisson" if is_open else "closed", "devices": 8},
        "warmup_s": 0.0,
        "duration_s": 100.0,
        "base_station": {"max_batch": 8, "gpus": int(rng.integers(1, 3))},
        "slo": {"ttft_s": 2.0} if rng.random() < 0.7 else {},
        "policy": [
            {"kind": name.partition("(")[0], **KINDS[name], **({"skip_rate": "matched"} if name == "rand-hlm" else {})}
            for name in names
        ],
        "device_class": [{"name": name} for name in classes],
    }
    return Results(
        summary=summarise(tidy, names[0]),
        replications=tidy,
        requests=_requests(rng, names, len(at), replications, classes),
        tokens=None,
        stations=pd.DataFrame(),
        scenario=scenario,
        provenance={
            "policies": [{"label": name, "kind": name.partition("(")[0], "exact": True} for name in names],
            "closed_loop": not is_open,
        },
    )


def _values(rng, names, points, replications, classes):
    """Return for each policy and metric an array (point, replication)."""
    noise, shape = rng.choice([0.0, 0.002, 0.05, 0.5]), (points, replications)
    world = np.exp(noise * rng.standard_normal(shape))  # alike under all policies
    drift = rng.choice([0.0, 0.05, 1.0])  # how far points differ
    energies = ENERGIES[: rng.integers(0, 4)]

    def around(mean, *, most=np.inf):
        at = mean * np.exp(drift * rng.standard_normal((points, 1)))
        return np.minimum(at * world * np.exp(noise * rng.standard_normal(shape) / 3), most)

    values = {}
    for name in names:
        kind, least, most = name.partition("(")[0], rng.uniform(0, 0.9), rng.choice([0.5, 1.0])
        own = {metric: around(rng.lognormal(2, 1)) for metric in RATES}
        own |= {metric: around(rng.lognormal(-2, 1)) for metric in LATENCIES}
        own |= {metric: around(rng.uniform(least, 1), most=most) for metric in SHARES}
        own["token_delay_s.mean"] = around(0.1) + own["uplink_wait_s"] + own["bs_wait_s"]
        own["distribution_error"] = around(rng.choice([0.0, 0.01, 0.05, 0.2]), most=1.0)
        own["quality_cosine"] = around(rng.choice([0.5, 0.88, 0.9]), most=1.0)
        own["batch_jobs"] = np.minimum(1 + around(rng.choice([0.0, 3.0])), 8)
        own["batch_job_s"] = own["batch_s"] / (own["batch_jobs"] + around(3.0))
        own["arrival_rate"], own["unfinished_requests"] = around(1.0), around(1.0)
        own["backlog_growth"] = around(rng.choice([0.0, 0.01, 0.5]))
        own |= {f"energy_per_token_j.{part}": around(rng.lognormal(0, 1)) for part in energies}
        if len(energies) == len(ENERGIES):
            own["energy_per_token_j"] = sum(own[f"energy_per_token_j.{part}"] for part in energies)
        own |= {f"token_throughput_per_device.class.{group}": around(rng.lognormal(1, 1)) for group in classes}
        if kind in ("hlm", "llm"):
            own |= {"skip_rate": np.zeros(shape), "distribution_error": np.zeros(shape)}
        if values and rng.random() < 0.3:  # a twin, in all or in a few metrics
            twin = values[str(rng.choice(list(values)))]
            own |= {metric: twin[metric] for metric in twin if rng.random() < rng.choice([0.2, 1.0])}
        for metric in ("quality_cosine", "task_accuracy", "distribution_error", *RATES[1:], "ttft_s.p95", "tpot_s.p95"):
            own[metric] = np.where(rng.random(shape) < rng.choice([0, 0, 0, 0.4, 1]), np.nan, own[metric])
            own[metric] = np.where(rng.random((points, 1)) < rng.choice([0, 0, 0.4]), np.nan, own[metric])
        values[name] = own
    return values


def _requests(rng, names, points, replications, classes):
    """Return answers of eight phones: the first ones are near, or all alike."""
    spread_db, rows = rng.choice([0.0, 10.0]), []
    for point in range(points):
        for policy in names:
            far = rng.lognormal(0, 1)
            for replication in range(replications):
                for device in range(8):
                    start_s = rng.uniform(0, 40)
                    first_s = start_s + rng.exponential(2.0)
                    slow = (far if device >= 4 else 1.0) * rng.lognormal(0, 0.1)
                    rows.append(
                        (point, policy, replication, device, 0, 20.0 - spread_db * device / 8, start_s, first_s)
                    )
                    rows[-1] += (first_s + slow, int(rng.integers(1, 30)), CLASSES[device % 2] if classes else "")
    columns = ["point", "policy", "replication", "device", "request", "mean_snr_db", "arrived_s", "first_token_s"]
    return pd.DataFrame(rows, columns=[*columns, "finished_s", "tokens", "device_class"])
