"""
Which functions of steps outlived the engine that called them, told to the engines that come after.

A thread cannot be cut off, and an engine that closes does not wait for one beyond its grace. Before it gives up the
file it writes the steps whose functions still run into `<journal>.threads`, and locks that (shared, since several
processes may have left some) until they have returned, or the process is gone. The next owner begins none of these
steps before nobody holds that lock.

Only the owner of the journal makes, reads or removes the side file, so that nobody locks one that is not there.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
from collections.abc import Iterable
from typing import Final, TypeAlias

from durable.errors import JournalAccessError

#: Run and position.
Outlived: TypeAlias = tuple[str, str]

#: Seconds between two looks whether they have returned.
LOOK_SECONDS: Final = 0.1

#: What this process has open: a forked child must not keep a lock of its parent's.
_open: set[int] = set()


def leave_word(journal: str, steps: Iterable[Outlived]) -> int:
    """
    Tell the next owner of *steps*; what `take_back` takes once all of them have returned.

    Raises:
        JournalAccessError: The side file cannot be written.
    """
    path = _side_file(journal)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        _open.add(fd)
        fcntl.flock(fd, fcntl.LOCK_SH)
        os.write(fd, "".join(json.dumps(step) + "\n" for step in steps).encode())
    except OSError as error:
        raise JournalAccessError(journal, f"cannot write {path}: {error.strerror or error}") from error
    return fd


def take_back(fd: int) -> None:
    """All of them have returned."""
    if fd in _open:  # not in a forked child
        _close(fd)


class OutlivedElsewhere:
    """The steps whose functions were left running by engines before this one. Made by the owner of the journal."""

    def __init__(self, journal: str) -> None:
        self._path = _side_file(journal)
        self._fd = -1
        self.steps: frozenset[Outlived] = frozenset()
        try:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return
        except OSError as error:
            raise JournalAccessError(journal, f"cannot read {self._path}: {error.strerror or error}") from error
        _open.add(self._fd)
        if not self._have_returned():
            self.steps = frozenset(_read(self._path))

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


def _side_file(journal: str) -> str:
    return f"{os.path.realpath(journal)}.threads"


def _read(path: str) -> Iterable[Outlived]:
    with open(path, encoding="utf-8") as file:
        for line in file:
            with contextlib.suppress(ValueError):  # cut off by a full disk
                run_id, position = json.loads(line)
                yield run_id, position


def _close(fd: int) -> None:
    _open.discard(fd)
    os.close(fd)


def _forget_in_child() -> None:
    for fd in list(_open):
        _close(fd)


os.register_at_fork(after_in_child=_forget_in_child)
