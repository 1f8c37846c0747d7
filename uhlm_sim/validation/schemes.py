"""Claims about windows and payloads: published tables, and a measured testbed by the cell's own processes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from uhlm_sim.cell.engine import simulate
from uhlm_sim.cell.phones.policies import ReadyPolicy
from uhlm_sim.cell.phones.schemes import Scheme
from uhlm_sim.cell.phones.windows import best_window, speedup, windowed
from uhlm_sim.settings.policy import Payload
from uhlm_sim.tokens.messages import ids, upload_bits
from uhlm_sim.tokens.tree import AnswerTree, chain
from uhlm_sim.validation.findings import Claim, Finding, Trial, equals, mean_is
from uhlm_sim.validation.whole import HLM, RUNS, V, cell

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
LONGEST = 64

# -- published tables ---------------------------------------------------------------------------------------------

# TK-SLT, arXiv 2509.04576, table I: the best window by acceptance a and relative cost L of a draft, and S there.
DRAFT_COSTS = (0.01, 0.1, 0.2, 0.4, 0.6)
BEST = {0.4: (4, 2, 1, 1, 1), 0.6: (7, 3, 2, 1, 1), 0.8: (14, 6, 4, 2, 1)}
SPEEDUPS = {
    0.4: (1.586, 1.300, 1.167, 1.000, 0.875),
    0.6: (2.297, 1.674, 1.400, 1.143, 1.000),
    0.8: (4.232, 2.470, 1.868, 1.356, 1.125),
}
HALF_A_DIGIT = 0.00051
# UCB-SpecStop, arXiv 2606.20591: a = 0.7, a draft takes 1, a verified position 0.5, one way d.
ACCEPTANCE, DRAFT, VERIFY = 0.7, 1.0, 0.5
DELAYS = (5, 10, 30, 50, 100, 200, 500)
BEST_AT_DELAY = (3, 5, 7, 8, 10, 12, 14)
LEAST_COST = (5.9218, 9.5200, 22.603, 35.169, 65.954, 126.778, 307.912)
CRITICAL_DELAY = {0.5: 3.5, 0.6: 2.3333, 0.7: 1.6020, 0.8: 1.1094, 0.9: 0.7593}
# Quantise and sample, arXiv 2507.00605, V = 50,272: bits of a draft by levels, its id of 16 bits included.
LATTICE = {2: 47, 4: 74, 12: 175, 16: 222, 24: 312, 240: 2209, 720: 5467}


def window_cost(drafts: int, delay: float, acceptance: float) -> float:
    """Return the time of a token in a window, by `speedup`: a visit takes two ways and a verified position beside."""
    visit = 2 * delay + VERIFY
    return visit / float(speedup(np.array(drafts), acceptance, (DRAFT + VERIFY) / visit))


def best_windows(_trial: Trial) -> Finding:
    windows = [best_window(a, cost, LONGEST) for a in BEST for cost in DRAFT_COSTS]
    return equals([g for row in BEST.values() for g in row], windows, "15 windows", limit=0.0)


def speedups(_trial: Trial) -> Finding:
    at_best = [float(speedup(np.array(g), a, cost)) for a in BEST for g, cost in zip(BEST[a], DRAFT_COSTS, strict=True)]
    published = [s for row in SPEEDUPS.values() for s in row]
    return equals(published, at_best, "15 speed-ups, published with 3 digits", limit=HALF_A_DIGIT, scale=1.0)


def windows_over_delay(_trial: Trial) -> Finding:
    costs = [(DRAFT + VERIFY) / (2 * delay + VERIFY) for delay in DELAYS]
    windows = [best_window(ACCEPTANCE, cost, LONGEST) for cost in costs]
    return equals(BEST_AT_DELAY, windows, "7 delays", limit=0.0)


def costs_over_delay(_trial: Trial) -> Finding:
    costs = [window_cost(k, delay, ACCEPTANCE) for k, delay in zip(BEST_AT_DELAY, DELAYS, strict=True)]
    ratio = np.array(costs) / LEAST_COST
    return equals(np.ones(len(ratio)), ratio, "7 delays, published with 5 digits or more", limit=2e-5)


def critical_delays(_trial: Trial) -> Finding:
    """Below the critical delay one draft a visit is best: there two cost as much as one."""

    def gain(delay: float, acceptance: float) -> float:
        return window_cost(1, delay, acceptance) - window_cost(2, delay, acceptance)

    delays = [float(brentq(gain, 0.0, 10.0, args=(a,))) for a in CRITICAL_DELAY]
    return equals(list(CRITICAL_DELAY.values()), delays, "5 acceptances, 4 digits", limit=6e-5, scale=1.0)


def payload_sizes(_trial: Trial) -> Finding:
    """7 lattices with V = 50,272, and CU-HLM's 92,000 and 86.25 bytes with V = 32,000."""
    bits = [upload_bits(Payload(kind="quantised", levels=levels), 50_272, bill="paper") for levels in LATTICE]
    bits += [upload_bits(Payload(kind="top-k", k=k), 32_000, bill="paper") for k in (32_000, 30)]
    published = [*LATTICE.values(), 8 * 92_000, 8 * 86.25]
    return equals(np.ones(9), np.array(bits) / published, "9 sizes, to the bit", limit=0.0)


