"""
Every storage of ours keeps the contract that users' own are held to.
"""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from durable._shell.storage.database import Database
from durable._shell.storage.memory import MemoryDatabase
from durable.testing._crash.lives import Store
from durable.testing.contract import StorageContract


class TestFile(StorageContract):
    def storage(self, folder: Path):
        return Database.open


class TestMemory(StorageContract):
    survives = False

    def storage(self, folder: Path):
        return MemoryDatabase.open


class TestStoreOfCrashes(StorageContract):
    """What `every_crash` keeps when a process is lost."""

    def storage(self, folder: Path):
        return Store().open


class Leaky(MemoryDatabase):
    """Commits what a function did before it raised."""

    def _transact(self, fn):
        try:
            return super()._transact(lambda conn: fn(conn) if self._conn is None else _kept_anyway(conn, fn))
        except _NothingError as nothing:
            raise nothing.error from None


class _NothingError(Exception):
    def __init__(self, error):
        self.error = error


def _kept_anyway(conn: sqlite3.Connection, fn: Callable) -> object:
    try:
        return fn(conn)
    except Exception as error:
        conn.execute("COMMIT")
        conn.execute("BEGIN")
        raise _NothingError(error) from None


def test_a_storage_that_commits_half_a_write_fails(tmp_path):
    """
    The contract finds what it is for.
    """

    class Broken(StorageContract):
        def storage(self, folder):
            return Leaky.open

    with pytest.raises(AssertionError):
        Broken().test_a_write_that_raises_leaves_nothing(tmp_path)


def test_the_contract_asks_for_a_storage(tmp_path):
    """
    A subclass that names none is told at once.
    """
    with pytest.raises(NotImplementedError):
        StorageContract().test_an_engine_runs_over_it(tmp_path)
