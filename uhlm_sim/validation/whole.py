"""Claims about the whole cell, from scenario to metrics, with the recorded answers of real models."""

import math
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from channel_models import CHANNELS
from uhlm_sim.analysis.measures.intervals import paired_ratio
from uhlm_sim.analysis.measures.metrics import replication_metrics
from uhlm_sim.cell.engine import simulate
from uhlm_sim.cell.named import find_names
from uhlm_sim.cell.phones.answers import Answers
from uhlm_sim.cell.phones.policies import ready_policy
from uhlm_sim.cell.records import Records
from uhlm_sim.rng import stream
from uhlm_sim.scenario import Scenario, Service
from uhlm_sim.scenario_file import parse_scenario
from uhlm_sim.tokens.trace import Trace
from uhlm_sim.validation.drive import AHEAD
from uhlm_sim.validation.findings import Claim, Finding, Trial, equals, mean_is, share_is, share_is_at_least

Floats = NDArray[np.float64]

RUNS = 16
SLM_S, PREFILL_S, MEASURE_S, DOWNLINK_S = 0.05, 0.002, 0.003, 0.005
V, ID_BITS = 32_000, 15  # 2^15 = 32,768 ids are enough for 32,000
BANDWIDTH_HZ, SNR_DB, G = 10e6, 7.0, 10**0.7
UPLOAD_S = 8 * V / (BANDWIDTH_HZ * math.log2(1 + G))
HLM, U_HLM, LLM = {"kind": "hlm"}, {"kind": "u-hlm", "threshold": 0.43}, {"kind": "llm"}


def t(new_tokens: int) -> float:
    """Return the seconds of a batch in the one-phone cells."""
    return 0.01 + 0.001 * max(0, new_tokens - 2)


def exponential(service: Service, rng: np.random.Generator) -> Callable[[int], float]:
    """Serve every batch in an exponential time of mean c_s: a service time that scenarios can name."""
    return lambda _new_tokens: float(rng.exponential(service.least_s))


@cache
def answers() -> Trace:
    return Trace.read("smollm2-pair")


def cell(trial: Trial, policy: Mapping[str, Any], **changes: Any) -> Scenario:
    """Return the scenario of a phone that has 10 MHz at a constant 7 dB and a GPU to itself, but for changes."""
    station = {"service": {"c_s": 0.01, "s_s_per_token": 0.001, "free_tokens": 2}, "downlink_s": DOWNLINK_S}
    values = {
        "name": "validation",
        "seed": int(trial.rng("seed").integers(2**40)),
        "tokens": {"kind": "trace", "path": "smollm2-pair", "vocabulary_size": V},
        "policy": [dict(policy)],
        "duration_s": 60.0,
        "warmup_s": 5.0,
        "traffic": {"devices": 1, "think_time_s": 1.0, "max_tokens": 40},
        "device": {"slm_token_s": SLM_S, "slm_prefill_token_s": PREFILL_S, "uncertainty_s": MEASURE_S},
        "uplink": {"bandwidth_hz": BANDWIDTH_HZ},
        "channel": {"kind": "constant", "mean_snr_db": SNR_DB},
        **changes,
        "base_station": station | changes.get("base_station", {}),
    }
    return parse_scenario(values, "validation")


def run(scenario: Scenario, replication: int = 0) -> Records:
    functions = find_names(scenario, allow_plugins=True)
    return simulate(scenario, ready_policy(0, scenario, answers(), functions), replication, functions=functions)


def metrics(scenario: Scenario, records: Records) -> dict[str, float]:
    return replication_metrics(
        *records.tables, warmup_s=scenario.warmup_s,
        duration_s=scenario.duration_s, devices=scenario.traffic.devices, slo={}, output_law=True,
    )  # fmt: skip


def committed(records: Records) -> pd.DataFrame:
    """Return the committed tokens with the length of their prompt."""
    prompts = records.requests[["device", "request", "prompt_tokens", "arrived_s"]]
    tokens = records.tokens[records.tokens["committed_s"].notna()]
    return tokens.merge(prompts, on=["device", "request"])


def stays_s(tokens: pd.DataFrame) -> Floats:
    return np.asarray(tokens["committed_s"] - tokens["started_s"], dtype=np.float64)


def new_positions(tokens: pd.DataFrame) -> list[tuple[int, int]]:
    """Return for each sent token, in order, (positions that the LLM must process, ids that it doesn't know)."""
    new, seen = [], -1
    columns = (tokens[name].tolist() for name in ("position", "decision", "prompt_tokens"))
    for position, decision, prompt in zip(*columns, strict=True):
        seen = -1 if position == 0 else seen
        if decision == "send":
            new.append((prompt + position, prompt + position) if seen < 0 else (position - seen, position - seen - 1))
            seen = position
    return new


