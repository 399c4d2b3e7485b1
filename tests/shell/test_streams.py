"""
Streams, progress and attributes out of what runs: on disk before the outcome of their step, followed from anywhere.
"""

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from durable import (
    CapExceededError,
    Caps,
    Client,
    DefinitionError,
    Engine,
    EngineClosedError,
    Flow,
    Progress,
    Retry,
    Return,
    RunFailedError,
    RunNotFoundError,
    StreamItem,
    UsageError,
    context,
    emit,
    gather,
    job,
    progress,
    set_attributes,
    sleep,
    step,
    wait_for,
    workflow,
)
from durable._core.supervision import FIRST_PAUSE
from durable.testing import every_crash, run_step

pytestmark = pytest.mark.anyio


@step
async def speak(words: list[str]) -> int:
    for word in words:
        emit("words", word)
        await asyncio.sleep(0)
    return len(words)


@step
def speak_in_a_thread(words: list[str]) -> str:
    for word in words:
        emit("words", word)
    return threading.current_thread().name


@job
async def speak_as_a_job(words: list[str]) -> None:
    progress(1)
    progress(1, 2, "half way")
    await emit("words", words[0])
    await emit("words", words[1], sync=True)
    set_attributes(told=len(words))


@workflow
async def story() -> Flow[str]:
    emit("words", "once")
    yield speak(["upon", "a"])
    emit("words", "time")
    progress(1, 3, "begun")
    yield sleep(0.01)  # freed here, and replayed
    yield speak_in_a_thread(["there", "was"])
    set_attributes(chapter=2)
    yield Return("the end")


WORDS = ["once", "upon", "a", "time", "there", "was"]


async def read(stream):
    return [word async for word in stream]


async def test_what_is_emitted_is_read_in_its_order_and_once(tmp_db):
    """
    By the workflow, a step and a thread; while the run goes on and after it, by the engine and by a client.
    """
    async with Engine(tmp_db, [story]) as engine:
        run = await engine.start(story())
        async with Client(tmp_db) as client:
            readers = [read(run.stream("words", str)), read(client.get(run.id).stream("words"))]
            assert await asyncio.wait_for(asyncio.gather(*readers), 10) == [WORDS, WORDS]
        assert await run.result() == "the end"
        items = [item async for item in run.stream("words").items()]
        assert [item.value for item in items] == WORDS
        assert [item.attempt for item in items] == [0, 1, 1, 0, 1, 1]
        assert [item.position for item in items] == ["0", "0", "0", "1", "2", "2"]
        assert isinstance(items[0], StreamItem)
        assert await read(run.stream("words", after=items[2].seq)) == WORDS[3:]
        assert await read(run.stream("nothing")) == []
        info = await run.info()
        assert (info.attributes, info.progress.done, info.progress.total) == ({"chapter": 2}, 1, 3)
        assert info.progress.share == pytest.approx(1 / 3)


async def test_jobs_tell_their_progress_and_publish_attributes(tmp_db):
    """
    As workflows do; with sync it is on disk when emit returns.
    """
    async with Engine(tmp_db, [speak_as_a_job]) as engine:
        run = await engine.start(speak_as_a_job(["a", "b"]))
        await run.result(5)
        assert await read(run.stream("words")) == ["a", "b"]
        info = await run.info()
        assert info.attributes == {"told": 2}
        assert isinstance(info.progress, Progress)
        assert (info.progress.done, info.progress.note, info.progress.position) == (1, "half way", "0")


async def test_an_attempt_that_is_made_again_emits_again(tmp_db):
    """
    Its items bear its number, so that a reader sees a new attempt begin.
    """
    failures = iter([True, False])

    @step(retry=Retry(attempts=2, delay=0.01))
    async def shaky() -> None:
        emit("words", "hm")
        if next(failures):
            raise ConnectionError

    @workflow
    async def trying() -> None:
        await shaky()

    async with Engine(tmp_db, [trying]) as engine:
        run = await engine.start(trying())
        assert [item.attempt async for item in run.stream("words").items()] == [1, 2]


async def test_items_are_there_before_the_outcome_of_their_step(tmp_db):
    """
    Many at once, without waiting, so that they are written in several groups: the run ends behind them.
    """

    @step
    async def chatter(count: int) -> None:
        for number in range(count):
            emit("numbers", number)

    @workflow
    async def chatting(count: int) -> None:
        await chatter(count)

    async with Engine(tmp_db, [chatting]) as engine:
        run = await engine.start(chatting(22_000))
        await run.result(10)
        count = "SELECT count(*) FROM durable_stream_items"
        assert await engine.read(lambda conn: conn.execute(count).fetchone()) == (22_000,)
        assert await read(run.stream("numbers", int)) == list(range(22_000))


