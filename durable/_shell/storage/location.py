"""
Where a journal may lie: what is wrong with a path, a folder, a file system, said before anything is made or locked.

Three of these lose data in silence if they are let pass: a network file system (its locks, or the memory that WAL mode
shares, do not hold), a file that is mounted by itself (its lock and its WAL stay outside of what is mounted), and a
file with a second name (and with it a second WAL).
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import sqlite3
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from durable._shell.storage.connections import FREE_BYTES, free_bytes
from durable._shell.storage.untrusted import refuse_side_files
from durable.errors import JournalAccessError, JournalFullError

OLDEST_SQLITE: Final = (3, 37, 0)  # because of STRICT tables
#: No working locks, or no shared memory between processes: of networks, and of what a virtual machine shares with its
#: host.
NETWORK_FILESYSTEMS: Final = re.compile(
    r"9p|afs|beegfs|ceph|cifs|coda|davfs|drvfs|gfs2|glusterfs|lustre|ncpfs|nfs4?|ocfs2|orangefs|prl_fs|pvfs2|smb3|smbfs"
    r"|vboxsf|virtiofs|vmhgfs"
    r"|fuse\.(ceph|gcsfuse|glusterfs|grpcfuse|juicefs|osxfs|rclone|s3fs|sshfs|vmhgfs-fuse)"
)


def check_name(path: str) -> None:
    """
    Nothing, if *path* may be that of a file.

    Raises:
        JournalAccessError: It is empty, names a folder, or is not a path.
    """
    if not path:
        raise JournalAccessError(path, "the path is empty: name a file, as 'app.db'")
    if "\0" in path:
        raise JournalAccessError(path, "the path has a NUL character, which no file's name can have")
    if path.endswith("/") or os.path.isdir(path):
        msg = f"it is a folder, and not a regular file: name one in it, as {os.path.join(path, 'app.db')!r}"
        raise JournalAccessError(path, msg)
    if os.path.exists(path) and not os.path.isfile(path):  # to open a pipe would take for ever
        raise JournalAccessError(path, "it is not a regular file")


def check_folder(path: str, *, allow_network_fs: bool = False) -> None:
    """
    Refuse a place where SQLite's promises do not hold, whatever file is there.

    Raises:
        JournalAccessError: The folder is not there, may not be written by us, or is on a network file system.
        JournalFullError: It is full.
    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise JournalAccessError(path, f"SQLite {sqlite3.sqlite_version} is too old: 3.37 or newer is needed")
    folder = os.path.dirname(path)
    try:
        found = os.stat(folder)
    except FileNotFoundError:
        raise JournalAccessError(path, f"the folder {folder} does not exist: make it first") from None
    except OSError as error:
        raise JournalAccessError(path, f"the folder {folder} cannot be seen: {_refusal(folder, error)}") from error
    if not stat.S_ISDIR(found.st_mode):
        raise JournalAccessError(path, f"{folder} is not a folder, but a file")
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        raise JournalAccessError(path, f"{folder} is on a file system that is mounted read-only: mount a volume there")
    if not _may(folder, os.W_OK | os.X_OK):
        msg = f"{_whose(folder, found)}, who must be able to make files in it: SQLite keeps a WAL beside the journal"
        raise JournalAccessError(path, msg)
    kind = filesystem(folder)
    if NETWORK_FILESYSTEMS.fullmatch(kind) and not allow_network_fs:
        msg = (
            f"{folder} is on a network file system or a folder shared with a virtual machine ({kind}), whose locks do "
            "not hold: move it to a local disk. Engine(allow_network_fs=True) insists, for one process on one host"
        )
        raise JournalAccessError(path, msg)
    if free_bytes(path) < FREE_BYTES:
        raise JournalFullError(path, f"less than {FREE_BYTES >> 10} KiB are free in {folder}")


def check_place(
    path: str, *, create: bool, allow_network_fs: bool = False, make: Callable[[str], None] | None = None
) -> None:
    """Refuse a file on which SQLite's promises do not hold; *create* it, for its owner alone: with *make*, or empty."""
    check_folder(path, allow_network_fs=allow_network_fs)
    refuse_side_files(path)
    if create:
        if make is not None:
            make(path)
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    check_file(path)
    if create and Path(path).stat().st_nlink != 1:  # later it is told, and passes
        raise JournalAccessError(path, "it has a second name (hard link), and with it a second WAL")