# -- one phone ----------------------------------------------------------------------------------------------------


def one_phone_hlm(trial: Trial) -> Finding:
    """SLM, upload, t(n), downlink; position 0 brings the prompt: its prefill, its ids, its place in n."""
    tokens = committed(run(cell(trial, HLM)))
    first, prompt = tokens["position"] == 0, tokens["prompt_tokens"]
    new = np.where(first, prompt, 1)
    upload_s = UPLOAD_S * (1 + np.where(first, prompt, 0) * ID_BITS / (8 * V))
    expected = SLM_S + first * prompt * PREFILL_S + upload_s + [t(n) for n in new] + DOWNLINK_S
    return equals(expected, stays_s(tokens), f"{len(tokens):,} tokens, each", limit=1e-9)


def one_phone_metrics(trial: Trial) -> Finding:
    """Without a prefill all tokens take the same time, and the rates are its inverse."""
    device = {"slm_token_s": SLM_S, "slm_prefill_token_s": 0.0}
    scenario = cell(trial, HLM, base_station={"sync": "free"}, device=device)
    records = run(scenario)
    measured = metrics(scenario, records)
    token_s = SLM_S + UPLOAD_S + t(1) + DOWNLINK_S
    names = ["tpot_s.mean", "ttft_s.p95", "token_delay_s.p50", "token_throughput_per_device", "mean_token_rate"]
    expected = np.array([token_s, token_s, token_s, 1 / token_s, 1 / token_s])
    how = "TPOT, TTFT, token delay and both token rates of a run"
    return equals(np.ones(5), np.array([measured[name] for name in names]) / expected, how)


def one_phone_billing(trial: Trial) -> Finding:
    """Bits are 8 V and 15 a new id; the LLM's positions are 1 + skipped since, or prompt + position at first."""
    tokens = committed(run(cell(trial, U_HLM)))
    sent = tokens[tokens["decision"] == "send"]
    positions = new_positions(tokens)
    bits = [8 * V + ID_BITS * ids for _, ids in positions]
    ratio = np.concatenate([sent["payload_bits"] / bits, sent["llm_tokens"] / [n for n, _ in positions]])
    return equals(np.ones(len(ratio)), ratio, f"{len(sent):,} uploads, bits and LLM positions of each")


def one_phone_skips(trial: Trial) -> Finding:
    """A kept token costs the phone alone; a sent one the network too."""
    tokens = committed(run(cell(trial, U_HLM)))
    expected = np.where(tokens["position"] == 0, tokens["prompt_tokens"] * PREFILL_S, 0.0) + SLM_S + MEASURE_S
    network_s = [UPLOAD_S * (1 + ids * ID_BITS / (8 * V)) + t(n) + DOWNLINK_S for n, ids in new_positions(tokens)]
    expected[(tokens["decision"] == "send").to_numpy()] += network_s
    return equals(expected, stays_s(tokens), f"{len(tokens):,} tokens, each")


def one_phone_llm(trial: Trial) -> Finding:
    """Token n is at the phone ids / rate + t(prompt) + n t(1) + one downlink after the request."""
    tokens = committed(run(cell(trial, LLM)))
    prompt = tokens["prompt_tokens"]
    ids_s = prompt * ID_BITS / (8 * V) * UPLOAD_S
    expected = ids_s + [t(n) for n in prompt] + tokens["position"] * t(1) + DOWNLINK_S
    return equals(expected, tokens["committed_s"] - tokens["arrived_s"], f"{len(tokens):,} tokens, each")


def network_time(trial: Trial) -> Finding:
    """With sync free: network time a token is HLM's times (1 - skip rate), whatever the answers."""
    per_token_s, skip_rate = [], 0.0
    for policy in (HLM, U_HLM):
        tokens = committed(run(cell(trial, policy, base_station={"sync": "free"})))
        per_token_s.append(float(np.mean(stays_s(tokens) - tokens["device_s"])))
        skip_rate = float(np.mean(tokens["decision"] == "skip"))
    return equals([per_token_s[0] * (1 - skip_rate)], [per_token_s[1]], f"one run each, {skip_rate:.1%} skipped")


