"""Record a trace: decode every prompt under every rule with two real models, resumably, into one file.

Three stages, since a rule may depend on what the one before found: hlm on the calibration prompts gives the
two thresholds; all rules then answer the evaluation prompts; rand-hlm "matched" comes last, at the skip rate
that its u-hlm rule had there.
"""

import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from uhlm_sim.errors import InputError
from uhlm_sim.tokens.decoding import Answer, DecodingSettings, decode
from uhlm_sim.tokens.models import PACKAGE_PREFIX, ModelPair, load_pair
from uhlm_sim.tokens.parts import PartStore
from uhlm_sim.tokens.prompts import Prompt, prompts_digest, read_prompts
from uhlm_sim.tokens.rules import DecodingRule, RuleKind
from uhlm_sim.tokens.speculative import LinearLaw, ThetaLaw, fit_law
from uhlm_sim.tokens.trace import Trace
from uhlm_sim.tokens.trace_file import (
    SCHEMA_VERSION,
    Columns,
    PathEntry,
    PromptEntry,
    TraceHeader,
    content_digest,
    in_file_order,
    write_trace_file,
)

Progress = Callable[[int, int], None]
HLM = DecodingRule("hlm")
TAIL_LADDER = (3, 10, 30, 100, 300, 1000)
PACKAGES = ("uhlm-sim", "torch", "transformers", "gguf", "numpy")


@dataclass(frozen=True)
class RecordingSettings:
    """What to record with. Everything but ``batch_size`` decides the tokens, and is kept in the trace's header.

    ``slm`` and ``llm`` are hub names, folders, GGUF files or package:<name>; ``prompts`` a JSONL file or
    "built-in" for the built-in set; ``samples`` answers to each evaluation prompt and ``calibration_samples`` to each
    calibration prompt; ``batch_size`` the most prefixes decoded side by side (memory and speed only).
    """

    slm: str
    llm: str
    slm_drop_layers: tuple[int, ...] = ()
    dtype: str = "float32"
    device: str = "cpu"
    temperature: float = 1.0
    uncertainty_samples: int = 20
    theta_law: ThetaLaw = "uniform"
    prompts: str | None = "built-in"
    samples: int = 1
    calibration_samples: int = 2
    max_tokens: int = 128
    seed: int = 1
    batch_size: int = 256

    def __post_init__(self) -> None:
        """Raise InputError, naming the value and what is allowed, where one is out of range."""
        limits: dict[str, tuple[float, float]] = {
            "temperature": (0, 10),
            "uncertainty_samples": (1, 250),
            "samples": (1, 255),
            "calibration_samples": (1, 255),
            "max_tokens": (1, 8192),
            "seed": (0, 2**63 - 1),
            "batch_size": (1, 65536),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"{name} = {value}; it must lie in [{low:g}, {high:g}]")
        if self.theta_law not in ("uniform", "grid"):
            raise InputError(f"theta_law = '{self.theta_law}' is not one of uniform, grid")

    @property
    def decoding(self) -> DecodingSettings:
        return DecodingSettings(
            seed=self.seed,
            temperature=self.temperature,
            uncertainty_samples=self.uncertainty_samples,
            theta_law=self.theta_law,
            max_tokens=self.max_tokens,
            tail_ladder=TAIL_LADDER,
        )


@dataclass(frozen=True)
class RuleRequest:
    """A decoding rule whose number may still have to be found.

    ``threshold`` is a number, "risk-averse" or "risk-prone"; ``skip_rate`` a number or "matched", then to the
    u-hlm rule whose threshold is ``match`` (None: the first u-hlm rule asked for).
    """

    kind: RuleKind
    threshold: float | Literal["risk-averse", "risk-prone"] | None = None
    skip_rate: float | Literal["matched"] | None = None
    match: float | Literal["risk-averse", "risk-prone"] | None = None


