"""A small made-up trace on disk, for tests of what reads traces: no model has spoken it."""

from pathlib import Path

import numpy as np

from uhlm_sim.tokens.rules import DecodingRule
from uhlm_sim.tokens.trace_file import (
    SCHEMA_VERSION,
    UNKNOWN_LEVEL,
    PathEntry,
    PromptEntry,
    TraceHeader,
    write_trace_file,
)

K = 20
RULES = (
    DecodingRule("hlm"),
    DecodingRule("slm"),
    DecodingRule("llm"),
    DecodingRule("u-hlm", threshold=0.43),
)


def write_tiny_trace(path: Path, rules: tuple[DecodingRule, ...] = RULES, prompts: int = 8, tokens: int = 24) -> Path:
    """Write answers of `tokens` tokens to as many evaluation as calibration prompts, with beta about 0.8 u - 0.05."""
    entries = [
        PromptEntry(f"{split[0]}{i}", split, "made up", f"Question {i} of {split}?", "An answer.", 5 + i)
        for split in ("evaluation", "calibration")
        for i in range(prompts)
    ]
    names = [PathEntry(str(rule), rule.kind, rule.threshold, rule.skip_rate) for rule in rules]
    answers = [(p, r) for p in range(len(entries)) for r, rule in enumerate(rules) if p < prompts or rule.kind == "hlm"]
    parts = [_answer(p, r, rules[r], tokens) for p, r in answers]
    header = TraceHeader(
        schema_version=SCHEMA_VERSION,
        models={"slm": {"name": "made-up-small"}, "llm": {"name": "made-up-large"}},
        dtype="float32",
        temperature=1.0,
        uncertainty_samples=K,
        theta_law="uniform",
        vocabulary_size=1000,
        max_tokens=tokens,
        samples=1,
        seed=1,
        prompts_sha256="",
        packages={},
        how_to_make_again="write_tiny_trace",
        paths=tuple(names),
        prompts=tuple(entries),
        tail_ladder=(),
        settings={},
    )
    write_trace_file(path, header, {name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
    return path


def _answer(prompt: int, path: int, rule: DecodingRule, n: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([prompt, n])
    level = rng.integers(0, K + 1, n)
    beta = np.clip(0.8 * level / K - 0.05 + rng.normal(0.0, 0.1, n), -0.5, 0.99)
    x_draft = rng.uniform(0.2, 0.6, n)
    skipped = {"slm": np.ones(n, bool), "u-hlm": level <= np.floor(K * (rule.threshold or 0.0) + 1e-9)}
    return {
        "prompt": np.full(n, prompt),
        "sample": np.zeros(n, int),
        "path": np.full(n, path),
        "position": np.arange(n),
        "draft": rng.integers(0, 1000, n),
        "committed": rng.integers(0, 1000, n),
        "level": np.full(n, UNKNOWN_LEVEL) if rule.kind == "llm" else level,
        "x_draft": x_draft,
        "y_draft": x_draft * (1.0 - beta),
        "accept_coin": rng.random(n) * 0.999,
        "skipped": skipped.get(rule.kind, np.zeros(n, bool)),
        "end": np.arange(n) == n - 1,
        "entropy": rng.random(n),
        "top1_probability": x_draft,
    }
