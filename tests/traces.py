"""A small trace in the real format, made of random numbers that obey the rules: for tests of whatever reads traces."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from uhlm_sim.tokens.decoding_rule import DecodingRule
from uhlm_sim.tokens.draws import answer_draws
from uhlm_sim.tokens.speculative import accept_probability
from uhlm_sim.tokens.trace import Trace
from uhlm_sim.tokens.trace_file import (
    DIGEST_KEY,
    HEADER_KEY,
    SCHEMA_VERSION,
    SINCE,
    UNKNOWN_LEVEL,
    Columns,
    PathEntry,
    PromptEntry,
    TraceHeader,
    content_digest,
    write_trace_file,
)

SAMPLES, VOCABULARY = 20, 50
END = VOCABULARY - 1
RULES = (
    DecodingRule("hlm"),
    DecodingRule("slm"),
    DecodingRule("llm"),
    DecodingRule("u-hlm", threshold=0.43),
    DecodingRule("rand-hlm", skip_rate=0.3),
    DecodingRule("periodic-hlm", skip_rate=0.3),
)


def make_columns(header: TraceHeader, longest: int = 12) -> Columns:
    """Answers of 3 to `longest` tokens: beta grows with u, and what a rule skips or the coin accepts is committed.

    What is true of a token hangs on the tokens before it, as with real models: answers share their prefixes.
    """
    rows, cosines = [], np.random.default_rng(8)
    quality_of: dict[tuple[object, ...], float] = {}
    for number, prompt in enumerate(header.prompts):
        for sample in range(header.samples):
            draws = answer_draws(header.seed, prompt.id, sample, longest, SAMPLES)
            for index, entry in enumerate(header.paths):
                if prompt.split == "calibration" and entry.kind != "hlm":
                    continue
                rule, drafted = entry.rule, entry.kind != "llm"
                tokens: tuple[int, ...] = ()
                answer = []
                while len(tokens) < longest and (not tokens or tokens[-1] != END):
                    position = len(tokens)
                    rng = np.random.default_rng([7, number, sample, *tokens])
                    level = int(rng.integers(0, SAMPLES + 1))
                    x, noise = np.float32(rng.uniform(0.2, 1.0)), rng.normal(0, 0.1)
                    y = np.float32(
                        min(1.1 * x, 1) if rng.random() < 0.1 else x * (1 - np.clip(0.03 * level + noise, 0, 1))
                    )
                    ends, draft, entropy, tails = (
                        position >= 2 and rng.random() < 0.15,
                        rng.integers(3, END - 1),
                        rng.random(),
                        rng.random(2),
                    )
                    draft = END if ends else draft
                    coin = draws.coin[position]
                    here = np.array([position]), np.array([level]), draws.skip[position, None]
                    skipped = drafted and bool(rule.skips(*here, draws.skip[0], SAMPLES)[0])
                    is_kept = skipped or not drafted or coin < accept_probability(x, y)
                    committed = int(draft if is_kept else rng.integers(3, END - 1))
                    answer.append(
                        {
                            "prompt": number,
                            "sample": sample,
                            "path": index,
                            "position": position,
                            "draft": draft if drafted else committed,
                            "committed": committed,
                            "level": level if drafted else UNKNOWN_LEVEL,
                            "x_draft": x if drafted else 0.0,
                            "y_draft": y,
                            "accept_coin": coin,
                            "skipped": skipped,
                            "end": committed == END,
                            "entropy": entropy,
                            "top1_probability": x,
                            "second_probability": min(x, 1 - x) / 2,
                            "tail_3": tails[0],
                            "tail_10": tails[1],
                        }
                    )
                    tokens += (committed,)
                judged = prompt.split == "evaluation"
                passes = ("task_passed", judged and number % 2 == 0)
                for name, known in (
                    ("quality_cosine", judged and drafted),
                    ("quality_cosine_reference", judged),
                    passes,
                ):
                    key = (number, sample, tokens)
                    cosine = quality_of.setdefault((*key, name), cosines.random())
                    for row in answer:
                        row[name] = cosine if known else np.nan
                rows += answer
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


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
        paths=tuple(PathEntry(str(rule), rule.kind, rule.threshold, rule.skip_rate, rule.payload) for rule in rules),
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


def as_version(version: int, file: Path) -> Path:
    """Rewrite a trace as an earlier version of this package wrote it: 1 knew no quality, 2 no second probability.

    Tail masses were rounded to the nearest 16-bit number then, and are read as bounds.
    """
    table = pq.read_table(file)
    told = json.loads(table.schema.metadata[HEADER_KEY])
    if version == 1:
        del told["encoder"]
    header = json.dumps(told | {"schema_version": version}, sort_keys=True, ensure_ascii=False).encode()
    table = table.drop_columns([name for since, names in SINCE.items() if since > version for name in names])
    columns = {name: table[name].to_numpy() for name in table.column_names}
    digest = content_digest(header, columns).encode()
    pq.write_table(table.replace_schema_metadata({HEADER_KEY: header, DIGEST_KEY: digest}), file)
    return file


def read_trace(folder: Path, **changes: object) -> Trace:
    return Trace.read(write_trace(folder / "small.parquet", **changes))