def resolve_rule(
    request: RuleRequest,
    law: LinearLaw | None,
    skip_rate: Callable[[DecodingRule], float],
    requests: Sequence[RuleRequest] = (),
) -> DecodingRule:
    """Return the rule with its numbers: of a trace, ``trace.calibration().law`` and ``trace.skip_rate``.

    ``requests`` are all rules asked for, among which a matched rand-hlm finds its u-hlm rule. Raises
    InputError if it finds none, or if a fitted threshold is asked for without a law (no calibration prompts).
    """
    if request.skip_rate == "matched":
        match = request.match
        if match is None:
            match = next((other.threshold for other in requests if other.kind == "u-hlm"), None)
        if match is None:
            raise InputError("rand-hlm with skip_rate = 'matched' needs a u-hlm rule to match")
        return DecodingRule("rand-hlm", skip_rate=skip_rate(_u_hlm(match, law)))
    if request.kind == "u-hlm" and request.threshold is not None:
        return _u_hlm(request.threshold, law)
    return DecodingRule(request.kind, skip_rate=request.skip_rate)


def _u_hlm(threshold: float | str, law: LinearLaw | None) -> DecodingRule:
    if not isinstance(threshold, str):
        return DecodingRule("u-hlm", threshold=threshold)
    if law is None:
        raise InputError(
            f"threshold = '{threshold}' is fitted on prompts of the split 'calibration', and there are none"
        )
    return DecodingRule("u-hlm", threshold=law.risk_averse if threshold == "risk-averse" else law.risk_prone)


def record(
    settings: RecordingSettings,
    rules: Sequence[RuleRequest],
    out: str | Path,
    progress: Progress = lambda *_: None,
    how_to_make_again: str = "",
) -> Trace:
    """Decode what ``out`` lacks of the rules' paths and write it; return the trace.

    Finished batches lie in ``<out>.parts`` until all are done, so a killed recording goes on where it
    stopped. A trace that is there already with the same settings only gains paths. ``progress`` is told
    tokens done and to do, an answer that ends early counting as done. Raises InputError for bad settings,
    prompts or models, and where ``out`` holds something else.
    """
    out = Path(out)
    prompts = read_prompts(settings.prompts)
    identity = recording_identity(settings, prompts)
    existing = _existing(out, identity)
    if existing is not None and all(_is_there(request, existing, rules) for request in rules):
        return existing
    work = _Recorder(settings, prompts, identity, out, progress, how_to_make_again, len(rules))
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
    return work.finish()


def recording_identity(settings: RecordingSettings, prompts: list[Prompt]) -> dict[str, Any]:
    """Return what decides the tokens, as plain values: two recordings with one identity belong in one trace."""
    plain = {name: value for name, value in vars(settings).items() if name not in ("batch_size", "prompts")}
    plain["slm_drop_layers"] = list(settings.slm_drop_layers)
    return plain | {"prompts_sha256": prompts_digest(prompts), "tail_ladder": list(TAIL_LADDER)}


def _existing(out: Path, identity: dict[str, Any]) -> Trace | None:
    if not out.exists():
        return None
    trace = Trace.read(out)
    differ = sorted(
        key for key in {*identity, *trace.header.settings} if identity.get(key) != trace.header.settings.get(key)
    )
    if differ:
        raise InputError(
            f"trace {out} was recorded with other settings ({', '.join(differ)}); "
            "name another file, or remove it to record it anew"
        )
    return trace


def _is_there(request: RuleRequest, trace: Trace, requests: Sequence[RuleRequest]) -> bool:
    fitted = any(isinstance(value, str) for other in requests for value in (other.threshold, other.match))
    law = trace.calibration().law if fitted else None
    return trace.find(resolve_rule(request, law, trace.skip_rate, requests)) is not None


