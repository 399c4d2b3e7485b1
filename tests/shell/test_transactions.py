"""
Transactions: their rows, staged jobs, journal entry and turn commit together, or not at all.
"""

import asyncio
import sqlite3

import pytest

from durable import Flow, Limit, Retry, Return, RunFailedError, gather, job, step, transaction, wait_for, workflow
from durable.errors import KeyConflictError, LimitReachedError, TransactionRefusedError, UsageError

pytestmark = pytest.mark.anyio

JOURNALS = pytest.mark.parametrize("journal", ["memory", "file"])


@transaction
def make_table(tx) -> None:
    tx.execute("CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)")


@transaction
def note(tx, text: str) -> int:
    return tx.execute("INSERT INTO notes (text) VALUES (?)", (text,)).lastrowid


@transaction
async def note_async(tx, text: str) -> int:
    cursor = await tx.execute("INSERT INTO notes (text) VALUES (?)", (text,))
    await asyncio.sleep(0)
    rows = await tx.execute("SELECT count(*) FROM notes")
    assert rows.fetchone()[0] >= 1
    return cursor.lastrowid


@job
async def leaf(text: str) -> str:
    return text


async def notes(engine):
    return [
        text
        for (text,) in await engine._backend.read(lambda c: c.execute("SELECT text FROM notes ORDER BY id").fetchall())
    ]


async def all_runs(engine):
    return [info async for info in engine.runs()]


@workflow
async def prepare() -> Flow[None]:
    yield make_table()


@JOURNALS
async def test_a_chain_of_sync_and_async_transactions(engines, journal):
    """
    In order, each with its value, each exactly once.
    """

    @workflow
    async def chain() -> Flow[list]:
        yield make_table()
        ids = []
        for number in range(3):
            ids.append((yield note(f"s{number}")))
            ids.append((yield note_async(f"a{number}")))
        ids.append((yield note("last")))
        yield Return(ids)

    engine = await getattr(engines, journal)(chain)
    assert await engine.run(chain()) == [1, 2, 3, 4, 5, 6, 7]
    assert await notes(engine) == ["s0", "a0", "s1", "a1", "s2", "a2", "last"]


@JOURNALS
async def test_many_runs_write_at_once(engines, journal):
    """
    Transactions of many runs share commit groups; every row is there once.
    """

    @workflow
    async def one(number: int) -> Flow[int]:
        first: int = yield note(f"{number}.a")
        second: int = yield note_async(f"{number}.b")
        yield Return(second - first)

    engine = await getattr(engines, journal)(one, prepare)
    await engine.run(prepare())
    runs = await engine.start_many([one(number) for number in range(40)])
    for run in runs:
        await run.result(10)
    assert sorted(await notes(engine)) == sorted(f"{n}.{x}" for n in range(40) for x in "ab")


@JOURNALS
@pytest.mark.parametrize("is_async", [False, True])
async def test_a_failed_transaction_leaves_nothing(engines, journal, is_async):
    """
    Its rows and staged jobs are rolled back, and its error is raised in the workflow, by its original type.
    """

    def body(tx):
        tx.execute("INSERT INTO notes (text) VALUES ('gone')")
        tx.enqueue(leaf("never"))
        raise LookupError("no such thing")

    async def body_async(tx):
        await tx.execute("INSERT INTO notes (text) VALUES ('gone')")
        tx.enqueue(leaf("never"))
        raise LookupError("no such thing")

    failing = transaction(body_async if is_async else body)

    @workflow
    async def tries() -> Flow[str]:
        yield make_table()
        try:
            yield failing()
        except LookupError as error:
            yield note("after")
            yield Return(str(error))

    engine = await getattr(engines, journal)(tries, leaf)
    assert await engine.run(tries()) == "no such thing"
    assert await notes(engine) == ["after"]
    assert [info.workflow for info in await all_runs(engine)] == ["tries"]