async def test_a_client_reads_on_while_the_engine_is_changed(engines):
    """
    Nobody has the file for a while: what comes then, comes when somebody has it again.
    """

    @workflow
    async def patient() -> Flow[None]:
        yield speak(["one"])
        word: str = yield wait_for("go", str)
        yield speak([word])

    engine = await engines.file(patient)
    run = await engine.start(patient())
    async with Client(engines.path) as client:
        reader = aiter(client.get(run.id).stream("words", str))
        assert await anext(reader) == "one"
        second = asyncio.ensure_future(anext(reader))
        await engine.aclose()
        engine = await engines.file(patient)
        await engine.get(run.id).signal("go", "two")
        assert await asyncio.wait_for(second, 5) == "two"
        with pytest.raises(StopAsyncIteration):
            await anext(reader)


async def test_a_thread_of_its_own_emits_for_its_step_in_its_context(tmp_db):
    """
    Without it, nobody knows for whom it speaks, and the error says what to do.
    """

    @step
    def speaks_in_a_pool() -> str:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(contextvars.copy_context().run, emit, "words", "told").result()
            try:
                pool.submit(emit, "words", "lost").result()
            except UsageError as error:
                return str(error)
        return ""

    @workflow
    async def pooling() -> str:
        return await speaks_in_a_pool()

    async with Engine(tmp_db, [pooling]) as engine:
        run = await engine.start(pooling())
        assert "copy_context().run" in await run.result(5)
        assert await read(run.stream("words")) == ["told"]


async def test_a_reader_that_stops_reading_holds_nobody_up(tmp_db):
    """
    It reads on where it was, as late as it likes.
    """
    async with Engine(tmp_db, [story]) as engine:
        run = await engine.start(story())
        reader = run.stream("words", str).items()
        first = await anext(reader)
        assert await run.result(5) == "the end"
        assert [first.value] + [item.value async for item in reader] == WORDS


async def test_who_waits_emits_as_much_as_he_likes_and_who_does_not_is_stopped(tmp_db):
    """
    The buffer is bounded; a thread waits by itself.
    """

    @step
    async def waits(count: int) -> None:
        for number in range(count):
            await emit("numbers", number)

    @step
    def waits_in_a_thread(count: int) -> None:
        for number in range(count):
            emit("numbers", number)

    @step
    async def does_not(count: int) -> None:
        for number in range(count):
            emit("numbers", number)

    @workflow
    async def emitting(how: str) -> None:
        await {"waits": waits, "thread": waits_in_a_thread, "does not": does_not}[how](1_000)

    async with Engine(tmp_db, [emitting], caps=Caps(stream_buffer=50)) as engine:
        for how in ("waits", "thread"):
            run = await engine.start(emitting(how))
            assert await read(run.stream("numbers")) == list(range(1_000))
        with pytest.raises(RunFailedError, match=r"await emit\(\.\.\.\)"):
            await engine.run(emitting("does not"))


async def test_there_is_a_cap_on_items(tmp_db):
    """
    Of an attempt, and of the code of a workflow.
    """

    @step
    async def speaks() -> None:
        for number in range(4):
            emit("numbers", number)

    @workflow
    async def asks(itself: bool) -> None:
        if not itself:
            return await speaks()
        for number in range(4):
            emit("numbers", number)
        return None

    async with Engine(tmp_db, [asks], caps=Caps(stream_items=3)) as engine:
        for itself in (True, False):
            with pytest.raises(RunFailedError) as failed:
                await engine.run(asks(itself))
            assert isinstance(failed.value.__cause__, CapExceededError)


@step(retry=Retry(attempts=2, delay=0.01))
async def tokens(count: int) -> AsyncIterator[str]:
    for number in range(count):
        yield f"token {number}"
    if context().attempt == 1:
        raise ConnectionError


@step(stream=True)
async def sums(numbers: list[int]) -> AsyncIterator[int]:
    total = 0
    for number in numbers:
        total += number
        yield total


@job
async def pages(count: int) -> AsyncIterator[tuple[int, str]]:
    for number in range(count):
        yield number, "x" * number


