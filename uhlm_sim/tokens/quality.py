"""How near an answer comes to the LLM's, by the cosine of two sentence embeddings, and what that says of a rule.

torch and transformers are imported inside the functions that need them. The other measure, exact and without an
encoder, is the distribution error: with x and y the distributions of SLM and LLM at a prefix, d the draft and s(d) the
chance that a rule skips it, the committed token has the law

    q = s x + (1 - s) min(x, y) + R (y - x)+ / TV(x, y),   R = sum_d (1 - s(d)) (x(d) - y(d))+,

so that TV(q, y) = sum_d x(d) s(d) beta(d) = E[beta; skipped], whatever s is: what a rule skips is all that it errs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from uhlm_sim.errors import InputError
from uhlm_sim.progress import Progress, no_progress
from uhlm_sim.tokens.answer_checks import all_passes
from uhlm_sim.tokens.calibration import clustered_mean
from uhlm_sim.tokens.decoding_rule import DecodingRule
from uhlm_sim.tokens.model_pair import first_line
from uhlm_sim.tokens.models import (
    check_loading,
    content_revision,
    hub_answers,
    need_libraries,
    no_progress_bars,
)
from uhlm_sim.tokens.package_files import PACKAGE_PREFIX, package_file
from uhlm_sim.tokens.payload_law import keeps_law
from uhlm_sim.tokens.speculative import rejection_probability
from uhlm_sim.tokens.trace import Trace
from uhlm_sim.tokens.trace_file import Columns, TraceHeader

NO_ENCODER = "none"
LONGEST = 256  # word pieces; all-MiniLM-L6-v2 cuts a longer text there (its model card)
BATCH = 64

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Encoder:
    """A sentence encoder: the mean of a model's last hidden states over a text's word pieces, at length 1."""

    name: str
    revision: str
    network: Any
    tokenizer: Any

    def describe(self) -> dict[str, Any]:
        """Return what a trace's header says of it."""
        return {"name": self.name, "revision": self.revision, "pooling": "mean", "max_word_pieces": LONGEST}

    def embed(self, texts: Sequence[str], progress: Progress = no_progress) -> Floats:
        """Return unit vectors (texts, width); a text beyond `LONGEST` word pieces is cut. Equal texts cost one pass."""
        import torch

        # By length, so that little of a batch is padding.
        distinct = sorted(set(texts), key=len)
        unit_vectors: list[Floats] = []
        for start in range(0, len(distinct), BATCH):
            batch = distinct[start : start + BATCH]
            pieces = self.tokenizer(batch, padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")
            with torch.inference_mode():
                states = self.network(**pieces).last_hidden_state
                mask = pieces["attention_mask"].unsqueeze(-1)
                means = (states * mask).sum(dim=1) / mask.sum(dim=1)
                unit_vectors.append(torch.nn.functional.normalize(means, dim=1).numpy())
            progress("measuring quality", min(start + BATCH, len(distinct)), len(distinct))
        place = {text: i for i, text in enumerate(distinct)}
        width = int(self.network.config.hidden_size)
        vectors = np.concatenate([np.empty((0, width), dtype=np.float32), *unit_vectors])
        return np.asarray(vectors[[place[text] for text in texts]])


def load_encoder(name: str) -> Encoder | None:
    """Load a sentence encoder by hub name, folder, or ``package:<name>`` (a package's .safetensors file); "none": None.

    Raises InputError, which says how to do without, if torch, the package or the model is missing.
    """
    if name == NO_ENCODER:
        return None
    what = f"encoder '{name}'"
    try:
        need_libraries(what)
        source = name
        if name.startswith(PACKAGE_PREFIX):
            source = str(package_file(name, ".safetensors", what).parent)
    except InputError as problem:
        raise InputError(f'{problem}, or record without quality: encoder = "{NO_ENCODER}"') from None
    import transformers

    options = {"trust_remote_code": False, "local_files_only": Path(source).is_dir() or not hub_answers(source)}
    try:
        with no_progress_bars():
            tokenizer = transformers.AutoTokenizer.from_pretrained(source, **options)
            network, loading = transformers.AutoModel.from_pretrained(source, output_loading_info=True, **options)
    except Exception as problem:  # files of others make the library fail in any way
        raise InputError(f"{what} can't be loaded as a sentence encoder: {first_line(problem)}") from None
    check_loading(what, loading, unused="pooler")  # the mean of the last states needs none
    hub = str(getattr(network.config, "_commit_hash", None) or "unknown")
    return Encoder(name, content_revision(name, ".safetensors") or hub, network.float().eval(), tokenizer)


def unscored(header: TraceHeader, columns: Columns) -> dict[str, NDArray[np.bool_]]:
    """Say for the rows of a trace, in its file's order, which lack a quality that could be known.

    ``quality_cosine`` needs an answer of the path `llm` and is not for that path itself; both are for evaluation
    prompts, ``quality_cosine_reference`` for those that have a reference.
    """
    kinds = [entry.kind for entry in header.paths]
    judged = np.array([prompt.split == "evaluation" for prompt in header.prompts])[columns["prompt"]]
    referred = np.array([bool(prompt.reference.strip()) for prompt in header.prompts])[columns["prompt"]]
    is_llm = np.array([kind == "llm" for kind in kinds])[columns["path"]]
    return {
        "quality_cosine": judged & ~is_llm & ("llm" in kinds) & np.isnan(columns["quality_cosine"]),
        "quality_cosine_reference": judged & referred & np.isnan(columns["quality_cosine_reference"]),
    }


def is_scored(header: TraceHeader, columns: Columns, encoder: str) -> bool:
    """Say whether a trace holds all the quality that an encoder of this name could give; with "none" it always does."""
    if encoder == NO_ENCODER:
        return True
    if header.encoder is None or header.encoder["name"] != encoder:
        return False
    revision = content_revision(encoder, ".safetensors")
    same = revision in (None, header.encoder.get("revision"))
    return same and not any(rows.any() for rows in unscored(header, columns).values())


def add_quality(
    header: TraceHeader,
    columns: Columns,
    encoder: Encoder,
    text_of: Callable[[list[int]], str],
    progress: Progress = no_progress,
) -> Columns:
    """Return a trace's columns, in its file's order, with the quality of every answer that lacks it.

    ``text_of`` turns committed ids into text without the end token; ``progress`` is told texts embedded and to embed.
    """
    missing = unscored(header, columns)
    starts = np.flatnonzero(columns["position"] == 0)
    lengths = np.diff(np.append(starts, len(columns["position"])))
    prompts, samples, paths = (columns[name][starts] for name in ("prompt", "sample", "path"))
    is_llm = np.array([entry.kind == "llm" for entry in header.paths])[paths]
    needed = np.flatnonzero(np.logical_or.reduce([rows[starts] for rows in missing.values()]) | is_llm)
    committed = columns["committed"].tolist()
    texts = [text_of(committed[starts[i] : starts[i] + lengths[i]]) for i in needed]
    references = encoder.embed([prompt.reference for prompt in header.prompts])

    answers = np.full((len(starts), references.shape[1]), np.nan, dtype=np.float32)
    answers[needed] = encoder.embed(texts, progress)
    of_llm = {(prompts[i], samples[i]): int(i) for i in np.flatnonzero(is_llm)}
    same_prompt = np.array([of_llm.get(key, 0) for key in zip(prompts, samples, strict=True)], dtype=np.intp)
    others = {"quality_cosine": answers[same_prompt], "quality_cosine_reference": references[prompts]}
    return columns | {
        name: np.where(missing[name], np.repeat(_cosine(answers, other), lengths), columns[name])
        for name, other in others.items()
    }


def _cosine(units: Floats, others: Floats) -> Floats:
    return np.asarray(np.clip((units * others).sum(axis=1), -1.0, 1.0))


def unchecked(header: TraceHeader, columns: Columns) -> NDArray[np.bool_]:
    """Say for the rows of a trace, in its file's order, which belong to an answer that has checks and was never run."""
    has_checks = [prompt.split == "evaluation" and bool(prompt.checks) for prompt in header.prompts]
    return np.asarray(np.array(has_checks)[columns["prompt"]] & np.isnan(columns["task_passed"]))


def add_passes(
    header: TraceHeader,
    columns: Columns,
    text_of: Callable[[list[int]], str],
    progress: Progress = no_progress,
) -> Columns:
    """Return a trace's columns, in its file's order, with the outcome of every answer with checks that was never run.

    The code of these answers RUNS, see `answer_checks.py`. Arguments are those of `add_quality`.
    """
    starts = np.flatnonzero(columns["position"] == 0)
    lengths = np.diff(np.append(starts, len(columns["position"])))
    to_run = np.flatnonzero(unchecked(header, columns)[starts])
    committed, prompts = columns["committed"].tolist(), columns["prompt"][starts]
    texts = [text_of(committed[starts[i] : starts[i] + lengths[i]]) for i in to_run]
    checks = [header.prompts[prompts[i]].checks for i in to_run]
    passed = columns["task_passed"][starts].copy()
    passed[to_run] = all_passes(list(zip(texts, checks, strict=True)), progress)
    return columns | {"task_passed": np.repeat(passed, lengths)}


def answer_quality(trace: Trace) -> pd.DataFrame:
    """Return one row per recorded path: how near its answers to the evaluation prompts come to the LLM's.

    Each measure comes with ``.low`` and ``.high``, a 95 % interval over prompts. ``cosine`` is the mean cosine to the
    LLM's answer, ``cosine_to_hlm`` its ratio to that of hlm; ``reference`` the mean cosine to the prompts' reference
    answers, ``reference_to_llm`` its ratio to that of llm; ``task`` the share of programs that pass their checks and
    ``task_to_llm`` its ratio to that of llm (ratios are paired by answer and linearised); and
    ``distribution_error`` the mean E[beta; skipped] of a token, along the path's own prefixes. NaN where not
    known, as the last one is where an upload loses what the LLM's law needs.
    """
    tokens = {entry.name: trace.tokens(entry.name) for entry in trace.header.paths}
    answers = {name: table[table["position"] == 0].reset_index() for name, table in tokens.items()}
    hlm, llm = (trace.find(DecodingRule(kind)) for kind in ("hlm", "llm"))
    rows = []
    for entry in trace.header.paths:
        name, table, of_path = entry.name, tokens[entry.name], answers[entry.name]
        beta = np.where(table["skipped"], rejection_probability(table["x_draft"], table["y_draft"]), 0.0)
        if not keeps_law(entry.payload, trace.header.vocabulary_size):
            beta[:] = np.nan
        row: dict[str, Any] = {"path": name}
        for measure, estimate in (
            ("cosine", _mean(of_path, "quality_cosine")),
            ("cosine_to_hlm", _mean(of_path, "quality_cosine", answers.get(hlm or ""))),
            ("reference", _mean(of_path, "quality_cosine_reference")),
            ("reference_to_llm", _mean(of_path, "quality_cosine_reference", answers.get(llm or ""))),
            ("task", _mean(of_path, "task_passed")),
            ("task_to_llm", _mean(of_path, "task_passed", answers.get(llm or ""))),
            ("distribution_error", clustered_mean(beta, table["prompt"].to_numpy())),
        ):
            row |= dict(zip((measure, f"{measure}.low", f"{measure}.high"), estimate, strict=True))
        rows.append(row)
    return pd.DataFrame(rows)


def _mean(answers: pd.DataFrame, column: str, others: pd.DataFrame | None = None) -> tuple[float, float, float]:
    """Return (mean, low, high) over prompts of a column, or of its ratio to that of other answers, pair by pair."""
    values = answers[column].to_numpy(dtype=np.float64)
    if others is not None:
        divisors = others[column].to_numpy(dtype=np.float64)
        known = ~np.isnan(values + divisors)
        total = divisors[known].sum()
        ratio = values[known].sum() / total if total else np.nan
        # The linearised ratio: its mean over answers is the ratio, its spread the ratio's.
        values = ratio + (values - ratio * divisors) / divisors[known].mean() if total else values * np.nan
    return clustered_mean(values, answers["prompt"].to_numpy(), ~np.isnan(values))
