"""The errors this package raises.

UhlmError
├── InputError (ValueError)         what the user gave is wrong; the command line exits with 2
│   ├── ScenarioError               a scenario file, a key of it, or a --set
│   └── TraceError                  a recorded token file: truncated, damaged, foreign, or without what is asked for
└── SimulationError (RuntimeError)  a run failed, or broke a conservation law; the command line exits with 1

Library code raises these and prints nothing; a message names the file, the key, the value and what is allowed.
"""

import difflib
import re
import traceback
from collections.abc import Iterable
from pathlib import Path

LONGEST_WORD, LONGEST_LINE, MOST_LINES = 400, 1500, 20  # of a message
# What others call a key, in lower case -> its name here.
OTHER_WORDS = {"users": "devices", "phones": "devices", "ues": "devices", "snr_db": "mean_snr_db", "snr": "mean_snr_db"}
OTHER_WORDS |= {"bandwidth": "bandwidth_hz", "gamma": "draft_tokens", "arrival_rate": "rate_per_s"}
# Controls but line feed and tab, marks of direction, line separators, halves of a pair: what a terminal would act on.
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class UhlmError(Exception):
    """Everything this package raises on purpose; control characters are written out, and what is too long is cut."""

    def __init__(self, message: object = "") -> None:
        lines = printable(str(message)).split("\n")
        words = (re.sub(rf"\S{{{LONGEST_WORD},}}", lambda word: _cut(word[0], LONGEST_WORD), line) for line in lines)
        shown = [_cut(line, LONGEST_LINE) for line in words]
        more = [f"... and {len(lines) - MOST_LINES} more"] if len(lines) > MOST_LINES else []
        super().__init__("\n".join(shown[:MOST_LINES] + more))


class InputError(UhlmError, ValueError):
    """The user's input is wrong."""


class ScenarioError(InputError):
    """A scenario, or an override of it, is wrong."""


class TraceError(InputError):
    """A recorded trace can't be used."""


class SimulationError(UhlmError, RuntimeError):
    """A run failed or broke one of its invariants."""


def printable(text: str) -> str:
    """Return a text with its control characters written out, as `\\x1b`: a terminal shows it and does nothing else."""
    return CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def in_words(error: BaseException) -> str:
    """Return an exception's type and message in one line; a message that can't be had is left out."""
    try:
        lines = str(error).splitlines()
    except BaseException:  # code of a user's own raises what it likes
        lines = []
    return ": ".join([type(error).__name__, *lines[:1]])


def in_words_with_place(error: BaseException) -> str:
    """Return `in_words` of an exception's origin, with the file and line that raised it."""
    while error.__cause__ is not None:  # SimPy raises what a process raised once more
        error = error.__cause__
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{in_words(error)} ({Path(where.filename).name}, line {where.lineno})"


def _cut(text: str, length: int) -> str:
    """Return a text, or its beginning and its end if it is longer."""
    return text if len(text) <= length else f"{text[: length // 2]} ... {text[-length // 4 :]}"


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for a near miss or another word for the same, else an empty string."""
    names = list(allowed)
    close = [name for name in (OTHER_WORDS.get(word.lower()),) if name in names]
    close = close or difflib.get_close_matches(word, names, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def without_unit(text: str) -> str:
    """Return "; write 20e6, without a unit" for a number with a unit such as 20MHz, else an empty string."""
    number = re.fullmatch(r"\s*([-+]?[0-9.]+)\s*([GMkmu]?)(Hz|s|dB|dBm|W|bit|B|m)\s*", text)
    power = {"G": "e9", "M": "e6", "k": "e3", "m": "e-3", "u": "e-6"}
    return f"; write {number[1]}{power.get(number[2], '')}, without a unit" if number else ""
