"""The tables of one simulation, cut to the window in which tokens and requests count, as arrays.

Within [warmup_s, duration_s] a token counts where it is committed, a request's latency where it arrives, its completion
where it is finished.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from uhlm_sim.analysis.measures.energy import Powers, energies

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Window:
    """One simulation's tables and settings; each property is an array over all requests or over the committed tokens.

    `slo` limits latencies [s] by name. `powers` is None where no phone's power is known. For a class of devices, `cell`
    is the window of the whole cell that it is a part of.
    """

    requests: pd.DataFrame
    rounds: pd.DataFrame
    tokens: pd.DataFrame
    stations: pd.DataFrame
    warmup_s: float
    duration_s: float
    devices: int
    slo: Mapping[str, float] = field(default_factory=dict)
    powers: Powers | None = None
    cell: "Window | None" = None

    def of_devices(self, members: Mask) -> "Window":
        """Return the window of some devices alone: a truth value for each device."""
        tables = {name: getattr(self, name) for name in ("requests", "rounds", "tokens")}
        theirs = {name: table[members[table["device"].to_numpy()]] for name, table in tables.items()}
        return replace(self, **theirs, devices=int(members.sum()), cell=self)

    def of_class(self, name: str) -> "Window":
        """Return the window of the requests of a class alone, by their column `device_class`."""
        return replace(self, requests=self.requests[_equal(self.requests["device_class"], name)])

    @property
    def length_s(self) -> float:
        return self.duration_s - self.warmup_s

    # Requests: all of them, those outside the window too. What hasn't happened yet is NaN.

    @cached_property
    def arrived_s(self) -> Floats:
        return floats(self.requests["arrived_s"])

    @cached_property
    def first_token_s(self) -> Floats:
        return floats(self.requests["first_token_s"])

    @cached_property
    def finished_s(self) -> Floats:
        return floats(self.requests["finished_s"])

    @cached_property
    def arrived(self) -> Mask:
        return in_window(self.requests["arrived_s"], self.warmup_s, self.duration_s)

    @cached_property
    def finished(self) -> Mask:
        return ~np.isnan(self.finished_s)

    @cached_property
    def completed(self) -> Mask:
        """Say which requests were finished in the window, whenever they arrived."""
        return in_window(self.requests["finished_s"], self.warmup_s, self.duration_s)

    @cached_property
    def ttft_s(self) -> Floats:
        """Return the time to first token of the window's requests that have one."""
        return (self.first_token_s - self.arrived_s)[self.arrived & ~np.isnan(self.first_token_s)]

    @cached_property
    def e2e_s(self) -> Floats:
        """Return the time from arrival to last token of the window's finished requests."""
        return (self.finished_s - self.arrived_s)[self.arrived & self.finished]

    @cached_property
    def tpot_s(self) -> Floats:
        """Return (e2e - TTFT)/(tokens - 1) of the window's finished requests of two tokens or more."""
        several = self.finished & (floats(self.requests["tokens"]) > 1)
        return self._pace_s[several & self.arrived]

    @cached_property
    def _pace_s(self) -> Floats:
        """Return the TPOT of finished requests of several tokens, NaN for others."""
        count = floats(self.requests["tokens"])
        pace_s = np.full(len(self.requests), np.nan)
        np.divide(self.finished_s - self.first_token_s, count - 1, out=pace_s, where=self.finished & (count > 1))
        return pace_s

    @cached_property
    def broke_slo(self) -> Mask:
        """Say which requests have broken an SLO by the end, unfinished ones too.

        A latency that isn't known yet is at least the time that has passed. The pace of an unfinished request counts
        the gap in which it waits, which can only grow.
        """
        count, started = floats(self.requests["tokens"]), ~np.isnan(self.first_token_s)
        pace_s = np.full(len(self.requests), 0.0)
        np.divide(self.duration_s - self.first_token_s, count, out=pace_s, where=started & (count > 0))
        passed_s = self.duration_s - self.arrived_s
        at_least_s = {
            "ttft_s": np.where(started, self.first_token_s - self.arrived_s, passed_s),
            "tpot_s": np.where(self.finished, np.nan_to_num(self._pace_s), pace_s),
            "e2e_s": np.where(self.finished, self.finished_s - self.arrived_s, passed_s),
        }
        broken = np.zeros(len(self.requests), dtype=bool)
        for key, limit in self.slo.items():
            broken |= at_least_s[key] > limit
        return broken

    @cached_property
    def presence_s(self) -> tuple[Floats, Floats]:
        """Return from when until when each request is present (arrived, not finished), clipped to the window."""
        ends_s = np.where(self.finished, self.finished_s, self.duration_s)
        since_s, until_s = (np.clip(times_s, self.warmup_s, self.duration_s) for times_s in (self.arrived_s, ends_s))
        return since_s, until_s

    @cached_property
    def phone_wait_s(self) -> Floats:
        """Return how long the window's requests waited for their phone; those that still wait are left out."""
        is_first = self.tokens["position"].to_numpy() == 0
        request, first_token = _requests_of(self.requests)[self.arrived], _requests_of(self.tokens)[is_first]
        _, begun, first = np.intersect1d(request, first_token, assume_unique=True, return_indices=True)
        started_s = floats(self.tokens["started_s"])[is_first]
        return np.asarray(started_s[first] - self.arrived_s[self.arrived][begun])

    # Tokens: those committed in the window, unless it is said otherwise.

    @cached_property
    def committed(self) -> pd.DataFrame:
        return self.tokens[self._is_committed]

    @cached_property
    def _is_committed(self) -> Mask:
        return in_window(self.tokens["committed_s"], self.warmup_s, self.duration_s)

    def column(self, name: str) -> Floats:
        return floats(self.committed[name])

    @cached_property
    def delay_s(self) -> Floats:
        return self.column("committed_s") - self.column("started_s")

    @cached_property
    def gaps_s(self) -> Floats:
        """Return the time between successive tokens of a request, the later one committed in the window."""
        keys = [self.tokens[name].to_numpy() for name in ("position", "request", "device")]
        order = np.lexsort(keys)
        position, request, device = (key[order] for key in keys)
        follows = (np.diff(device) == 0) & (np.diff(request) == 0) & (np.diff(position) == 1)
        gaps_s = np.diff(floats(self.tokens["committed_s"])[order])
        return np.asarray(gaps_s[follows & self._is_committed[order][1:] & ~np.isnan(gaps_s)])

    @cached_property
    def skipped(self) -> Mask:
        return _equal(self.committed["decision"], "skip")

    @cached_property
    def sent(self) -> Mask:
        """Say which tokens were sent to the base station, or generated there."""
        return _equal(self.committed["decision"], "send")

    @cached_property
    def resampled(self) -> Mask:
        return _equal(self.committed["outcome"], "resampled")

    @cached_property
    def drafted(self) -> Mask:
        """Say which tokens began as a draft of the phone: all but those that the LLM generated."""
        return ~_equal(self.committed["outcome"], "generated")

    @cached_property
    def exact(self) -> Mask:
        """Say of which tokens the prefix was recorded for their policy."""
        return self.committed["exact"].to_numpy(dtype=bool)

    @cached_property
    def energy_j(self) -> dict[str, float]:
        """Return the mean energy of a token and its parts by metric, nothing without powers."""
        idle_s = (self.cell or self).gpu_idle_s
        return {} if self.powers is None else energies(self.committed, self.visits, self.powers, idle_s)

    # Visits to the base station whose tokens were committed in the window.

    @cached_property
    def rounds_done(self) -> pd.DataFrame:
        """Return the rounds that were committed in the window, runs of kept drafts among them."""
        return self.rounds[in_window(self.rounds["committed_s"], self.warmup_s, self.duration_s)]

    @cached_property
    def visits(self) -> pd.DataFrame:
        """Return the rounds with a job at the GPUs that were committed in the window."""
        return self.rounds_done[floats(self.rounds_done["batch_jobs"]) > 0]

    def of_visits(self, name: str) -> Floats:
        return floats(self.visits[name])

    @cached_property
    def batch_weight(self) -> Floats:
        """Return the weight of each visit among batches: n rows see a batch of n jobs, in each of its steps."""
        return self.of_visits("steps") / self.of_visits("batch_jobs")

    @cached_property
    def step_s(self) -> Floats:
        return self.of_visits("verify_s") / self.of_visits("steps")

    # Stations: what they counted themselves.

    def growth(self, station: str, counter: str) -> float:
        """Return by how much a station's counter grew over the window, NaN where there is no such station."""
        start, end = (self._read(station, counter, at_s) for at_s in (self.warmup_s, self.duration_s))
        return end - start

    def servers(self, station: str) -> float:
        return self._read(station, "servers", self.duration_s)

    def _read(self, station: str, counter: str, at_s: float) -> float:
        return float(self._readings.get((station, at_s), {}).get(counter, np.nan))

    @cached_property
    def _readings(self) -> dict[tuple[str, float], dict[Hashable, Any]]:
        return {(row["station"], row["at_s"]): row for row in self.stations.to_dict("records")}

    def utilisation(self, station: str) -> float:
        """Return the time average of a station's servers in use, as a share of them."""
        return self.growth(station, "busy_s") / (self.servers(station) * self.length_s)

    def present(self, station: str) -> float:
        """Return the time average of the jobs at a station."""
        return self.growth(station, "present_s") / self.length_s

    def per_block(self, counter: str) -> float:
        """Return a counter of the uplink for each transport block sent for the first time."""
        blocks = self.growth("uplink", "blocks")
        return self.growth("uplink", counter) * (1 / blocks) if blocks > 0 else np.nan

    @cached_property
    def gpu_idle_s(self) -> float:
        """Return the time that GPUs waited in the window, for each token committed."""
        busy = self.utilisation("base_station")
        return self.servers("base_station") * (1 - busy) * self.length_s / max(len(self.committed), 1)


def in_window(times_s: pd.Series, warmup_s: float, duration_s: float) -> Mask:
    """Say which times lie within [warmup_s, duration_s]; one that is null doesn't."""
    values = floats(times_s)
    return np.asarray((values >= warmup_s) & (values <= duration_s))


def _requests_of(table: pd.DataFrame) -> NDArray[np.int64]:
    """Return the request of each row as one number: they rise with the device, then with the request."""
    device, request = (table[name].to_numpy(dtype=np.int64) for name in ("device", "request"))
    numbers: NDArray[np.int64] = device << 32 | request
    return numbers


def floats(column: pd.Series) -> Floats:
    """Return a column as numbers, nulls as NaN."""
    return column.to_numpy(dtype=np.float64, na_value=np.nan)


def _equal(column: pd.Series, word: str) -> Mask:
    return np.asarray(column.eq(word).to_numpy(dtype=bool, na_value=False))
