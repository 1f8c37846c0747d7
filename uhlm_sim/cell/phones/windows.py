"""Windows: rounds with several drafts a visit, their number fixed, best by a formula, or learnt while the cell runs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from math import log, sqrt

import numpy as np
from numpy.typing import NDArray

from channel_models.link import db_to_linear, spectral_efficiency
from uhlm_sim.cell.phones.rounds import Cell, Round, Walk
from uhlm_sim.cell.phones.schemes import Scheme
from uhlm_sim.errors import ScenarioError
from uhlm_sim.scenario import Policy, Scenario

LONGEST_WINDOW = 16  # drafts, where a formula or a learner chooses


def with_windows(scheme: Scheme, policy: Policy, best: Callable[[int], int]) -> Scheme:
    """Return a scheme that sends the windows of its policy; `best(most)` is the one that a formula calls best."""
    drafts, most, bonus = policy.draft_tokens or 1, policy.max_draft_tokens or LONGEST_WINDOW, policy.has_bonus
    if drafts == "confident":
        return replace(scheme, rounds=partial(confident, most=most, bonus=bonus))
    if drafts == "learnt":
        return replace(scheme, rounds=partial(learnt, most=most, bonus=bonus), looks_at_cell=True)
    return replace(scheme, rounds=partial(windowed, drafts=best(most) if drafts == "best" else drafts, bonus=bonus))


def windowed(walk: Walk, *, drafts: int, bonus: bool) -> Iterator[Round]:
    """Keep the drafts that the gate keeps; at the first other one, send a window of up to `drafts` of them together."""
    while walk.left:
        sure = walk.sure
        yield walk.keep(sure) if sure else walk.send(drafts, bonus=bonus)


def confident(walk: Walk, *, most: int, bonus: bool) -> Iterator[Round]:
    """Send windows that end with the first draft of too much doubt, or after `most` (SLED, arXiv 2506.09397)."""
    while walk.left:
        yield walk.send(min(walk.confident + 1, most), bonus=bonus)


def learnt(walk: Walk, cell: Cell, *, most: int, bonus: bool) -> Iterator[Round]:
    """Send windows of the length that costs least a token, as far as this phone has seen; see `Learner`."""
    learner = cell.memory.setdefault("windows", Learner(most))
    while walk.left:
        sure = walk.sure
        if sure:
            yield walk.keep(sure)
            continue
        drafts = learner.choose()
        began_s = cell.now_s
        visit = walk.send(drafts, bonus=bonus)
        yield visit
        learner.see(drafts, cell.now_s - began_s, visit.committed)


def speedup(drafts: NDArray[np.integer], acceptance: float, draft_cost: float) -> NDArray[np.float64]:
    """Return S(g) = (1 - a^(g+1)) / ((1 - a) (1 + g L)), tokens of a window of g drafts for each of the LLM alone.

    a is the probability that a draft is accepted, independently, and L = `draft_cost` what drafting and sending it
    takes in units of what a visit takes without (TK-SLT, arXiv 2509.04576). At a = 1 the sum is g + 1.
    """
    window = np.asarray(drafts, dtype=np.float64)
    committed = window + 1 if acceptance == 1.0 else (1 - acceptance ** (window + 1)) / (1 - acceptance)
    return np.asarray(committed / (1 + window * draft_cost))


def best_window(acceptance: float, draft_cost: float, most: int) -> int:
    """Return the g in 1..most with the largest `speedup`; of equal ones the least."""
    return 1 + int(np.argmax(speedup(np.arange(1, most + 1), acceptance, draft_cost)))


def draft_cost(scenario: Scenario, draft_s: float, bits: float, key: str) -> float:
    """Return L of `speedup`: the seconds to draft and upload over those that a visit takes beside.

    An upload is alone, at the mean SNR. A visit takes an access to the uplink, a step of the GPU and the downlink.
    Waiting is left out. Raises ScenarioError, naming the policy `key`, where phones have no mean SNR in common.
    """
    channel, uplink, station = scenario.channel, scenario.uplink, scenario.base_station
    if channel.geometry is not None:
        raise ScenarioError(f"{key}.draft_tokens = 'best': needs channel.mean_snr_db, and geometry has no single one")
    efficiency = spectral_efficiency(
        db_to_linear(channel.mean_snr_db),
        snr_gap=float(db_to_linear(channel.snr_gap_db)),
        max_spectral_efficiency=channel.max_spectral_efficiency,
    )
    upload_s = bits / (uplink.bandwidth_hz * float(np.mean(efficiency)))
    return (draft_s + upload_s) / (uplink.access_s + station.service.least_s + station.downlink_s)


@dataclass
class Learner:
    """Learns the window of 1..`most` drafts that takes the least time a token.

    The time a token of window g is sum(t) / sum(n) over its visits so far, seconds over tokens: their ratio, which a
    mean of ratios would bias. The next window is the one with the least lower confidence bound, sum(t) / sum(n) -
    s sqrt(2 ln N / m) / mean(n), with m of all N visits and s the spread of t - (sum(t) / sum(n)) n over them (after
    UCB-SpecStop, arXiv 2606.20591). Each window is tried twice first, the shortest before the others.
    """

    most: int
    _sums: dict[int, NDArray[np.float64]] = field(default_factory=dict)  # visits, t, n, t t, t n, n n

    def choose(self) -> int:
        """Return the drafts of the next window."""
        for drafts in range(1, self.most + 1):
            if drafts not in self._sums or self._sums[drafts][0] < 2:
                return drafts
        visits = sum(sums[0] for sums in self._sums.values())
        return min(self._sums, key=lambda drafts: self._bound(drafts, visits))

    def see(self, drafts: int, seconds: float, tokens: int) -> None:
        """Take in that a visit of so many drafts took so long and committed so many tokens."""
        seen = np.array([1, seconds, tokens, seconds**2, seconds * tokens, tokens**2])
        self._sums[drafts] = self._sums.get(drafts, 0) + seen

    def _bound(self, drafts: int, visits: float) -> float:
        count, seconds, tokens, seconds_2, both, tokens_2 = self._sums[drafts].tolist()
        ratio = seconds / tokens
        variance = max(seconds_2 - 2 * ratio * both + ratio**2 * tokens_2, 0.0) / count
        return float(ratio - sqrt(2 * log(visits) * variance / count) / (tokens / count))
