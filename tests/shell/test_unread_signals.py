"""
Signals at the end of a run: none is missed by code that asks for it, and what nobody asks for is kept and told.
"""

import asyncio
import shutil
import sqlite3
import time
from contextlib import closing

import pytest
from structlog.testing import capture_logs

from durable import (
    Flow,
    Retry,
    Return,
    continue_as,
    current,
    job,
    settle,
    sleep,
    step,
    transaction,
    wait_for,
    workflow,
)
from durable._shell.requests.request import Env
from durable._shell.requests.run_requests import SendSignal
from durable._shell.rows.rows import Effects
from durable.errors import RunCancelled, RunCancelledError, RunFailedError, RunStateError

pytestmark = pytest.mark.anyio


class Post:
    """
    Signals that commits record while a run's code is in the middle of a turn: too late for it to take them in.
    """

    def __init__(self, path):
        self.path = str(path)
        self.sent = []
        #: (name, payload) still to come, one at each call.
        self.to_come = []

    def comes(self):
        """The next signal is recorded, from another thread than that of the engine's writer, now."""
        if not self.to_come:
            return
        name, payload = self.to_come.pop(0)
        with closing(sqlite3.connect(self.path)) as conn, conn:
            env = Env(time.time(), self.path)  # durable: ok
            SendSignal(current().run_id, name, payload).record(conn, Effects(), env)
        self.sent.append((name, payload))


@pytest.fixture
def post(tmp_db):
    """
    What brings signals in the middle of a turn.
    """
    return Post(tmp_db)


@step
async def work() -> int:
    return 1


@transaction
def book(tx) -> int:
    return 1


@transaction
async def book_slowly(tx) -> int:
    return 1


async def drained():
    """All signals called "n" that are there."""
    got = []
    while (found := await settle(wait_for("n", int, timeout=0))).error is None:
        got.append(found.value)
    return got


@job
async def errand() -> int:
    return 1


async def last_words(post):
    """All signals that the code knows of; then the next one comes, of which it does not."""
    known = len(post.sent)
    post.comes()
    return [await wait_for("n", int) for _ in range(known)]


LAST = {"a step": work, "a job": errand, "a timer": lambda: sleep(0.01)}


@pytest.mark.parametrize("last", LAST)
async def test_a_turn_that_would_end_the_run_is_redone_with_the_signals_that_came_meanwhile(engines, post, last):
    """
    Whatever it began with, and again as long as the code consumes what comes: no signal is missed.
    """

    @workflow
    async def listens(last: str) -> Flow[list[int]]:
        yield LAST[last]()
        yield Return(await last_words(post))

    engine = await engines.file(listens, errand)
    post.to_come = [("n", "1"), ("n", "2"), ("n", "3")]
    run = await engine.start(listens(last))
    assert await run.result(10) == [1, 2, 3]
    kinds = [event.kind for event in await run.history()]
    assert kinds.index("SignalReceived") == 2  # before the outcome that ended the run
    assert (await run.info()).unread_signals == {}


@pytest.mark.parametrize("transaction_", [book, book_slowly])
async def test_a_transaction_whose_outcome_ends_the_run_is_redone_whole(engines, post, transaction_):
    """
    A signal that was recorded before it is delivered first; its rows are written once.
    """

    @transaction
    def count(tx) -> None:
        tx.execute("INSERT INTO counted VALUES (1)")

    @workflow
    async def books() -> Flow[list[int]]:
        yield count()
        got = await drained()
        post.comes()
        yield transaction_()
        yield count()
        yield Return(got + await drained())

    engine = await engines.file(books)
    with closing(sqlite3.connect(post.path)) as conn:
        conn.execute("CREATE TABLE counted (n)")
    post.to_come = [("n", "7")]
    run = await engine.start(books())
    assert await run.result(10) == [7]
    with closing(sqlite3.connect(post.path)) as conn:
        assert conn.execute("SELECT count(*) FROM counted").fetchone() == (2,)


@pytest.mark.parametrize("end", ["returns", "fails", "is cancelled", "runs out of time"])
async def test_however_a_run_ends_its_code_hears_what_came_before(engines, post, reached, end):
    """
    Also clean-up that takes in what is left.
    """
    heard = []

    async def hears():
        await work()
        heard.append(await last_words(post))

    @workflow
    async def waits(end: str) -> Flow[None]:
        try:
            if end == "fails":
                raise ValueError("no")
            if end != "returns":
                yield sleep(3600)
        except (ValueError, RunCancelled):
            await hears()
            raise
        await hears()

    engine = await engines.file(waits)
    post.to_come = [("n", "1")]
    run = await engine.start(waits(end).options(timeout=0.2 if end == "runs out of time" else 60))
    if end == "is cancelled":
        await reached(run, "waiting")
        await run.cancel()
    if end == "returns":
        await run.result(10)
    else:
        with pytest.raises((RunFailedError, RunCancelledError)):
            await run.result(10)
    assert heard[-1] == [1]


