"""A recorded trace of requests: read as public traces write it, honoured row by row, refused by line and column."""

from pathlib import Path

import numpy as np
import pytest
from worlds import cell, ready

from uhlm_sim import load, run
from uhlm_sim.cell.checks import check_scenario
from uhlm_sim.cell.engine import simulate
from uhlm_sim.cell.phones.request_file import read_requests
from uhlm_sim.errors import InputError, ScenarioError
from uhlm_sim.provenance import about_traffic

PLAIN = "arrived_s,prompt_tokens,output_tokens\n"


@pytest.fixture
def written(tmp_path):
    def write(text, name="requests.csv"):
        file = tmp_path / name
        file.write_text(text, encoding="utf-8")
        return str(file)

    return write


def replayed(file, **changes):
    traffic = {"kind": "replay", "file": file, "devices": 2, "max_tokens": 30}
    return cell(**{"duration_s": 20.0, "warmup_s": 1.0, **changes, "traffic": traffic | changes.get("traffic", {})})


# -- reading ------------------------------------------------------------------------------------------------------

HEADERS = {
    "Azure": "TIMESTAMP,ContextTokens,GeneratedTokens\n",
    "BurstGPT": "Timestamp,Request tokens,Response tokens\n",
    "Vidur": "arrived_at,num_prefill_tokens,num_decode_tokens\n",
    "ours": PLAIN,
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_the_columns_of_public_traces_are_known(header, written):
    requests = read_requests(written(header + "0.5,7,3\n2,11,20\n1.25,5,1\n"))
    assert requests.arrived_s.tolist() == [0.5, 1.25, 2.0]
    assert requests.prompt_tokens.tolist() == [7, 5, 11]
    assert requests.output_tokens.tolist() == [3, 1, 20]
    assert requests.device is None


def test_dates_count_from_the_first_one_and_other_columns_are_ignored(written):
    rows = '2023-11-16 18:15:47.2500000,"GPT, large",7,3\n2023-11-16 18:15:46.5,x,11.0,20\n'
    requests = read_requests(written("Timestamp,Model,Request tokens,Response tokens\n" + rows))
    assert requests.arrived_s.tolist() == [0.0, 0.75]
    assert requests.prompt_tokens.tolist() == [11, 7]


def test_devices_with_names_are_numbered_in_order_of_appearance_or_all_take_turns(written):
    named = read_requests(written("time,input_tokens,output_tokens,user\n0,1,1,bea\n1,2,1,ann\n2,3,1,bea\n"))
    assert [named.of_device(n, 5).prompt_tokens.tolist() for n in range(3)] == [[1, 3], [2], []]
    turns = read_requests(written(PLAIN + "".join(f"{n},{n + 1},1\n" for n in range(5)), "turns.csv"))
    assert [turns.of_device(n, 2).prompt_tokens.tolist() for n in range(2)] == [[1, 3, 5], [2, 4]]


def test_numbers_of_devices_are_those_devices(written):
    numbered = read_requests(written("time,input_tokens,output_tokens,device\n0,1,1,3\n1,2,1,0\n2,3,1,3.0\n"))
    assert numbered.device.tolist() == [3, 0, 3]


BLANK = "Timestamp,Session ID,Request tokens,Response tokens\n0.0,s1,20,20\n0.5,,20,20\n1.0,,20,20\n1.5,,20,20\n"


def test_blank_devices_are_no_device(written):
    """Four phones answer four requests side by side; were three of them one user's, they would wait for each other."""
    scenario = replayed(written(BLANK), traffic={"devices": 4, "max_tokens": 20})
    with pytest.raises(ScenarioError, match="line 3, column 'Session ID' = '': is blank, and others aren't"):
        check_scenario(scenario, [ready()])
    requests = read_requests(written(BLANK.replace("s1", ""), "all.csv"))
    assert requests.device is None
    spread = simulate(replayed(written(BLANK.replace("s1", ""), "all.csv"), traffic={"devices": 4}), ready("slm"), 0)
    assert spread.requests["device"].nunique() == 4


MOONCAKE = '{"timestamp": 0, "input_length": 640, "output_length": 30, "hash_ids": [0, 1]}\n'
MOONCAKE += '{"timestamp": 3000, "input_length": 700, "output_length": 30, "hash_ids": [0, 2]}\n'


def test_json_lines_of_mooncake_are_in_milliseconds_and_others_in_the_unit_that_is_given(written):
    requests = read_requests(written(MOONCAKE, "mooncake.jsonl"))
    assert requests.arrived_s.tolist() == [0.0, 3.0]
    assert requests.prompt_tokens.tolist() == [640, 700]
    assert read_requests(written(MOONCAKE, "mooncake.jsonl"), "s").arrived_s.tolist() == [0.0, 3000.0]
    assert read_requests(written(PLAIN + "0,1,1\n500,1,1\n"), "us").arrived_s.tolist() == [0.0, 0.0005]


def test_rows_without_tokens_are_left_out_on_request_and_counted(written):
    file = written(PLAIN + "0.5,7,3\n1,0,3\n2,5,0\n3,5,1\n")
    with pytest.raises(ScenarioError, match="line 3, column 'prompt_tokens' = '0': must be a whole number from 1"):
        read_requests(file)
    requests = read_requests(file, skip_empty=True)
    assert requests.arrived_s.tolist() == [0.5, 3.0]
    said = about_traffic(replayed(file, traffic={"skip_empty": True}))
    assert "the 2 of requests.csv" in said[0]
    assert "2 rows without prompt or output tokens left out" in said[0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (PLAIN + "0.5,7,3\n1.0,8\n", "line 3, column 'output_tokens': is missing; the line is cut off"),
        (PLAIN + "0.5,7,3\n1.0,many,3\n", "line 3, column 'prompt_tokens' = 'many': must be a whole number from 1"),
        (PLAIN + "0.5,7,2.5\n", "line 2, column 'output_tokens' = '2.5': must be a whole number from 1"),
        (PLAIN + "0.5,7,0\n", "line 2, column 'output_tokens' = '0': .*leave requests that failed out"),
        (PLAIN + "nan,7,3\n", "line 2, column 'arrived_s' = 'nan': must be finite and at least 0 s"),
        (PLAIN + "-1,7,3\n", "line 2, column 'arrived_s' = '-1': must be finite and at least 0 s"),
        (PLAIN + "soon,7,3\n", "line 2, column 'arrived_s' = 'soon': must be a number of seconds, or a date"),
        (PLAIN + "0.5,7,3\n2023-11-16 18:15:47,7,3\n", "line 3, column 'arrived_s' = '2023.*: must be a number"),
        (PLAIN + "2023-11-16 18:15:47,7,3\n0.5,7,3\n", "line 3, column 'arrived_s' = '0.5': must be .* date and time"),
        (PLAIN + "0.5,7,3\n\n1.0,8,3\n", "line 3: is blank"),
        (PLAIN + "0.5,7,3\n1,0,8,3\n", "line 3: has 4 fields, and line 1 has 3"),
        (PLAIN + "0.5,1_000,3\n", "line 2, column 'prompt_tokens' = '1_000': must be a whole number"),
        (PLAIN + "2023-11-16 18:15:47,7,3\n2023-11-16T18:15:47Z,7,3\n", "some arrivals have a time zone"),
        (PLAIN[:-1] + ",device\n0.5,7,3,1\n1,7,3,b\n", "line 3, column 'device' = 'b': must be a number as the others"),
        (PLAIN[:-1] + ",device\n0.5,7,3,-1\n", "line 2, column 'device' = '-1': must be a whole number from 0"),
        (PLAIN, "has no requests, only a header"),
        ("", "line 1: no column of the arrival.*timestamp.*there are none"),
        ("time,output_tokens\n", "line 1: no column of the prompt tokens, which may be called .*ContextTokens|context"),
        ("time,arrival,prompt_len,output_len\n", "line 1: 'time' and 'arrival' are both the arrival"),
    ],
)
def test_a_wrong_file_is_told_by_line_and_column(text, says, written):
    file = written(text)
    with pytest.raises(ScenarioError, match=says) as refused:
        check_scenario(replayed(file), [ready()])
    assert file in str(refused.value)


