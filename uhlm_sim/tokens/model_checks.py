"""What must hold of a foreign network before hours of passes: it reads our batches right, and its limits are kept."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uhlm_sim.errors import InputError
from uhlm_sim.tokens.model_pair import LanguageModel, ModelPair
from uhlm_sim.tokens.prefixes import CommittedPrefixes

LENGTHS = (1, 4, 9)
PARENTS = ([0, 0, 2, 1], [3, 2, 0])  # rows split and change places, then one is dropped
# Largest distance of a batch's logits from a plain pass's, over their spread: rounding stays far below.
LARGEST_GAP = {"float32": 0.01, "bfloat16": 0.5, "float16": 0.1}


def check_passes(model: LanguageModel) -> None:
    """Hold padded, cached batches whose rows split against plain passes over each row alone, without a cache.

    The gap is the root mean square difference of two rows of logits, both centred, over the standard deviation of
    the plain one. Raises InputError, with the gap, where it exceeds `LARGEST_GAP`: such a network keeps its own
    state, or doesn't heed the mask or the positions. What isn't finite is left to the first pass over a prompt.
    """
    special = {*model.tokenizer.all_special_ids, *getattr(model.tokenizer, "added_tokens_decoder", {})}
    ids = sorted({*model.tokenizer.get_vocab().values()} - special) or [0]
    known = [token for token in ids if token < min(model.embeddings, model.logits_width)] or [0]
    picks = np.random.default_rng(0).choice(known, size=64).tolist()
    rows = [[picks.pop() for _ in range(length)] for length in LENGTHS]
    dtype = str(model.network.dtype).removeprefix("torch.")
    architecture = type(model.network).__name__
    try:
        read = CommittedPrefixes(model, rows, model.logits_width)
        gaps = [_gap(model, rows, read.logits)]
        for parents in PARENTS:
            tokens = [picks.pop() for _ in parents]
            read.commit(np.array(parents), np.array(tokens))
            rows = [[*rows[parent], token] for parent, token in zip(parents, tokens, strict=True)]
            gaps.append(_gap(model, rows, read.logits))
    except Exception as problem:  # a network that isn't made for this fails in ways of its own
        reason = f"{type(problem).__name__}: {str(problem).strip().partition(chr(10))[0]}"
        raise InputError(
            f"model '{model.name}': a {architecture} can't be recorded, its passes over a padded, cached batch fail "
            f"({reason})"
        ) from None
    if max(gaps) > LARGEST_GAP[dtype]:
        raise InputError(
            f"model '{model.name}': a {architecture} can't be recorded, its logits in a padded, cached batch differ "
            f"from those of a plain pass by {max(gaps):.2g} of their spread (at most {LARGEST_GAP[dtype]:g} in {dtype})"
        )


def _gap(model: LanguageModel, rows: Sequence[Sequence[int]], logits: NDArray[np.float32]) -> float:
    import torch

    gaps = [0.0]
    for row, ours in zip(rows, logits, strict=True):
        with torch.inference_mode():
            output = model.network(torch.tensor([row], device=model.network.device), use_cache=False)
        plain = output.logits[0, -1].to(device="cpu", dtype=torch.float32).numpy()
        gap = np.std(ours - plain) / (np.std(plain) or 1)
        gaps.append(float(gap) if np.isfinite(gap) else 0.0)
    return max(gaps)


def positions(config: Any) -> tuple[float, str]:
    """Return how many positions a text may fill, and what says so; infinitely many where nothing does.

    Beyond the length where a rotary embedding changes its frequencies (longrope, dynamic NTK) the keys in a cache no
    longer are those of a plain pass: that length is the limit, not what the embedding could be stretched to.
    """
    limits: list[tuple[float, str]] = [(float("inf"), "")]
    longest = getattr(config, "max_position_embeddings", None) or getattr(config, "max_seq_len", None)
    if longest:
        limits.append((longest, f"max_position_embeddings = {longest}"))
    ropes = getattr(config, "rope_parameters", None) or {}
    for rope in (ropes, *ropes.values()):
        kind = rope.get("rope_type") if isinstance(rope, Mapping) else None
        switch = kind in ("longrope", "dynamic") and rope.get("original_max_position_embeddings")
        if switch:
            limits.append((switch, f"rope_type = '{kind}' changes its frequencies beyond {switch} positions"))
    return min(limits)


def check_prompts(pair: ModelPair, prompts: Mapping[str, Sequence[int]], max_tokens: int) -> None:
    """Raise InputError where a prompt, by its id, holds an id that a model doesn't embed, or an answer has no room."""
    for role, model in (("llm", pair.llm), ("slm", pair.slm)):
        limit, reason = positions(model.network.config.get_text_config(decoder=True))
        for name, ids in prompts.items():
            if max(ids) >= model.embeddings:
                raise InputError(
                    f"prompt '{name}': its token {max(ids)} is beyond the {model.embeddings} embeddings of the "
                    f"{role} '{model.name}'"
                )
            if len(ids) + max_tokens > limit:
                raise InputError(
                    f"prompt '{name}': {len(ids)} tokens and max_tokens = {max_tokens} are more than the {limit:g} "
                    f"positions of the {role} '{model.name}' ({reason})"
                )


def check_finite(model: LanguageModel, logits: NDArray[np.float32], prompts: Sequence[str], position: int) -> None:
    """Raise InputError where a row of logits (rows, V), each of the prompt whose id is given, isn't finite."""
    with np.errstate(invalid="ignore", over="ignore"):
        wrong = np.flatnonzero(~np.isfinite(logits.sum(axis=-1)))
    if len(wrong):
        dtype = str(model.network.dtype).removeprefix("torch.")
        remedy = "its weights are damaged" if dtype == "float32" else 'try dtype = "float32"'
        raise InputError(
            f"model '{model.name}' in {dtype}: its logits for token {position} of the answer to prompt "
            f"'{prompts[wrong[0]]}' aren't finite; {remedy}"
        )
