"""A small trace in the real format, made of random numbers that obey the rules: for tests of whatever reads traces."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from uhlm_sim.tokens.decoding_rule import DecodingRule
from uhlm_sim.tokens.draws import answer_draws
from uhlm_sim.tokens.speculative import accept_probability, grid_level
from uhlm_sim.tokens.trace import Trace
from uhlm_sim.tokens.trace_file import (
    DIGEST_KEY,
    HEADER_KEY,
    QUALITY,
    SCHEMA_VERSION,
    UNKNOWN_LEVEL,
    Columns,
    PathEntry,
    PromptEntry,
    TraceHeader,
    content_digest,
    write_trace_file,
)

SAMPLES, VOCABULARY = 20, 50
RULES = (
    DecodingRule("hlm"),
    DecodingRule("slm"),
    DecodingRule("llm"),
    DecodingRule("u-hlm", threshold=0.43),
    DecodingRule("rand-hlm", skip_rate=0.3),
)


def make_columns(header: TraceHeader, longest: int = 12) -> Columns:
    """Answers of 3 to `longest` tokens: beta grows with u, and what a rule skips or the coin accepts is committed."""
    rng, cosines = np.random.default_rng(7), np.random.default_rng(8)
    pieces = []
    for number, prompt in enumerate(header.prompts):
        for index, entry in enumerate(header.paths):
            if prompt.split == "calibration" and entry.kind != "hlm":
                continue
            for sample in range(header.samples):
                n = int(rng.integers(3, longest + 1))
                draws = answer_draws(header.seed, prompt.id, sample, n, SAMPLES)
                level = rng.integers(0, SAMPLES + 1, n)
                x = rng.uniform(0.2, 1.0, n).astype(np.float32)
                beta = np.clip(0.6 * level / SAMPLES + rng.normal(0, 0.1, n), 0, 1)
                y = np.where(rng.random(n) < 0.1, np.minimum(1.1 * x, 1), x * (1 - beta)).astype(np.float32)
                skipped = np.zeros(n, dtype=bool)
                if entry.threshold is not None:
                    skipped = level <= grid_level(entry.threshold, SAMPLES)
                if entry.skip_rate is not None:
                    skipped = draws.skip < entry.skip_rate
                if entry.kind == "slm":
                    skipped[:] = True
                draft = rng.integers(3, VOCABULARY - 1, n)
                accepted = draws.coin < accept_probability(x, y)
                drafted, judged = entry.kind != "llm", prompt.split == "evaluation"
                pieces.append(
                    {
                        "prompt": np.full(n, number),
                        "sample": np.full(n, sample),
                        "path": np.full(n, index),
                        "position": np.arange(n),
                        "draft": draft,
                        "committed": np.where(skipped | accepted | (not drafted), draft, draft + 1),
                        "level": level if drafted else np.full(n, UNKNOWN_LEVEL),
                        "x_draft": x if drafted else np.zeros(n, dtype=np.float32),
                        "y_draft": y,
                        "accept_coin": draws.coin,
                        "skipped": skipped,
                        "end": np.arange(n) == n - 1 if n < longest else np.zeros(n, dtype=bool),
                        "entropy": rng.random(n),
                        "top1_probability": x,
                        "tail_3": rng.random(n),
                        "tail_10": rng.random(n),
                        "quality_cosine": np.full(n, cosines.random() if judged and drafted else np.nan),
                        "quality_cosine_reference": np.full(n, cosines.random() if judged else np.nan),
                    }
                )
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def make_header(
    evaluation: int = 6, calibration: int = 4, rules: tuple[DecodingRule, ...] = RULES, **changes: object
) -> TraceHeader:
    prompts = [("evaluation", i) for i in range(evaluation)] + [("calibration", i) for i in range(calibration)]
    header = TraceHeader(
        schema_version=SCHEMA_VERSION,
        models={"slm": {"name": "made up"}, "llm": {"name": "made up"}},
        dtype="float32",
        temperature=1.0,
        uncertainty_samples=SAMPLES,
        theta_law="uniform",
        vocabulary_size=VOCABULARY,
        max_tokens=12,
        samples=2,
        seed=1,
        prompts_sha256="",
        packages={},
        how_to_make_again="tests/traces.py",
        paths=tuple(PathEntry(str(rule), rule.kind, rule.threshold, rule.skip_rate) for rule in rules),
        prompts=tuple(
            PromptEntry(f"{split[0]}{i}", split, "test", f"Question {i}?", f"Answer {i}.", 5 + i)
            for split, i in prompts
        ),
        tail_ladder=(3, 10),
        settings={},
        encoder={"name": "made up"},
    )
    return replace(header, **changes)  # type: ignore[arg-type]


def write_trace(file: Path, **changes: object) -> Path:
    """Write a small trace; keyword arguments are `make_header`'s."""
    header = make_header(**changes)  # type: ignore[arg-type]
    write_trace_file(file, header, make_columns(header))
    return file


def as_version_1(file: Path) -> Path:
    """Rewrite a trace as the first version of this package wrote it, which knew no quality."""
    table = pq.read_table(file)
    told = json.loads(table.schema.metadata[HEADER_KEY])
    del told["encoder"]
    header = json.dumps(told | {"schema_version": 1}, sort_keys=True, ensure_ascii=False).encode()
    table = table.drop_columns(list(QUALITY))
    columns = {name: table[name].to_numpy() for name in table.column_names}
    digest = content_digest(header, columns).encode()
    pq.write_table(table.replace_schema_metadata({HEADER_KEY: header, DIGEST_KEY: digest}), file)
    return file


def read_trace(folder: Path, **changes: object) -> Trace:
    return Trace.read(write_trace(folder / "small.parquet", **changes))
