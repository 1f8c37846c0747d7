"""Bad input of every kind ends in one message with what is allowed, and too much work is refused before it begins."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from channel_models import drop_phones, text_table
from uhlm_sim.cautions import cautions, unread_keys
from uhlm_sim.cell.phones import request_file
from uhlm_sim.cli import main
from uhlm_sim.errors import InputError, ScenarioError, UhlmError, printable
from uhlm_sim.experiment import run
from uhlm_sim.names import find_scenario, scenario_folder
from uhlm_sim.scenario import Scenario
from uhlm_sim.scenario_file import load, parse_scenario, read_scenario, sweep_points

Table = dict[str, Any]
LEAST: Table = {"name": "least", "tokens": {"path": "smollm2-pair"}, "policy": [{"kind": "hlm"}]}
SYNTHETIC = {"kind": "synthetic", "a": 0.8, "b": -0.06, "skip_rates": [{"threshold": 0.4, "rate": 0.5}]}


def made(**values: Any) -> Scenario:
    return parse_scenario({**LEAST, **values})


# -- sweeps, overrides, numbers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        (
            {"policy": [[{"kind": "hlm"}], [{"kind": "slm"}]]},
            r"sweep\.policy: can't be swept: name a policy and its key",
        ),
        ({"policy.hlm": ["slm"]}, r"policy\.hlm: names no key of the policy"),
        ({"replications": [1, 2]}, r"sweep\.replications: can't be swept"),
        ({"sweep": [{}]}, r"sweep\.sweep: can't be swept"),
        ({"sweep.seed": [[1]]}, r"sweep\.sweep\.seed: can't be swept"),
        ({"tokens": [LEAST["tokens"], SYNTHETIC]}, r"points of tokens\.kind synthetic and trace; run each kind"),
        ({"seed": [1, 2], "zip": [1, 2]}, r"sweep\.zip = \[1, 2\]: must be true or false"),
        ({"": [1]}, "unknown key ''"),
        ({"seed": [*range(1000)], "traffic.devices": [1, 2]}, "20,000,000 simulations; at most 1,000,000"),
    ],
)
def test_what_cant_be_swept_is_refused(sweep: Table, message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        sweep_points(made(sweep=sweep, replications=10_000))


def test_a_zip_that_is_no_switch_is_refused() -> None:
    with pytest.raises(ScenarioError, match=r"sweep\.zip = 'yes': must be true or false"):
        made(sweep={"seed": [1], "zip": "yes"})


@pytest.mark.parametrize("override", ["seed=2\nname='b'", "seed=2\n[slo]\nttft_s=1", "seed\n=2", "name=a\rb=c"])
def test_an_override_is_one_key_and_one_value(override: str) -> None:
    with pytest.raises(ScenarioError, match=r"^--set .*\\[nr].*: must be one key and one value"):
        read_scenario(scenario_folder() / "quickstart.toml", [override])


def test_a_value_may_take_several_lines() -> None:
    policies = 'policy=[\n{kind = "slm"},\n]'
    assert read_scenario(scenario_folder() / "quickstart.toml", [policies]).policy[0].kind == "slm"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("duration_s", 5e-324, "duration_s = 5e-324: must be at least 1e-30"),
        ("uplink.bandwidth_hz", 1e-300, r"uplink\.bandwidth_hz = 1e-300: must be at least 1e-30"),
        ("traffic.rate_per_s", 1e-310, r"traffic\.rate_per_s = 1e-310: must be at least 1e-30"),
        ("slo", {"ttft_s": 1e-310}, r"slo\.ttft_s = 1e-310: must be at least 1e-30"),
        ("channel.max_spectral_efficiency", 5e-324, r"channel\.max_spectral_efficiency = .*: must be at least 1e-30"),
        ("uplink.weights", [1e-320] * 20, r"uplink\.weights\.0 = 1e-320: must be greater than or equal to 0\.001"),
        ("description", "\udcff", "udcff' is no UTF-8 text"),
        ("policy", [{"kind": "slm", "name": str(n)} for n in range(300)], "at most 256 items"),
    ],
)
def test_values_beyond_what_can_be_computed_are_refused(key: str, value: Any, message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        load("quickstart", {key: value})


# -- files and folders --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "nul"])
@pytest.mark.parametrize(
    ("table", "value"),
    [
        ("tokens", lambda file: {"path": file}),
        ("tokens", lambda file: {"kind": "models", "path": "t.parquet", "llm": "a", "slm": "a", "prompts": file}),
        ("channel", lambda file: {"kind": "trace", "params": {"path": file}}),
        ("traffic", lambda file: {"kind": "replay", "file": file}),
        ("base_station", lambda file: {"service": {"kind": "table", "path": file}}),
    ],
)
def test_what_is_no_regular_file_is_refused_and_never_waited_for(
    table: str, value: Any, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    file = {"fifo": "fifo", "device": "/dev/zero", "folder": ".", "nul": "a\0b"}[kind]
    with pytest.raises(InputError, match=r"not a file|no such file|null byte"):
        run(made(**{table: value(file)}), jobs=1)


def test_files_and_tables_beyond_a_machine_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "requests.csv"
    file.write_text("arrived_s,prompt_tokens,output_tokens\n1,1,1\n2,1,1\n", encoding="utf-8")
    monkeypatch.setattr(request_file, "MOST_REQUESTS", 1)
    with pytest.raises(ScenarioError, match="has 2 requests; at most 1"):
        request_file.read_requests(str(file))
    monkeypatch.setattr(text_table, "MOST_BYTES", 8)
    with pytest.raises(ValueError, match="MiB are read"):
        text_table.read_content(file)


def test_each_phone_has_its_own_rows_however_they_are_given(tmp_path: Path) -> None:
    file = tmp_path / "requests.csv"
    rows = "".join(f"{at},1,{at},{device}\n" for at, device in ((1, 2), (2, 0), (3, 2), (4, 1)))
    file.write_text(f"arrived_s,prompt_tokens,output_tokens,device\n{rows}", encoding="utf-8")
    requests = request_file.read_requests(str(file))
    assert [requests.of_device(device, 4).arrived_s.tolist() for device in range(4)] == [[2.0], [4.0], [1.0, 3.0], []]


def test_phones_are_not_dropped_into_a_ring_that_is_hardly_there() -> None:
    with pytest.raises(ValueError, match=r"min_distance_m = 249\.9: leaves less than 2% of the cell's area"):
        drop_phones(None, 1, radius_m=250.0, min_distance_m=249.9)  # type: ignore[arg-type]


@pytest.mark.parametrize("command", [["run", "quickstart", "--out"], ["validate", "--out"]])
def test_a_folder_that_no_system_has_is_refused(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command, "a\0b"])
    assert ended.value.code == 2
    assert r"a\x00b: can't be" in capsys.readouterr().err


def test_a_run_is_reported_again_to_the_last_byte_and_never_through_a_link(
    scenario_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Swept are words that look like numbers."""
    out = tmp_path / "out"
    sweep = 'sweep={zip=true, "variant"=["1","01"], "traffic.devices"=[1,2]}'
    main(["run", str(scenario_file), "--jobs", "1", "--out", str(out), "--set", sweep, "--set", "duration_s=4.0"])
    printed = capsys.readouterr().out
    files = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    main(["report", str(out)])
    assert capsys.readouterr().out == printed
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == files
    page, elsewhere = out / "report.html", tmp_path / "elsewhere"
    page.rename(elsewhere)
    page.symlink_to(elsewhere)
    with pytest.raises(SystemExit) as ended:
        main(["report", str(out)])
    assert ended.value.code == 2
    assert "report.html: is a symbolic link" in capsys.readouterr().err
    assert elsewhere.read_bytes() == files[page]


