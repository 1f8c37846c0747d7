"""Radio channel and link models: physics only, usable from a notebook without the simulator.

Gains are power gains of mean one and have no unit; SNR is a linear ratio; spectral efficiency is in bit/s/Hz.
"""

from channel_models.fading import CHANNELS, FadingModel, constant, rayleigh
from channel_models.link import db_to_linear, ergodic_spectral_efficiency, linear_to_db, spectral_efficiency

__all__ = [
    "CHANNELS",
    "FadingModel",
    "constant",
    "db_to_linear",
    "ergodic_spectral_efficiency",
    "linear_to_db",
    "rayleigh",
    "spectral_efficiency",
]
