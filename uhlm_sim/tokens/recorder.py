"""The state of one recording: what is decoded so far, batch by batch, and the header that goes with it."""

import importlib.metadata
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from uhlm_sim.errors import InputError
from uhlm_sim.progress import Progress
from uhlm_sim.tokens.decoding import Answer, decode
from uhlm_sim.tokens.decoding_rule import DecodingRule
from uhlm_sim.tokens.model_checks import check_prompts
from uhlm_sim.tokens.model_pair import ModelPair
from uhlm_sim.tokens.models import load_pair, load_tokenizer
from uhlm_sim.tokens.package_files import PACKAGE_PREFIX
from uhlm_sim.tokens.parts import PartStore
from uhlm_sim.tokens.prompts import Prompt
from uhlm_sim.tokens.quality import Encoder, add_passes, add_quality
from uhlm_sim.tokens.recording_settings import TAIL_LADDER, RecordingSettings
from uhlm_sim.tokens.speculative import LinearLaw, fit_law
from uhlm_sim.tokens.trace import Trace
from uhlm_sim.tokens.trace_file import (
    MOST_ROWS,
    SCHEMA_VERSION,
    Columns,
    PathEntry,
    PromptEntry,
    TraceHeader,
    check_ranges,
    content_digest,
    in_file_order,
    not_known,
    write_trace_file,
)
from uhlm_sim.tokens.tree import AnswerTree

HLM = DecodingRule("hlm")
COMMIT = re.compile("[0-9a-f]{40}")
PACKAGES = ("uhlm-sim", "torch", "transformers", "gguf", "numpy")


