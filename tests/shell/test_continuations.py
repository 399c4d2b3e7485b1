"""
Continuations: what the end of a run starts, exactly once and without touching the run.
"""

import asyncio
import functools
import sqlite3
from contextlib import closing
from types import SimpleNamespace

import pytest

from durable import (
    Client,
    Fatal,
    Flow,
    KeyConflictError,
    Retry,
    Return,
    job,
    sleep,
    start,
    step,
    transaction,
    wait_for,
    workflow,
)
from durable.errors import DefinitionError, RunCancelledError, RunFailedError, RunStateError
from tests.crash.copies import Copies


@pytest.fixture
def world():
    """
    Definitions that note what ran.
    """

    made = SimpleNamespace(ran=[])

    @job
    def note(text: str) -> str:
        made.ran.append(text)
        return text

    @job
    def fail(text: str) -> None:
        made.ran.append(text)
        raise ValueError(text)

    @job
    def double(number: int) -> int:
        if number < 0:
            raise ValueError("negative")
        return number * 2

    made.note, made.fail, made.double = note, fail, double
    made.all = [note, fail, double]
    return made


async def workflows(engine, **wanted):
    return sorted([info async for info in engine.runs(**wanted)], key=lambda info: info.cursor)


async def test_follow_ups_start_when_the_run_has_succeeded(engines, world, reached, clock):
    """
    `op.then(...)` starts each follow-up once, with its own delay; `RunInfo.follows` tells why.
    """
    engine = await engines.memory(*world.all, clock=clock)
    op = world.double(4).then(world.note("now"), world.note("later").options(delay=300))
    run = await engine.start(op)
    assert await run.result() == 8
    now, later = await workflows(engine, workflow="note")
    assert (now.follows, later.follows) == (run.id, run.id)
    assert now.parent is None
    await reached(engine.get(now.run_id), "succeeded")
    assert world.ran == ["now"]
    assert await engine.get(later.run_id).status() == "pending"
    clock.advance(301)
    await reached(engine.get(later.run_id), "succeeded")
    assert world.ran == ["now", "later"]


async def test_follow_ups_do_not_start_when_the_run_fails(engines, world):
    """
    A failed run starts none of its follow-ups; retried with success, it does.
    """
    broken = [True]

    @job
    def flaky() -> None:
        if broken:
            raise ValueError("no")

    engine = await engines.memory(flaky, *world.all)
    run = await engine.start(flaky().then(world.note("after")))
    with pytest.raises(RunFailedError):
        await run.result()
    assert await workflows(engine, workflow="note") == []
    broken.clear()
    await run.retry()
    await run.result()
    assert len(await workflows(engine, workflow="note")) == 1


async def test_a_failing_follow_up_leaves_its_run_succeeded(engines, world, reached):
    """
    What becomes of a follow-up does not touch the run that it follows, nor the other follow-ups.
    """
    engine = await engines.memory(*world.all)
    run = await engine.start(world.double(1).then(world.fail("bad"), world.note("good")))
    assert await run.result() == 2
    bad, good = [
        engine.get(info.run_id) for name in ("fail", "note") for info in await workflows(engine, workflow=name)
    ]
    await reached(bad, "failed")
    await reached(good, "succeeded")
    assert await run.status() == "succeeded"


async def test_chains_of_follow_ups_run_in_order(engines, world, eventually):
    """
    Follow-ups of follow-ups form chains and trees.
    """
    engine = await engines.memory(*world.all)
    note = world.note
    await engine.run(note("a").then(note("b").then(note("c").then(note("d"))), note("e")))

    async def all_ran():
        return len(world.ran) == 5

    await eventually(all_ran)
    assert world.ran[0] == "a"
    assert [each for each in world.ran if each != "e"] == ["a", "b", "c", "d"]


