"""Ciw, an independent simulator of queues, and our stations serve the same customers at the same times.

Both get the same arrivals and the same work, so they are compared customer by customer and not in the mean alone.
Ciw moves a processor-sharing node on by its own bookkeeping of every customer's remaining work, our uplink by virtual
time, and neither knows of the other.
"""

from collections.abc import Callable
from typing import Any

import ciw
import numpy as np
import pytest
import simpy

from uhlm_sim.cell.gpus.base_station import BaseStation
from uhlm_sim.cell.jobs import Job, Wakeup
from uhlm_sim.cell.radio.allocators import ALLOCATORS
from uhlm_sim.cell.radio.uplink import Uplink
from uhlm_sim.rng import stream
from uhlm_sim.validation.drive import flat_air, serve, upload

CUSTOMERS = 1500
WORK: dict[str, Callable[[np.random.Generator], Any]] = {  # of mean 1
    "exponential": lambda rng: rng.exponential(1.0, CUSTOMERS),
    "constant": lambda _rng: np.ones(CUSTOMERS),
    "hyper-exponential": lambda rng: rng.exponential(np.where(rng.random(CUSTOMERS) < 0.9, 0.5, 5.5)),
}


def in_ciw(gaps: Any, *nodes: tuple[Any, float, type[ciw.Node]]) -> list[Any]:
    """Return (arrival, start, end) of each customer at each node (work, servers, kind) of a line of them in Ciw."""
    works, servers, kinds = zip(*nodes, strict=True)
    network = ciw.create_network(
        arrival_distributions=[ciw.dists.Sequential([*gaps, np.inf]), *([None] * (len(nodes) - 1))],
        service_distributions=[ciw.dists.Sequential(list(work)) for work in works],
        number_of_servers=list(servers),
        routing=np.eye(len(nodes), k=1).tolist(),
    )
    simulation = ciw.Simulation(network, node_class=list(kinds))
    simulation.simulate_until_max_customers(len(gaps), method="Finish")
    records = sorted(simulation.get_all_records(), key=lambda record: record.id_number)
    assert len(records) == len(gaps) * len(nodes)
    of_nodes = [[record for record in records if record.node == 1 + number] for number in range(len(nodes))]
    return [np.array([(each.arrival_date, each.service_start_date, each.exit_date) for each in r]).T for r in of_nodes]


def world(name: str, load: float) -> tuple[Any, Any]:
    """Return the gaps between arrivals and the work that each brings."""
    rng = stream(1, "ciw", name)
    return rng.exponential(1 / load, CUSTOMERS), WORK[name](rng)


def uploads(gaps: Any, work: Any, **options: Any) -> list[float]:
    """Return when each upload of `work` bits ends in a band of 1 Hz that carries 1 bit/s."""
    sent = list(zip(np.cumsum(gaps).tolist(), range(CUSTOMERS), work.tolist(), strict=True))
    jobs, _ = upload(sent, flat_air(np.ones(CUSTOMERS)), bandwidth_hz=1.0, **options)
    return [job.received_s for job in sorted(jobs, key=lambda job: job.device)]


@pytest.mark.parametrize("name", WORK)
@pytest.mark.parametrize("gpus", [1, 3])
def test_gpus_without_batches_are_a_queue_with_as_many_servers(name: str, gpus: int) -> None:
    """M/M/c, M/D/c and M/H2/c: each customer starts and ends when Ciw says."""
    gaps, work = world(name, 0.8 * gpus)
    ((arrived_s, began_s, ended_s),) = in_ciw(gaps, (work, gpus, ciw.Node))
    left = iter(work.tolist())
    jobs = serve(np.cumsum(gaps), lambda _tokens: next(left), gpus=gpus)
    np.testing.assert_allclose([job.received_s for job in jobs], arrived_s, rtol=1e-9)
    np.testing.assert_allclose([job.verify_started_s for job in jobs], began_s, rtol=1e-9)
    np.testing.assert_allclose([job.verified_s for job in jobs], ended_s, rtol=1e-9)
    assert (began_s > arrived_s).mean() > 0.3, "many had to wait"


@pytest.mark.parametrize("name", WORK)
def test_equal_share_is_processor_sharing(name: str) -> None:
    gaps, work = world(name, 0.7)
    ((arrived_s, _, ended_s),) = in_ciw(gaps, (work, np.inf, ciw.PSNode))
    np.testing.assert_allclose(uploads(gaps, work), ended_s, rtol=1e-9)
    assert np.mean(ended_s - arrived_s) > 2.0, "they share"


@pytest.mark.parametrize("name", WORK)
def test_one_upload_at_a_time_is_a_queue_with_one_server(name: str) -> None:
    gaps, work = world(name, 0.7)
    ((arrived_s, began_s, ended_s),) = in_ciw(gaps, (work, 1, ciw.Node))
    np.testing.assert_allclose(uploads(gaps, work, allocator=ALLOCATORS["tdma"]), ended_s, rtol=1e-9)
    assert (began_s > arrived_s).mean() > 0.3, "many had to wait"


def test_the_uplink_feeds_the_gpus_as_a_line_of_two_nodes() -> None:
    """Exponential work at both, 2 GPUs: what leaves the band in another order than it came is served in that order."""
    gaps, bits = world("exponential", 0.7)
    service_s = stream(1, "ciw", "service").exponential(2.0, CUSTOMERS)
    _, (received_s, _, verified_s) = in_ciw(gaps, (bits, np.inf, ciw.PSNode), (service_s, 2, ciw.Node))

    env, left, jobs = simpy.Environment(), iter(service_s.tolist()), []
    station = BaseStation(env, service_s=lambda _tokens: next(left), gpus=2)
    band = Uplink(env, bandwidth_hz=1.0, air=flat_air(np.ones(CUSTOMERS)), deliver=station.submit)

    def source() -> Any:
        for device, gap_s in enumerate(gaps.tolist()):
            yield env.timeout(gap_s)
            jobs.append(Job(device, bits.item(device), 1, env.now, Wakeup(env)))
            band.send(jobs[-1])

    env.process(source())
    env.run()
    np.testing.assert_allclose([job.received_s for job in jobs], received_s, rtol=1e-9)
    np.testing.assert_allclose([job.verified_s for job in jobs], verified_s, rtol=1e-9)
    assert (np.diff(received_s) < 0).any(), "some overtake"
