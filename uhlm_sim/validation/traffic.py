"""Claims about arrivals, presence, device classes and energy."""

import math
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uhlm_sim.analysis.measures.energy import ENERGY, powers_of
from uhlm_sim.analysis.measures.intervals import paired_ratio
from uhlm_sim.analysis.measures.metrics import replication_metrics
from uhlm_sim.cell.named import find_names
from uhlm_sim.cell.phones.answers import Answers
from uhlm_sim.cell.phones.arrivals import arrivals_of
from uhlm_sim.cell.phones.policies import ready_policy
from uhlm_sim.cell.phones.population import population
from uhlm_sim.scenario import Scenario
from uhlm_sim.validation.findings import Claim, Finding, Trial, equals, mean_is
from uhlm_sim.validation.whole import (
    DOWNLINK_S,
    HLM,
    ID_BITS,
    SLM_S,
    U_HLM,
    UPLOAD_S,
    G,
    answers,
    cell,
    committed,
    run,
    stays_s,
    t,
)
from uhlm_sim.validation.whole import metrics as metrics_of

Floats = NDArray[np.float64]

PHONES, RATE, WINDOW_S = 2, 0.5, 40.0
BURST = {"factor": 2.5, "mean_burst_s": 5.0, "mean_calm_s": 15.0}
PRESENT_S, ABSENT_S = 10.0, 15.0


def dispersion(high: float, low: float, high_s: float, low_s: float, window_s: float) -> float:
    """Return the variance over the mean of the counts of a two-state Markov-modulated Poisson process.

    Rates `high` and `low` for exponential times of means `high_s` and `low_s`, from the steady state on. The integral
    of the rate over a window w has the variance 2 p q (high - low)^2 (w - (1 - e^(-r w)) / r) / r with p the share of
    time at the high rate, q = 1 - p, r = 1/high_s + 1/low_s; the counts' variance is their mean more.
    """
    share, r = high_s / (high_s + low_s), 1 / high_s + 1 / low_s
    mean = share * high + (1 - share) * low
    lag_s = window_s - (1 - math.exp(-r * window_s)) / r
    return 1 + 2 * share * (1 - share) * (high - low) ** 2 * lag_s / r / (mean * window_s)


def bursts_of(of_device: bool) -> float:
    """Return the dispersion of all phones' counts: common bursts add up their rates, others only their variances."""
    high_s, low_s, factor = BURST["mean_burst_s"], BURST["mean_calm_s"], BURST["factor"]
    calm = (high_s + low_s - factor * high_s) / low_s
    rate = RATE if of_device else PHONES * RATE
    return dispersion(factor * rate, calm * rate, high_s, low_s, WINDOW_S)


def counts(scenario: Scenario, replications: int) -> Floats:
    """Return the number of all phones' requests within the window, for each replication."""
    people, traffic = population(scenario), find_names(scenario)["traffic.kind"]
    requests = np.zeros(replications)
    for replication in range(replications):
        for who in people:
            next_arrival, arrived_s = arrivals_of(scenario, who, replication, traffic), 0.0
            while (arrived_s := next_arrival(arrived_s)) <= WINDOW_S:
                requests[replication] += 1
    return requests


def bursty(of: str) -> dict[str, Any]:
    return {"kind": "bursty", "burst": {"of": of, **BURST}}


COMING_AND_GOING = {"kind": "poisson", "presence": {"mean_present_s": PRESENT_S, "mean_absent_s": ABSENT_S}}
PRESENT_RATE = RATE * PRESENT_S / (PRESENT_S + ABSENT_S)


def runs_of(trial: Trial, traffic: dict[str, Any]) -> tuple[Floats, str]:
    """Return how many requests all phones are asked in each run, and how they were counted."""
    runs = 700 * trial.size
    traffic = {"devices": PHONES, "rate_per_s": RATE, "max_tokens": 1, **traffic}
    scenario = cell(trial, HLM, traffic=traffic, duration_s=WINDOW_S, warmup_s=0.0)
    return counts(scenario, runs), f"{runs:,} runs of {PHONES} phones over {WINDOW_S:g} s"


def mean_rate(trial: Trial, traffic: dict[str, Any], rate: float) -> Finding:
    """However requests are bundled, phones are asked at a mean rate."""
    requests, how = runs_of(trial, traffic)
    return mean_is(rate, requests / (PHONES * WINDOW_S), how)


