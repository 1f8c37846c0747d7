"""The errors this package raises.

UhlmError
├── InputError (ValueError)         what the user gave is wrong; the command line exits with 2
│   ├── ScenarioError               a scenario file, a key of it, or a --set
│   └── TraceError                  a recorded token file: truncated, damaged, foreign, or without what is asked for
└── SimulationError (RuntimeError)  a run failed, or broke a conservation law; the command line exits with 1

Library code raises these and prints nothing; a message names the file, the key, the value and what is allowed.
"""

import difflib
from collections.abc import Iterable


class UhlmError(Exception):
    """Everything this package raises on purpose."""


class InputError(UhlmError, ValueError):
    """The user's input is wrong."""


class ScenarioError(InputError):
    """A scenario, or an override of it, is wrong."""


class TraceError(InputError):
    """A recorded trace can't be used."""


class SimulationError(UhlmError, RuntimeError):
    """A run failed or broke one of its invariants."""


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for a near miss, else an empty string."""
    close = difflib.get_close_matches(word, list(allowed), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