class Recorder:
    """What is decoded so far, and the models, loaded when first needed."""

    def __init__(
        self,
        settings: RecordingSettings,
        prompts: list[Prompt],
        identity: dict[str, Any],
        out: Path,
        progress: Progress,
        how_to_make_again: str,
        rules: int,
        missing: int,
        encoder: Encoder | None,
    ) -> None:
        self._settings, self._prompts, self._out = settings, prompts, out
        self._identity, self._progress = identity, progress
        self._how, self._encoder = how_to_make_again, encoder
        self._folder = out.with_name(out.name + ".parts")
        self._pair: ModelPair | None = None
        self._prompt_ids: dict[str, list[int]] = {}
        self._tokenizer: Any = None
        self._rules: list[DecodingRule] = []
        self._columns: list[Columns] = []
        self._have: set[tuple[str, str, float, str]] = set()  # (split, what the rule amounts to)
        self._header: TraceHeader | None = None
        self._splits = {
            split: [i for i, prompt in enumerate(prompts) if prompt.split == split]
            for split in ("calibration", "evaluation")
        }
        self._samples = {"evaluation": settings.samples, "calibration": settings.calibration_samples}
        answers = {split: len(self._splits[split]) * self._samples[split] for split in self._splits}
        most = (answers["calibration"] + answers["evaluation"] * rules) * settings.max_tokens
        if most > MOST_ROWS:
            raise InputError(
                f"{len(prompts)} prompts under {rules} rules may have {most} tokens, at max_tokens = "
                f"{settings.max_tokens}; a trace holds {MOST_ROWS}"
            )
        self._done = 0
        self._total = (
            answers["evaluation"] * missing + answers["calibration"] * (missing == rules)
        ) * settings.max_tokens

    def take_over(self, trace: Trace) -> None:
        """Begin with the paths of a trace that was recorded with the same settings."""
        self._header = trace.header
        self._columns.append(trace.columns)
        self._rules = [entry.rule for entry in trace.header.paths]
        self._have = {("evaluation", *self._amounts(rule)) for rule in self._rules}
        if any(entry.split == "calibration" for entry in trace.header.prompts):
            self._have.add(("calibration", *self._amounts(HLM)))

    def _tell(self, done: int) -> None:
        chosen = self._settings
        self._progress(f"recording in {chosen.dtype} on {chosen.device}", min(done, self._total), self._total)

    def _amounts(self, rule: DecodingRule) -> tuple[str, float, str]:
        return rule.same_as(self._settings.uncertainty_samples)

    def add(self, rules: Sequence[DecodingRule], split: str) -> None:
        """Decode the rules that a split lacks, batch by batch, taking finished batches from the parts."""
        missing: list[DecodingRule] = []
        trees = self._trees(split)
        for rule in rules:
            key = (split, *self._amounts(rule))
            if key not in self._have:
                self._have.add(key)
                missing.append(rule)
                if self._amounts(rule) not in {self._amounts(known) for known in self._rules}:
                    self._rules.append(rule)
        pairs = [(i, sample) for i in self._splits[split] for sample in range(self._samples[split])]
        if not missing or not pairs:
            return
        known = [self._amounts(rule) for rule in self._rules]
        index = np.array([known.index(self._amounts(rule)) for rule in missing])
        size = max(1, self._settings.batch_size // len(missing))
        parts = self._parts()
        for start in range(0, len(pairs), size):
            batch = pairs[start : start + size]
            # Symbolic twins (0.43 and 0.40 on a grid of 20) decode alike, so a part is known by what its
            # rules amount to.
            name = [list(self._amounts(rule)) for rule in missing]
            columns = parts.load(split, name, batch)
            slots = len(batch) * len(missing) * self._settings.max_tokens
            decoded = columns is None
            if columns is None:
                columns = self._decode(batch, missing, trees)
                parts.save(columns, split, name, batch)
            self._done += slots
            if decoded:  # what was there already says nothing of the speed
                self._tell(self._done)
            self._columns.append(columns | {"path": index[columns["path"]]} | not_known(len(columns["path"])))

    def _trees(self, split: str) -> Mapping[str, Mapping[tuple[int, int], AnswerTree]]:
        """Return payload -> (prompt, sample) -> what is recorded already: new answers agree with it where they meet."""
        begun = any((columns["prompt"] < len(self._splits["evaluation"])).any() for columns in self._columns)
        return self.trace().trees if begun and split == "evaluation" else {}

    def _decode(
        self,
        batch: Sequence[tuple[int, int]],
        rules: Sequence[DecodingRule],
        trees: Mapping[str, Mapping[tuple[int, int], AnswerTree]],
    ) -> Columns:
        pair = self._models()
        prompt_ids = [self._prompts[i].id for i, _ in batch]
        answers = [
            Answer(
                i,
                prompt_id,
                sample,
                self._prompt_ids[prompt_id],
                {payload: of_payload[i, sample] for payload, of_payload in trees.items()},
            )
            for prompt_id, (i, sample) in zip(prompt_ids, batch, strict=True)
        ]
        longest = self._settings.max_tokens
        slots = len(answers) * len(rules)
        step = 0

        def on_step(going: int) -> None:
            nonlocal step
            step += 1
            settled = slots * step + (slots - going) * (longest - step)
            self._tell(self._done + settled)

        return decode(pair, answers, rules, self._settings.decoding, on_step)

    def _models(self) -> ModelPair:
        """Return the models; loaded, with all that would fail later looked at, when first needed."""
        if self._pair is None:
            chosen = self._settings
            self._progress("loading the models", 0, 1)
            pair = load_recorded(chosen, self._header)
            self._progress("loading the models", 1, 1)
            self._prompt_ids = {
                prompt.id: pair.encode(prompt.prompt, chosen.system_message, chosen.chat_template)
                for prompt in self._prompts
            }
            check_prompts(pair, self._prompt_ids, chosen.max_tokens)
            self._pair = pair
            header = self._header_now()
            for role, model in (("slm", pair.slm), ("llm", pair.llm)):
                check_same_model(self._out, header, role, model.revision)
            try:
                TraceHeader.from_json(header.to_json())
            except (TypeError, ValueError) as problem:
                raise InputError(f"{self._out}: what is recorded would be no trace: {problem}") from None
        return self._pair

    def _parts(self) -> PartStore:
        pair = self._models()
        return PartStore(self._folder, self._identity | {"revisions": [pair.slm.revision, pair.llm.revision]})

    def law(self) -> LinearLaw | None:
        """Return the law of hlm's tokens on the calibration prompts, None without such prompts."""
        if not self._splits["calibration"]:
            return None
        hlm = [self._amounts(rule) for rule in self._rules].index(self._amounts(HLM))
        table = self._table()
        rows = (table["path"] == hlm) & np.isin(table["prompt"], self._splits["calibration"])
        levels = table["level"][rows] / self._settings.uncertainty_samples
        try:
            return fit_law(levels, table["x_draft"][rows], table["y_draft"][rows])
        except ValueError as problem:
            raise InputError(f"the calibration prompts fit no law: {problem}") from None

    def trace(self) -> Trace:
        """Return what is decoded so far as a trace in memory."""
        header, columns = self._header_now(), self._table()
        ordered = in_file_order(header, columns)
        return Trace(header, ordered, content_digest(header.to_json().encode(), ordered), file=str(self._out))

    def finish(self, *, run_answers: bool) -> Trace:
        """Measure the quality that answers lack, run their code if asked to, write the trace and remove the parts."""
        self._tell(self._total)
        header = self._header_now()
        columns = in_file_order(header, self._table())
        if self._encoder is not None:
            encoder = self._encoder.describe()
            if header.encoder != encoder:
                columns |= not_known(len(columns["path"]))  # numbers of two encoders don't compare
                packages = {**header.packages, **_versions([self._encoder.name.removeprefix(PACKAGE_PREFIX)])}
                header = replace(header, encoder=encoder, packages=packages)
            columns = add_quality(header, columns, self._encoder, self._text, self._progress)
        if run_answers:
            columns = add_passes(header, columns, self._text, self._progress)
        TraceHeader.from_json(header.to_json())  # refuses here what a reader would refuse
        check_ranges(self._out, header, columns)
        write_trace_file(self._out, header, columns)
        shutil.rmtree(self._folder, ignore_errors=True)
        return Trace.read(self._out)

    def _text(self, tokens: list[int]) -> str:
        if self._tokenizer is None:
            self._tokenizer = (
                self._pair.llm.tokenizer
                if self._pair
                else load_tokenizer(self._settings.llm, revision_of("llm", self._settings, self._header))
            )
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True))

    def _table(self) -> Columns:
        return {name: np.concatenate([piece[name] for piece in self._columns]) for name in self._columns[0]}

    def _header_now(self) -> TraceHeader:
        names: list[str] = []
        for rule in self._rules:
            short = str(rule)
            names.append(short if short not in names else rule.name(17))
        paths = tuple(
            PathEntry(name, rule.kind, rule.threshold, rule.skip_rate, rule.payload)
            for name, rule in zip(names, self._rules, strict=True)
        )
        if self._header is not None:
            return replace(self._header, paths=paths)
        pair = self._models()
        chosen = self._settings
        self._header = TraceHeader(
            schema_version=SCHEMA_VERSION,
            models={"slm": pair.slm.describe(), "llm": pair.llm.describe()},
            dtype=chosen.dtype,
            temperature=chosen.temperature,
            uncertainty_samples=chosen.uncertainty_samples,
            theta_law=chosen.theta_law,
            vocabulary_size=pair.vocabulary_size,
            max_tokens=chosen.max_tokens,
            samples=chosen.samples,
            seed=chosen.seed,
            prompts_sha256=self._identity["prompts_sha256"],
            packages=_versions([*PACKAGES, *(m.removeprefix(PACKAGE_PREFIX) for m in (chosen.slm, chosen.llm))]),
            how_to_make_again=self._how or "uhlm_sim.tokens.recording.record with the settings below",
            paths=paths,
            prompts=tuple(PromptEntry(**vars(p), tokens=len(self._prompt_ids[p.id])) for p in self._prompts),
            tail_ladder=TAIL_LADDER,
            settings=self._identity,
        )
        return self._header