async def test_children_have_follow_ups_too(engines, world, eventually):
    """
    An awaited child, a started one, and a staged follow-up of either: all atomic with the child's end.
    """

    @workflow
    async def parent() -> Flow[int]:
        first: int = yield world.double(2).then(world.note("after 2"))
        yield start(world.double(3).then(world.note("after 3")))
        yield Return(first)

    engine = await engines.memory(parent, *world.all)
    assert await engine.run(parent()) == 4

    async def both():
        return sorted(world.ran) == ["after 2", "after 3"]

    await eventually(both)


async def test_then_refuses_what_is_no_run_of_its_own(world):
    """
    A step cannot follow: the message says what can.
    """

    @step
    def plain() -> None: ...

    with pytest.raises(TypeError, match=r"calls of workflows and jobs.*step 'plain'"):
        world.note("x").then(plain())


async def test_a_follow_up_with_a_taken_key_is_refused_and_harms_nothing(engines, world, caplog):
    """
    A key that belongs to another run: the follow-up is not started, the run has succeeded, the others start.
    """
    engine = await engines.memory(*world.all)
    await engine.run(world.note("owner"), key="k")
    op = world.double(1).then(world.note("other").options(key="k"), world.note("fine"))
    assert await engine.run(op) == 2
    names = [info.key for info in await workflows(engine, workflow="note")]
    assert names == ["k", None]


async def test_follow_ups_survive_a_restart(engines, world, reached, clock):
    """
    A run that is still to end when the process dies starts its follow-ups after the restart, once.
    """

    @workflow
    async def gated() -> Flow[None]:
        yield wait_for("go")

    engine = await engines.file(gated, *world.all)
    run = await engine.start(gated().then(world.note("after")))
    await reached(run, "waiting")
    await engines.crash(engine)
    engine = await engines.file(gated, *world.all)
    run = engine.get(run.id)
    await run.signal("go")
    await run.result()
    (after,) = await workflows(engine, workflow="note")
    await reached(engine.get(after.run_id), "succeeded")
    await engines.crash(engine)
    engine = await engines.file(gated, *world.all)
    assert len(await workflows(engine, workflow="note")) == 1
    assert world.ran == ["after"]


async def test_a_run_that_continues_keeps_its_follow_ups_for_the_end(engines, world):
    """
    `continue_as` is not a success of the chain: follow-ups start when the last link ends.
    """
    from durable import continue_as

    @workflow
    async def counting(left: int) -> Flow[int]:
        if left:
            yield continue_as(counting(left - 1))
        yield Return(7)

    engine = await engines.memory(counting, *world.all)
    run = await engine.start(counting(2).then(world.note("done")))
    assert await run.result() == 7
    (after,) = await workflows(engine, workflow="note")
    assert after.follows == f"{run.id}~3"


async def test_hooks_get_the_finished_run_and_start_what_they_return(engines, world):
    """
    `on_success`, `on_failure` and `on_finish`: arguments, value and error as the program knows them.
    """
    seen = []

    @world.double.on_success
    def succeeded(finished):
        seen.append(("success", finished.arguments["number"], finished.value, finished.error))
        return [world.note(f"twice {finished.arguments['number']} is {finished.value}")]

    @world.double.on_failure
    def failed(finished):
        seen.append(("failure", finished.arguments["number"], finished.value, type(finished.error)))

    @world.double.on_finish
    def ended(finished):
        seen.append((finished.status, finished.reason))

    engine = await engines.memory(*world.all)
    assert await engine.run(world.double(5)) == 10
    with pytest.raises(RunFailedError):
        await engine.run(world.double(-1))
    assert seen == [
        ("success", 5, 10, None),
        ("succeeded", ""),
        ("failure", -1, None, ValueError),
        ("failed", "ValueError: negative"),
    ]
    assert [info.labels for info in await workflows(engine, workflow="note")] == [{}]


