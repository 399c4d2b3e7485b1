"""
The functions of steps that outlive their attempts, as a side file names them: `<journal>.threads`.

Light, for the command line; who writes the file, and when it goes, is in `outliving`. A line says that a function still
runs, or has returned; all of it holds only while somebody has the file locked, since a process that is gone has no
functions.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections import Counter

from durable._core.light_tuples import NamedTuple


class Outlived(NamedTuple):
    """A function."""

    run_id: str
    position: str
    #: Of its step or job.
    name: str


def side_file(journal: str) -> str:
    """Where the functions of *journal* are named."""
    return f"{os.path.realpath(journal)}.threads"


def line(function: Outlived, *, runs: bool) -> bytes:
    """What says of *function* that it still runs, or that it does not."""
    return json.dumps([*function, 1 if runs else -1]).encode() + b"\n"


def read(path: str) -> list[Outlived]:
    """Those that the file at *path* says still run."""
    found: Counter[Outlived] = Counter()
    with open(path, encoding="utf-8") as file:
        for text in file:
            with contextlib.suppress(ValueError, TypeError):  # cut off by a full disk
                run_id, position, name, change = json.loads(text)
                found[Outlived(str(run_id), str(position), str(name))] += int(change)
    return [function for function, count in found.items() if count > 0]


def still_running(journal: str) -> list[Outlived]:
    """The functions that still run, in whatever process."""
    path = side_file(journal)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return []
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # given back at once: nobody has it, so nothing runs
    except OSError:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            return read(path)
    finally:
        os.close(fd)
    return []


def in_words(functions: list[Outlived], run_id: str) -> str:
    """What is to be said of a run whose functions still run, behind what it waits for."""
    mine = [f"{function.name!r} at {function.position}" for function in functions if function.run_id == run_id]
    return "".join(f"; its last attempt is still running in a thread ({which})" for which in mine)
