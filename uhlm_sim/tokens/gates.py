"""Gates: which drafts of an answer a phone keeps, one plain function each.

A gate takes a `TokenPath` and returns one bool a token, True where the phone keeps its draft instead of sending it.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from uhlm_sim.tokens.trace import TokenPath

Gate = Callable[[TokenPath], NDArray[np.bool_]]


def keep_none(path: TokenPath) -> NDArray[np.bool_]:
    """Keep no draft: the LLM is asked about every one."""
    return np.zeros(len(path), dtype=np.bool_)


def keep_all(path: TokenPath) -> NDArray[np.bool_]:
    """Keep every draft: the phone answers alone."""
    return np.ones(len(path), dtype=np.bool_)


def keep_as_recorded(path: TokenPath) -> NDArray[np.bool_]:
    """Keep what the path's own decoding rule kept, with the models in the loop or teacher-forced."""
    return path.skipped
