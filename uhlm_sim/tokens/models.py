"""Real forward passes: two causal language models of one vocabulary.

torch and transformers are imported inside the functions that need them, so that everything else runs without.
"""

import contextlib
import copy
import hashlib
import importlib
import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from uhlm_sim.errors import InputError, did_you_mean
from uhlm_sim.tokens.model_checks import check_passes
from uhlm_sim.tokens.model_pair import LanguageModel, ModelPair, first_line, text_config
from uhlm_sim.tokens.package_files import PACKAGE_PREFIX, cache_folder, finished_only, package_file

AUTO = "auto"
DTYPES = ("float32", "bfloat16", "float16")
BFLOAT16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16")
# What a folder's digest covers: configuration, tokenizer, chat template, weights.
MODEL_FILES = (".json", ".jinja", ".txt", ".model", ".tiktoken", ".safetensors", ".bin", ".gguf")
WHOLE_BYTES = 2**28  # a file up to this size is read whole, a larger one in samples
SAMPLES, SAMPLE_BYTES = 64, 2**20


def load_pair(
    slm: str,
    llm: str,
    *,
    slm_drop_layers: Sequence[int] = (),
    dtype: str = "float32",
    device: str = "cpu",
    slm_revision: str | None = None,
    llm_revision: str | None = None,
) -> ModelPair:
    """Load two models by hub name, local folder, GGUF file, or ``package:<name>`` (a package's GGUF file).

    With ``slm_drop_layers`` the SLM lacks those layers; if it is otherwise the LLM itself, both share their
    weights. A revision is a hub model's commit, branch or tag. Raises InputError if torch or a model is missing, a
    layer doesn't exist, the vocabularies differ, or a network reads a batch otherwise than one text alone.
    """
    large = load_model(llm, dtype=dtype, device=device, revision=llm_revision)
    same = (slm, slm_revision) == (llm, llm_revision)
    small = large if same else load_model(slm, dtype=dtype, device=device, revision=slm_revision)
    if slm_drop_layers:
        small = drop_layers(small, slm_drop_layers)
    first, second = small.tokenizer.get_vocab(), large.tokenizer.get_vocab()
    if first != second:
        differing = len(set(first.items()) ^ set(second.items()))
        raise InputError(
            f"the SLM '{slm}' ({len(first)} tokens) and the LLM '{llm}' ({len(second)} tokens) have "
            f"different vocabularies ({differing} entries differ); hybrid inference needs two models of one tokenizer"
        )
    for model in (large,) if small is large else (large, small):
        check_passes(model)
    # Tables are often padded beyond the tokenizer: an id without a token is neither drawn nor billed.
    width = min(small.logits_width, large.logits_width, max(first.values()) + 1)
    no_token = np.setdiff1d(np.arange(width), list(first.values()))
    return ModelPair(small, large, vocabulary_size=width, end_tokens=_end_tokens(large), no_token=no_token)


def hardware_of(device: str, dtype: str) -> tuple[str, str]:
    """Return a device and a dtype in the place of "auto": CUDA where there is one, bfloat16 if that computes in it.

    Sums of bfloat16 round by the batch and the processor, so such a recording agrees with another in law alone; one in
    float32 agrees token by token but for draws on an edge.
    """
    import torch

    if device == AUTO:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if dtype == AUTO:
        if device.startswith("cuda"):
            fast = torch.cuda.get_device_capability(device)[0] >= 8  # Ampere and later compute in it
        else:
            able: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
            fast = device == "cpu" and any(able.get(name) for name in BFLOAT16_INSTRUCTIONS)
        dtype = "bfloat16" if fast else "float32"
    return device, dtype


