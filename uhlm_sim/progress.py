"""How far long work is: what library code is given to call, and what the command line shows of it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TextIO

Progress = Callable[[str, int, int], None]  # what is being done, steps done, steps in all
EVERY_S = 60.0  # a log file gets a line so often


def no_progress(what: str, done: int, total: int) -> None:
    """Tell nobody."""


@contextmanager
def progress_on(stream: TextIO) -> Iterator[Progress]:
    """Show progress and what is left: a bar on a terminal, else a line each minute of one kind of work."""
    if not stream.isatty():
        yield progress_lines(stream, time.monotonic)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=Console(file=stream), transient=True) as bars:
        known = {}

        def progress(what: str, done: int, total: int) -> None:
            if what not in known:
                known[what] = bars.add_task(what, total=total)
            bars.update(known[what], completed=done, total=total)

        yield progress


def progress_lines(stream: TextIO, clock: Callable[[], float], every_s: float = EVERY_S) -> Progress:
    """Return a progress that writes a line, no sooner than ``every_s`` after the one before.

    What is left is told from the speed since that work was first heard of, so steps that were done by then don't count.
    """
    began: dict[str, tuple[float, int]] = {}
    last_s = clock()

    def progress(what: str, done: int, total: int) -> None:
        nonlocal last_s
        now_s = clock()
        if what not in began or done < began[what][1]:
            began[what] = now_s, done
        since_s, before = began[what]
        if now_s - last_s < every_s or done >= total:
            return
        last_s = now_s
        line = f"{what}: {done:,} of {total:,} after {_duration(now_s - since_s)}"
        if done > before:
            line += f", about {_duration((now_s - since_s) * (total - done) / (done - before))} left"
        print(line, file=stream, flush=True)

    return progress


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
