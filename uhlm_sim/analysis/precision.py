"""When there are enough replications. (Interim, replaced by helper S.)"""

import pandas as pd

FEWEST = 10


def more_replications(values: pd.DataFrame, first: str, relative: float, maximum: int) -> int:
    """Return how many replications to add."""
    return min(5, maximum - len(values)) if relative > 0 and first in values else 0