# -- windows in the cell ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Flagged:
    """One answer whose drafts are accepted or not as `accepted` says, position by position."""

    accepted: Flags
    prompts: int = 1
    samples: int = 1
    vocabulary_size: int = V
    uncertainty_samples: int = 20

    def tree(self, prompt: int, sample: int) -> AnswerTree:
        """Return the answer."""
        count = len(self.accepted)
        tokens, none, coins = np.zeros(count, dtype=np.int32), np.zeros(count), np.full(count, 0.5)
        return chain(
            prompt, sample, 1, verdict=tokens, draft=tokens, uncertainty=none, x_draft=np.ones(count),
            y_draft=self.accepted.astype(np.float64), accept_coin=coins, skip_coin=coins, entropy=none,
            top1_probability=none, second_probability=none, tail_mass=np.empty((count, 0)),
            uncertainty_samples=self.uncertainty_samples, vocabulary_size=self.vocabulary_size,
        )  # fmt: skip


ID_BITS = 15 + 8
BITS_PER_S = 1e9 * np.log2(1 + 10**0.7)  # of the cell below: an id takes nanoseconds


def seconds_a_token(
    trial: Trial, accepted: Flags, drafts: int, *, draft_s: float, verify_s: float, one_way_s: float
) -> float:
    """Let one phone answer once by windows of so many drafts, each position verified in `verify_s`."""
    tokens = len(accepted)
    scenario = cell(
        trial, HLM,
        duration_s=tokens * ((draft_s + verify_s) * (drafts + 1) + 2 * one_way_s), warmup_s=0.0,
        traffic={"devices": 1, "think_time_s": 1.0, "max_tokens": tokens},
        device={"slm_token_s": draft_s, "slm_prefill_token_s": 0.0},
        uplink={"bandwidth_hz": 1e9, "access_s": one_way_s},
        base_station={
            "service": {"c_s": verify_s, "s_s_per_token": verify_s, "free_tokens": 1},
            "sync": "free", "downlink_s": one_way_s,
        },
    )  # fmt: skip
    scheme = Scheme(
        rounds=partial(windowed, drafts=drafts, bonus=True), message=partial(ids, bits=ID_BITS, refusal_bits=0.0)
    )
    request = simulate(scenario, ReadyPolicy("window", "hlm", Flagged(accepted), scheme=scheme), 0).requests.iloc[0]
    return float((request["finished_s"] - request["arrived_s"]) / request["tokens"])


def as_flags(lengths: Sequence[int], drafts: int) -> Flags:
    """Return the flags of rounds that accept so many drafts each, `drafts` at most; one token more ends each."""
    return np.concatenate([np.r_[np.ones(min(length, drafts), dtype=bool), False] for length in lengths])


def simulated_window(trial: Trial, delay: float) -> Finding:
    """Tokens a second, with 10 ms for a draft: every visit takes as long, so their mean has no bias."""
    place, unit_s, rounds = DELAYS.index(delay), 0.01, 60 * trial.size
    drafts = BEST_AT_DELAY[place]
    times_s = {"draft_s": unit_s * DRAFT, "verify_s": unit_s * VERIFY, "one_way_s": unit_s * delay}
    rates = []
    for run in range(RUNS):
        lengths = trial.rng(run).geometric(1 - ACCEPTANCE, rounds) - 1
        flags = as_flags([*lengths.tolist(), drafts], drafts)
        rates.append(1 / seconds_a_token(trial, flags, drafts, **times_s))
    # The last visit accepts all: one cut short by the answer's end would take less time than the others.
    visit = drafts * (DRAFT + VERIFY) + 2 * delay + VERIFY
    theory = (rounds / LEAST_COST[place] + (drafts + 1) / visit) / (rounds + 1) / unit_s
    return mean_is(theory, rates, f"{RUNS} runs of {rounds} visits of {drafts} drafts")


