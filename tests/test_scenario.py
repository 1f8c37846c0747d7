"""A scenario file is right, or is told at once which key is wrong, with its value and what is allowed."""

import re
from pathlib import Path

import pytest

from uhlm_sim.errors import ScenarioError
from uhlm_sim.names import find_scenario, load_presets, scenario_folder
from uhlm_sim.scenario_file import parse_scenario, read_scenario, sweep_points, write_scenario

BUILT_IN = sorted(scenario_folder().glob("*.toml"))
MINIMAL = {"name": "m", "tokens": {"kind": "trace", "path": "t"}, "policy": [{"kind": "hlm"}]}


@pytest.mark.parametrize("file", BUILT_IN, ids=lambda file: file.stem)
def test_a_built_in_scenario_survives_being_written_and_read(file: Path, tmp_path: Path) -> None:
    scenario = read_scenario(file)
    copy = tmp_path / "copy.toml"
    copy.write_text(write_scenario(scenario), encoding="utf-8")
    assert read_scenario(copy) == scenario


@pytest.mark.parametrize("file", BUILT_IN, ids=lambda file: file.stem)
def test_a_built_in_scenario_opens_with_its_question(file: Path) -> None:
    first = file.read_text(encoding="utf-8").splitlines()[0]
    assert re.match(r"# .*\?", first)


def test_only_name_tokens_and_a_policy_are_needed() -> None:
    scenario = parse_scenario(MINIMAL)
    assert scenario.base_station.service.seconds(1) == pytest.approx(0.009265 + 0.0012)
    assert scenario.device.slm_token_s == load_presets()["slm"]["phone-1b-bf16"]["slm_token_s"]


def test_an_explicit_value_overrides_its_presets_field() -> None:
    values = {**MINIMAL, "device": {"slm": "phone-1b-4bit", "slm_token_s": 0.5}}
    values["base_station"] = {"llm": "llama2-7b-h100", "service": {"c_s": 1.0}}
    scenario = parse_scenario(values)
    assert scenario.device.slm_token_s == 0.5
    assert scenario.device.slm_prefill_token_s == load_presets()["slm"]["phone-1b-4bit"]["slm_prefill_token_s"]
    assert scenario.base_station.service.c_s == 1.0
    assert scenario.base_station.service.free_tokens == 12


def test_a_service_of_ones_own_takes_nothing_from_a_preset() -> None:
    scenario = parse_scenario({**MINIMAL, "base_station": {"service": {"c_s": 0.25}}})
    assert scenario.base_station.service.seconds(1000) == 0.25


def test_every_preset_says_where_it_comes_from() -> None:
    for presets in load_presets().values():
        for preset in presets.values():
            assert len(preset["source"]) > 40


