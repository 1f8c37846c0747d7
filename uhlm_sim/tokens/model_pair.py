"""A pair of causal language models of one vocabulary, each with its tokenizer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uhlm_sim.errors import InputError


@dataclass(frozen=True)
class LanguageModel:
    """A causal model on its device, its tokenizer, and what it is: name, revision, layers dropped."""

    name: str
    revision: str
    network: Any
    tokenizer: Any
    dropped_layers: tuple[int, ...] = ()

    @property
    def layers(self) -> int:
        return int(text_config(self.network).num_hidden_layers)

    @property
    def embeddings(self) -> int:
        return int(self.network.get_input_embeddings().weight.shape[0])

    @property
    def logits_width(self) -> int:
        head = self.network.get_output_embeddings()
        return int(text_config(self.network).vocab_size if head is None else head.weight.shape[0])

    def describe(self) -> dict[str, Any]:
        """Return what a trace's header says of this model."""
        parameters = sum(p.numel() for p in self.network.parameters())
        return {
            "name": self.name,
            "revision": self.revision,
            "architecture": type(self.network).__name__,
            "layers": self.layers,
            "dropped_layers": list(self.dropped_layers),
            "parameters": parameters,
        }


@dataclass(frozen=True)
class ModelPair:
    """A small and a large model of one vocabulary; ``vocabulary_size`` is the width of both distributions.

    ``no_token`` are the ids below it that the tokenizer has no token for: rows of the embedding that pad it.
    """

    slm: LanguageModel
    llm: LanguageModel
    vocabulary_size: int
    end_tokens: frozenset[int]
    no_token: NDArray[np.int64]

    def encode(self, prompt: str, system_message: str | None = None, chat_template: bool = True) -> list[int]:
        """Return a prompt's ids: a user's turn if the LLM's tokenizer has a chat template, else plain text.

        ``system_message`` is the turn before it; without ``chat_template`` a prompt is plain text whatever the
        tokenizer has. Raises InputError for a prompt of no tokens, a template that refuses it, or a system message
        without a template.
        """
        tokenizer = self.llm.tokenizer
        templated = chat_template and bool(getattr(tokenizer, "chat_template", None))
        if system_message is not None and not templated:
            reason = "its tokenizer has no chat template" if chat_template else "chat_template = false"
            raise InputError(f"system_message = {system_message!r}: '{self.llm.name}' can't be given one, {reason}")
        try:
            if templated:
                turns = [{"role": "user", "content": prompt}]
                if system_message is not None:
                    turns.insert(0, {"role": "system", "content": system_message})
                encoded = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)
            else:
                encoded = tokenizer(prompt)
            ids = [int(token) for token in encoded["input_ids"]]
        except Exception as problem:  # a template is a program of the model's authors: it may fail in any way
            raise InputError(
                f"the chat template of '{self.llm.name}' fails on prompt {prompt!r} ({first_line(problem)}); "
                "leave system_message out, or set chat_template = false"
            ) from None
        if not ids:
            raise InputError(f"prompt {prompt!r} has no tokens")
        return ids

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of committed tokens, end token left out."""
        return str(self.llm.tokenizer.decode(list(tokens), skip_special_tokens=True))


def text_config(network: Any) -> Any:
    """Return the part of a network's configuration that says what reads text: all, unless it sees or hears too."""
    return network.config.get_text_config(decoder=True)


def first_line(problem: Exception) -> str:
    """Return what an error says in one line."""
    return str(problem).strip().splitlines()[0] if str(problem).strip() else type(problem).__name__