def check_file(path: str) -> None:
    """
    Nothing, if the file at *path* and what SQLite keeps beside it are ours to write.

    Raises:
        JournalAccessError: It is no regular file, another user's, or mounted by itself.
    """
    if not Path(path).is_file():
        raise JournalAccessError(path, "it is not a regular file, or it was deleted")
    for end in ("", "-wal", "-shm"):
        if os.path.exists(path + end) and not _may(path + end, os.R_OK | os.W_OK):
            raise JournalAccessError(path, f"{_whose(path + end, os.stat(path + end))}, who must read and write it")
    if path in (mount for mount, _ in _mounts()):
        msg = (
            f"the file itself is a mount point: its WAL and its lock would stay outside of what is mounted, and what "
            f"they hold be lost with this container. Mount its folder instead ({os.path.dirname(path)})"
        )
        raise JournalAccessError(path, msg)


def check_readable(path: str) -> None:
    """
    Nothing, if the file at *path* may be read by us, as a client does.

    Raises:
        JournalAccessError: It is not there, cannot be seen, or is another user's.
    """
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise JournalAccessError(path, "no such file: an Engine makes it") from None
    except OSError as error:
        raise JournalAccessError(path, f"it cannot be seen: {_refusal(path, error)}") from error
    if not _may(path, os.R_OK):
        raise JournalAccessError(path, f"{_whose(path, found)}, who must be able to read it")


def check_side_files(path: str) -> None:
    """
    Nothing, if SQLite can make what it keeps beside the file at *path*: it says less where it cannot.

    Raises:
        JournalAccessError: The folder is another user's.
    """
    folder = os.path.dirname(path)
    if not os.path.exists(f"{path}-shm") and not _may(folder, os.W_OK | os.X_OK):
        whose = _whose(folder, os.stat(folder))
        raise JournalAccessError(path, f"{whose}, who must be able to make files in it while no engine has it open")


def filesystem(folder: str) -> str:
    """Type of the file system that *folder* is on, or "" where that cannot be known."""
    best, kind = "", ""
    for mount, its_kind in _mounts():
        # Not only longer ones, since a later mount hides an earlier one on the same directory.
        if len(mount) >= len(best) and f"{folder}/".startswith(mount.rstrip("/") + "/"):
            best, kind = mount, its_kind
    return kind


def give_to_owner(made: str, path: str) -> None:
    """
    Let *made*, which the superuser has made beside the journal at *path*, belong to its owner, who opens it next.

    The folder may be the owner's, who could put another file in its place meanwhile: what is given away is what is
    open, and only if it has no other name.
    """
    if os.geteuid() != 0 or sys.platform != "linux":
        return
    with contextlib.suppress(OSError):  # there is no journal yet
        owner = os.stat(path)
        fd = os.open(made, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            found = os.fstat(fd)
            if found.st_uid == 0 != owner.st_uid and found.st_nlink == 1:
                os.chown(f"/proc/self/fd/{fd}", owner.st_uid, owner.st_gid)
        finally:
            os.close(fd)


def owner_in_words(path: str) -> str:
    """Whose the file at *path* is, and who we are, for people; empty where that cannot be seen."""
    try:
        return _whose(path, os.stat(path))
    except OSError:
        return ""


def _mounts() -> list[tuple[str, str]]:
    """Where something is mounted, and its type, the latest last; nothing where that cannot be known."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
    found: list[tuple[str, str]] = []
    for line in lines:
        left, _, right = line.partition(" - ")
        mount = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal.group(1), 8)), left.split(" ")[4])
        found.append((mount, right.split(" ")[0]))
    return found


def _may(path: str, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def _refusal(path: str, error: OSError) -> str:
    return f"{error.strerror} (this process is user {_user(os.geteuid())})" if error.strerror else path


def _whose(path: str, found: os.stat_result) -> str:
    return (
        f"{path} belongs to user {_user(found.st_uid)} (mode {stat.S_IMODE(found.st_mode):04o}), "
        f"and this process is user {_user(os.geteuid())}"
    )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