def test_what_does_not_fit_into_the_scenario_is_told(written):
    three = written("time,input_tokens,output_tokens,user\n0,1,1,a\n1,2,1,b\n2,3,1,c\n", "three.csv")
    late = written(PLAIN + "1700000000,7,3\n", "late.csv")
    plain = written(PLAIN + "0.5,7,3\n")
    for scenario, says in (
        (replayed(three), "traffic.devices = 2: .*three.csv has requests of 3 devices"),
        (replayed(late), r"first request arrives at 1.7e\+09 s, after duration_s = 20"),
        (replayed("absent.csv"), "traffic.file = 'absent.csv': can't be read"),
        (replayed(plain, traffic={"max_tokens": 60}), "max_tokens = 60: the longest answer of hlm .* has 50 tokens"),
    ):
        with pytest.raises(ScenarioError, match=says):
            check_scenario(scenario, [ready(tokens=50)])


# -- honouring ----------------------------------------------------------------------------------------------------


def test_a_timeline_by_hand(written):
    """Phone 0: row 1 at 1 s, row 3 at 1.5 s waits for it. Prefill 0.01 s a prompt token, then 0.1 s a token."""
    file = written(PLAIN + "1.0,10,3\n1.2,50,2\n1.5,20,1\n")
    scenario = replayed(file, device={"slm_token_s": 0.1, "slm_prefill_token_s": 0.01})
    requests = simulate(scenario, ready("slm"), 0).requests
    told = requests[["device", "arrived_s", "first_token_s", "finished_s", "prompt_tokens", "tokens"]]
    assert [tuple(round(value, 9) for value in row) for row in told.itertuples(index=False)] == [
        (0, 1.0, 1.2, 1.4, 10, 3),
        (0, 1.5, 1.8, 1.8, 20, 1),
        (1, 1.2, 1.8, 1.9, 50, 2),
    ]
    assert requests["finished"].all()


