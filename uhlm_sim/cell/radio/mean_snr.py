"""Mean SNR of every phone, as given, as recorded, or from its place in the cell; and the power it sends with."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from channel_models import PATH_LOSS, db_to_linear, drop_phones, linear_to_db, transmit_power_dbm, uplink_snr_db
from uhlm_sim.cell.phones.population import Who
from uhlm_sim.cell.radio.fading import recording_of
from uhlm_sim.errors import ScenarioError
from uhlm_sim.scenario import Geometry, Scenario
from uhlm_sim.seams import Seam

Floats = NDArray[np.float64]
BUDGET = ["base_station_gain_dbi", "phone_gain_dbi", "extra_loss_db", "noise_figure_db", "interference_margin_db"]
BUDGET += ["max_power_dbm", "p0_dbm", "alpha"]
PATH = Seam("Path loss", ("channel.geometry.model",), PATH_LOSS)


def mean_snr_db(scenario: Scenario, replication: int, people: Sequence[Who]) -> Floats:
    """Return the mean SNR [dB] over the whole band of every device in one replication.

    From geometry, every replication drops the phones anew, so that intervals cover where phones happen to be; a
    device's place hangs on (seed, replication, device) alone, so another device moves no one. A class with a mean SNR
    of its own has that, wherever its phones are. Raises ScenarioError for a geometry out of its model's range, and for
    a phone that could never send on a constant channel.
    """
    channel, devices = scenario.channel, scenario.traffic.devices
    if channel.mean_snr_db == "recorded":
        recorded_db = linear_to_db(recording_of(scenario).mean(axis=0))
        snr_db = np.broadcast_to(recorded_db if len(recorded_db) == 1 else recorded_db[:devices], devices)
    elif channel.geometry is None:
        snr_db = np.broadcast_to(np.asarray(channel.mean_snr_db, dtype=np.float64), devices)
    else:
        try:
            snr_db = _dropped(scenario, channel.geometry, replication, people)
        except ValueError as error:
            raise ScenarioError(f"channel.geometry: {error}") from None
    of_class = {group.name: group.mean_snr_db for group in scenario.device_class if group.mean_snr_db is not None}
    if of_class:
        snr_db = np.array([of_class.get(str(who.name[0]), snr_db[who.device]) for who in people])
    lowest = int(snr_db.argmin())
    if channel.kind == "constant" and snr_db[lowest] < channel.min_snr_db:
        name = people[lowest].name[0]
        where = f"device_class.{name}" if name in of_class else "channel.geometry"
        raise ScenarioError(
            f"{where}: device {lowest} has a mean SNR of {snr_db[lowest]:.1f} dB in replication {replication}, "
            f"below min_snr_db = {channel.min_snr_db:g}: on a constant channel it could never send"
        )
    return snr_db


def transmit_power_w(scenario: Scenario, replication: int, people: Sequence[Who]) -> Floats:
    """Return the power [W] of every device over the whole band in one replication.

    Full power, or under power control what a phone's place asks for. A class with a mean SNR of its own, whose places
    say nothing of it, has full power.
    """
    full_w = np.full(scenario.traffic.devices, scenario.transmit_power_w)
    geometry = scenario.channel.geometry
    if geometry is None or geometry.p0_dbm is None:
        return full_w
    coupling_db = _loss_db(scenario, geometry, replication, people) + geometry.extra_loss_db
    power_dbm = transmit_power_dbm(
        coupling_db - geometry.base_station_gain_dbi - geometry.phone_gain_dbi,
        bandwidth_hz=scenario.uplink.bandwidth_hz,
        max_power_dbm=geometry.max_power_dbm,
        p0_dbm=geometry.p0_dbm,
        alpha=geometry.alpha,
    )
    is_placed = [group.mean_snr_db is None for group in scenario.device_class] or [True]
    placed = np.array([is_placed[who.group] for who in people])
    return np.where(placed, db_to_linear(power_dbm) / 1000.0, full_w)


def _dropped(scenario: Scenario, geometry: Geometry, replication: int, people: Sequence[Who]) -> Floats:
    budget = {name: getattr(geometry, name) for name in BUDGET}
    loss_db = _loss_db(scenario, geometry, replication, people)
    return uplink_snr_db(loss_db, bandwidth_hz=scenario.uplink.bandwidth_hz, **budget)


def _loss_db(scenario: Scenario, geometry: Geometry, replication: int, people: Sequence[Who]) -> Floats:
    places = geometry.model_dump(exclude=set(BUDGET))
    drops = [drop_phones(who.stream(scenario.seed, "drop", replication), 1, **places) for who in people]
    return np.concatenate([drop.loss_db for drop in drops])
