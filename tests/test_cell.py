"""The whole cell agrees with closed forms: one phone without queues exactly, many phones with queueing theory."""

import math

import numpy as np
import pytest
from worlds import MadeUpSource, agrees, cell, ready

from uhlm_sim.cell.engine import simulate
from uhlm_sim.cell.phones.policies import ReadyPolicy, Scheme

LEGS = ["device_s", "uplink_wait_s", "airtime_s", "bs_wait_s", "verify_s", "downlink_s"]
SLM_S, PREFILL_S, DOWNLINK_S, PROMPT, VOCABULARY = 0.05, 0.002, 0.005, 10, 32_000
ID_BITS = 15  # 2^15 = 32,768 ids are enough for 32,000
FULL_BITS = 8 * VOCABULARY
RATE = 10e6 * math.log2(1 + 10**1.0)


def t(new_tokens):
    return 0.01 + 0.001 * max(0, new_tokens - 2)


def one_phone(policy, *, sync="piggyback", uncertainty_s=0.0, replication=0, **changes):
    """Simulate a phone that has 10 MHz at a constant 10 dB and a base station to itself."""
    sections = {
        "traffic": {"devices": 1, "think_time_s": 1.0, "max_tokens": 20},
        "device": {"slm_token_s": SLM_S, "slm_prefill_token_s": PREFILL_S, "uncertainty_s": uncertainty_s},
        "channel": {"kind": "constant", "mean_snr_db": 10.0},
        "base_station": {
            "service": {"c_s": 0.01, "s_s_per_token": 0.001, "free_tokens": 2},
            "sync": sync,
            "downlink_s": DOWNLINK_S,
        },
        **changes,
    }
    return simulate(cell(**sections), policy, replication)


def committed(records):
    return records.tokens[records.tokens["committed_s"].notna()].reset_index(drop=True)


def stay_s(tokens):
    return (tokens["committed_s"] - tokens["started_s"]).to_numpy()


@pytest.mark.parametrize("sync", ["piggyback", "free"])
def test_a_token_of_hlm_takes_slm_upload_service_and_downlink(sync):
    """T = slm + bits/rate + t(1) + downlink; position 0 adds the prefill, and with piggyback the prompt's ids."""
    tokens = committed(one_phone(ready("hlm"), sync=sync))
    first = tokens["position"].to_numpy() == 0
    carried = np.where(first & (sync == "piggyback"), PROMPT, 0)
    new = np.where(first & (sync == "piggyback"), PROMPT, 1)
    expected = SLM_S + first * PROMPT * PREFILL_S + (FULL_BITS + carried * ID_BITS) / RATE + DOWNLINK_S
    expected = expected + np.array([t(n) for n in new])
    assert len(tokens) > 200
    np.testing.assert_allclose(stay_s(tokens), expected, rtol=0, atol=1e-9)
    assert (tokens["llm_tokens"] == new).all()
    assert (tokens["decision"] == "send").all()


@pytest.mark.parametrize("sync", ["piggyback", "free"])
def test_u_hlm_skips_at_the_price_of_the_device_and_bills_what_the_llm_has_not_seen(sync):
    """A job processes 1 + skipped since the last; a request's first, whenever it is, prompt_tokens + position."""
    skipping = ready("u-hlm", skip_rate=0.6)
    records = one_phone(skipping, sync=sync, uncertainty_s=0.003)
    prompt_of = records.requests.set_index(["device", "request"])["prompt"]
    late_first_jobs = 0
    for request, tokens in committed(records).groupby(["device", "request"]):
        seen = None  # positions that the LLM has processed, the prompt not counted
        for row in tokens.itertuples():
            skips = skipping.source.tree(prompt_of[request], 0).nodes.skip_coin[row.position] < 0.6
            compute_s = SLM_S + 0.003 + (PROMPT * PREFILL_S if row.position == 0 else 0.0)
            assert row.decision == ("skip" if skips else "send")
            if skips:
                assert (row.payload_bits, row.llm_tokens, row.batch_jobs, row.batch_tokens) == (0, 0, 0, 0)
                assert row.committed_s - row.started_s == pytest.approx(compute_s, abs=1e-9)
                continue
            new = PROMPT + row.position if seen is None else row.position - seen
            ids = new if seen is None else new - 1
            late_first_jobs += seen is None and row.position > 0
            seen = row.position
            if sync == "free":
                new, ids = 1, 0
            bits = FULL_BITS + ids * ID_BITS
            assert (row.llm_tokens, row.batch_tokens, row.payload_bits) == (new, new, bits)
            network_s = bits / RATE + t(new) + DOWNLINK_S
            assert row.committed_s - row.started_s == pytest.approx(compute_s + network_s, abs=1e-9)
    assert late_first_jobs > 3


