"""Every name that a scenario may use, by its key, for `uhlm-sim list`, the reference pages and the tests."""

import tomllib
from collections.abc import Callable, Iterator
from typing import Any

from uhlm_sim.cell.named import SEAMS
from uhlm_sim.names import load_presets, scenario_folder
from uhlm_sim.tokens.package_files import PACKAGE_PREFIX, joined_models
from uhlm_sim.tokens.trace_file import BUILT_IN, TraceHeader, read_trace_header

PRESETS = {
    "slm": "device.slm",
    "llm": "base_station.llm",
    "roofline": 'base_station.llm with service.kind = "roofline"',
}

PAYLOADS = {
    "full": "An upload carries the whole vocabulary's probabilities.",
    "top-k": "It carries the k largest with their ids; the LLM spreads the rest evenly.",
    "truncated": "It carries the k largest, from which the draft is drawn.",
    "quantised": "It carries all, rounded to multiples of 1/levels, from which the draft is drawn.",
    "ids": "It carries the draft's id and probability; the phone itself replaces a refused draft.",
}
REPLACED_BY = {
    "phone": "The LLM's distribution comes down after a refusal, and the phone draws from the residual.",
    "base-station": "The LLM commits a token of its own, so the answer isn't the LLM's in law.",
}
# Words that a key takes and that name no code: key -> word -> what it means. A test holds them against the schema.
WORDS: dict[str, dict[str, str]] = {
    "tokens.kind": {
        "trace": "Replay the tokens of a recorded trace.",
        "models": "Decode the prompts with two real models, keep the trace, and replay it.",
        "live": "Record HLM's answers for the laws, and decode each prefix when a policy comes to it.",
        "synthetic": "Draw u and beta from a law that is fitted to published statistics.",
    },
    "tokens.prompts": {
        "built-in": 'The instructions that come with the package, for tokens.kind = "models" or "live".',
        "coding": "60 programming problems with checks and 60 of these instructions; half as many for calibration.",
    },
    "tokens.encoder": {"none": 'Leave the quality of answers unmeasured, for tokens.kind = "models" or "live".'},
    "tokens.dtype": {
        "auto": "As the trace has it that is there; else bfloat16 where the hardware computes in it, else float32.",
        "float32": "Weights and passes in 32 bits.",
        "bfloat16": "In 16 bits with the range of float32.",
        "float16": "In 16 bits with a smaller range and finer steps.",
    },
    "tokens.theta_law": {
        "uniform": "Perturbed temperatures behind u are uniform on (0, 2).",
        "grid": "They are linspace(0, 2, K).",
    },
    "tokens.length_law": {
        "fixed": "Every synthetic answer has answer_tokens tokens.",
        "geometric": "Its length is geometric with that mean.",
    },
    "policy.threshold": {
        "risk-averse": "The largest u at which the fitted law predicts no rejection, -b / a.",
        "risk-prone": "The u at which it predicts a rejection with probability Delta, (Delta - b) / a.",
    },
    "policy.skip_rate": {"matched": "Skip as often as the policy that `match` names, the first u-hlm if unset."},
    "traffic.time_unit": {
        "s": "Arrivals in a request file are seconds.",
        "ms": "They are milliseconds.",
        "us": "They are microseconds.",
    },
    "traffic.burst.of": {
        "device": "Each phone has bursts of its own.",
        "cell": "All phones have the same bursts.",
    },
    "channel.mean_snr_db": {
        "recorded": 'The mean of the recording, for channel.kind = "trace".',
        "geometry": "From each phone's place, see [channel.geometry].",
    },
    "channel.coherence_s": {"per-upload": "One gain for a whole upload, drawn anew for the next."},
    "channel.geometry.shape": {
        "disc": "Phones fall evenly on a disc around the base station.",
        "hexagon": "They fall on a hexagon around it.",
    },
    "channel.geometry.sight": {
        "drawn": "Line of sight by its probability at the phone's distance.",
        "always": "Every phone sees the base station.",
        "never": "No phone sees it.",
    },
    "uplink.snr_rule": {
        "per-hertz": "Power density is fixed: the SNR is the same in any share of the band.",
        "power-limited": "A phone puts its whole power into its share, so less band has a higher SNR.",
    },
    "policy.draft_tokens": {
        "best": "The window with the largest speed-up by TK-SLT's formula.",
        "learnt": "Each phone learns the window that takes the least time a token.",
        "confident": "A window ends with the first draft of more doubt than hlm's threshold.",
    },
    "policy.gate": {
        "uncertainty": "u: how often perturbed samples differ from the draft.",
        "entropy": "The entropy of the SLM's distribution, over its most.",
        "top1": "1 minus the SLM's largest probability.",
        "margin": "1 minus the difference of its two largest probabilities.",
    },
    "policy.bill": {
        "paper": "An upload has the bits that the payload's paper counts.",
        "all": "And those of the draft's own id and of the entries, where the paper leaves them out.",
    },
    "uplink.payload.kind": PAYLOADS,
    "policy.payload.kind": PAYLOADS,
    "uplink.payload.replaced_by": REPLACED_BY,
    "policy.payload.replaced_by": REPLACED_BY,
    "downlink.kind": {
        "constant": "An answer takes base_station.downlink_s, whatever the load.",
        "shared": "Answers have bits and drain through a band of their own first.",
    },
    "downlink.on_resample": {
        "id": "A replaced draft costs the new token's id.",
        "distribution": "It costs a distribution, as uplink.payload bills it.",
    },
    "base_station.queue": {
        "shared": "One queue for all GPUs: whichever is free takes its next batch from it.",
        "join-shortest": "One queue for each GPU: a job joins the shortest, of equals the first.",
    },
    "base_station.sync": {
        "piggyback": "Ids of skipped tokens ride on the next upload, and the LLM processes them then.",
        "free": "They, and the prompts of what phones draft, reach the LLM at no cost.",
    },
}


def names_and_lines() -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (heading, {name: one line}) for everything that a scenario or a command may name.

    Raises TraceError for a built-in trace that is damaged.
    """
    files = sorted(scenario_folder().glob("*.toml"))
    yield (
        "Scenarios",
        {file.stem: str(tomllib.loads(file.read_text(encoding="utf-8")).get("description", "")) for file in files},
    )
    for table, key in PRESETS.items():
        yield f"Presets for {key}", {name: str(preset["source"]) for name, preset in load_presets()[table].items()}
    traces = {file.stem: read_trace_header(file) for file in sorted(BUILT_IN.glob("*.parquet"))}
    yield "Traces for tokens.path", {name: _of_trace(header) for name, header in traces.items()}
    pieces = {f"{PACKAGE_PREFIX}{name}": f"{model.what}." for name, model in joined_models().items()}
    yield "Models for tokens.slm and tokens.llm, in packages", pieces
    for seam in SEAMS:
        functions = {name: one_line(function) for name, function in seam.functions.items()}
        yield f"{seam.heading}, {', '.join(seam.keys)}", functions
    for key, words in WORDS.items():
        yield f"Words for {key}", words


def one_line(kind: Callable[..., Any]) -> str:
    """Return the first line of a kind's docstring."""
    return (kind.__doc__ or "").strip().splitlines()[0]


def _of_trace(header: TraceHeader) -> str:
    """Say which pair was recorded, and how much of it."""
    models = [header.models[role] for role in ("llm", "slm")]
    llm, slm = (
        model["name"] + (f" less {len(model['dropped_layers'])} layers" if model.get("dropped_layers") else "")
        for model in models
    )
    return f"LLM {llm}, SLM {slm}: {len(header.prompts)} prompts, {len(header.paths)} recorded paths."
