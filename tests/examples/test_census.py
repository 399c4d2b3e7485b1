"""
The census counts what is there, and its proof would notice if it had not.
"""

import asyncio
import shutil
import sqlite3
import sysconfig
from contextlib import closing
from pathlib import Path

import pytest

LIBRARY = {
    "solo.py": "def one():\n    pass\n",
    "pack/__init__.py": "",
    "pack/a.py": "class A:\n    def long(self):\n        x = 1\n        return x\n    async def short(self): ...\n",
    "pack/deep/b.py": "class B: ...\nclass C: ...\n",
    "pack/bad.py": "this is no Python",
    "site-packages/later.py": "class NotCounted: ...\n",
}


@pytest.fixture(scope="module")
def census(example, tmp_path_factory):
    """
    The example, with a library of six files in place of Python's own.
    """
    root = tmp_path_factory.mktemp("lib")
    for name, text in LIBRARY.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sysconfig, "get_path", lambda name: str(root))
        patch.setattr(example, "FILES_PER_JOB", 2)
        yield example


@pytest.fixture(scope="module")
def complete(census, tmp_path_factory):
    """
    The journal and the calls of a census that is complete: to be read.
    """
    folder = tmp_path_factory.mktemp("complete")
    asyncio.run(census.run(folder / "census.db", folder / "calls.log"))
    return folder / "census.db", folder / "calls.log"


@pytest.fixture
def counted(complete, tmp_path):
    """
    Copies of both, to be changed.
    """
    return [Path(shutil.copy(file, tmp_path)) for file in complete]


def test_it_counts_each_file_once(census, complete):
    """
    Lines, classes, functions and the longest of them; broken files are counted as such.
    """
    rows = census.query(complete[0], "SELECT * FROM census ORDER BY file")
    assert rows == [
        ("pack", "pack/__init__.py", 1, 0, 0, 0, 0, ""),
        ("pack", "pack/a.py", 1, 5, 1, 2, 3, "long"),
        ("pack", "pack/bad.py", 0, 0, 0, 0, 0, ""),
        ("pack", "pack/deep/b.py", 1, 2, 2, 0, 0, ""),
        ("solo", "solo.py", 1, 2, 0, 1, 2, "one"),
    ]


def test_a_census_that_is_complete_is_not_made_again(census, complete):
    """
    Running it again finds the run by its key.
    """
    before = complete[1].read_text()
    asyncio.run(census.run(*complete))
    assert complete[1].read_text() == before
    assert census.prove(*complete)


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
