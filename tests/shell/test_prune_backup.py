"""
Housekeeping on a live file: what is deleted, what never is, and copies that open.
"""

import asyncio
import sqlite3
import stat
from contextlib import closing

import pytest

from durable import (
    Client,
    Engine,
    Flow,
    Return,
    continue_as,
    gather,
    job,
    set_attributes,
    settle,
    start,
    step,
    wait_for,
    workflow,
)
from durable._shell.handles.journal import backend_of
from durable._shell.requests import prune_requests
from durable._shell.requests.prune_requests import PruneRuns
from durable._shell.storage import database
from durable.errors import JournalError, RunCancelledError, RunNotFoundError, RunStateError

pytestmark = pytest.mark.anyio


@job
async def quick(number: int) -> int:
    return number


@job
async def large(size: int) -> str:
    return "x" * size


@workflow
async def waiting() -> Flow[str]:
    value: str = yield wait_for("go")
    yield Return(value)


@workflow
async def parent(wait: bool) -> Flow[int]:
    yield start(waiting())
    values: list[int] = yield gather(quick(1), quick(2))
    if wait:
        yield wait_for("go")
    yield Return(sum(values))


async def ids(engine):
    return sorted([info.run_id async for info in engine.runs()])


async def rows(engine, table):
    return await engine._backend.read(lambda conn: conn.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


async def test_prune_deletes_what_ended_long_ago(engines, clock):
    """
    Runs, events and payloads that nobody needs; younger ones stay.
    """
    engine = await engines.file(quick, large, clock=clock)
    await engine.run(quick(1), id="old")
    await engine.run(large(10_000), id="large")
    clock.advance(100)
    await engine.run(quick(2), id="new")
    assert await engine.prune(older_than=50) == 2
    assert await ids(engine) == ["new"]
    assert await rows(engine, "durable_payloads") == 0
    assert await rows(engine, "durable_events") == 3
    assert await engine.prune(older_than=50) == 0
    assert await engine.get("new").result(5) == 2


async def test_prune_keeps_trees_with_an_open_member(engines, clock, reached):
    """
    A tree goes as a whole, once all of it has ended.
    """
    engine = await engines.memory(parent, quick, waiting, clock=clock)
    run = await engine.start(parent(False), id="p")
    assert await run.result(5) == 3
    (child,) = [info for info in await run.children() if info.workflow == "waiting"]
    clock.advance(100)
    assert await engine.prune(older_than=50) == 0
    await engine.get(child.run_id).signal("go", "x")
    await engine.get(child.run_id).result(5)
    assert await engine.prune(older_than=50) == 0  # the child is young
    clock.advance(100)
    assert await engine.prune(older_than=50) == 4
    assert await ids(engine) == []


async def test_prune_keeps_children_of_an_open_parent(engines, clock, reached):
    """
    Its replay needs their outcomes, and `children()` lists them.
    """
    engine = await engines.memory(parent, quick, waiting, clock=clock)
    run = await engine.start(parent(True), id="p")
    await reached(run, "waiting")
    clock.advance(100)
    assert await engine.prune(older_than=50) == 0
    await run.signal("go")
    assert await run.result(5) == 3


async def test_prune_goes_on_beyond_one_transaction(engines, clock):
    """
    Thousands of runs, in short transactions, each deleted once.
    """
    engine = await engines.memory(quick, clock=clock)
    for run in await engine.start_many([quick(number) for number in range(450)]):
        await run.result(5)
    clock.advance(100)
    assert await engine.prune(older_than=50) == 450
    for table in ("durable_runs", "durable_events", "durable_waits", "durable_inbox", "durable_notes", "durable_dedup"):
        assert await rows(engine, table) == 0


async def test_a_pruned_runs_key_is_free_if_that_was_asked_for(engines, clock):
    """
    It starts anew.
    """
    engine = await engines.memory(quick, clock=clock)
    first = await engine.start(quick(1), key="k")
    await first.result(5)
    clock.advance(100)
    await engine.prune(older_than=50, keep_keys=False)
    assert await engine.run(quick(2), key="k") == 2


async def test_run_numbers_are_not_given_twice_after_pruning(engines, clock):
    """
    A page cursor from before never shows a new run as an old one.
    """
    engine = await engines.file(quick, clock=clock)
    run = await engine.start(quick(1))
    await run.result(5)
    cursor = (await run.info()).cursor
    clock.advance(100)
    await engine.prune(older_than=50)
    second = await engine.start(quick(2))
    assert (await second.info()).cursor > cursor


async def test_keep_finished_prunes_by_itself(engines, monkeypatch, eventually):
    """
    `keep_finished=` seconds after their end, trees go.
    """
    from durable._shell.tasks import housekeeping as module

    monkeypatch.setattr(module, "IDENTITY_SECONDS", 0.01)

    class Jumping:
        """A monotonic clock on which a minute passes at each look."""

        def __init__(self):
            self.at = 0.0

        def now(self):
            return 1e9 + self.at

        def monotonic(self):
            self.at += 61.0
            return self.at

        async def sleep(self, seconds):
            await asyncio.sleep(min(seconds, 0.01))

    engine = await engines.memory(quick, keep_finished=10, clock=Jumping())
    run = await engine.start(quick(1))
    await run.result(5)

    async def gone():
        return await ids(engine) == []

    await eventually(gone)


async def test_a_backup_under_load_is_complete_and_opens(engines, tmp_path):
    """
    Taken while runs are under way: it verifies, has mode 0600, and an engine goes on from it.
    """
    engine = await engines.file(quick, waiting)
    held = await engine.start(waiting(), id="held")
    await engine.run(quick(1), id="done")
    busy = asyncio.create_task(_load(engine))
    copy = tmp_path / "copy.db"
    await engine.backup(copy)
    await busy
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    conn = sqlite3.connect(copy)
    assert conn.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    conn.close()
    async with Engine(copy, [quick, waiting]) as other:
        assert await other.get("done").result(5) == 1
        await other.get("held").signal("go", "in the copy")
        assert await other.get("held").result(5) == "in the copy"
    assert await held.status() in ("waiting", "running")


async def _load(engine):
    for number in range(20):
        await engine.run(quick(number))


async def test_a_backup_never_overwrites(engines, tmp_path):
    """
    An existing file is refused.
    """
    engine = await engines.file(quick)
    target = tmp_path / "there.db"
    target.write_text("precious")
    with pytest.raises(JournalError):
        await engine.backup(target)
    assert target.read_text() == "precious"


async def test_a_memory_journal_can_be_kept(engines, tmp_path):
    """
    Its backup is an ordinary file.
    """
    engine = await engines.memory(quick)
    await engine.run(quick(4), id="four")
    await engine.backup(tmp_path / "kept.db")
    async with Engine(tmp_path / "kept.db", [quick]) as other:
        assert await other.get("four").result(5) == 4


async def test_a_follow_up_forgets_the_pruned_run_that_started_it(engines, clock, eventually):
    """
    The number of that run may be given to another one.
    """

    @job
    async def work() -> None: ...

    engine = await engines.memory(work, clock=clock)
    first = await engine.start(work().then(work().options(delay=60)))
    await first.result(5)
    clock.advance(61)

    async def both_ended():
        infos = [info async for info in engine.runs()]
        return len(infos) == 2 and all(info.ended_at is not None for info in infos)

    await eventually(both_ended)
    clock.advance(1)
    assert await engine.prune(older_than=50) == 1
    (left,) = [info async for info in engine.runs()]
    assert left.follows is None
    assert await engine._backend.read(lambda conn: conn.execute("SELECT follows FROM durable_runs").fetchall()) == [
        (None,)
    ]


async def test_a_chain_of_continued_runs_is_known_by_its_first_as_long_as_it_lives(engines, clock, eventually):
    """
    Pruning takes the links between the first and the latest; the whole chain goes once its last has ended long ago.
    """

    @workflow
    async def loop(number: int) -> Flow[int]:
        go: bool = yield wait_for("go", bool)
        if go:
            yield continue_as(loop(number + 1))
        yield Return(number)

    engine = await engines.memory(loop, clock=clock)
    run = await engine.start(loop(0), id="chain")

    async def ids():
        return sorted([info.run_id async for info in engine.runs()])

    for number in range(2, 6):
        await run.signal("go", payload=True)

        async def continued(number=number):
            return f"chain~{number}" in await ids()

        await eventually(continued)
        clock.advance(100)
    await engine.prune(older_than=50)
    assert await ids() == ["chain", "chain~5"]
    assert (await engine.get("chain").info()).successor == "chain~5"
    assert await engine.prune(older_than=50) == 0
    assert (await engine.start(loop(0), id="chain")) == run
    await run.signal("go", payload=False)
    assert await run.result(5) == 4
    await engine.prune(older_than=50)
    assert await ids() == ["chain", "chain~5"]
    clock.advance(100)
    assert await engine.prune(older_than=50) == 2
    assert await ids() == []


# --- without a trace ---------------------------------------------------------------------------------------


def traces(path, *secrets):
    """
    Those of *secrets* that are in the bytes of the file, or of its WAL.
    """
    there = b"".join(each.read_bytes() for each in (path, path.with_name(f"{path.name}-wal")) if each.exists())
    return [secret for secret in secrets if secret.encode() in there]


@step
async def fails(secret: str) -> int:
    error = ValueError(f"no {secret} here")
    error.add_note(f"note {secret}")
    raise error


@workflow
async def tells(secret: str) -> Flow[str]:
    set_attributes(said=secret)
    told: str = yield wait_for("go")
    yield settle(fails(secret))
    yield Return(secret + told)


@pytest.mark.parametrize("asks", ["engine", "client", "client without an engine"])
async def test_a_secure_prune_leaves_nothing_in_the_file(engines, tmp_db, asks):
    """
    Not in a page, not in the WAL, not a key: whoever asks for it; what has not ended is untouched.
    """
    engine = await engines.file(tells, quick)
    secrets = [f"SECRET-{name}" for name in ("argument", "key", "label", "signal", "id", "reason")]
    run = await engine.start(tells(secrets[0] * 9), id=secrets[4], key=secrets[1], labels={"a": secrets[2]})
    await run.signal("go", secrets[3] * 2_000)
    await run.result(5)
    waits = await engine.start(tells("KEPT"), id="waits")
    cancelled = await engine.start(tells("x"))
    await cancelled.cancel(secrets[5])
    with pytest.raises(RunCancelledError):
        await cancelled.result(5)
    await engine.prune(older_than=0)
    assert traces(tmp_db, *secrets) != []
    if asks == "engine":
        assert await engine.prune(older_than=0, secure=True) == 0
    else:
        if asks != "client":
            await engine.aclose()
        async with Client(tmp_db) as client:
            await client.start(quick(1), key="also gone")
            await client.prune(older_than=0, secure=True)
    await engine.aclose()
    assert traces(tmp_db, *(secret for secret in secrets if secret != secrets[1] and secret != secrets[4])) == []
    assert traces(tmp_db, "KEPT") == ["KEPT"]
    engine = await engines.file(tells, quick)
    await engine.get(waits.id).signal("go", "!")
    assert await engine.get(waits.id).result(5) == "KEPT!"


async def test_a_run_that_continues_in_a_circle_keeps_no_other_from_leaving(engines, tmp_db):
    """
    It stays, for whoever looks at the damage.
    """
    engine = await engines.file(quick)
    for name in ("before", "circle", "after"):
        run = await engine.start(quick(1), id=name)
        await run.result(5)
    with closing(sqlite3.connect(tmp_db)) as conn, conn:
        conn.execute("UPDATE durable_runs SET successor = 'circle' WHERE run_id = 'circle'")
    assert await engine.prune(older_than=-60) == 2
    assert [each.run_id async for each in engine.runs()] == ["circle"]


async def test_a_secure_prune_frees_the_keys_of_what_it_deletes(engines, tmp_db):
    """
    A key says whose it was; unless they are to be kept.
    """
    engine = await engines.file(quick)
    for keep, left in ((True, ["SECRET-key"]), (None, [])):
        run = await engine.start(quick(1), key="SECRET-key", on_conflict="rerun")
        await run.result(5)
        assert await engine.prune(older_than=0, keep_keys=keep, secure=True) == 1
        assert traces(tmp_db, "SECRET-key") == left
        await engine._backend.running.commits.call(lambda conn, _: conn.execute("DELETE FROM durable_keys").rowcount)


async def test_a_secure_prune_waits_for_a_reader_that_ends(engines, tmp_db, monkeypatch):
    """
    Who looks at the file for a moment does not keep what was deleted in it; others write meanwhile.
    """
    monkeypatch.setattr(database, "_EMPTYING_PAUSES", (0.0, *[0.01] * 2_000))  # as long as this machine may need
    engine = await engines.file(tells, quick)
    run = await engine.start(tells("SECRET-value"))
    await run.signal("go", "!")
    await run.result(5)
    await engine._backend.running.database.write(lambda conn: conn.execute("PRAGMA busy_timeout = 1").fetchall())
    with closing(sqlite3.connect(tmp_db, isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM durable_runs").fetchone()
        pruning = asyncio.create_task(engine.prune(older_than=-60, secure=True))
        while [each async for each in engine.runs(workflow="tells")]:
            await asyncio.sleep(0)
        await engine.run(quick(1))
        assert not pruning.done()
        other.execute("COMMIT")
        assert await pruning == 1
    assert traces(tmp_db, "SECRET-value") == []


async def test_a_scrub_is_refused_while_another_reads(engines, tmp_db):
    """
    The WAL cannot be emptied then, and that is said.
    """
    engine = await engines.file(quick)
    await engine.run(quick(1))
    await engine._backend.running.database.write(lambda conn: conn.execute("PRAGMA busy_timeout = 50").fetchall())
    with closing(sqlite3.connect(tmp_db, isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM durable_runs").fetchone()
        with pytest.raises(JournalError, match="another program reads the file"):
            await engine.scrub()
    await engine.scrub()
    assert await engine.run(quick(2)) == 2


# --- one run -----------------------------------------------------------------------------------------------


async def test_delete_removes_a_tree(engines):
    """
    A run and what it started, whatever their age; nothing of them is left, and their keys and ids are free.
    """
    engine = await engines.file(parent, quick, waiting, large)
    await engine.run(large(10_000), id="other")
    run = await engine.start(parent(False), id="p", key="k")
    await run.result(5)
    (child,) = [info.run_id for info in await run.children() if info.workflow == "waiting"]
    with pytest.raises(RunStateError, match=f"the parent of run '{child}', which is (pending|running|waiting)"):
        await engine.delete("p")
    await engine.get(child).signal("go", "x")
    await engine.get(child).result(5)
    assert await engine.delete("p") == 4
    assert await ids(engine) == ["other"]
    assert await rows(engine, "durable_payloads") == 1
    with pytest.raises(RunNotFoundError):
        await engine.delete("p")
    again = await engine.start(quick(7), id="p", key="k")
    assert await again.result(5) == 7


async def test_delete_refuses_what_is_open_or_awaited(engines, reached):
    """
    Nothing is changed.
    """
    engine = await engines.memory(parent, quick, waiting)
    run = await engine.start(parent(True), id="p")
    await reached(run, "waiting")
    with pytest.raises(RunStateError, match=r"it is waiting\. Cancel it first"):
        await engine.delete("p")
    async with engine.batch() as batch:
        batch.add(quick(1))
    await batch.wait(5)
    (member,) = [info.run_id async for info in engine.runs(batch=batch.id)]
    with pytest.raises(RunStateError, match="part of batch"):
        await engine.delete(member)
    await run.signal("go")
    assert await run.result(5) == 3


def rename_other(conn, _):
    """
    Give a run an id that no release takes any more.
    """
    conn.execute("UPDATE durable_runs SET run_id = 'c~9' WHERE run_id = 'other'")


async def test_delete_takes_a_whole_chain(engines):
    """
    Runs that continue each other go together, whichever was named; one that is only called so stays.
    """

    @workflow
    async def counts(number: int) -> Flow[int]:
        if number < 3:
            yield continue_as(counts(number + 1))
        yield Return(number)

    engine = await engines.memory(counts, quick)
    for named in ("c", "c~2", "c~3"):
        run = await engine.start(counts(1), id="c")
        assert await run.result(5) == 3
        await engine.run(quick(1), id="other")
        await engine._backend.running.commits.call(rename_other)
        assert await engine.delete(named) == 3
        assert await ids(engine) == ["c~9"]
        assert await engine.delete("c~9") == 1


async def test_delete_by_a_client_without_an_engine(engines, tmp_db):
    """
    It records it by itself.
    """
    engine = await engines.file(quick)
    await engine.run(quick(1), id="a")
    await engine.aclose()
    async with Client(tmp_db) as client:
        assert await client.delete("a") == 1
        with pytest.raises(RunNotFoundError):
            await client.delete("a")


@pytest.fixture
def transactions(monkeypatch):
    """What each request to prune, one transaction, gave back; of few events and bytes."""
    monkeypatch.setattr(prune_requests, "PRUNE_EVENTS", 5)
    monkeypatch.setattr(prune_requests, "PRUNE_BYTES", 10_000)
    monkeypatch.setattr(prune_requests, "PRUNE_PAYLOADS", 3)
    found = []
    record = PruneRuns.record

    def noted(request, *arguments):
        found.append(record(request, *arguments))
        return found[-1]

    monkeypatch.setattr(PruneRuns, "record", noted)
    return found


async def test_prune_holds_the_writer_for_few_events_and_bytes(engines, clock, transactions):
    """Runs that are long, and values that are large, are deleted in as many transactions as they need."""
    engine = await engines.file(quick, large, clock=clock)
    for number in range(8):
        await engine.run(quick(number))
        await engine.run(large(8_000 + number))
    clock.advance(60)
    assert await engine.prune(older_than=30) == 16
    assert max(each.runs for each in transactions) <= 3
    assert len([each for each in transactions if (each.following or 0) < 0]) >= 4
    assert [await rows(engine, f"durable_{table}") for table in ("runs", "events", "payloads")] == [0, 0, 0]


async def test_a_payload_that_others_have_stays(engines, clock):
    """Equal values are stored once; signals that wait have some, too."""
    engine = await engines.file(quick, large, waiting, clock=clock)
    await engine.run(large(8_000))
    run = await engine.start(waiting(), id="kept")
    clock.advance(60)
    await engine.run(large(8_000), id="younger")
    await run.signal("other", "y" * 9_000)
    assert await engine.prune(older_than=30) == 1
    assert await rows(engine, "durable_payloads") == 2
    assert await engine.get("younger").result() == "x" * 8_000
    assert await engine.delete("younger") == 1
    assert await rows(engine, "durable_payloads") == 1


async def test_what_a_prune_that_was_killed_leaves_is_found_by_the_next(engines, clock, transactions):
    """Runs go whole; their large values may stay behind, which nobody sees, until then."""
    engine = await engines.file(quick, large, clock=clock)
    for number in range(4):
        await engine.run(large(8_000 + number))
    clock.advance(60)
    after = 0
    while after >= 0:
        pruned = await backend_of(engine).request(PruneRuns(clock.now() - 30, after))
        after = pruned.following
    await engines.crash(engine)
    again = await engines.file(quick, large, clock=clock)
    assert await rows(again, "durable_runs") == 0
    assert await rows(again, "durable_payloads") > 0
    assert await again.prune(older_than=30) == 0
    assert await rows(again, "durable_payloads") == 0
