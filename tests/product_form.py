"""A closed cell whose queues have a product form, and what theory says of it exactly."""

from pathlib import Path

import numpy as np
import pytest

from uhlm_sim.scenario import Scenario
from uhlm_sim.scenario_file import parse_scenario

SLM_S, DOWNLINK_S, UPLOAD_S, VERIFY_S, THINK_S, TOKENS = 0.02, 0.005, 0.012, 0.02, 1.0, 3
OWN_TIMES = """
def exponential(service, rng):
    return lambda new_tokens: rng.exponential(service.c_s)
"""


def mean_value_analysis(phones: int, upload_s: float = UPLOAD_S) -> tuple[float, float]:
    """Return seconds a token and tokens a second of a closed cell."""
    requests_per_s, stay_s = _mean_values(phones, upload_s)
    return SLM_S + DOWNLINK_S + stay_s.sum() / TOKENS, TOKENS * requests_per_s


def mean_present(phones: int) -> dict[str, float]:
    """Return how many jobs are at each station of a closed cell, in the mean over time."""
    requests_per_s, stay_s = _mean_values(phones, UPLOAD_S)
    return dict(zip(("uplink", "GPUs"), (requests_per_s * stay_s).tolist(), strict=True))


def _mean_values(phones: int, upload_s: float) -> tuple[float, np.ndarray]:
    """Return requests a second and a request's stays: R_k = D_k (1 + Q_k(n - 1)), X = n / (Z + sum R_k).

    Exact (Reiser and Lavenberg 1980) for a product-form network: thinks, drafts and downlinks are delays, the uplink is
    processor sharing, whatever the law of its sizes, and the GPU serves exponential times in order.
    """
    delay_s = THINK_S + TOKENS * (SLM_S + DOWNLINK_S)
    demand_s = TOKENS * np.array([upload_s, VERIFY_S])
    present = np.zeros(2)
    for n in range(1, phones + 1):
        stay_s = demand_s * (1 + present)
        requests_per_s = n / (delay_s + stay_s.sum())
        present = requests_per_s * stay_s
    return requests_per_s, stay_s


@pytest.fixture
def closed_cell(trace_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scenario:
    """Answers are cut at three tokens, which all of the trace's have; 400 bits take UPLOAD_S of the whole band."""
    (tmp_path / "own_exponential.py").write_text(OWN_TIMES, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return parse_scenario(
        {
            "name": "closed",
            "replications": 10,
            "duration_s": 120.0,
            "warmup_s": 20.0,
            "traffic": {"devices": 12, "think_time_s": THINK_S, "max_tokens": TOKENS},
            "tokens": {"path": str(trace_file)},
            "device": {"slm_token_s": SLM_S, "slm_prefill_token_s": 0.0},
            "uplink": {"bandwidth_hz": 400 / UPLOAD_S / np.log2(1 + 10)},
            "channel": {"kind": "constant", "mean_snr_db": 10.0},
            "base_station": {
                "service": {"kind": "own_exponential:exponential", "c_s": VERIFY_S},
                "max_batch": 1,
                "order": "first-come",
                "sync": "free",
                "downlink_s": DOWNLINK_S,
            },
            "policy": [{"kind": "hlm"}],
        }
    )
