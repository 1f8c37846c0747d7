"""What a run leaves in its tables, the hard stop included, and that each law it must obey is really checked."""

from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
from traces import read_trace
from worlds import cell, ready, with_own

from uhlm_sim.cell.engine import simulate
from uhlm_sim.cell.laws import check_records
from uhlm_sim.cell.phones.policies import ready_policy
from uhlm_sim.errors import SimulationError

LEGS = ["device_s", "uplink_wait_s", "airtime_s", "bs_wait_s", "verify_s", "downlink_s"]
END_S = 20.0
POLICIES = {"hlm": {}, "u-hlm": {"skip_rate": 0.5}, "slm": {}, "llm": {}}


@cache
def busy(kind="u-hlm", traffic="closed", duration_s=END_S):
    """A cell that is nearly full everywhere: fading in blocks, two GPUs, small batches, a long downlink."""
    scenario = cell(
        duration_s=duration_s,
        traffic={"kind": traffic, "devices": 12, "think_time_s": 0.5, "rate_per_s": 0.4, "max_tokens": 30},
        device={"slm_token_s": 0.03, "slm_prefill_token_s": 0.001},
        uplink={"bandwidth_hz": 3e6},
        base_station={"service": {"c_s": 0.12}, "gpus": 2, "max_batch": 2, "downlink_s": 0.08},
    )
    return simulate(scenario, ready(kind, **POLICIES[kind]), 0)


runs = pytest.mark.parametrize("traffic", ["closed", "poisson"])
policies = pytest.mark.parametrize("kind", POLICIES)


@policies
@runs
def test_the_legs_of_a_token_add_up_and_answers_grow_token_by_token(kind, traffic):
    tokens = busy(kind, traffic).tokens
    done = tokens[tokens["committed_s"].notna()]
    np.testing.assert_allclose(done[LEGS].sum(axis=1), done["committed_s"] - done["started_s"], atol=1e-9)
    assert (done[LEGS] >= -1e-12).all(axis=None)
    assert not tokens.duplicated(["device", "request", "position"]).any()
    for _, answer in tokens.groupby(["device", "request"]):
        assert answer["position"].tolist() == list(range(len(answer)))
        assert answer["committed_s"].dropna().is_monotonic_increasing
        if kind != "llm":
            assert (answer["started_s"].to_numpy()[1:] == answer["committed_s"].to_numpy()[:-1]).all()


@policies
@runs
def test_a_token_in_progress_has_a_row_with_what_is_known(kind, traffic):
    """Its finished legs are known and lie before the end; the first unknown leg is followed by unknown legs only."""
    tokens = busy(kind, traffic).tokens
    cut = tokens[tokens["committed_s"].isna()]
    assert 1 <= len(cut) <= 12 * (2 if kind == "llm" else 1)
    unknown = cut[LEGS].isna().to_numpy()
    together = unknown[:, 1] == unknown[:, 2]  # the stay in the uplink is split when it is over
    assert together.all()
    assert (np.diff(unknown.astype(int), axis=1) >= 0).all()
    assert unknown[:, -1].all()
    assert (cut["started_s"] + cut[LEGS].sum(axis=1) <= END_S + 1e-9).all()
    assert cut["outcome"].isna().all()
    drafted = cut["device_s"].notna()
    assert (cut.loc[drafted, "decision"] == "send").all()
    assert cut.loc[~drafted, "decision"].isna().all()


def test_tokens_are_cut_off_at_every_station():
    """Otherwise the tests above would say little."""
    cut = pd.concat([busy(kind).tokens.query("committed_s.isna()") for kind in ("hlm", "u-hlm")])
    assert set(cut[LEGS].notna().sum(axis=1)) == {0, 1, 3, 4, 5}


@policies
@runs
def test_unfinished_requests_are_in_the_table(kind, traffic):
    records = busy(kind, traffic)
    requests, tokens = records.requests, records.tokens
    count = tokens[tokens["committed_s"].notna()].groupby(["device", "request"]).size()
    keyed = requests.set_index(["device", "request"])
    assert keyed["tokens"].equals(count.reindex(keyed.index, fill_value=0).astype("int32").rename("tokens"))
    assert (requests["finished"] == (requests["tokens"] == 30)).all()
    assert (requests["finished"] == requests["finished_s"].notna()).all()
    assert ((requests["tokens"] > 0) == requests["first_token_s"].notna()).all()
    assert not requests["finished"].all()
    for _, own in requests.groupby("device"):
        assert own["request"].tolist() == list(range(len(own)))
        assert own["arrived_s"].is_monotonic_increasing