# -- code of one's own, and processes -----------------------------------------------------------------------------

RAISES = {
    "SystemExit: 3": "raise SystemExit(3)",
    "Odd: x": "raise type('Odd', (BaseException,), {})('x')",
    "Mute": "raise type('Mute', (Exception,), {'__str__': lambda self: 1 / 0})",
}


@pytest.mark.parametrize("place", ["import", "make", "call"])
@pytest.mark.parametrize("message", RAISES)
def test_whatever_code_of_ones_own_raises_is_told_in_one_line(
    message: str, place: str, scenario_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"raises_{abs(hash((message, place)))}"
    head = {"import": "", "make": "def keep():\n    ", "call": "def keep(path):\n    "}[place]
    (tmp_path / f"{module}.py").write_text(f"{head}{RAISES[message]}\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    scenario = read_scenario(scenario_file, [f'policy=[{{kind="{module}:keep"}}]', "duration_s=3.0"])
    with pytest.raises(UhlmError, match=message) as caught:
        run(scenario, jobs=1, allow_plugins=True)
    assert "\n" not in str(caught.value)


def test_workers_end_when_their_parent_is_killed() -> None:
    code = "import time; from uhlm_sim.simulations import in_processes; list(in_processes(time.sleep, [(600,)] * 4, 2))"
    parent = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    workers: list[psutil.Process] = []
    while len(workers) < 2 and parent.poll() is None:
        time.sleep(0.1)
        workers = [
            child for child in psutil.Process(parent.pid).children() if "popen_loky" in " ".join(child.cmdline())
        ]
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(workers, timeout=60)
    for worker in alive:
        worker.kill()
    assert workers
    assert not alive


# -- words --------------------------------------------------------------------------------------------------------


def test_messages_show_control_characters_and_are_cut() -> None:
    assert printable("a\x1b[31m\x9b\u202e\r\tb\n") == "a\\x1b[31m\\x9b\\u202e\\r\tb\n"
    assert str(InputError("a\x1bb")) == "a\\x1bb"
    assert len(str(InputError(f"key = {'x' * 10**6}: must be short"))) < 500
    assert str(InputError("word " * 10**5)).count("word") < 300
    assert str(InputError("line\n" * 100)).endswith("... and 81 more")


def test_no_control_character_reaches_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (
        ["run", "a\x1b[31m"],
        ["a\x1b[31m"],
        ["run", "quickstart", "--seed", "\x1b[31m"],
        ["timeline", "\x1b"],
    ):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 2
        assert "\x1b" not in capsys.readouterr().err
    with pytest.raises(ScenarioError, match=r"policy\..*\.name = "):
        made(policy=[{"kind": "hlm", "name": "a\x9b31m"}])


def test_keys_that_no_chosen_kind_reads_are_told_once() -> None:
    idle = {"traffic.rate_per_s": 1.0, "uplink.tti_s": 0.01, "sweep": {"uplink.average_s": [0.1, 0.2]}}
    assert [sentence.partition(" ")[0] for sentence in unread_keys(load("quickstart", idle))] == [
        "traffic.rate_per_s",
        "uplink.average_s",
        "uplink.tti_s",
    ]
    read_at_a_point = {"traffic.rate_per_s": 1.0, "sweep": {"traffic.kind": ["closed", "poisson"]}}
    assert unread_keys(load("quickstart", read_at_a_point)) == []
    for file in scenario_folder().glob("*.toml"):
        assert unread_keys(load(file.stem)) == [], file.stem


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("traffic.users=5", "did you mean 'devices'?"),
        ("uplink.bandwidth_hz=20MHz", "must be a valid number; write 20e6, without a unit"),
        ("base_station.downlink_s='5 ms'", "write 5e-3, without a unit"),
        ('sweep={"traffic.devices"=[1, 2', "a bracket isn't closed"),
    ],
)
def test_a_common_slip_is_told_with_its_remedy(override: str, says: str) -> None:
    with pytest.raises(ScenarioError) as error:
        read_scenario(scenario_folder() / "quickstart.toml", [override])
    assert says in str(error.value)