async def test_a_failing_transaction_does_not_harm_others_in_the_group(engines):
    """
    Twenty at once, every second fails: the others' rows are all there.
    """

    @transaction
    def picky(tx, number: int) -> int:
        tx.execute("INSERT INTO notes (text) VALUES (?)", (str(number),))
        if number % 2:
            raise ValueError(number)
        return number

    @workflow
    async def one(number: int) -> Flow[int]:
        value: int = yield picky(number)
        yield Return(value)

    engine = await engines.file(one, prepare)
    await engine.run(prepare())
    runs = await engine.start_many([one(number) for number in range(20)])
    for number, run in enumerate(runs):
        if number % 2:
            with pytest.raises(RunFailedError):
                await run.result(5)
        else:
            assert await run.result(5) == number
    assert sorted(await notes(engine), key=int) == [str(number) for number in range(0, 20, 2)]


async def test_members_of_a_gather_may_be_transactions(engines):
    """
    Beside steps and jobs; one failing leaves the others' rows.
    """

    @transaction
    def failing(tx) -> None:
        tx.execute("INSERT INTO notes (text) VALUES ('gone')")
        raise ValueError("no")

    @step
    async def shout(text: str) -> str:
        return text.upper()

    @workflow
    async def both() -> Flow[list]:
        yield make_table()
        values = yield gather(note("a"), shout("b"), failing(), note_async("c"), leaf("d"), return_exceptions=True)
        yield Return([type(v).__name__ if isinstance(v, Exception) else v for v in values])

    engine = await engines.memory(both, leaf)
    assert await engine.run(both()) == [1, "B", "ValueError", 2, "d"]
    assert await notes(engine) == ["a", "c"]


@JOURNALS
@pytest.mark.parametrize("is_async", [False, True])
async def test_staged_jobs_exist_if_the_transaction_commits(engines, journal, is_async):
    """
    `enqueue` gives the id of a run that starts with the commit.
    """

    def body(tx, text):
        tx.execute("INSERT INTO notes (text) VALUES (?)", (text,))
        return tx.enqueue(leaf(text))

    async def body_async(tx, text):
        await tx.execute("INSERT INTO notes (text) VALUES (?)", (text,))
        return tx.enqueue(leaf(text))

    staging = transaction(body_async if is_async else body)

    @workflow
    async def stages() -> Flow[str]:
        yield make_table()
        run_id: str = yield staging("hello")
        yield Return(run_id)

    engine = await getattr(engines, journal)(stages, leaf)
    run_id = await engine.run(stages())
    assert await engine.get(run_id).result(5) == "hello"


@JOURNALS
@pytest.mark.parametrize("is_async", [False, True])
async def test_a_staged_run_with_a_taken_key_is_joined_or_refused_at_the_call(engines, journal, is_async):
    """
    `enqueue` gives the id of the run that has the key; what it raises can be caught, and then leaves nothing behind.
    """

    @job(key=lambda name, version: f"welcome-{name}")
    async def welcome(name: str, version: int) -> int:
        return version

    def stage(tx, version):
        try:
            return tx.enqueue(welcome("ada", version))
        except KeyConflictError as error:
            return f"taken by {error.run_id}"

    def body(tx, version):
        tx.execute("INSERT INTO notes (text) VALUES (?)", (str(version),))
        return stage(tx, version)

    async def body_async(tx, version):
        await tx.execute("INSERT INTO notes (text) VALUES (?)", (str(version),))
        return stage(tx, version)

    staging = transaction(body_async if is_async else body)

    @workflow
    async def stages() -> Flow[list]:
        yield make_table()
        first: str = yield staging(1)
        joined: str = yield staging(1)
        refused: str = yield staging(2)
        yield Return([first, joined, refused])

    engine = await getattr(engines, journal)(stages, welcome)
    first, joined, refused = await engine.run(stages())
    assert (joined, refused) == (first, f"taken by {first}")
    assert await engine.get(first).result(5) == 1
    assert [info.run_id for info in await all_runs(engine) if info.workflow == "welcome"] == [first]
    assert await notes(engine) == ["1", "1", "2"]


