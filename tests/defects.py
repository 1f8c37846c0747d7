"""Defects of a simulator, each with the rows of the validation that must catch it and some that need not."""

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import simpy
from numpy.typing import NDArray
from scipy import stats

import channel_models
import uhlm_sim.cell.engine
import uhlm_sim.cell.gpus.line
import uhlm_sim.cell.radio.downlink
import uhlm_sim.cell.radio.fading
from uhlm_sim.analysis.measures import energy, intervals
from uhlm_sim.cell.gpus import chunks
from uhlm_sim.cell.gpus.base_station import BaseStation
from uhlm_sim.cell.gpus.batching import BATCH_RULES, ORDERS
from uhlm_sim.cell.gpus.kv_cache import KvCache
from uhlm_sim.cell.jobs import Job
from uhlm_sim.cell.phones import arrivals, population
from uhlm_sim.cell.phones.policies import payload_costs
from uhlm_sim.cell.phones.population import Who
from uhlm_sim.cell.radio.adaptive_uplink import SNR, AdaptiveUplink
from uhlm_sim.cell.radio.air import Air
from uhlm_sim.cell.radio.allocators import ALLOCATORS
from uhlm_sim.cell.radio.uplink import Uplink
from uhlm_sim.scenario import Scenario, Service
from uhlm_sim.tokens import speculative
from uhlm_sim.validation import drive, traffic

Floats = NDArray[np.float64]
Patch = pytest.MonkeyPatch
DEFECTS: dict[str, tuple[Callable[[Patch], None], set[str], set[str]]] = {}


def defect(*, caught_by: set[str], missed_by: set[str] = frozenset()) -> Callable[..., Any]:  # type: ignore[assignment]
    """Note a defect, the rows that must catch it, and some that it doesn't concern."""

    def note(plant: Callable[[Patch], None]) -> Callable[[Patch], None]:
        DEFECTS[plant.__name__] = (plant, caught_by, missed_by)
        return plant

    return note


@defect(
    caught_by={"sharing constant, load 0.7", "sharing by size", "closed sharing hyper-exponential, per-hertz"},
    missed_by={"sharing exponential, load 0.6"},
)
def uploads_queue_instead_of_sharing(patch: Patch) -> None:
    """With exponential sizes the mean doesn't tell: M/M/1 is as long as processor sharing. Other sizes do."""

    class InOrder(Uplink):
        def __init__(self, env: simpy.Environment, *, deliver: Callable[[Job], None], **options: Any) -> None:
            self._waiting: deque[Job] = deque()

            def deliver_and_go_on(job: Job) -> None:
                self._waiting.popleft()
                if self._waiting:
                    super(InOrder, self).send(self._waiting[0])
                deliver(job)

            super().__init__(env, deliver=deliver_and_go_on, **options)

        def send(self, job: Job) -> None:
            self._waiting.append(job)
            if len(self._waiting) == 1:
                super().send(job)

    patch.setattr(drive, "Uplink", InOrder)


@defect(
    caught_by={"closed sharing exponential, power-limited", "closed sharing hyper-exponential, power-limited"},
    missed_by={"closed sharing constant, per-hertz"},
)
def power_is_spread_over_the_whole_band(patch: Patch) -> None:
    honest = Air.efficiency
    patch.setattr(Air, "efficiency", lambda self, _share=1.0: honest(self))


@defect(caught_by={"fair shares"}, missed_by={"best channel"})
def proportional_fair_forgets_the_phones_own_means(patch: Patch) -> None:
    patch.setitem(ALLOCATORS, "proportional-fair", ALLOCATORS["max-rate"])


@defect(
    caught_by={"output law, alike", "output law, opposed", "acceptance, opposed", "committed law"},
    missed_by={"equal and disjoint"},
)
def drafts_are_accepted_a_little_too_willingly(patch: Patch) -> None:
    honest = speculative.accept_probability
    patch.setattr(speculative, "accept_probability", lambda x, y: honest(x, y) ** 0.9)


@defect(caught_by={"output law, opposed", "output law, blind", "committed law", "residual", "distribution error"},
        missed_by={"acceptance, opposed"})  # fmt: skip
def a_rejected_draft_is_replaced_from_y(patch: Patch) -> None:
    patch.setattr(speculative, "residual", lambda _x, y: y)


@defect(caught_by={"uncertainty law"}, missed_by={"uncertainty limits"})
def temperatures_go_to_one_only(patch: Patch) -> None:
    patch.setattr(speculative, "THETA_LIMIT", 1.0)


@defect(caught_by={"thresholds"})
def the_threshold_forgets_the_offset(patch: Patch) -> None:
    patch.setattr(speculative.LinearLaw, "risk_prone", property(lambda law: law.delta / law.a))


