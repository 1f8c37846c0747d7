"""Mean SNR of every phone: as the scenario gives it, as it was recorded, or from the phone's place in the cell."""

import numpy as np
from numpy.typing import NDArray

from channel_models import drop_phones, linear_to_db, read_recording, uplink_snr_db
from uhlm_sim.cell.population import population
from uhlm_sim.errors import ScenarioError
from uhlm_sim.scenario import Geometry, Scenario

Floats = NDArray[np.float64]
BUDGET = ["base_station_gain_dbi", "phone_gain_dbi", "extra_loss_db", "noise_figure_db", "interference_margin_db"]
BUDGET += ["max_power_dbm", "p0_dbm", "alpha"]


def mean_snr_db(scenario: Scenario, replication: int) -> Floats:
    """Return the mean SNR [dB] over the whole band of every device in one replication.

    From geometry, every replication drops the phones anew, so that intervals cover where phones happen to be; a
    device's place hangs on (seed, replication, device) alone, so another device moves no one. A class with a mean SNR
    of its own has that, wherever its phones are. Raises ScenarioError for a geometry out of its model's range, and for
    a phone that could never send on a constant channel.
    """
    channel, devices = scenario.channel, scenario.traffic.devices
    if channel.mean_snr_db == "recorded":
        recorded_db = linear_to_db(read_recording(str(channel.params["path"])).mean(axis=0))
        found = np.broadcast_to(recorded_db if len(recorded_db) == 1 else recorded_db[:devices], devices)
    elif channel.geometry is None:
        found = np.broadcast_to(np.asarray(channel.mean_snr_db, dtype=np.float64), devices)
    else:
        try:
            found = _dropped(scenario, channel.geometry, replication)
        except ValueError as error:
            raise ScenarioError(f"channel.geometry: {error}") from None
    of_class = {each.name: each.mean_snr_db for each in scenario.device_class if each.mean_snr_db is not None}
    people = population(scenario) if of_class else []
    if of_class:
        found = np.array([of_class.get(str(who.name[0]), found[who.device]) for who in people])
    lowest = int(found.argmin())
    if channel.kind == "constant" and found[lowest] < channel.min_snr_db:
        name = people[lowest].name[0] if people else ""
        where = f"device_class.{name}" if name in of_class else "channel.geometry"
        raise ScenarioError(
            f"{where}: device {lowest} has a mean SNR of {found[lowest]:.1f} dB in replication {replication}, "
            f"below min_snr_db = {channel.min_snr_db:g}: on a constant channel it could never send"
        )
    return found


def _dropped(scenario: Scenario, geometry: Geometry, replication: int) -> Floats:
    values = geometry.model_dump()
    budget = {name: values.pop(name) for name in BUDGET}
    loss_db = [
        drop_phones(who.stream(scenario.seed, "drop", replication), 1, **values).loss_db for who in population(scenario)
    ]
    return uplink_snr_db(np.concatenate(loss_db), bandwidth_hz=scenario.uplink.bandwidth_hz, **budget)