@JOURNALS
@pytest.mark.parametrize("is_async", [False, True])
async def test_a_staged_run_that_is_refused_leaves_nothing(engines, journal, is_async, clock):
    """
    Its key was free to be taken, its limit was reached: whoever has the key still has it.
    """
    release = asyncio.Event()

    @workflow(key=lambda: "only", key_ttl=10, limit=Limit("one", concurrency=1, on_conflict="reject"))
    async def only() -> Flow[None]:
        yield holds()

    @step
    async def holds() -> None:
        await release.wait()

    def stage(tx):
        try:
            return tx.enqueue(only())
        except LimitReachedError:
            return "refused"

    async def stage_async(tx):
        return stage(tx)

    staging = transaction(stage_async if is_async else stage)

    @workflow
    async def stages() -> Flow[str]:
        said: str = yield staging()
        yield Return(said)

    engine = await getattr(engines, journal)(stages, only, clock=clock)
    first = await engine.start(only())
    while (await first.info()).started_at is None:  # from then on it holds its key for so long
        await asyncio.sleep(0.001)
    await (await engine.start(stages(), id="early")).result(5)
    clock.advance(11)
    assert await engine.run(stages()) == "refused"
    assert (await engine.find("only")).id == first.id
    release.set()
    await first.result(5)


@pytest.mark.parametrize("is_async", [False, True])
@JOURNALS
async def test_what_a_failed_transaction_staged_never_starts(engines, journal, is_async):
    """
    Neither its rows nor its jobs are there; those of the attempt that commits are.
    """
    attempts = []

    def body(tx):
        attempts.append(tx.enqueue(leaf("staged")))
        if len(attempts) == 1:
            raise ConnectionError

    async def body_async(tx):
        body(tx)

    staging = transaction(retry=Retry(attempts=2, delay=0.0))(body_async if is_async else body)

    @workflow
    async def stages() -> Flow[None]:
        yield staging()

    engine = await getattr(engines, journal)(stages, leaf)
    await engine.run(stages())
    await engine.idle()
    assert [info.run_id for info in await all_runs(engine) if info.workflow == "leaf"] == [attempts[1]]


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(
    "sql",
    [
        "COMMIT",
        "ROLLBACK",
        "/* sly */ commit",
        "SAVEPOINT x",
        "ATTACH 'other.db' AS other",
        "VACUUM",
        "PRAGMA synchronous = OFF",
        "DELETE FROM durable_events",
        "UPDATE durable_runs SET status = 'succeeded'",
        "INSERT INTO Durable_Inbox (run) VALUES (1)",
        "DROP TABLE durable_runs",
        "CREATE TRIGGER t AFTER INSERT ON durable_events BEGIN SELECT 1; END",
        "ALTER TABLE durable_runs RENAME TO mine",
        "CREATE TABLE durable_mine (x)",
        "DROP VIEW history",
    ],
)
async def test_sql_that_would_harm_the_journal_is_refused(engines, sql, is_async):
    """
    TransactionRefusedError in the function, which may catch it; the journal goes on.
    """

    def body(tx):
        with pytest.raises(TransactionRefusedError):
            tx.execute(sql)

    async def body_async(tx):
        with pytest.raises(TransactionRefusedError):
            await tx.execute(sql)

    harm = transaction(body_async if is_async else body)

    @workflow
    async def tries() -> Flow[str]:
        yield make_table()
        yield harm()
        yield note("fine")
        yield Return("ok")

    engine = await engines.memory(tries)
    assert await engine.run(tries()) == "ok"
    assert await notes(engine) == ["fine"]


