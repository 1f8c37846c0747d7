"""What a user holds of a finished run: its tables, and what a notebook asks of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from uhlm_sim.analysis import digits
from uhlm_sim.analysis.figures.catalogue import Plots, write_figures
from uhlm_sim.analysis.measures.budget import delay_budget
from uhlm_sim.analysis.measures.intervals import paired_ratio, student_t
from uhlm_sim.analysis.measures.quantiles import with_pooled_quantiles
from uhlm_sim.analysis.measures.queues import queue_lengths, queues
from uhlm_sim.analysis.report.notebook import results_html
from uhlm_sim.analysis.report.page import write_report
from uhlm_sim.analysis.run import ESTIMATE, Run
from uhlm_sim.analysis.run_folder import read_run, refuse_links
from uhlm_sim.errors import InputError, did_you_mean


@dataclass(frozen=True, repr=False)
class Estimate:
    """A mean, or a ratio of means, with its 95 % interval over replications; one replication has none (NaN)."""

    mean: float
    ci95_low: float
    ci95_high: float
    replications: int

    def __repr__(self) -> str:
        """Show as many digits as the interval gives: "1.34 (1.32 to 1.36), 8 replications"."""
        text, ends = digits.ratio(self.mean, self.ci95_low, self.ci95_high)
        count = f"{self.replications} replication{'s' if self.replications != 1 else ''}"
        return f"{text}{f' ({ends})' if ends else ''}, {count}"


class Results(Run):
    """A `Run` that answers: means and ratios with their intervals, figures, the report, and a table in a notebook."""

    @classmethod
    def read(cls, run_dir: Path | str) -> "Results":
        """Read a finished run's folder, or one whose failed points were left out (`failed` tells them).

        Raises InputError for any other folder and for files that can't be read or aren't what the run wrote.
        """
        return cls(**vars(read_run(Path(run_dir))))

    @property
    def plot(self) -> Plots:
        """Give the run's figures, each on axes of yours or as a figure of its own."""
        return Plots(self)

    def write_report(self, run_dir: Path | str) -> Path:
        """Draw the run's figures into `figures/` of a folder, write `report.html` there, and return the latter."""
        refuse_links(Path(run_dir))
        page = Path(run_dir) / "report.html"
        write_report(self, write_figures(self, page.with_name("figures")), page)
        return page

    def ratio(self, policy: str, other: str, metric: str) -> Estimate | pd.DataFrame:
        """Return a metric's ratio between two policies, of means, paired by replication (`intervals.paired_ratio`).

        A policy is named by its label, or by its kind if only one has it. Of a sweep, a table with a row for each
        point: the sweep's columns, then mean, ci95_low, ci95_high, replications. Raises InputError for a policy or a
        metric that the run hasn't got.
        """
        return self._estimate(*paired_ratio(self._values(policy, metric), self._values(other, metric)))

    def difference(self, policy: str, other: str, metric: str) -> Estimate | pd.DataFrame:
        """Return how much more of a metric one policy has than another, paired by replication, in the form of `ratio`.

        The mean of the differences with Student's interval (the paired t test): what the common world moves in both
        falls out.
        """
        return self._estimate(*student_t(self._values(policy, metric) - self._values(other, metric)))

    def mean(self, policy: str, metric: str) -> Estimate | pd.DataFrame:
        """Return a policy's mean of a metric with Student's interval over replications, in the form of `ratio`."""
        return self._estimate(*student_t(self._values(policy, metric)))

    def delay_budget(self) -> pd.DataFrame:
        """Return where tokens spend their time by policy: all of them, and those around the median, p95 and p99.

        See `measures.budget.delay_budget`.
        """
        return delay_budget(self)

    def queues(self) -> pd.DataFrame:
        """Return what jobs wait at each station, how many they meet there, and how many are there over time.

        See `measures.queues.queues`. Raises InputError where the run kept no rounds.
        """
        self.kept_rounds()
        return queues(self)

    def queue_lengths(self) -> pd.DataFrame:
        """Return the distribution of the number at each station, over time and as arrivals see it.

        See `measures.queues.queue_lengths`. Raises InputError where the run kept no rounds.
        """
        self.kept_rounds()
        return queue_lengths(self)

    def _values(self, policy: str, metric: str) -> NDArray[np.float64]:
        """Return one policy's values of a metric: a row for each point, a column for each replication."""
        table = self.replications
        metrics = [str(name) for name in table["metric"].unique()]
        if metric not in metrics:
            raise InputError(f"metric '{metric}': this run has none{did_you_mean(metric, metrics)}")
        rows = table[table["policy"].isin(self.named(policy)) & (table["metric"] == metric)]
        rows = with_pooled_quantiles(rows, self)
        values = rows.pivot(index="point", columns="replication", values="value")
        points, replications = table["point"].unique(), table["replication"].unique()
        return values.reindex(index=points, columns=replications).to_numpy(dtype=np.float64, na_value=np.nan)

    def _estimate(self, *estimate: NDArray[Any]) -> Estimate | pd.DataFrame:
        if not self.sweep:
            mean, low, high, count = (column[0] for column in estimate)
            return Estimate(float(mean), float(low), float(high), int(count))
        points = self.replications.drop_duplicates("point")[self.sweep].reset_index(drop=True)
        return points.assign(**dict(zip(ESTIMATE, estimate, strict=True)))

    def __repr__(self) -> str:
        points = len(self.summary[self.sweep].drop_duplicates()) if self.sweep else 1
        parts = (f"{len(self.policies)} policies", f"{points} points" if points > 1 else "1 point")
        return f"<Results of {self.scenario['name']}: {', '.join(parts)}>"

    def _repr_html_(self) -> str:
        return results_html(self)
