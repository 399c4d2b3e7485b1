"""
The import goes on behind its last checkpoint, wherever it is killed.
"""

import json
import signal
import sqlite3
from contextlib import closing

import pytest

ROWS = 1_020  # the last chunk is not a full one

#: Dies by SIGKILL at the third chunk, before or after it is written.
IMPORT = """
import asyncio, os, signal, sys
from pathlib import Path
import bulk_import

store, chunks = bulk_import.store, []

def killed(database, rows):
    chunks.append(rows)
    if len(chunks) == 3 and sys.argv[2] == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    store(database, rows)
    if len(chunks) == 3 and sys.argv[2] == "after":
        os.kill(os.getpid(), signal.SIGKILL)

bulk_import.store = killed
asyncio.run(bulk_import.run(Path(sys.argv[1])))
"""


def query(database, sql):
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(sql).fetchall()


@pytest.fixture
def folder(tmp_path):
    """
    With a file of customers.
    """
    lines = ["id,name,amount", *(f'{n},"Ada, the {n}th",{n}.25' for n in range(1, ROWS + 1))]
    (tmp_path / "customers.csv").write_text("\n".join(lines))
    return tmp_path


@pytest.fixture
def importing(start, folder):
    """
    Runs the import in a process of its own, to its exit code.
    """
    return lambda how: start(IMPORT, folder, how).ended()[0]


@pytest.mark.parametrize("when, again", [("before", 0), ("after", 50)])
def test_killed_around_a_checkpoint(when, again, folder, importing):
    """
    Killed before a chunk is written, nothing is written again; killed between the chunk and its record, that chunk is.
    """
    assert importing(when) == -signal.SIGKILL
    ((progress,),) = query(folder / "journal.db", "SELECT attributes FROM runs WHERE sort = 'workflow'")
    assert json.loads(progress) == {"stage": "importing", "total": ROWS}
    assert importing("never") == 0
    rows = query(folder / "app.db", "SELECT id, name, cents, written FROM customers ORDER BY id")
    assert [row[:3] for row in rows] == [(n, f"Ada, the {n}th", 100 * n + 25) for n in range(1, ROWS + 1)]
    assert [number for number, *_, written in rows if written > 1] == list(range(101, 101 + again))
    assert [rows for _, rows in query(folder / "app.db", "SELECT * FROM metrics")] == [ROWS]


def test_the_report_is_made_once(folder, importing):
    """
    Starting the import again when all is done starts neither import nor report.
    """
    assert importing("never") == 0
    before = query(folder / "journal.db", "SELECT count(*) FROM durable_events")
    assert importing("never") == 0
    assert query(folder / "journal.db", "SELECT count(*) FROM durable_events") == before
    assert query(folder / "app.db", "SELECT count(*), max(written) FROM customers") == [(ROWS, 1)]
    assert query(folder / "app.db", "SELECT count(*) FROM metrics") == [(1,)]
