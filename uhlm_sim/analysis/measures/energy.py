"""Energy of a token: power times the legs in tokens.parquet, for phone, radio and base station."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from uhlm_sim.scenario import Scenario

Floats = NDArray[np.float64]
PARTS = ("device", "radio", "base_station")
ENERGY = ("energy_per_token_j", *(f"energy_per_token_j.{part}" for part in PARTS))


@dataclass(frozen=True)
class Powers:
    """Watts of a cell; NaN for what isn't known.

    `device_w`, one for each device, while it computes; `amplifier_w`, one for each, what the amplifier draws where the
    whole band is used, and `circuit_w` the rest of the radio while it sends; `power_limited` says that a phone radiates
    all its power in whatever share of the band it has; `gpu_w` a GPU that serves and `gpu_idle_w` one that waits.
    """

    device_w: Floats
    amplifier_w: Floats
    circuit_w: float = np.nan
    power_limited: bool = False
    gpu_w: float = np.nan
    gpu_idle_w: float = 0.0


def powers_of(scenario: Scenario, group_of: Sequence[int], radiated_w: Floats | None = None) -> Powers | None:
    """Return a scenario's powers, None if no phone's is known.

    `group_of` is each device's class by number, `radiated_w` what each radiates over the whole band (None: full power).
    """
    if not scenario.tells_energy:
        return None
    device_w = np.array([group.device.power_w for group in scenario.groups], dtype=np.float64)
    radio, station = scenario.device.radio, scenario.base_station
    radiated = np.full(len(group_of), scenario.transmit_power_w) if radiated_w is None else radiated_w
    return Powers(
        device_w=device_w[list(group_of)],
        amplifier_w=radiated / (np.nan if radio is None else radio.amplifier_efficiency),
        circuit_w=np.nan if radio is None else radio.circuit_power_w,
        power_limited=scenario.uplink.snr_rule == "power-limited",
        gpu_w=np.nan if station.gpu_power_w is None else station.gpu_power_w,
        gpu_idle_w=station.gpu_idle_power_w or 0.0,
    )


def energies(tokens: pd.DataFrame, visits: pd.DataFrame, powers: Powers, idle_s: float) -> dict[str, float]:
    """Return mean joules a token of each of PARTS and of all three, NaN where a power isn't known.

    `tokens` are the committed tokens that count, `visits` the rounds at the base station that committed them, and
    `idle_s` is the time that GPUs waited meanwhile over the cell's tokens. The energy is, by the tables' legs:

    - device: power_w device_s of the tokens, prefill and measuring u included;
    - radio: (P / efficiency) airtime_s + circuit sending_s of the visits, airtime being the integral of the share of
      the band: the power radiated is in proportion to the share. Power-limited, P is radiated whatever the share:
      sending_s, the time with any of the band, stands for airtime_s too (Cui, Goldsmith and Bahai, Energy-constrained
      modulation optimization, IEEE Trans. Wireless Commun. 2005: amplifier and circuits);
    - base station: gpu_power_w verify_s / jobs in the batch, plus gpu_idle_power_w idle_s.

    Left out: the phone while it waits, the downlink, the radio in sleep, cooling, and everything else of the site.
    """
    n = len(tokens)
    if not n:
        return dict.fromkeys(ENERGY, np.nan)

    def column(table: pd.DataFrame, name: str) -> Floats:
        return table[name].to_numpy(dtype=np.float64, na_value=np.nan)

    device_j = (powers.device_w[tokens["device"].to_numpy(dtype=np.int64)] * column(tokens, "device_s")).sum()
    radio_j = np.nan
    if not np.isnan(powers.circuit_w):
        amplifier_w = powers.amplifier_w[visits["device"].to_numpy(dtype=np.int64)]
        radiating_s = column(visits, "sending_s" if powers.power_limited else "airtime_s")
        radio_j = (amplifier_w * radiating_s + powers.circuit_w * column(visits, "sending_s")).sum()
    served_s = (column(visits, "verify_s") / column(visits, "batch_jobs")).sum()
    idle_j = n * powers.gpu_idle_w * idle_s if powers.gpu_idle_w else 0.0
    station_j = powers.gpu_w * served_s + idle_j
    parts = np.array([device_j, radio_j, station_j]) / n
    return dict(zip(ENERGY, [float(parts.sum()), *parts.tolist()], strict=True))
