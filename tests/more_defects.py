"""More defects, of the kinds that the validation once let pass: limits, coins, streams, measures and windows."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from defects import Floats, Patch, defect

import channel_models.geometry
import uhlm_sim.cell.engine
import uhlm_sim.cell.radio.fading
from uhlm_sim.analysis.measures import formulas, intervals, metrics
from uhlm_sim.analysis.measures.window import Window
from uhlm_sim.cell.jobs import Job
from uhlm_sim.cell.phones import arrivals, population, windows
from uhlm_sim.cell.phones.phone import Phone
from uhlm_sim.cell.phones.policies import payload_costs
from uhlm_sim.cell.phones.population import Who
from uhlm_sim.cell.phones.rounds import Walk
from uhlm_sim.cell.radio import setup
from uhlm_sim.cell.radio.allocators import ALLOCATORS
from uhlm_sim.cell.radio.virtual_time import VirtualTime
from uhlm_sim.scenario import Scenario, Service
from uhlm_sim.tokens import gates, messages, speculative, synthetic
from uhlm_sim.validation import schemes


def other_rates(patch: Patch, change: Callable[[Scenario], dict[str, float]]) -> None:
    """Read some of the rate law's numbers otherwise."""
    honest = uhlm_sim.cell.radio.fading.rate_law_of
    law_of = lambda scenario: replace(honest(scenario), **change(scenario))  # noqa: E731
    patch.setattr(uhlm_sim.cell.radio.fading, "rate_law_of", law_of)


# -- the cell ------------------------------------------------------------------------------------------------------


@defect(caught_by={"gap, floor and cap"}, missed_by={"own fades"})
def the_gap_is_no_decibels(patch: Patch) -> None:
    other_rates(patch, lambda scenario: {"snr_gap": scenario.channel.snr_gap_db or 1.0})


@defect(caught_by={"gap, floor and cap"})
def the_floor_is_no_decibels(patch: Patch) -> None:
    other_rates(patch, lambda scenario: {"min_snr": scenario.channel.min_snr_db})


@defect(caught_by={"gap, floor and cap"})
def there_is_no_cap(patch: Patch) -> None:
    other_rates(patch, lambda _: {"max_spectral_efficiency": np.inf})


@defect(caught_by={"own fades apart"}, missed_by={"own fades"})
def all_phones_fade_alike(patch: Patch) -> None:
    honest = Who.stream

    def common(self: Who, seed: int, purpose: str, replication: int, *more: int) -> np.random.Generator:
        who = replace(self, name=(0,)) if purpose == "fading" else self
        return honest(who, seed, purpose, replication, *more)

    patch.setattr(population.Who, "stream", common)


@defect(caught_by={"same world"}, missed_by={"same run"})
def a_think_hangs_on_what_the_llm_said(patch: Patch) -> None:
    """Another verdict frees the phone at another time: its last bit decides whether a draw is thrown away."""

    def spoiled(scenario: Scenario, rng: np.random.Generator) -> Callable[[float], float]:
        def think(free_s: float) -> float:
            if int(free_s * 1e6) % 2:
                rng.standard_exponential()
            return free_s + scenario.traffic.think_time_s * rng.standard_exponential()

        vars(think)["closed_loop"] = True
        return think

    vars(spoiled)["closed_loop"] = True
    patch.setitem(arrivals.ARRIVALS, "closed", spoiled)


@defect(caught_by={"airtime"}, missed_by={"one phone, HLM"})
def airtime_counts_the_share_twice(patch: Patch) -> None:
    """A lone phone has the whole band, whose square is itself; the laws of a run with several break too."""
    honest = VirtualTime._end

    def squared(self: VirtualTime, device: int) -> Job:
        job = honest(self, device)
        stay_s = self._settled_s - job.sent_s
        job.airtime_s = job.airtime_s**2 / stay_s if stay_s > 0 else 0.0
        return job

    patch.setattr(VirtualTime, "_end", squared)