@defect(caught_by={"mean rate", "outage", "delay in one block", "rate over many blocks"}, missed_by={"rician outage"})
def fading_is_a_quarter_too_strong(patch: Patch) -> None:
    def stronger(rng: np.random.Generator, size: int) -> Any:
        for gains in channel_models.rayleigh(rng, size):
            yield 1.25 * gains

    patch.setitem(channel_models.CHANNELS, "rayleigh", stronger)


@defect(caught_by={"one phone, HLM", "one phone, LLM", "own fades", "closed cell, 10 phones"}, missed_by={"outage"})
def decibels_are_taken_as_those_of_an_amplitude(patch: Patch) -> None:
    patch.setattr(uhlm_sim.cell.radio.fading, "db_to_linear", lambda value_db: 10.0 ** (np.asarray(value_db) / 20.0))


@defect(
    caught_by={"one phone, HLM", "one phone, U-HLM", "one phone, LLM", "one phone, metrics"},
    missed_by={"network time", "one phone, billing"},
)
def service_is_in_milliseconds(patch: Patch) -> None:
    honest = Service.seconds
    patch.setattr(Service, "seconds", lambda self, n: 1e3 * honest(self, n))


@defect(caught_by={"batches", "M/M/1, load 0.6", "M/D/1, load 0.6"}, missed_by={"one phone, HLM"})
def a_batch_takes_one_job_too_many(patch: Patch) -> None:
    honest = BaseStation.__init__

    def lax(self: BaseStation, env: simpy.Environment, *, max_batch: int = 1, **station: Any) -> None:
        honest(self, env, max_batch=max_batch + 1, **station)

    patch.setattr(BaseStation, "__init__", lax)


@defect(caught_by={"M/M/1 tail", "batches"}, missed_by={"M/M/1, load 0.6", "machine repair, 1 GPU"})
def the_last_to_come_is_served_first(patch: Patch) -> None:
    """No mean tells, as the order doesn't look at the service time; the tail of the waits does."""

    class Stack(deque):  # type: ignore[type-arg]
        def popleft(self) -> Any:
            return self.pop()

    patch.setattr(uhlm_sim.cell.gpus.line, "deque", Stack)


@defect(caught_by={"least batch or patience"}, missed_by={"least batch"})
def patience_is_a_tenth_too_long(patch: Patch) -> None:
    honest = BATCH_RULES["wait"]
    patch.setitem(
        BATCH_RULES, "wait", lambda *args, max_wait_s, **least: honest(*args, max_wait_s=1.1 * max_wait_s, **least)
    )


@defect(caught_by={"join the shortest"}, missed_by={"M/M/3"})
def a_job_joins_the_next_queue_in_turn(patch: Patch) -> None:
    patch.setattr(BaseStation, "_join", lambda self, device: self._lines[device % len(self._lines)])


@defect(caught_by={"chunks"}, missed_by={"batches"})
def a_chunk_is_dealt_out_in_order(patch: Patch) -> None:
    """One token for everybody, and all else to the first: prompts hold up whoever comes after them."""

    def greedy(left: Any, chunk_tokens: int) -> list[int]:
        taken = [1] * len(left)
        for place, tokens in enumerate(left):
            taken[place] += min(tokens - 1, chunk_tokens - sum(taken))
        return taken

    patch.setattr(chunks, "pieces", greedy)


@defect(caught_by={"limited memory"}, missed_by={"batches"})
def the_request_used_last_is_evicted_first(patch: Patch) -> None:
    class Backwards(dict):  # type: ignore[type-arg]
        def items(self) -> Any:
            return reversed(super().items())

    honest = KvCache.__init__

    def backwards(self: KvCache, capacity_tokens: int, counters: Any) -> None:
        honest(self, capacity_tokens, counters)
        self._tokens = Backwards()

    patch.setattr(KvCache, "__init__", backwards)


@defect(caught_by={"shortest work"}, missed_by={"M/D/1, load 0.6"})
def the_most_work_goes_first(patch: Patch) -> None:
    patch.setitem(ORDERS, "shortest-work", lambda job: -job.llm_tokens)


@defect(caught_by={"blocks", "own fades"}, missed_by={"rate over many blocks", "conservation"})
def a_block_ends_one_block_late(patch: Patch) -> None:
    honest = Air.enter
    patch.setattr(Air, "enter", lambda self, block: honest(self, max(block - 1, 0)))


@defect(
    caught_by={"one phone, billing", "one phone, HLM", "one phone, U-HLM", "one phone, LLM"},
    missed_by={"network time"},
)
def an_id_is_billed_a_bit_short(patch: Patch) -> None:
    def short(scenario: Scenario, vocabulary_size: int) -> Any:
        costs = payload_costs(scenario, vocabulary_size)
        return replace(costs, id_bits=costs.id_bits - 1)

    patch.setattr(uhlm_sim.cell.engine, "payload_costs", short)


@defect(caught_by={"closed cell, 4 phones", "closed cell, 10 phones"}, missed_by={"one phone, HLM", "same world"})
def phones_think_a_fifth_longer(patch: Patch) -> None:
    def slow(scenario: Scenario, rng: np.random.Generator) -> Callable[[float], float]:
        return lambda free_s: free_s + 1.2 * scenario.traffic.think_time_s * rng.standard_exponential()

    patch.setitem(arrivals.ARRIVALS, "closed", slow)


