"""Models and prompts as people have them: read right, or refused in words before hours of passes."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_models import WORDS, make_model, make_tokenizer, write_prompts

from uhlm_sim.errors import InputError
from uhlm_sim.tokens import models
from uhlm_sim.tokens.decoding import truncate
from uhlm_sim.tokens.model_checks import positions
from uhlm_sim.tokens.model_pair import text_config
from uhlm_sim.tokens.models import load_model, load_pair
from uhlm_sim.tokens.prompts import read_prompts
from uhlm_sim.tokens.recording import RecordingSettings, RuleRequest, record

pytestmark = pytest.mark.models

RULES = (RuleRequest("hlm"), RuleRequest("slm"))


def make_kind(folder, kind, edit=None, **config):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    sizes = {"vocab_size": len(WORDS), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3}
    ends = {"bos_token_id": None, "eos_token_id": 0}
    network = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**sizes, **heads, **ends, **config}))
    if edit:
        edit(network)
    network.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return str(folder)


def settings_of(tmp_path, model, **changes):
    prompts = write_prompts(tmp_path / "prompts.jsonl", evaluation=2, calibration=0)
    return replace(RecordingSettings(model, model, prompts=prompts, max_tokens=4, encoder="none"), **changes)


def test_a_network_that_ignores_our_cache_is_refused_by_how_much(tmp_path):
    model = make_kind(tmp_path / "rwkv", "rwkv", attention_hidden_size=32)
    with pytest.raises(InputError, match=r"RwkvForCausalLM can't be recorded, .* of their spread"):
        load_pair(model, model)


def test_linear_attention_beside_attention_is_recorded(tmp_path):
    kinds = ["conv", "full_attention"]
    model = make_kind(tmp_path / "lfm2", "lfm2", layer_types=kinds, block_ff_dim=48)
    load_pair(model, model)


def test_learned_positions_count_from_0_behind_the_padding(tmp_path):
    """Rotary positions hide a shift; learned ones don't, and a network whose padded passes differ is refused."""
    model = make_kind(tmp_path / "gpt2", "gpt2")
    load_pair(model, model)


def test_files_without_all_weights_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    model = Path(make_model(tmp_path / "model"))
    weights = load_file(model / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lack the weights lm_head\.weight"):
        load_model(str(model))


def test_a_trace_is_of_the_weights_not_of_their_name(tmp_path):
    settings = settings_of(tmp_path, make_model(tmp_path / "model", seed=1))
    record(settings, RULES, tmp_path / "t.parquet")
    make_model(tmp_path / "model", seed=2)
    with pytest.raises(InputError, match="recorded with another slm"):
        record(settings, RULES, tmp_path / "t.parquet")


def test_new_references_replace_the_old_ones_and_no_token(folders, tmp_path):
    settings = settings_of(tmp_path, folders[0])
    first = record(settings, RULES, tmp_path / "t.parquet")
    prompts = Path(settings.prompts)
    prompts.write_text(prompts.read_text().replace('"reference": "one"', '"reference": "two"'))
    second = record(settings, RULES, tmp_path / "t.parquet")
    assert second.header.prompts[0].reference == "two"
    np.testing.assert_array_equal(first.columns["committed"], second.columns["committed"])


def test_ids_without_a_token_are_neither_drawn_nor_billed(tmp_path):
    model = make_kind(tmp_path / "padded", "llama", vocab_size=64)
    trace = record(settings_of(tmp_path, model), RULES, tmp_path / "t.parquet")
    assert trace.header.vocabulary_size == len(WORDS)


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        ({"max_position_embeddings": 8}, {"max_tokens": 7}, "max_position_embeddings = 8"),
        ({"vocab_size": 4}, {}, "beyond the 4 embeddings"),
        ({"edit": lambda network: network.lm_head.weight.data.fill_(np.nan)}, {}, "'e0' aren't finite"),
        ({}, {"system_message": "be brief"}, "no chat template"),
    ],
)
def test_limits_are_told_before_anything_is_written(tmp_path, config, changes, message):
    model = make_kind(tmp_path / "model", "llama", **config)
    with pytest.raises(InputError, match=message):
        record(settings_of(tmp_path, model, **changes), RULES, tmp_path / "t.parquet")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model", "prompts.jsonl"]


