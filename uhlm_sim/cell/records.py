"""Records: the phones' log as tables, one row per request, per round and per token."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from uhlm_sim.cell.phones.phone import Log
from uhlm_sim.cell.phones.rounds import Walk
from uhlm_sim.tables import DECISIONS, LEGS, OUTCOMES, QUALITY

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]
Mask = NDArray[np.bool_]
Columns = dict[str, Floats]
SKIPPED, ACCEPTED, RESAMPLED, GENERATED = range(4)
BATCH = ("batch_jobs", "batch_tokens", "llm_tokens")


@dataclass(frozen=True)
class Records:
    """One simulation's tables (columns as the run folder has them), and how often an upload's SNR was clamped.

    `stations` holds the counters that uplink, base station, a shared downlink and, where it is limited, the LLM's
    memory keep themselves, at the end of the warm-up and of the run: station, at_s, servers, and those of
    `uhlm_sim.cell.jobs.Counters`. `answers` has the `bits` that came down for each round and when, `returned_s`, to
    hold a shared downlink's counters against.
    """

    requests: pd.DataFrame
    rounds: pd.DataFrame
    tokens: pd.DataFrame
    stations: pd.DataFrame
    answers: pd.DataFrame
    clamped_uploads: int = 0

    @property
    def tables(self) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame, pd.DataFrame]:
        """Return what metrics are made of: requests, rounds, tokens, stations."""
        return self.requests, self.rounds, self.tokens, self.stations


def make_records(
    log: Log,
    walks: list[Walk],
    stations: pd.DataFrame,
    *,
    duration_s: float,
    mean_snr_db: Floats,
    device_class: Sequence[str] | None = None,
    sending: bool = False,
    clamped_uploads: int = 0,
) -> Records:
    """Turn the log of a run that stopped at `duration_s` into tables, sorted by device, request and position.

    `walks` are the answers that the log's requests point to. Requests that arrived and tokens that began later than
    `duration_s` are left out (a phone that sleeps until then has written them down already). Of a round in progress the
    legs that ended are kept and `committed_s` is null; it has one row of tokens, for the token that it is about. With
    `sending` the rounds have a column for the time with any of the band. `device_class` names each device's class.
    """
    requests = _columns(log.requests, Log.REQUEST)
    rounds = _columns(log.rounds, Log.ROUND)
    is_kept = rounds["sends"] == 0.0
    rounds["first_commit"] = np.cumsum(is_kept * rounds["drafted"]) - is_kept * rounds["drafted"]
    request_order = np.lexsort((requests["request"], requests["device"]))
    request_order = request_order[requests["arrived_s"][request_order] <= duration_s]
    place = np.full(len(requests["device"]), -1)
    place[request_order] = np.arange(len(request_order))
    row = place[rounds["request_row"].astype(np.intp)]
    there = np.flatnonzero((row >= 0) & (rounds["started_s"] <= duration_s))
    there = there[np.lexsort((rounds["first_position"][there], row[there]))]
    rounds = {name: values[there] for name, values in rounds.items()}
    requests = {name: values[request_order] for name, values in requests.items()}
    row = row[there]

    for name in ("device", "request", "answer"):
        rounds[name] = requests[name][row]
    begins = np.r_[True, np.diff(row) != 0][: len(row)]
    numbers = np.arange(len(row), dtype=np.float64)
    rounds["round"] = numbers - np.maximum.accumulate(np.where(begins, numbers, 0.0))
    rounds["committed_s"] = np.where(rounds["committed_s"] <= duration_s, rounds["committed_s"], np.nan)

    of_rounds = _round_columns(rounds)
    tokens, of_round = _token_table(rounds, of_rounds, walks, np.frombuffer(log.commits_s))
    if sending:
        of_rounds["sending_s"] = rounds["sending_s"]
    request_table = _request_table(tokens, rounds, requests, row, row[of_round], walks, mean_snr_db)
    if device_class is not None:
        code = {name: number for number, name in enumerate(dict.fromkeys(device_class))}
        codes = np.array([code[name] for name in device_class])[request_table["device"]]
        request_table["device_class"] = pd.Categorical.from_codes(codes, dtype=pd.CategoricalDtype(list(code)))
    answers = pd.DataFrame({"bits": rounds["answer_bits"], "returned_s": rounds["returned_s"]})
    # The columns are of no one else's, so the table needs no copy of them.
    return Records(request_table, pd.DataFrame(of_rounds, copy=False), tokens, stations, answers, clamped_uploads)


def _columns(values: "array[float]", names: tuple[str, ...]) -> Columns:
    rows = np.frombuffer(values).reshape(-1, len(names)) if values else np.empty((0, len(names)))
    return dict(zip(names, rows.T, strict=True))


def _round_columns(rounds: Columns) -> dict[str, Any]:
    """Return the columns of the table of rounds."""
    committed = ~np.isnan(rounds["committed_s"])
    counts = {name: np.where(committed, rounds[name], 0) for name in ("accepted", "committed")}

    def whole(*names: str) -> dict[str, NDArray[np.int32]]:
        return {name: counts.get(name, rounds[name]).astype(np.int32) for name in names}

    return {
        **whole("device", "request", "round", "first_position", "drafted", "accepted", "committed"),
        **{name: rounds[name] for name in ("started_s", "committed_s", "payload_bits")},
        "device_s": rounds["sent_s"] - rounds["started_s"],
        # An upload that had the band for itself waits for nothing, not for a rounding error.
        "uplink_wait_s": np.maximum(rounds["received_s"] - rounds["sent_s"] - rounds["airtime_s"], 0.0),
        "airtime_s": rounds["airtime_s"],
        "bs_wait_s": rounds["verify_started_s"] - rounds["received_s"],
        "verify_s": rounds["verified_s"] - rounds["verify_started_s"],
        "downlink_s": rounds["committed_s"] - rounds["verified_s"],
        **{name: rounds[name] for name in ("batch_jobs", "batch_tokens")},
        **whole("llm_tokens"),
        "decision": _decisions(rounds["sends"]),
        **whole("steps", "recomputed_tokens", "unused_tokens"),
    }


def _decisions(sends: Floats) -> pd.Categorical:
    return pd.Categorical.from_codes(np.where(sends == 0.0, 0, np.where(sends == 1.0, 1, -1)), dtype=DECISIONS)


def _token_table(
    rounds: Columns, of_rounds: dict[str, Any], walks: list[Walk], commits_s: Floats
) -> tuple[pd.DataFrame, Indices | slice]:
    """Return the tokens, and the round that each is of: a slice of all rounds where each has one token.

    Kept drafts are committed one by one, each with its own time on the phone. The tokens of a visit are committed
    together: its first has the visit's legs, the others have none.
    """
    known = ~np.isnan(rounds["committed_s"])
    count = np.where(known, rounds["committed"], 1).astype(np.intp)
    has_several = bool((count > 1).any())
    of_round = np.repeat(np.arange(len(count)), count) if has_several else slice(None)
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    shared = ("started_s", "committed_s", "payload_bits", *LEGS, *BATCH)
    columns = {name: of_rounds[name][of_round] for name in shared}
    is_kept = (rounds["sends"] == 0.0)[of_round]
    if has_several:  # else tokens are as their rounds are
        _part(columns, within > 0, is_kept, (rounds["first_commit"][of_round] + within).astype(np.intp), commits_s)

    position = of_rounds["first_position"][of_round] + within
    drafts, accepted = rounds["drafted"][of_round], rounds["accepted"][of_round]
    verdict = np.where(within < accepted, ACCEPTED, np.where(accepted < drafts, RESAMPLED, GENERATED))
    outcome = np.where(np.isnan(columns["committed_s"]), -1, np.where(is_kept, SKIPPED, verdict))
    # The node of each token, and of the one that an unfinished walk was about to decide.
    nodes_of = [np.array(walk.visited if walk.node < 0 else [*walk.visited, walk.node]) for walk in walks]
    starts = np.cumsum([0, *map(len, nodes_of)])
    answer = rounds["answer"].astype(np.intp)[of_round]
    place = starts[answer] + position

    def of_nodes(fact: str) -> Floats:
        if not len(place):
            return np.empty(0)
        facts = [getattr(walk.nodes, fact)[visited] for walk, visited in zip(walks, nodes_of, strict=True)]
        return np.where(outcome == GENERATED, np.nan, np.concatenate(facts)[place])  # no draft of the phone's

    exact_tokens = np.array([inf if walk.exact_tokens is None else walk.exact_tokens for walk in walks])
    tokens = {
        "device": of_rounds["device"][of_round],
        "request": of_rounds["request"][of_round],
        "position": position.astype(np.int32),
        "started_s": columns["started_s"],
        "committed_s": columns["committed_s"],
        "decision": of_rounds["decision"][of_round],
        "outcome": pd.Categorical.from_codes(outcome, dtype=OUTCOMES),
        "uncertainty": of_nodes("uncertainty"),
        "accept_probability": of_nodes("accept_probability"),
        **{name: columns[name] for name in ("payload_bits", *LEGS, *BATCH)},
        "round": of_rounds["round"][of_round],
        "exact": position < exact_tokens[answer],
    }
    return pd.DataFrame(tokens, copy=False), of_round


def _part(columns: Columns, follows: Mask, is_kept: Mask, commit: Indices, commits_s: Floats) -> None:
    """Part the columns of rounds among their tokens, in place; a kept token was committed at `commits_s[commit]`."""
    committed_s, started_s = columns["committed_s"], columns["started_s"]
    committed_s[is_kept] = commits_s[commit[is_kept]]
    started_s[follows] = np.where(is_kept, np.r_[0.0, committed_s[:-1]], committed_s)[follows]
    for name in LEGS:
        columns[name][follows | is_kept] = 0.0
    columns["device_s"][is_kept] = (committed_s - started_s)[is_kept]
    for name in ("payload_bits", *BATCH):
        columns[name][follows] = 0


def _request_table(
    tokens: pd.DataFrame,
    rounds: Columns,
    requests: Columns,
    row_of_round: Indices,
    row_of_token: Indices,
    walks: list[Walk],
    mean_snr_db: Floats,
) -> pd.DataFrame:
    count = len(requests["device"])
    device, answer = requests["device"].astype(np.int32), requests["answer"].astype(np.intp)
    committed_s = tokens["committed_s"].to_numpy()
    done = np.bincount(row_of_token[~np.isnan(committed_s)], minlength=count)
    first_s, last_s = np.full(count, np.nan), np.full(count, np.nan)
    np.fmin.at(first_s, row_of_token, committed_s)
    np.fmax.at(last_s, row_of_token, committed_s)
    finished = done == np.array([inf if walk.left else walk.position for walk in walks])[answer]
    quality = np.array([walk.quality for walk in walks]).reshape(-1, len(QUALITY))
    return pd.DataFrame(
        {
            "device": device,
            "request": requests["request"].astype(np.int32),
            "prompt": np.array([walk.tree.prompt for walk in walks], dtype=np.int32)[answer],
            "prompt_tokens": np.array([walk.prompt_tokens for walk in walks], dtype=np.int32)[answer],
            "arrived_s": requests["arrived_s"],
            "first_token_s": first_s,
            "finished_s": np.where(finished, last_s, np.nan),
            "tokens": done.astype(np.int32),
            "uploads": np.bincount(row_of_round[rounds["payload_bits"] > 0], minlength=count).astype(np.int32),
            "mean_snr_db": mean_snr_db[device],
            "finished": finished,
            **dict(zip(QUALITY, quality[answer].T, strict=True)),
        }
    )
