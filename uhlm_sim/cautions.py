"""What is told of a scenario before the first event: keys without effect, mixed presets, odd values, long work."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from channel_models import CHANNELS
from uhlm_sim.names import load_presets
from uhlm_sim.scenario import READ_BY, Downlink, Link, Scenario, Section
from uhlm_sim.scenario_file import sweep_points
from uhlm_sim.settings.base_station import ROOFLINE

LONG_TOKENS, TOKENS_A_MINUTE = 20e6, 1.5e6  # of one simulation, as a common machine plays them
LARGE_BYTES = 20e6
# Key -> what machines and cells have, generously, and whose that is.
USUAL: dict[str, tuple[float, float, str]] = {
    "uplink.bandwidth_hz": (1e4, 1e10, "radio systems use, in Hz"),
    "uplink.access_s": (1e-5, 2.0, "an access takes, in seconds"),
    "channel.mean_snr_db": (-20.0, 60.0, "links have, in dB"),
    "channel.coherence_s": (1e-4, 10.0, "channels keep a gain for, in seconds"),
    "uplink.tti_s": (1e-5, 0.1, "a slot takes, in seconds"),
    "device.slm_token_s": (1e-4, 5.0, "a phone takes for a token, in seconds"),
    "device.slm_prefill_token_s": (1e-6, 1.0, "a phone takes for a token of the prompt, in seconds"),
    "base_station.service.c_s": (1e-5, 5.0, "a GPU takes for a step, in seconds"),
    "base_station.downlink_s": (1e-5, 2.0, "the way back takes, in seconds"),
}
TIMES = ("slm_token_s", "slm_prefill_token_s", "c_s", "s_s_per_token", "free_tokens", "attention_s", *ROOFLINE)
FITTED = ("c_s", "s_s_per_token", "free_tokens", "attention_s", "max_fitted_tokens")
# Key -> the keys of kinds that may read it, with the kinds that do. A kind of the user's own may read anything.
READERS: dict[str, dict[str, tuple[str, ...]]] = {
    **{f"traffic.{key}": {"traffic.kind": kinds} for key, kinds in READ_BY.items()},
    "channel.coherence_s": {"channel.kind": tuple(kind for kind in CHANNELS if kind != "constant")},
    "channel.snr_gap_db": {"uplink.link.kind": ("shannon",)},
    "channel.max_spectral_efficiency": {"uplink.link.kind": ("shannon",)},
    "uplink.weights": {"uplink.allocator": ("weighted",), "downlink.allocator": ("weighted",)},
    "uplink.tti_s": {
        "uplink.allocator": ("round-robin", "proportional-fair-slots"),
        "uplink.link.kind": ("adaptive",),
    },
    "uplink.average_s": {"uplink.allocator": ("proportional-fair-slots",)},
    **{f"uplink.link.{key}": {"uplink.link.kind": ("adaptive",)} for key in Link.model_fields if key != "kind"},
    **{f"downlink.{key}": {"downlink.kind": ("shared",)} for key in Downlink.model_fields if key != "kind"},
    "base_station.min_batch": {"base_station.batch_rule": ("size", "wait")},
    "base_station.max_wait_s": {"base_station.batch_rule": ("wait",)},
    "base_station.service.path": {"base_station.service.kind": ("table",)},
    **{f"base_station.service.{key}": {"base_station.service.kind": ("fitted",)} for key in FITTED},
    "device.uncertainty_s": {"policy.kind": ("u-hlm",)},
}


def cautions(scenario: Scenario) -> list[str]:
    """Return the sentences to be told, over all points of a sweep."""
    points = [point.scenario for point in sweep_points(scenario)] if scenario.sweep else [scenario]
    of_points = (sentence for point in points for sentence in (*mixed_with_presets(point), *odd_values(point)))
    return [*unread_keys(scenario), *long_work(points), *dict.fromkeys(of_points)]


def long_work(points: list[Scenario]) -> list[str]:
    """Return a sentence where a simulation, or a file to be read, takes minutes without a sign of life."""
    sentences = []
    tokens = max(point.tokens_about for point in points)
    if tokens > LONG_TOKENS:
        sentences.append(
            f"a simulation may commit about {tokens:.1e} tokens, some {tokens / TOKENS_A_MINUTE:,.0f} minutes on one "
            "core; progress counts whole simulations"
        )
    files = {point.traffic.file for point in points if point.traffic.kind == "replay"} - {None}
    for file in sorted(file for file in files if file and os.path.isfile(file)):
        size = Path(file).stat().st_size
        if size > LARGE_BYTES:
            sentences.append(
                f"traffic.file = '{file}': {size / 1e6:,.0f} MB are read first, some seconds for each 10 MB"
            )
    return sentences


def mixed_with_presets(scenario: Scenario) -> list[str]:
    """Return a sentence for each table where some numbers are given and a preset has filled in the others."""
    presets, station = load_presets(), scenario.base_station
    tables: list[tuple[str, Section, str | None, str]] = [
        ("device", scenario.device, scenario.device.slm, "slm"),
        (
            "base_station.service",
            station.service,
            station.llm,
            "llm" if station.service.kind == "fitted" else "roofline",
        ),
    ]
    sentences = []
    for key, section, name, kind in tables:
        preset = presets[kind].get(name or "", {})
        values = {field: getattr(section, field) for field in preset if field in TIMES}
        values = {field: value for field, value in values.items() if value is not None}
        given = [f"{field} = {value:g}" for field, value in values.items() if value != preset[field]]
        filled = [f"{field} = {value:g}" for field, value in values.items() if value == preset[field]]
        if given and filled:
            sentences.append(
                f"{key}: {', '.join(given)} {'is' if len(given) == 1 else 'are'} given, {', '.join(filled)} "
                f"{'comes' if len(filled) == 1 else 'come'} from the preset '{name}'"
            )
    return sentences


def odd_values(scenario: Scenario) -> list[str]:
    """Return a sentence for each number that no cell or machine has, as a wrong unit would make it."""
    sentences = []
    for key, (least, most, what) in USUAL.items():
        value: Any = scenario
        for name in key.split("."):
            value = getattr(value, name)
        if isinstance(value, (int, float)) and value and not least <= value <= most:
            sentences.append(f"{key} = {value:g} is outside {least:g} to {most:g}, what {what}: is its unit right?")
    return sentences


def unread_keys(scenario: Scenario) -> list[str]:
    """Return a sentence for each key that is given, or swept, and has no effect at any point."""
    given = {*_given(scenario), *scenario.sweep} & READERS.keys()
    unread = {key for key in given if not _is_read(key, scenario)}
    if unread and scenario.sweep:
        points = [point.scenario for point in sweep_points(scenario)]
        unread = {key for key in unread if not any(_is_read(key, point) for point in points)}
    return [
        f"{key} has no effect: it belongs to "
        + " or ".join(f"{kind_key} = {', '.join(kinds)}" for kind_key, kinds in READERS[key].items())
        for key in sorted(unread)
    ]


def _given(section: Section, above: str = "") -> Iterator[str]:
    for name in section.model_fields_set:
        value = getattr(section, name)
        yield f"{above}{name}"
        if isinstance(value, Section):
            yield from _given(value, f"{above}{name}.")


def _is_read(key: str, scenario: Scenario) -> bool:
    return any(
        kind in kinds or ":" in kind
        for kind_key, kinds in READERS[key].items()
        for kind in _kinds(scenario, kind_key.split("."))
    )


def _kinds(value: Any, path: list[str]) -> list[str]:
    if isinstance(value, list):
        return [kind for entry in value for kind in _kinds(entry, path)]
    return _kinds(getattr(value, path[0]), path[1:]) if path else [value]
