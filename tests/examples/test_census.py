"""
The census counts what is there, and its proof would notice if it had not.
"""

import asyncio
import sqlite3
import sysconfig
from contextlib import closing
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

LIBRARY = {
    "solo.py": "def one():\n    pass\n",
    "pack/__init__.py": "",
    "pack/a.py": "class A:\n    def long(self):\n        x = 1\n        return x\n    async def short(self): ...\n",
    "pack/deep/b.py": "class B: ...\nclass C: ...\n",
    "pack/bad.py": "this is no Python",
    "site-packages/later.py": "class NotCounted: ...\n",
}


@pytest.fixture
def census(tmp_path, monkeypatch):
    """
    The example, with a library of six files in place of Python's own.
    """
    root = tmp_path / "lib"
    for name, text in LIBRARY.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.syspath_prepend(EXAMPLES)  # the pool's processes import it by name
    import census

    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(root))
    monkeypatch.setattr(census, "FILES_PER_JOB", 2)
    return census


@pytest.fixture
def counted(census, tmp_path):
    """
    The journal and the calls of a census that is complete.
    """
    journal, calls = tmp_path / "census.db", tmp_path / "calls.log"
    asyncio.run(census.run(journal, calls))
    return journal, calls


def test_it_counts_each_file_once(census, counted):
    """
    Lines, classes, functions and the longest of them; broken files are counted as such.
    """
    rows = census.query(counted[0], "SELECT * FROM census ORDER BY file")
    assert rows == [
        ("pack", "pack/__init__.py", 1, 0, 0, 0, 0, ""),
        ("pack", "pack/a.py", 1, 5, 1, 2, 3, "long"),
        ("pack", "pack/bad.py", 0, 0, 0, 0, 0, ""),
        ("pack", "pack/deep/b.py", 1, 2, 2, 0, 0, ""),
        ("solo", "solo.py", 1, 2, 0, 1, 2, "one"),
    ]


def test_a_census_that_is_complete_is_not_made_again(census, counted):
    """
    Running it again finds the run by its key.
    """
    before = counted[1].read_text()
    asyncio.run(census.run(*counted))
    assert counted[1].read_text() == before
    assert census.prove(*counted)


TAMPERING = {
    "a row written twice": "INSERT INTO census SELECT * FROM census LIMIT 1",
    "a row missing": "DELETE FROM census WHERE file = 'solo.py'",
    "a wrong count": "UPDATE census SET lines = lines + 1 WHERE file = 'solo.py'",
    "a run that did not end": "UPDATE durable_runs SET status = 'waiting' WHERE run = 3",
    "an outcome recorded twice": "INSERT INTO durable_events SELECT id + 9999, run, seq + 1, kind, position, at, body,"
    " value, payload, checksum FROM durable_events WHERE kind = 2 AND run = 3",
    "a step started again": "INSERT INTO durable_events SELECT id + 9999, run, seq + 1000, kind, position, at, body,"
    " value, payload, checksum FROM durable_events WHERE kind = 10 AND position = '1' AND run = 1",
}


@pytest.mark.parametrize("sql", TAMPERING.values(), ids=TAMPERING.keys())
def test_the_proof_notices(sql, census, counted, capsys):
    """
    Each claim of the proof fails when what it claims is not so.
    """
    with closing(sqlite3.connect(counted[0])) as connection, connection:
        assert connection.execute(sql).rowcount == 1
    assert not census.prove(*counted)
    assert "NO!" in capsys.readouterr().out


def test_the_proof_notices_a_second_call(census, counted, capsys):
    """
    A job that was called again without need is found, though the journal knows nothing of it.
    """
    with counted[1].open("a") as calls:
        calls.write("solo\n")
    assert not census.prove(*counted)
    assert "NO!" in capsys.readouterr().out
