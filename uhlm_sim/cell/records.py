"""Records: the phones' log as tables, one row per request and one per token."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from uhlm_sim.cell.phones.phone import Log
from uhlm_sim.tables import DECISIONS, OUTCOMES, QUALITY
from uhlm_sim.tokens.trace import TokenPath

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class AnswerBits:
    """What comes down for a token where the downlink is shared, and how long it takes after its last bit."""

    id_bits: float
    resample_bits: float
    latency_s: float


@dataclass(frozen=True)
class Records:
    """One simulation's tables (columns as the run folder has them), and how often an upload's SNR was clamped.

    `stations` holds the counters that uplink, base station, a shared downlink and, where it is limited, the LLM's
    memory keep themselves, at the end of the warm-up and of the run: station, at_s, servers, and those of
    `uhlm_sim.cell.jobs.Counters`. `answers` has the `bits` and `returned_s` of every token where the downlink is
    shared, to hold its counters against.
    """

    requests: pd.DataFrame
    tokens: pd.DataFrame
    stations: pd.DataFrame
    clamped_uploads: int = 0
    answers: pd.DataFrame | None = None


def make_records(
    log: Log,
    paths: list[TokenPath],
    stations: pd.DataFrame,
    *,
    duration_s: float,
    max_tokens: int,
    mean_snr_db: Floats,
    generated: bool | NDArray[np.bool_] = False,
    device_class: Sequence[str] | None = None,
    sending: bool = False,
    clamped_uploads: int = 0,
    answer_bits: AnswerBits | None = None,
) -> Records:
    """Turn the log of a run that stopped at `duration_s` into tables, sorted by device, request and position.

    `paths` are the answers that the log's requests point to. Requests that arrived and tokens that began later than
    `duration_s` are left out (a phone that sleeps until then has written them down already); of a token in progress
    the legs that ended are kept, and `committed_s` is null. `generated`, for all devices or one each: the LLM writes
    the answers, so there is no draft, hence neither uncertainty nor verdict. `device_class` names each device's class.
    With `sending` the table of tokens has a column for the time with any of the band.
    """
    asked = _columns(log.requests, Log.REQUEST)
    began = _columns(log.tokens, Log.TOKEN)
    request_order = np.lexsort((asked["request"], asked["device"]))
    request_order = request_order[asked["arrived_s"][request_order] <= duration_s]
    place = np.full(len(asked["device"]), -1)
    place[request_order] = np.arange(len(request_order))
    row = place[began["request_row"].astype(np.intp)]
    kept = np.flatnonzero((row >= 0) & (began["started_s"] <= duration_s))
    kept = kept[np.lexsort((began["position"][kept], row[kept]))]
    began = {name: values[kept] for name, values in began.items()}
    asked = {name: values[request_order] for name, values in asked.items()}

    generated = np.broadcast_to(generated, len(mean_snr_db))
    tokens = _token_table(began, asked, row[kept], paths, duration_s, generated)
    if sending:
        tokens["sending_s"] = began["sending_s"]
    requests = _request_table(tokens, asked, row[kept], paths, mean_snr_db, max_tokens)
    if device_class is not None:
        code = {name: number for number, name in enumerate(dict.fromkeys(device_class))}
        codes = np.array([code[name] for name in device_class])[requests["device"]]
        requests["device_class"] = pd.Categorical.from_codes(codes, dtype=pd.CategoricalDtype(list(code)))
    answers = None
    if answer_bits is not None:
        accepted = np.concatenate([np.empty(0, dtype=np.bool_), *(path.accepted for path in paths)])
        is_id = accepted[_places(began, asked, row[kept], paths)] | generated[tokens["device"]]
        bits = np.where(is_id, answer_bits.id_bits, answer_bits.resample_bits)
        answers = pd.DataFrame({"bits": bits, "returned_s": began["committed_s"] - answer_bits.latency_s})
    return Records(requests, tokens, stations, clamped_uploads, answers)


def _columns(values: "array[float]", names: tuple[str, ...]) -> dict[str, Floats]:
    rows = np.frombuffer(values).reshape(-1, len(names)) if values else np.empty((0, len(names)))
    return dict(zip(names, rows.T, strict=True))


def _places(
    began: dict[str, Floats], asked: dict[str, Floats], row: NDArray[np.intp], paths: list[TokenPath]
) -> NDArray[np.intp]:
    """Return where each token stands in the paths, laid end to end."""
    starts = np.cumsum([0, *(len(path) for path in paths)])
    places: NDArray[np.intp] = starts[asked["answer"].astype(np.intp)[row]] + began["position"].astype(np.intp)
    return places


def _token_table(
    began: dict[str, Floats],
    asked: dict[str, Floats],
    row: NDArray[np.intp],
    paths: list[TokenPath],
    duration_s: float,
    generated: NDArray[np.bool_],
) -> pd.DataFrame:
    position, device = began["position"].astype(np.int32), asked["device"][row].astype(np.int32)
    committed_s = np.where(began["committed_s"] <= duration_s, began["committed_s"], np.nan)
    sends, keeps = began["sends"] == 1.0, began["sends"] == 0.0

    place = _places(began, asked, row, paths)

    def of_paths(values: list[NDArray[np.generic]]) -> NDArray[np.generic]:
        return np.concatenate(values)[place] if len(place) else np.empty(0)

    accepted = of_paths([path.accepted for path in paths])
    verdict = np.where(accepted, 1, 2)
    known = ~np.isnan(committed_s)
    outcome = np.where(keeps & known, 0, np.where(sends & known, np.where(generated[device], 3, verdict), -1))
    return pd.DataFrame(
        {
            "device": device,
            "request": asked["request"][row].astype(np.int32),
            "position": position,
            "started_s": began["started_s"],
            "committed_s": committed_s,
            "decision": pd.Categorical.from_codes(np.where(keeps, 0, np.where(sends, 1, -1)), dtype=DECISIONS),
            "outcome": pd.Categorical.from_codes(outcome, dtype=OUTCOMES),
            "uncertainty": of_paths([path.uncertainty for path in paths]),
            "accept_probability": of_paths([path.accept_probability for path in paths]),
            "payload_bits": began["payload_bits"],
            "device_s": began["sent_s"] - began["started_s"],
            # An upload that had the band for itself waits for nothing, not for a rounding error.
            "uplink_wait_s": np.maximum(began["received_s"] - began["sent_s"] - began["airtime_s"], 0.0),
            "airtime_s": began["airtime_s"],
            "bs_wait_s": began["verify_started_s"] - began["received_s"],
            "verify_s": began["verified_s"] - began["verify_started_s"],
            "downlink_s": committed_s - began["verified_s"],
            "batch_jobs": began["batch_jobs"],
            "batch_tokens": began["batch_tokens"],
            "steps": began["steps"].astype(np.int32),
            "llm_tokens": began["llm_tokens"].astype(np.int32),
            "recomputed_tokens": began["recomputed_tokens"].astype(np.int32),
        }
    )


def _request_table(
    tokens: pd.DataFrame,
    asked: dict[str, Floats],
    row: NDArray[np.intp],
    paths: list[TokenPath],
    mean_snr_db: Floats,
    max_tokens: int,
) -> pd.DataFrame:
    count = len(asked["device"])
    device, answer = asked["device"].astype(np.int32), asked["answer"].astype(np.intp)
    committed_s = tokens["committed_s"].to_numpy()
    committed = ~np.isnan(committed_s)
    done = np.bincount(row[committed], minlength=count)
    first_s, last_s = np.full(count, np.nan), np.full(count, np.nan)
    np.fmin.at(first_s, row, committed_s)
    np.fmax.at(last_s, row, committed_s)
    finished = done == np.minimum([len(path) for path in paths], max_tokens)[answer]
    return pd.DataFrame(
        {
            "device": device,
            "request": asked["request"].astype(np.int32),
            "prompt": np.array([path.prompt for path in paths], dtype=np.int32)[answer],
            "prompt_tokens": np.array([path.prompt_tokens for path in paths], dtype=np.int32)[answer],
            "arrived_s": asked["arrived_s"],
            "first_token_s": first_s,
            "finished_s": np.where(finished, last_s, np.nan),
            "tokens": done.astype(np.int32),
            "uploads": np.bincount(row[tokens["payload_bits"] > 0], minlength=count).astype(np.int32),
            "mean_snr_db": mean_snr_db[device],
            "finished": finished,
            **{name: np.array([getattr(path, name) for path in paths])[answer] for name in QUALITY},
        }
    )