def dispersion_is(trial: Trial, traffic: dict[str, Any], rate: float, theory: float) -> Finding:
    """Squares of counts off their mean, over it: 1 without bursts."""
    (requests, how), mean = runs_of(trial, traffic), PHONES * rate * WINDOW_S
    return mean_is(theory, (requests - mean) ** 2 / mean, how)


def classes_apart(trial: Trial) -> Finding:
    """On fixed parts of the band, with a GPU for each phone, a class can't tell who else is on the cell."""
    observed = {"name": "here", "count": 3, "mean_snr_db": 4.0, "slm_token_s": 0.03}
    others = (
        [{"name": "there", "count": 5}, observed],
        [{"name": "elsewhere", "count": 2, "think_time_s": 0.1}, observed, {"name": "farther", "count": 3}],
    )
    ends_s = []
    for classes in others:
        scenario = cell(
            trial, U_HLM,
            device_class=classes,
            traffic={"think_time_s": 1.0, "max_tokens": 40},
            channel={"kind": "rayleigh", "mean_snr_db": 5.0},
            uplink={"allocator": "fdma"},
            base_station={"gpus": 8, "max_batch": 1},
        )  # fmt: skip
        tokens = committed(run(scenario))
        mine = [who.device for who in population(scenario) if who.name[0] == "here"]
        ends_s.append(tokens.loc[tokens["device"].isin(mine), ["started_s", "committed_s"]].to_numpy())
    how = f"{len(ends_s[0]):,} tokens of 3 phones, both ends of each, beside 5 other phones of one kind or of two"
    return equals(ends_s[0], ends_s[1], how)


def one_phone_energy(trial: Trial) -> Finding:
    """Watts times the legs of `one_phone_metrics`, and a waiting GPU's share of the rest of the time."""
    device_w, amplifier_w, circuit_w, gpu_w, idle_w = 3.0, 0.2 / 0.4, 0.15, 300.0, 50.0
    radio = {"transmit_power_dbm": 10 * math.log10(200.0), "amplifier_efficiency": 0.4, "circuit_power_w": circuit_w}
    scenario = cell(
        trial, HLM,
        device={"slm_token_s": SLM_S, "slm_prefill_token_s": 0.0, "power_w": device_w, "radio": radio},
        base_station={"sync": "free", "gpu_power_w": gpu_w, "gpu_idle_power_w": idle_w},
        traffic={"devices": 1, "think_time_s": 0.0, "max_tokens": 40},
        duration_s=5.0 + 100 * (SLM_S + UPLOAD_S + t(1) + DOWNLINK_S), warmup_s=5.0,
    )  # fmt: skip
    records = run(scenario)
    metrics = replication_metrics(
        *records.tables, warmup_s=5.0,
        duration_s=scenario.duration_s, devices=1, slo={}, output_law=True, powers=powers_of(scenario, [0]),
    )  # fmt: skip
    idle_s = SLM_S + UPLOAD_S + DOWNLINK_S
    parts = [device_w * SLM_S, (amplifier_w + circuit_w) * UPLOAD_S, gpu_w * t(1) + idle_w * idle_s]
    joules = [metrics[name] for name in ENERGY]
    return equals([sum(parts), *parts], joules, "a run of a hundred tokens: the whole and its parts")


def one_phone_downlink(trial: Trial) -> Finding:
    """A verdict takes ids / (B log2(1 + 2 G)) s on a shared downlink 3.01 dB better than the uplink, then its delay."""
    downlink = {"kind": "shared", "bandwidth_hz": 1e4, "snr_offset_db": 10 * math.log10(2)}
    tokens = committed(run(cell(trial, HLM, downlink=downlink)))
    expected = np.full(len(tokens), ID_BITS / (1e4 * math.log2(1 + 2 * G)) + DOWNLINK_S)
    return equals(expected, tokens["downlink_s"], f"{len(tokens):,} verdicts, each")


def phones_queue(trial: Trial) -> Finding:
    """Pollaczek and Khinchine: an open request waits rate E[S^2] / (2 (1 - rate E[S])) for its phone, S its answer.

    Answers of 1 to 40 tokens, each a third of a second in all, no LLM.
    """
    rate, seconds, token_s = 0.03, 10_000.0 * math.sqrt(trial.size), 1 / 3
    traffic = {"kind": "poisson", "devices": 1, "rate_per_s": rate, "max_tokens": 40}
    device = {"slm_token_s": token_s, "slm_prefill_token_s": 0.0}
    scenario = cell(trial, {"kind": "slm"}, traffic=traffic, device=device, duration_s=seconds, warmup_s=500.0)
    policy = ready_policy(0, scenario, answers(), find_names(scenario))
    lengths_s = token_s * np.array([min(tokens, 40) for _, tokens in Answers.of_scenario(policy, scenario).sizes()])
    theory = rate * float(np.mean(lengths_s**2)) / (2 * (1 - rate * float(np.mean(lengths_s))))
    waits_s = [metrics_of(scenario, run(scenario, number))["phone_wait_s"] for number in range(16)]
    return mean_is(theory, waits_s, f"16 runs of {seconds:,.0f} s")


