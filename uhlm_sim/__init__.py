"""Discrete-event simulation of hybrid language model inference in a mobile cell."""
