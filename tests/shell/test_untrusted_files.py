"""
Files from strangers, and folders that strangers write: nothing that lies there acts, whoever opens it.
"""

import asyncio
import contextlib
import os
import sqlite3
import stat
import struct

import pytest
from structlog.testing import capture_logs

from durable import Client, Engine, job
from durable._cli.journals.files import open_readonly
from durable._shell.storage import untrusted
from durable._shell.storage.connections import connected, open_reader
from durable._shell.storage.database import Database
from durable.errors import ForeignJournalError, JournalAccessError, JournalError

pytestmark = pytest.mark.anyio


@job
async def quick(number: int) -> int:
    return number


@pytest.fixture
async def journal(tmp_db):
    """
    A journal with one run, which nobody has open.
    """
    async with Engine(tmp_db, [quick], durability="process") as engine:
        await engine.run(quick(1), id="one")
    return str(tmp_db)


async def opened_by(who, path):
    if who == "engine":
        async with Engine(path, [quick]):
            pass
    elif who == "client":
        async with Client(path) as client:
            _ = [each async for each in client.runs()]
    else:
        with contextlib.closing(open_readonly(path)) as conn:
            conn.execute("SELECT count(*) FROM durable_runs").fetchone()


EVERYBODY = pytest.mark.parametrize("who", ["engine", "client", "command line"])


def edit(path, *statements):
    with contextlib.closing(sqlite3.connect(path)) as conn:
        for statement in statements:
            conn.execute(statement)
        conn.commit()


# --- what SQLite would act upon -------------------------------------------------------------------