def test_greedy_decoding_is_recorded_with_probabilities_of_one(folders, tmp_path):
    trace = record(settings_of(tmp_path, folders[0], temperature=0.0), RULES, tmp_path / "t.parquet")
    assert (trace.columns["x_draft"] == 1).all()


def test_distributions_are_cut_to_the_top_k_and_the_nucleus():
    x = np.array([[0.5, 0.25, 0.15, 0.1]])
    np.testing.assert_allclose(truncate(x, 2, None), [[2 / 3, 1 / 3, 0, 0]])
    np.testing.assert_allclose(truncate(x, None, 0.8), [[5 / 9, 2.5 / 9, 1.5 / 9, 0]])


@pytest.mark.parametrize(
    "entry",
    [
        {"instruction": "what", "input": "", "output": "one"},
        {"conversations": [{"from": "human", "value": "what"}, {"from": "gpt", "value": "one"}]},
        {"question_id": 81, "category": "writing", "turns": ["what", "why"], "reference": ["one"]},
        {"id": 7, "split": "evaluation", "prompt": "what", "reference": "one", "category": None},
    ],
)
def test_prompt_sets_are_read_in_the_shapes_that_people_have(tmp_path, entry):
    file = tmp_path / "set.json"
    file.write_text(json.dumps([entry]))
    (prompt,) = read_prompts(file)
    assert (prompt.prompt, prompt.reference) == ("what", "one")


def test_a_shape_that_is_not_kept_is_named(tmp_path):
    file = tmp_path / "set.json"
    file.write_text(json.dumps([{"conversations": [{"from": "gpt", "value": "one"}]}]))
    with pytest.raises(InputError, match=r"entry 1: has 'conversations', but not the shape of ShareGPT"):
        read_prompts(file)


@pytest.mark.parametrize("kind", ["longrope", "dynamic"])
def test_a_rope_that_switches_with_length_ends_there(kind):
    rope = {"rope_type": kind, "original_max_position_embeddings": 16}
    for ropes in (rope, {"full_attention": rope, "sliding_attention": {"rope_type": "default"}}):
        config = SimpleNamespace(max_position_embeddings=64, rope_parameters=ropes)
        assert positions(config) == (16, f"rope_type = '{kind}' changes its frequencies beyond 16 positions")
    assert positions(SimpleNamespace(max_position_embeddings=64, rope_parameters={"rope_type": "linear"}))[0] == 64


def test_a_config_with_a_vision_tower_is_read_where_it_reads_text():
    from transformers import AutoConfig

    config = AutoConfig.for_model("llava", text_config={"model_type": "llama", "max_position_embeddings": 8})
    assert positions(text_config(SimpleNamespace(config=config)))[0] == 8


def test_a_chat_template_that_fails_is_told_with_the_way_out(folders):
    pair = load_pair(folders[0], folders[0])
    pair.llm.tokenizer.chat_template = "{{ raise_exception('System role not supported') }}"
    with pytest.raises(InputError, match=r"fails on prompt 'what' \(System role not supported\); leave system_message"):
        pair.encode("what", "be brief")
    assert pair.encode("what", chat_template=False)


def test_a_revision_is_of_the_hub(folders, monkeypatch):
    monkeypatch.setattr(models, "hub_answers", lambda _: True)
    assert [models._find("owner/name", revision)[1]["revision"] for revision in (None, "v2")] == ["main", "v2"]
    with pytest.raises(InputError, match="revision = 'v2', but only a model of the hub has revisions"):
        load_model(folders[0], revision="v2")