def measures_by_hand(trial: Trial) -> Finding:
    """Sort the tokens' delays for percentiles, count the answers that keep both limits, divide sums for a ratio."""
    scenario = cell(trial, HLM, traffic={"devices": 20, "think_time_s": 0.5, "max_tokens": 20})
    records = run(scenario)
    tokens, ended = committed(records), records.requests[records.requests["finished_s"] >= 5.0]
    first_s, pace_s = (ended["first_token_s"] - ended["arrived_s"], ended["finished_s"] - ended["first_token_s"])
    pace_s = pace_s / (ended["tokens"] - 1)
    slo = {"ttft_s": float(first_s.median()), "tpot_s": float(pace_s.median())}
    measured = replication_metrics(*records.tables, warmup_s=5.0, duration_s=60.0, devices=20, slo=slo, output_law=True)
    ordered_s = np.sort(stays_s(tokens[tokens["committed_s"] >= 5.0]))
    expected, simulated = [], [measured[f"token_delay_s.p{rank}"] for rank in (50, 90, 95, 99)]
    for part in (0.5, 0.9, 0.95, 0.99):
        below, rest = divmod(part * (len(ordered_s) - 1), 1)
        expected.append(ordered_s[int(below)] * (1 - rest) + ordered_s[int(below) + 1] * rest)
    kept = (first_s <= slo["ttft_s"]) & ~(pace_s > slo["tpot_s"])
    x, y = trial.rng().exponential(size=(2, 8))
    expected += [kept.sum() / 55.0, x.sum() / y.sum()]
    simulated += [measured["goodput"], float(paired_ratio(x, y)[0])]
    how = f"{len(ordered_s):,} delays, {kept.mean():.0%} of {len(ended):,} answers"
    return equals(np.ones(6), np.array(simulated) / expected, how)


MMPP = "Fischer and Meier-Hellstern 1993"
CLAIMS = (
    Claim("burst rate", "Bursts leave the mean rate of requests as it is", "mean of a Markov-modulated Poisson process",
          "1/s", partial(mean_rate, traffic=bursty("device"), rate=RATE)),
    Claim("own bursts", "Phones with bursts of their own: dispersion of the counts of all of them", MMPP, "1",
          partial(dispersion_is, traffic=bursty("device"), rate=RATE, theory=bursts_of(of_device=True))),
    Claim("common bursts", "Phones that burst together: dispersion of the counts of all of them", MMPP, "1",
          partial(dispersion_is, traffic=bursty("cell"), rate=RATE, theory=bursts_of(of_device=False))),
    Claim("presence", "Phones that come and go ask for the share of time that they are there",
          "alternating renewal process", "1/s", partial(mean_rate, traffic=COMING_AND_GOING, rate=PRESENT_RATE)),
    Claim("presence, dispersion", "Coming and going makes an interrupted Poisson process of a Poisson process", MMPP,
          "1", partial(dispersion_is, traffic=COMING_AND_GOING, rate=PRESENT_RATE,
                       theory=dispersion(RATE, 0.0, PRESENT_S, ABSENT_S, WINDOW_S))),
    Claim("classes apart", "With parts of the band and GPUs of their own, phones of a class don't notice the others",
          "named random streams", "any", classes_apart),
    Claim("one phone, energy", "A token of a lone phone costs watts times legs, and idle watts between",
          "adding up", "J", one_phone_energy),
    Claim("one phone, downlink", "A verdict is its id's bits over the downlink's own rate, and a delay", "adding up",
          "s", one_phone_downlink),
    Claim("a phone's queue", "Open requests wait for their phone as in a queue of one server",
          "Pollaczek and Khinchine", "s", phones_queue),
    Claim("measures by hand", "Percentiles, goodput and ratios are what sorting, counting and dividing give",
          "the tables themselves", "ratio", measures_by_hand),
)  # fmt: skip
