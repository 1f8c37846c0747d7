"""Radio channel and link models: physics only, usable from a notebook without the simulator.

Fading gains are power gains of mean one and have no unit; spectral efficiency is in bit/s/Hz; SNR is a linear ratio but
where a name ends in `_db`. Of geometry everything is in dB, dBm or dBi.
"""

from collections.abc import Callable, Iterator

from channel_models.fading import FadingModel, Gains, constant, jakes, jakes_field, nakagami, rayleigh, rician
from channel_models.geometry import Drop, drop_phones, transmit_power_dbm, uplink_snr_db
from channel_models.link import (
    RateLaw,
    db_to_linear,
    ergodic_spectral_efficiency,
    linear_to_db,
    spectral_efficiency,
)
from channel_models.modulation import (
    MCS_EFFICIENCY,
    best_mcs,
    block_error,
    mcs_thresholds,
    snr_gap,
    snr_threshold,
)
from channel_models.path_loss import PATH_LOSS, rma, shadowing_sd_db, sight_probability, uma, umi
from channel_models.recorded import RecordingFormat, read_recording, trace

CHANNELS: dict[str, Callable[..., Iterator[Gains]]] = {
    "constant": constant,
    "rayleigh": rayleigh,
    "rician": rician,
    "nakagami": nakagami,
    "jakes": jakes,
    "trace": trace,
}

__all__ = [
    "CHANNELS",
    "MCS_EFFICIENCY",
    "PATH_LOSS",
    "Drop",
    "FadingModel",
    "RateLaw",
    "RecordingFormat",
    "best_mcs",
    "block_error",
    "constant",
    "db_to_linear",
    "drop_phones",
    "ergodic_spectral_efficiency",
    "jakes",
    "jakes_field",
    "linear_to_db",
    "mcs_thresholds",
    "nakagami",
    "rayleigh",
    "read_recording",
    "rician",
    "rma",
    "shadowing_sd_db",
    "sight_probability",
    "snr_gap",
    "snr_threshold",
    "spectral_efficiency",
    "trace",
    "transmit_power_dbm",
    "uma",
    "umi",
    "uplink_snr_db",
]