@defect(caught_by={"same run", "same world"}, missed_by={"one phone, HLM"})
def random_numbers_are_drawn_in_order_of_creation(patch: Patch) -> None:
    one = np.random.default_rng(1)
    patch.setattr(population, "stream", lambda _seed, *_name: one)


@defect(caught_by={"Little's law", "same run"})
def a_station_counts_a_hundredth_too_much(patch: Patch) -> None:
    """The run breaks off by itself, and the claim says why."""
    honest = uhlm_sim.cell.engine.station_row

    def boastful(*arguments: Any) -> dict[str, Any]:
        row = honest(*arguments)
        return row | {"present_s": 1.01 * float(row["present_s"])}  # type: ignore[arg-type]

    patch.setattr(uhlm_sim.cell.engine, "station_row", boastful)


@defect(caught_by={"common bursts"}, missed_by={"burst rate", "own bursts"})
def phones_burst_each_for_itself(patch: Patch) -> None:
    def own(scenario: Scenario, rng: np.random.Generator, *, who: Who, replication: int) -> Callable[[float], float]:
        assert scenario.traffic.burst is not None
        burst = scenario.traffic.burst.model_copy(update={"of": "device"})
        traffic = scenario.traffic.model_copy(update={"burst": burst})
        return honest(scenario.model_copy(update={"traffic": traffic}), rng, who=who, replication=replication)

    honest = arrivals.ARRIVALS["bursty"]
    patch.setitem(arrivals.ARRIVALS, "bursty", own)


@defect(caught_by={"presence"}, missed_by={"burst rate"})
def what_is_asked_while_away_is_asked_on_the_return(patch: Patch) -> None:
    def kept(next_arrival: Callable[[float], float], there: Any, _duration_s: float) -> Callable[[float], float]:
        away, end_s = next(there)

        def next_present(free_s: float) -> float:
            nonlocal away, end_s
            arrived_s = next_arrival(free_s)
            while end_s <= arrived_s:
                away, end_s = next(there)
            return end_s if away else arrived_s

        return next_present

    patch.setattr(arrivals, "_ask_while_present", kept)


@defect(caught_by={"classes apart"}, missed_by={"same world"})
def a_phones_streams_go_by_its_number_on_the_cell(patch: Patch) -> None:
    honest = population.population

    def numbered(scenario: Scenario) -> list[Who]:
        return [replace(who, name=(who.device,)) for who in honest(scenario)]

    patch.setattr(uhlm_sim.cell.engine, "population", numbered)


@defect(caught_by={"one phone, energy"}, missed_by={"one phone, metrics"})
def an_amplifier_draws_what_it_radiates(patch: Patch) -> None:
    honest = energy.powers_of

    def lossless(scenario: Scenario, group_of: Any) -> Any:
        powers, radio = honest(scenario, group_of), scenario.device.radio
        assert powers is not None
        assert radio is not None
        return replace(powers, amplifier_w=powers.amplifier_w * radio.amplifier_efficiency)

    patch.setattr(traffic, "powers_of", lossless)


@defect(caught_by={"outer loop"}, missed_by={"block error", "saturated link"})
def the_outer_loop_steps_the_wrong_way(patch: Patch) -> None:
    honest = AdaptiveUplink.__init__

    def astray(self: AdaptiveUplink, *arguments: Any, **options: Any) -> None:
        honest(self, *arguments, **options)
        self._after_error, self._after_none = 1 / self._after_error, 1 / self._after_none

    patch.setattr(AdaptiveUplink, "__init__", astray)


@defect(caught_by={"chase combining", "round trips", "saturated link"}, missed_by={"block error", "outer loop"})
def a_block_sent_again_forgets_what_came_before(patch: Patch) -> None:
    honest = AdaptiveUplink._again

    def forgetful(self: AdaptiveUplink, number: int) -> Floats:
        blocks = honest(self, number)
        blocks[SNR] = 0.0
        return blocks

    patch.setattr(AdaptiveUplink, "_again", forgetful)


@defect(caught_by={"shared downlink"}, missed_by={"one phone, HLM"})
def the_downlink_forgets_its_payload(patch: Patch) -> None:
    """Bits counted are bits billed, and Little's law holds: only theory tells that they took no time."""

    class Light(Uplink):
        def send(self, job: Job) -> None:
            job.payload_bits = min(job.payload_bits, 1.0)
            super().send(job)

    patch.setattr(uhlm_sim.cell.radio.downlink, "Uplink", Light)


@defect(caught_by={"coverage, normal"})
def intervals_take_few_replications_for_many(patch: Patch) -> None:
    patch.setattr(intervals, "stdtrit", lambda freedom, p: stats.norm.ppf(p) + 0.0 * freedom)