async def test_a_signal_behind_the_outcome_that_ends_the_run_is_not_lost(engines, clock, reached):
    """
    A timer fires, then a signal comes, and one turn takes in both: the code hears of the signal before it ends.
    """
    go = asyncio.Event()

    @job
    async def in_the_way() -> None:
        await go.wait()

    turns = []

    @workflow
    async def naps() -> Flow[list[int]]:
        yield sleep(60)
        turns.append(1)
        yield Return([(await wait_for("n", int)) for _ in turns[1:]])

    engine = await engines.memory(naps, in_the_way, clock=clock, concurrency=1)
    run = await engine.start(naps())
    await reached(run, "waiting")
    other = await engine.start(in_the_way())
    await reached(other, "running")
    clock.advance(61)
    await reached(run, "running")  # ready, and there is no room for it
    await run.signal("n", 5)
    go.set()
    assert await run.result(10) == [5]


async def test_a_flood_of_signals_that_nobody_asks_for_cannot_keep_a_run_alive(engines, post):
    """
    It is redone once for what it does not consume; the rest is kept with it, counted, and told once.
    """
    turns = []

    @workflow
    async def deaf() -> Flow[str]:
        yield work()
        turns.append(1)
        post.comes()
        yield Return("over")

    engine = await engines.file(deaf)
    post.to_come = [(f"n{number}", "1") for number in range(10)]
    with capture_logs() as logs:
        run = await engine.start(deaf(), id="r")
        assert await run.result(10) == "over"
    assert len(turns) == 2
    left = {"n0": 1, "n1": 1}
    assert (await run.info()).unread_signals == left
    told = [entry for entry in logs if entry["event"] == "signals.unread"]
    assert [(entry["log_level"], entry["run_id"], entry["signals"]) for entry in told] == [("warning", "r", left)]
    assert "it left 2 signals unread: 'n0', 'n1'" in await run.why()
    with pytest.raises(RunStateError):
        await run.signal("n0", 1)


async def test_more_signals_of_a_name_that_is_left_unread_already_change_nothing(engines, post):
    """
    Code that takes in one of several would not be asked again and again for the sake of the others.
    """
    turns = []

    @workflow
    async def takes_one() -> Flow[int]:
        turns.append(1)
        post.comes()
        yield Return((yield wait_for("n", int)))

    engine = await engines.file(takes_one)
    run = await engine.start(takes_one(), delay=0.2)
    for number in range(3):
        await run.signal("n", number)
    post.to_come = [("n", "7"), *((f"n{number}", "1") for number in range(10))]
    assert await run.result(10) == 0
    assert len(turns) == 2
    assert (await run.info()).unread_signals == {"n": 3, "n0": 1}


async def test_a_job_keeps_what_it_was_sent(engines):
    """
    No job asks for signals; what it is sent is told of all the same, and does not disturb it.
    """
    engine = await engines.file()

    @job
    async def busy() -> int:
        await run.signal("n", 1)
        return 3

    engine = await engines.memory(busy)
    run = await engine.start(busy())
    assert await run.result(5) == 3
    assert (await run.info()).unread_signals == {"n": 1}


async def test_a_run_that_never_began_keeps_its_signals(engines):
    """
    Cancelled while it was delayed: what it was sent is counted.
    """
    engine = await engines.memory(deliveries)
    run = await engine.start(deliveries(), delay=60)
    await run.signal("n", 1)
    await run.cancel()
    with pytest.raises(RunCancelledError):
        await run.result(5)
    assert (await run.info()).unread_signals == {"n": 1}


@workflow
async def deliveries() -> Flow[list[int]]:
    yield Return(await drained())


async def test_a_retry_delivers_what_was_left_unread(engines, post, clock):
    """
    What stands in the history, and what came too late for it, each once, in order; then nothing is left.
    """
    broken = [True]

    @workflow
    async def mended() -> Flow[list[int]]:
        post.comes()
        if broken:
            raise ValueError("not yet")
        yield Return(await drained())

    engine = await engines.file(mended)
    run = await engine.start(mended(), delay=0.1)
    await run.signal("n", 1)
    post.to_come = [("n", "2"), ("n", "3")]
    with pytest.raises(RunFailedError):
        await run.result(10)
    assert (await run.info()).unread_signals == {"n": 2}
    broken.clear()
    post.to_come = []
    await run.retry()
    assert await run.result(10) == [1, 2]
    assert (await run.info()).unread_signals == {}
    await engine.aclose()
    engine = await engines.file(mended, replay_always=True)
    fork = await engine.get(run.id).fork(at="0")
    assert await fork.result(10) == [1, 2]


