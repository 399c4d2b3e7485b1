"""
Faults: what may go wrong, and where each kind of it can strike.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Final, Literal, TypeAlias, get_args

from attrs import frozen

from durable._shell.storage.connections import CommitUnknownError, translate
from durable.errors import JournalError, JournalIOError, UsageError
from durable.testing._crash.sites import BEGIN, COMMIT_AFTER, COMMIT_BEFORE, DELIVERY, STEP_BEFORE, Site

#: What may go wrong:
#:
#: * ``crash``: the process's memory is gone; what was committed stays.
#: * ``exception``: user code raises a `GlitchError` there. ``cancellation``: it raises `asyncio.CancelledError`.
#: * ``cancel``: somebody cancels the run at that moment.
#: * ``lost_acknowledgement``: a transaction commits, and the caller is told that the disk failed.
#: * ``no_commit``: a transaction is rolled back, since the disk is full. ``busy``: somebody else is writing.
#: * ``duplicate``: a start or a signal is delivered twice.
#: * ``clock_forward``, ``clock_back``: the machine's clock is set, by a day and by an hour.
Kind: TypeAlias = Literal[
    "crash", "exception", "cancellation", "cancel", "lost_acknowledgement", "no_commit", "busy", "duplicate",
    "clock_forward", "clock_back",
]  # fmt: skip
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

#: Nobody may notice these: the run ends as it does undisturbed.
UNNOTICED: Final[frozenset[Kind]] = frozenset(("crash", "lost_acknowledgement", "no_commit", "busy", "duplicate"))
#: Where a kind strikes; those that are not here strike in user code (`exception`, `cancellation`), or anywhere.
_POINTS: Final[Mapping[Kind, tuple[str, ...]]] = {
    "lost_acknowledgement": (COMMIT_AFTER,),
    "no_commit": (COMMIT_BEFORE,),
    "busy": (BEGIN,),
    "duplicate": (DELIVERY,),
    "clock_forward": (COMMIT_AFTER, STEP_BEFORE),
    "clock_back": (COMMIT_AFTER, STEP_BEFORE),
}
CLOCK_SECONDS: Final[Mapping[Kind, float]] = {"clock_forward": 86_400.0, "clock_back": -3_600.0}


class GlitchError(Exception):
    """What user code raises where an ``exception`` strikes it."""


@frozen
class Fault:
    """
    One fault: it strikes the *hit*-th time (counted from 1) that *site* is reached.

    A second one of a pair counts from where the first one struck.
    """

    kind: Kind
    site: Site
    hit: int

    def __str__(self) -> str:
        return f"{self.kind} at {self.site}, hit {self.hit}"


def may_strike(kind: Kind, site: Site) -> bool:
    """Whether *kind* means anything at *site*."""
    if site.event != "point":
        return kind not in _POINTS
    if kind in ("exception", "cancellation"):
        return False
    return site.name in _POINTS.get(kind, (COMMIT_BEFORE, COMMIT_AFTER, STEP_BEFORE))


def faults_at(hits: Mapping[Site, int], kinds: Iterable[Kind]) -> list[Fault]:
    """Each kind at each hit of each site where it may strike."""
    asked = tuple(kinds)
    for kind in asked:
        if kind not in KINDS:
            msg = f"{kind!r} is not a kind of fault: there are {', '.join(KINDS)}"
            raise UsageError(msg)
    return [
        Fault(kind, site, hit)
        for site, count in sorted(hits.items())
        for kind in asked
        if may_strike(kind, site)
        for hit in range(1, count + 1)
    ]


def pairs_of(faults: list[Fault], count: int, seed: int) -> list[tuple[Fault, Fault]]:
    """*count* pairs: any fault, and then one soon after it, while the engine still mends what the first has done."""
    if not faults:
        return []
    dice = random.Random(seed)  # noqa: S311 - a sample that can be drawn again
    return [
        (first, Fault(second.kind, second.site, dice.randint(1, min(3, second.hit))))
        for first, second in ((dice.choice(faults), dice.choice(faults)) for _ in range(count))
    ]


def journal_error(kind: Kind, path: str) -> JournalError:
    """What the database says where a fault of *kind* strikes it."""
    if kind == "lost_acknowledgement":
        return CommitUnknownError(path, JournalIOError(path, "the disk failed (durable.testing)"))
    error = sqlite3.OperationalError("durable.testing")
    full = kind == "no_commit"
    error.sqlite_errorcode = sqlite3.SQLITE_FULL if full else sqlite3.SQLITE_BUSY
    error.sqlite_errorname = "SQLITE_FULL" if full else "SQLITE_BUSY"
    return translate(error, path)
