"""Traces: what is written is read, rules find their paths, a file that isn't whole or ours is refused in a sentence."""

import time
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from traces import RULES, SAMPLES, make_columns, make_header, read_trace, write_trace

from uhlm_sim.cell.named import find_names
from uhlm_sim.cell.phones.policies import ready_policy
from uhlm_sim.errors import InputError, TraceError
from uhlm_sim.scenario_file import load
from uhlm_sim.tokens.decoding_rule import DecodingRule
from uhlm_sim.tokens.draws import answer_draws
from uhlm_sim.tokens.trace import Trace
from uhlm_sim.tokens.trace_file import DIGEST_KEY, HEADER_KEY, SCHEMA_VERSION, in_file_order, write_trace_file


def u_hlm(threshold):
    return DecodingRule("u-hlm", threshold=threshold)


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    return read_trace(tmp_path_factory.mktemp("trace"))


# -- what is written is read ----------------------------------------------------------------------------------------


def test_every_column_comes_back(tmp_path):
    header = make_header()
    columns = make_columns(header)
    write_trace_file(tmp_path / "t.parquet", header, columns)
    trace = Trace.read(tmp_path / "t.parquet")
    assert trace.header == header
    for name, values in in_file_order(header, columns).items():
        np.testing.assert_array_equal(trace.columns[name], values)
    assert [file.name for file in tmp_path.iterdir()] == ["t.parquet"]


def test_the_same_trace_has_the_same_bytes_and_digest(tmp_path):
    first, second = (write_trace(tmp_path / name) for name in ("a.parquet", "b.parquet"))
    assert first.read_bytes() == second.read_bytes()
    assert Trace.read(first).digest == Trace.read(second).digest


def test_a_path_holds_one_answer(trace):
    rows = trace.tokens("u-hlm(0.43)")
    for prompt in range(trace.prompts):
        for sample in range(2):
            path = trace.source(u_hlm(0.43)).path(prompt, sample)
            table = rows[(rows["prompt"] == prompt) & (rows["sample"] == sample)]
            assert len(path) == len(table)
            assert path.prompt_tokens == 5 + prompt
            np.testing.assert_array_equal(path.committed, table["committed"])
            np.testing.assert_array_equal(path.skipped, path.uncertainty <= 0.43)
            np.testing.assert_array_equal(path.uncertainty * SAMPLES, table["level"])
            np.testing.assert_allclose(path.accept_probability, np.minimum(1, path.y_draft / path.x_draft))
            kept = path.skipped | path.accepted
            np.testing.assert_array_equal(path.committed == path.draft, kept)
            assert path.tail_mass.shape == (len(path), 2)


def test_evaluation_answers_never_come_from_calibration_prompts(trace):
    assert trace.prompts == 6
    assert set(trace.tokens("hlm", "evaluation")["prompt"]) == set(range(6))
    assert set(trace.tokens("hlm", "calibration")["prompt"]) == set(range(6, 10))


def test_the_large_model_alone_drafts_nothing(trace):
    path = trace.source(DecodingRule("llm")).path(0, 0)
    np.testing.assert_array_equal(path.draft, path.committed)
    for unknown in (path.uncertainty, path.x_draft, path.accept_probability, path.entropy, path.tail_mass):
        assert np.isnan(unknown).all()
    assert not path.skipped.any()


# -- rules ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        (DecodingRule("hlm"), "hlm"),
        (u_hlm(-0.1), "hlm"),
        (DecodingRule("rand-hlm", skip_rate=0.0), "hlm"),
        (u_hlm(0.43), "u-hlm(0.43)"),
        (u_hlm(0.40), "u-hlm(0.43)"),
        (u_hlm(0.449), "u-hlm(0.43)"),
        (u_hlm(0.45), None),
        (u_hlm(0.399), None),
        (u_hlm(1.0), "slm"),
        (u_hlm(1.7), "slm"),
        (DecodingRule("rand-hlm", skip_rate=1.0), "slm"),
        (DecodingRule("rand-hlm", skip_rate=0.3), "rand-hlm(0.3)"),
        (DecodingRule("rand-hlm", skip_rate=0.31), None),
        (DecodingRule("llm"), "llm"),
    ],
)
def test_a_rule_finds_the_path_that_decodes_like_it(trace, rule, path):
    assert trace.find(rule) == path


