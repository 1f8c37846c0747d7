"""The laws that every run must obey: the records against each other, and against the stations' own counters."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from uhlm_sim.cell.records import Records
from uhlm_sim.errors import SimulationError
from uhlm_sim.tables import LEGS

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]
WORK = ("batch_jobs", "batch_tokens", "llm_tokens", "recomputed_tokens", "steps")


def check_records(records: Records, *, access_s: float = 0.0) -> None:
    """Check the tables against each other and against the stations' own counters. Raises SimulationError.

    An upload comes to the uplink `access_s` after its phone has asked for it.

    Each round's and each token's legs add up, and a round's are those of its tokens; a request's rounds and positions
    count from 0 and its commit times rise; a kept draft has no bits and no LLM work; the requests' table agrees with
    the tokens', and a phone's requests arrive in order. Where the time of sending is known, it lies between airtime and
    stay. At each station, at the end of the warm-up and of the run, the
    jobs that came and went, the bits and the integral of jobs present equal the same sums over the records, with
    sojourns clipped to that time (Little's law along the sample path); so do GPU time, and the band in use, up to the
    airtime of uploads still on their way. Of a job in the middle of several steps its share of the GPU is known to lie
    between none and all of the time since it began. What happens at the very instant of a reading may count on either
    side. Bits of transport blocks are those of uploads, up to uploads on their way; a shared downlink is in use only
    while an answer is. Limited memory is never overfull; without an eviction it holds what the tokens say, with
    evictions at most that; and what a job processes again is all that its request had.
    """
    rounds = records.rounds
    _check_tokens(records.tokens)
    _check_requests(records.requests, records.tokens)
    _check_rounds(rounds, records.tokens)
    is_sent = (rounds["decision"] == "send").to_numpy()
    sent = {name: rounds[name].to_numpy()[is_sent] for name in ("started_s", "payload_bits", *LEGS, *WORK)}
    bits, jobs = sent["payload_bits"], sent["batch_jobs"].astype(np.float64)
    sent_s = sent["started_s"] + sent["device_s"]
    received_s = sent_s + sent["uplink_wait_s"] + sent["airtime_s"]
    verify_started_s = received_s + sent["bs_wait_s"]
    verified_s = verify_started_s + sent["verify_s"]
    served = ~np.isnan(verify_started_s)
    steps = sent["steps"]
    batch_tokens = (steps * sent["batch_tokens"])[served] / jobs[served]
    _near("a batch processes its jobs' tokens", batch_tokens.sum(), sent["llm_tokens"][served].sum())
    if (records.stations["station"] == "kv_cache").any():
        _check_memory(records, rounds[is_sent], verify_started_s, verified_s)
    else:
        _true("without limited memory nothing is processed again", sent["recomputed_tokens"] == 0)

    uploads, all_jobs = bits > 0, np.full(len(bits), True)
    spans = {
        "uplink": (uploads, sent_s + access_s, received_s, bits),
        "base_station": (all_jobs, received_s, verified_s, 0 * bits),
    }
    answers = records.answers[is_sent]
    spans["downlink"] = (all_jobs, verified_s, answers["returned_s"].to_numpy(), answers["bits"].to_numpy())

    for reading in records.stations[records.stations["station"] != "kv_cache"].to_dict("records"):
        at_s, station = reading["at_s"], reading["station"]
        here, began_s, ended_s, carried_bits = spans[station]
        blur_s = 1e-9 * (1.0 + at_s)
        came, maybe_came = here & (began_s < at_s - blur_s), here & (began_s <= at_s + blur_s)
        went, maybe_went = here & (ended_s < at_s - blur_s), here & (ended_s <= at_s + blur_s)
        stay_s = np.fmin(ended_s, at_s) - began_s
        where = f"{station} at {at_s:g} s"
        _within(f"{where}: jobs come", came.sum(), reading["arrivals"], maybe_came.sum())
        _within(f"{where}: jobs go", went.sum(), reading["departures"], maybe_went.sum())
        _near(f"{where}: jobs present (Little's law)", stay_s[came].sum(), reading["present_s"])
        sums = carried_bits[went].sum(), carried_bits[maybe_went].sum(), carried_bits[maybe_came].sum()
        _within(f"{where}: bits in are bits out", sums[0], reading["bits"], sums[1])
        if station == "uplink":
            if reading["blocks"]:
                _within(f"{where}: bits of blocks are those of uploads", sums[0], reading["block_bits"], sums[2])
            airtime_s, on_its_way_s = sent["airtime_s"][went].sum(), stay_s[came & ~went].sum()
            _within(
                f"{where}: airtime is band in use", airtime_s, reading["busy_s"], min(airtime_s + on_its_way_s, at_s)
            )
        elif station == "downlink":
            in_use_s = _covered_s(began_s[came], np.fmin(ended_s, at_s)[came])
            _within(f"{where}: the band is in use for answers", 0.0, reading["busy_s"], in_use_s)
        else:
            in_service = came & (verify_started_s <= at_s)
            service_s = np.fmin(verified_s, at_s) - verify_started_s
            split = in_service & (steps > 1) & ~(verified_s <= at_s)
            gpu_s = (service_s / np.maximum(jobs, 1))[in_service & ~split].sum()
            if split.any():
                _within(f"{where}: GPU time", gpu_s, reading["busy_s"], gpu_s + service_s[split].sum())
            else:
                _near(f"{where}: GPU time", gpu_s, reading["busy_s"])


def _covered_s(began_s: Floats, ended_s: Floats) -> float:
    """Return the length of the union of time spans."""
    order = began_s.argsort()
    latest_s = np.maximum.accumulate(ended_s[order])
    new_s = latest_s - np.maximum(began_s[order], np.r_[-np.inf, latest_s[:-1]])
    return float(np.maximum(new_s, 0.0).sum())


def _check_memory(records: Records, sent: pd.DataFrame, begun_s: Floats, ended_s: Floats) -> None:
    """Check the memory's counters against the positions of jobs, held until their requests end."""
    recomputed = sent["recomputed_tokens"].to_numpy()
    read = records.stations[records.stations["station"] == "kv_cache"]
    unused = sent["unused_tokens"].to_numpy()  # refused drafts: held until the verdict
    new = sent["llm_tokens"].to_numpy() - recomputed - unused
    request = sent.groupby(["device", "request"], sort=False).ngroup().to_numpy()
    before = pd.Series(new).groupby(request).cumsum().to_numpy() - new
    _true("what a job processes again is all that its request had", (recomputed == 0) | (recomputed == before))

    keys = ["device", "request"]
    last = records.rounds.drop_duplicates(keys, keep="last").set_index(keys)
    finished = records.requests.set_index(keys)["finished"].reindex(last.index)
    # A request whose last verdict is still on the downlink at the end may have ended with it, or not.
    ended = last[["started_s", *LEGS[:-1]]].sum(axis=1, skipna=False).fillna(np.inf)
    place = pd.MultiIndex.from_frame(sent[keys])
    freed_s = [times_s.reindex(place).to_numpy() for times_s in (ended, ended.where(finished, np.inf))]
    for reading in read.to_dict("records"):
        at_s, capacity, where = reading["at_s"], reading["servers"], f"kv_cache at {reading['at_s']:g} s"
        here = begun_s <= at_s
        least, most = ((new * (np.minimum(until_s, at_s) - begun_s))[here].sum() for until_s in freed_s)
        drafts_s = (unused * (np.fmin(ended_s, at_s) - begun_s))[here].sum()
        least, most = least + drafts_s, most + drafts_s
        cut = here & np.isnan(ended_s) & (sent["steps"] > 0)  # its positions are still being counted, step by step
        most += capacity * (at_s - begun_s)[cut].sum()
        _within(f"{where}: memory in use", 0.0 if reading["departures"] else least, reading["busy_s"], most)
        _within(f"{where}: memory is never overfull", 0.0, reading["busy_s"], capacity * at_s)
        if not reading["departures"]:
            before_then = begun_s < at_s - 1e-9 * (1.0 + at_s)
            _true(f"{where}: nothing is lost without an eviction", not recomputed[before_then].any())


def _check_tokens(tokens: pd.DataFrame) -> None:
    _check_legs("token", tokens)
    position, committed_s = tokens["position"].to_numpy(), tokens["committed_s"].to_numpy()
    same = _is_same_request(tokens)
    follows = np.where(np.r_[False, same], position == np.r_[0, position[:-1] + 1], position == 0)
    _true("positions of a request follow each other from 0", follows)
    later = np.diff(committed_s)[same]
    _true("commit times rise", (later >= 0) | np.isnan(later))
    kept = (tokens["decision"] == "skip").to_numpy()
    for name in ("payload_bits", "llm_tokens"):
        _true("a kept token has no bits and no LLM work", tokens[name].to_numpy()[kept] == 0)


def _check_rounds(rounds: pd.DataFrame, tokens: pd.DataFrame) -> None:
    committed = _check_legs("round", rounds)
    same = _is_same_request(rounds)
    number, first = rounds["round"].to_numpy(), rounds["first_position"].to_numpy()
    _true(
        "rounds of a request count from 0",
        np.where(np.r_[False, same], number == np.r_[0, number[:-1] + 1], number == 0),
    )
    after, known = first + rounds["committed"].to_numpy(), committed[:-1]
    begins = np.where(known, first[1:] == after[:-1], first[1:] > first[:-1])  # pipelined ones may not be down yet
    _true("a round begins where the one before ended", begins[same])
    accepted, drafted, tokens_of = (rounds[name].to_numpy() for name in ("accepted", "drafted", "committed"))
    _true("no more drafts are accepted than there are", accepted <= drafted)
    _true("a visit commits what it accepts and at most one more token", tokens_of <= drafted + 1)

    begins_round = np.r_[True, ~(_is_same_request(tokens) & (np.diff(tokens["round"].to_numpy()) == 0))]
    starts = np.flatnonzero(begins_round[: len(tokens)])
    _true("each round has tokens", len(starts) == len(rounds))
    for name in (*LEGS, "payload_bits", "llm_tokens"):
        of_round, of_tokens = rounds[name].to_numpy(), tokens[name].to_numpy()
        if len(starts) < len(tokens):
            of_tokens = np.add.reduceat(of_tokens, starts)
        _near("a round's legs, bits and positions are its tokens'", of_round[committed], of_tokens[committed])
    if "sending_s" in rounds:
        stay_s, sending_s = rounds["uplink_wait_s"] + rounds["airtime_s"], rounds["sending_s"]
        blur_s = 1e-9 * (1.0 + rounds["started_s"])
        _true("an upload sends no longer than it stays", ~(sending_s > stay_s + blur_s))
        _true("an upload sends at least for its airtime", ~(sending_s < rounds["airtime_s"] - blur_s))


def _check_requests(requests: pd.DataFrame, tokens: pd.DataFrame) -> None:
    counted = tokens["committed_s"].groupby(_key(tokens), sort=False).agg(["count", "min", "max"])
    counted = counted.reindex(_key(requests))
    _true("tokens of a request", counted["count"].fillna(0).to_numpy() == requests["tokens"].to_numpy())
    _near("a request's first token", counted["min"], requests["first_token_s"])
    finished = requests["finished"].to_numpy()
    _near("a request's last token", np.where(finished, counted["max"], np.nan), requests["finished_s"])
    same = np.diff(requests["device"].to_numpy()) == 0
    _true("a phone's requests arrive in order", np.diff(requests["arrived_s"].to_numpy())[same] >= 0)
    _true("a request's first token comes after it", ~(requests["first_token_s"] < requests["arrived_s"]))


def _check_legs(row: str, table: pd.DataFrame) -> Mask:
    """Check that the legs of each committed row are its stay; return which rows are committed."""
    stay_s = (table["committed_s"] - table["started_s"]).to_numpy()
    legs_s: Floats = np.add.reduce([table[name].to_numpy() for name in LEGS])
    committed: Mask = ~np.isnan(stay_s)
    _near(f"the legs of a {row} add up", legs_s[committed], stay_s[committed])
    return committed


def _is_same_request(table: pd.DataFrame) -> Mask:
    """Say of each row but the first whether it is of the same request as the one before."""
    device, request = table["device"].to_numpy(), table["request"].to_numpy()
    same: Mask = (device[1:] == device[:-1]) & (request[1:] == request[:-1])
    return same


def _key(table: pd.DataFrame) -> Indices:
    """Return one number for each pair of device and request."""
    keys: Indices = table["device"].to_numpy(dtype=np.int64) << 32 | table["request"].to_numpy(dtype=np.int64)
    return keys


def _near(law: str, recorded: ArrayLike, counted: ArrayLike) -> None:
    if not np.allclose(recorded, counted, rtol=1e-6, atol=1e-9, equal_nan=True):
        raise SimulationError(f"broken law: {law}: records say {recorded!r}, the station counted {counted!r}")


def _within(law: str, low: float, counted: float, high: float) -> None:
    slack = 1e-9 * (1.0 + abs(high))
    if not low - slack <= counted <= high + slack:
        raise SimulationError(f"broken law: {law}: records say {low!r} to {high!r}, the station counted {counted!r}")


def _true(law: str, holds: ArrayLike) -> None:
    if not np.all(holds):
        raise SimulationError(f"broken law: {law}")
