"""Record a trace: decode every prompt under every rule with two real models, resumably, into one file.

Three stages, since a rule may depend on what the one before found: hlm on the calibration prompts gives the two
thresholds; all rules then answer the evaluation prompts; rand-hlm "matched" comes last, at the skip rate that its u-hlm
rule had there.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from uhlm_sim.errors import InputError
from uhlm_sim.progress import Progress, no_progress
from uhlm_sim.tokens.answer_checks import check_machine
from uhlm_sim.tokens.decoding_rule import DecodingRule
from uhlm_sim.tokens.models import content_revision
from uhlm_sim.tokens.parts import check_writable
from uhlm_sim.tokens.prompts import Prompt, read_prompts
from uhlm_sim.tokens.quality import is_scored, load_encoder, unchecked
from uhlm_sim.tokens.recorder import HLM, Recorder, check_same_model
from uhlm_sim.tokens.recording_settings import RecordingSettings, RuleRequest, recording_identity, resolve_rule
from uhlm_sim.tokens.trace import Trace

__all__ = ["RecordingSettings", "RuleRequest", "record", "resolve_rule"]


def record(
    settings: RecordingSettings,
    rules: Sequence[RuleRequest],
    out: str | Path,
    progress: Progress = no_progress,
    how_to_make_again: str = "",
    *,
    run_answers: bool = False,
) -> Trace:
    """Decode what ``out`` lacks of the rules' paths, measure its answers' quality, and write it; return the trace.

    Finished batches lie in ``<out>.parts`` until all are done, so a killed recording goes on where it
    stopped. A trace that is there already with the same settings and models only gains paths and the quality that it
    lacks, or has of other references; its tokens stay. With ``run_answers`` the code of answers whose prompts have
    checks RUNS on this machine (see `answer_checks.py`), once and never at replay.

    ``progress`` is told that the models are loaded, then tokens done and to do, an answer that ends early counting as
    done, and then the same of texts for their quality, and of programs as they are run. Raises InputError for bad
    settings, prompts, models or encoder, and where ``out`` can't be written or holds something else.
    """
    out = Path(out)
    prompts = read_prompts(settings.prompts)
    check_writable(out)
    on_disk = Trace.read(out) if out.exists() else None
    settings = settings.here(None if on_disk is None else on_disk.header.settings)
    identity = recording_identity(settings, prompts)
    if on_disk is not None:
        _check_same(on_disk, settings, identity)
    existing = None if on_disk is None else _with_references(on_disk, prompts)
    in_all = len(rules) + all(request.kind != "hlm" or request.payload for request in rules)  # hlm is always recorded
    missing = in_all if existing is None else sum(not _is_there(request, existing, rules) for request in rules)
    if (
        existing is not None
        and existing is on_disk
        and not missing
        and is_scored(existing.header, existing.columns, settings.encoder)
        and not (run_answers and unchecked(existing.header, existing.columns).any())
    ):
        return existing
    encoder = load_encoder(settings.encoder)  # before anything is decoded: it may be missing
    if run_answers:
        check_machine()
    work = Recorder(settings, prompts, identity, out, progress, how_to_make_again, in_all, missing, encoder)
    if existing is not None:
        work.take_over(existing)
    work.add([HLM], "calibration")
    law = work.law()

    def no_rate(rule: DecodingRule) -> float:
        raise AssertionError(f"the skip rate of {rule} is asked for before it is measured")

    known = [resolve_rule(request, law, no_rate, rules) for request in rules if request.skip_rate != "matched"]
    work.add([HLM, *known], "evaluation")
    matched = [request for request in rules if request.skip_rate == "matched"]
    if matched:
        measured = work.trace()
        work.add([resolve_rule(request, law, measured.skip_rate, rules) for request in matched], "evaluation")
    return work.finish(run_answers=run_answers)


def _check_same(trace: Trace, settings: RecordingSettings, identity: dict[str, Any]) -> None:
    """Raise InputError unless a trace was recorded with these settings and models, wherever they were computed."""
    out = Path(trace.file)
    differ = sorted(
        key
        for key in {*identity, *trace.header.settings} - {"device"}
        if identity.get(key) != trace.header.settings.get(key)
    )
    if differ:
        raise InputError(
            f"trace {out} was recorded with other settings ({', '.join(differ)}); "
            "name another file, or remove it to record it anew"
        )
    revisions = {name: content_revision(name) for name in {settings.slm, settings.llm}}
    for role, name in (("slm", settings.slm), ("llm", settings.llm)):
        check_same_model(out, trace.header, role, revisions[name])


def _with_references(trace: Trace, prompts: Sequence[Prompt]) -> Trace:
    """Return a trace with these prompts' references, checks and categories, quality unknown where they are others.

    The tokens stay: no model has seen them. Without a change it is the trace itself.
    """
    entries = tuple(
        replace(entry, category=prompt.category, reference=prompt.reference, checks=prompt.checks)
        for entry, prompt in zip(trace.header.prompts, prompts, strict=True)
    )
    if entries == trace.header.prompts:
        return trace
    columns = dict(trace.columns)
    for name, of_it in (("quality_cosine_reference", "reference"), ("task_passed", "checks")):
        pairs = zip(entries, trace.header.prompts, strict=True)
        changed = np.array([getattr(new, of_it) != getattr(old, of_it) for new, old in pairs])
        columns[name] = np.where(changed[columns["prompt"]], np.float32(np.nan), columns[name])
    return Trace(replace(trace.header, prompts=entries), columns, trace.digest, file=trace.file)


def _is_there(request: RuleRequest, trace: Trace, requests: Sequence[RuleRequest]) -> bool:
    fitted = any(isinstance(value, str) for other in requests for value in (other.threshold, other.match))
    law = trace.law() if fitted else None
    return trace.find(resolve_rule(request, law, trace.skip_rate, requests)) is not None