@pytest.mark.parametrize(
    ("kind", "numbers"),
    [
        ("uhlm", {}),
        ("u-hlm", {}),
        ("hlm", {"threshold": 0.1}),
        ("u-hlm", {"threshold": float("nan")}),
        ("rand-hlm", {}),
        ("rand-hlm", {"skip_rate": 1.1}),
        ("u-hlm", {"threshold": 0.1, "skip_rate": 0.1}),
    ],
)
def test_an_impossible_rule_is_refused(kind, numbers):
    with pytest.raises(InputError):
        DecodingRule(kind, **numbers)


def test_a_rule_without_a_path_is_forced_on_hlm_and_says_so(trace):
    source = trace.source(u_hlm(0.8))
    assert not source.exact
    hlm = trace.source(DecodingRule("hlm"))
    assert hlm.exact
    for prompt in range(trace.prompts):
        forced, own = source.path(prompt, 1), hlm.path(prompt, 1)
        np.testing.assert_array_equal(forced.committed, own.committed)
        np.testing.assert_array_equal(forced.skipped, own.uncertainty <= 0.8)


def test_random_skipping_is_forced_with_the_coins_it_would_be_recorded_with(trace):
    path = trace.source(DecodingRule("rand-hlm", skip_rate=0.6)).path(2, 1)
    coins = answer_draws(trace.header.seed, "e2", 1, len(path), SAMPLES).skip
    np.testing.assert_array_equal(path.skipped, coins < 0.6)


def test_draws_depend_on_prompt_sample_and_position_only():
    short, long = (answer_draws(3, "e1", 0, n, 20) for n in (5, 9))
    for name in ("draft", "coin", "resample", "skip", "direct", "theta", "differ"):
        np.testing.assert_array_equal(getattr(short, name), getattr(long, name)[:5])
    np.testing.assert_array_equal(short.draft, answer_draws(3, "e1", 0, 5, 7).draft)
    assert (np.float32(long.coin) == long.coin).all()
    assert (answer_draws(3, "e1", 1, 5, 20).draft != short.draft).all()


def test_skip_rates_count_tokens(trace):
    assert trace.skip_rate(DecodingRule("hlm")) == 0
    assert trace.skip_rate(DecodingRule("slm")) == 1
    rows = trace.tokens("u-hlm(0.43)")
    assert trace.skip_rate(u_hlm(0.43)) == pytest.approx((rows["level"] <= 8).mean())
    rows = trace.tokens("hlm")
    assert trace.skip_rate(u_hlm(0.8)) == pytest.approx((rows["level"] <= 16).mean())


def test_rules_that_write_their_own_text_are_not_forced(tmp_path):
    trace = read_trace(tmp_path, rules=(DecodingRule("hlm"),))
    for rule in (DecodingRule("llm"), DecodingRule("slm"), u_hlm(1.0)):
        with pytest.raises(TraceError, match="no path for the rule"):
            trace.source(rule)
    trace = read_trace(tmp_path, rules=(DecodingRule("llm"),))
    with pytest.raises(TraceError, match="nor hlm"):
        trace.source(u_hlm(0.5))


def test_longer_answers_than_recorded_are_refused_unless_all_ended(trace, tmp_path):
    trace.check_max_tokens(12)
    with pytest.raises(TraceError, match=r"max_tokens = 13.*12.*cut there"):
        trace.check_max_tokens(13)
    header = make_header()
    columns = make_columns(header)
    last = np.r_[np.diff(columns["position"]) < 0, True]
    write_trace_file(tmp_path / "t.parquet", header, columns | {"end": last})
    Trace.read(tmp_path / "t.parquet").check_max_tokens(10_000)


