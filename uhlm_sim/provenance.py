"""Provenance: the inputs of a run, and every assumption behind its figures, in sentences."""

import hashlib
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from uhlm_sim.analysis.measures.energy import powers_of
from uhlm_sim.cell.phones.policies import UNCERTAINTY, ReadyPolicy
from uhlm_sim.cell.phones.population import population
from uhlm_sim.cell.phones.request_file import rows_of
from uhlm_sim.cell.radio.fading import recording_of
from uhlm_sim.citations import citations
from uhlm_sim.names import load_presets
from uhlm_sim.scenario import Payload, Scenario, SyntheticTokens
from uhlm_sim.seams import Named
from uhlm_sim.settings.device_class import class_sizes
from uhlm_sim.tokens.messages import upload_bits
from uhlm_sim.tokens.token_set import TokenSet
from uhlm_sim.version import VERSION

PACKAGES = ("simpy", "numpy", "scipy", "pandas", "pyarrow", "joblib", "pydantic")


def provenance(
    scenario: Scenario,
    tokens: TokenSet,
    policies: list[ReadyPolicy],
    functions: Iterable[Named],
    clamped_uploads: list[int],
    wall_s: float,
) -> dict[str, Any]:
    """Return the contents of `provenance.json`: plain values only. `functions` are those whose papers are cited."""
    presets = load_presets()
    llm_table = {"roofline": "roofline", "table": ""}.get(scenario.base_station.service.kind, "llm")
    return {
        "version": VERSION,
        "git_revision": git_revision(),
        "seed": scenario.seed,
        "wall_s": round(wall_s, 3),
        "machine": f"{platform.system()} {platform.machine()}, Python {sys.version.split()[0]}",
        "packages": {name: metadata.version(name) for name in PACKAGES},
        **tokens.provenance(),
        "policies": [
            {
                "label": policy.label,
                "kind": policy.kind,
                "exact": policy.exact,
                "path": policy.recorded,
                "threshold": policy.threshold,
                **({} if policy.gate == UNCERTAINTY else {"gate": policy.gate}),
                **({} if policy.price_s is None else {"price_s": policy.price_s}),
                "skip_rate": policy.skip_rate,
                "clamped_uploads": clamped,
                "words": policy.words,
            }
            for policy, clamped in zip(policies, clamped_uploads, strict=True)
        ],
        "presets": [
            {"key": key, "name": name, "source": _source(presets[kind][name], used.model_dump())}
            for key, kind, name, used in (
                ("device.slm", "slm", scenario.device.slm, scenario.device),
                *(
                    (f"device_class.{group.name}.slm", "slm", group.slm, group.device(scenario.device))
                    for group in scenario.device_class
                ),
                ("base_station.llm", llm_table, scenario.base_station.llm, scenario.base_station.service),
            )
            if name is not None and kind in presets and name in presets[kind]
        ],
        "assumptions": assumptions(scenario, tokens, policies, sum(clamped_uploads)),
        "references": [
            {"text": paper.text, "used_for": list(paper.used_for), "bibtex": paper.bibtex}
            for paper in citations(functions)
        ],
    }


def _source(preset: Mapping[str, Any], used: Mapping[str, Any]) -> str:
    """Return a preset's source, and which of its values the scenario overrides."""
    others = [f"{key} = {used[key]:g}" for key, value in preset.items() if key in used and used[key] != value]
    source = f"{preset['source']}."
    return f"{source} Not from there, but given in the scenario: {', '.join(others)}." if others else source