async def test_reading_the_engines_tables_is_allowed(engines):
    """
    The application may look at the journal in its own transactions.
    """

    @transaction
    def count(tx) -> int:
        return tx.execute("SELECT count(*) FROM runs").fetchone()[0]

    @workflow
    async def counts() -> Flow[int]:
        value: int = yield count()
        yield Return(value)

    engine = await engines.memory(counts)
    assert await engine.run(counts()) == 1


@JOURNALS
async def test_wrong_sql_fails_the_transaction_alone(engines, journal):
    """
    A missing table, a constraint: the workflow's to catch, nobody else's.
    """

    @transaction
    def missing(tx) -> None:
        tx.execute("INSERT INTO nowhere VALUES (1)")

    @transaction
    def broken(tx) -> None:
        tx.execute("INSERT INTO notes (text) VALUES (NULL)")

    @transaction
    async def missing_async(tx) -> None:
        await tx.execute("INSERT INTO nowhere VALUES (1)")

    @workflow
    async def tries() -> Flow[list]:
        yield make_table()
        caught = []
        for bad in (missing, broken, missing_async):
            try:
                yield bad()
            except sqlite3.Error as error:
                caught.append(type(error).__name__)
        yield note("fine")
        yield Return(caught)

    engine = await getattr(engines, journal)(tries)
    assert await (await engine.start(tries())).result(5) == ["OperationalError", "IntegrityError", "OperationalError"]
    assert await notes(engine) == ["fine"]


async def test_a_transaction_can_be_retried(engines):
    """
    `retry=` of a transaction is as that of a step; each attempt begins with nothing written.
    """
    attempts = []

    @transaction(retry=Retry(attempts=3, delay=0.0))
    def flaky(tx) -> str:
        tx.execute("INSERT INTO notes (text) VALUES ('once')")
        attempts.append(1)
        if len(attempts) < 3:
            raise ConnectionError
        return "ok"

    @workflow
    async def tries() -> Flow[str]:
        yield make_table()
        value: str = yield flaky()
        yield Return(value)

    engine = await engines.memory(tries)
    assert await (await engine.start(tries())).result(5) == "ok"
    assert len(attempts) == 3
    assert await notes(engine) == ["once"]


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_transaction_kept_beyond_its_function_is_refused(engines, is_async):
    """
    Nobody writes through it later.
    """
    kept = []

    def body(tx):
        kept.append(tx)

    async def body_async(tx):
        kept.append(tx)

    keeping = transaction(body_async if is_async else body)

    @workflow
    async def keeps() -> Flow[None]:
        yield keeping()

    engine = await engines.memory(keeps)
    await engine.run(keeps())
    with pytest.raises(UsageError, match="ended"):
        if is_async:
            await kept[0].execute("SELECT 1")
        else:
            kept[0].execute("SELECT 1")


async def test_a_value_that_cannot_be_recorded_rolls_the_transaction_back(engines):
    """
    No rows without their journal entry.
    """

    @transaction
    def odd(tx) -> object:
        tx.execute("INSERT INTO notes (text) VALUES ('gone')")
        tx.enqueue(leaf("never"))
        return object()

    @transaction
    async def odd_async(tx) -> object:
        await tx.execute("INSERT INTO notes (text) VALUES ('gone')")
        tx.enqueue(leaf("never"))
        return object()

    @workflow
    async def tries() -> Flow[list]:
        yield make_table()
        caught = []
        for bad in (odd, odd_async):
            try:
                yield bad()
            except Exception as error:
                caught.append(type(error).__name__)
        yield Return(caught)

    engine = await engines.memory(tries, leaf)
    assert await (await engine.start(tries())).result(5) == ["EncodeError", "EncodeError"]
    assert await notes(engine) == []
    assert len(await all_runs(engine)) == 1