async def test_hooks_of_a_cancelled_run_start_after_its_clean_up(engines, world, reached):
    """
    `on_cancel` runs when the run has ended; also for one that never began.
    """

    @workflow
    async def long(name: str) -> Flow[None]:
        try:
            yield sleep(1000)
        finally:
            yield world.note(f"clean up {name}")

    @long.on_cancel
    def gone(finished):
        return [world.note(f"gone {finished.arguments['name']}: {finished.reason}")]

    engine = await engines.memory(long, *world.all)
    run = await engine.start(long("a"))
    await reached(run, "waiting")
    await run.cancel("enough")
    with pytest.raises(RunCancelledError):
        await run.result()
    unborn = await engine.start(long("b"), delay=1000)
    await unborn.cancel("never mind")
    with pytest.raises(RunCancelledError):
        await unborn.result()
    for info in await workflows(engine, workflow="note"):
        await engine.get(info.run_id).result()
    assert world.ran[0] == "clean up a"
    assert sorted(world.ran[1:]) == ["gone a: enough", "gone b: never mind"]


async def test_a_hook_may_return_a_single_call(engines, world):
    """
    Without a list around it: it starts all the same, for a follow-up that is lost is only seen in the log.
    """

    @world.double.on_success
    def after(finished):
        return world.note("alone")

    engine = await engines.memory(*world.all)
    assert await engine.run(world.double(1)) == 2
    assert len(await workflows(engine, workflow="note")) == 1


@pytest.mark.parametrize("returned", ["error", "cancels", "step", "unknown"])
async def test_a_hook_that_goes_wrong_harms_neither_run_nor_other_hooks(engines, world, returned):
    """
    It raises, returns a step, or a job that the engine does not know: logged, and the rest goes on.
    """

    @step
    def plain() -> None: ...

    @job
    def unknown() -> None: ...

    @world.double.on_success
    def wrong(finished):
        if returned == "error":
            raise RuntimeError("hook")
        if returned == "cancels":
            raise asyncio.CancelledError
        return [plain() if returned == "step" else unknown()]

    @world.double.on_success
    def right(finished):
        return [world.note("right")]

    engine = await engines.memory(*world.all)
    assert await engine.run(world.double(1)) == 2
    assert len(await workflows(engine, workflow="note")) == 1


async def broken_hook(engines, world, clock, path="memory"):
    """
    An engine, and a run of which a hook went wrong: its exception, until `world.mended`.
    """
    world.mended = False

    @world.double.on_success
    def wrong(finished):
        if not world.mended:
            raise RuntimeError("the ledger is closed")
        return [world.note(f"{finished.value} at {finished.ended_at}")]

    @world.double.on_success
    def right(finished):
        return [world.note("right")]

    engine = await getattr(engines, path)(*world.all, clock=clock)
    run = await engine.start(world.double(5))
    assert await run.result() == 10
    return engine, run


async def test_a_hook_that_raises_is_told_on_its_run(engines, world, clock):
    """
    Which, why and when: who looks for what it should have started finds that there.
    """
    engine, run = await broken_hook(engines, world, clock)
    info = await run.info()
    (failed,) = info.hook_errors
    assert failed.hook.endswith("broken_hook.<locals>.wrong")
    assert (failed.error, failed.at) == ("RuntimeError: the ledger is closed", pytest.approx(info.ended_at, abs=1e-3))
    assert len(await workflows(engine, workflow="note")) == 1


async def test_a_hook_that_raised_is_made_up_for(engines, world, clock, eventually):
    """
    Called again with what it was called with; what it asks for starts once, and the others are not called again.
    """
    engine, run = await broken_hook(engines, world, clock)
    ended_at = (await run.info()).ended_at
    (right,) = await workflows(engine, workflow="note")
    await engine.get(right.run_id).result(5)  # each note has a thread, of which either could be the first
    clock.advance(100)
    world.mended = True
    assert await run.retry_hooks() == 1

    async def mended():
        return not (await run.info()).hook_errors

    await eventually(mended)
    notes = await workflows(engine, workflow="note")
    assert len(notes) == 2
    assert notes[-1].follows == run.id
    for note in notes:
        await engine.get(note.run_id).result(5)
    assert world.ran == ["right", f"10 at {ended_at}"]
    assert await run.retry_hooks() == 0


