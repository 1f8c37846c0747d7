"""The scenario's channel as objects: every phone's gains, and the air above the cell."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from channel_models import (
    CHANNELS,
    FadingModel,
    RateLaw,
    RecordingFormat,
    db_to_linear,
    read_recording,
    spectral_efficiency,
)
from uhlm_sim.cell.phones.population import Who
from uhlm_sim.cell.radio.air import BLOCKS_AHEAD, Air
from uhlm_sim.errors import ScenarioError
from uhlm_sim.scenario import Scenario
from uhlm_sim.seams import Named, Seam

Fading = Callable[..., Iterator[NDArray[np.float64]]]  # a FadingModel with its parameters


CHANNEL = Seam(
    "Channels",
    ("channel.kind",),
    CHANNELS,
    ("a random generator", "the length of a run of gains"),
    offers={
        "block_s": "length of a block [s]",
        "device": "the device's number",
        "devices": "how many devices there are",
        "rate_law": "the law between SNR and rate on the uplink, a `RateLaw`",
        "carrier_hz": "carrier [Hz] of channel.geometry, if there is one",
    },
    giver="the cell",
    params="params",
    files=("params",),
)


def find_fading(scenario: Scenario, named: Named) -> Callable[[int], Fading]:
    """Return device -> its fading model, with its parameters. Raises ScenarioError for one that can't be used here.

    A model that has the parameters `block_s`, `device`, `devices`, `rate_law` or `carrier_hz` is handed the length of a
    block [s], the number of the device, how many there are, the law between the uplink's SNR and rate, or the carrier
    [Hz] of [channel.geometry], if the scenario has one.
    """
    channel = scenario.channel
    if {"block_s", "device"} & set(named.asks) and channel.coherence_s == "per-upload":
        raise ScenarioError(
            f"channel.coherence_s = 'per-upload': {channel.kind} goes on from block to block; give a block's seconds"
        )
    values: dict[str, object] = {
        "block_s": channel.coherence_s,
        "devices": scenario.traffic.devices,
        "rate_law": rate_law_of(scenario),
    }
    own_hz = channel.params.get("carrier_hz")
    if channel.geometry is not None and "carrier_hz" in named.asks:
        carrier_hz = channel.geometry.carrier_hz
        if own_hz is None:
            values["carrier_hz"] = carrier_hz
        elif own_hz != carrier_hz and not isinstance(own_hz, str):  # that a text is no number is told elsewhere
            raise ScenarioError(
                f"channel.params.carrier_hz = {own_hz:.12g}: must be channel.geometry.carrier_hz = {carrier_hz:.12g}, "
                "or be left out"
            )
    return lambda device: named.bind({**values, "device": device})


def recording_of(scenario: Scenario) -> NDArray[np.float64]:
    """Return the linear SNR (block, column) of a channel that is recorded. Raises ValueError if it can't be read."""
    options: dict[str, Any] = {**scenario.channel.params, "block_s": scenario.channel.coherence_s}
    return read_recording(str(options.pop("path")), RecordingFormat(**options, rate_law=rate_law_of(scenario)))


def rate_law_of(scenario: Scenario) -> RateLaw:
    """Return the law between SNR and rate on the uplink."""
    channel = scenario.channel
    return RateLaw(
        scenario.uplink.bandwidth_hz,
        min_snr=float(db_to_linear(channel.min_snr_db)),
        snr_gap=float(db_to_linear(channel.snr_gap_db)),
        max_spectral_efficiency=channel.max_spectral_efficiency,
    )


def make_air(
    scenario: Scenario,
    fading_of: Callable[[int], Fading],
    replication: int,
    snr_db: NDArray[np.float64],
    people: Sequence[Who],
    purpose: str = "fading",
) -> Air:
    """Return the channel of every device in one replication, around its mean SNR.

    Two of one `purpose` are the same air, as their gains are drawn from streams of the same names.
    """
    channel, law = scenario.channel, rate_law_of(scenario)
    moving = channel.kind != "constant"

    def gains_of(device: int) -> Iterator[NDArray[np.float64]]:
        return fading_of(device)(people[device].stream(scenario.seed, purpose, replication), BLOCKS_AHEAD)

    return Air(
        db_to_linear(snr_db),
        partial(
            spectral_efficiency,
            min_snr=law.min_snr,
            snr_gap=law.snr_gap,
            max_spectral_efficiency=law.max_spectral_efficiency,
        ),
        gains_of=gains_of,
        coherence_s=channel.coherence_s if moving and not isinstance(channel.coherence_s, str) else None,
        per_upload=moving and channel.coherence_s == "per-upload",
        min_snr=law.min_snr,
    )


def upload_gains(scenario: Scenario, fading: FadingModel, replication: int, who: Who) -> Callable[[int, int], float]:
    """Return (request, position) -> the power gain of that upload: the channel's blocks, one an upload."""
    gains: tuple[int, list[float]] = (-1, [])

    def gain_of(request: int, position: int) -> float:
        nonlocal gains
        if gains[0] != request:
            rng = who.stream(scenario.seed, "upload fading", replication, request)
            gains = (request, np.asarray(next(fading(rng, scenario.traffic.max_tokens))).tolist())
        return gains[1][position]

    return gain_of
