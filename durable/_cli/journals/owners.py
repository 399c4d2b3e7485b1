"""
Who owns a journal, as its side file says. Only the lock itself decides, and looking must not take it.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from typing import Any, Final, NamedTuple

#: More than any text that an owner writes.
_BYTES: Final = 1024


class OwnerProcess(NamedTuple):
    """The process that last said it owned a file, and did not give it up."""

    pid: int
    host: str
    #: ISO 8601, UTC.
    since: str
    #: False if it is known to be gone: it was killed. None if it cannot be known from here.
    alive: bool | None


def owner_of(path: str) -> OwnerProcess | None:
    """Who owns the journal at *path*; None if nobody says so."""
    try:
        with open(f"{os.path.realpath(path)}.lock", "rb") as file:
            said: Any = json.loads(file.read(_BYTES))
        pid, host, since = int(said["pid"]), str(said["host"]), str(said["since"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return OwnerProcess(pid, host, since, _alive(pid) if host == socket.gethostname() else None)


def failure_of(path: str) -> str:
    """Why the last engine of the journal at *path* ended by itself; empty if it did not, or another came after it."""
    try:
        with open(f"{os.path.realpath(path)}.lock", "rb") as file:
            said: Any = json.loads(file.read(_BYTES).strip(b" \0"))
        return f"{said['failed']!s} ({said['since']!s})"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""


def say_unowned(path: str, consequence: str) -> None:
    """Say on standard error, where no engine has the journal, what follows from that."""
    owner = owner_of(path)
    if owner is None or owner.alive is False:
        sys.stderr.write(f"no engine has {path} open: {consequence}\n")
        sys.stderr.flush()


def _alive(pid: int) -> bool | None:
    if pid <= 0:  # would ask about a group of processes instead of one
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's process, or no number of one: it cannot be known
        return None
    return True
