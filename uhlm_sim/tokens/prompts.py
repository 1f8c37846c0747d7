"""Prompts: the built-in set and the user's own, as JSON Lines or an array, in the shapes of well-known sets."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from channel_models.text_table import decode, read_content
from uhlm_sim.errors import InputError

DATA = Path(__file__).parent / "data"
BUILT_IN_PROMPTS = {"built-in": DATA / "prompts.jsonl", "coding": DATA / "coding.jsonl"}
SPLITS = ("evaluation", "calibration")
OPTIONAL = ("category", "reference")  # null, or left out: an empty text
MOST_PROMPTS = 2**16  # a trace counts them in 16 bits


@dataclass(frozen=True)
class Prompt:
    """An instruction, an answer to hold the models' against, and the split it belongs to.

    ``checks`` are Python expressions that hold where the code of an answer does what was asked for.
    """

    id: str
    split: str
    category: str
    prompt: str
    reference: str
    checks: tuple[str, ...] = ()


def read_prompts(path: str | Path | None = None) -> list[Prompt]:
    """Read a file of prompts, or one of the package's own by name (None: "built-in"), evaluation prompts first.

    The file is JSON Lines or one JSON array. An entry of ours has ``id``, ``split`` (evaluation or calibration) and
    ``prompt``; ``category``, ``reference`` and ``checks`` may be left out. Other sets are read in their own shapes,
    `_SHAPES`: of a dialogue its first question and answer. There an id may be missing (the entry's number), and so may
    the split: every third entry is for calibration. Raises InputError for a missing file, a bad entry (with its
    number), an id used twice, or no evaluation prompts.
    """
    name = "built-in" if path is None else str(path)
    file = BUILT_IN_PROMPTS.get(name, Path(name))
    try:
        text = decode(read_content(file))
    except ValueError as problem:
        raise InputError(f"prompts '{file}': {problem}") from None
    prompts = [
        _prompt(entry, number, f"prompts '{file}', {place}")
        for number, (place, entry) in enumerate(_entries(text, file), start=1)
    ]
    twice = sorted(key for key, count in Counter(prompt.id for prompt in prompts).items() if count > 1)
    if twice:
        raise InputError(f"prompts '{file}': the id '{twice[0]}' is used more than once")
    if not any(prompt.split == "evaluation" for prompt in prompts):
        raise InputError(f"prompts '{file}': no prompts of the split 'evaluation', so there is nothing to answer")
    if len(prompts) > MOST_PROMPTS:
        raise InputError(f"prompts '{file}': {len(prompts)} prompts; a trace holds at most {MOST_PROMPTS}")
    return sorted(prompts, key=lambda prompt: SPLITS.index(prompt.split))


def prompts_digest(prompts: list[Prompt]) -> str:
    """Return the SHA-256 of what the models are asked: ids, splits and prompts in order."""
    triples = [[prompt.id, prompt.split, prompt.prompt] for prompt in prompts]
    return hashlib.sha256(json.dumps(triples, ensure_ascii=False).encode()).hexdigest()


def _entries(text: str, file: Path) -> Iterator[tuple[str, Any]]:
    """Yield each entry of a file with its place: a line of JSON Lines, or a member of the array that the file is."""
    if text.lstrip().startswith("["):
        for number, entry in enumerate(_json(text, f"prompts '{file}'"), start=1):
            yield f"entry {number}", entry
    else:
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield f"line {number}", _json(line, f"prompts '{file}', line {number}")


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise InputError(f"{where}: not JSON: {problem}") from None


def _alpaca(entry: dict[str, Any]) -> tuple[Any, Any]:
    texts = [entry["instruction"], entry.get("input") or ""]
    return "\n\n".join(text for text in texts if text != ""), entry.get("output")


def _mt_bench(entry: dict[str, Any]) -> tuple[Any, Any]:
    return next(iter(entry["turns"])), next(iter(entry.get("reference") or [None]))


def _dialogue(key: str, speaker: str, text: str) -> Callable[[dict[str, Any]], tuple[Any, Any]]:
    def first_question(entry: dict[str, Any]) -> tuple[Any, Any]:
        turns = entry[key]
        question = next(i for i, turn in enumerate(turns) if turn[speaker] in ("human", "user"))
        return turns[question][text], turns[question + 1][text] if question + 1 < len(turns) else None

    return first_question


# The key that tells a shape -> its name, and what finds prompt and reference in an entry.
_SHAPES: dict[str, tuple[str, Callable[[dict[str, Any]], tuple[Any, Any]]]] = {
    "instruction": ("Alpaca, {instruction, input, output}", _alpaca),
    "conversations": ("ShareGPT, {conversations: [{from, value}]}", _dialogue("conversations", "from", "value")),
    "messages": ("chat, {messages: [{role, content}]}", _dialogue("messages", "role", "content")),
    "turns": ("MT-bench, {question_id, category, turns, reference}", _mt_bench),
    "question": ("{question, answer}", lambda entry: (entry["question"], entry.get("answer"))),
}


def _prompt(entry: Any, number: int, where: str) -> Prompt:
    if not isinstance(entry, dict):
        raise InputError(f"{where}: not an object with id, split and prompt")
    shape = next((key for key in _SHAPES if key in entry and "prompt" not in entry), None)
    if shape is not None:
        name, parts_of = _SHAPES[shape]
        try:
            prompt, reference = parts_of(entry)
        except (LookupError, StopIteration, TypeError, AttributeError):
            raise InputError(f"{where}: has '{shape}', but not the shape of {name}") from None
        entry = {
            "id": entry.get("id", entry.get("question_id", number)),
            "split": entry.get("split", SPLITS[number % 3 == 0]),
            "category": entry.get("category"),
            "prompt": prompt,
            "reference": reference,
        }
    fields = {name: value for name, value in entry.items() if name not in OPTIONAL or value is not None}
    fields = dict.fromkeys(OPTIONAL, "") | fields
    if type(fields.get("id")) is int:
        fields["id"] = str(fields["id"])
    for name in ("id", "split", "prompt", *OPTIONAL):
        if not isinstance(fields.get(name), str):
            allowed = ", ".join(["{id, split, prompt}", *(name for name, _ in _SHAPES.values())])
            hint = f"; an entry is one of: {allowed}" if name not in fields else ""
            raise InputError(f"{where}: '{name}' is missing or not a text{hint}")
    checks = fields.pop("checks", [])
    if not isinstance(checks, list) or not all(isinstance(check, str) and check.strip() for check in checks):
        raise InputError(f"{where}: 'checks' is not a list of Python expressions")
    unknown = sorted(set(fields) - {"id", "split", "prompt", "category", "reference"})
    if unknown:
        raise InputError(f"{where}: unknown key '{unknown[0]}'")
    if fields["split"] not in SPLITS:
        raise InputError(f"{where}: split = '{fields['split']}' is not one of {', '.join(SPLITS)}")
    if any(text.encode("utf-8", "replace").decode() != text for text in fields.values()):
        raise InputError(f"{where}: a text that is not valid Unicode")
    if not fields["prompt"].strip() or not fields["id"]:
        raise InputError(f"{where}: an empty prompt or id")
    return Prompt(**fields, checks=tuple(checks))