async def test_a_transaction_is_not_repeated_after_a_crash(engines, reached):
    """
    Its row and its journal entry are in one commit: both are there, or neither.
    """

    @workflow
    async def writes() -> Flow[str]:
        yield make_table()
        yield note("one")
        yield note_async("two")
        value: str = yield wait_for("go")
        yield note("three")
        yield Return(value)

    engine = await engines.file(writes)
    run = await engine.start(writes(), id="r")
    await reached(run, "waiting")
    await engines.crash(engine)
    engine = await engines.file(writes)
    run = engine.get("r")
    await run.signal("go", "ok")
    assert await run.result(5) == "ok"
    assert await notes(engine) == ["one", "two", "three"]


async def test_a_long_async_transaction_delays_writes_and_loses_none(engines):
    """
    It has the writer to itself; what others want to write waits, and is written.
    """
    began, go = asyncio.Event(), asyncio.Event()

    @transaction
    async def slow(tx) -> None:
        await tx.execute("INSERT INTO notes (text) VALUES ('slow')")
        began.set()
        await go.wait()

    @workflow
    async def holds() -> Flow[None]:
        yield slow()

    engine = await engines.file(holds, prepare, leaf)
    await engine.run(prepare())
    run = await engine.start(holds())
    await began.wait()
    starting = asyncio.create_task(engine.run(leaf("x")))
    assert await notes(engine) == []  # readers see the last commit
    go.set()
    await run.result(5)
    assert await starting == "x"
    assert await notes(engine) == ["slow"]


async def test_cancelling_a_run_during_its_async_transaction(engines):
    """
    Whatever the moment, rows and journal agree, and the engine goes on.
    """
    began, go = asyncio.Event(), asyncio.Event()

    @transaction
    async def slow(tx) -> None:
        await tx.execute("INSERT INTO notes (text) VALUES ('slow')")
        began.set()
        await go.wait()

    @workflow
    async def holds() -> Flow[str]:
        yield slow()
        yield wait_for("go")

    engine = await engines.file(holds, prepare, leaf)
    await engine.run(prepare())
    run = await engine.start(holds())
    await began.wait()
    cancelling = asyncio.create_task(run.cancel())
    await asyncio.sleep(0.01)
    go.set()
    await cancelling
    with pytest.raises(Exception, match="cancelled"):
        await run.result(5)
    assert await notes(engine) == ["slow"]
    assert await engine.run(leaf("x")) == "x"


async def test_a_request_to_the_engine_inside_an_async_transaction_is_refused(engines):
    """
    It would wait for the writer, which the transaction holds: a clear error instead of a deadlock.
    """
    box = []

    @job
    async def later() -> None: ...

    @transaction
    async def starting(tx) -> None:
        await box[0].start(later())

    @workflow
    async def wrong() -> Flow[None]:
        yield starting()

    engine = await engines.memory(wrong, later)
    box.append(engine)
    with pytest.raises(RunFailedError) as failed:
        await engine.run(wrong())
    assert isinstance(failed.value.__cause__, UsageError)
    assert "tx.enqueue" in str(failed.value)
    await engine.run(later())


@transaction
def gives_up(tx) -> None:
    tx.execute("INSERT INTO notes (text) VALUES ('given up')")
    raise asyncio.CancelledError


@transaction
async def gives_up_async(tx) -> None:
    await tx.execute("INSERT INTO notes (text) VALUES ('given up')")
    raise asyncio.CancelledError


@JOURNALS
@pytest.mark.parametrize("given_up", [gives_up, gives_up_async])
async def test_a_transaction_that_raises_cancelled_error_by_itself_has_failed(engines, journal, given_up):
    """
    Nobody cancelled it, so nobody waits for a cancellation: the run goes on, and nothing was written.
    """

    @workflow
    async def trying() -> Flow[str]:
        yield make_table()
        try:
            yield given_up()
        except RuntimeError as error:
            yield Return(str(error))

    engine = await getattr(engines, journal)(trying)
    run = await engine.start(trying())
    assert "although nobody cancelled it" in await run.result(timeout=10)
    assert await notes(engine) == []