def revision_of(role: str, settings: RecordingSettings, header: TraceHeader | None) -> str | None:
    """Return which revision of a hub model to load: the commit that a trace was begun with, else the settings'."""
    begun = "" if header is None else str(header.models[role].get("revision"))
    asked: str | None = getattr(settings, f"{role}_revision")
    return begun if COMMIT.fullmatch(begun) else asked


def load_recorded(settings: RecordingSettings, header: TraceHeader | None) -> ModelPair:
    """Load a recording's models, at the revisions of `revision_of`."""
    return load_pair(
        settings.slm,
        settings.llm,
        slm_drop_layers=settings.slm_drop_layers,
        dtype=settings.dtype,
        device=settings.device,
        slm_revision=revision_of("slm", settings, header),
        llm_revision=revision_of("llm", settings, header),
    )


def check_same_model(out: Path, header: TraceHeader, role: str, revision: str | None) -> None:
    """Raise InputError if a trace holds tokens of other files than a model now has; None: not known."""
    begun = header.models[role].get("revision")
    if revision is not None and revision != begun:
        raise InputError(
            f"trace {out} was recorded with another {role} '{header.models[role]['name']}': its files were {begun} and "
            f"are {revision}; name another file, or remove it to record it anew"
        )


def _versions(packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of those packages that are installed; a hub name or a folder is no package."""
    versions: dict[str, str] = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except (importlib.metadata.PackageNotFoundError, ValueError):
            continue
    return versions
