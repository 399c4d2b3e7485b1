"""
Takes what cannot be written together apart, so that only what cannot be written at all is left out.

For members of one transaction that know nothing of each other: turns of runs, timers that are due. Runs on the
writer's thread. Only once they have failed together, since a savepoint copies each page that is changed in it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import TypeVar

from durable._shell.rows.rows import Effects
from durable._shell.storage.connections import is_of_the_machine

T = TypeVar("T")


def apart(
    conn: sqlite3.Connection,
    members: Sequence[T],
    write: Callable[[sqlite3.Connection, Sequence[T], Effects], object],
    effects: Effects,
) -> list[tuple[T, Exception]]:
    """
    Have *members* written, by halves where they fail: those that fail alone, each with its error.

    What *write* raises for several of them is nobody's yet, and nothing of it is left in the file or in *effects*.

    Raises:
        Exception: It is none of theirs: the machine's, or the transaction itself is gone.
    """
    refused: list[tuple[T, Exception]] = []
    waiting = [members] if members else []
    while waiting:
        some, mine = waiting.pop(), Effects()
        conn.execute("SAVEPOINT durable_apart")
        try:
            write(conn, some, mine)
        except Exception as error:
            if is_of_the_machine(error) or not conn.in_transaction:
                raise
            conn.execute("ROLLBACK TO durable_apart")
            if len(some) == 1:
                refused.append((some[0], error))
            else:
                middle = len(some) // 2
                waiting += [some[middle:], some[:middle]]
        else:
            effects.add(mine)
        conn.execute("RELEASE durable_apart")
    return refused
