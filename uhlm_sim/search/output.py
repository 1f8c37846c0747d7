"""What a capacity search and a plan write: aligned tables, intervals as text, ratios to the first policy, a folder."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from math import isnan
from pathlib import Path
from typing import Any

import pandas as pd

from uhlm_sim.errors import InputError
from uhlm_sim.search.objectives import Objective


def compared(capacities: pd.DataFrame) -> pd.DataFrame:
    """Add each capacity's ratio to the first policy's, with the ends of both intervals, where both were found."""
    first = capacities.iloc[0]
    both = (capacities["bound"] == "") & (first["bound"] == "")
    itself = capacities.index == 0
    return capacities.assign(
        ratio_to_first=(capacities["capacity"] / first["capacity"]).where(both),
        ratio_low=(capacities["ci95_low"] / first["ci95_high"]).mask(itself, 1.0).where(both),
        ratio_high=(capacities["ci95_high"] / first["ci95_low"]).mask(itself, 1.0).where(both),
    )


def heading(what: str, cell: Mapping[str, Any], objectives: Sequence[Objective], source: str) -> list[str]:
    """Return what a search looked for and on which runs, for a terminal."""
    return [
        f"{cell['name']}: {what} with {' and '.join(map(str, objectives))}"
        + (f"; {source.upper()} TOKENS" if source else ""),
        f"{cell['replications']} replications of {cell['duration_s']:g} s, the first {cell['warmup_s']:g} s cut, "
        f"seed {cell['seed']}; (low, high) are 95 % intervals",
    ]


def aligned(table: pd.DataFrame) -> list[str]:
    """Return a table of text as lines with aligned columns."""
    columns = [[name, *table[name]] for name in table.columns]
    padded = [[cell.ljust(max(map(len, column))) for cell in column] for column in columns]
    return ["  ".join(row) for row in zip(*padded, strict=True)]


def between(low: float, high: float, digits: str) -> str:
    """Return an interval as text; "" where it isn't known."""
    return "" if isnan(low) or isnan(high) else f"({low:{digits}}, {high:{digits}})"


def ratio_text(row: Mapping[Any, Any], *, is_first: bool) -> str:
    """Return a row's ratio to the first policy with its interval; "-" where one of both wasn't found."""
    if isnan(row["ratio_to_first"]):
        return "-"
    return "1" if is_first else f"{row['ratio_to_first']:.2f} {between(row['ratio_low'], row['ratio_high'], '.2f')}"


@contextmanager
def claimed(folder: Path | None) -> Iterator[None]:
    """Hold a folder's name while something is computed for it; a failure or an interrupt leaves no empty one."""
    if folder is None:
        yield
        return
    made = claim(folder)
    try:
        yield
    finally:
        for path in made:
            with suppress(OSError):  # something was written there
                path.rmdir()


def claim(folder: Path) -> list[Path]:
    """Make a folder unless it is there and empty; return what was made, the innermost first."""
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder}: is there already; --out names another folder")
        missing = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        if isinstance(error, InputError):
            raise
        raise InputError(f"{folder}: can't be made ({error})") from None
    return missing
