"""
How long something takes or took, in words for people: never more than two units, since nobody reads a third.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def span(seconds: float) -> str:
    """A duration: "1.5 ms", "12.5 s", "1 min 43 s", "2 h", "3 d 4 h"."""
    if seconds < 0.9995:  # noqa: PLR2004 - from here on it reads better in seconds
        return f"{max(0.0, seconds) * 1000:.3g} ms"
    if seconds < 59.95:  # noqa: PLR2004 - from here on it is a minute
        return f"{seconds:.3g} s"
    for (size, unit), (smaller, name) in pairwise(_UNITS):
        whole, rest = divmod(round(seconds / smaller), size // smaller)
        if whole:
            return f"{whole:,} {unit} {rest} {name}" if rest else f"{whole:,} {unit}"
    raise AssertionError(seconds)  # a minute or more has minutes