async def test_the_next_attempt_of_a_run_gets_what_the_last_one_left_unread(engines, post):
    """
    `@workflow(retry=)`: unread signals go over, in order, and those that came since follow them.
    """
    attempts = []

    @workflow(retry=Retry(attempts=2, delay=0.01))
    async def stumbles() -> Flow[list[int]]:
        first: int = yield wait_for("n", int)
        if first == 1:
            attempts.append(first)
            post.comes()
            raise ValueError("again")
        yield Return([first, *await drained()])

    engine = await engines.file(stumbles, replay_always=True)
    run = await engine.start(stumbles(), delay=0.2)
    for number in (1, 2, 3):
        await run.signal("n", number)
    post.to_come = [("n", "4")]
    assert await run.result(10) == [2, 3, 4]
    assert attempts == [1]


async def test_a_cancel_in_the_turn_of_a_failed_attempt_is_not_lost(engines, post):
    """
    It comes together with the outcome that ends the attempt: the next one never begins.
    """

    @step
    async def fails() -> None:
        await run.cancel("enough")
        raise ValueError("no")

    @workflow(retry=Retry(attempts=2, delay=0.01))
    async def stumbles() -> Flow[None]:
        yield fails()

    engine = await engines.file(stumbles)
    run = await engine.start(stumbles())
    with pytest.raises(RunCancelledError, match="enough"):
        await run.result(10)


async def test_what_a_run_continues_as_gets_what_was_left_unread(engines, post):
    """
    In order: what the history holds, then what came too late for it; nothing is left of the first.
    """

    @workflow
    async def rounds(number: int) -> Flow[list[int]]:
        if number == 0:
            post.comes()
            yield continue_as(rounds(1))
        yield Return(await drained())

    engine = await engines.file(rounds)
    run = await engine.start(rounds(0), delay=0.2)
    await run.signal("n", 1)
    await run.signal("n", 2)
    post.to_come = [("n", "3")]
    assert await run.result(10) == [1, 2, 3]
    assert (await engine.get(run.id).info()).unread_signals == {}


async def test_pruned_runs_leave_no_signals_behind(engines, post):
    """
    What was kept with a run goes with it: the next run of its number finds nothing.
    """
    engine = await engines.memory(deliveries)
    run = await engine.start(deliveries(), delay=60)
    await run.signal("n", 1)
    await run.cancel()
    with pytest.raises(RunCancelledError):
        await run.result(5)
    await engine.prune(older_than=0)
    assert await engine.run(deliveries()) == []


async def test_it_does_not_matter_when_the_process_dies_around_a_turn_that_is_redone(engines, post, tmp_path):
    """
    Before the commit that is refused, after it, and in the turn that is redone: the signal is delivered, once.
    """
    moments = []

    def dies(moment):
        """The file as a kill at this moment would leave it."""
        copy = tmp_path / f"{len(moments)}.db"
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{post.path}{suffix}", f"{copy}{suffix}")
        moments.append((moment, copy))

    @workflow
    async def takes() -> Flow[list[int]]:
        yield work()
        known = len(post.sent)
        if post.path is not None:
            dies("before the signal" if post.to_come else "redone")
            post.comes()
            dies("after the signal")
        yield Return([(await wait_for("n", int)) for _ in range(known)])

    engine = await engines.file(takes)
    post.to_come = [("n", "1")]
    run = await engine.start(takes(), id="r")
    assert await run.result(10) == [1]
    dies("ended")
    await engine.aclose()
    assert {moment for moment, _ in moments} >= {"before the signal", "after the signal", "ended"}
    post.path = None
    for moment, copy in moments:
        engines.path = copy
        engine = await engines.file(takes)
        if moment == "before the signal":
            await engine.get("r").signal("n", 1)
        assert await engine.get("r").result(10) == [1], moment
        received = [event for event in await engine.get("r").history() if event.kind == "SignalReceived"]
        assert len(received) == 1, moment


async def test_an_export_takes_unread_signals_along(engines, tmp_path):
    """
    Those that came too late for the history, too; how many are left is told where they were imported.
    """
    engine = await engines.memory(deliveries)
    run = await engine.start(deliveries(), delay=60)
    await run.signal("n", 1)
    await run.cancel()
    with pytest.raises(RunCancelledError):
        await run.result(5)
    await engine.export([run.id], tmp_path / "r.jsonl")
    other = await engines.memory(deliveries)
    await other.import_runs(tmp_path / "r.jsonl")
    assert (await other.get(run.id).info()).unread_signals == {"n": 1}
