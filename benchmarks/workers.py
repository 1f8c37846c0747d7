"""What a second worker is worth: python benchmarks/workers.py

40 simulations, about a minute's work on one core, token tables off, by one worker and by two, without and with the run
folder (tables, figures, report), which one process writes at the end whatever the number of workers.
"""

import tempfile
import time
from pathlib import Path

from uhlm_sim import Scenario, load, run

SWEEP = {
    "policy": [{"kind": "hlm"}, {"kind": "u-hlm", "threshold": 0.43}],
    "sweep": {"channel.mean_snr_db": [0.0, 10.0, 20.0, 30.0]},
    "replications": 5,
    "duration_s": 600.0,
    "output.tokens": False,
}


def seconds(scenario: Scenario, jobs: int, *, write: bool) -> float:
    with tempfile.TemporaryDirectory() as folder:
        began_s = time.perf_counter()
        run(scenario, jobs=jobs, out=Path(folder) / "run" if write else None)
        return time.perf_counter() - began_s


if __name__ == "__main__":
    scenario = load("quickstart", SWEEP)
    for write in (False, True):
        one, two = (seconds(scenario, jobs, write=write) for jobs in (1, 2))
        what = "with the run folder" if write else "tables in memory"
        print(f"{what:<20} one worker {one:6.1f} s   two {two:6.1f} s   {one / two:.2f} times as fast")
