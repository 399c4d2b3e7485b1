"""
One owner per journal: a kernel lock on a side file.

The lock is a `flock` on `<journal>.lock`, never on the journal itself: closing any descriptor
of a database file drops SQLite's own locks in this process. It belongs to the open file, so
two engines of one process exclude each other exactly as two processes do.

Promises: at most one `Ownership` of a file exists; a paused owner keeps it, a killed one loses it
at once, whatever its forked children do; a refusal names the holder and does not wait for it. The
side file is never deleted (a deleted one would let two owners lock two files of one name), and
what it says about the holder is for people, and for who must choose whether to wait: only the lock decides.

An owner that releases the file empties the side file; one that died has left its name there, and what it was
about to do as far as it wrote that down (`note`): a write that no disk need have seen survives the process. Whoever
executes the file reads these last words, and forgets them once the journal holds what follows; who owns it for a
moment leaves them as they were.

An owner of this process whose event loop is closed can neither execute nor close any more: whoever wants the file next
has it give up (`Keeper`).

Assumed: a local file system, and one host.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import socket
import stat
import threading
import time
import weakref
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Protocol, Self, TypeAlias, TypeVar

from durable._shell.loops import running_loop
from durable._shell.storage.folder import Folder
from durable._shell.storage.location import give_to_owner, owner_in_words
from durable.errors import JournalAccessError, JournalLockedError, JournalLostError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

T = TypeVar("T")

# A lock whose side file names nobody is held by somebody who is just opening or closing, or by an abandoned
# `wait` that gives it back; and one that is taken this moment still names the last owner, if that was killed.
# Worth a moment, so that the refusal names who has it.
NAMELESS_TRIES: Final = 5
NAMELESS_SECONDS: Final = 0.01
# More than any text we write; what a stranger put there is not read to its end.
HOLDER_BYTES: Final = 1024
# Behind the holder: what the owner is about to do, a line for each thread that notes such a thing.
NOTES: Final = 2
NOTE_BYTES: Final = 512

# Of why an engine failed: less than the holder's line, whatever they are.
_FAILURE_CHARACTERS: Final = 150

#: What owns a file: an engine as long as it is open, a client for a moment.
Role: TypeAlias = Literal["engine", "client"]
_AN: Final[dict[str, str]] = {"engine": "an engine, ", "client": "a client, "}

#: Seconds that who wants the file waits for an owner whose loop is gone: its thread may be at a last call.
ORPHAN_SECONDS: Final = 2.0


class Keeper(Protocol):
    """What owns a file in this process, as others of this process who want it see it."""

    def abandon(self) -> None:
        """Its event loop is gone: give the file up without it. Threads may do so a moment later."""
        ...

    async def make_way(self) -> None:
        """Give the file up, if nobody holds the engine any more who could."""
        ...


# Every side file this process has open. Module state, because a fork hook cannot be removed.
_open: set[Ownership] = set()


class Ownership:
    """The right to execute and write one journal, until `release` or the end of the process."""

    def __init__(self, path: str | os.PathLike[str], role: Role = "engine") -> None:
        """Open the side file. Use `acquire` or `wait`, which take the lock as well."""
        self.role: Final[Role] = role
        #: The journal's real path: symbolic links lead to one lock.
        self.path: Final = os.path.realpath(path)
        self.lock_path: Final = f"{self.path}.lock"
        self.pid: Final = os.getpid()
        #: What the last owner left, if it died, and nobody has taken that yet.
        self._left = b""
        #: Why the engine that owns it failed, if it did: left for `durable doctor` until the next owner.
        self.failure = ""
        #: Whether it has the lock, and does not only wait for it.
        self.owns = False
        self._folder = Folder(self.path)
        #: Whose it is, as long as that exists.
        self.keeper: weakref.ref[Keeper] | None = None
        self._loop = running_loop()
        self._fd = self._opened()
        _open.add(self)

    @classmethod
    def acquire(cls, path: str | os.PathLike[str], role: Role = "engine") -> Self:
        """
        Own *path* now.

        Raises:
            JournalLockedError: If someone else owns it; `holder` says who, and `role` what that is.
            JournalAccessError: If the side file cannot be opened or locked.
        """
        _end_orphans(path)
        before = ""
        for last in [False] * (NAMELESS_TRIES - 1) + [True]:
            ownership = cls(path, role)
            try:
                fcntl.flock(ownership._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder, holds_as = _holder(ownership._fd)
                ownership._close()
                # A client tries again anyway, whoever it is.
                if last or (holder and (role == "client" or holder == before)):
                    raise JournalLockedError(ownership.path, holder or "an unnamed process", holds_as) from None
                before = holder
            except OSError as error:
                ownership._close()
                raise ownership._unusable(error) from error
            else:
                if ownership._settled():
                    return ownership
            time.sleep(NAMELESS_SECONDS)
        raise JournalAccessError(os.path.realpath(path), "its lock file is replaced again and again")

    @classmethod
    async def wait(cls, path: str | os.PathLike[str]) -> Self:
        """
        Own *path* as soon as nobody else does: at once, or when its owner releases it or dies.

        The kernel queues us; nothing is polled. After a cancellation the waiting thread stays
        queued, gives the lock back the moment it gets it, and never keeps the process alive.
        """
        loop = asyncio.get_running_loop()
        _end_orphans(path)
        while True:
            ownership = cls(path)
            arrived: asyncio.Future[None] = loop.create_future()
            threading.Thread(target=ownership._block, args=(loop, arrived), name="durable-standby", daemon=True).start()
            try:
                await arrived
            except OSError as error:
                raise ownership._unusable(error) from error
            except asyncio.CancelledError:
                # Handed over in the very turn of the loop that cancelled us: `_block` is done with it.
                if arrived.done() and not arrived.cancelled():
                    ownership.release()
                raise
            if ownership._settled():
                return ownership

    @property
    def is_orphan(self) -> bool:
        """Whether the event loop that it was acquired on is closed."""
        return self._loop is not None and self._loop.is_closed()

    @property
    def forked(self) -> bool:
        """Whether this process is a child of the owner: it owns nothing and must not write."""
        return os.getpid() != self.pid

    @property
    def held(self) -> bool:
        """Whether `release` is still to come (always False in a forked child)."""
        return self._fd >= 0

    def check(self) -> None:
        """
        Nothing, as long as the side file is the one we locked.

        Raises:
            JournalLostError: If it was deleted or replaced: another engine could start.
            JournalAccessError: If its folder is out of sight, and it with that: nobody else sees it either.
        """
        if self._same_file():
            return
        # Deleted, it is that by whatever name: the kernel knows of none.
        if self._fd >= 0 and os.fstat(self._fd).st_nlink and self._folder.is_away():
            raise JournalAccessError(self.path, f"its folder {self._folder.path} is out of sight")
        raise JournalLostError(self.path, f"its lock file {self.lock_path} was deleted or replaced")

    def last_words(self) -> list[bytes] | None:
        """What the last owner had noted when it died; None if it gave the file up. It stays until it is forgotten."""
        if not self._left:
            return None
        notes = self._left[HOLDER_BYTES:].ljust(NOTES * NOTE_BYTES)
        return [notes[at : at + NOTE_BYTES].strip() for at in range(0, NOTES * NOTE_BYTES, NOTE_BYTES)]

    def forget_last_words(self) -> None:
        """Once the journal holds what follows from them: the next death is another one's."""
        if not self._left:
            return
        self._left = b""
        with contextlib.suppress(OSError):  # whole lines, so that those who read the holder find no hole behind it
            holder = os.pread(self._fd, HOLDER_BYTES, 0).strip()
            os.pwrite(self._fd, holder.ljust(HOLDER_BYTES + NOTES * NOTE_BYTES), 0)

    def note(self, line: int, text: bytes) -> None:
        """
        Write down what the owner is about to do: for the next one, should this process die of it.

        What is too long is not noted, nor what a full disk has no room for.
        """
        if self._fd >= 0 and len(text) < NOTE_BYTES:
            with contextlib.suppress(OSError):
                os.pwrite(self._fd, text.ljust(NOTE_BYTES), HOLDER_BYTES + line * NOTE_BYTES)

    def release(self) -> None:
        """Give the file up. Does nothing the second time, or in a forked child."""
        if self.forked or self._fd < 0:
            return
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, 0)
            if self.failure:
                since = datetime.now(UTC).isoformat("T", "seconds")
                os.pwrite(
                    self._fd, json.dumps({"failed": self.failure[:_FAILURE_CHARACTERS], "since": since}).encode(), 0
                )
            if self._left:  # for the next one, and naming nobody: who asks now is to wait for us, not for the dead
                notes = self._left[HOLDER_BYTES:].ljust(NOTES * NOTE_BYTES)
                os.pwrite(self._fd, b"".ljust(HOLDER_BYTES) + notes, 0)
        with contextlib.suppress(OSError):
            # Closing alone would leave it with children forked by C code, past our hook.
            fcntl.flock(self._fd, fcntl.LOCK_UN)
        self._close()

    def __enter__(self) -> Self:
        """Return the ownership, which the block's end releases."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Release."""
        self.release()

    def _opened(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            fd = os.open(self.lock_path, flags, 0o600)
        except OSError as error:
            raise self._unusable(error) from error
        found = os.fstat(fd)
        reason = ""
        if not stat.S_ISREG(found.st_mode):
            reason = "is not a regular file"
        elif found.st_nlink > 1:  # we are about to write to it
            reason = "is another file as well (hard link): remove it"
        elif found.st_uid not in (os.geteuid(), 0) and found.st_mode & stat.S_IWOTH:
            reason = f"belongs to user {found.st_uid}, and everybody may write to it: remove it"
        if reason:
            os.close(fd)
            raise JournalAccessError(self.path, f"its lock file {self.lock_path} {reason}")
        give_to_owner(self.lock_path, self.path)
        return fd

    def _block(self, loop: asyncio.AbstractEventLoop, arrived: asyncio.Future[None]) -> None:
        """Wait in a thread of our own, which owns the descriptor until it has handed it over."""
        failure: OSError | None = None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
        except OSError as error:
            failure = error
        if arrived.cancelled():  # here rather than in the loop, which may have ended by now
            self._close()
            return

        def hand_over() -> None:
            if failure is not None or arrived.done():
                self._close()
            if arrived.done():
                return
            if failure is not None:
                arrived.set_exception(failure)
            else:
                arrived.set_result(None)

        try:
            loop.call_soon_threadsafe(hand_over)
        except RuntimeError:  # the loop is closed, so nobody would ever let go of it
            self._close()

    def _settled(self) -> bool:
        """Whether the lock we got is on the file of that name; if so, it now names us."""
        if not self._same_file():
            self._close()
            return False
        self.owns = True
        since = datetime.now(UTC).isoformat("T", "seconds")
        holder = {"role": self.role, "pid": self.pid, "host": socket.gethostname(), "since": since}
        with contextlib.suppress(OSError):  # a full disk must not keep the journal's owner out
            self._left = os.pread(self._fd, HOLDER_BYTES + NOTES * NOTE_BYTES, 0)
            if self._left.startswith(b'{"failed"') and len(self._left) < HOLDER_BYTES:
                self._left = b""  # no last words: it gave the file up
            os.ftruncate(self._fd, 0)
            notes = self._left[HOLDER_BYTES:]
            said = json.dumps(holder).encode() + b"\n"
            os.pwrite(self._fd, said.ljust(HOLDER_BYTES) + notes if notes else said, 0)
        return True

    def _same_file(self) -> bool:
        if self._fd < 0:
            return False
        try:
            return os.path.samestat(os.fstat(self._fd), Path(self.lock_path).lstat())
        except OSError:
            return False

    def _unusable(self, error: OSError) -> JournalAccessError:
        whose = owner_in_words(self.lock_path) if isinstance(error, PermissionError) else ""
        told = whose and f" ({whose}: give it to that user, or run as the owner of the journal)"
        return JournalAccessError(self.path, f"cannot lock {self.lock_path}: {error.strerror or error}{told}")

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        self.owns = False
        _open.discard(self)
        if fd >= 0:
            os.close(fd)

    @staticmethod
    def is_ours(fd: int) -> bool:
        """Whether the lock of the side file that is open as *fd* is this process's."""
        found = os.fstat(fd)
        return any(mine.owns and os.path.samestat(os.fstat(mine._fd), found) for mine in list(_open))  # noqa: SLF001

    @staticmethod
    def forget_in_child() -> None:
        """
        Close every side file in a forked child, which would otherwise keep a killed owner's lock.

        Closed, never unlocked: the lock is shared with the parent.
        """
        for ownership in list(_open):
            ownership._close()  # noqa: SLF001 - our own class


def keepers_here(path: str | os.PathLike[str]) -> list[Keeper]:
    """What owns the journal at *path* in this process: one at most, but for the one that gives it up right now."""
    real = os.path.realpath(path)
    kept = [each.keeper() for each in list(_open) if each.path == real and each.keeper is not None]
    return [keeper for keeper in kept if keeper is not None]


def _end_orphans(path: str | os.PathLike[str]) -> None:
    """Have owners of this process give *path* up whose event loop is gone; wait a moment for their threads."""
    real = os.path.realpath(path)
    orphans = [each for each in list(_open) if each.path == real and each.is_orphan]
    for orphan in orphans:
        keeper = None if orphan.keeper is None else orphan.keeper()
        if keeper is not None:
            keeper.abandon()
    until = time.monotonic() + ORPHAN_SECONDS
    while any(orphan.held for orphan in orphans) and time.monotonic() < until:
        time.sleep(NAMELESS_SECONDS)


def has_owner(path: str) -> bool:
    """Whether somebody owns the journal at *path*: asked of the lock, which a killed owner has lost."""
    try:
        Ownership.acquire(path, "client").release()
    except JournalLockedError:
        return True
    except JournalAccessError:  # nobody can tell
        return True
    return False


def holder_of(path: str) -> str:
    """Who the side file of the journal at *path* says owns it; empty where it does not say. For people."""
    return _of_side_file(path, _holder)[0]


def owner_pid(path: str) -> int:
    """The process that the side file of the journal at *path* says owns it; 0 if it says none of this machine."""
    found = _of_side_file(path, _said)
    return found[0] if found is not None and found[1] == socket.gethostname() else 0


def _of_side_file(path: str, read: Callable[[int], T]) -> T:
    try:
        fd = os.open(f"{path}.lock", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return read(-1)
    try:
        return read(fd)
    finally:
        os.close(fd)


def _said(fd: int) -> tuple[int, str, str, str] | None:
    """The process, host, time and role that a side file says; None where it does not (older releases: no role)."""
    try:
        holder = json.loads(os.pread(fd, HOLDER_BYTES, 0).decode())
        return int(holder["pid"]), str(holder["host"]), str(holder["since"]), str(holder.get("role", ""))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return None


def _holder(fd: int) -> tuple[str, str]:
    """Who a side file says owns it, and as what; empty where it does not say."""
    said = _said(fd)
    if said is None:
        return "", ""
    pid, host, since, role = said
    here = ""
    if pid == os.getpid() and host == socket.gethostname():  # need not be us: each container counts for itself
        here = " (this process)" if Ownership.is_ours(fd) else " (another container's process of that number)"
    known = _AN.get(role, "")
    # Printed in a terminal by someone: no control bytes from a file that others may write.
    told = "".join(c for c in f"{known}pid {pid}{here} on host {host} since {since}" if c.isprintable())
    return told, role if known else ""


os.register_at_fork(after_in_child=Ownership.forget_in_child)
