"""
What a write-ahead log (WAL) says of itself: whether anything is committed in it. SQLite has no locks on that file.

Its header has a salt, and so has each frame; frames of another salt are left over from an earlier use of the file, and
SQLite passes over them. The frame that ends a transaction has the size of the database after it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Final

_MAGIC: Final = (0x377F0682, 0x377F0683)
_HEADER: Final = struct.Struct(">I4xI4x8s8x")  # magic, size of pages, salt
_FRAME: Final = struct.Struct(">II8s8x")  # page, pages of the database after a commit (0 inside of one), salt


def wal_of(path: str) -> str:
    """Where SQLite keeps the WAL of the database at *path*."""
    return f"{path}-wal"


def has_commits(path: str) -> bool:
    """Whether the database at *path* has a WAL with something that SQLite would apply. A torn end may count as well."""
    return any(pages for _, pages in _frames(path))


def _frames(path: str) -> Iterator[tuple[int, int]]:
    """Of each frame, in order: its page, and how many pages there are if it ends a transaction (else 0)."""
    try:
        fd = os.open(wal_of(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return
    try:
        header = os.pread(fd, _HEADER.size, 0)
        if len(header) < _HEADER.size:
            return
        magic, page_bytes, salt = _HEADER.unpack(header)
        if magic not in _MAGIC:
            return
        at = _HEADER.size
        while len(frame := os.pread(fd, _FRAME.size, at)) == _FRAME.size:
            page, pages, its_salt = _FRAME.unpack(frame)
            if its_salt != salt:
                return
            yield page, pages
            at += _FRAME.size + page_bytes
    finally:
        os.close(fd)