def test_waiting_poisson_requests_are_the_same_for_every_policy():
    arrived = [busy(kind, "poisson").requests[["device", "request", "arrived_s", "prompt"]] for kind in POLICIES]
    for other in arrived[1:]:
        pd.testing.assert_frame_equal(arrived[0], other)


@policies
@runs
def test_the_run_stops_hard(kind, traffic):
    """Nothing is later than the end, and a longer run has done the same by then."""
    records, longer = busy(kind, traffic), busy(kind, traffic, 2 * END_S)
    assert records.tokens[["started_s", "committed_s"]].max(axis=None) <= END_S
    assert records.requests[["arrived_s", "first_token_s", "finished_s"]].max(axis=None) <= END_S
    same = longer.tokens[longer.tokens["committed_s"] <= END_S].reset_index(drop=True)
    done = records.tokens[records.tokens["committed_s"].notna()].reset_index(drop=True)
    pd.testing.assert_frame_equal(done, same, rtol=0, atol=1e-9)
    asked = longer.requests[longer.requests["arrived_s"] <= END_S]
    assert records.requests["arrived_s"].tolist() == asked["arrived_s"].tolist()


@policies
@runs
def test_what_a_run_leaves_obeys_its_laws(kind, traffic):
    check_records(busy(kind, traffic))


def test_a_request_has_the_quality_of_its_whole_answer_if_that_is_its_policys_own(tmp_path):
    """Also where two of its tokens are all that a phone is given, and where it isn't finished; else it is null."""
    trace = read_trace(tmp_path)
    thresholds = [{"kind": "u-hlm", "threshold": threshold} for threshold in (0.43, 0.7)]
    kinds = [{"kind": "hlm"}, *thresholds, {"kind": "llm"}, {"kind": "uhlm_sim.tokens.gates:keep_none"}]
    scenario = cell(policy=kinds, traffic={"devices": 4, "max_tokens": 2})
    functions = with_own(scenario)
    policies = [ready_policy(i, scenario, trace, functions) for i in range(len(kinds))]
    assert [policy.exact for policy in policies] == [True, True, False, True, True]
    forced = simulate(scenario, policies[2], 0, functions=functions).requests
    assert forced["quality_cosine"].isna().any()
    for policy in policies:
        requests = simulate(scenario, policy, 0, functions=functions).requests
        assert len(requests) > 10
        known = requests[["quality_cosine", "quality_cosine_reference"]].to_numpy()
        if not policy.exact:
            continue
        own = trace.tokens(policy.recorded or "hlm").query("position == 0")
        for prompt, pair in zip(requests["prompt"], known, strict=True):
            of_prompt = own.loc[own["prompt"] == prompt, ["quality_cosine", "quality_cosine_reference"]]
            assert any(np.array_equal(pair, row, equal_nan=True) for row in of_prompt.to_numpy())


def row(tokens, decision="send", position=5):
    """Return the index of a committed token in the middle of an answer."""
    done = (tokens["decision"] == decision) & (tokens["position"] >= position) & tokens["committed_s"].notna()
    return tokens.index[done][40]


def leg(name, by_s, and_from=None):
    def change(tokens):
        tokens.loc[row(tokens), name] += by_s
        if and_from is not None:
            tokens.loc[row(tokens), and_from] -= by_s
        return tokens

    return change


def later(tokens):
    tokens.loc[row(tokens, position=2), ["started_s", "committed_s"]] += 10.0
    return tokens


def paid_for_nothing(tokens):
    tokens.loc[row(tokens, "skip"), "payload_bits"] = 8.0
    return tokens


def cheaper(tokens):
    tokens.loc[row(tokens), "payload_bits"] -= 1000.0
    return tokens


def without_a_middle(tokens):
    return tokens.drop(tokens.query("position == 10").index[0])


def without_an_end(tokens):
    last = tokens.groupby(["device", "request"])["position"].transform("max") == tokens["position"]
    return tokens.drop(tokens[last & (tokens["decision"] == "send") & tokens["committed_s"].notna()].index[0])


def without_a_beginning(tokens):
    return tokens.drop(tokens.query("position == 0 and decision == 'skip'").index[0])


def of_a_larger_batch(tokens):
    tokens.loc[row(tokens), "batch_tokens"] += 1
    return tokens


def without_airtime(tokens):
    tokens["uplink_wait_s"] += 0.9 * tokens["airtime_s"]
    tokens["airtime_s"] *= 0.1
    return tokens