@defect(caught_by={"one phone, U-HLM"}, missed_by={"one phone, HLM"})
def uncertainty_costs_nothing(patch: Patch) -> None:
    def cheap(scenario: Scenario, vocabulary_size: int) -> Any:
        return replace(payload_costs(scenario, vocabulary_size), uncertainty_s=0.0)

    patch.setattr(uhlm_sim.cell.engine, "payload_costs", cheap)


@defect(caught_by={"one phone, HLM", "one phone, LLM"}, missed_by={"one phone, billing"})
def one_token_fewer_is_free(patch: Patch) -> None:
    honest = Service.seconds
    patch.setattr(Service, "seconds", lambda self, n: honest(self, n + 1 if n > 1 else n))


@defect(caught_by={"weights"})
def a_weight_counts_squared(patch: Patch) -> None:
    honest = ALLOCATORS["weighted"]
    squared = lambda left_bits, snr, *, weight: honest(left_bits, snr, weight=weight**2)  # noqa: E731
    patch.setitem(ALLOCATORS, "weighted", squared)


@defect(caught_by={"places"}, missed_by={"path loss"})
def phones_are_dropped_evenly_by_radius(patch: Patch) -> None:
    def crowded(rng: np.random.Generator, count: int, radius_m: float, _shape: str) -> tuple[Floats, Floats]:
        far_m, angle = radius_m * rng.random(count), 2 * np.pi * rng.random(count)
        return far_m * np.cos(angle), far_m * np.sin(angle)

    patch.setattr(channel_models.geometry, "_places", crowded)


@defect(caught_by={"one phone, downlink"}, missed_by={"shared downlink"})
def the_downlink_is_worse_by_its_offset(patch: Patch) -> None:
    patch.setattr(setup, "downlink_snr_db", lambda scenario, snr_db: snr_db - scenario.downlink.snr_offset_db)


@defect(caught_by={"a phone's queue"}, missed_by={"Poisson requests"})
def a_request_arrives_when_its_phone_begins(patch: Patch) -> None:
    honest = Phone._begin

    def late(self: Phone, free_s: float) -> Any:
        arrival, self._next_arrival = self._next_arrival, lambda at_s: max(arrival(at_s), at_s)
        try:
            return honest(self, free_s)
        finally:
            self._next_arrival = arrival

    patch.setattr(Phone, "_begin", late)


# -- tokens --------------------------------------------------------------------------------------------------------


@defect(caught_by={"skips on the grid"}, missed_by={"thresholds"})
def a_token_at_its_threshold_is_sent(patch: Patch) -> None:
    honest = gates.grid_level
    patch.setattr(gates, "grid_level", lambda threshold, samples: honest(threshold, samples) - 1)


@defect(caught_by={"output law, opposed"}, missed_by={"acceptance, opposed"})
def one_coin_refuses_and_replaces(patch: Patch) -> None:
    honest = speculative.accept_or_resample
    patch.setattr(speculative, "accept_or_resample", lambda x, y, draft, coin, _: honest(x, y, draft, coin, coin))


@defect(caught_by={"uncertainty law"})
def u_counts_the_samples_that_agree(patch: Patch) -> None:
    honest = speculative.uncertainty_level
    agree = lambda logits, draft, thetas, uniforms: thetas.shape[-1] - honest(logits, draft, thetas, uniforms)  # noqa: E731
    patch.setattr(speculative, "uncertainty_level", agree)


@defect(caught_by={"random skips"}, missed_by={"skips on the grid"})
def one_coin_skips_and_accepts(patch: Patch) -> None:
    honest = synthetic.answer_draws

    def alike(*arguments: Any) -> Any:
        draws = honest(*arguments)
        return replace(draws, skip=draws.coin)

    patch.setattr(synthetic, "answer_draws", alike)


@defect(caught_by={"thresholds"})
def a_tie_counts_as_a_rejection(patch: Patch) -> None:
    honest = speculative.fit_law

    def lax(u: Any, x: Any, y: Any) -> Any:
        return replace(honest(u, x, y), delta=float((np.asarray(y) <= np.asarray(x)).mean()))

    patch.setattr(speculative, "fit_law", lax)


# -- measures ------------------------------------------------------------------------------------------------------


