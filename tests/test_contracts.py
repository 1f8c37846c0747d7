"""What holds of everything that a scenario may name: said, sourced, found, picklable, and lawful in any company."""

import inspect
import pickle
import re
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from worlds import cell, ready

import channel_models
import uhlm_sim.cell
from uhlm_sim.cell.checks import check_scenario
from uhlm_sim.cell.engine import simulate
from uhlm_sim.cell.named import SEAMS
from uhlm_sim.cell.phones import windows
from uhlm_sim.cell.phones.network_aware import priced
from uhlm_sim.kinds import WORDS, one_line
from uhlm_sim.scenario import Scenario
from uhlm_sim.seams import Seam
from uhlm_sim.settings.policy import Payload
from uhlm_sim.tables import LEGS
from uhlm_sim.tokens.gates import keep_sure
from uhlm_sim.tokens.messages import message_of
from uhlm_sim.tokens.speculative import LinearLaw

EVERY = [(seam, name, kind) for seam in SEAMS for name, kind in seam.functions.items()]
SOURCED = ("channel.kind", "channel.geometry.model", "uplink.allocator", "base_station.batch_rule")
SOURCED += ("base_station.order", "base_station.service.kind", "traffic.kind")
YEAR_OR_STANDARD = re.compile(r"\b(19|20)\d\d\b|\bT[RS] \d\d\.\d{3}\b")
DEVICES = 3
# What a kind can't do without, where its defaults aren't enough; all others get the same.
NEEDS: dict[str, dict[str, dict[str, Any]]] = {
    "trace": {"channel": {"params": {"path": "recording.csv"}}},
    "constant": {"channel": {"min_snr_db": -100.0}},
    "replay": {"traffic": {"file": "requests.csv"}},
    "table": {"base_station": {"service": {"kind": "table", "path": "times.csv"}}},
}

every = pytest.mark.parametrize(
    ("seam", "name", "kind"),
    EVERY,
    ids=lambda each: each if isinstance(each, str) else getattr(each, "heading", ""),
)


@every
def test_a_kind_says_in_a_line_what_it_does_and_where_that_is_from(seam: Seam, name: str, kind: Any) -> None:
    line = one_line(kind)
    assert 10 < len(line) <= 120
    assert line.endswith(".")
    text = inspect.getdoc(kind) or ""
    key = seam.keys[0]
    if key in SOURCED:
        assert YEAR_OR_STANDARD.search(text), f"{key} = {name}: name the source, with its year or a standard's number"
        assert "=" in text or "~" in text or "0 <" in text, f"{key} = {name}: give the equation"
        assert "Left out:" in text, f"{key} = {name}: say what is left out"


@every
def test_a_kind_is_found_by_its_name_and_travels_to_a_worker(seam: Seam, name: str, kind: Any) -> None:
    assert seam.find(name) is kind
    assert pickle.loads(pickle.dumps(kind)) is kind
    assert [other for other in seam.functions.values() if other is kind] == [kind], "a kind has a function of its own"


def test_every_dictionary_of_functions_is_one_of_the_kinds() -> None:
    """So that `uhlm-sim list`, the reference and this file know whatever is new."""
    known = [id(seam.functions) for seam in SEAMS]
    for package in (channel_models, uhlm_sim.cell):
        for module in walk_packages(package.__path__, f"{package.__name__}."):
            for name, value in vars(import_module(module.name)).items():
                if (
                    name.isupper()
                    and isinstance(value, dict)
                    and value
                    and all(map(inspect.isfunction, value.values()))
                ):
                    assert id(value) in known, f"{module.name}.{name} belongs into uhlm_sim/cell/named.py"