# UCB-SpecStop's testbed (Qwen2.5-0.5B on a Jetson Orin Nano, Qwen2.5-7B on an RTX 3090), measured: P(L >= k) of the
# drafts accepted in a row; by window the seconds of a draft and of a verified position; effective one-way delays; and
# seconds a token by window and delay.
ACCEPTED = (0.462, 0.328, 0.256, 0.214, 0.188, 0.166, 0.144, 0.110, 0.088, 0.082)
DRAFT_S = {1: 0.10625, 2: 0.09206, 3: 0.08401, 5: 0.07946, 7: 0.07536, 10: 0.07370}
VERIFY_S = {1: 0.01656, 2: 0.01097, 3: 0.00829, 5: 0.00550, 7: 0.00417, 10: 0.00306}
ONE_WAY_S = (0.02655, 0.06187, 0.11828, 0.15744)
MEASURED_S = {
    1: (0.1398, 0.1903, 0.2684, 0.3212),
    2: (0.1486, 0.1973, 0.2674, 0.3023),
    3: (0.1622, 0.2072, 0.2699, 0.2970),
    5: (0.1954, 0.2341, 0.2868, 0.3045),
    7: (0.2276, 0.2657, 0.3114, 0.3231),
    10: (0.2775, 0.3197, 0.3553, 0.3671),
}
ROUNDS = 500  # half of those measured, and whole numbers for each P(L >= k)


def testbed(trial: Trial) -> Floats:
    """Return the seconds a token of all windows (a row each) and delays, with rounds in exactly those proportions."""
    reached = np.rint(ROUNDS * np.array([1.0, *ACCEPTED])).astype(int)
    lengths = np.repeat(np.arange(len(reached)), reached - np.r_[reached[1:], 0])
    lengths[:-1] = trial.rng("lengths").permutation(lengths[:-1])  # the last, a long one, isn't cut by the answer's end
    return np.array(
        [
            [
                seconds_a_token(
                    trial, as_flags(lengths.tolist(), k), k,
                    draft_s=DRAFT_S[k], verify_s=VERIFY_S[k], one_way_s=one_way_s,
                )
                for one_way_s in ONE_WAY_S
            ]
            for k in MEASURED_S
        ]
    )  # fmt: skip


def testbed_in_closed_form(trial: Trial) -> Finding:
    """(k c_d + 2 d + (k + 1) c_v) / (1 + sum_{j <= k} P(L >= j)), and the nanoseconds of k ids on the air."""
    expected = [
        (k * DRAFT_S[k] + 2 * np.array(ONE_WAY_S) + (k + 1) * VERIFY_S[k] + k * ID_BITS / BITS_PER_S)
        / (1 + sum(ACCEPTED[:k]))
        for k in MEASURED_S
    ]
    return equals(expected, testbed(trial), "6 windows at 4 delays, 500 visits each")


def testbed_as_measured(trial: Trial) -> Finding:
    ratio = testbed(trial) / list(MEASURED_S.values())
    return equals(np.ones(ratio.shape), ratio, "6 windows at 4 delays, 500 visits each", limit=0.08)


TK_SLT, SPEC_STOP = "TK-SLT, arXiv 2509.04576, table I", "UCB-SpecStop, arXiv 2606.20591"
CLAIMS = (
    Claim("best windows", "The window that a formula calls best is the published one, three acceptances, five costs",
          TK_SLT, "drafts", best_windows),
    Claim("speed-ups", "Its speed-up over the LLM alone is the published one", TK_SLT, "ratio", speedups),
    Claim("windows over delay", "The best window grows with the delay as published", f"{SPEC_STOP}, simulation table",
          "drafts", windows_over_delay),
    Claim("costs over delay", "So does the least time of a token", f"{SPEC_STOP}, simulation table", "ratio",
          costs_over_delay),
    Claim("critical delays", "Below the published delays one draft a visit is best", SPEC_STOP, "draft",
          critical_delays),
    *(
        Claim(f"window, delay {delay}", f"Windows of {k} drafts commit as many tokens a second as published",
              f"{SPEC_STOP}, simulation table", "tokens/s", partial(simulated_window, delay=delay))
        for k, delay in zip(BEST_AT_DELAY, DELAYS, strict=True)
    ),
    Claim("payload sizes", "Uploads of a lattice, of all entries and of 30 have the published bits",
          "arXiv 2507.00605 (quantise and sample), 2505.11788 (CU-HLM)", "ratio", payload_sizes),
    Claim("testbed, closed form", "Windows with a testbed's measured legs take what these add up to",
          "adding up the legs", "s", testbed_in_closed_form),
    Claim("testbed, measured", "They take what was measured there, within 8 % at all of 24 settings",
          f"{SPEC_STOP}, testbed", "ratio", testbed_as_measured),
)  # fmt: skip
