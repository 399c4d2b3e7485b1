"""
Who is at the other end of a Unix socket, by the kernel's word. The mode of the socket keeps others out as well.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Final, Protocol

from durable._core.light_frozen import light_frozen

_UCRED = struct.Struct("=iII")  # pid, uid, gid


class _Socket(Protocol):
    """What asyncio gives of one."""

    def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes: ...


#: What the kernel says of a process that is gone: no user has this number.
UNKNOWN_UID: Final = 2**32 - 1


@light_frozen
class Peer:
    """The process that connected, or that listens; of the latter, the one that began to."""

    #: 0 if it cannot be seen from here (another container).
    pid: int
    uid: int


def peer_of(connected: _Socket) -> Peer | None:
    """Who it is; None where the system does not say."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:
        return None
    try:
        pid, uid, _ = _UCRED.unpack(connected.getsockopt(socket.SOL_SOCKET, option, _UCRED.size))
    except (OSError, struct.error):  # hung up meanwhile
        return None
    return Peer(pid, uid)


def is_process(peer: Peer, pid: int) -> bool:
    """
    Whether *peer* may be the process that says of itself that it is *pid*.

    A process in a container has one number there (1, most often) and another for the host that looks at it; the
    kernel tells the latter. Of a process that cannot be seen from here, or that does not say, nobody knows.
    """
    if 0 in (pid, peer.pid) or pid == peer.pid:
        return True
    try:
        with open(f"/proc/{peer.pid}/status", encoding="ascii", errors="replace") as status:
            return any(str(pid) in line.split()[1:] for line in status if line.startswith("NSpid:"))
    except OSError:
        return False


def may_ask(peer: Peer | None) -> bool:
    """Whether an engine of ours answers *peer*: our own user, and the superuser, who could do it all by himself."""
    return peer is None or peer.uid in (os.geteuid(), 0)


def may_answer(peer: Peer | None, path: str) -> bool:
    """Whether *peer* may be the owner of the journal at *path*: our own user; the superuser asks that of the file."""
    if peer is None or peer.uid == os.geteuid():
        return True
    try:
        return os.geteuid() == 0 and peer.uid == os.stat(path).st_uid
    except OSError:
        return False
