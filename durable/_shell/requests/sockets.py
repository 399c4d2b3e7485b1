"""
Where the owner of a journal listens: a socket beside the file, however long the path.

The address of a Unix socket has 107 bytes at most. A longer path is reached by way of its folder: opened, that has a
short name in `/proc`. So the socket lies where the file does, for all who see that folder, in other containers as well.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

#: Of an address on Linux, and less elsewhere; and of a name in a folder, so that it fits behind that of the folder.
_ADDRESS_BYTES: Final = 107
_NAME_BYTES: Final = 80


def socket_path(path: str) -> str:
    """Where the owner of the journal at *path* listens."""
    folder, name = os.path.split(path)
    if len(os.fsencode(name)) > _NAME_BYTES:
        name = f".durable-{hashlib.sha256(os.fsencode(name)).hexdigest()[:24]}"
    return os.path.join(folder, f"{name}.sock")


@contextmanager
def address_of(place: str) -> Generator[str]:
    """An address of the socket at *place* that fits, for the block."""
    if len(os.fsencode(place)) <= _ADDRESS_BYTES:
        yield place
        return
    folder, name = os.path.split(place)
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{name}"
    finally:
        os.close(fd)