def own_fades(trial: Trial, *, gap_db: float = 0.0, floor_db: float = -10.0, cap: float = 7.4) -> Finding:
    """A lone phone's upload ends where the integral of its rate, by its own fades g, has grown by its bits.

    A hertz carries min(log2(1 + G g / gap), cap) bit/s, nothing where G g is below the floor.
    """
    coherence_s = 0.02
    channel = {"kind": "rayleigh", "mean_snr_db": SNR_DB, "coherence_s": coherence_s, "max_spectral_efficiency": cap}
    channel |= {"snr_gap_db": gap_db, "min_snr_db": floor_db}
    scenario = cell(trial, HLM, channel=channel, uplink={"bandwidth_hz": 1e6})
    tokens = committed(run(scenario))
    blocks = round(scenario.duration_s / coherence_s) + 1
    runs = CHANNELS["rayleigh"](stream(scenario.seed, "fading", 0, 0), AHEAD)
    snr = G * np.concatenate([next(runs) for _ in range(-(-blocks // AHEAD))])[:blocks]
    rate = np.where(snr >= 10 ** (floor_db / 10), np.minimum(np.log2(1 + snr / 10 ** (gap_db / 10)), cap), 0.0)
    sent, edges_s = np.concatenate([[0.0], np.cumsum(rate * 1e6 * coherence_s)]), coherence_s * np.arange(blocks + 1)
    began_s = tokens["started_s"] + tokens["device_s"]
    expected = np.interp(np.interp(began_s, edges_s, sent) + tokens["payload_bits"], sent, edges_s)
    ends_s = began_s + tokens["uplink_wait_s"] + tokens["airtime_s"]
    return equals(expected, ends_s, f"{len(tokens):,} uploads, the end of each")


def airtime(trial: Trial) -> Finding:
    """An upload holds its bits over B log2(1 + G) of the band's time, however many share the band and how long."""
    traffic = {"devices": 8, "think_time_s": 1.0, "max_tokens": 40}
    tokens = committed(run(cell(trial, HLM, traffic=traffic, uplink={"bandwidth_hz": 2e6}, duration_s=30.0)))
    expected = tokens["payload_bits"] * UPLOAD_S * BANDWIDTH_HZ / (8 * V * 2e6)
    return equals(expected, tokens["airtime_s"], f"{len(tokens):,} uploads of eight phones, each")


# -- many phones --------------------------------------------------------------------------------------------------

THINK_S, CUT_AT, DRAFT_S = 1.0, 8, 0.02
DEMANDS_S = np.array([2 * UPLOAD_S, 0.012])  # of a token at uplink and GPU, alone


def mean_value_analysis(phones: int) -> float:
    """R_k = D_k (1 + Q_k(n - 1)), X = n / (Z + sum R_k), Q_k = X R_k; return tokens a second.

    Thinks, drafts and downlinks are delays; the uplink is processor sharing and the GPU exponential, in order, so
    the network has product form whatever the law of the answers' lengths: their mean is all that counts.
    """
    scenario = cell(Trial("lengths", 1, 1), HLM)
    policy = ready_policy(0, scenario, answers(), find_names(scenario))
    lengths = [min(tokens, CUT_AT) for _, tokens in Answers.of_scenario(policy, scenario).sizes()]
    tokens = float(np.mean(lengths))
    delay_s = THINK_S + tokens * (DRAFT_S + DOWNLINK_S)
    demands_s, present = tokens * DEMANDS_S, np.zeros(2)
    for n in range(1, phones + 1):
        stay_s = demands_s * (1 + present)
        rate = n / (delay_s + float(stay_s.sum()))
        present = rate * stay_s
    return tokens * rate


def closed_cell(trial: Trial, phones: int) -> Finding:
    """Bits, bandwidth and GPU of the cell that `mean_value_analysis` describes."""
    seconds = 15.0 * trial.size
    scenario = cell(
        trial, HLM,
        duration_s=seconds + 10.0, warmup_s=10.0,
        traffic={"devices": phones, "think_time_s": THINK_S, "max_tokens": CUT_AT},
        device={"slm_token_s": DRAFT_S, "slm_prefill_token_s": 0.0},
        uplink={"bandwidth_hz": BANDWIDTH_HZ / 2},
        base_station={
            "service": {"kind": "uhlm_sim.validation.whole:exponential", "c_s": float(DEMANDS_S[1])},
            "max_batch": 1, "sync": "free",
        },
    )  # fmt: skip
    throughputs = [metrics(scenario, run(scenario, number))["token_throughput"] for number in range(RUNS)]
    return mean_is(mean_value_analysis(phones), throughputs, f"{RUNS} runs of {seconds:g} s")


def response_time_law(trial: Trial) -> Finding:
    """X (Z + R) = N: completions a second times think and response time, of ten phones that share uplink and GPU.

    R is that of the window's completions. An answer takes a tenth of the window, so that a count of those that arrive
    in it, too, would be a tenth short: more trials are more runs, not longer ones.
    """
    phones, think_s, runs = 10, 3.0, RUNS * trial.size
    scenario = cell(
        trial, HLM, duration_s=80.0, warmup_s=40.0, uplink={"bandwidth_hz": 1e6},
        traffic={"devices": phones, "think_time_s": think_s, "max_tokens": CUT_AT},
    )  # fmt: skip
    present = []
    for number in range(runs):
        records = run(scenario, number)
        ended = records.requests[records.requests["finished_s"] >= scenario.warmup_s]
        response_s = float((ended["finished_s"] - ended["arrived_s"]).mean())
        present.append(metrics(scenario, records)["request_throughput"] * (think_s + response_s))
    return mean_is(phones, present, f"{runs} runs of 40 s")


def busy_cell(trial: Trial) -> Scenario:
    return cell(
        trial, U_HLM,
        traffic={"devices": 25, "think_time_s": 1.0, "max_tokens": 40},
        channel={"kind": "rayleigh", "mean_snr_db": 5.0},
        uplink={"bandwidth_hz": 5e6},
        base_station={"gpus": 2, "max_batch": 4},
    )  # fmt: skip


def littles_law(trial: Trial) -> Finding:
    """The stations' own integrals against stays summed over the tokens, clipped to the run: present and GPU time."""
    records = run(busy_cell(trial))
    sent = records.tokens[(records.tokens["decision"] == "send").to_numpy()]
    legs = ["device_s", "uplink_wait_s", "airtime_s", "bs_wait_s", "verify_s"]
    ends_s = np.cumsum(np.column_stack([sent["started_s"], *(sent[leg] for leg in legs)]), axis=1)
    sent_s, received_s, begun_s, done_s = (np.nan_to_num(ends_s[:, n], nan=np.inf) for n in (1, 3, 4, 5))
    end_s = 60.0
    clip = partial(np.minimum, end_s)
    jobs = np.maximum(sent["batch_jobs"].to_numpy(), 1)
    expected = [(clip(b) - clip(a)).sum() for a, b in ((sent_s, received_s), (received_s, done_s))]
    expected.append(((clip(done_s) - clip(begun_s)) / jobs).sum())
    at_end = records.stations[records.stations["at_s"] == end_s].set_index("station")
    counted = [at_end.loc["uplink", "present_s"], at_end.loc["base_station", "present_s"]]
    counted.append(at_end.loc["base_station", "busy_s"])
    how = f"{len(sent):,} uploads of 25 phones over 60 s"
    return equals(np.ones(3), np.array(counted, dtype=np.float64) / expected, how)


def same_run(trial: Trial) -> Finding:
    first, second = (run(busy_cell(trial)).tokens.drop(columns=["decision", "outcome"]) for _ in range(2))
    how = f"{len(first):,} tokens, all columns"
    return equals(first.fillna(-1.0).to_numpy(), second.fillna(-1.0).to_numpy(), how, limit=0.0)


def same_world(trial: Trial) -> Finding:
    """Prompts and thinks hang on (device, request) alone, not on policy and number of phones."""
    traffic = {"devices": 30, "think_time_s": 1.0, "max_tokens": 40}
    worlds = []
    for policy, changes in ((HLM, {}), (LLM, {"traffic": traffic})):
        scenario = cell(trial, policy, traffic=traffic | {"devices": 25})
        scenario = cell(trial, policy, **changes) if changes else scenario
        requests = run(scenario).requests
        finished_s = requests.groupby("device")["finished_s"].shift(fill_value=0.0)
        requests = requests.assign(think_s=requests["arrived_s"] - finished_s).set_index(["device", "request"])
        worlds.append(requests[["prompt", "think_s"]].dropna())
    common = worlds[0].index.intersection(worlds[1].index)
    first, second = (world.loc[common].to_numpy(dtype=np.float64) for world in worlds)
    return equals(first, second, f"prompt and think of {len(common):,} requests, HLM with 25 phones, LLM with 30")


def poisson_requests(trial: Trial) -> Finding:
    traffic = {"kind": "poisson", "devices": 20, "rate_per_s": 0.5, "max_tokens": 1}
    scenario = cell(trial, HLM, traffic=traffic, duration_s=5.0 + 50.0 * trial.size)
    counts = [metrics(scenario, run(scenario, number))["arrival_rate"] for number in range(10)]
    return mean_is(20 * 0.5, counts, f"10 runs of {50 * trial.size} s, 20 phones")


# -- the intervals themselves -------------------------------------------------------------------------------------


def paired_coverage(trial: Trial) -> Finding:
    """Fieller's interval is exact for normal pairs: three pairs that share their world, ratio 1.5."""
    experiments, rng = 4000 * trial.size, trial.rng()
    world = rng.normal(0.0, 0.05, (experiments, 3))
    first = 1.0 + world + rng.normal(0.0, 0.02, (experiments, 3))
    second = 1.5 + 1.3 * world + rng.normal(0.0, 0.03, (experiments, 3))
    _, low, high, _ = paired_ratio(second, first)
    return share_is(0.95, int(((low <= 1.5) & (high >= 1.5)).sum()), experiments, f"{experiments:,} experiments")


def queue_coverage(trial: Trial) -> Finding:
    """Ten runs of 1,500 customers of an M/M/1 at load 0.3 and, twice as fast, at 0.15; Lindley, stationary start."""
    experiments, rng, rate, speeds = 500 * trial.size, trial.rng(), 0.3, np.array([2.0, 1.0])[:, None, None]
    truth = (1 - rate) / (2 - rate)
    wait = np.maximum(-np.log(rng.random((experiments, 10)) / (rate / speeds)) / (speeds - rate), 0.0)
    total = np.zeros_like(wait)
    for _ in range(1500):
        gap, work = rng.standard_exponential((2, experiments, 10))
        wait += work / speeds
        total += wait
        wait = np.maximum(wait - gap / rate, 0.0)
    _, low, high, _ = paired_ratio(total[0], total[1])
    hits = int(((low <= truth) & (high >= truth)).sum())
    return share_is_at_least(0.93, hits, experiments, f"{experiments:,} experiments")


CLOSED_FORM = "adding up the legs"
CLAIMS = (
    Claim("one phone, HLM", "A token of HLM takes SLM, upload, t(n) and downlink; the first one the prompt too",
          CLOSED_FORM, "s", one_phone_hlm),
    Claim("one phone, metrics", "TPOT, TTFT and both token rates of a lone phone are that time and its inverse",
          CLOSED_FORM, "ratio", one_phone_metrics),
    Claim("one phone, billing", "An upload of U-HLM bills 8 V bits and 15 for each id that the LLM hasn't seen",
          "counting positions", "ratio", one_phone_billing),
    Claim("one phone, U-HLM", "A kept token costs the phone alone, a sent one the network for all that was skipped",
          CLOSED_FORM, "s", one_phone_skips),
    Claim("one phone, LLM", "The LLM's own answer: the prompt once, a step a token, one downlink in all",
          CLOSED_FORM, "s", one_phone_llm),
    Claim("network time", "Without costs of sync, U-HLM's network time a token is HLM's times (1 - skip rate)",
          "a kept token uses no network", "s", network_time),
    Claim("own fades", "A lone phone's uploads end as its own fades at 7 dB say: cap, floor, blocks and all",
          "rate integrated block by block", "s", own_fades),
    Claim("gap, floor and cap", "The same with a gap of 3 dB, a floor of 3 dB and a cap of 3 bit/s/Hz",
          "rate integrated block by block", "s", partial(own_fades, gap_db=3.0, floor_db=3.0, cap=3.0)),
    Claim("airtime", "Airtime is the band's time alone, bits / (B log2(1 + g)), however many phones share it",
          "integral of an upload's share", "s", airtime),
    *(
        Claim(f"closed cell, {phones} phones", f"Tokens a second of {phones} phones that share uplink and GPU",
              "exact mean value analysis: Reiser and Lavenberg 1980", "tokens/s",
              partial(closed_cell, phones=phones), curve="closed cell", at=phones)
        for phones in (4, 10, 25)
    ),
    Claim("response time law", "Phones in a closed loop are completions a second times (think + response time)",
          "Denning and Buzen 1978", "phones", response_time_law),
    Claim("Little's law", "Jobs present and GPU time, by the stations' own books, are the sums over the tokens",
          "Little 1961, along the sample path", "ratio", littles_law),
    Claim("same run", "The same seed gives the same run, bit by bit", "named random streams", "any", same_run),
    Claim("same world", "Another policy and five more phones meet the same prompts and thinks",
          "named random streams", "any", same_world),
    Claim("Poisson requests", "Requests come at the rate asked for, however busy the phones",
          "mean of a Poisson process", "1/s", poisson_requests),
    Claim("coverage, normal", "The 95 % interval of a paired ratio holds the truth in 95 % of experiments",
          "Fieller 1954", "1", paired_coverage),
    Claim("coverage, queues", "In queues, whose means are skewed, it holds the truth in at least 93 %",
          "simulated", "1", queue_coverage),
)  # fmt: skip