def git_revision() -> str | None:
    """Return the checkout's commit, with a + if files differ from it; None outside a checkout."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return None
    try:
        outputs = [
            subprocess.run(["git", "-C", str(root), *ask], capture_output=True, text=True, check=True).stdout
            for ask in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        ]
    except (OSError, subprocess.CalledProcessError):
        return None
    return outputs[0].strip() + ("+" if outputs[1].strip() else "")


def _weight(payload: Payload, vocabulary_size: int, bill: str) -> str:
    most = "at most " if payload.most_loss is not None else ""
    return f"{most}{upload_bits(payload, vocabulary_size, bill=bill):,.0f} bits"


def assumptions(scenario: Scenario, tokens: TokenSet, policies: list[ReadyPolicy], clamped: int) -> list[str]:
    """Return the assumptions behind the figures of this run, as sentences."""
    channel, uplink, station = scenario.channel, scenario.uplink, scenario.base_station
    payload, own_vocabulary = uplink.payload, policies[0].source.vocabulary_size
    vocabulary = scenario.tokens.vocabulary_size or own_vocabulary
    matched = any(policy.skip_rate == "matched" for policy in scenario.policy)
    of_preset = load_presets()["llm"].get(station.llm or "", {}).get("vocabulary_size", own_vocabulary)
    sentences = [
        f"Verification times are those of {station.llm}, whose vocabulary has {of_preset:,} tokens; that of the models "
        f"whose tokens are played has {own_vocabulary:,}. Times and tokens are of different pairs: compare policies, "
        "not machines."
    ] * (of_preset != own_vocabulary and not isinstance(scenario.tokens, SyntheticTokens))
    sentences += [
        f"Metrics are cut by time: tokens count by when they are committed, requests by when they arrive, both "
        f"in [{scenario.warmup_s:g}, {scenario.duration_s:g}] s; the tables hold the whole run, which stops "
        f"hard at its end. The warm-up of {scenario.warmup_s:g} s is the scenario's, not estimated.",
        "TTFT ends when the first token is at the device, and begins when the request arrives there; with "
        "open arrivals that includes waiting for the phone, which answers one request at a time.",
        "Throughput comes in both readings of the literature: 1/mean(delay) is token_throughput_per_device, "
        "mean(1/delay) is mean_token_rate; token_throughput is what all phones together commit.",
        *tokens.assumptions(scenario.traffic.max_tokens, matched=matched),
        (
            f"An upload carries {vocabulary:,} probabilities of {payload.bits_per_probability} bits"
            + (f", each with an index of {payload.bits_per_index} bits" if payload.bits_per_index else "")
            if payload.kind == "full"
            else f"A draft's upload has {_weight(payload, vocabulary, 'paper')} ({payload.label})"
        )
        + ("." if vocabulary == own_vocabulary else ", billed for another vocabulary than the trace's."),
    ]
    sentences += [
        f"A draft's upload of {policy.label} has {_weight(policy.payload or payload, vocabulary, policy.bill)}."
        for policy in scenario.policy
        if policy.payload is not None or policy.bill != "paper"
    ]
    sentences += [
        f"{policy.label} is teacher-forced where its own tokens were never recorded: an unknown prefix goes on from "
        "HLM's of that length, and an unknown draft or verdict of its payload is that of a whole distribution. "
        "exact_share tells how many tokens were its own. What depends on its own text, as its quality, is left empty."
        for policy in policies
        if not policy.exact
    ]
    shannon = uplink.link.kind == "shannon"
    if channel.kind == "constant":
        sentences.append("The channel is constant at its mean SNR: no fading.")
    elif channel.coherence_s == "per-upload":
        sentences.append(
            f"Each upload has one gain for all its time; its SNR is clamped at {channel.min_snr_db:g} dB, since the "
            f"mean upload time would not exist without a floor. {clamped:,} uploads were clamped."
        )
    else:
        sentences.append(
            f"Fading ({channel.kind}) is constant for {channel.coherence_s:g} s at a time, in blocks that begin "
            f"together for all phones"
            + (f"; below {channel.min_snr_db:g} dB nothing is sent." if shannon else ", looked at once a slot.")
        )
    if channel.kind == "trace":
        sentences.append(_of_the_recording(scenario))
    sentences += [
        _of_the_link(scenario),
        "The SNR is that of the power density, whatever share of the band a phone has (per-hertz)."
        if uplink.snr_rule == "per-hertz"
        else "A phone puts all its power into its share of the band: the SNR grows as the share shrinks "
        "(power-limited).",
        "Skipped ids reach the LLM on the next upload and are processed with it (piggyback)."
        if station.sync == "piggyback"
        else "Skipped ids, and the prompts of what phones draft, reach the LLM at no cost (free), as in the paper; the "
        "LLM alone is sent its prompts.",
        f"The downlink takes {station.downlink_s:g} s a token, whatever the load."
        if scenario.downlink.kind == "constant"
        else f"Answers share a downlink of {scenario.downlink.bandwidth_hz:g} Hz, then take {station.downlink_s:g} s.",
        *about_traffic(scenario),
        *about_energy(scenario),
    ]
    return sentences + _of_the_gpus(scenario)


def _of_the_recording(scenario: Scenario) -> str:
    """Say which recording is played, how long it is, and that it repeats."""
    channel, file = scenario.channel, Path(str(scenario.channel.params["path"]))
    blocks, columns = recording_of(scenario).shape
    lasts_s = blocks * float(channel.coherence_s)
    whose = "one for all phones, each from a block of its own on" if columns == 1 else "a column each phone"
    rates = (
        " Its rates, of the whole band, are taken as the SNR that gives them."
        if channel.params.get("unit") == "mbit/s"
        else ""
    )
    return (
        f"The gains are recorded: {file.name} (SHA-256 {hashlib.sha256(file.read_bytes()).hexdigest()[:16]}) has "
        f"{blocks:,} blocks, {lasts_s:g} s, {whose}, and repeats: the run is {scenario.duration_s / lasts_s:.3g} times "
        f"as long.{rates}"
    )


def _of_the_link(scenario: Scenario) -> str:
    """Describe the link of the uplink."""
    channel, link = scenario.channel, scenario.uplink.link
    if link.kind == "shannon":
        return (
            f"Rate per hertz is log2(1 + SNR / gap) with a gap of {channel.snr_gap_db:g} dB, at most "
            f"{channel.max_spectral_efficiency:g} bit/s/Hz; there are no block errors."
        )
    aim = f"a target of {link.target_block_error:g}" + (", met by an outer loop" if link.outer_loop else "")
    return (
        f"Uploads go in blocks, one a phone and slot of {scenario.uplink.tti_s:g} s, with modulation and coding by the "
        f"SNR of {link.csi_delay_s:g} s ago and {aim}. A block that fails is sent again {link.harq_round_trip_slots} "
        f"slots after and combined, {link.max_transmissions} transmissions at most; {100 * link.overhead:.0f} % of a "
        "slot carry no data."
    )


def _of_the_gpus(scenario: Scenario) -> list[str]:
    """Describe where verification times come from, and what the GPUs remember."""
    station, service = scenario.base_station, scenario.base_station.service
    sentences = []
    if service.kind == "roofline":
        sentences.append(
            "Verification times are a roofline: a step reads all weights once, or computes 2 FLOP a parameter and "
            f"position, the first {station.max_batch} positions as in decoding and others as in prefill, whichever "
            "takes longer; attention, launches and imperfect bandwidth are left out, so they are optimistic."
        )
    elif service.kind == "table":
        sentences.append(
            f"Verification times come from the table {Path(str(service.path)).name}: straight lines between its rows, "
            "the first row's seconds below it, and beyond the last its last slope, an extrapolation."
        )
    elif service.kind != "fitted":
        sentences.append(f"Verification times are drawn by the user's own code, {service.kind}.")
    elif service.max_fitted_tokens is not None:
        sentences.append(
            f"Verification times are fitted up to {service.max_fitted_tokens} new tokens a batch and extrapolated "
            "beyond."
        )
    if scenario.tokens.context_tokens:
        sentences.append(
            f"Before every prompt stand {scenario.tokens.context_tokens:,} positions that cost time and bits as a "
            "prompt's do, though the recorded answers are those without."
        )
    if station.kv_capacity_tokens is not None:
        together = ", and they share them" if station.gpus > 1 and station.queue == "shared" else ""
        whose = "" if station.limits_memory else " (0.9 of its memory less the weights)"
        unless = "" if station.limits_memory else " Where the phones can't fill that, memory isn't simulated."
        sentences.append(
            f"Each GPU remembers {station.kv_capacity_tokens:,} positions{whose}{together}; whoever is evicted is "
            f"processed again from the prompt on with its next job.{unless}"
        )
    elif station.gpus > 1:
        sentences.append("Every GPU is taken to remember every request: a job goes to any of them at no cost.")
    return sentences


def about_traffic(scenario: Scenario) -> list[str]:
    """Describe traffic beyond the defaults: bursts, a request file, presence, device classes."""
    traffic, sentences = scenario.traffic, []
    if traffic.kind == "bursty" and traffic.burst is not None:
        burst = traffic.burst
        whose = "all phones have the same bursts" if burst.of == "cell" else "each phone has bursts of its own"
        sentences.append(
            f"Requests come in bursts of {burst.mean_burst_s:g} s at {burst.factor:g} times the mean rate, between "
            f"calms of {burst.mean_calm_s:g} s at {burst.calm_factor:.3g} times it, both exponential; {whose}."
        )
    if traffic.kind == "replay" and traffic.file is not None:
        rows = rows_of(traffic)
        longer = int((rows.output_tokens > traffic.max_tokens).sum())
        within = int((rows.arrived_s <= scenario.duration_s).sum())
        sentences.append(
            f"Requests are the {len(rows):,} of {Path(traffic.file).name} (SHA-256 {rows.digest[:16]}), "
            f"{rows.words}; {within:,} arrive within the run. Prompts are billed by the file's tokens; answers are "
            f"recorded ones that are long enough, cut to the file's. {longer:,} rows ask for more than max_tokens = "
            f"{traffic.max_tokens} and are cut there."
        )
    elif ":" in traffic.kind:
        sentences.append(f"Requests come as the user's own code says, {traffic.kind}.")
    if traffic.presence is not None:
        there = traffic.presence
        sentences.append(
            f"Phones are on the cell for {there.mean_present_s:g} s and away for {there.mean_absent_s:g} s in the "
            "mean, both exponential. What they would ask while away is lost to the cell; an answer begun is finished."
        )
    sizes = class_sizes(scenario.device_class, traffic.devices)
    classes = [
        f"{count} {device_class.name}" + (f", always under {device_class.policy}" if device_class.policy else "")
        for device_class, count in zip(scenario.device_class, sizes, strict=True)
    ]
    return sentences + ([f"Phones by class: {'; '.join(classes)}."] if classes else [])


def about_energy(scenario: Scenario) -> list[str]:
    """Say which energy is counted; nothing where no phone's power is known."""
    groups = population(scenario)
    powers = powers_of(scenario, [who.group for who in groups])
    if powers is None:
        return []
    phones = sorted({f"{power:g} W" if power == power else "an unknown power" for power in powers.device_w})
    radio, station = scenario.device.radio, scenario.base_station
    sentences = [f"A phone draws {' or '.join(phones)} while it computes, and nothing is counted while it waits."]
    if radio is None:
        sentences.append("What the radio draws isn't known, so it isn't counted and no total is given.")
    else:
        share = (
            "all of it whatever its share of the band"
            if powers.power_limited
            else "times its share of the band, the power density being fixed"
        )
        geometry = scenario.channel.geometry
        controlled = geometry is not None and geometry.p0_dbm is not None
        power = f"{'what power control asks, at most ' if controlled else ''}{scenario.transmit_power_w:.3g} W"
        sentences.append(
            f"A phone that sends radiates {power}, {share}, from an amplifier with an "
            f"efficiency of {radio.amplifier_efficiency:g}; the radio's circuits draw {radio.circuit_power_w:g} W. An "
            "upload in outage that holds its share counts as sending."
        )
    if station.gpu_power_w is None:
        sentences.append("What a GPU draws isn't known, so it isn't counted and no total is given.")
    else:
        idle = (
            "nothing while it waits"
            if station.gpu_idle_power_w is None
            else f"{station.gpu_idle_power_w:g} W while it waits, shared by all tokens"
        )
        sentences.append(
            f"A GPU counts {station.gpu_power_w:g} W while it serves, shared by the jobs of its batch, and {idle}. A "
            "preset's figure is the thermal design power: an upper bound."
        )
    return sentences
