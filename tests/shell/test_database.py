"""
Connections: what is committed, what is refused, and what is left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import pickle
import resource
import sqlite3
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
from pathlib import Path

import pytest

from durable._shell.storage import connections as connections_module
from durable._shell.storage import database as database_module
from durable._shell.storage import location
from durable._shell.storage.connections import CommitUnknownError, commit, translate
from durable._shell.storage.copies import backups as backups_module
from durable._shell.storage.copies.backups import back_up
from durable._shell.storage.database import STARVED_SECONDS, Database
from durable._shell.storage.folder import Folder
from durable._shell.storage.guard import Guard, refuse_control
from durable._shell.storage.memory import MemoryDatabase
from durable._shell.switching import SHORT
from durable.errors import (
    EngineClosedError,
    ForeignJournalError,
    JournalAccessError,
    JournalDamagedError,
    JournalError,
    JournalFullError,
    JournalIOError,
    TransactionRefusedError,
)

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]


def prepare(conn):
    conn.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, v)")
    conn.execute("CREATE TABLE IF NOT EXISTS durable_events(id INTEGER PRIMARY KEY, v)")


def insert(value):
    return lambda conn: conn.execute("INSERT INTO t(v) VALUES (?)", (value,)).lastrowid


def rows(conn):
    return [v for (v,) in conn.execute("SELECT v FROM t ORDER BY id")]


def on_disk(path):
    with contextlib.closing(sqlite3.connect(path)) as conn:
        return rows(conn)


def child(script, *arguments, timeout=20):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        capture_output=True, text=True, timeout=timeout, cwd=ROOT, check=False,
    )  # fmt: skip


def threads():
    """
    The storage's: a step that another test has abandoned may still have one.
    """
    names = {thread.name for thread in threading.enumerate()}
    return {name for name in names if name.startswith("durable-") and not name.startswith("durable-step")}


def open_files():
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the descriptor that lists them
            yield str(link.readlink())


@pytest.fixture
def path(tmp_path):
    return tmp_path / "app.db"


@pytest.fixture(params=["file", "memory"])
async def either(request, path):
    database = await (Database if request.param == "file" else MemoryDatabase).open(path, prepare=prepare)
    yield database
    await database.aclose()


@pytest.fixture
async def db(path):
    database = await Database.open(path, prepare=prepare)
    yield database
    await database.aclose()
    assert not threads()


class Gate:
    """A function for `write` that waits on its thread until it is let go."""

    def __init__(self, fn):
        self.fn, self.entered, self.go = fn, threading.Event(), threading.Event()

    def __call__(self, conn):
        result = self.fn(conn)
        self.entered.set()
        assert self.go.wait(10)
        return result

    async def inside(self):
        assert await asyncio.to_thread(self.entered.wait, 10)


# --- the same on a file and in memory ----------------------------------------------------------


async def test_a_write_returns_its_result_and_is_read_back(either):
    """What `write` acknowledged, the next `read` sees."""
    assert await either.write(insert("a")) == 1
    assert await either.read(rows) == ["a"]
    assert either.calls_in_flight == 0


async def test_an_exception_rolls_everything_back_and_reaches_the_caller(either):
    """A function that raises leaves nothing behind, and the next write is not harmed."""

    def half(conn):
        insert("lost")(conn)
        raise KeyError("x")

    with pytest.raises(KeyError):
        await either.write(half)
    await either.write(insert("kept"))
    assert await either.read(rows) == ["kept"]


async def test_a_stop_iteration_does_not_hang_its_caller(either):
    """`next()` of an empty cursor, which no future can carry, becomes an error one can see."""
    with pytest.raises(RuntimeError, match="next"):
        await either.write(lambda conn: next(conn.execute("SELECT 1 WHERE 0")))
    with pytest.raises(RuntimeError, match="next"):
        async with either.exclusive() as x:
            await x.run(lambda conn: next(conn.execute("SELECT 1 WHERE 0")))
    assert await either.read(rows) == []


async def test_sqlite_errors_of_the_application_are_its_own(either):
    """A constraint or a typo is the application's, not the journal's."""
    await either.write(lambda conn: conn.execute("INSERT INTO t VALUES (1, 'a')"))
    with pytest.raises(sqlite3.IntegrityError):
        await either.write(lambda conn: conn.execute("INSERT INTO t VALUES (1, 'b')"))
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        await either.read(lambda conn: conn.execute("SELECT * FROM nowhere"))


async def test_a_constraint_found_at_commit_rolls_back_and_is_the_applications(either):
    """A deferred foreign key fails at COMMIT: known not to be committed, and no reason to stop."""

    def orphan(conn):
        conn.execute("CREATE TABLE p(id INTEGER PRIMARY KEY)")
        conn.execute("CREATE TABLE c(p REFERENCES p DEFERRABLE INITIALLY DEFERRED)")
        conn.execute("INSERT INTO c VALUES (7)")

    with pytest.raises(sqlite3.IntegrityError):
        await either.write(orphan)
    await either.write(insert("on"))
    assert await either.read(rows) == ["on"]


async def test_the_reader_cannot_write(either):
    """A read that writes is refused, whatever it tries."""
    for sql in ("INSERT INTO t(v) VALUES (1)", "DROP TABLE t", "CREATE TABLE u(a)"):
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            await either.read(lambda conn, sql=sql: conn.execute(sql))
    assert await either.read(rows) == []


async def test_an_exclusive_block_commits_at_its_end_and_makes_writes_wait(either):
    """Several hops are one transaction; nobody's write falls into it."""
    async with either.exclusive() as x:
        assert await x.execute("INSERT INTO t(v) VALUES (?) RETURNING v", ("one",)) == [("one",)]
        other = asyncio.ensure_future(either.write(insert("other")))
        await asyncio.sleep(0)
        assert await x.run(rows) == ["one"]
        await x.run(insert("two"))
        x.run_at_once(insert("three"))
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            x.run_at_once(lambda conn: conn.execute("SELECT * FROM nowhere"))
        assert not other.done()
    await other
    assert await either.read(rows) == ["one", "two", "three", "other"]
    with pytest.raises(EngineClosedError, match="over"):
        await x.execute("SELECT 1")
    with pytest.raises(EngineClosedError, match="over"):
        x.run_at_once(rows)


