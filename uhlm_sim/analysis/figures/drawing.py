"""What a figure of a run is before it is written, and the words that captions share."""

from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from uhlm_sim.analysis.digits import plain
from uhlm_sim.analysis.run import Run


@dataclass(frozen=True)
class Drawing:
    """A figure before it is written: `table` holds all that is drawn."""

    name: str
    title: str
    caption: str
    table: pd.DataFrame
    figure: Figure


def several(results: Run) -> bool:
    """Say whether there are intervals."""
    return int(results.summary["replications"].max()) > 1


def over(results: Run) -> str:
    """Say over how many replications; a run that adds some until it is precise has another number at each point."""
    counts = results.replications.groupby("point")["replication"].nunique()
    few, most = int(counts.min()), int(counts.max())
    return f"{few} to {most} replications" if few < most else f"{most} replications" if most > 1 else "one replication"


def intervals(results: Run, drawn: str) -> str:
    """Say what intervals are drawn as; one replication has none."""
    return (
        f" {drawn} are 95 % intervals over {over(results)}." if several(results) else " One replication, no interval."
    )


def window(results: Run) -> str:
    """Say what counts: tokens and requests between two times."""
    start_s, end_s = results.window_s
    return f"between {start_s:g} s and {end_s:g} s"


def drawn_for(summary: pd.DataFrame, keys: list[str]) -> str:
    """Say for which point of a sweep something is drawn; nothing without one."""
    first = summary[keys].head(1).to_dict("records") if keys else []
    at = ", ".join(f"{name} = {plain(value)}" for row in first for name, value in row.items())
    return f" Drawn for {at}." if at else ""


def forced(results: Run) -> str:
    """Name the policies that ran on the answers of another one."""
    named = [f"{label} (at some points)" if label in results.forced_in_part else label for label in results.forced]
    return f" Teacher-forced, on the answers of another policy: {', '.join(named)}." if named else ""
