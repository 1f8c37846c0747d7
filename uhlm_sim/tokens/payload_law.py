"""Payload laws: what an upload leaves of the SLM's distribution x, where that decides which tokens are committed.

A law is a word: "" is all of x; top-<k> the k largest, the rest spread evenly; truncated-<k> the k largest at sum 1;
quantised-<levels> x in multiples of 1/levels; ids-own-token all of x for the verdict, but a refused draft is replaced
by a draw of y.
"""

import re

OWN_TOKEN = "ids-own-token"
PATTERN = re.compile(f"(top|quantised|truncated)-([1-9][0-9]{{0,7}})|{OWN_TOKEN}")


def parts(law: str) -> tuple[str, int]:
    """Return the first word of a law and its number, 0 where it has none."""
    word, _, number = law.partition("-")
    return word, int(number) if number.isdecimal() else 0


def draws_anew(law: str) -> bool:
    """Say whether the draft itself is drawn from what the upload says, and not from x."""
    return parts(law)[0] in ("quantised", "truncated")


def keeps_law(law: str, vocabulary_size: int) -> bool:
    """Say whether what the LLM commits has its own law: where drafts are drawn from what it judges them by."""
    word, number = parts(law)
    return law != OWN_TOKEN and (word != "top" or number >= vocabulary_size)
