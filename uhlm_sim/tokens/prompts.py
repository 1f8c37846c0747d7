"""Prompts: the built-in set and the user's own, one JSON object a line."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from uhlm_sim.errors import InputError

BUILT_IN_PROMPTS = Path(__file__).parent / "data" / "prompts.jsonl"
SPLITS = ("evaluation", "calibration")


@dataclass(frozen=True)
class Prompt:
    """An instruction, an answer to hold the models' against, and the split it belongs to."""

    id: str
    split: str
    category: str
    prompt: str
    reference: str


def read_prompts(path: str | Path | None = None) -> list[Prompt]:
    """Read a JSONL file of prompts ("built-in" or None: the package's own), evaluation prompts first.

    Each line has ``id``, ``split`` (evaluation or calibration) and ``prompt``; ``category`` and ``reference``
    may be left out. Raises InputError for a missing file, a bad line (with its number), an id used twice, or
    no evaluation prompts.
    """
    file = BUILT_IN_PROMPTS if path is None or path == "built-in" else Path(path)
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, ValueError) as problem:
        raise InputError(f"prompts '{file}': can't be read: {problem}") from None
    prompts: list[Prompt] = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            prompts.append(_parse(line, f"prompts '{file}', line {number}"))
    ids = [prompt.id for prompt in prompts]
    twice = sorted({key for key in ids if ids.count(key) > 1})
    if twice:
        raise InputError(f"prompts '{file}': the id '{twice[0]}' is used more than once")
    if not any(prompt.split == "evaluation" for prompt in prompts):
        raise InputError(f"prompts '{file}': no prompts of the split 'evaluation', so there is nothing to answer")
    return sorted(prompts, key=lambda prompt: SPLITS.index(prompt.split))


def prompts_digest(prompts: list[Prompt]) -> str:
    """Return the SHA-256 of what the models are asked: ids, splits and prompts in order."""
    asked = [[prompt.id, prompt.split, prompt.prompt] for prompt in prompts]
    return hashlib.sha256(json.dumps(asked, ensure_ascii=False).encode()).hexdigest()


def _parse(line: str, where: str) -> Prompt:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as problem:
        raise InputError(f"{where}: not JSON: {problem}") from None
    if not isinstance(entry, dict):
        raise InputError(f"{where}: not an object with id, split and prompt")
    fields = {"category": "", "reference": "", **entry}
    for name in ("id", "split", "prompt", "category", "reference"):
        if not isinstance(fields.get(name), str):
            raise InputError(f"{where}: '{name}' is missing or not a text")
    unknown = sorted(set(fields) - {"id", "split", "prompt", "category", "reference"})
    if unknown:
        raise InputError(f"{where}: unknown key '{unknown[0]}'")
    if fields["split"] not in SPLITS:
        raise InputError(f"{where}: split = '{fields['split']}' is not one of {', '.join(SPLITS)}")
    if any(text.encode("utf-8", "replace").decode() != text for text in fields.values()):
        raise InputError(f"{where}: a text that is not valid Unicode")
    if not fields["prompt"].strip() or not fields["id"]:
        raise InputError(f"{where}: an empty prompt or id")
    return Prompt(**fields)
