"""
Which functions of steps outlive their attempts, told to others: those who look on, and the engines that come after.

A thread cannot be cut off, and an engine that closes does not wait for one beyond its grace. So a function that is told
to end, or that still runs when its engine gives up the file, is named in `<journal>.threads`, and that is locked
(shared, since several processes may have left some) until it has returned, or the process is gone. The next owner
begins none of these steps before nobody holds that lock.

Only the owner of the journal makes or removes the side file, so that nobody locks one that is not there.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Callable
from functools import partial
from typing import Final

from durable._shell.ownership.outlived import Outlived, line, read, side_file
from durable.errors import JournalAccessError

#: Seconds between two looks whether they have returned.
LOOK_SECONDS: Final = 0.1

#: What this process has open: a forked child must not keep a lock of its parent's.
_open: set[int] = set()


def leave_word(journal: str, function: Outlived) -> Callable[[], None]:
    """
    Tell others that *function* still runs; what is to be called, in whatever thread, once it has returned.

    Raises:
        JournalAccessError: The side file cannot be written.
    """
    path = side_file(journal)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        _open.add(fd)
        fcntl.flock(fd, fcntl.LOCK_SH)
        os.write(fd, line(function, runs=True))
    except OSError as error:
        raise JournalAccessError(journal, f"cannot write {path}: {error.strerror or error}") from error
    return partial(_take_back, fd, function)


def _take_back(fd: int, function: Outlived) -> None:
    if fd in _open:  # not in a forked child
        with contextlib.suppress(OSError):
            os.write(fd, line(function, runs=False))
        _close(fd)


def sweep(journal: str) -> None:
    """Remove the side file, if all have returned. Called by the owner of the journal."""
    with contextlib.suppress(JournalAccessError, OSError):  # the next owner says what is wrong with it
        OutlivedElsewhere(journal).close()


class OutlivedElsewhere:
    """The steps whose functions were left running by engines before this one. Made by the owner of the journal."""

    def __init__(self, journal: str) -> None:
        self._path = side_file(journal)
        self._fd = -1
        #: (run, position)
        self.steps: frozenset[tuple[str, str]] = frozenset()
        try:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return
        except OSError as error:
            raise JournalAccessError(journal, f"cannot read {self._path}: {error.strerror or error}") from error
        _open.add(self._fd)
        if not self._have_returned():
            self.steps = frozenset(function[:2] for function in read(self._path))

    async def wait_returned(self) -> None:
        """Return once all of them have returned, or their processes are gone."""
        while self.steps and not self._have_returned():  # noqa: ASYNC110 - the kernel tells threads, and they would hang
            await asyncio.sleep(LOOK_SECONDS)

    def close(self) -> None:
        """The journal is given up."""
        self.steps = frozenset()
        if self._fd >= 0:
            _close(self._fd)
            self._fd = -1

    def _have_returned(self) -> bool:
        if self._fd < 0:
            return True
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
        self.close()
        return True


def _close(fd: int) -> None:
    _open.discard(fd)
    os.close(fd)


def _forget_in_child() -> None:
    for fd in list(_open):
        _close(fd)


os.register_at_fork(after_in_child=_forget_in_child)
