"""Make the reference results again, a few minutes on two cores: python results/reference/regenerate.py

Runs three built-in scenarios as they are shipped and keeps, of each, the metrics of METRICS as NAME.csv (columns as in
summary.csv) and its main figure. `tests/test_reference.py` holds shortened runs against these tables.
"""

import shutil
import tempfile
from pathlib import Path

from uhlm_sim import load, run
from uhlm_sim.analysis.measures.intervals import write_table

HERE = Path(__file__).parent
FIGURES = {"quickstart": "throughput", "users_sweep": "sweep", "threshold_frontier": "frontier"}
METRICS = (
    "token_throughput",
    "token_throughput.ratio_to_first",
    "token_throughput_per_device",
    "mean_token_rate",
    "ttft_s.p50",
    "ttft_s.p95",
    "tpot_s.p50",
    "tpot_s.p95",
    "slo_attainment",
    "skip_rate",
    "distribution_error",
    "quality_cosine",
    "quality_cosine.ratio_to_first",
    "uplink_utilisation",
    "bs_utilisation",
)

if __name__ == "__main__":
    for name, figure in FIGURES.items():
        with tempfile.TemporaryDirectory() as folder:
            results = run(load(name), out=Path(folder) / name)
            kept = results.summary[results.summary["metric"].isin(METRICS)]
            write_table(kept, HERE / f"{name}.csv")
            shutil.copy(Path(folder) / name / "figures" / f"{figure}.png", HERE / f"{name}.png")
