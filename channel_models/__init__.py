"""Radio channel and link models: physics only, usable from a notebook without the simulator.

Gains are power gains of mean one and have no unit; SNR is a linear ratio; spectral efficiency is in bit/s/Hz.
"""

from collections.abc import Callable, Iterator

from channel_models.fading import FadingModel, Gains, constant, jakes, jakes_field, nakagami, rayleigh, rician
from channel_models.link import db_to_linear, ergodic_spectral_efficiency, linear_to_db, spectral_efficiency
from channel_models.recorded import read_recording, trace

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
    "FadingModel",
    "constant",
    "db_to_linear",
    "ergodic_spectral_efficiency",
    "jakes",
    "jakes_field",
    "linear_to_db",
    "nakagami",
    "rayleigh",
    "read_recording",
    "rician",
    "spectral_efficiency",
    "trace",
]