def load_model(name: str, *, dtype: str = "float32", device: str = "cpu", revision: str | None = None) -> LanguageModel:
    """Load one causal model and its tokenizer; remote code is never run.

    Raises InputError if it can't be, or if its files lack weights, which would then be random numbers.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype = '{dtype}' is not one of {', '.join(DTYPES)}{did_you_mean(dtype, DTYPES)}")
    need_libraries(f"model '{name}'")
    import torch
    import transformers

    source, options = _find(name, revision)
    revised = content_revision(name)
    converted = _converted(revised, dtype, source, options)
    if converted is not None and converted.is_dir():
        source, options = str(converted), {"local_files_only": True}
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
            loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
                source, output_loading_info=True, **weights, **options
            )
    except Exception as problem:  # files of others make the library fail in any way
        raise InputError(f"model '{name}' can't be loaded as a causal language model: {first_line(problem)}") from None
    network, loading = loaded
    check_loading(f"model '{name}'", loading)
    if converted is not None and "gguf_file" in options:
        with contextlib.suppress(OSError), finished_only(converted) as folder, no_progress_bars():  # a full disk, say
            network.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    commit = str(getattr(network.config, "_commit_hash", None) or "unknown")
    return LanguageModel(name, revised or commit, network.to(place).eval(), tokenizer)


def _converted(revision: str | None, dtype: str, source: str, options: Mapping[str, Any]) -> Path | None:
    """Return where a large GGUF file's weights are kept as plain numbers, which load in seconds and not in minutes.

    None for what isn't a GGUF file, and for one that is small.
    """
    import transformers

    if "gguf_file" not in options:
        return None
    file = (Path(source) / options["gguf_file"]).stat()
    if file.st_size <= WHOLE_BYTES:
        return None
    content = f"{str(revision).partition(':')[2][:16]}-{file.st_size}-{file.st_mtime_ns}"
    return cache_folder() / f"{content}-{dtype}-transformers-{transformers.__version__}"


def check_loading(what: str, loading: Mapping[str, Any], unused: str = "\0") -> None:
    """Raise InputError if a network has weights that its files lack, or hold in another shape; tied ones may lack.

    ``loading`` is transformers' loading info; keys that contain ``unused`` may be missing.
    """
    mismatched = [key for key, *_ in loading["mismatched_keys"]]
    missing = sorted(key for key in {*loading["missing_keys"], *mismatched} if unused not in key)
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise InputError(
            f"{what}: its files lack the weights {', '.join(missing[:3])}{more}, or hold them in another shape than "
            "config.json says; they would be random numbers"
        )


def load_tokenizer(name: str, revision: str | None = None) -> Any:
    """Load a model's tokenizer alone. Raises InputError if it can't be."""
    need_libraries(f"model '{name}'")
    import transformers

    source, options = _find(name, revision)
    try:
        return transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=False, **options)
    except Exception as problem:
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
    for config in {id(c): c for c in (text_config(network), decoder.config)}.values():
        config.num_hidden_layers = len(kept)
        if getattr(config, "layer_types", None):
            config.layer_types = [kind for i, kind in enumerate(config.layer_types) if i not in dropped]
    return LanguageModel(model.name, model.revision, network, model.tokenizer, tuple(dropped))


def need_libraries(what: str) -> None:
    """Raise InputError if torch or transformers is missing; ``what`` needs them."""
    for needed in ("torch", "transformers"):
        if importlib.util.find_spec(needed) is None:
            raise InputError(f"{what}: the package {needed} is not installed; pip install 'uhlm-sim[models]'")


def _find(name: str, revision: str | None) -> tuple[str, dict[str, Any]]:
    """Return what from_pretrained is to be asked for: a hub name or folder, and a GGUF file in it."""
    path = Path(name)
    is_package = name.startswith(PACKAGE_PREFIX)
    if revision is not None and (is_package or path.suffix == ".gguf" or path.is_dir()):
        raise InputError(f"model '{name}': revision = '{revision}', but only a model of the hub has revisions")
    if is_package:
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
    return name, {"local_files_only": not hub_answers(name), "revision": revision or "main"}


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


def content_revision(name: str, suffix: str = ".gguf") -> str | None:
    """Return what pins a model's files by their content; None for a hub name and for what isn't on this machine.

    Of a GGUF file, or of the file with a suffix that a package carries, its `file_revision`. Of a folder the SHA-256 of
    the names and revisions of its `MODEL_FILES`.
    """
    path = Path(name)
    if name.startswith(PACKAGE_PREFIX):
        try:
            path = package_file(name, suffix, name)
        except InputError:
            return None
    if path.is_file():
        return file_revision(path)
    if not path.is_dir():
        return None
    files = sorted(file for file in path.iterdir() if file.suffix in MODEL_FILES and file.is_file())
    listing = [(file.name, file_revision(file)) for file in files]
    return f"files:{hashlib.sha256(repr(listing).encode()).hexdigest()}"


def file_revision(path: Path) -> str:
    """Return a file's SHA-256, or above 256 MiB that of its size and of 64 samples of 1 MiB.

    The samples are evenly spaced, the file's first (the header of a file of weights) and last ones among them: other
    weights, another length or another quantisation show, a change of a few weights between them doesn't.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        if size <= WHOLE_BYTES:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        digest = hashlib.sha256(str(size).encode())
        for start in np.linspace(0, size - SAMPLE_BYTES, SAMPLES).astype(np.int64).tolist():
            file.seek(start)
            digest.update(file.read(SAMPLE_BYTES))
        return f"samples:{digest.hexdigest()}"


def _end_tokens(model: LanguageModel) -> frozenset[int]:
    """Return the ids that end an answer: the tokenizer's, and those of the model's generation settings."""
    settings = getattr(model.network, "generation_config", None)
    entries = [model.tokenizer.eos_token_id, getattr(settings, "eos_token_id", None)]
    flat = [item for entry in entries for item in (entry if isinstance(entry, (list, tuple)) else [entry])]
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
