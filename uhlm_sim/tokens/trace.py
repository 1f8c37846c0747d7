"""Recorded token paths: what each token risks and costs, replayed in any network without a language model."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from uhlm_sim.errors import TraceError
from uhlm_sim.tables import QUALITY
from uhlm_sim.tokens.decoding_rule import HLM, LLM, SLM, DecodingRule, RuleKind
from uhlm_sim.tokens.draws import answer_draws
from uhlm_sim.tokens.gates import DOUBTS
from uhlm_sim.tokens.speculative import LinearLaw, accept_probability, fit_law, rejection_probability
from uhlm_sim.tokens.trace_file import UNKNOWN_LEVEL, Columns, TraceHeader, locate, read_trace_file
from uhlm_sim.tokens.tree import AnswerTree, Drafts, plant

__all__ = ["DecodingRule", "RuleKind", "TokenPath", "TokenSource", "Trace", "TraceHeader", "TraceSource"]


@dataclass(frozen=True, kw_only=True)
class TokenPath(Drafts):
    """One answer, token by token, its end token included; its drafts are those of `Drafts`.

    ``committed`` are token ids, and ``skipped`` is the decision of the path's own rule. The rule `llm` drafts nothing:
    there ``draft`` repeats ``committed``. One number each are ``quality_cosine`` and ``quality_cosine_reference``, the
    cosine of the whole answer's embedding and that of the LLM's answer, or of the prompt's reference, and
    ``task_passed``, 1 or 0, whether its code passed the prompt's checks; NaN where not known.
    """

    prompt: int
    sample: int
    prompt_tokens: int
    committed: NDArray[np.integer]
    skipped: NDArray[np.bool_]
    quality_cosine: float = np.nan
    quality_cosine_reference: float = np.nan
    task_passed: float = np.nan


class TokenSource(Protocol):
    """Where a cell gets its answers: the seam between tokens and time."""

    @property
    def prompts(self) -> int: ...
    @property
    def samples(self) -> int: ...
    @property
    def vocabulary_size(self) -> int: ...
    @property
    def uncertainty_samples(self) -> int: ...

    def tree(self, prompt: int, sample: int) -> AnswerTree:
        """Return what is known of answers to an evaluation prompt, 0 <= prompt < prompts and 0 <= sample < samples."""
        ...


@dataclass(frozen=True)
class TraceSource:
    """Answers of one rule from a trace.

    Exact where the rule's own path was recorded. Else teacher-forced: the rule decides by u (rand-hlm by its
    coin, periodic-hlm by the position) along the prefixes of the path of `hlm` with its payload, or of `hlm`, whose
    text and length stay.
    """

    trace: "Trace"
    rule: DecodingRule
    recorded: str
    exact: bool

    @property
    def prompts(self) -> int:
        return self.trace.prompts

    @property
    def samples(self) -> int:
        return self.trace.header.samples

    @property
    def vocabulary_size(self) -> int:
        return self.trace.header.vocabulary_size

    @property
    def uncertainty_samples(self) -> int:
        return self.trace.header.uncertainty_samples

    def tree(self, prompt: int, sample: int) -> AnswerTree:
        trees = self.trace.trees
        return trees.get(self.rule.payload, trees[""])[prompt, sample]

    def path(self, prompt: int, sample: int) -> TokenPath:
        answer = self.trace.answer(self.recorded, prompt, sample)
        if self.exact:
            return answer
        # The text is another rule's, and so would be its quality.
        skipped = self.trace.decide(self.rule, answer)
        return replace(
            answer, skipped=skipped, quality_cosine=np.nan, quality_cosine_reference=np.nan, task_passed=np.nan
        )


class Trace:
    """A recorded trace: answers of several rules to one set of prompts, by one pair of models.

    Read one with `Trace.read`; ``header`` says what it is, ``digest`` is the SHA-256 of its contents.
    """

    def __init__(self, header: TraceHeader, columns: Columns, digest: str, file: str = "trace") -> None:
        """Index the answers. Raises TraceError if one is missing, cut, or there are no evaluation prompts."""
        self.header, self.digest, self.file = header, digest, file
        self.prompts = sum(entry.split == "evaluation" for entry in header.prompts)
        if self.prompts == 0:
            raise TraceError(f"trace {file}: no evaluation prompts")
        self._columns = columns
        self._arrays = _replay_arrays(header, columns)
        keys = np.stack([columns[name] for name in ("prompt", "sample", "path")], axis=1).astype(np.int64)
        starts = np.flatnonzero(np.r_[True, (np.diff(keys, axis=0) != 0).any(axis=1)][: len(keys)])
        ends = np.r_[starts[1:], len(keys)].astype(np.int64)[: len(starts)]
        run_starts = np.repeat(starts, ends - starts)
        if not np.array_equal(columns["position"], np.arange(len(keys)) - run_starts):
            raise TraceError(f"trace {file}: positions of an answer don't count 0, 1, 2, ...")
        self._answers = {
            (int(path), int(prompt), int(sample)): slice(int(start), int(end))
            for (prompt, sample, path), start, end in zip(keys[starts].tolist(), starts, ends, strict=True)
        }
        if len(self._answers) < len(starts):
            raise TraceError(f"trace {file}: an answer is there twice")
        for number, entry in enumerate(header.paths):
            for prompt in range(self.prompts):
                for sample in range(header.samples):
                    if (number, prompt, sample) not in self._answers:
                        raise TraceError(f"trace {file}: path '{entry.name}' has no answer {sample} to prompt {prompt}")

    @classmethod
    def read(cls, name_or_path: str | Path) -> "Trace":
        """Read a built-in trace by name or a file.

        Raises TraceError if it is missing, truncated, damaged, foreign, incomplete, or of a later schema version than
        this package's; what an earlier one hadn't is NaN.
        """
        file = locate(name_or_path)
        return cls(*read_trace_file(file), file=str(file))

    @property
    def columns(self) -> Columns:
        """The table as it is on disk: one array a column, sorted by prompt, sample, path and position."""
        return self._columns

    @cached_property
    def trees(self) -> dict[str, dict[tuple[int, int], AnswerTree]]:
        """Payload -> evaluation prompt and sample -> all that was recorded, whatever the rule."""
        return plant(self.header, self._columns, self._arrays)

    # -- finding a rule's answers ----------------------------------------------------------------------------

    def find(self, rule: DecodingRule) -> str | None:
        """Return the name of the recorded path that decodes exactly like the rule, or None."""
        grid = self.header.uncertainty_samples
        key = rule.same_as(grid)
        return next((entry.name for entry in self.header.paths if entry.rule.same_as(grid) == key), None)

    def source(self, rule: DecodingRule) -> TraceSource:
        """Return the rule's answers: exact where recorded, else teacher-forced on the path `hlm`.

        Raises TraceError if neither is possible: `llm` and `slm` write their own text and have no teacher-forced form.
        """
        name = self.find(rule)
        if name is not None:
            return TraceSource(self, rule, name, exact=True)
        names = ", ".join(entry.name for entry in self.header.paths)
        grid = self.header.uncertainty_samples
        if rule.same_as(grid) in (LLM.same_as(grid), SLM.same_as(grid)):
            raise TraceError(f"trace {self.file}: no path for the rule {rule}; it holds {names}")
        forced_on = self.find(HLM.with_payload(rule.payload)) or self.find(HLM)
        if forced_on is None:
            raise TraceError(
                f"trace {self.file}: no path for the rule {rule}, nor hlm to force it on; it holds {names}"
            )
        return TraceSource(self, rule, forced_on, exact=False)

    def answer(self, name: str, prompt: int, sample: int) -> TokenPath:
        """Return one recorded answer by path name. Raises TraceError if there is none."""
        number = next((i for i, entry in enumerate(self.header.paths) if entry.name == name), None)
        rows = None if number is None else self._answers.get((number, prompt, sample))
        if rows is None:
            raise TraceError(f"trace {self.file}: no answer of path '{name}' to prompt {prompt}, sample {sample}")
        fields: dict[str, Any] = {field: values[rows] for field, values in self._arrays.items()}
        fields |= {name: float(self._columns[name][rows.start]) for name in QUALITY}
        return TokenPath(prompt=prompt, sample=sample, prompt_tokens=self.header.prompts[prompt].tokens, **fields)

    def decide(self, rule: DecodingRule, answer: TokenPath) -> NDArray[np.bool_]:
        """Return which tokens of an answer the rule would skip, given the answer's own prefixes."""
        grid = self.header.uncertainty_samples
        coins = self.skip_coins(answer.prompt, answer.sample)
        level = np.rint(answer.uncertainty * grid)
        return rule.skips(np.arange(len(answer)), level, coins[: len(answer)], float(coins[0]), grid)

    @cache  # noqa: B019  a trace lives as long as its process
    def skip_coins(self, prompt: int, sample: int) -> NDArray[np.float64]:
        """Return the coins that skip an answer's tokens at random; the first one is the phase of even spacing."""
        header = self.header
        return answer_draws(header.seed, header.prompts[prompt].id, sample, header.max_tokens, 0).skip

    # -- what it says about the models -----------------------------------------------------------------------

    def acceptance(self) -> float:
        """Return the mean of min(1, y_d / x_d) along hlm on the calibration prompts. Raises TraceError without any."""
        table = self.hlm_tokens("calibration")
        return float(accept_probability(table["x_draft"], table["y_draft"]).mean())

    def skip_rate(self, rule: DecodingRule) -> float:
        """Return the share of evaluation tokens that the rule skips (teacher-forced if not recorded)."""
        source = self.source(rule)
        answers = [source.path(p, s).skipped for p in range(self.prompts) for s in range(source.samples)]
        return float(np.concatenate(answers).mean())

    def tokens(self, name: str, split: str = "evaluation") -> pd.DataFrame:
        """Return one path's tokens as a table: prompt, sample, position, level, end and the fields of a path.

        Raises TraceError for an unknown path.
        """
        number = next((i for i, entry in enumerate(self.header.paths) if entry.name == name), None)
        if number is None:
            raise TraceError(f"trace {self.file}: no path '{name}'")
        is_split = np.array([entry.split == split for entry in self.header.prompts])
        rows = np.flatnonzero((self._columns["path"] == number) & is_split[self._columns["prompt"]])
        names = ("prompt", "sample", "position", "level", "end", *QUALITY)
        table = {field: self._columns[field][rows] for field in names}
        plain = {field: values[rows] for field, values in self._arrays.items() if values.ndim == 1}
        return pd.DataFrame(table | plain)

    def hlm_tokens(self, split: str) -> pd.DataFrame:
        """Return the `tokens` of the hlm path on the prompts of a split. Raises TraceError where there are none."""
        path = self.find(HLM)
        table = self.tokens(path, split) if path else pd.DataFrame()
        if table.empty:
            raise TraceError(
                f"trace {self.file}: no path hlm on {split} prompts, so no threshold can be fitted from it"
            )
        return table

    @cache  # noqa: B019  a trace lives as long as its process
    def law(self, gate: str = "uncertainty") -> LinearLaw:
        """Return the law fitted on the calibration prompts; `calibration.calibrate_trace` judges it on the others.

        ``gate`` names the measure of doubt (`gates.DOUBTS`) that stands in for u. Raises TraceError if the trace has no
        hlm path, no tokens of calibration prompts, or tokens of one doubt only.
        """
        table = self.hlm_tokens("calibration")
        try:
            return fit_law(self._doubt(table, gate), table["x_draft"], table["y_draft"])
        except ValueError as problem:
            raise TraceError(f"trace {self.file}: no law can be fitted: {problem}") from None

    def threshold_at(self, risk: float, gate: str = "uncertainty") -> float:
        """Return the largest threshold at which the mean beta of kept calibration tokens is at most ``risk``.

        -1, which keeps none, where the least doubtful ones risk more. Raises TraceError as `law` does.
        """
        table = self.hlm_tokens("calibration")
        doubt = self._doubt(table, gate)
        order = np.argsort(doubt, kind="stable")
        beta = rejection_probability(table["x_draft"], table["y_draft"])[order]
        mean = beta.cumsum() / np.arange(1, len(beta) + 1)
        doubt = doubt[order]
        is_last = np.r_[np.diff(doubt) > 0, True]  # of equal doubts all are kept
        fits = np.flatnonzero(is_last & (mean <= risk))
        return float(doubt[fits[-1]]) if len(fits) else -1.0

    def _doubt(self, table: pd.DataFrame, gate: str) -> NDArray[np.float64]:
        self.check_gate(gate)
        return np.asarray(DOUBTS[gate](table, self.header.vocabulary_size))

    @cache  # noqa: B019
    def check_gate(self, gate: str) -> None:
        """Raise TraceError if drafts aren't known by a measure of doubt: an older version of the file hadn't all."""
        drafted = self._columns["level"] != UNKNOWN_LEVEL
        if np.isnan(DOUBTS[gate](SimpleNamespace(**self._arrays), self.header.vocabulary_size)[drafted]).any():
            raise TraceError(
                f"trace {self.file}: gate = '{gate}' needs what some of its tokens lack, as they were recorded by an "
                "earlier version of this package; record the trace anew under another name"
            )

    def check_max_tokens(self, max_tokens: int) -> None:
        """Raise TraceError if ``max_tokens`` is more than was recorded and some answers were cut there."""
        if max_tokens <= self.header.max_tokens:
            return
        answers = self._answers.items()
        last = np.array([rows.stop - 1 for (_, prompt, _), rows in answers if prompt < self.prompts])
        cut = int((~self._columns["end"][last]).sum())
        if cut:
            raise TraceError(
                f"trace {self.file}: max_tokens = {max_tokens}, but it has {self.header.max_tokens} and "
                f"{cut} of its {len(last)} answers were cut there; ask for at most {self.header.max_tokens}"
            )

    # -- what a run says of it -------------------------------------------------------------------------------

    def provenance(self) -> dict[str, Any]:
        """Return what `provenance.json` says of it, under the key "trace"."""
        header = self.header
        summary = {
            "file": Path(self.file).name,
            "digest": self.digest,
            "models": {role: dict(model) for role, model in header.models.items()},
            "dtype": header.dtype,
            "temperature": header.temperature,
            "uncertainty_samples": header.uncertainty_samples,
            "theta_law": header.theta_law,
            "vocabulary_size": header.vocabulary_size,
            "evaluation_prompts": self.prompts,
            "encoder": None if header.encoder is None else dict(header.encoder),
            "how_to_make_again": header.how_to_make_again,
        }
        return {"trace": summary}

    def assumptions(self, max_tokens: int, *, matched: bool) -> list[str]:
        """Return the assumptions of a run that replays it up to ``max_tokens``, as sentences."""
        header = self.header
        sentences = [
            f"Tokens are replayed from forward passes of {_called(header.models['llm'])} as LLM and "
            f"{_called(header.models['slm'])} as SLM at temperature {header.temperature:g}; how long they take comes "
            "from the scenario and its presets, not from these models.",
            f"Quality is the cosine of sentence embeddings ({header.encoder['name']}) of whole recorded answers, up to "
            f"{header.max_tokens} tokens, whatever max_tokens lets through here. To the LLM's answer HLM's own is the "
            "mark, not 1: its answers are other draws from the LLM's law. Intervals over replications take the answers "
            f"as recorded; how much {self.prompts} prompts leave open, `uhlm-sim calibrate` says."
            if header.encoder is not None
            else "The trace was recorded without a sentence encoder, so the cosines are left empty.",
        ]
        if matched and max_tokens < header.max_tokens:
            sentences.append(
                f"A matched skip rate is that of whole recorded answers, up to {header.max_tokens} tokens; answers end "
                f"at {max_tokens} here, so the rate that it was matched to may differ by a little."
            )
        return sentences