class _Recorder:
    """The state of one recording: what is decoded so far, and the models, loaded when first needed."""

    def __init__(
        self,
        settings: RecordingSettings,
        prompts: list[Prompt],
        identity: dict[str, Any],
        out: Path,
        progress: Progress,
        how_to_make_again: str,
        rules: int,
    ) -> None:
        self._settings, self._prompts, self._out = settings, prompts, out
        self._identity, self._progress = identity, progress
        self._how = how_to_make_again
        self._parts = PartStore(out.with_name(out.name + ".parts"), identity)
        self._pair: ModelPair | None = None
        self._rules: list[DecodingRule] = []
        self._columns: list[Columns] = []
        self._have: set[tuple[str, str, float]] = set()  # (split, what the rule amounts to)
        self._header: TraceHeader | None = None
        self._splits = {
            split: [i for i, prompt in enumerate(prompts) if prompt.split == split]
            for split in ("calibration", "evaluation")
        }
        self._samples = {"evaluation": settings.samples, "calibration": settings.calibration_samples}
        answers = {split: len(self._splits[split]) * self._samples[split] for split in self._splits}
        self._done = 0
        self._total = (answers["calibration"] + answers["evaluation"] * (rules + 1)) * settings.max_tokens

    def take_over(self, trace: Trace) -> None:
        """Begin with the paths of a trace that was recorded with the same settings."""
        self._header = trace.header
        self._columns.append(trace.columns)
        self._rules = [entry.rule for entry in trace.header.paths]
        self._have = {("evaluation", *self._amounts(rule)) for rule in self._rules}
        if any(entry.split == "calibration" for entry in trace.header.prompts):
            self._have.add(("calibration", *self._amounts(HLM)))

    def _amounts(self, rule: DecodingRule) -> tuple[str, float]:
        return rule.same_as(self._settings.uncertainty_samples)

    def add(self, rules: Sequence[DecodingRule], split: str) -> None:
        """Decode the rules that a split lacks, batch by batch, taking finished batches from the parts."""
        missing: list[DecodingRule] = []
        for rule in rules:
            key = (split, *self._amounts(rule))
            if key not in self._have:
                self._have.add(key)
                missing.append(rule)
                if self._amounts(rule) not in {self._amounts(known) for known in self._rules}:
                    self._rules.append(rule)
        wanted = [(i, sample) for i in self._splits[split] for sample in range(self._samples[split])]
        if not missing or not wanted:
            return
        known = [self._amounts(rule) for rule in self._rules]
        index = np.array([known.index(self._amounts(rule)) for rule in missing])
        size = max(1, self._settings.batch_size // len(missing))
        for start in range(0, len(wanted), size):
            batch = wanted[start : start + size]
            # Symbolic twins (0.43 and 0.40 on a grid of 20) decode alike, so a part is known by what its
            # rules amount to.
            name = [list(self._amounts(rule)) for rule in missing]
            columns = self._parts.load(split, name, batch)
            slots = len(batch) * len(missing) * self._settings.max_tokens
            if columns is None:
                columns = self._decode(batch, missing)
                self._parts.save(columns, split, name, batch)
            self._done += slots
            self._progress(min(self._done, self._total), self._total)
            self._columns.append(columns | {"path": index[columns["path"]]})

    def _decode(self, batch: Sequence[tuple[int, int]], rules: Sequence[DecodingRule]) -> Columns:
        pair = self._models()
        answers = [Answer(i, self._prompts[i].id, sample, pair.encode(self._prompts[i].prompt)) for i, sample in batch]
        longest = self._settings.max_tokens
        slots = len(answers) * len(rules)
        step = 0

        def on_step(going: int) -> None:
            nonlocal step
            step += 1
            settled = slots * step + (slots - going) * (longest - step)
            self._progress(min(self._done + settled, self._total), self._total)

        return decode(pair, answers, rules, self._settings.decoding, on_step)

    def _models(self) -> ModelPair:
        if self._pair is None:
            chosen = self._settings
            self._pair = load_pair(
                chosen.slm,
                chosen.llm,
                slm_drop_layers=chosen.slm_drop_layers,
                dtype=chosen.dtype,
                device=chosen.device,
            )
        return self._pair

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
        return Trace(header, ordered, content_digest(header, ordered), file=str(self._out))

    def finish(self) -> Trace:
        """Write the trace, then remove the parts."""
        write_trace_file(self._out, self._header_now(), self._table())
        self._parts.remove()
        self._progress(self._total, self._total)
        return Trace.read(self._out)

    def _table(self) -> Columns:
        return {name: np.concatenate([piece[name] for piece in self._columns]) for name in self._columns[0]}

    def _header_now(self) -> TraceHeader:
        names: list[str] = []
        for rule in self._rules:
            short = str(rule)
            names.append(short if short not in names else f"{rule.kind}({rule.threshold or rule.skip_rate!r})")
        paths = tuple(
            PathEntry(name, rule.kind, rule.threshold, rule.skip_rate)
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
            prompts=tuple(PromptEntry(**vars(p), tokens=len(pair.encode(p.prompt))) for p in self._prompts),
            tail_ladder=TAIL_LADDER,
            settings=self._identity,
        )
        return self._header


def _versions(packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of those packages that are installed; a hub name or a folder is no package."""
    found: dict[str, str] = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except (importlib.metadata.PackageNotFoundError, ValueError):
            continue
    return found
