"""
A new journal, whole from its first moment: its bytes are made in memory, synced, and only then given a name.

The bytes are those that SQLite makes of `schema`, made once and kept in `packed_journal`: to read so many tables takes
SQLite longer than all else about a new file.

Made by SQLite in its place, it took six more syncs (of a rollback journal, for WAL mode, and of a WAL with all tables
in it), and whoever looked in between found half a journal. Where this cannot be done, on other systems than Linux or on
a file system that knows no file without a name, `schema` makes the tables as it does in a file of the application's.

The name is on disk no later than the first commit: SQLite syncs the folder for its WAL, which is made after it.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from base64 import b64decode
from typing import Final

_CAN: Final = hasattr(os, "O_TMPFILE")
#: Where SQLite's header says how the file is read and written, and what stands there in WAL mode.
_MODE: Final = slice(18, 20)
_WAL: Final = b"\x02\x02"


def make_whole(path: str, now: float) -> None:
    """
    Have a journal at *path*, mode 0600, if nothing is there.

    Does nothing where it cannot be done, or where something is there, be it what SQLite keeps beside a file: that is
    for the opening to judge.
    """
    if not _CAN or any(os.path.lexists(path + end) for end in ("", "-wal", "-journal")):
        return
    with contextlib.suppress(OSError):
        fd = os.open(os.path.dirname(path), os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            rest = memoryview(_journal(now))
            while rest:
                rest = rest[os.write(fd, rest) :]
            os.fsync(fd)
            # A directory is given so that the call follows the link to the file.
            os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd, follow_symlinks=True)
        finally:
            os.close(fd)


def _journal(now: float) -> bytes:
    from durable._shell.storage.packed_journal import CREATED, PACKED  # noqa: PLC0415 - for those who make a file

    made = bytearray(zlib.decompress(b64decode(PACKED)))
    made[_MODE] = _WAL
    return bytes(made.replace(struct.pack(">d", CREATED), struct.pack(">d", now)))