def _called(model: Mapping[str, Any]) -> str:
    dropped, parameters = model.get("dropped_layers"), model.get("parameters")
    pruned = f" without {len(dropped)} of its layers" if dropped else ""
    return f"{model['name']}{pruned}" + (f" ({parameters / 1e6:.0f} million parameters)" if parameters else "")


def _replay_arrays(header: TraceHeader, columns: Columns) -> dict[str, NDArray[Any]]:
    """Return the arrays of `TokenPath` for all rows, in the types that the simulation reads."""
    drafted = columns["level"] != UNKNOWN_LEVEL

    def known(name: str) -> NDArray[np.float64]:
        return np.where(drafted, columns[name].astype(np.float64), np.nan)

    tails = [columns[f"tail_{k}"].astype(np.float32) for k in header.tail_ladder]
    tail_mass = np.stack(tails, axis=1) if tails else np.empty((len(drafted), 0), dtype=np.float32)
    tail_mass[~drafted] = np.nan
    return {
        "draft": columns["draft"].astype(np.int32),
        "committed": columns["committed"].astype(np.int32),
        "uncertainty": np.where(drafted, columns["level"] / header.uncertainty_samples, np.nan),
        "x_draft": known("x_draft"),
        "y_draft": known("y_draft"),
        "accept_coin": known("accept_coin"),
        "skipped": columns["skipped"],
        "entropy": known("entropy"),
        "top1_probability": known("top1_probability"),
        "second_probability": known("second_probability"),
        "tail_mass": tail_mass,
    }
