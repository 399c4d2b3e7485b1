"""
A backup put in the place of a journal: verified before, while nobody owns the file, and with what was there kept.

A kill at any moment leaves a file that opens, or one that is refused with what to do (`backups.check_wal`): the old
file is renamed first, then the copy, whose mark keeps the old write-ahead log away from it, and that log last.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from durable._shell.ownership.ownership import Ownership
from durable._shell.storage.connections import real_path, translate
from durable._shell.storage.copies.backups import copied, sync_folder
from durable._shell.storage.location import check_file, check_folder, check_name
from durable.errors import JournalAccessError

#: Of what lies beside a journal, what belongs to its content; SQLite finds it again by these endings.
_CONTENT: Final = ("-wal", "-journal")


def restore(backup: sqlite3.Connection, backup_path: str, path: str) -> list[str]:
    """
    Put a copy of *backup* where the journal at *path* is, or is to be.

    Returns:
        What was there: files that were renamed, the journal first.

    Raises:
        JournalLockedError: Somebody owns the journal; nothing was changed.
        JournalDamagedError: The backup is damaged; nothing was changed.
        JournalError: As when a journal is opened.
    """
    check_name(path)
    path = real_path(path)
    if real_path(backup_path) == path:
        raise JournalAccessError(path, "it is the backup itself: name the journal that it is to replace")
    check_folder(path)
    if Path(path).exists():
        check_file(path)
    with Ownership.acquire(path, "client") as ownership, copied(backup, path, whole=True) as copy:
        try:
            kept = _replace(path, copy)
        except OSError as error:
            raise translate(error, path) from error
        ownership.forget_last_words()  # of who died over what is no longer there
    return kept


def _replace(path: str, copy: str) -> list[str]:
    aside = _free_name(path)
    kept: list[str] = []
    if Path(path).exists():
        _take_after(copy, path)
        Path(path).rename(aside)
        kept.append(aside)
    Path(copy).rename(path)
    for end in _CONTENT:
        with contextlib.suppress(FileNotFoundError):
            Path(path + end).rename(aside + end)
            kept.append(aside + end)
    Path(f"{path}-shm").unlink(missing_ok=True)  # made anew
    sync_folder(path)
    return kept


def _free_name(path: str) -> str:
    """Where what was at *path* goes."""
    first = name = f"{path}.replaced-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    number = 1
    while any(os.path.lexists(name + end) for end in ("", *_CONTENT)):
        number += 1
        name = f"{first}-{number}"
    return name


def _take_after(copy: str, path: str) -> None:
    """The mode, user and group of the file that the copy replaces: of the latter, what we may give."""
    found = Path(path).stat()
    with contextlib.suppress(OSError):
        os.chown(copy, found.st_uid, found.st_gid)
    Path(copy).chmod(found.st_mode & 0o777)
