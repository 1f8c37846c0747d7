"""What is swept: which keys vary, what an axis calls them and their values, and where the values stand on it.

Numbers stand on an axis of numbers, logarithmic where they span more than a decade; words (presets, the names of
threshold rules) side by side, in the sweep's order.
"""

from collections.abc import Sequence
from numbers import Real
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axis import Axis
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from uhlm_sim.analysis.run import Run
from uhlm_sim.errors import InputError

DECADE = 10.0
LONGEST = 24  # characters of a tick: a swept table, such as one of traffic.presence, would leave no room for the axes
KEYS = {
    "variant": "variant",
    "traffic.devices": "phones",
    "traffic.rate_per_s": "requests/s of a phone",
    "traffic.think_time_s": "mean think time, s",
    "channel.mean_snr_db": "mean SNR, dB",
    "channel.coherence_s": "coherence time, s",
    "channel.kind": "fading",
    "channel.geometry.radius_m": "radius of the cell, m",
    "uplink.bandwidth_hz": "bandwidth, MHz",
    "uplink.access_s": "access to the uplink, s",
    "uplink.payload.k": "entries of an upload",
    "uplink.payload.bits_per_probability": "bits a probability",
    "uplink.payload.bits_per_index": "bits an index",
    "device.slm_token_s": "a draft's time, s",
    "base_station.service.c_s": "a GPU step's time, s",
    "uplink.allocator": "allocator",
    "uplink.snr_rule": "SNR rule",
    "uplink.link.kind": "link",
    "uplink.link.csi_delay_s": "age of the known SNR, s",
    "uplink.link.target_block_error": "target of block errors",
    "downlink.bandwidth_hz": "downlink bandwidth, Hz",
    "device.slm": "phone and SLM",
    "base_station.llm": "GPU and LLM",
    "base_station.gpus": "GPUs",
    "base_station.max_batch": "largest batch, jobs",
    "base_station.batch_rule": "batch rule",
    "base_station.order": "order",
    "base_station.queue": "queue",
    "base_station.chunk_tokens": "tokens in a chunk",
    "base_station.kv_tokens": "memory, tokens",
}


def is_threshold(key: str) -> bool:
    """Say whether a swept key is the threshold of a policy."""
    return key.startswith("policy.") and key.endswith(".threshold")


def key_words(key: str) -> str:
    """Return what an axis calls a swept key."""
    if is_threshold(key):
        return f"threshold of {key.removeprefix('policy.').removesuffix('.threshold')}"
    return KEYS.get(key, key)


def value_words(key: str, value: Any) -> str:
    """Return what an axis calls a value of a swept key: 20 for 2e7 Hz of bandwidth; of a long one both ends."""
    if isinstance(value, bool) or not isinstance(value, Real):
        words = str(value)
        return words if len(words) <= LONGEST else f"{words[: LONGEST // 2]}…{words[-LONGEST // 2 :]}"
    return f"{float(value) * (1e-6 if key == 'uplink.bandwidth_hz' else 1.0):g}".replace("-", "−")


def varied(summary: pd.DataFrame, sweep: list[str]) -> list[str]:
    """Return the sweep's columns that take several values, less those that follow from the others (zipped sweeps)."""
    words = summary[sweep].astype(str).drop_duplicates()
    kept = [name for name in sweep if words[name].nunique() > 1]
    for name in reversed(kept.copy()):
        others = [other for other in kept if other != name]
        if others and len(words[others].drop_duplicates()) == len(words[kept].drop_duplicates()):
            kept = others
    return kept


def swept_keys(run: Run, count: int) -> list[str]:
    """Return the keys that a run varies; InputError where they aren't as many as a figure has axes for."""
    keys = varied(run.summary, run.sweep)
    if len(keys) != count:
        values = f"{count} swept value{'s' if count > 1 else ''}"
        raise InputError(f"a figure over {values}: this run sweeps {', '.join(keys) or 'nothing'}")
    return keys


def is_numeric(column: pd.Series) -> bool:
    """Say whether a swept column is one of numbers; truth values are words."""
    return bool(pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column))


def places(column: pd.Series) -> pd.Series:
    """Return where the values of a swept column stand on its axis."""
    if is_numeric(column):
        return column.astype(np.float64)
    return pd.Series(pd.factorize(column.astype(str))[0].astype(np.float64), index=column.index)


def set_swept(axis: Axis, column: pd.Series) -> None:
    """Set the scale of a swept axis, with ticks at the swept values where they fit."""
    values = places(column).drop_duplicates()
    if not is_numeric(column):
        words = [value_words(str(column.name), value) for value in column.loc[values.index]]
        set_words(axis, values.to_list(), words)
        return
    low, high = values.min(), values.max()
    if low > 0 and high / low > DECADE:
        axis.axes.set_xscale("log")
        axis.set_major_locator(FixedLocator(values.to_list()) if len(values) <= 7 else LogLocator())
        axis.set_minor_locator(NullLocator() if len(values) <= 7 else LogLocator(subs="auto"))
        axis.set_minor_formatter(NullFormatter())
    elif len(values) <= 7 and np.diff(np.sort(values)).min(initial=np.inf) > 0.08 * (high - low):
        axis.set_major_locator(FixedLocator(values.to_list()))
    axis.set_major_formatter(FuncFormatter(lambda value, _: value_words(str(column.name), value)))


def set_words(axis: Axis, places: Sequence[float], words: Sequence[str]) -> None:
    """Put words at ticks: broken into lines, or tilted where they would run into each other."""
    width = max(10, 26 // max(1, len(words)))
    lines = [fill(word, width, break_long_words=False) for word in words]
    longest = max(len(line) for word in lines for line in word.splitlines())
    if longest * len(words) <= 32:
        axis.set_ticks(places, lines)
    else:
        axis.set_ticks(places, words, rotation=25 if len(words) <= 8 else 50, ha="right", rotation_mode="anchor")
