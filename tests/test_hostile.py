"""Hostile input ends in a result that obeys the laws or in one error of ours: some hundred cases of what fuzz.py plays.

`python tests/fuzz.py` plays many thousand of each kind, some by the command line.
"""

import ast
import contextlib
import io
import os
import pickle
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import hostile
import hostile_files
import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import pytest
from conftest import assert_same_tables
from traces import make_columns, make_header, write_trace

import uhlm_sim.scenario
from uhlm_sim.cli import main
from uhlm_sim.errors import InputError, TraceError
from uhlm_sim.experiment import PARTS, run
from uhlm_sim.scenario import Scenario
from uhlm_sim.scenario_file import parse_scenario, read_scenario
from uhlm_sim.tokens.trace import Trace
from uhlm_sim.tokens.trace_file import DIGEST_KEY, HEADER_KEY, content_digest, write_trace_file

ROOT = Path(__file__).parent.parent


def chances(count: int) -> Iterator[random.Random]:
    """Yield so many sources of chance, the same in every session: how many cases are legal is then a fixed number."""
    return (random.Random(f"case {number}") for number in range(count))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def trace(folder: Path) -> Path:
    return write_trace(folder / "small.parquet")


@pytest.fixture
def offline_and_small(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(uhlm_sim.scenario, "MAX_STEPS", 2e3)
    monkeypatch.chdir(folder)


# -- scenarios ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("offline_and_small")
def test_a_scenario_of_any_kind_runs_by_the_laws_or_is_refused(trace: Path, folder: Path) -> None:
    ended: Counter[str] = Counter()

    for chance in chances(100):
        file = folder / "scenario.toml"
        file.write_bytes(hostile.as_file(hostile.scenario(chance, str(trace)), chance))
        with hostile.time_limit(60):
            ended[hostile.play(file)] += 1
    assert ended["ran"] > 10, "some are legal"
    assert ended["refused as a file: ScenarioError"] > 10, "some are not"


def test_every_key_of_the_schema_is_among_the_places_that_are_fuzzed() -> None:
    found = {".".join(at) for at, _ in hostile.all_places()}
    for name, field in Scenario.model_fields.items():
        assert name in found
        inner = getattr(field.annotation, "model_fields", {})
        assert {f"{name}.{key}" for key in inner} <= found
    assert {"rayleigh", "equal-share", "rand-hlm", "phone-1b-bf16", "fitted"} <= set(hostile.words()["kinds"])
    assert "k_factor_db" in hostile.words()["params"]


@pytest.mark.parametrize("kind", ["a folder", "a loop of links", "a pipe that nobody writes", "nothing", "no text"])
def test_what_is_no_file_of_text_is_no_scenario(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "odd.toml"
    if kind == "a folder":
        file.mkdir()
    elif kind == "a loop of links":
        file.symlink_to(tmp_path / "other.toml")
        (tmp_path / "other.toml").symlink_to(file)
    elif kind == "nothing":
        file.touch()
    elif kind == "no text":
        file.write_bytes(b"\xff\x00\xfe" * 100)
    else:
        os.mkfifo(file)
    with pytest.raises(SystemExit) as ended:
        main(["run", str(file), "--out", str(tmp_path / "out")])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("uhlm-sim: ")


@pytest.mark.parametrize(
    ("sweep", "cells"),
    [
        ({"uplink.weights": [[1.0, 2.0], [1.0, 1.0]]}, {"[1.0, 2.0]", "[1.0, 1.0]"}),
        ({"slo": [{"ttft_s": 1.0}, {"ttft_s": 2.0}]}, {"{'ttft_s': 1.0}", "{'ttft_s': 2.0}"}),
        ({"output.tokens": [True, False]}, {True, False}),
    ],
)
def test_lists_tables_and_switches_can_be_swept(
    sweep: dict[str, list[object]], cells: set[object], trace: Path
) -> None:
    values = {"name": "swept", "duration_s": 4.0, "warmup_s": 0.0, "replications": 1, "policy": [{"kind": "hlm"}]}
    values |= {"tokens": {"path": str(trace)}, "traffic": {"devices": 2, "think_time_s": 0.2, "max_tokens": 8}}
    results = run(
        parse_scenario({**values, "uplink": {"allocator": "weighted", "weights": [1, 1]}, "sweep": sweep}), jobs=1
    )
    assert set(results.summary[next(iter(sweep))]) == cells
    assert results.tokens is not None


LONG = [{"mean_present_s": 0.035859570033712616 * times, "mean_absent_s": 36.230438897583895} for times in (1, 2)]


@pytest.mark.parametrize(
    "sweep", [{"channel.mean_snr_db": [0, 10]}, {"traffic.devices": [1, 2]}, {"traffic.presence": LONG}]
)
def test_a_sweep_in_which_nothing_happens_has_a_report_too(
    sweep: dict[str, list[object]], trace: Path, tmp_path: Path
) -> None:
    values = {"name": "nothing", "duration_s": 1e-5, "warmup_s": 0.0, "replications": 2, "policy": [{"kind": "hlm"}]}
    values |= {"tokens": {"path": str(trace)}, "traffic": {"max_tokens": 8}, "sweep": sweep}
    run(parse_scenario(values), out=tmp_path / "out", jobs=1)
    assert (tmp_path / "out" / "report.html").is_file()


# -- traces ---------------------------------------------------------------------------------------------------------


def test_a_damaged_trace_is_refused_or_the_same(trace: Path, folder: Path) -> None:
    whole, reference = trace.read_bytes(), Trace.read(trace)

    for chance in chances(150):
        hostile_files.play_damaged(whole, reference, chance, folder)


@pytest.mark.usefixtures("offline_and_small")
def test_a_forged_trace_is_refused_or_as_good_as_any(trace: Path, folder: Path) -> None:
    ended: Counter[str] = Counter()

    for chance in chances(100):
        ended[hostile_files.play_forged(trace, chance, folder)] += 1
    assert ended["forged: refused"] > 30


def test_a_trace_that_announces_more_rows_than_its_answers_have_is_not_read(tmp_path: Path) -> None:
    """A million rows alike are some kilobytes on disk: what they'd take in memory is refused by the footer."""
    whole = pq.read_table(write_trace(tmp_path / "t.parquet"))
    file = tmp_path / "bomb.parquet"
    pq.write_table(
        whole.take(np.zeros(1_000_000, dtype=np.int64)).replace_schema_metadata(whole.schema.metadata),
        file,
        compression="zstd",
    )
    assert file.stat().st_size < 200_000
    with pytest.raises(TraceError, match="1000000 rows are more than its answers can have"):
        Trace.read(file)


def test_calibration_prompts_before_the_others_and_answers_given_twice_are_refused(tmp_path: Path) -> None:
    header = make_header()
    file = tmp_path / "t.parquet"
    write_trace_file(file, replace(header, prompts=header.prompts[::-1]), make_columns(header))
    with pytest.raises(TraceError, match="prompts: those of the evaluation come first"):
        Trace.read(file)
    written = pq.read_table(write_trace(file))
    first = written.filter(pa.compute.equal(written["prompt"], 0))
    twice = pa.concat_tables([written, first])
    told = written.schema.metadata[HEADER_KEY]
    digest = content_digest(told, {name: twice[name].to_numpy() for name in twice.column_names})
    pq.write_table(twice.replace_schema_metadata({HEADER_KEY: told, DIGEST_KEY: digest.encode()}), file)
    with pytest.raises(TraceError, match="an answer is there twice"):
        Trace.read(file)


# -- code in data ---------------------------------------------------------------------------------------------------


class Trap:
    """What a pickle of this leaves behind where it is loaded."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self._file,)


def test_a_pickle_in_a_trace_a_recording_or_a_part_is_never_loaded(tmp_path: Path, trace: Path) -> None:
    sprung = tmp_path / "sprung"
    trap = pickle.dumps(Trap(sprung))
    pickle.loads(trap)
    assert sprung.exists(), "it would work"
    sprung.unlink()
    # The name under which old versions of pyarrow loaded types from a pickle (CVE-2023-47248).
    extension = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": trap}
    table = pq.read_table(trace)
    fields = [field.with_metadata(extension) for field in table.schema]
    for name, metadata in (("trap", table.schema.metadata), ("header", {HEADER_KEY: trap, DIGEST_KEY: trap})):
        file = tmp_path / f"{name}.parquet"
        pq.write_table(table.cast(pa.schema(fields, metadata=metadata)), file)
        with contextlib.suppress(TraceError):
            Trace.read(file)
    buffer = io.BytesIO()
    np.save(buffer, np.array([Trap(sprung)], dtype=object), allow_pickle=True)
    for name, content in (("a.npy", buffer.getvalue()), ("b.npy", trap), ("c.csv", trap)):
        (tmp_path / name).write_bytes(content)
        channel = {"kind": "trace", "params": {"path": str(tmp_path / name)}}
        values = {"name": "trap", "tokens": {"path": str(trace)}, "policy": [{"kind": "hlm"}], "channel": channel}
        values["traffic"] = {"max_tokens": 8}
        with pytest.raises(InputError, match=r"is no recording"):
            run(parse_scenario(values), jobs=1)
    assert not sprung.exists()


def calls(file: Path) -> Iterator[tuple[str, dict[str, object]]]:
    """Yield each call in a module: the name that is called as it is written, and its constant keyword arguments."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            constant = {k.arg or "": k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)}
            yield ast.unparse(node.func), constant


def test_no_code_is_made_of_data_anywhere() -> None:
    """No pickle, no eval, no array of objects; models are loaded from weights, never from code that comes with them."""
    modules = [file for room in ("uhlm_sim", "channel_models") for file in sorted((ROOT / room).rglob("*.py"))]
    forbidden = {
        "eval",
        "exec",
        "compile",
        "pickle.load",
        "pickle.loads",
        "joblib.load",
        "pd.read_pickle",
        "torch.load",
    }
    forbidden |= {"os.system", "os.popen"}
    modules.remove(ROOT / "uhlm_sim" / "tokens" / "answer_process.py")  # a program of its own, which runs answers
    for file in modules:
        source = ast.parse(file.read_text(encoding="utf-8"))
        names = {alias.name for node in ast.walk(source) if isinstance(node, ast.Import) for alias in node.names}
        names |= {str(node.module) for node in ast.walk(source) if isinstance(node, ast.ImportFrom)}
        assert not names & {"pickle", "marshal", "shelve", "dill", "cloudpickle", "yaml"}, file
        for name, constant in calls(file):
            assert name not in forbidden, (file, name)
            if name == "np.load":
                assert constant.get("allow_pickle") is False, file
            assert constant.get("allow_pickle", False) is False, file
            assert constant.get("trust_remote_code", False) is False, file
            assert constant.get("shell", False) is False, file


# -- run folders ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(trace: Path, folder: Path) -> tuple[Scenario, dict[str, bytes]]:
    """Two finished runs in folders of their own, and what an interrupted one has left."""
    values = {"name": "small", "duration_s": 3.0, "warmup_s": 0.5, "replications": 2}
    values |= {"policy": [hostile.POLICIES[0], hostile.POLICIES[4]], "tokens": {"path": str(trace)}}
    values |= {"traffic": {"devices": 2, "think_time_s": 0.3, "max_tokens": 8}}

    def stop(what: str, _done: int, _total: int) -> None:
        if what != "simulating":
            raise KeyboardInterrupt

    scenario = parse_scenario(values)
    run(scenario, out=folder / "run", jobs=1)
    run(parse_scenario({**values, "seed": 2}), out=folder / "other", jobs=1)
    with contextlib.suppress(KeyboardInterrupt):
        run(scenario, out=folder / "interrupted", jobs=1, progress=stop)
    return scenario, {file.name: file.read_bytes() for file in (folder / "interrupted" / PARTS).glob("*.zip")}


def test_a_spoiled_run_folder_is_refused_or_the_same(runs: tuple[Scenario, dict[str, bytes]], folder: Path) -> None:
    ended: Counter[str] = Counter()

    for chance in chances(25):
        ended[hostile_files.play_folder(folder / "run", runs[0], folder / "other", chance, folder)] += 1
    assert ended["folder: refused"] > 8


def test_a_digit_changed_in_a_table_is_noticed(runs: tuple[Scenario, dict[str, bytes]], folder: Path) -> None:
    assert runs[1]
    spoiled = folder / "digit"
    shutil.copytree(folder / "run", spoiled)
    table = (spoiled / "summary.csv").read_text(encoding="utf-8")
    (spoiled / "summary.csv").write_text(table.replace("1", "2", 1), encoding="utf-8")
    with pytest.raises(InputError, match=r"summary\.csv is damaged, or was changed since the run"):
        hostile_files.Results.read(spoiled)


@pytest.mark.parametrize("told", ["null", "1.5", "[]", '"policies, assumptions and presets"'])
def test_provenance_that_is_no_table_is_refused(
    told: str, runs: tuple[Scenario, dict[str, bytes]], folder: Path, tmp_path: Path
) -> None:
    assert runs[1]
    spoiled = tmp_path / "run"
    shutil.copytree(folder / "run", spoiled)
    (spoiled / "provenance.json").write_text(told, encoding="utf-8")
    for use in (hostile_files.Results.read, lambda run: hostile_files.write_timeline(run, tmp_path / "timeline.json")):
        with pytest.raises(InputError, match=r"provenance\.json is damaged, or was changed since the run"):
            use(spoiled)


def test_parts_that_are_spoiled_or_anothers_are_made_again(
    runs: tuple[Scenario, dict[str, bytes]], folder: Path
) -> None:
    scenario, parts = runs
    first, second, third, last = sorted(parts)
    spoils = {first: parts[second], second: parts[first], third: b"PK" + parts[third], last: b""}
    out = folder / "resumed"
    (out / PARTS).mkdir(parents=True)
    (out / "scenario.resolved.toml").write_bytes((folder / "run" / "scenario.resolved.toml").read_bytes())
    for name, part in spoils.items():
        (out / PARTS / name).write_bytes(part)
    run(scenario, out=out, jobs=1, resume=True)
    assert_same_tables(out, folder / "run")


@pytest.mark.parametrize(
    ("own", "told"),
    [
        ("def keep(path):\n    raise KeyError('nothing')\n", "KeyError: 'nothing' \\(own_\\w+.py, line 2\\)"),
        ("def keep(path):\n    import sys\n    sys.exit(3)\n", "SystemExit: 3 \\(own_\\w+.py, line 3\\)"),
        ("def keep(path):\n    return keep(path)\n", "RecursionError"),
        ("def keep(path) return\n", "can't be imported \\(SyntaxError"),
        ("raise ZeroDivisionError('at once')\n", "can't be imported \\(ZeroDivisionError: at once\\)"),
    ],
)
def test_code_of_ones_own_that_raises_is_told_in_one_line(
    own: str, told: str, scenario_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"own_{abs(hash(own))}"
    (tmp_path / f"{module}.py").write_text(own, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    scenario = read_scenario(scenario_file, [f'policy=[{{kind="{module}:keep"}}]', "duration_s=3.0"])
    with pytest.raises(uhlm_sim.errors.UhlmError, match=told) as caught:
        run(scenario, jobs=1, allow_plugins=True)
    assert "\n" not in str(caught.value)