@defect(caught_by={"response time law", "measures by hand"})
def completions_are_those_that_arrived_in_the_window_too(patch: Patch) -> None:
    honest = Window.completed.func  # type: ignore[attr-defined]
    both = cached_property(lambda self: honest(self) & self.arrived)
    both.__set_name__(Window, "completed")
    patch.setattr(Window, "completed", both)


@defect(caught_by={"coverage, normal"}, missed_by={"coverage, queues"})
def an_interval_has_a_degree_of_freedom_more(patch: Patch) -> None:
    honest = intervals._quantile
    patch.setattr(intervals, "_quantile", lambda count, level: honest(count + 1, level))


@defect(caught_by={"one phone, metrics"})
def tpot_is_over_all_tokens(patch: Patch) -> None:
    honest = Window._pace_s.func  # type: ignore[attr-defined]

    def slow(self: Window) -> Floats:
        count = self.requests["tokens"].to_numpy(dtype=np.float64)
        return honest(self) * (count - 1) / count  # type: ignore[no-any-return]

    patched = cached_property(slow)
    patched.__set_name__(Window, "_pace_s")
    patch.setattr(Window, "_pace_s", patched)


@defect(caught_by={"measures by hand"}, missed_by={"one phone, metrics"})
def percentiles_are_of_the_lower_neighbour(patch: Patch) -> None:
    def lower(window: Window) -> float:
        return float(np.percentile(window.delay_s, 95, method="lower"))

    rows = tuple(replace(row, measure=lower) if row.name == "token_delay_s.p95" else row for row in metrics._ROWS)
    patch.setattr(metrics, "_ROWS", rows)


@defect(caught_by={"measures by hand"})
def goodput_looks_at_the_first_token_alone(patch: Patch) -> None:
    def hasty(window: Window) -> float:
        return formulas.goodput(replace(window, slo={"ttft_s": window.slo["ttft_s"]}))

    rows = tuple(replace(row, measure=hasty) if row.name == "goodput" else row for row in metrics._ROWS)
    patch.setattr(metrics, "_ROWS", rows)


@defect(caught_by={"measures by hand"}, missed_by={"coverage, queues"})
def a_ratio_is_the_mean_of_ratios(patch: Patch) -> None:
    from uhlm_sim.validation import traffic

    honest = intervals.paired_ratio

    def mean_of_ratios(x: Any, y: Any, level: float = 0.95) -> Any:
        ratio, low, high, count = honest(x, y, level)
        other = np.mean(np.asarray(x) / np.asarray(y), axis=-1)
        return other, low - ratio + other, high - ratio + other, count

    patch.setattr(traffic, "paired_ratio", mean_of_ratios)


@defect(caught_by={"testbed, closed form", "testbed, measured", "window, delay 10"}, missed_by={"best windows"})
def a_window_forgets_its_bonus_token(patch: Patch) -> None:
    honest = Walk.send
    patch.setattr(Walk, "send", lambda self, drafts=1, **_: honest(self, drafts))


@defect(caught_by={"testbed, closed form", "window, delay 10"}, missed_by={"payload sizes"})
def an_upload_waits_for_no_grant(patch: Patch) -> None:
    patch.setattr(uhlm_sim.cell.engine, "after_access", lambda _env, _access_s, send: send)


@defect(
    caught_by={"best windows", "speed-ups", "windows over delay", "costs over delay"},
    missed_by={"testbed, closed form"},
)
def a_speed_up_forgets_the_token_that_follows_the_drafts(patch: Patch) -> None:
    def short(drafts: Any, acceptance: float, draft_cost: float) -> Any:
        return (1 - acceptance**drafts) / (1 - acceptance) / (1 + drafts * draft_cost)

    patch.setattr(windows, "speedup", short)
    patch.setattr(schemes, "speedup", short)


@defect(caught_by={"payload sizes"}, missed_by={"speed-ups"})
def a_lattice_counts_as_many_points_as_levels_have_powers(patch: Patch) -> None:
    patch.setattr(messages, "lattice_bits", lambda size, levels: math.ceil(levels * math.log2(size)))
