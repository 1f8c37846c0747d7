"""Real but tiny language models, made on the spot: random Llama weights and a tokenizer of a few dozen words."""

import json
from pathlib import Path

WORDS = ["<end>", "<unknown>", "what", "is", "the", "capital", "of", "a", "country", "and", "who", "why", "how"]
WORDS += ["many", "red", "green", "blue", "one", "two"]


def make_tokenizer(words=WORDS):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unknown>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", unk_token="<unknown>")


def make_model(folder: Path, seed: int = 0, words=WORDS, layers: int = 4) -> str:
    """Write a model and its tokenizer into a folder; return the folder's name."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    make_tokenizer(words).save_pretrained(folder)
    return str(folder)


def write_prompts(file: Path, evaluation: int = 4, calibration: int = 4) -> str:
    """Write prompts of different lengths."""
    words = WORDS[2:]
    lines = []
    for split, count in (("evaluation", evaluation), ("calibration", calibration)):
        for i in range(count):
            text = " ".join(words[(i + j) % len(words)] for j in range(2 + 3 * i))
            lines.append({"id": f"{split[0]}{i}", "split": split, "prompt": text, "reference": "one"})
    file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return str(file)
