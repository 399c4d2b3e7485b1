"""
How far a run has come, and how that is recorded.
"""

from __future__ import annotations

import json
from types import NoneType
from typing import NamedTuple

from durable._core.codec.json_text import read_list


class Progress(NamedTuple):
    """How far a run has come, as its code last told by `progress`."""

    done: float
    #: None: nobody knows.
    total: float | None
    note: str
    #: Of the step that told it; of the next command, if the workflow itself did.
    position: str
    #: Epoch seconds, UTC.
    at: float

    @property
    def share(self) -> float | None:
        """Of *total*, from 0 to 1; None without one."""
        return min(self.done / self.total, 1.0) if self.total else None

    def __str__(self) -> str:
        of = "" if self.total is None else f" of {self.total:,g}"
        share = "" if self.share is None else f" ({self.share:.0%})"
        return f"{self.done:,g}{of}{share}" + (f", {self.note}" if self.note else "")

    def to_json(self) -> str:
        """As it is recorded."""
        return json.dumps(self, ensure_ascii=False)


def progress_from(text: str | None) -> Progress | None:
    """What was recorded; None if that is nothing, or damaged: it is for people, and nothing depends on it."""
    found = read_list(text, int | float, int | float | NoneType, str, str, int | float)
    return None if found is None else Progress(*found)
