"""What the GPUs take when: timelines to draw by hand for each batch rule, order, queue, chunk and limit of memory."""

from functools import partial

import numpy as np
import pytest
import simpy

from uhlm_sim.cell.gpus.base_station import BaseStation
from uhlm_sim.cell.gpus.batching import BATCH_RULES, ORDERS, Ordered
from uhlm_sim.cell.gpus.chunks import pieces
from uhlm_sim.cell.jobs import Job, Request, Wakeup


def serve(arrivals, service_s=float, *, ends=(), **station):
    """Submit (time, device, tokens, request or nothing) in order; end requests of `ends`, (time, device).

    Returns (device, start, end) of each job in the order of the ends, the jobs by arrival, and the station.
    """
    env, log, jobs = simpy.Environment(), [], []
    base_station = BaseStation(env, service_s=service_s, **station)

    def later(at_s, does):
        yield env.timeout(at_s)
        does()

    def submit(device, tokens, request=None, position=0):
        job = Job(device, 0.0, tokens, env.now, Wakeup(env), request=request, position=position)
        job.done.callbacks.append(lambda _event: log.append((device, job.verify_started_s, env.now)))
        jobs.append(job)
        base_station.submit(job)

    for at_s, *job in arrivals:
        env.process(later(at_s, partial(submit, *job)))
    for at_s, device in ends:
        env.process(later(at_s, partial(base_station.end_request, device)))
    env.run()
    base_station.settle()
    return log, jobs, base_station


# Batch rules.


def test_a_least_size_is_waited_for_however_long_it_takes():
    rule = partial(BATCH_RULES["size"], min_batch=3)
    log, _, _ = serve([(0, 0, 1), (1, 1, 1), (5, 2, 1), (5.5, 3, 1)], lambda _n: 2.0, max_batch=8, rule=rule)
    assert log == [(0, 5.0, 7.0), (1, 5.0, 7.0), (2, 5.0, 7.0)]


def test_the_oldest_job_waits_for_company_until_its_patience_ends():
    """Two that wait from 0 go at 2; the third of the next batch comes at 4, before 3 + 2; the last goes alone."""
    rule = partial(BATCH_RULES["wait"], min_batch=3, max_wait_s=2.0)
    arrivals = [(0, 0, 1), (1, 1, 1), (3, 2, 1), (3.5, 3, 1), (4, 4, 1), (6, 5, 1)]
    log, _, _ = serve(arrivals, lambda _n: 0.5, max_batch=8, rule=rule)
    assert log == [(0, 2, 2.5), (1, 2, 2.5), (2, 4, 4.5), (3, 4, 4.5), (4, 4, 4.5), (5, 8, 8.5)]


def test_patience_that_ends_while_the_gpu_is_busy_is_over_when_it_is_free():
    rule = partial(BATCH_RULES["wait"], min_batch=2, max_wait_s=1.0)
    log, _, _ = serve([(0, 0, 1), (2, 1, 1)], lambda _n: 3.0, max_batch=8, rule=rule)
    assert log == [(0, 1.0, 4.0), (1, 4.0, 7.0)]


def test_who_comes_at_the_very_end_of_the_oldest_ones_patience_goes_along():
    rule = partial(BATCH_RULES["wait"], min_batch=5, max_wait_s=1.0)
    log, _, _ = serve([(0, 0, 1), (1, 1, 1)], lambda _n: 1.0, max_batch=8, rule=rule)
    assert log == [(0, 1.0, 2.0), (1, 1.0, 2.0)]


def test_under_another_order_it_is_still_the_oldest_whose_patience_counts():
    """At 0.5 the short job comes first in the queue, but the long one has waited since 0."""
    rule = partial(BATCH_RULES["wait"], min_batch=3, max_wait_s=1.0)
    log, _, _ = serve([(0, 0, 5), (0.5, 1, 1)], rule=rule, order=ORDERS["shortest-work"])
    assert log == [(1, 1.0, 2.0), (0, 2.0, 7.0)]


# Orders.


def test_the_shortest_work_goes_first_and_interrupts_nobody():
    log, _, _ = serve([(0, 0, 5), (1, 1, 4), (2, 2, 1), (3, 3, 1)], order=ORDERS["shortest-work"])
    assert log == [(0, 0, 5), (2, 5, 6), (3, 6, 7), (1, 7, 11)]


def asked(arrived_s, first_token_s=np.nan, uploads=1):
    request = Request(arrived_s)
    request.first_token_s, request.uploads = first_token_s, uploads
    return request


def test_the_earliest_deadline_is_of_ttft_for_the_first_token_and_of_tpot_for_the_others():
    """Due at 0 + 4, at 1 + 3 x 0.5 and at 2 + 1 x 0.5, behind one that keeps the GPU until 3."""
    order = partial(ORDERS["earliest-deadline"], ttft_s=4.0, tpot_s=0.5)
    waiting = [(1, 1, 1, asked(0.0), 0), (1, 2, 1, asked(0.0, 1.0), 3), (1, 3, 1, asked(0.0, 2.0), 1)]
    log, _, _ = serve([(0, 0, 3, asked(0.0), 0), *waiting], order=order)
    assert log == [(0, 0, 3), (2, 3, 4), (3, 4, 5), (1, 5, 6)]