def test_ids_are_billed_for_the_vocabulary_that_the_scenario_names():
    tokens = committed(one_phone(ready(), tokens={"kind": "trace", "path": "made-up", "vocabulary_size": 65_537}))
    first = tokens["position"] == 0
    assert set(tokens["payload_bits"][first]) == {65_537 * 8 + 17 * PROMPT}
    assert set(tokens["payload_bits"][~first]) == {65_537 * 8}


def test_a_context_before_the_prompt_costs_phone_uplink_and_llm_as_the_prompt_does():
    records = one_phone(ready(), tokens={"kind": "trace", "path": "made-up", "context_tokens": 90})
    first = committed(records).query("position == 0")
    assert set(records.requests["prompt_tokens"]) == {PROMPT + 90}
    assert set(first["llm_tokens"]) == {PROMPT + 90}
    assert set(first["payload_bits"]) == {FULL_BITS + (PROMPT + 90) * ID_BITS}
    assert first["device_s"].to_numpy() == pytest.approx(SLM_S + (PROMPT + 90) * PREFILL_S)


def test_u_hlms_network_time_is_hlms_times_one_minus_its_skip_rate():
    """With sync free and no cost of u, exactly: a skipped token uses no network, a sent one what HLM's uses."""
    network_s, skip_rate = {}, {}
    for policy in (ready("hlm"), ready("u-hlm", skip_rate=0.4)):
        tokens = committed(one_phone(policy, sync="free"))
        network_s[policy.kind] = np.mean(stay_s(tokens) - tokens["device_s"])
        skip_rate[policy.kind] = np.mean(tokens["decision"] == "skip")
    assert 0.3 < skip_rate["u-hlm"] < 0.5
    assert network_s["u-hlm"] == pytest.approx(network_s["hlm"] * (1 - skip_rate["u-hlm"]), rel=1e-9)


def test_slm_is_the_device_alone():
    records = one_phone(ready("slm"), uncertainty_s=0.01)
    tokens = committed(records)
    expected = SLM_S + (tokens["position"] == 0) * PROMPT * PREFILL_S
    np.testing.assert_allclose(stay_s(tokens), expected, atol=1e-9)
    np.testing.assert_allclose(tokens["device_s"], expected, atol=1e-9)
    assert (tokens[LEGS[1:]] == 0).all(axis=None)
    assert (records.stations[["arrivals", "present_s", "busy_s", "bits"]] == 0).all(axis=None)


@pytest.mark.parametrize("sync", ["piggyback", "free"])
def test_llm_sends_the_prompt_once_and_its_downlink_is_pipelined(sync):
    """Token n is at the phone ids/rate + t(prompt) + n t(1) + downlink after the request: one downlink in all."""
    records = one_phone(ready("llm"), sync=sync)
    tokens = committed(records).merge(records.requests[["request", "arrived_s"]], on="request")
    n = tokens["position"]
    expected = PROMPT * ID_BITS / RATE + t(PROMPT) + n * t(1) + DOWNLINK_S
    np.testing.assert_allclose(tokens["committed_s"] - tokens["arrived_s"], expected, atol=1e-9)
    assert tokens["payload_bits"].tolist() == [PROMPT * ID_BITS if at == 0 else 0 for at in n]
    assert tokens["llm_tokens"].tolist() == [PROMPT if at == 0 else 1 for at in n]
    assert set(tokens["outcome"]) == {"generated"}
    assert (tokens["device_s"] == 0).all()
    began, before = tokens["started_s"].to_numpy()[1:], tokens["committed_s"].to_numpy()[:-1]
    np.testing.assert_allclose(began[n[1:] > 0], before[n[1:] > 0] - DOWNLINK_S, atol=1e-9)


@pytest.mark.parametrize(("kind", "bills"), [("hlm", 0), ("u-hlm", 1), ("rand-hlm", 0), ("slm", 0)])
def test_only_u_hlm_pays_for_measuring_u(kind, bills):
    tokens = committed(one_phone(ready(kind, skip_rate=0.3), uncertainty_s=0.007))
    expected = SLM_S + 0.007 * bills + (tokens["position"] == 0) * PROMPT * PREFILL_S
    np.testing.assert_allclose(tokens["device_s"], expected, atol=1e-9)


def test_a_poisson_request_waits_for_the_one_before_and_the_wait_is_in_its_ttft():
    """Token 0 of request n starts at max(arrival n, end of request n - 1)."""
    traffic = {"kind": "poisson", "devices": 1, "rate_per_s": 0.8, "max_tokens": 12}
    records = one_phone(ready(), traffic=traffic, duration_s=200.0)
    done = records.requests[records.requests["finished"]]
    first = committed(records).query("position == 0").head(len(done))
    begins = np.maximum(done["arrived_s"].to_numpy()[1:], done["finished_s"].to_numpy()[:-1])
    np.testing.assert_allclose(first["started_s"].to_numpy()[1:], begins, atol=1e-9)
    ttft_s = (done["first_token_s"] - done["arrived_s"]).to_numpy()[1:]
    waited_s = begins - done["arrived_s"].to_numpy()[1:]
    np.testing.assert_allclose(ttft_s, waited_s + first[LEGS].sum(axis=1).to_numpy()[1:], atol=1e-9)
    assert np.mean(waited_s > 0) > 0.5