def test_the_prompt_of_a_row_is_what_the_uplink_and_the_llm_are_billed(written):
    """HLM, piggyback: position 0 uploads 8 V bits and 15 for each of the row's ids, and is its ids for the LLM."""
    file = written(PLAIN + "0.0,33,4\n")
    tokens = simulate(replayed(file, traffic={"devices": 1}), ready(), 0).tokens
    assert tokens["payload_bits"].tolist() == [8 * 32_000 + 15 * 33] + [8 * 32_000] * 3
    assert tokens["llm_tokens"].tolist() == [33, 1, 1, 1]


def test_rows_longer_than_max_tokens_are_cut_there_and_the_report_says_how_many(scenario_file, written, tmp_path):
    file = written(PLAIN + "0.5,7,500\n0.6,9,4\n1.0,5,11\n")
    traffic = {"traffic": {"kind": "replay", "file": file, "devices": 2, "max_tokens": 10}}
    results = run(load(scenario_file, traffic), out=tmp_path / "run", jobs=1)
    assert (results.requests.groupby(["policy", "replication"], observed=True)["tokens"].sum() == 10 + 4 + 10).all()
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "2 rows ask for more than max_tokens = 10 and are cut there" in page
    assert "given to phones in turn; 3 arrive within the run" in page


def test_answers_are_long_enough_and_the_same_under_policies_of_the_same_lengths(written):
    rng = np.random.default_rng(1)
    outputs = rng.integers(1, 31, 40)
    file = written(PLAIN + "".join(f"{0.2 * n},{n + 1},{tokens}\n" for n, tokens in enumerate(outputs)))
    scenario = replayed(file, duration_s=100.0, device={"slm_token_s": 0.01, "slm_prefill_token_s": 0.0})
    prompts = []
    for policy in (ready("hlm"), ready("u-hlm", skip_rate=0.5), ready("slm")):
        requests = simulate(scenario, policy, 0).requests.sort_values("arrived_s")
        assert requests["tokens"].tolist() == outputs.tolist()
        assert requests["prompt_tokens"].tolist() == list(range(1, 41))
        prompts.append(requests["prompt"].tolist())
    assert prompts[0] == prompts[1] == prompts[2]
    assert len(set(prompts[0])) > 10


def test_another_file_of_requests_or_times_makes_another_run(scenario_file: Path, written, tmp_path: Path) -> None:
    file = written(PLAIN + "0.5,7,3\n4.0,9,4\n")
    traffic = {"traffic": {"kind": "replay", "file": file, "devices": 2, "max_tokens": 10}}
    times = {"kind": "table", "path": written("new_tokens,seconds\n1,0.01\n", "times.csv")}
    scenario = load(scenario_file, {**traffic, "base_station.service": times})
    run(scenario, out=tmp_path / "run", jobs=1)
    written("new_tokens,seconds\n1,0.02\n", "times.csv")
    with pytest.raises(InputError, match="holds something else"):
        run(scenario, out=tmp_path / "run", jobs=1, resume=True)
    written("new_tokens,seconds\n1,0.01\n", "times.csv")
    run(scenario, out=tmp_path / "run", jobs=1, resume=True)
    written(PLAIN + "0.5,7,3\n4.0,9,5\n")
    with pytest.raises(InputError, match="holds something else"):
        run(scenario, out=tmp_path / "run", jobs=1, resume=True)
