"""Discrete-event simulation of hybrid language model inference in a mobile cell."""

from importlib.metadata import version

__version__ = version("uhlm-sim")