def test_poisson_requests_come_at_their_rate_however_slow_the_phones():
    """Counts of a Poisson process: mean lambda T; the requests that still wait are in the table."""
    traffic = {"kind": "poisson", "devices": 3, "rate_per_s": 2.0, "max_tokens": 20}
    counts = []
    for replication in range(20):
        requests = one_phone(ready(), traffic=traffic, replication=replication).requests
        counts += requests.groupby("device").size().tolist()
        assert requests["arrived_s"].max() > 29.0
        waiting = requests[requests["tokens"] == 0]
        assert len(waiting) > len(requests) / 2
        assert waiting[["first_token_s", "finished_s"]].isna().all(axis=None)
        assert not waiting["finished"].any()
    assert agrees(2.0 * 30.0, counts, within=0.06)
    assert np.var(counts) == pytest.approx(60.0, rel=4 * math.sqrt(2 / len(counts)))


def test_a_closed_loop_phone_begins_with_a_think_and_thinks_when_its_last_token_is_at_the_device():
    thinks_s = []
    for replication in range(20):
        requests = one_phone(ready(), replication=replication).requests
        free_s = np.concatenate([[0.0], requests["finished_s"].to_numpy()[:-1]])
        thinks_s += (requests["arrived_s"] - free_s).tolist()[:6]
    assert agrees(1.0, thinks_s, within=0.5)
    assert min(thinks_s) > 0


PHONES = 12


def test_many_phones_of_limited_power_share_the_cell_as_a_closed_network():
    """One shared band and otherwise only delays (a GPU each): product form, whatever the law of the delays.

    p_k ~ N!/(N - k)! Z^-k prod_(j <= k) S/phi(j) with Z the mean of all a token does between two uploads, think/4
    included, and phi(n) = B min(log2(1 + n G), cap); token throughput X = sum p_k phi(k)/S.
    """
    bits, think_s, compute_s, verify_s, per_request = FULL_BITS, 0.8, 0.04, 0.02, 4
    z = think_s / per_request + compute_s + PROMPT * PREFILL_S / per_request + verify_s + DOWNLINK_S
    used = range(1, PHONES + 1)
    phi = [4e6 * min(math.log2(1 + n * 1.0), 3.0) for n in used]
    p = np.cumprod([1.0] + [(PHONES - n) / z * bits / phi[n] for n in range(PHONES)])
    throughput = p[1:] @ phi / p.sum() / bits

    scenario = cell(
        duration_s=130.0,
        warmup_s=10.0,
        traffic={"devices": PHONES, "think_time_s": think_s, "max_tokens": per_request},
        device={"slm_token_s": compute_s, "slm_prefill_token_s": PREFILL_S},
        uplink={"bandwidth_hz": 4e6, "snr_rule": "power-limited"},
        channel={"kind": "constant", "mean_snr_db": 0.0, "max_spectral_efficiency": 3.0},
        base_station={
            "service": {"c_s": verify_s},
            "gpus": PHONES,
            "max_batch": 1,
            "sync": "free",
            "downlink_s": DOWNLINK_S,
        },
    )
    measured = []
    for replication in range(10):
        committed_s = simulate(scenario, ready(), replication).tokens["committed_s"]
        measured.append(np.sum(committed_s >= 10.0) / 120.0)
    assert agrees(throughput, measured, within=0.03)
    assert throughput < min(PHONES / (z + bits / phi[0]), max(phi) / bits) * 1.0000001


def test_phones_that_start_together_stay_together_on_a_constant_channel():
    """No think, one kind of prompt: all uploads tie, so every batch holds all phones, and a token takes one time."""
    tokens = committed(one_phone(ready(), traffic={"devices": 7, "think_time_s": 0.0, "max_tokens": 20}))
    assert (tokens["batch_jobs"] == 7).all()
    later = tokens[tokens["position"] > 0]
    np.testing.assert_allclose(stay_s(later), SLM_S + 7 * FULL_BITS / RATE + t(7) + DOWNLINK_S, atol=1e-9)
    np.testing.assert_allclose(later["airtime_s"], FULL_BITS / RATE, atol=1e-9)


def test_a_policy_of_the_users_own_pays_for_u_and_decides_by_it():
    mine = Scheme(gate=lambda path: path.uncertainty <= 0.3, measures_uncertainty=True)
    records = one_phone(ReadyPolicy("mine", "mine:keeps", MadeUpSource(), False, mine), uncertainty_s=0.007)
    tokens = committed(records)
    assert ((tokens["decision"] == "skip") == (tokens["uncertainty"] <= 0.3)).all()
    assert (tokens["device_s"] > SLM_S + 0.0069).all()
