"""Numbers and swept values as text: as many digits as an interval gives, units as people say them."""

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

# How the value of a swept key is said, by how the key ends: factor, what follows one value, what follows others.
SAID = {
    "_hz": (1e-6, "MHz", "MHz"),
    "_db": (1.0, "dB", "dB"),
    "rate_per_s": (1.0, "requests/s", "requests/s"),
    "_s": (1.0, "s", "s"),
    "devices": (1.0, "phone", "phones"),
    "gpus": (1.0, "GPU", "GPUs"),
    "max_batch": (1.0, "job a batch", "jobs a batch"),
    "bits_per_probability": (1.0, "bit a probability", "bits a probability"),
}


def number(mean: float, low: float, high: float, scale: float = 1.0) -> tuple[str, str]:
    """Return a mean and its interval's half-width as text: as many digits as the interval gives, at most four.

    The half-width has two digits, or one where the mean's last digit is coarser. Zeros and values without an
    interval have an empty second text, a null mean is a dash.
    """
    mean, half = mean * scale, (high - low) / 2 * scale
    if half < 1e-9 * abs(mean):
        half = 0.0  # replications that agree but for rounding
    if not math.isfinite(mean):
        return "–", ""
    if mean == 0 and not half > 0:
        return "0", ""
    if abs(mean) < 1e-4:
        return f"{mean:.3g}".replace("-", "−"), f"± {half:.1g}".replace("-", "−") if half >= 0 else ""
    finest = 3 - _magnitude(mean)
    known = half > 0
    decimals = min(max(min(1 - _magnitude(half), finest) if known else finest, 0), 9)
    text = f"{mean:,.{decimals}f}".replace("-", "−")
    if not known:
        return text, "± 0" if half == 0 else ""
    rounded = f"{half:,.{decimals}f}"
    return text, f"± {rounded}" if float(rounded.replace(",", "")) else "± " + f"{half:.1g}"


def _magnitude(x: float) -> int:
    return math.floor(math.log10(abs(x))) if x else 0


def ratio(mean: float, low: float, high: float) -> tuple[str, str]:
    """Return a ratio and its interval as text, the interval as its two ends: it needn't be symmetric."""
    text = number(mean, low, high)[0]
    if low == high == mean:
        return f"{mean:.4g}", ""
    if not (math.isfinite(low) and math.isfinite(high)):
        return text, ""
    digits = ".3g" if "e" in text else f".{len(text.partition('.')[2])}f"
    return text, f"{low:{digits}} to {high:{digits}}".replace("-", "−")


def listed(words: Sequence[str]) -> str:
    """Join words as in a sentence: "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else list(words))


def in_words(key: str, values: Sequence[Any], *, bare: bool = False) -> str:
    """Return values of a scenario's key with their unit, once: "5, 10 and 20 MHz", "threshold 0.1"; or bare of it."""
    tail = key.rpartition(".")[2]
    is_text = any(isinstance(value, str) for value in values)
    factor, one, others = next((said for ending, said in SAID.items() if tail.endswith(ending)), (None, "", ""))
    said = listed([plain(value if is_text or factor is None else value * factor) for value in values])
    if is_text or bare:
        return said
    return f"{tail} {said}" if factor is None else f"{said} {one if said == '1' else others}"


def plain(value: Any) -> str:
    """Return a value as short text, the same whether it was read from a file or not: 10.0 is "10"."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Real):
        return f"{float(value):.9g}".replace("-", "−")
    return str(value)