async def test_a_hook_that_raises_again_is_told_again(engines, world, clock, eventually):
    """
    It can be made up for later; how often that was tried changes nothing.
    """
    engine, run = await broken_hook(engines, world, clock)
    for _ in range(2):
        clock.advance(100)
        assert await run.retry_hooks() == 1

        async def told():
            (failed,) = (await run.info()).hook_errors
            return failed.at == pytest.approx(clock.now(), abs=1e-3)

        await eventually(told)
    world.mended = True
    await run.retry_hooks()

    async def started():
        return len(await workflows(engine, workflow="note")) == 2

    await eventually(started)


async def test_hooks_are_made_up_for_by_the_next_engine(engines, world, clock, eventually, tmp_db):
    """
    Asked for by a client while nobody had the file; and although an engine died before it had called them.
    """
    engine, run = await broken_hook(engines, world, clock, "file")
    await engine.aclose()
    async with Client(tmp_db) as client:
        assert await client.get(run.id).retry_hooks() == 1
        assert len((await client.get(run.id).info()).hook_errors) == 1
    world.mended = True
    engine = await engines.file(*world.all, clock=clock)

    async def started():
        return len(await workflows(engine, workflow="note")) == 2

    await eventually(started)
    await engine.aclose()
    engine = await engines.file(*world.all, clock=clock)
    await engine.idle()
    assert len(await workflows(engine, workflow="note")) == 2


async def test_hooks_that_are_asked_for_twice_at_once_are_called_once(engines, world, clock):
    """
    As by two people: the second finds that it is being done.
    """
    engine, run = await broken_hook(engines, world, clock)
    calls = []

    def counted(finished):
        calls.append(finished.run_id)
        return [world.note("made up for")]

    world.double.hooks[0] = (world.double.hooks[0][0], functools.wraps(world.double.hooks[0][1])(counted))
    assert await asyncio.gather(run.retry_hooks(), run.retry_hooks()) == [1, 1]
    await engine.idle()
    assert calls == [run.id]
    assert len(await workflows(engine, workflow="note")) == 2


async def test_a_hook_that_is_gone_says_so(engines, world, clock, eventually, tmp_db):
    """
    Of code that has changed: it is told, and nothing else of the run is touched.
    """
    engine, run = await broken_hook(engines, world, clock, "file")
    await engine.aclose()
    world.double.hooks.clear()
    engine = await engines.file(*world.all, clock=clock)
    run = engine.get(run.id)
    await run.retry_hooks()

    async def told():
        (failed,) = (await run.info()).hook_errors
        return "has no such hook any more" in failed.error

    await eventually(told)
    assert await run.result() == 10


async def test_hooks_of_an_open_run_are_not_made_up_for(engines, world, reached):
    """
    They are called when it has ended.
    """

    @workflow
    async def long() -> Flow[None]:
        yield sleep(1000)

    engine = await engines.memory(long)
    run = await engine.start(long())
    await reached(run, "waiting")
    with pytest.raises(RunStateError, match="retry the hooks of"):
        await run.retry_hooks()


async def test_a_follow_up_that_was_refused_is_made_up_for(engines, world, clock):
    """
    Its key was taken: told on the run that asked for it, and started once the key is free.
    """

    @job(key=lambda name: "the-key")
    def keyed(name: str) -> str:
        return name

    @world.double.on_success
    def after(finished):
        return [keyed("mine")]

    engine = await engines.memory(*world.all, keyed, clock=clock)
    await (await engine.start(keyed("other"), key_ttl=30)).result(5)
    run = await engine.start(world.double(5))
    assert await run.result() == 10
    assert await run.retry_hooks() == 1
    (failed,) = (await run.info()).hook_errors
    assert failed.hook == "start of 'keyed'"
    assert "the-key" in failed.error
    clock.advance(31)
    assert await run.retry_hooks() == 1
    assert (await run.info()).hook_errors == ()
    mine = (await workflows(engine, workflow="keyed"))[-1]
    assert mine.follows == run.id
    assert await engine.get(mine.run_id).result(5) == "mine"