def rollback_journal(path, names):
    """
    As SQLite leaves one that is part of a transaction over several files, and names the file that lists them.
    """
    page = 4096
    header = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + struct.pack(">IIIII", 0, 1, 1, 512, page)
    name = os.fsencode(names)
    checksum = sum(each - 256 if each > 127 else each for each in name) & 0xFFFFFFFF
    pointer = struct.pack(">I", (1 << 30) // page + 1) + name + struct.pack(">II", len(name), checksum)
    with open(f"{path}-journal", "wb") as file:
        file.write(header.ljust(512, b"\0") + pointer + b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7")


@EVERYBODY
async def test_a_rollback_journal_beside_the_file_deletes_nothing(journal, tmp_path, who, monkeypatch):
    """
    SQLite deletes the file that such a journal names; here it is refused, and both are as they were.
    """
    monkeypatch.setattr(untrusted, "_JOURNAL_SECONDS", 0.02)
    victim = tmp_path / "victim"
    victim.write_bytes(b"/nowhere/at-all-journal\0")
    rollback_journal(journal, victim)
    with pytest.raises(JournalAccessError, match="names another file, which SQLite would delete"):
        await opened_by(who, journal)
    assert victim.exists()
    os.unlink(f"{journal}-journal")
    await opened_by(who, journal)


async def test_without_the_refusal_sqlite_would_delete_it(journal, tmp_path):
    """
    What the test above attacks with is such a journal indeed.
    """
    edit(journal, "PRAGMA journal_mode = DELETE")
    victim = tmp_path / "victim"
    victim.write_bytes(b"/nowhere/at-all-journal\0")
    rollback_journal(journal, victim)
    with contextlib.suppress(sqlite3.DatabaseError):  # it is cut off to one page, too
        edit(journal, "SELECT count(*) FROM sqlite_master")
    assert not victim.exists()


async def test_a_rollback_journal_that_names_nothing_is_not_applied(journal, monkeypatch):
    """
    A journal is in WAL mode: another has put it there, or an application that was killed, and opens it itself.
    """
    monkeypatch.setattr(untrusted, "_JOURNAL_SECONDS", 0.02)
    rollback_journal(journal, "x")
    with open(f"{journal}-journal", "r+b") as file:
        file.truncate(512)
    with pytest.raises(JournalAccessError, match="open it with that program"):
        await opened_by("engine", journal)
    for harmless in (b"", b"\0" * 512):
        with open(f"{journal}-journal", "wb") as file:
            file.write(harmless)
        await opened_by("engine", journal)


@EVERYBODY
@pytest.mark.parametrize(
    "statements",
    [
        ["ALTER TABLE durable_runs RENAME TO old", "CREATE VIEW durable_runs AS SELECT * FROM old"],
        ["CREATE TRIGGER durable_x AFTER INSERT ON durable_runs BEGIN DELETE FROM durable_events; END"],
        ["CREATE TRIGGER x AFTER INSERT ON durable_events BEGIN DELETE FROM durable_runs; END"],
        ["ALTER TABLE durable_runs ADD COLUMN more TEXT AS (hex(run_id))"],
        ["ALTER TABLE durable_runs ADD COLUMN more TEXT GENERATED ALWAYS AS (hex(run_id)) VIRTUAL"],
        ["ALTER TABLE durable_waits ADD COLUMN more TEXT CHECK (length(more) < 3)"],
        ["ALTER TABLE durable_waits ADD COLUMN more INTEGER REFERENCES durable_runs (run) ON DELETE CASCADE"],
        ["CREATE INDEX mine ON durable_runs (hex(run_id))"],
        ["DROP TABLE durable_grants", "CREATE VIRTUAL TABLE durable_grants USING fts5(name)"],
    ],
    ids=lambda statements: statements[-1][:70],
)
async def test_what_would_be_evaluated_in_place_of_our_tables_is_refused(journal, who, statements):
    """
    Views, triggers, computed and checked columns: the file is no journal of ours, and is left as it is.
    """
    edit(journal, *statements)
    with pytest.raises(ForeignJournalError, match="plain tables only"):
        await opened_by(who, journal)


async def test_tables_of_the_application_may_do_all_that(journal):
    """
    Only what is called like our own must be plain.
    """
    edit(
        journal,
        "CREATE TABLE mine (x INTEGER CHECK (x > 0), y AS (x + 1))",
        "CREATE VIEW ours AS SELECT * FROM mine",
        "CREATE TRIGGER t AFTER INSERT ON mine BEGIN DELETE FROM mine; END",
        "CREATE INDEX more ON durable_runs (workflow, status) WHERE status IN ('failed', 'blocked')",
    )
    for who in ("engine", "client", "command line"):
        await opened_by(who, journal)


@pytest.mark.parametrize("number", ["'x'", "-1", "0", "1.5", "9e999", "NULL", "x'ff'"])
async def test_a_schema_that_has_no_number_is_refused(journal, number):
    """
    Not a raw error of a conversion.
    """
    edit(journal, f"UPDATE durable_meta SET value = {number} WHERE name = 'schema'")
    for who in ("engine", "client", "command line"):
        with pytest.raises(JournalError):
            await opened_by(who, journal)


# --- bounds of every connection ------------------------------------------------------------------


async def test_every_connection_is_bounded_and_trusts_no_schema(journal):
    """
    The writer's, the engine's reader, the client's, and that of the command line.
    """

    def settings(conn):
        pragmas = ("trusted_schema", "cell_size_check")
        return conn.getlimit(sqlite3.SQLITE_LIMIT_LENGTH), *(conn.execute(f"PRAGMA {p}").fetchone()[0] for p in pragmas)

    database = await Database.open(journal)
    with contextlib.closing(open_reader(journal)) as reader, contextlib.closing(open_readonly(journal)) as command_line:
        found = [await database.write(settings), await database.read(settings)]
        found += [settings(reader), settings(command_line)]
    await database.aclose()
    assert found == [(untrusted.LONGEST_BYTES, 0, 1)] * 4


async def test_a_statement_that_never_ends_is_interrupted(journal, monkeypatch):
    """
    On connections that read; each statement is counted anew.
    """
    monkeypatch.setattr(untrusted, "MOST_LOOKS", 5)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    with contextlib.closing(connected(journal, "ro")) as conn:
        for _ in range(3):
            with pytest.raises(sqlite3.OperationalError, match="interrupted"):
                conn.execute(endless).fetchone()
        for _ in range(10):
            assert conn.execute(endless.replace("FROM n)", "FROM n LIMIT 20000)")).fetchone() == (20000,)


# --- who may write --------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["-wal", "-shm", "-journal", ".lock"])
async def test_a_file_beside_it_that_is_another_as_well_is_refused(journal, tmp_path, end):
    """
    A hard link: what we wrote would be written there.
    """
    victim = tmp_path / "victim"
    victim.write_text("precious")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(journal + end)
    os.link(victim, journal + end)
    with pytest.raises(JournalAccessError, match="hard link"):
        await opened_by("engine", journal)
    assert victim.read_text() == "precious"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of other users")
@EVERYBODY
@pytest.mark.parametrize("end", ["", "-wal", ".lock"])
async def test_a_file_of_another_that_everybody_may_write_is_refused(journal, who, end):
    """
    Its owner could change it at any time, and so could all others; one that nobody else writes is fine.
    """
    with open(journal + end, "ab"):
        pass
    os.chown(journal + end, 12345, 12345)
    os.chmod(journal + end, 0o666)
    with pytest.raises(JournalAccessError, match="user 12345"):
        await opened_by(who, journal)
    os.chmod(journal + end, 0o644)
    await opened_by(who, journal)


async def test_a_folder_that_everybody_may_write_is_told(journal, tmp_path):
    """
    A warning, in words that say what to do; refused if the program asks for it.
    """
    for place, mode in ((tmp_path, 0o777), (tmp_path, 0o1777), (journal, 0o666)):
        before = stat.S_IMODE(os.stat(place).st_mode)
        os.chmod(place, mode)
        with capture_logs() as logs:
            await opened_by("engine", journal)
        (told,) = [each["notice"] for each in logs if "chmod o-w" in str(each.get("notice"))]
        assert f"mode {mode:o}" in told
        with pytest.raises(JournalAccessError, match="chmod o-w"):
            await Engine(journal, [quick], strict_permissions=True).open()
        os.chmod(place, before)
    async with Engine(journal, [quick], strict_permissions=True):
        pass


async def test_opening_leaves_the_umask_of_the_process_alone(tmp_path):
    """
    It belongs to every thread and task: also of four engines that open at once.
    """
    before = os.umask(0o022)
    try:
        engines = [Engine(tmp_path / f"{number}.db", [quick], durability="process") for number in range(4)]
        made = []

        async def folders():
            for number in range(200):
                os.mkdir(tmp_path / f"folder-{number}")
                made.append(stat.S_IMODE(os.stat(tmp_path / f"folder-{number}").st_mode))
                await asyncio.sleep(0)

        await asyncio.gather(folders(), *(engine.open() for engine in engines))
        assert set(made) == {0o755}
        assert {stat.S_IMODE(os.stat(tmp_path / f"{number}.db.sock").st_mode) for number in range(4)} == {0o600}
        await asyncio.gather(*(engine.aclose() for engine in engines))
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


async def test_what_is_no_socket_is_left_alone(journal):
    """
    A file of that name stays; clients are told why they cannot connect.
    """
    with open(f"{journal}.sock", "w") as file:
        file.write("precious")
    with capture_logs() as logs:
        await opened_by("engine", journal)
    assert any("clients cannot connect" in str(each.get("notice")) for each in logs)
    with open(f"{journal}.sock") as file:
        assert file.read() == "precious"