# -- bad files ------------------------------------------------------------------------------------------------------


def with_metadata(file, out, **changes):
    """Copy a trace with other metadata, None removing an entry."""
    table = pq.read_table(file)
    metadata = {**table.schema.metadata, **{getattr(_Keys, key): value for key, value in changes.items()}}
    kept = {key: value for key, value in metadata.items() if value is not None}
    pq.write_table(table.replace_schema_metadata(kept), out)
    return out


class _Keys:
    header, digest = HEADER_KEY, DIGEST_KEY


def test_a_missing_trace_is_named_with_what_there_is(tmp_path):
    with pytest.raises(TraceError, match=r"no such file.*smollm2-pair"):
        Trace.read(tmp_path / "none.parquet")
    with pytest.raises(TraceError, match="did you mean 'smollm2-pair'"):
        Trace.read("smolm2-pair")


@pytest.mark.parametrize("keep", [0, 3, 200, 0.5, -1])
def test_a_truncated_trace_is_refused(tmp_path, keep):
    file = write_trace(tmp_path / "t.parquet")
    whole = file.read_bytes()
    file.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    with pytest.raises(TraceError, match=r"t\.parquet"):
        Trace.read(file)


def test_any_flipped_byte_is_refused_or_changes_nothing(tmp_path):
    """A byte that matters is noticed, always as a TraceError in one line, never as a wrong number."""
    file = write_trace(tmp_path / "t.parquet", evaluation=2, calibration=1, rules=RULES[:1])
    whole = file.read_bytes()
    reference = Trace.read(file)
    noticed = []
    places = np.unique(np.linspace(0, len(whole) - 1, 400).astype(int))
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 0x24
        file.write_bytes(damaged)
        try:
            read = Trace.read(file)
        except TraceError as problem:
            noticed.append(str(problem))
        else:
            assert read.digest == reference.digest
            for name, values in reference.columns.items():
                np.testing.assert_array_equal(read.columns[name], values)
    assert len(noticed) > len(places) / 2
    assert not any("\n" in message for message in noticed)


def test_foreign_files_are_refused(tmp_path):
    foreign = tmp_path / "foreign.parquet"
    pq.write_table(pa.table({"a": [1, 2]}), foreign)
    with pytest.raises(TraceError, match="not a trace of this package"):
        Trace.read(foreign)
    foreign.write_text("version = 1\n")
    with pytest.raises(TraceError, match="not a whole parquet file"):
        Trace.read(foreign)
    with pytest.raises(TraceError):
        Trace.read(tmp_path)


def test_another_schema_version_is_refused(tmp_path):
    header = replace(make_header(), schema_version=SCHEMA_VERSION + 1)
    write_trace_file(tmp_path / "t.parquet", header, make_columns(header))
    with pytest.raises(TraceError, match=f"schema version {SCHEMA_VERSION + 1}"):
        Trace.read(tmp_path / "t.parquet")


def test_an_edited_header_is_refused(tmp_path):
    file = write_trace(tmp_path / "t.parquet")
    text = pq.read_schema(file).metadata[HEADER_KEY]
    for edited, message in [
        (text.replace(b'"temperature": 1.0', b'"temperature": 0.7'), "checksum"),
        (text[:-1], "header"),
        (b"[]", "header"),
        (b'{"schema_version": 1}', "header"),
        (None, "not a trace"),
    ]:
        with pytest.raises(TraceError, match=message):
            Trace.read(with_metadata(file, tmp_path / "edited.parquet", header=edited))


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("committed", 50),
        ("level", 21),
        ("x_draft", 1.5),
        ("y_draft", np.nan),
        ("accept_coin", 1.0),
        ("prompt", 99),
        ("quality_cosine", 1.1),
        ("quality_cosine_reference", -2.0),
    ],
)
def test_impossible_values_are_refused_with_a_right_checksum(tmp_path, column, value):
    header = make_header()
    columns = make_columns(header)
    changed = columns[column].astype(np.float64)
    changed[-1] = value
    write_trace_file(tmp_path / "t.parquet", header, columns | {column: changed})
    with pytest.raises(TraceError, match=f"{column} = .* out of range"):
        Trace.read(tmp_path / "t.parquet")