async def test_a_read_during_an_exclusive_block_sees_nothing_of_it(either):
    """What is not committed is shown to nobody, on one connection as on two."""
    async with either.exclusive() as x:
        await x.run(insert("later"))
        read = asyncio.ensure_future(either.read(rows))
        if either.path != ":memory:":
            assert await read == []
    assert await read in ([], ["later"])
    await either.reopen()
    either.check_identity()
    assert await either.read(rows) == ["later"]


async def test_an_exclusive_block_that_raises_leaves_nothing(either):
    """ROLLBACK on an exception; the writer is free afterwards."""
    with pytest.raises(ValueError, match="mine"):
        async with either.exclusive() as x:
            await x.run(insert("lost"))
            raise ValueError("mine")
    await either.write(insert("kept"))
    assert await either.read(rows) == ["kept"]


async def test_a_backup_is_one_private_file_that_opens_by_itself(either, tmp_path):
    """Complete without a WAL, mode 0600; an existing target survives unless overwritten."""
    await either.write(insert("saved"))
    target = tmp_path / "copy.db"
    await either.backup(target)
    assert on_disk(target) == ["saved"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    await either.write(insert("more"))
    with pytest.raises(JournalAccessError, match="choose another name"):
        await either.backup(target)
    assert on_disk(target) == ["saved"]
    await either.backup(target, overwrite=True)
    assert on_disk(target) == ["saved", "more"]
    assert [p.name for p in tmp_path.glob("copy.db*")] == ["copy.db"]


async def test_a_backup_refuses_what_would_spoil_it(either, tmp_path):
    """A leftover WAL beside the target, the journal itself, a directory that is not there."""
    Path(f"{tmp_path}/old.db-wal").touch()
    for target, why in {"old.db": "old.db-wal exists", "none/x.db": "the folder .*none does not exist"}.items():
        with pytest.raises(JournalAccessError, match=why):
            await either.backup(tmp_path / target, overwrite=True)
    if either.path != ":memory:":
        with pytest.raises(JournalAccessError, match="itself"):
            await either.backup(either.path, overwrite=True)


async def test_closing_twice_is_fine_and_using_it_afterwards_is_said(either):
    """`aclose` is idempotent; calls after it are refused, and never hang."""
    await either.read(rows)
    await either.aclose()
    await either.aclose()
    for call in (either.write(rows), either.read(rows)):
        with pytest.raises(EngineClosedError):
            await call
    assert either.calls_in_flight == 0


async def test_a_failing_preparation_leaves_nothing_open(path):
    """Whatever `prepare` or `inspect` raises reaches the caller; no thread stays."""

    def refuse(conn):
        conn.execute("BEGIN IMMEDIATE")
        raise LookupError("newer")

    for kind in (Database, MemoryDatabase):
        for option in ("prepare", "inspect"):
            with pytest.raises(LookupError, match="newer"):
                await kind.open(path, **{option: refuse})
    assert not threads()
    await (await Database.open(path, prepare=prepare)).aclose()


# --- cancellation -------------------------------------------------------------------------------


async def test_a_cancelled_awaiter_does_not_tear_its_write_apart(db, path):
    """The work goes on to its COMMIT; it counts as in flight until then; later writes come after it."""
    gate = Gate(insert("whole"))
    task = asyncio.ensure_future(db.write(gate))
    await gate.inside()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert db.calls_in_flight == 1
    gate.go.set()
    await db.write(insert("after"))
    assert db.calls_in_flight == 0
    assert on_disk(path) == ["whole", "after"]


async def test_a_cancelled_exclusive_block_rolls_back_before_the_next_write(db):
    """Also when it was cancelled inside a hop that goes on."""
    gate = Gate(insert("lost"))

    async def unit():
        async with db.exclusive() as x:
            await x.run(gate)

    task = asyncio.ensure_future(unit())
    await gate.inside()
    task.cancel()
    later = asyncio.ensure_future(db.write(insert("kept")))
    await asyncio.sleep(0)
    task.cancel()  # and once more, while it waits for its ROLLBACK
    gate.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    await later
    assert await db.read(rows) == ["kept"]


async def test_a_cancelled_opening_leaves_neither_thread_nor_descriptor(path):
    """Cancelled before, during and after the work of opening."""
    for turns in range(4):
        task = asyncio.ensure_future(Database.open(path, prepare=prepare))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not threads()
    assert "app.db" not in " ".join(open_files())


async def test_a_cancelled_close_closes(path):
    """Both threads end although nobody waits for them."""
    db = await Database.open(path, prepare=prepare)
    await db.read(rows)
    task = asyncio.ensure_future(db.aclose())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not threads()


async def test_closing_while_a_connection_is_opened_closes_that_too(path):
    """The first read opens the reader, `reopen` both: neither escapes `aclose`."""
    for name in ("read", "reopen"):
        db = await Database.open(path, prepare=prepare)
        late = asyncio.ensure_future(db.read(rows) if name == "read" else db.reopen())
        await asyncio.sleep(0)
        await db.aclose()
        assert not threads()
        with contextlib.suppress(EngineClosedError):
            await late
        with pytest.raises(EngineClosedError):
            await db.reopen()
        assert not threads()


# --- settings, modes, places ------------------------------------------------------------------------


@pytest.mark.parametrize("durability, synchronous", [("full", 2), ("process", 1)])
async def test_pragmas_hold_on_both_connections(path, durability, synchronous):
    """What DESIGN says about the settings is what the connections have."""
    async with contextlib.AsyncExitStack() as stack:
        db = await Database.open(path, durability=durability, prepare=prepare)
        stack.push_async_callback(db.aclose)

        def pragmas(conn):
            names = "journal_mode synchronous busy_timeout foreign_keys trusted_schema query_only"
            names += " wal_autocheckpoint temp_store"
            return [conn.execute(f"PRAGMA {name}").fetchone()[0] for name in names.split()]

        async with db.exclusive() as x:
            assert await x.run(pragmas) == ["wal", synchronous, 5000, 1, 0, 0, 1000, 2]
        reader = await db.read(pragmas)
        assert (reader[0], *reader[2:]) == ("wal", 5000, 1, 0, 1, 0, 2)


async def test_a_pragma_that_does_not_take_is_refused(path, monkeypatch):
    """SQLite accepts a mistyped value in silence: reading back finds it."""
    monkeypatch.setitem(connections_module.PRAGMAS, "full", (("PRAGMA synchronous = WAL", "PRAGMA synchronous", 2),))
    with pytest.raises(JournalAccessError, match="synchronous"):
        await Database.open(path)
    assert not threads()


async def test_files_are_private(db, path):
    """0600 for the file, its WAL and its shared memory, whatever the umask."""
    await db.write(insert(1))
    found = {p.name: stat.S_IMODE(p.stat().st_mode) for p in path.parent.iterdir()}
    assert found == {"app.db": 0o600, "app.db-wal": 0o600, "app.db-shm": 0o600}


@pytest.fixture
def interval():
    """How soon threads take turns, as every program begins."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.005)
    yield 0.005
    sys.setswitchinterval(before)


async def test_threads_take_turns_sooner_while_the_file_is_written_or_read(path, interval):
    """Or a thread of the application that computes would hold up every commit a dozen times, for 5 ms each."""
    async with contextlib.aclosing(await Database.open(path, prepare=prepare)) as database:
        assert sys.getswitchinterval() == pytest.approx(interval)
        for work in (database.write, database.read):
            assert await work(lambda conn: sys.getswitchinterval()) == pytest.approx(SHORT)
            assert sys.getswitchinterval() == pytest.approx(SHORT)  # since one is seldom alone
            while sys.getswitchinterval() == pytest.approx(SHORT):
                await asyncio.sleep(STARVED_SECONDS)
            assert sys.getswitchinterval() == pytest.approx(interval)


@pytest.mark.parametrize("closed", ["closed", "abandoned", "cancelled"])
async def test_how_soon_threads_take_turns_is_put_back_when_the_file_is_closed(path, interval, closed):
    """At once: there may be no loop any more that would do it a moment later."""
    database = await Database.open(path, prepare=prepare)
    if closed == "cancelled":
        entered, leave = threading.Event(), threading.Event()
        held = asyncio.create_task(database.write(lambda conn: (entered.set(), leave.wait(10))))
        while not entered.is_set():
            await asyncio.sleep(0)
        held.cancel()
        await asyncio.wait({held})
        leave.set()
    else:
        await database.write(insert(1))
    assert sys.getswitchinterval() == pytest.approx(SHORT)
    if closed == "abandoned":
        gone = threading.Event()
        database.abandon(gone.set)
        gone.wait(10)
    await database.aclose()
    assert sys.getswitchinterval() == pytest.approx(interval)
    await asyncio.sleep(2 * STARVED_SECONDS)
    assert sys.getswitchinterval() == pytest.approx(interval)


async def test_something_that_is_no_database_is_refused_unmodified(path):
    """No byte of it changes."""
    path.write_bytes(b"dear diary " * 500)
    with pytest.raises(ForeignJournalError):
        await Database.open(path, prepare=prepare)
    assert path.read_bytes() == b"dear diary " * 500
    assert [p.name for p in path.parent.iterdir()] == ["app.db"]


async def test_a_database_that_inspect_refuses_is_unmodified(path):
    """`inspect` runs before the file is switched to WAL."""
    with contextlib.closing(sqlite3.connect(path)) as conn:
        conn.execute("CREATE TABLE other(a)")
    before = path.read_bytes()

    def inspect(conn):
        raise ForeignJournalError(str(path), "not ours")

    with pytest.raises(ForeignJournalError, match="not ours"):
        await Database.open(path, inspect=inspect, prepare=prepare)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["app.db"]


async def test_places_without_a_usable_file_are_refused_by_name(tmp_path):
    """A missing directory, a directory, a hard link, garbage after a header."""
    (tmp_path / "dir.db").mkdir()
    (tmp_path / "a.db").touch()
    os.link(tmp_path / "a.db", tmp_path / "b.db")
    for name, reason in [("none/x.db", "does not exist"), ("dir.db", "not a regular file"), ("b.db", "hard link")]:
        with pytest.raises(JournalAccessError, match=reason):
            await Database.open(tmp_path / name)
    assert not threads()


def test_a_directory_or_file_that_may_not_be_written_is_refused(tmp_path):
    """As an ordinary user: no file is made, the error is ours, the process ends."""
    script = """
        import asyncio, os, sys
        from durable._shell.storage.database import STARVED_SECONDS, Database
        from durable.errors import JournalAccessError

        async def main(path):
            await (await Database.open(path)).aclose()

        asyncio.run(main(sys.argv[1]))  # imports everything, which the other user may not be able to
        if os.geteuid() == 0:
            os.setegid(65534), os.seteuid(65534)
        for path in sys.argv[2:]:
            try:
                asyncio.run(main(path))
            except JournalAccessError as error:
                print(error.path == path)
    """
    with tempfile.TemporaryDirectory() as outside:  # tmp_path cannot be entered by others
        closed, file = Path(outside, "closed"), Path(outside, "read.db")
        closed.mkdir()
        with contextlib.closing(sqlite3.connect(file)) as conn:
            conn.execute("PRAGMA journal_mode = WAL")
        file.chmod(0o444)
        Path(outside).chmod(0o755)
        closed.chmod(0o555)
        result = child(script, tmp_path / "ours.db", closed / "x.db", file)
        assert (result.stdout, result.stderr) == ("True\nTrue\n", "")
        assert not list(closed.iterdir())


async def test_network_file_systems_are_refused(path, monkeypatch):
    """Locks and shared memory do not work there."""
    monkeypatch.setattr(location, "filesystem", lambda _: "nfs4")
    with pytest.raises(JournalAccessError, match="network file system"):
        await Database.open(path)
    assert not path.exists()


def test_the_deepest_and_latest_mount_decides():
    """What the kernel says about directories we know."""
    if sys.platform != "linux":
        pytest.skip("reads /proc")
    assert location.filesystem("/proc/self") == "proc"
    assert location.filesystem("/") not in ("", "proc")


def test_versions_with_the_wal_race_are_told():
    """Affected and fixed releases, by their numbers."""
    fixed, hit = (
        [(3, 44, 6), (3, 50, 7), (3, 51, 3), (4, 0, 0)],
        [(3, 40, 1), (3, 44, 5), (3, 45, 0), (3, 50, 6), (3, 51, 2)],
    )
    assert [version for version in fixed + hit if connections_module.version_notices(version)] == hit


async def test_an_old_sqlite_is_refused(path, monkeypatch):
    """STRICT tables need 3.37."""
    monkeypatch.setattr(location.sqlite3, "sqlite_version_info", (3, 36, 0))
    with pytest.raises(JournalError, match=r"3\.37"):
        await Database.open(path)


async def test_a_full_disk_is_refused_before_anything_is_made(path, monkeypatch):
    """SQLite's shared memory on a full disk would kill the process."""
    monkeypatch.setattr(location, "free_bytes", lambda _: 1000)
    with pytest.raises(JournalFullError, match="free"):
        await Database.open(path)
    assert not path.exists()


async def test_identity_names_what_happened_to_the_file(db, path):
    """Deleted WAL, second name, replaced, gone: commits would go where nobody looks."""
    db.check_identity()
    wal, aside = Path(f"{path}-wal"), path.parent / "aside"
    wal.rename(aside)
    with pytest.raises(JournalAccessError, match="WAL"):
        db.check_identity()
    aside.rename(wal)
    os.link(path, aside)
    with pytest.raises(JournalAccessError, match="hard link"):
        db.check_identity()
    aside.unlink()
    path.rename(aside)
    with pytest.raises(JournalAccessError, match="deleted"):
        db.check_identity()
    path.touch()
    with pytest.raises(JournalAccessError, match="another file"):
        db.check_identity()
    with pytest.raises(JournalAccessError):
        await db.reopen()
    path.unlink()
    aside.rename(path)
    db.check_identity()


async def test_a_reopening_takes_no_folder_for_lost_that_comes_back_while_it_looks(tmp_path, monkeypatch):
    """
    As housekeeping: the file was out of sight, and a moment later its folder is where it was.
    """
    folder, away = tmp_path / "folder", tmp_path / "away"
    folder.mkdir()
    database = await Database.open(folder / "app.db", prepare=prepare)
    is_away = Folder.is_away

    def back_in_time(self):
        if away.exists():
            away.rename(folder)
        return is_away(self)

    monkeypatch.setattr(Folder, "is_away", back_in_time)
    folder.rename(away)
    await database.reopen()
    database.check_identity()
    await database.aclose()


@pytest.mark.parametrize("seen", ["", "-wal", "-shm"])
@pytest.mark.parametrize("first", [True, False], ids=["reopened first", "looked first"])
@pytest.mark.parametrize("names", [1, 2])
async def test_a_look_during_a_reopening_sees_no_loss(db, path, monkeypatch, seen, first, names):
    """
    Whichever file the look has come to when it is overtaken. A second name is told all the same, each time.
    """
    looked_at, loop = os.stat, asyncio.get_running_loop()
    reopened = []

    def reopen():
        reopened.append(seen)
        asyncio.run_coroutine_threadsafe(db.reopen(), loop).result(20)

    def stat(name, *args, **kwargs):
        overtakes = os.fspath(name) == f"{path}{seen}" and not reopened and threading.current_thread() is looking
        if overtakes and first:
            reopen()
        try:
            return looked_at(name, *args, **kwargs)
        finally:
            if overtakes and not first:
                reopen()

    def look():
        try:
            db.check_identity()
        except JournalError as error:
            told.append(error)

    if names == 2:
        os.link(path, path.parent / "snapshot")
    told = []
    looking = threading.Thread(target=look)
    held = [os.open(f"{path}{suffix}", os.O_RDONLY) for suffix in ("-wal", "-shm")]  # no new file gets their numbers
    monkeypatch.setattr(os, "stat", stat)
    looking.start()
    await asyncio.to_thread(looking.join)
    monkeypatch.undo()
    for each in held:
        os.close(each)
    assert reopened == [seen]
    assert ["hard link" in str(error) for error in told] == [True] * (names - 1), told


async def test_another_event_loop_is_refused(db):
    """A call from a loop that cannot be served would wait for ever."""

    def elsewhere():
        with pytest.raises(EngineClosedError, match="event loop"):
            asyncio.run(db.write(rows))

    await asyncio.to_thread(elsewhere)


# --- failing machines ----------------------------------------------------------------------------


async def test_a_full_file_acknowledges_nothing_and_goes_on_when_there_is_room(db):
    """SQLITE_FULL inside the function: everything rolled back, typed, and no reopening needed."""
    pages = await db.write(lambda conn: conn.execute("PRAGMA page_count").fetchone()[0])
    async with db.exclusive() as x:
        await x.execute(f"PRAGMA max_page_count = {pages}")

    def big(conn):
        insert("small")(conn)
        insert("x" * 100_000)(conn)

    with pytest.raises(JournalFullError):
        await db.write(big)
    assert await db.read(rows) == []
    async with db.exclusive() as x:
        await x.execute("PRAGMA max_page_count = 100000")
    await db.write(big)
    assert len(await db.read(rows)) == 2


async def test_a_transaction_that_ended_under_its_function_is_of_unknown_outcome(db):
    """SQLite rolls back by itself when full; a function that goes on regardless is found out."""
    pages = await db.write(lambda conn: conn.execute("PRAGMA page_count").fetchone()[0])

    def swallow(conn):
        insert("first")(conn)
        conn.execute(f"PRAGMA max_page_count = {pages}")
        with contextlib.suppress(sqlite3.OperationalError):
            insert("x" * 100_000)(conn)
        if conn.in_transaction:  # this build kept it: end it as SQLite might
            conn.execute("ROLLBACK")
        insert("stray")(conn)

    with pytest.raises(CommitUnknownError):
        await db.write(swallow)
    with pytest.raises(JournalIOError, match="reopen"):
        await db.write(insert("refused"))
    await db.reopen()
    assert await db.read(rows) == ["stray"]


def test_a_commit_that_fails_on_disk_is_of_unknown_outcome_until_reopened(path):
    """
    A write past the file size limit fails the COMMIT; the writer refuses until `reopen`,
    after which the file tells what is true, and work goes on.
    """
    script = """
        import asyncio, resource, signal, sys
        from durable._shell.storage.connections import CommitUnknownError
        from durable._shell.storage.database import STARVED_SECONDS, Database
        from durable.errors import JournalError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

        def prepare(conn):
            conn.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, v)")

        def insert(value):
            return lambda conn: conn.execute("INSERT INTO t(v) VALUES (?)", (value,))

        async def main():
            db = await Database.open(sys.argv[1], prepare=prepare)
            await db.write(insert("before"))
            resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))
            try:
                await db.write(insert("x" * 200_000))
            except CommitUnknownError as error:
                print("unknown:", type(error.cause).__name__)
            try:
                await db.write(insert("refused"))
            except JournalError as error:
                print("refused:", type(error).__name__)
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            await db.reopen()
            print(await db.read(lambda conn: conn.execute("SELECT v FROM t").fetchall()))
            await db.write(insert("after"))
            await db.aclose()

        asyncio.run(main())
    """
    result = child(script, path)
    assert result.stderr == ""
    assert result.stdout.splitlines() == ["unknown: JournalIOError", "refused: JournalIOError", "[('before',)]"]
    assert on_disk(path) == ["before", "after"]


def test_a_failed_sync_decides_nothing_although_the_transaction_is_open(path):
    """
    After EIO of a sync, a rollback that works proves nothing about what reached the disk: reopen and read.
    """

    said = []

    class Failing:
        in_transaction = True

        def execute(self, sql):
            said.append(sql)
            if sql == "COMMIT":
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_IOERR_FSYNC, "SQLITE_IOERR_FSYNC"
                raise error

        def close(self):
            said.append("close")

    with pytest.raises(CommitUnknownError):
        commit(Failing(), str(path))
    assert said == ["COMMIT", "close"]


async def test_reopening_can_fail_and_be_repeated(db, path):
    """While the file cannot be opened everything is refused; then it goes on."""
    await db.write(insert("kept"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(JournalError):
            await db.reopen()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for call in (db.write(rows), db.read(rows)):
        with pytest.raises(JournalIOError, match="opened again"):
            await call
    await db.reopen()
    await db.write(insert("more"))
    assert await db.read(rows) == ["kept", "more"]


async def test_a_connection_that_broke_is_refused_until_reopened(db):
    """Rolling back failed, or reading did: errors of ours, no hang, and reopening mends both."""
    await db.write(insert("kept"))

    def destroy(conn):
        conn.close()
        raise KeyError("x")

    for call in (db.write, db.read):
        with pytest.raises(JournalIOError):
            await call(destroy)
        with pytest.raises(JournalIOError, match="reopen"):
            await call(rows)
    await db.reopen()
    assert await db.read(rows) == ["kept"]


async def test_a_stranger_holding_the_file_is_reported(db, path):
    """Another program's write lock: refused after the busy timeout, nothing written, no reopening."""
    async with db.exclusive() as x:
        await x.run(lambda conn: None)
    await db._hop(db._writer, lambda conn, _: conn.execute("PRAGMA busy_timeout = 50").fetchall())
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as stranger:
        stranger.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalAccessError, match="another program"):
            await db.write(insert("no"))
        stranger.execute("ROLLBACK")
    await db.write(insert("yes"))
    assert await db.read(rows) == ["yes"]


def test_translation_says_whose_fault_it_is():
    """Operating system and SQLite codes, as errors of ours."""

    def sqlite(code):
        error = sqlite3.OperationalError("words")
        error.sqlite_errorcode, error.sqlite_errorname = getattr(sqlite3, code), code
        return error

    table = [
        (OSError(28, "No space"), JournalFullError),
        (OSError(122, "Quota"), JournalFullError),
        (OSError(5, "I/O"), JournalIOError),
        (PermissionError(13, "Denied"), JournalAccessError),
        (sqlite("SQLITE_FULL"), JournalFullError),
        (sqlite("SQLITE_IOERR_FSYNC"), JournalIOError),
        (sqlite("SQLITE_CANTOPEN"), JournalAccessError),
        (sqlite("SQLITE_READONLY_DIRECTORY"), JournalAccessError),
        (sqlite("SQLITE_BUSY"), JournalAccessError),
        (sqlite("SQLITE_NOTADB"), ForeignJournalError),
        (sqlite("SQLITE_CORRUPT"), JournalDamagedError),
        (sqlite("SQLITE_ERROR"), JournalError),
        (sqlite3.ProgrammingError("Cannot operate on a closed database."), JournalIOError),
    ]
    assert [type(translate(error, "/p/app.db")) for error, _ in table] == [kind for _, kind in table]


def test_an_unknown_commit_survives_pickling():
    """With its cause."""
    error = pickle.loads(pickle.dumps(CommitUnknownError("/p", JournalIOError("/p", "disk"))))
    assert (error.path, type(error.cause), str(error)) == (
        "/p", JournalIOError, "journal /p: a commit failed, its outcome is unknown: disk",
    )  # fmt: skip


# --- load, and the end of the process -----------------------------------------------------------------


async def test_a_backup_under_load_verifies(db, tmp_path):
    """A state some instant had: a prefix of what was written, in order."""
    stop = False

    async def load():
        n = 0
        while not stop:
            await db.write(lambda conn, n=n: conn.executemany("INSERT INTO t(v) VALUES (?)", [(n,), (n,)]))
            n += 1

    task = asyncio.ensure_future(load())
    for k in range(5):
        await db.write(rows)
        await db.backup(tmp_path / f"{k}.db")
        found = on_disk(tmp_path / f"{k}.db")
        assert found == [n for n in range(len(found) // 2) for _ in (0, 1)]
    stop = True
    await task


async def test_reads_and_writes_go_on_beside_a_backup(db, tmp_path, monkeypatch):
    """A backup has a connection of its own, and copies the state in which it began."""
    entered, proceed = threading.Event(), threading.Event()

    def look_on(conn, *arguments, **options):
        conn.execute("BEGIN")
        conn.execute("SELECT count(*) FROM t").fetchone()
        entered.set()
        assert proceed.wait(10)
        back_up(conn, *arguments, **options)

    monkeypatch.setattr(database_module, "back_up", look_on)
    await db.write(insert(1))
    copying = asyncio.ensure_future(db.backup(tmp_path / "copy.db"))
    await asyncio.to_thread(entered.wait)
    before = await db.read(rows)
    await db.write(insert(2))
    assert (before, await db.read(rows)) == ([1], [1, 2])
    proceed.set()
    await copying
    assert on_disk(tmp_path / "copy.db") == [1]


@pytest.mark.parametrize("how", ["cancelled", "closed", "opened anew"])
async def test_a_backup_that_is_stopped_leaves_nothing(path, tmp_path, monkeypatch, how):
    """It stops between two steps, so that closing does not wait for gigabytes; and its thread ends."""
    monkeypatch.setattr(backups_module, "_PAGES_AT_ONCE", 1)
    entered, proceed = threading.Event(), threading.Event()

    def look_on(conn, *arguments, stopped, **options):
        def is_stopped():
            entered.set()
            assert proceed.wait(10)
            return stopped()

        back_up(conn, *arguments, stopped=is_stopped, **options)

    monkeypatch.setattr(database_module, "back_up", look_on)
    db = await Database.open(path, prepare=prepare)
    copying = asyncio.ensure_future(db.backup(tmp_path / "copy.db"))
    await asyncio.to_thread(entered.wait)
    if how == "cancelled":
        copying.cancel()
        stopping = copying
    else:
        stopping = asyncio.ensure_future(db.aclose() if how == "closed" else db.reopen())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    proceed.set()
    await asyncio.wait([stopping, copying])
    if how == "cancelled":
        assert copying.cancelled()
    else:
        with pytest.raises(JournalAccessError, match="the backup was stopped"):
            await copying
    assert sorted(each.name for each in tmp_path.iterdir() if "copy" in each.name) == []
    assert not [thread.name for thread in threading.enumerate() if thread.name == "durable-backup"]
    await db.aclose()


async def test_closing_is_bounded_although_a_call_hangs(path, monkeypatch):
    """A statement that does not end is interrupted; the thread is joined."""
    monkeypatch.setattr(database_module, "CLOSE_SECONDS", 0.05)
    db = await Database.open(path, prepare=prepare)
    endless = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT max(n) FROM c"
    entered = threading.Event()

    def run(conn):
        entered.set()
        return conn.execute(endless).fetchone()

    task = asyncio.ensure_future(db.write(run))
    assert await asyncio.to_thread(entered.wait, 10)
    await db.aclose()
    with pytest.raises(JournalError, match="interrupted"):
        await task
    assert not threads()


async def test_a_call_that_cannot_be_interrupted_is_abandoned_and_told(path, monkeypatch):
    """Closing returns all the same; the thread is a daemon and ends when its call does."""
    monkeypatch.setattr(database_module, "CLOSE_SECONDS", 0.05)
    monkeypatch.setattr(database_module, "INTERRUPTED_SECONDS", 0.05)
    db = await Database.open(path, prepare=prepare)
    gate = Gate(rows)
    task = asyncio.ensure_future(db.write(gate))
    await gate.inside()
    await db.aclose()
    assert "abandoned" in db.notices[-1]
    assert all(t.daemon for t in threading.enumerate() if t.name == "durable-writer")
    gate.go.set()
    assert await task == []
    for thread in threading.enumerate():
        if thread.name == "durable-writer":
            thread.join(10)
    assert not threads()
    gc.collect()


def test_a_program_that_crashes_with_an_open_database_ends(path):
    """The threads never keep the process alive; what was acknowledged is in the file."""
    script = """
        import asyncio, sys
        from durable._shell.storage.database import STARVED_SECONDS, Database

        async def main():
            db = await Database.open(sys.argv[1], prepare=lambda conn: conn.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)"))
            await db.write(lambda conn: conn.execute("INSERT INTO t(v) VALUES ('kept')"))
            await db.read(lambda conn: None)
            print("raising", flush=True)
            raise SystemError("crash")

        asyncio.run(main())
    """  # noqa: E501
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    ) as process:  # fmt: skip
        assert process.stdout.readline() == "raising\n"
        _, error = process.communicate(timeout=20)
    assert process.returncode == 1
    assert error.rstrip().endswith("SystemError: crash")
    assert on_disk(path) == ["kept"]


def test_a_loop_that_ends_during_a_write_does_not_keep_the_process(path):
    """The write completes or not, as a whole; the process ends."""
    script = """
        import asyncio, sys
        from durable._shell.storage.database import STARVED_SECONDS, Database

        async def main():
            db = await Database.open(sys.argv[1], prepare=lambda conn: conn.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)"))
            task = asyncio.ensure_future(db.write(lambda conn: conn.execute("INSERT INTO t(v) VALUES (1)")))
            await asyncio.sleep(0)

        asyncio.run(main())
    """  # noqa: E501
    assert child(script, path).returncode == 0
    assert on_disk(path) in ([], [1])


# --- the guard ------------------------------------------------------------------------------------------

REFUSED_WORDS = [
    "COMMIT", "commit", " \n\tRollback", "-- x\nEND", "/* a */ /* b */BEGIN", ";COMMIT", "\ufeffCOMMIT",
    "SAVEPOINT s", "RELEASE s", "ATTACH 'x' AS y", "DETACH y", "VACUUM", "PRAGMA synchronous = OFF", "/* open",
]  # fmt: skip


@pytest.mark.parametrize("sql", REFUSED_WORDS[:-1])
def test_control_statements_are_refused_by_their_word(sql):
    """Whatever comments and blanks stand before it."""
    with pytest.raises(TransactionRefusedError):
        refuse_control(sql)


@pytest.mark.parametrize("sql", ["SELECT 'COMMIT'", "", "INSERT INTO t VALUES (1) -- COMMIT", "/* open", "ENDING"])
def test_other_statements_pass(sql):
    """The word is looked for at the start only, as a whole."""
    refuse_control(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO durable_events(v) VALUES (1)",
        "UPDATE Durable_Events SET v = 1",
        "DELETE FROM durable_events",
        "DROP TABLE durable_events",
        "ALTER TABLE durable_events ADD COLUMN w",
        "CREATE INDEX mine ON durable_events(v)",
        "CREATE TRIGGER mine AFTER INSERT ON durable_events BEGIN SELECT 1; END",
        "CREATE TRIGGER mine AFTER INSERT ON t BEGIN DELETE FROM durable_events; END; ",
        "CREATE TEMP TABLE durable_events(a)",
        "CREATE TEMP VIEW runs AS SELECT 1",
        "DROP VIEW history",
        "WITH x AS (SELECT 1) INSERT INTO durable_events(v) SELECT 1 FROM x",
    ],
)
async def test_our_tables_cannot_be_written_by_the_application(either, sql):
    """Refused with the statement and the reason; a trigger counts by what it does."""
    await either.write(lambda conn: conn.execute("CREATE VIEW history AS SELECT * FROM durable_events"))

    def use(conn):
        if sql.startswith("CREATE TRIGGER mine AFTER INSERT ON t"):
            either.guard.perform(conn, sql)  # creating it is harmless ...
            either.guard.perform(conn, "INSERT INTO t(v) VALUES (1)")  # ... firing it is not
        return either.guard.perform(conn, sql)

    with pytest.raises(TransactionRefusedError, match="read-only"):
        await either.write(use)


async def test_the_applications_own_sql_passes(either):
    """Its tables, its columns of any name, and reading ours."""

    def use(conn):
        guard = either.guard
        guard.perform(conn, "CREATE TABLE orders(id INTEGER PRIMARY KEY, history, durable_x)")
        guard.perform_many(conn, "INSERT INTO orders(history) VALUES (?)", [(1,), (2,)])
        guard.perform(conn, "UPDATE orders SET history = history + :n, durable_x = 1", {"n": 1})
        guard.perform(conn, "CREATE INDEX by_history ON orders(history)")
        assert guard.perform(conn, "SELECT name FROM pragma_table_info('orders')").fetchall()
        assert guard.perform(conn, "SELECT count(*) FROM durable_events").fetchone() == (0,)
        return guard.perform(conn, "SELECT sum(history) FROM orders").fetchone()[0]

    assert await either.write(use) == 5


async def test_a_statement_of_ours_in_the_cache_does_not_open_the_door(either):
    """The authorizer is asked at preparation only: the application's text is kept apart from ours."""
    text = "INSERT INTO durable_events(v) VALUES (?)"
    for _ in range(2):
        await either.write(lambda conn: conn.execute(text, (1,)))
        with pytest.raises(TransactionRefusedError) as caught:
            await either.write(lambda conn: either.guard.perform(conn, text, (2,)))
        assert caught.value.sql == text
    assert await either.read(lambda conn: conn.execute("SELECT count(*) FROM durable_events").fetchone()) == (2,)


async def test_a_guarded_function_cannot_end_its_transaction(either):
    """`run` guards a raw connection too, and the guard is off again afterwards."""
    for sql in ("COMMIT /* now */", "SAVEPOINT s", "ATTACH ':memory:' AS y", "PRAGMA foreign_keys = OFF"):
        with pytest.raises(TransactionRefusedError, match="engine"):
            await either.write(lambda conn, sql=sql: either.guard.run(conn, lambda conn: conn.execute(sql)))
        assert not either.guard.active
    with pytest.raises(sqlite3.OperationalError):
        await either.write(lambda conn: either.guard.perform(conn, "SELEC"))
    await either.write(insert("fine"))
    assert await either.read(rows) == ["fine"]


def test_a_guard_that_is_off_refuses_nothing():
    """The engine's own statements pass."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as conn:
        Guard().install(conn)
        prepare(conn)
        conn.execute("BEGIN")
        conn.execute("INSERT INTO durable_events(v) VALUES (1)")
        conn.execute("COMMIT")


@pytest.mark.parametrize("told", [False, True], ids=["bare", "told"])
async def test_a_read_that_fails_half_way_does_not_hold_on_to_what_it_saw(either, told):
    """A SELECT of which rows are left, in the frames of an error that somebody keeps: later reads see later commits."""
    database = either
    await database.write(lambda conn: conn.execute("CREATE TABLE numbers (number)"))
    await database.write(lambda conn: conn.executemany("INSERT INTO numbers VALUES (?)", [(1,), (2,), (3,)]))

    def fail(conn):
        rows = conn.execute("SELECT number FROM numbers")
        for (number,) in rows:
            raise ValueError(number)

    def tell(conn):
        try:
            fail(conn)
        except ValueError as error:
            raise ValueError("a row that cannot be read") from error

    with pytest.raises(ValueError, match=r"1|read") as kept:
        await database.read(tell if told else fail)
    await database.write(lambda conn: conn.execute("INSERT INTO numbers VALUES (4)"))
    assert await database.read(lambda conn: conn.execute("SELECT count(*) FROM numbers").fetchone()) == (4,)
    assert kept.value.__traceback__ is not None