async def test_an_async_generator_streams_what_it_yields_and_returns_it(tmp_db):
    """
    Under the name of the step: all of it as a list, or the last item; a later attempt streams anew.
    """

    @workflow
    async def streaming() -> Flow[list]:
        found: list[str] = yield tokens(2)
        total: int = yield sums([1, 2, 3])
        nothing: int | None = yield sums([])
        yield Return([found, total, nothing])

    async with Engine(tmp_db, [streaming, pages]) as engine:
        run = await engine.start(streaming())
        assert [(each.attempt, each.value) async for each in run.stream("tokens", str).items()] == [
            (1, "token 0"), (1, "token 1"), (2, "token 0"), (2, "token 1"),
        ]  # fmt: skip
        assert await run.result(5) == [["token 0", "token 1"], 6, None]
        assert await read(run.stream("sums")) == [1, 3, 6]
        of_job = await engine.start(pages(2))
        assert await of_job.result(5) == [(0, ""), (1, "x")]
        assert await read(of_job.stream("pages", tuple[int, str])) == [(0, ""), (1, "x")]


async def test_an_async_generator_is_left_when_its_step_is_cancelled(tmp_db):
    """
    Its clean-up runs as that of any function; what it had yielded stays.
    """
    left = []

    @step(timeout=0.05)
    async def endless() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.sleep(60)
        finally:
            left.append(True)

    @workflow
    async def ending() -> None:
        await endless()

    async with Engine(tmp_db, [ending]) as engine:
        run = await engine.start(ending())
        assert await read(run.stream("endless")) == [1]
        with pytest.raises(RunFailedError, match="TimeoutError"):
            await run.result(5)
    assert left == [True]


async def test_an_async_generator_can_be_called_by_itself():
    """
    Without an engine, as any step, and in `run_step`; it yields values, not ops.
    """

    @step
    async def asks() -> AsyncIterator[Any]:
        yield sleep(1)

    assert await sums([1, 2]) == 3
    assert await pages(1) == [(0, "")]
    found = await run_step(sums([1, 2]))
    assert (found.value, found.emitted) == (3, [("sums", 1), ("sums", 3)])
    with pytest.raises(TypeError, match=r"<step 'asks'> yields sleep 1 s: .*ops are for a @workflow"):
        await asks()


async def test_what_cannot_be_written_for_one_run_is_lost_for_that_run_alone(tmp_db):
    """
    Attributes that outgrow the cap together, or items that the file refuses; who waits for the disk is told.
    """

    @step
    async def publishes(name: str) -> None:
        set_attributes(**{name: name * 400})

    @step
    async def waits(stream: str) -> None:
        await emit(stream, 1, sync=True)

    @workflow
    async def greedy(name: str) -> None:
        await gather(*(publishes(each) for each in "abc"))
        await waits("fine")
        emit("words", name)

    @workflow
    async def refused() -> None:
        await waits("refused")

    async with Engine(tmp_db, [greedy, refused], caps=Caps(value_bytes=1_000)) as engine:
        writer = engine._backend.running.database
        await writer.write(
            lambda conn: conn.execute(
                "CREATE TRIGGER guard BEFORE INSERT ON durable_stream_items WHEN new.stream = 'refused' "
                "BEGIN SELECT RAISE(ABORT, 'never'); END"
            )
        )
        runs = [await engine.start(greedy(name)) for name in "xyz"]
        bad = await engine.start(refused())
        for run, name in zip(runs, "xyz", strict=True):
            await run.result(5)
            assert await read(run.stream("words")) == [name]
            assert (await run.attributes()).keys() == {"a", "b"}
        with pytest.raises(RunFailedError, match="never"):
            await bad.result(5)


async def test_the_buffer_is_bounded_while_the_disk_is_full(tmp_db):
    """
    Who waits for room goes on when there is some, and nothing is lost: also if another, who does not wait, is refused.
    """
    emitted, refused = 0, []
    crowded = asyncio.Event()

    @step
    async def speaks(count: int) -> None:
        nonlocal emitted
        for number in range(count):
            await emit("texts", f"{number:05}" * 1_000)
            emitted += 1

    @step
    async def ticks() -> None:
        for number in range(30):
            try:
                emit("ticks", number)
            except UsageError as error:
                refused.append(str(error))
                crowded.set()
            await asyncio.sleep(FIRST_PAUSE / 8)

    @step
    async def comes_late() -> None:
        await crowded.wait()
        await emit("late", 1)
        await emit("late", 2)

    @workflow
    async def speaking(count: int) -> None:
        await gather(speaks(count), ticks(), comes_late())

    async with Engine(tmp_db, [speaking], caps=Caps(stream_buffer=10)) as engine:
        writer = engine._backend.running.database
        (pages,) = await writer.write(lambda conn: conn.execute("PRAGMA page_count").fetchone())
        await writer.write(lambda conn: conn.execute(f"PRAGMA max_page_count = {pages + 5}").fetchone())
        run = await engine.start(speaking(50))
        async with asyncio.timeout(5):
            while (await engine.stats()).trouble is None:
                await asyncio.sleep(0.01)
        await asyncio.sleep(4 * FIRST_PAUSE)  # it is tried again meanwhile, with what was said since
        assert emitted <= 20
        assert "no more are taken from who does not wait: `await emit(...)`" in refused[0]
        await writer.write(lambda conn: conn.execute("PRAGMA max_page_count = 1000000").fetchone())
        assert [text[:5] async for text in run.stream("texts", str)] == [f"{number:05}" for number in range(50)]
        await run.result(5)
        assert await read(run.stream("late")) == [1, 2]