async def test_what_is_known_of_hooks_goes_with_their_run(engines, world, clock):
    """
    A pruned run leaves nothing, since its number may be given again.
    """
    engine, _ = await broken_hook(engines, world, clock)
    clock.advance(100)
    await engine.idle()
    clock.advance(100)
    await engine.prune(older_than=1)
    left = await engine._backend.read(lambda conn: conn.execute("SELECT count(*) FROM durable_hook_errors").fetchone())
    assert left == (0,)


async def test_a_hook_is_a_plain_function(world):
    """
    A coroutine function, or a definition, is refused where it is written.
    """
    with pytest.raises(DefinitionError, match="plain function"):

        @world.double.on_success
        async def late(finished): ...

    with pytest.raises(DefinitionError, match="plain function"):
        world.double.on_failure(world.note)


async def test_hooks_wait_for_the_last_attempt(engines, world):
    """
    A run that is tried again has not ended: `on_failure` is called once, when it failed for good.
    """
    calls = []

    @workflow(retry=Retry(attempts=3, delay=0.0))
    async def thrice() -> Flow[None]:
        yield world.note("try")
        raise ValueError("no")

    @thrice.on_failure
    def failed(finished):
        calls.append(finished.reason)

    engine = await engines.memory(thrice, *world.all)
    with pytest.raises(RunFailedError):
        await engine.run(thrice())
    assert calls == ["ValueError: no"]
    assert world.ran == ["try"] * 3


async def test_a_transaction_that_ends_the_run_starts_its_follow_ups_with_it(engines, world, tmp_path, monkeypatch):
    """
    The last transaction's rows, the end and the follow-ups are one commit.
    """

    @transaction
    def write(tx) -> int:
        tx.execute("CREATE TABLE mine (x)")
        return 1

    @workflow
    async def writer() -> Flow[int]:
        yield Return((yield write()))

    copies = Copies(monkeypatch, tmp_path)
    engine = await engines.file(writer, *world.all)
    run = await engine.start(writer().then(world.note("after")))
    assert await run.result() == 1
    found = []
    for path in copies.paths:
        with closing(sqlite3.connect(path)) as conn:
            found += conn.execute(
                "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'mine'), "
                "EXISTS (SELECT 1 FROM durable_runs WHERE run_id = ? AND ended_at IS NOT NULL), "
                "EXISTS (SELECT 1 FROM durable_runs WHERE workflow = 'note')",
                (run.id,),
            )
    assert set(found) == {(0, 0, 0), (1, 1, 1)}


async def test_a_key_with_a_time_to_live_is_free_again_afterwards(engines, clock):
    """
    `key_ttl`: within it the same run, other arguments conflict; after it a new run, whatever became of the old.
    """

    @job(key=lambda number: "the key", key_ttl=60)
    def work(number: int) -> int:
        return number

    engine = await engines.memory(work, clock=clock)
    first = await engine.start(work(1))
    assert await engine.start(work(1)) == first
    with pytest.raises(KeyConflictError):
        await engine.start(work(2))
    clock.advance(61)
    second = await engine.start(work(2))
    assert second != first
    assert (await first.result(), await second.result()) == (1, 2)
    assert (await engine.find("the key")) == second
    third = await engine.start(work(3), key="other", key_ttl=5)
    clock.advance(6)
    assert await engine.start(work(3), key="other") != third


async def test_fatal_failures_are_final_for_hooks_too(engines, world):
    """
    `Fatal` is not retried, so the hook is called at once.
    """
    calls = []

    @job(retry=5)
    def fatal() -> None:
        raise Fatal("no use")

    fatal.on_failure(lambda finished: calls.append(finished.status))
    engine = await engines.memory(fatal)
    with pytest.raises(RunFailedError):
        await engine.run(fatal())
    assert calls == ["failed"]
