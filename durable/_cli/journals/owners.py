"""
Who owns a journal, as its side file says. Only the lock itself decides.
"""

from __future__ import annotations

import fcntl
import json
import os
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
    #: False if it is gone: nobody has the lock, so it was killed. None if it cannot be known from here.
    alive: bool | None


def owner_of(path: str) -> OwnerProcess | None:
    """Who owns the journal at *path*; None if nobody says so."""
    try:
        with open(f"{os.path.realpath(path)}.lock", "rb") as file:
            said: Any = json.loads(file.read(_BYTES))
        pid, host, since = int(said["pid"]), str(said["host"]), str(said["since"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return OwnerProcess(pid, host, since, _is_locked(path))


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
        from durable._cli.terminal.output import printable  # noqa: PLC0415 - who reads needs none of it

        sys.stderr.write(f"no engine has {printable(path)} open: {consequence}\n")
        sys.stderr.flush()


def _is_locked(path: str) -> bool | None:
    """
    Whether somebody has the lock; None if we may not look.

    Not whether the process that is named there is alive: its number may be another's by now, or that of one in another
    container. Held for a moment, and shared: an engine that opens just now tries again.
    """
    try:
        fd = os.open(f"{os.path.realpath(path)}.lock", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    else:
        return False
    finally:
        os.close(fd)
