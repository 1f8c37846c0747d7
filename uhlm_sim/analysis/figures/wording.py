"""What of a run a figure of the report shows, and the words that captions share."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from uhlm_sim.analysis.digits import plain
from uhlm_sim.analysis.figures.axes import is_numeric, varied
from uhlm_sim.analysis.run import Run

FEW = 4  # words that are compared in figures of their own, not in a map
# Kinds of views. A single point is MIDDLE where figures over one swept value show the run too, else POINT. ASKED is
# what a user asks for by name.
POINT, MIDDLE, OVER, PART, MAP, ASKED = "point", "middle", "over", "part", "map", "asked"


@dataclass(frozen=True)
class View:
    """What a figure shows of the `whole` run: the points of `run`, over the swept `keys` on its axes.

    `kind` is one of those above; a PART is one value of a swept word, its `number`-th. `note` ends each caption.
    """

    kind: str
    run: Run
    whole: Run
    keys: tuple[str, ...]
    note: str
    number: int = 0
    word: str = ""


def views(run: Run) -> Iterator[View]:
    """Give the views of a run in the report's order: over its sweep, then its middle point.

    Over one swept value, over two, or the first two of more. Where one of two takes a few words, such as rules to
    compare, over the other for each word.
    """
    keys, middle = varied(run.summary, run.sweep), run.middle_point()
    rest = middle.summary[keys[2:]].head(1).to_dict("records")[0] if keys else {}
    some = run.at(rest)
    note = drawn_for(some.summary, keys[2:]) + forced(run)
    words = [key for key in keys[:2] if not is_numeric(some.summary[key])]
    if len(keys) > 1 and len(words) == 1 and some.summary[words[0]].nunique() <= FEW:
        x = next(key for key in keys[:2] if key not in words)
        for number, word in enumerate(some.summary[words[0]].unique(), 1):
            part = some.at({words[0]: word})
            yield View(PART, part, run, (x,), f"{drawn_for(part.summary, words)}{note}", number, str(word))
    elif keys:
        yield View(OVER if len(keys) == 1 else MAP, some, run, tuple(keys[:2]), note)
    note = drawn_for(middle.summary, run.sweep) + forced(run)
    yield View(MIDDLE if len(keys) == 1 else POINT, middle, run, (), note)


@dataclass(frozen=True)
class Drawing:
    """A figure before it is written: `table` holds all that is drawn; `figure` is the axes of a user who gave some."""

    name: str
    title: str
    caption: str
    table: pd.DataFrame
    figure: Any


def several(run: Run) -> bool:
    """Say whether there are intervals."""
    return int(run.summary["replications"].max()) > 1


def over(run: Run) -> str:
    """Say over how many replications; a run that adds some until it is precise has another number at each point."""
    counts = run.replications.groupby("point")["replication"].nunique()
    few, most = int(counts.min()), int(counts.max())
    return f"{few} to {most} replications" if few < most else f"{most} replications" if most > 1 else "one replication"


def intervals(run: Run, drawn: str) -> str:
    """Say what intervals are drawn as; one replication has none."""
    return f" {drawn} are 95 % intervals over {over(run)}." if several(run) else " One replication, no interval."


def window(run: Run) -> str:
    """Say what counts: tokens and requests between two times."""
    return "between {} s and {} s".format(*run.window_words)


def drawn_for(summary: pd.DataFrame, keys: list[str]) -> str:
    """Say for which point of a sweep something is drawn; nothing without one."""
    first = summary[keys].head(1).to_dict("records") if keys else []
    at = ", ".join(f"{name} = {plain(value)}" for row in first for name, value in row.items())
    return f" Drawn for {at}." if at else ""


def forced(run: Run) -> str:
    """Name the policies that ran on the answers of another one."""
    named = [f"{label} (at some points)" if label in run.forced_in_part else label for label in run.forced]
    return f" Teacher-forced where its own tokens were never recorded: {', '.join(named)}." if named else ""
