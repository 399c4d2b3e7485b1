"""
Opens a journal for reading: read-only, beside a running engine, without an application.

A file that no process has open, in a folder that may not be written, is opened as immutable:
SQLite could not make the shared memory that WAL mode needs.
"""

from __future__ import annotations

import os
import sqlite3
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from durable._cli.terminal.problems import NOT_FOUND, CommandError
from durable._shell.storage.connections import open_reader
from durable._shell.storage.copies import marks
from durable._shell.storage.copies.backups import check_wal
from durable.errors import JournalAccessError

DATABASE_VARIABLE = "DURABLE_DB"
APPLICATION_VARIABLE = "DURABLE_APP"
#: Seconds between two looks at a file that changes elsewhere. Asking costs microseconds.
_LOOK_SECONDS: Final = 0.1


def add_database(parser: ArgumentParser) -> None:
    """The option that says which journal."""
    parser.add_argument(
        "--db",
        metavar="FILE",
        default=os.environ.get(DATABASE_VARIABLE),
        help=f"the journal (default: ${DATABASE_VARIABLE})",
    )


def database_path(args: Namespace) -> str:
    """
    The journal that was asked for; it exists.

    Raises:
        CommandError: None was named, or there is no such file.
    """
    path: str | None = args.db
    if not path:
        msg = f"which journal? Name it with --db FILE, or set {DATABASE_VARIABLE}"
        raise CommandError(msg)
    if not os.path.exists(path):
        msg = f"no journal at {path}: the file does not exist"
        raise CommandError(msg, NOT_FOUND)
    return path


def open_readonly(path: str) -> sqlite3.Connection:
    """
    A connection that cannot write.

    Raises:
        JournalAccessError, ForeignJournalError, JournalVersionError: It cannot be read, or is not a journal of ours.
    """
    check_wal(path)
    writable = os.access(os.path.dirname(path) or ".", os.W_OK)
    connection = open_reader(path, immutable=not (writable or _has_wal(path)))
    try:
        marks.inspect(connection, path)
        marks.require_journal(connection, path)
    except sqlite3.Error as error:
        connection.close()
        raise JournalAccessError(path, str(error)) from error
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def snapshot(connection: sqlite3.Connection) -> Generator[None, None, None]:
    """
    One state of the file for everything that is read within: a short transaction, which blocks no writer.

    Keep it short: a checkpoint cannot reach beyond what it sees. Within another one it is that.
    """
    if connection.in_transaction:
        yield
        return
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")


def await_change(connection: sqlite3.Connection, version: int) -> None:
    """Return once somebody has written to the file since `data_version` was *version*."""
    while data_version(connection) == version:
        time.sleep(_LOOK_SECONDS)


def data_version(connection: sqlite3.Connection) -> int:
    """A number that changes when somebody else writes to the file."""
    (version,) = connection.execute("PRAGMA data_version").fetchone()
    return int(version)


def _has_wal(path: str) -> bool:
    return os.path.exists(f"{path}-wal")