def test_whoever_has_sent_least_goes_first():
    waiting = [(1, 1, 1, asked(0.0, uploads=7)), (1, 2, 1, asked(0.0, uploads=2)), (1, 3, 1, asked(0.0, uploads=2))]
    log, _, _ = serve([(0, 0, 2, asked(0.0)), *waiting], order=ORDERS["fewest-uploads"])
    assert log == [(0, 0, 2), (2, 2, 3), (3, 3, 4), (1, 4, 5)]


def test_a_queue_by_a_key_is_a_stable_sort():
    jobs = [Job(number, 0.0, tokens, 0.0, None) for number, tokens in enumerate([3, 1, 2, 1, 3, 2])]
    queue = Ordered(ORDERS["shortest-work"])
    for job in jobs:
        queue.append(job)
    assert {job.device for job in queue} == set(range(6))
    assert queue[0].device == 1
    assert [queue.popleft().device for _ in range(len(queue))] == [1, 3, 2, 5, 0, 4]


# Queues of their own.


def test_a_job_joins_the_queue_with_the_fewest_jobs_of_equals_the_first():
    """0 and 1 take a GPU each, 2 ties and joins 0, 3 comes when 1 is gone, 4 finds two and one."""
    arrivals = [(0, 0, 5), (0.5, 1, 2), (1, 2, 1), (3, 3, 4), (4, 4, 1)]
    log, _, station = serve(arrivals, gpus=2, join_shortest=True)
    assert log == [(1, 0.5, 2.5), (0, 0, 5), (2, 5, 6), (3, 3, 7), (4, 7, 8)]
    assert station.counters.busy_s == 13.0


# Chunks.


def test_a_step_is_dealt_out_in_equal_parts_and_the_rest_in_order():
    assert pieces([100], 64) == [64]
    assert pieces([1, 100, 2, 100], 64) == [1, 45, 2, 16]
    assert pieces([1, 20, 2, 100], 64) == [1, 20, 2, 41]
    assert pieces([3, 3], 64) == [3, 3]
    assert pieces([9] * 5, 5) == [1] * 5


def test_a_long_job_is_split_and_a_short_one_goes_along():
    """Of 6 tokens 4 go by t = 4; the short one joins, 2 and 1 go by 7. GPU time 4 + 3/2 and 3/2, tokens likewise."""
    log, (long, short), station = serve([(0, 0, 6), (1, 1, 1)], max_batch=2, chunk_tokens=4)
    assert log == [(0, 0, 7), (1, 4, 7)]
    assert (long.steps, short.steps) == (2, 1)
    assert (short.batch_jobs, short.batch_tokens) == (2, 3)
    assert 7 / long.batch_jobs == pytest.approx(5.5)
    assert 2 * long.batch_tokens / long.batch_jobs == pytest.approx(5.5)
    assert (long.llm_tokens, station.counters.busy_s) == (6, 7.0)


def test_a_gpu_with_jobs_begun_goes_on_whatever_the_rule_says():
    """The rule asks for two; once a long one has begun with one, a third goes along without a fourth."""
    rule = partial(BATCH_RULES["size"], min_batch=2)
    arrivals = [(0, 0, 7), (0, 1, 1), (1, 2, 2)]
    log, _, _ = serve(arrivals, max_batch=3, rule=rule, chunk_tokens=4)
    assert log == [(1, 0, 4), (2, 4, 8), (0, 0, 10)]


# Memory.


def test_the_least_recently_used_request_makes_way_and_is_processed_again():
    """Of 10 positions 0 takes 6; 1 needs 5, so 0 goes; its next token costs 7 of which 6 again, so 1 goes."""
    log, jobs, station = serve([(0, 0, 6), (7, 1, 5), (20, 0, 1), (40, 1, 1)], kv_tokens=10)
    assert log == [(0, 0, 6), (1, 7, 12), (0, 20, 27), (1, 40, 46)]
    assert [(job.llm_tokens, job.recomputed_tokens) for job in jobs] == [(6, 0), (5, 0), (7, 6), (6, 5)]
    assert (station.kv_counters.arrivals, station.kv_counters.departures) == (4, 3)
    assert station.kv_counters.busy_s == 6 * 7 + 5 * 13 + 7 * 20 + 6 * 6


def test_who_does_not_fit_beside_those_in_service_waits_and_nobody_overtakes():
    log, _, _ = serve([(0, 0, 6), (1, 1, 5), (2, 2, 1)], gpus=2, kv_tokens=5)
    assert log == [(0, 0, 6), (2, 6, 7), (1, 6, 11)]


def test_a_request_that_ends_gives_its_memory_back_at_once():
    """0 has ended when 1 comes, so nothing is evicted: 8 of 10 and, after the end at 9, none."""
    _, jobs, station = serve([(0, 0, 6), (8, 1, 8)], ends=[(7, 0), (17, 1)], kv_tokens=10)
    assert [job.recomputed_tokens for job in jobs] == [0, 0]
    assert station.kv_counters.departures == 0
    assert station.kv_counters.busy_s == 6 * 7 + 8 * 9


def test_with_memory_of_their_own_requests_stay_with_the_gpu_they_joined():
    """Device 0 comes back to GPU 0, though that has a job and GPU 1 has none; device 2 goes where it is shorter."""
    arrivals = [(0, 0, 1), (2, 1, 1), (2.5, 2, 1), (4, 1, 9), (5, 0, 1)]
    log, _, _ = serve(arrivals, gpus=2, join_shortest=True, kv_tokens=100)
    assert log == [(0, 0, 1), (1, 2, 3), (2, 2.5, 3.5), (1, 4, 13), (0, 13, 14)]
