"""Numbers and swept values as text: as many digits as an interval gives, units as people say them."""

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

SMALL = 1e-4  # below it, numbers are written with an exponent
NOISE = 1e-12  # what times and shares that add up to nothing leave by rounding
# Suffix of a swept key -> factor, unit after the value 1, unit after others.
KEY_UNITS = {  # by how a key ends; the first that fits is taken
    "_hz": (1e-6, "MHz", "MHz"),
    "_db": (1.0, "dB", "dB"),
    "_dbm": (1.0, "dBm", "dBm"),
    "_dbi": (1.0, "dBi", "dBi"),
    "_m": (1.0, "m", "m"),
    "_w": (1.0, "W", "W"),
    "kv_bytes": (1e-9, "GB", "GB"),
    "rate_per_s": (1.0, "request/s", "requests/s"),
    "flop_per_s": (1e-12, "TFLOP/s", "TFLOP/s"),
    "byte_per_s": (1e-9, "GB/s", "GB/s"),
    "_s": (1.0, "s", "s"),
    "devices": (1.0, "phone", "phones"),
    "gpus": (1.0, "GPU", "GPUs"),
    "max_batch": (1.0, "job a batch", "jobs a batch"),
    "bits_per_probability": (1.0, "bit a probability", "bits a probability"),
}


def number(mean: float, low: float, high: float, scale: float = 1.0) -> tuple[str, str]:
    """Return a mean and its interval's half-width as text: as many digits as the interval gives, at most four.

    The half-width has two digits, or one where the mean's last digit is coarser. Without an interval nothing says how
    far a mean can be trusted: it has two digits behind a "≈" and an empty second text, as a zero has. A null mean is a
    dash.
    """
    mean, half = mean * scale, (high - low) / 2 * scale
    if half < 1e-9 * abs(mean):
        half = 0.0  # replications that agree but for rounding
    if not math.isfinite(mean):
        return "–", ""
    if abs(mean) < NOISE and not half > NOISE:
        return "0", ""
    if not math.isfinite(half):
        return f"≈{_fixed(round(mean, 1 - _magnitude(mean)), max(1 - _magnitude(mean), 0), rough=True)}", ""
    if abs(mean) < SMALL:
        return _fixed(mean, 0), f"± {half:.1g}".replace("-", "−")
    finest = 3 - _magnitude(mean)
    decimals = min(max(min(1 - _magnitude(half), finest) if half > 0 else finest, 0), 9)
    text = _fixed(mean, decimals)
    if half == 0:
        return text, "± 0"
    rounded = f"{half:,.{decimals}f}"
    return text, f"± {rounded}" if float(rounded.replace(",", "")) else "± " + f"{half:.1g}"


def _fixed(x: float, decimals: int, *, rough: bool = False) -> str:
    """Write a number with so many decimals, never a minus zero."""
    text = f"{x:.{2 if rough else 3}g}" if 0 < abs(x) < SMALL else f"{x:z,.{decimals}f}"
    return text.replace("-", "−")


def _magnitude(x: float) -> int:
    return math.floor(math.log10(abs(x))) if x else 0


def ratio(mean: float, low: float, high: float) -> tuple[str, str]:
    """Return a ratio and its interval as text, the interval as its two ends: it needn't be symmetric.

    A ratio without an interval, of one replication or where Fieller's set is none, is said to have none.
    """
    text = number(mean, low, high)[0]
    if low == high == mean:
        return f"{mean:.4g}", ""
    if not (math.isfinite(low) and math.isfinite(high)):
        return text, "no interval" if math.isfinite(mean) else ""
    if "e" in text:
        return text, f"{low:z.3g} to {high:z.3g}".replace("-", "−")
    decimals = len(text.partition(".")[2])
    return text, f"{low:z,.{decimals}f} to {high:z,.{decimals}f}".replace("-", "−")


def listed(words: Sequence[str]) -> str:
    """Join words as in a sentence: "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else list(words))


def in_words(key: str, values: Sequence[Any], *, bare: bool = False) -> str:
    """Return values of a scenario's key with their unit, once: "5, 10 and 20 MHz", "threshold 0.1"; or bare of it."""
    tail = key.rpartition(".")[2]
    is_text = any(isinstance(value, str) for value in values)
    factor, one, others = next((text for ending, text in KEY_UNITS.items() if tail.endswith(ending)), (None, "", ""))
    text = listed([plain(value if is_text or factor is None else value * factor) for value in values])
    if is_text or bare:
        return text
    return f"{tail} {text}" if factor is None else f"{text} {one if text == '1' else others}"


def plain(value: Any) -> str:
    """Return a value as short text, the same whether it was read from a file or not: 10.0 is "10"."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Real):
        return f"{float(value):.9g}".replace("-", "−")
    return str(value)