def in_a_smaller_batch(tokens):
    tokens.loc[tokens.query("batch_jobs == 2 and committed_s.notna()").index[0], "batch_jobs"] = 1
    return tokens


@pytest.mark.parametrize(
    ("law", "change"),
    [
        ("legs of a token add up", leg("device_s", 0.01)),
        ("legs of a token add up", leg("downlink_s", -0.01)),
        ("commit times rise", later),
        ("positions of a request follow", without_a_middle),
        ("a kept token has no bits", paid_for_nothing),
        ("bits in are bits out", cheaper),
        ("tokens of a request", without_an_end),
        ("positions of a request follow", without_a_beginning),
        ("a batch processes its jobs' tokens", of_a_larger_batch),
        (f"uplink at {END_S:g} s: jobs present", leg("uplink_wait_s", 0.01, and_from="bs_wait_s")),
        ("airtime", leg("airtime_s", 30.0, and_from="uplink_wait_s")),
        ("airtime", without_airtime),
        (f"base_station at {END_S:g} s: jobs present", leg("verify_s", 0.01, and_from="downlink_s")),
        ("GPU time", leg("bs_wait_s", 0.01, and_from="verify_s")),
        ("a batch processes", in_a_smaller_batch),
    ],
)
def test_a_table_that_breaks_a_law_is_refused(law, change):
    records = busy()
    tokens = change(records.tokens.copy())
    with pytest.raises(SimulationError, match=law):
        check_records(replace(records, tokens=tokens, rounds=rounds_of(records.rounds, tokens)))


def rounds_of(rounds, tokens):
    """Return the rounds with the legs, bits and batches that their tokens have."""
    keys, sums = ["device", "request", "round"], [*LEGS, "payload_bits", "llm_tokens", "batch_jobs", "batch_tokens"]
    changed = rounds.set_index(keys)
    changed[sums] = tokens.groupby(keys)[sums].sum(min_count=1).reindex(changed.index)
    return changed.reset_index()


def test_rounds_that_are_not_their_tokens_are_refused():
    records = busy()
    rounds = records.rounds.copy()
    rounds["payload_bits"] *= 2
    with pytest.raises(SimulationError, match="a round's legs, bits and positions are its tokens'"):
        check_records(replace(records, rounds=rounds))


@pytest.mark.parametrize(
    ("law", "station", "counter", "by"),
    [
        (f"uplink at {END_S:g} s: jobs come", "uplink", "arrivals", 1),
        (f"uplink at {END_S:g} s: jobs go", "uplink", "departures", -1),
        ("bits in are bits out", "uplink", "bits", 256_000.0),
        (f"uplink at {END_S:g} s: jobs present", "uplink", "present_s", 0.01),
        ("airtime", "uplink", "busy_s", -3.0),
        ("airtime", "uplink", "busy_s", 3.0),
        (f"base_station at {END_S:g} s: jobs come", "base_station", "arrivals", -1),
        (f"base_station at {END_S:g} s: jobs go", "base_station", "departures", 1),
        (f"base_station at {END_S:g} s: jobs present", "base_station", "present_s", 0.01),
        ("GPU time", "base_station", "busy_s", -0.01),
    ],
)
def test_a_station_that_counted_otherwise_is_refused(law, station, counter, by):
    records = busy()
    stations = records.stations.copy()
    at = (stations["station"] == station) & (stations["at_s"] == END_S)
    stations.loc[at, counter] += by
    with pytest.raises(SimulationError, match=law):
        check_records(replace(records, stations=stations))


@pytest.mark.parametrize("counter", ["arrivals", "departures", "present_s", "busy_s", "bits"])
def test_the_stations_are_held_to_their_books_at_the_end_of_the_warm_up_too(counter):
    records = busy()
    stations = records.stations.copy()
    stations.loc[(stations["station"] == "uplink") & (stations["at_s"] < END_S), counter] *= 3
    with pytest.raises(SimulationError, match="uplink at"):
        check_records(replace(records, stations=stations))


@pytest.mark.parametrize(
    ("law", "column", "by"),
    [
        ("tokens of a request", "tokens", 1),
        ("first token", "first_token_s", -1.0),
        ("last token", "finished_s", 1.0),
    ],
)
def test_a_table_of_requests_that_disagrees_with_the_tokens_is_refused(law, column, by):
    records = busy()
    requests = records.requests.copy()
    requests[column] += by
    with pytest.raises(SimulationError, match=law):
        check_records(replace(records, requests=requests))