def test_a_policys_label_is_its_name_or_its_kind_with_what_tells_it_apart() -> None:
    policies = [
        {"kind": "hlm"},
        {"kind": "u-hlm", "threshold": "risk-prone"},
        {"kind": "u-hlm", "threshold": 0.43},
        {"kind": "u-hlm", "threshold": 0.2, "name": "mine"},
    ]
    labels = [policy.label for policy in parse_scenario({**MINIMAL, "policy": policies}).policy]
    assert labels == ["hlm", "u-hlm(risk-prone)", "u-hlm(0.43)", "mine"]


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("uplink.bandwith_hz=1e6", "unknown key 'uplink.bandwith_hz'.*did you mean 'bandwidth_hz'"),
        ("uplink.bandwidth_hz=0", "uplink.bandwidth_hz = 0: must be greater than 0"),
        ("uplink.bandwidth_hz=nan", "uplink.bandwidth_hz = nan: must be a finite number"),
        ('uplink.bandwidth_hz="wide"', "uplink.bandwidth_hz = 'wide': must be a valid number"),
        ("channel.coherence_s=-1", "channel.coherence_s = -1: must be greater than 0 or 'per-upload'"),
        ('channel={kind="constant", mean_snr_db=-20.0}', "mean_snr_db = -20 is below min_snr_db = -10"),
        ("channel.mean_snr_db=[1.0, 2.0]", "2 values for traffic.devices = 20"),
        ("policy.u-hlm(0.43).threshold=1.1", "threshold = 1.1: must be .*less than or equal to 1"),
        ('policy.hlm.name="slm"', "two policies are called 'slm'"),
        ('policy.rand-hlm.match="llm"', "must name one u-hlm with a threshold"),
        ("traffic.devices=1e9", "traffic.devices = 1000000000.0: must be a valid integer"),
        ("traffic.devices=1000000000", "traffic.devices = 1000000000: must be less than or equal to 100000"),
        ("channel.coherence_s=1e-9", "fading blocks: up to 1.2e\\+11 in one simulation; at most 1e\\+08 fit"),
        ('traffic={kind="poisson", rate_per_s=1e6}', "requests: up to 2.4e\\+09 in one simulation"),
        ("warmup_s=120", "warmup_s = 120 leaves nothing of duration_s = 120"),
        ('device.slm="phone-1b"', "no preset 'phone-1b'.*did you mean 'phone-1b-bf16'"),
        ('tokens.kind="synthesised"', "tokens"),
        ("policy=[]", "policy"),
        ("policy.oracle.threshold=1", "no single policy is called 'oracle'"),
        ("name.first=1", "'name' is a value, not a table"),
        ("seed", "write it as key=value"),
    ],
)
def test_a_wrong_key_is_named_with_what_is_allowed(override: str, says: str) -> None:
    with pytest.raises(ScenarioError, match=says):
        read_scenario(find_scenario("quickstart"), [override])


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    file = tmp_path / "broken.toml"
    file.write_text("name = ", encoding="utf-8")
    with pytest.raises(ScenarioError, match=r"broken\.toml: not valid TOML"):
        read_scenario(file)


def test_a_near_miss_of_a_scenarios_name_is_suggested() -> None:
    with pytest.raises(ScenarioError, match="did you mean 'quickstart'"):
        find_scenario("quikstart")


SWEEP = {"channel.mean_snr_db": [0.0, 10.0, 20.0], "traffic.devices": [5, 10]}


def swept(sweep: dict[str, object], **more: object) -> list[dict[str, object]]:
    return [point.values for point in sweep_points(parse_scenario({**MINIMAL, **more, "sweep": sweep}))]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("-5:25:10", [-5, 5, 15, 25]),
        ("0:1:0.1", [k / 10 for k in range(11)]),
        ("0:1:0.3", [0.0, 0.3, 0.6, 0.9]),
        ("20:10:-5", [20, 15, 10]),
        ("1e6:3e6:1e6", [1e6, 2e6, 3e6]),
    ],
)
def test_a_range_has_both_ends_and_exact_decimals(text: str, values: list[float]) -> None:
    scenario = parse_scenario({**MINIMAL, "sweep": {"traffic.think_time_s": text}})
    assert scenario.sweep == {"traffic.think_time_s": values}
    kinds = {type(value) for value in scenario.sweep["traffic.think_time_s"]}  # type: ignore[union-attr]
    assert kinds == {type(values[0])}


@pytest.mark.parametrize("text", ["5", "0:1", "0:1:0", "0:1:-1", "0:1:1e-9", "a:b:c", "0:1:0.1:2", "nan:1:1"])
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(ScenarioError, match=r'sweep.traffic.devices = .*: must be a list of values, or a range "first'):
        parse_scenario({**MINIMAL, "sweep": {"traffic.devices": text}})


def test_a_sweep_is_the_product_of_its_lists_or_their_pairs() -> None:
    points = sweep_points(parse_scenario({**MINIMAL, "sweep": SWEEP}))
    assert len(points) == 6
    seen = [(point.scenario.channel.mean_snr_db, point.scenario.traffic.devices) for point in points]
    assert seen == [(0.0, 5), (0.0, 10), (10.0, 5), (10.0, 10), (20.0, 5), (20.0, 10)]
    pairs = swept({"zip": True, "traffic.devices": [5, 10], "base_station.gpus": [1, 2]})
    assert pairs == [
        {"traffic.devices": 5, "base_station.gpus": 1},
        {"traffic.devices": 10, "base_station.gpus": 2},
    ]