def test_missing_answers_and_positions_are_refused(tmp_path):
    header = make_header()
    columns = make_columns(header)
    for gone, message in [
        ((columns["path"] == 1) & (columns["prompt"] == 3), "no answer"),
        (columns["position"] == 1, "positions"),
    ]:
        left = {name: values[~gone] for name, values in columns.items()}
        write_trace_file(tmp_path / "t.parquet", header, left)
        with pytest.raises(TraceError, match=message):
            Trace.read(tmp_path / "t.parquet")
    with pytest.raises(TraceError, match="no evaluation prompts"):
        read_trace(tmp_path, evaluation=0)


# -- the shipped trace ----------------------------------------------------------------------------------------------


def test_the_traces_are_read_fast_and_hold_what_quickstart_asks_for():
    started = time.perf_counter()
    tokens = Trace.read("qwen-coder-pair")
    assert time.perf_counter() - started < 3
    scenario = load("quickstart")
    assert scenario.tokens.path == "qwen-coder-pair"
    functions = find_names(scenario)
    policies = [ready_policy(i, scenario, tokens, functions) for i in range(len(scenario.policy))]
    assert [policy.label for policy in policies if not policy.exact] == []


def test_the_trace_of_the_pruned_pair_holds_every_threshold():
    started = time.perf_counter()
    trace = Trace.read("smollm2-pair")
    assert time.perf_counter() - started < 3  # about 0.15 s on an idle core
    assert trace.prompts >= 100
    assert sum(entry.split == "calibration" for entry in trace.header.prompts) >= 50
    law = trace.law()
    for threshold in (law.risk_averse, law.risk_prone, 0.43, *(level / 20 for level in range(20))):
        assert trace.source(u_hlm(threshold)).exact
    for kind in ("hlm", "slm", "llm"):
        assert trace.source(DecodingRule(kind)).exact
    for threshold in (law.risk_averse, law.risk_prone, 0.43):
        rule = DecodingRule("rand-hlm", skip_rate=trace.skip_rate(u_hlm(threshold)))
        assert trace.source(rule).exact


def test_shipped_tokens_obey_their_rules():
    trace = Trace.read("smollm2-pair")
    for entry in trace.header.paths:
        if entry.kind == "llm":
            continue
        rows = trace.tokens(entry.name)
        accepted = rows["accept_coin"] < np.minimum(1, rows["y_draft"] / rows["x_draft"])
        np.testing.assert_array_equal(rows["committed"] == rows["draft"], rows["skipped"] | accepted)
        if entry.kind == "u-hlm":
            np.testing.assert_array_equal(rows["skipped"], rows["uncertainty"] <= entry.threshold + 1e-9)


def test_shipped_rules_share_their_beginnings():
    """Two rules of one answer write the same tokens until the first that one skips and the other has replaced."""
    trace = Trace.read("smollm2-pair")
    hlm, skipping = trace.source(DecodingRule("hlm")), trace.source(u_hlm(0.43))
    for prompt in range(trace.prompts):
        a, b = hlm.path(prompt, 0), skipping.path(prompt, 0)
        n = min(len(a), len(b))
        same = np.cumprod(a.committed[:n] == b.committed[:n]).astype(bool)
        first = int(same.sum())
        np.testing.assert_array_equal(a.uncertainty[:first], b.uncertainty[:first])
        if first < n:
            assert b.skipped[first]
            assert not a.accepted[first]