def words_of(schema: dict[str, Any], above: str, tables: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Give (dotted key, word) of every word that the JSON schema allows by name."""
    if "$ref" in schema:
        schema = tables[schema["$ref"].rpartition("/")[2]]
    for word in schema.get("enum", [schema["const"]] if "const" in schema else []):
        yield above, word
    for name, inner in schema.get("properties", {}).items():
        yield from words_of(inner, f"{above}.{name}".lstrip("."), tables)
    listed = [schema["items"]] if "items" in schema else []
    for inner in (*schema.get("anyOf", []), *schema.get("oneOf", []), *listed):
        yield from words_of(inner, above, tables)


def test_every_word_of_the_schema_is_listed_with_its_line() -> None:
    schema = Scenario.model_json_schema()
    allowed = {(key, word) for key, word in words_of(schema, "", schema["$defs"]) if isinstance(word, str)}
    told = {(key, word) for key, words in WORDS.items() for word in words}
    kinds = {(key, name) for seam in SEAMS for key in seam.keys for name in seam.functions}
    assert len(allowed) > 30
    assert allowed - kinds <= told
    assert told - allowed == {("tokens.prompts", "built-in"), ("tokens.prompts", "coding"), ("tokens.encoder", "none")}
    assert all(10 < len(line) <= 120 and line.endswith(".") for words in WORDS.values() for line in words.values())


def names(key: str) -> st.SearchStrategy[str]:
    return st.sampled_from([name for seam in SEAMS if key in seam.keys for name in seam.functions])


@st.composite
def scenarios(draw: st.DrawFn) -> dict[str, dict[str, Any]]:
    """Draw the tables of a legal scenario of a few phones and seconds, from all kinds."""
    channel, allocator, traffic = (
        draw(names("channel.kind")),
        draw(names("uplink.allocator")),
        draw(names("traffic.kind")),
    )
    tables: dict[str, dict[str, Any]] = {
        "traffic": {
            "kind": traffic,
            "devices": DEVICES,
            "max_tokens": 20,
            "think_time_s": draw(st.floats(0.0, 1.0)),
            "rate_per_s": draw(st.floats(0.1, 5.0)),
        },
        "channel": {
            "kind": channel,
            "coherence_s": draw(st.sampled_from([0.005, 0.02, 0.3])),
            "mean_snr_db": draw(st.lists(st.floats(-5.0, 30.0), min_size=DEVICES, max_size=DEVICES)),
        },
        "uplink": {
            "allocator": allocator,
            "snr_rule": draw(st.sampled_from(["per-hertz", "power-limited"])),
            "bandwidth_hz": draw(st.floats(1e6, 4e7)),
            "access_s": draw(st.sampled_from([0.0, 0.01])),
            "tti_s": draw(st.sampled_from([5e-4, 4e-3])),
            "weights": draw(st.lists(st.floats(0.1, 10.0), min_size=DEVICES, max_size=DEVICES)),
            "link": {"kind": draw(names("uplink.link.kind")), "csi_delay_s": draw(st.sampled_from([0.0, 0.01]))},
        },
        "downlink": {
            "kind": draw(st.sampled_from(["constant", "shared"])),
            "bandwidth_hz": draw(st.floats(1e4, 1e7)),
            "on_resample": draw(st.sampled_from(["id", "distribution"])),
        },
        "base_station": {
            "gpus": draw(st.integers(1, 2)),
            "queue": draw(st.sampled_from(["shared", "join-shortest"])),
            "max_batch": draw(st.integers(2, 8)),
            "batch_rule": draw(names("base_station.batch_rule")),
            "min_batch": draw(st.integers(1, 2)),
            "max_wait_s": draw(st.sampled_from([0.001, 0.1])),
            "order": draw(names("base_station.order")),
            "chunk_tokens": draw(st.sampled_from([None, 8, 40])),
            "service": {
                "kind": draw(names("base_station.service.kind")),
                "s_s_per_context": draw(st.sampled_from([0.0, 1e-5])),
            },
            **draw(st.sampled_from([{"sync": "free"}, {"sync": "piggyback"}, {"kv_tokens": 200}])),
        },
        "slo": {"ttft_s": 1.0, "tpot_s": 0.2},
    }
    for name in (channel, allocator, traffic, tables["base_station"]["service"]["kind"]):
        for table, needed in NEEDS.get(name, {}).items():
            tables[table] |= deepcopy(needed)
    return tables


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that NEEDS names: a recorded channel, requests of some seconds, times of steps."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(1)
    np.savetxt(folder / "recording.csv", 10 + 5 * rng.standard_normal((50, DEVICES)), delimiter=",")
    rows = [f"{at_s:.3f},{rng.integers(1, 40)},{rng.integers(1, 20)}" for at_s in np.sort(rng.uniform(0, 4, 20))]
    (folder / "times.csv").write_text("new_tokens,seconds\n1,0.01\n64,0.03\n", encoding="utf-8")
    (folder / "requests.csv").write_text("\n".join(["arrived_s,prompt_tokens,output_tokens", *rows]), encoding="utf-8")
    return folder


ROUNDS: dict[str, dict[str, Any]] = {
    "one draft": {},
    "a window": {"rounds": partial(windows.windowed, drafts=3, bonus=True)},
    "a window without bonus": {"rounds": partial(windows.windowed, drafts=2, bonus=False)},
    "by doubt": {
        "rounds": partial(windows.confident, most=4, bonus=True),
        "goes_on": partial(keep_sure, threshold=0.5),
    },
    "learnt": {"rounds": partial(windows.learnt, most=3, bonus=True), "looks_at_cell": True},
    "priced": {
        "rounds": partial(priced, price_s=0.2, law=LinearLaw(0.8, -0.1, 0.3), gate="uncertainty"),
        "looks_at_cell": True,
    },
}
PAYLOADS: list[dict[str, Any]] = [
    {"kind": "full"}, {"kind": "top-k", "k": 30}, {"kind": "quantised", "levels": 16}, {"kind": "ids"},
]  # fmt: skip


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    tables=scenarios(),
    kind=st.sampled_from(["hlm", "hlm", "u-hlm", "u-hlm", "slm", "llm"]),
    skipped=st.floats(0.1, 0.9),
    rounds=st.sampled_from(list(ROUNDS)),
    payload=st.sampled_from(PAYLOADS),
)
def test_any_company_of_kinds_obeys_the_laws_and_repeats_itself(
    files: Path, tables: dict[str, dict[str, Any]], kind: str, skipped: float, rounds: str, payload: dict[str, Any]
) -> None:
    """`simulate` holds its tables against the stations' own counters; here they are also whole, and the same twice."""
    named = (tables["channel"].get("params", {}), "path"), (tables["traffic"], "file")
    for table, key in (*named, (tables["base_station"]["service"], "path")):
        if key in table:
            table[key] = str(files / table[key])
    scenario = cell(**tables, duration_s=3.0, warmup_s=0.5)
    policy = ready(kind, tokens=20, skip_rate=skipped if kind == "u-hlm" else 0.0)
    if kind in ("hlm", "u-hlm"):
        message = message_of(Payload(**payload), policy.source.vocabulary_size, bill="all")
        policy = replace(policy, scheme=replace(policy.scheme, message=message, **ROUNDS[rounds]))
    check_scenario(scenario, [policy])
    records = simulate(scenario, policy, 0)
    committed = records.tokens[records.tokens["committed_s"].notna()]
    assert not committed[list(LEGS)].isna().to_numpy().any()
    assert (committed[list(LEGS)].to_numpy() > -1e-9).all()
    again = simulate(scenario, policy, 0)
    for table in ("requests", "tokens", "stations"):
        assert getattr(again, table).equals(getattr(records, table))