def test_a_swept_preset_brings_its_own_times_and_a_policy_is_swept_by_its_label() -> None:
    policies = [{"kind": "hlm"}, {"kind": "u-hlm", "threshold": 0.4, "name": "mine"}]
    sweep = {"base_station.llm": ["llama2-7b-a100", "llama2-7b-h100"], "policy.mine.threshold": [0.1, 0.2]}
    points = sweep_points(parse_scenario({**MINIMAL, "policy": policies, "sweep": sweep}))
    times = [point.scenario.base_station.service.c_s for point in points]
    assert times == [0.009265, 0.009265, 0.005562, 0.005562]
    assert [point.scenario.policy[1].threshold for point in points] == [0.1, 0.2, 0.1, 0.2]


@pytest.mark.parametrize(
    ("sweep", "says"),
    [
        ({"traffic.devices": 5}, "sweep.traffic.devices"),
        ({"traffic.devices": []}, "at least one value"),
        ({"traffic.devices": [5, 0]}, "sweep point traffic.devices = 0: traffic.devices = 0: must be greater"),
        ({"traffic.device": [5]}, "unknown key 'traffic.device'"),
        ({"zip": True, "traffic.devices": [5], "seed": [1, 2]}, "same length"),
        ({"channel.mean_snr_db": [5, 5.0]}, "the point channel.mean_snr_db = 5.0 is there twice"),
        ({"seed": list(range(101)), "traffic.devices": list(range(1, 101))}, "more than 10,000 points"),
    ],
)
def test_a_wrong_sweep_is_told_before_anything_runs(sweep: dict[str, object], says: str) -> None:
    with pytest.raises(ScenarioError, match=says):
        swept(sweep)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('"warm-up" = 3', "unknown key 'warm-up'"),
        ("trace = 1", "unknown key 'trace'"),
        ('[channel]\n"mean-snr-db" = 1', "unknown key 'channel.mean-snr-db'.*did you mean 'mean_snr_db'"),
        ('[tokens]\n"vocabulary-size" = 1', "unknown key 'tokens.vocabulary-size'"),
        ('[tokens]\nkind = "neither"', "tokens.kind = 'neither': must be one of trace, models, live, synthetic"),
        ("[channel]\nmean_snr_db = []", "channel.mean_snr_db.*at least 1 item"),
        ("seed = " + "1" * 5000, "not valid TOML"),
        ("a = " + "[" * 5000, "not valid TOML"),
        ("policy = 5", "policy"),
    ],
)
def test_an_odd_file_is_told_in_words_too(text: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "odd.toml"
    table, bare = text.startswith("["), text
    file.write_text(f'name = "odd"\n{"" if table else bare}\n{bare if table else ""}', encoding="utf-8")
    with pytest.raises(ScenarioError, match=says):
        read_scenario(file)


def test_a_kind_names_a_policy_only_if_it_is_the_only_one_of_it() -> None:
    with pytest.raises(ScenarioError, match=r"no single policy is called 'u-hlm'; there are hlm, u-hlm\(risk-averse\)"):
        read_scenario(find_scenario("quickstart"), ["policy.u-hlm.threshold=0.3"])
    assert read_scenario(find_scenario("quickstart"), ["policy.rand-hlm.name=dice"]).policy[4].label == "dice"


def test_the_kind_of_tokens_is_trace_unless_it_is_told() -> None:
    assert parse_scenario({**MINIMAL, "tokens": {"path": "t"}}).tokens.kind == "trace"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("policy.u-hlm(0.43).treshold=0.5", "did you mean 'threshold'"),
        ("policy.u-hlm(0.43).threshold=risky", r"policy\.u-hlm\.threshold = 'risky'"),
        ('sweep={"traffic.devices"=5}', r"sweep\.traffic\.devices = 5: must be a list of values"),
        ("channel=rayleigh", "channel = 'rayleigh': must be a table"),
    ],
)
def test_a_mistype_is_told_in_the_users_own_words(setting: str, said: str) -> None:
    with pytest.raises(ScenarioError, match=said) as told:
        read_scenario(find_scenario("quickstart"), [setting])
    assert str(told.value).startswith("scenario quickstart with --set ")
    assert "\n" not in str(told.value)