async def test_progress_that_nobody_waits_for_takes_no_room(tmp_db):
    """
    The latest of each run gives way to the next.
    """

    @step
    async def counts() -> None:
        for number in range(1_000):
            progress(number + 1, 1_000)

    @workflow
    async def counting() -> None:
        await counts()

    async with Engine(tmp_db, [counting], caps=Caps(stream_buffer=2)) as engine:
        run = await engine.start(counting())
        await run.result(5)
        told = (await run.info()).progress
        assert (str(told), told.position) == ("1,000 of 1,000 (100%)", "0")


class Reversed:
    """Hides values as hooks that encrypt do."""

    def encode(self, data):
        return data[::-1]

    def decode(self, data):
        return data[::-1]


async def test_what_is_said_is_hidden_where_values_are(tmp_db):
    """
    By the hooks of the engine, also out of a step that has hooks of its own: readers know of no other.
    """

    class Other(Reversed):
        def decode(self, data):
            raise ValueError

    @step(codec=Other())
    async def tells() -> None:
        emit("words", "secret")
        progress(1, 2, "secret")
        set_attributes(word="secret")

    @workflow
    async def telling() -> None:
        await tells()

    async with Engine(tmp_db, [telling], codec=Reversed()) as engine:
        run = await engine.start(telling())
        assert await read(run.stream("words", str)) == ["secret"]
        info = await run.info()
        assert (str(info.progress), info.attributes) == ("1 of 2 (50%), secret", {"word": "secret"})
    assert b"secret" not in tmp_db.read_bytes()
    with pytest.raises(DefinitionError, match="codec= is for what a step returns, and this one streams it"):
        step(codec=Other())(sums.fn)


async def test_wrong_use_is_told(tmp_db):
    """
    Outside of an engine, what cannot be recorded, numbers that are none, and a run that is gone.
    """
    for wrong in (lambda: emit("words", 1), lambda: progress(1), lambda: set_attributes(a=1)):
        with pytest.raises(UsageError, match="works in workflows, steps and jobs"):
            wrong()
    for done in (-1, float("nan"), float("inf"), "5", True):
        with pytest.raises(ValueError, match=r"progress\(done=\) takes a number"):
            progress(done)
    async with Engine(tmp_db, [story]) as engine:
        run = await engine.start(story())
        await run.result(5)
        await engine.prune(older_than=0)
        with pytest.raises(RunNotFoundError):
            await read(run.stream("words"))
        with pytest.raises(RunNotFoundError):
            await read(engine.get("none").stream("words"))
        assert await engine.read(lambda conn: conn.execute("SELECT count(*) FROM durable_stream_items").fetchone()) == (
            0,
        )


async def test_readers_hear_that_the_engine_closes(tmp_db):
    """
    A reader of a run that waits is not left waiting.
    """

    @workflow
    async def patient() -> None:
        emit("words", "well")
        await sleep(60)

    async with Engine(tmp_db, [patient]) as engine:
        run = await engine.start(patient())
        reader = aiter(run.stream("words"))
        assert await anext(reader) == "well"
        waiting = asyncio.ensure_future(anext(reader))
        await asyncio.sleep(0)
    with pytest.raises(EngineClosedError):
        await asyncio.wait_for(waiting, 5)


async def test_a_single_step_shows_what_it_has_said():
    """
    In tests of steps.
    """
    found = await run_step(speak_as_a_job(["a", "b"]))
    assert (found.emitted, found.attributes) == ([("words", "a"), ("words", "b")], {"told": 2})


@workflow
async def telling() -> Flow[str]:
    emit("words", "one")
    yield speak(["two", "three"])
    emit("words", "four")
    yield pages(1)
    emit("words", "five")
    yield Return("done")


@pytest.mark.long
def test_nothing_is_lost_or_emitted_twice_by_a_crash_anywhere():
    """
    What the workflow emits is there once; what a step emits is there before its outcome.
    """
    survived = every_crash(telling(), [telling, pages])
    assert survived.undisturbed.streams["run", "words"] == [
        ("0", 0, '"one"'), ("0", 1, '"two"'), ("0", 1, '"three"'), ("1", 0, '"four"'), ("2", 0, '"five"'),
    ]  # fmt: skip
