"""
The states of a run: what each means, who takes a run from one to another, and what a run can wait for.

A status is a column of the table of runs: a projection of the history that the scheduler, lists and people read. It
changes in the transaction that records why, and never by itself:

* **pending**: it exists, and nobody has driven it. It may be ready, and wait for its turn in its queue; or wait for its
  delay, for a run before it, or for a slot that the run as a whole needs;
* **running**: it is driven, or ready to be. Something of it is in memory, or will be at once;
* **waiting**: it was freed. Rows say what it waits for, and nothing else of it is left;
* **paused**: a person asked it to begin nothing more. What was running ends, and is kept for when it is resumed;
* **blocked**: it cannot continue without a person, or without other code: it diverged, its definition is missing, a
  step is stuck, a cap was reached. Nothing of it is lost;
* **succeeded**, **failed**, **cancelled**: it has ended, with an outcome that does not change. Of these only a failed
  run can be opened again, by a retry, and one that was cancelled before it began.

Who changes it is a `Cause`. Two of them can meet in one transaction: a run is paused while the turn that ends it is on
its way to the file. Then the turn wins, since what it records has happened; a run that was freed stays paused, since
that it waits is still true. A cancel needs nobody to resume the run: it is put where it is driven to its end.

Nothing but the standard library is imported here: the command line reads this module before it loads anything else, and
definitions, which stand at the bottom of the package, name statuses in their types.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, Literal, TypeAlias

# --- statuses ------------------------------------------------------------------------------------

#: How a run ended.
EndStatus: TypeAlias = Literal["succeeded", "failed", "cancelled"]
#: How a run stands still, whatever arrives, until somebody lets it continue.
HeldStatus: TypeAlias = Literal["paused", "blocked"]
#: All that a run can be.
Status: TypeAlias = Literal["pending", "running", "waiting", HeldStatus, EndStatus]

# In the order in which people read them.
HELD: Final[tuple[HeldStatus, ...]] = ("paused", "blocked")
OPEN: Final[tuple[Status, ...]] = ("pending", "running", "waiting", *HELD)
ENDS: Final[tuple[EndStatus, ...]] = ("succeeded", "failed", "cancelled")
STATUSES: Final[tuple[Status, ...]] = (*OPEN, *ENDS)

#: What stands before the error in the reason of a cancelled run whose clean-up failed.
CLEANUP_FAILED: Final = "its clean-up failed: "


# --- who changes them ----------------------------------------------------------------------------


class Cause(StrEnum):
    """Who takes a run from one status to another."""

    CREATION = "it is created: started, or forked"
    IMPORT = "it is imported"
    TURN = "a turn of it is recorded"
    ARRIVAL = "what it waited for arrives"
    PAUSE = "`pause`"
    RESUME = "`resume`"
    CANCEL = "`cancel`"
    EXPIRY = "it had to begin by now (`expires`)"
    RETRY = "`retry`"
    OPENING = "an engine opens the file: it may have the code that was missing"


#: Before there is a run.
NEW: Final = "new"

_BY_A_TURN: Final = (Cause.TURN,)
_ENDED_BY_A_TURN: Final[Mapping[Status, tuple[Cause, ...]]] = dict.fromkeys(ENDS, _BY_A_TURN)

#: From, to, by whom. `durable/README.md` shows it.
RUN_TRANSITIONS: Final[Mapping[Status | Literal["new"], Mapping[Status, tuple[Cause, ...]]]] = {
    NEW: {
        "pending": (Cause.CREATION,),
        "paused": (Cause.IMPORT,),  # whatever it did where it comes from: a person says when it continues
        **dict.fromkeys(ENDS, (Cause.IMPORT,)),
    },
    "pending": {
        "running": (Cause.TURN, Cause.ARRIVAL),  # its first turn; the slot for which a resumed run had to wait
        "waiting": _BY_A_TURN,  # the first one left nothing to do but to wait
        "paused": (Cause.PAUSE,),
        "blocked": _BY_A_TURN,
        **_ENDED_BY_A_TURN,
    },
    "running": {
        "waiting": _BY_A_TURN,
        "paused": (Cause.PAUSE,),
        "blocked": _BY_A_TURN,
        **_ENDED_BY_A_TURN,
    },
    "waiting": {
        "running": (Cause.ARRIVAL, Cause.CANCEL),
        "paused": (Cause.PAUSE,),
    },
    "paused": {
        "pending": (Cause.RESUME, Cause.CANCEL, Cause.EXPIRY),
        "running": (Cause.RESUME, Cause.CANCEL),
        "blocked": _BY_A_TURN,
        **_ENDED_BY_A_TURN,
    },
    "blocked": {
        "pending": (Cause.RESUME, Cause.CANCEL, Cause.OPENING),
        "running": (Cause.RESUME, Cause.CANCEL, Cause.OPENING),
    },
    "succeeded": {},
    "failed": {
        "pending": (Cause.RETRY,),  # it has to wait for its slot again
        "running": (Cause.RETRY,),
    },
    "cancelled": {"pending": (Cause.RETRY,)},  # if it had not begun
}  # fmt: skip


def changed_by(cause: Cause) -> tuple[Status, ...]:
    """The statuses that *cause* can take a run from."""
    return tuple(status for status in STATUSES if any(cause in causes for causes in RUN_TRANSITIONS[status].values()))


# --- what a run waits for ------------------------------------------------------------------------

#: What a wait, which is a row, is for.
WaitKind: TypeAlias = Literal[
    "timer",
    "retry",
    "signal",
    "request",
    "child",
    "callback",
    "heartbeat",
    "deadline",
    "cleanup",
    "restart",
    "start",
    "expiry",
    "code",
]

#: Each in words.
WAITS: Final[Mapping[WaitKind, str]] = {
    "timer": "a `sleep` or `timeout` is due",
    "retry": "the next attempt of a step is due",
    "signal": "a signal of a name, or the timeout of its `wait_for`",
    "request": "a request of a name, or the timeout of its `wait_for`",
    "child": "a run ends",
    "callback": "somebody outside answers a token, or the time for that is over",
    "heartbeat": "nothing was heard of a callback for as long as it may be silent",
    "deadline": "the time of the whole run is over",
    "cleanup": "the time of its clean-up is over",
    "restart": "the next attempt of the whole run is due",
    "expiry": "it is given up, if it has not begun",
    "start": "its delay is over, or the run before it ends",
    "code": "it is blocked, and an engine with other code may open the file",
}