def test_of_a_mistyped_file_the_one_beside_it_is_suggested(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").touch()
    with pytest.raises(ScenarioError, match=r"did you mean '.*mine\.toml'\?"):
        find_scenario(str(tmp_path / "mien.toml"))


def test_what_a_preset_fills_in_beside_given_numbers_and_values_of_a_wrong_unit_are_told() -> None:
    given = {"device.slm_token_s": 0.01, "uplink.bandwidth_hz": 20, "channel.coherence_s": 7200.0}
    given["sweep"] = {"base_station.downlink_s": [0.005, 50.0]}
    assert cautions(load("quickstart", given)) == [
        "device: slm_token_s = 0.01 is given, slm_prefill_token_s = 0.00399 comes from the preset "
        "'phone-qwen-500m-8bit'",
        "uplink.bandwidth_hz = 20 is outside 10000 to 1e+10, what radio systems use, in Hz: is its unit right?",
        "channel.coherence_s = 7200 is outside 0.0001 to 10, what channels keep a gain for, in seconds: is its unit "
        "right?",
        "base_station.downlink_s = 50 is outside 1e-05 to 2, what the way back takes, in seconds: is its unit right?",
    ]
    both = {"device.slm_token_s": 0.01, "device.slm_prefill_token_s": 0.001}
    assert cautions(load("quickstart", both)) == []


def test_work_that_takes_long_in_silence_is_told_before_it_begins(tmp_path: Path) -> None:
    crowd = load("quickstart", {"traffic.devices": 100_000})
    assert [sentence.partition(",")[0] for sentence in cautions(crowd)] == [
        "a simulation may commit about 1.7e+08 tokens"
    ]
    file = tmp_path / "requests.csv"
    file.write_text("arrived_s,prompt_tokens,output_tokens\n" + "1.0,20,30\n" * 2_500_000, encoding="utf-8")
    replayed = load("quickstart", {"traffic.kind": "replay", "traffic.file": str(file)})
    assert any("25 MB are read first" in sentence for sentence in cautions(replayed))
    for name in scenario_folder().glob("*.toml"):
        assert cautions(load(name.stem)) == [], name.stem


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (
            {"threshold": {"prize_s": 1.0}},
            r"policy\.u-hlm\.threshold\.prize_s': allowed here are risk, price_s; did you",
        ),
        ({"threshold": {"risk": 2.0}}, r"policy\.u-hlm\.threshold\.risk = 2\.0: must be less than 1$"),
        ({"threshold": {}}, r"policy\.u-hlm\.threshold: needs risk or price_s, one of them$"),
        ({"payload": {"kin": "ids"}}, r"policy\.u-hlm\.payload\.kin': allowed here are kind, bits_per_probability"),
    ],
)
def test_a_table_within_a_policy_is_told_what_it_may_hold(table: Table, says: str) -> None:
    with pytest.raises(ScenarioError, match=says) as refused:
        made(policy=[{"kind": "u-hlm", **table}])
    assert len(str(refused.value).splitlines()) == 1
