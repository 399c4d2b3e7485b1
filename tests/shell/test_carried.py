"""
`Engine(carry=)`: context variables that travel with runs.
"""

import asyncio
import base64
import json
from contextvars import ContextVar

import pytest

from durable import (
    Client,
    DefinitionError,
    EncodeError,
    Engine,
    Flow,
    Return,
    Service,
    Transaction,
    continue_as,
    gather,
    job,
    start,
    step,
    transaction,
    wait_for,
    workflow,
)

pytestmark = pytest.mark.anyio

request_id: ContextVar[str] = ContextVar("request_id", default="none")
tenant: ContextVar[int] = ContextVar("tenant")
seen: list[tuple[str, str, int | None]] = []


@pytest.fixture(autouse=True)
def nothing_seen():
    """
    A test sees what its own runs have.
    """
    seen.clear()


def look(where: str) -> str:
    seen.append((where, request_id.get(), tenant.get(None)))
    return request_id.get()


@step
async def on_loop(where: str) -> str:
    return look(where)


@step(process=True)
def in_process() -> list[str | int | None]:
    """Sees what was set for this call, in whatever process of the pool, and leaves nothing there."""
    found = [request_id.get(), tenant.get(None)]
    tenant.set(99)
    return found


@step
def in_thread(where: str) -> str:
    return look(where)


@job
async def errand(where: str) -> str:
    return look(where)


@transaction
def with_staged(tx: Transaction) -> None:
    tx.enqueue(errand("staged"), id="staged")


@workflow
async def inner() -> Flow[str]:
    value: str = yield on_loop("child workflow")
    yield Return(value)


@workflow
async def outer() -> Flow[str]:
    yield on_loop("alone")
    yield gather(on_loop("loop"), in_thread("thread"), errand("job"))
    yield inner()
    yield with_staged()
    yield start(errand("started"), id="started")
    yield continue_as(after())


@workflow
async def after() -> Flow[str]:
    value: str = yield on_loop("successor")
    yield Return(value)


@after.on_finish
def _(_):
    return [errand("hook")]


async def test_steps_jobs_and_all_that_a_run_starts_see_what_was_set_where_it_was_started(engines, eventually):
    """
    Children, staged and started runs, successors, and what hooks start; on the loop and in threads.
    """
    engine = await engines.memory(outer, inner, after, errand, carry=[request_id, tenant])

    async def handler():
        request_id.set("r-1")
        tenant.set(7)
        return await engine.start(outer()), await engine.start(errand("first").then(errand("then")))

    expected = {
        "alone", "loop", "thread", "job", "child workflow", "staged", "started", "successor", "hook", "first", "then",
    }  # fmt: skip

    async def all_seen():
        return {each[0] for each in seen} == expected

    run, _ = await asyncio.create_task(handler())
    assert await run.result(5) == "r-1"
    await eventually(all_seen)
    assert {each[1:] for each in seen} == {("r-1", 7)}
    assert request_id.get() == "none"


@workflow
async def asking() -> Flow[str]:
    yield on_loop("before")
    yield wait_for("go")
    value: str = yield on_loop("after")
    yield Return(value)


@pytest.mark.parametrize("keep_resident", [0, 10])
async def test_they_are_there_after_a_wait_and_in_another_life_of_the_journal(engines, keep_resident):
    """
    A run that was freed, kept or killed has them again; one that was started without has the defaults.
    """
    engine = await engines.file(asking, carry=[request_id], keep_resident=keep_resident)

    async def handler():
        request_id.set("r-2")
        for name in ("here", "there"):
            await engine.start(asking(), id=name)

    await asyncio.create_task(handler())
    await engine.start(asking(), id="bare")
    await engine.get("here").signal("go")
    assert await engine.get("here").result(5) == "r-2"
    await engines.crash(engine)
    engine = await engines.file(asking, carry=[request_id])
    for name in ("there", "bare"):
        await engine.get(name).signal("go")
    assert await engine.get("there").result(5) == "r-2"
    assert await engine.get("bare").result(5) == "none"


async def test_requests_of_other_processes_take_theirs_along(tmp_db):
    """
    Those of a client, and of a service, whichever process executes.
    """
    async with Service(tmp_db, [asking, errand], carry=[request_id], durability="process") as service:
        request_id.set("of a service")
        assert await service.run(errand("service")) == "of a service"
        async with Client(tmp_db, carry=[request_id]) as client:
            request_id.set("of a client")
            run = await client.start(errand("client"))
            assert await run.result(5) == "of a client"


async def test_transactions_and_batches_from_outside_take_them_along(engines, eventually):
    """
    What they enqueue is started by who asks, on whatever thread it is written.
    """
    engine = await engines.memory(asking, errand, carry=[request_id])
    request_id.set("r-3")
    await engine.transact(with_staged())
    async with engine.transaction() as tx:
        tx.enqueue(errand("second"))
    async with engine.batch(on_complete=errand("callback")) as batch:
        batch.add(errand("member"))
    request_id.set("another")

    async def all_seen():
        return {each[0] for each in seen} == {"staged", "second", "member", "callback"}

    await eventually(all_seen)
    assert {each[1] for each in seen} == {"r-3"}


async def test_a_journal_without_them_is_as_it_was(engines):
    """
    Where none is named, or none is set, nothing is recorded; a name that a program does not know any more is ignored.
    """
    engine = await engines.file(errand, carry=[tenant])
    await engine.run(errand("x"), id="x")
    assert await start_of(engine, "x") == ["errand", 1, "x"]
    tenant.set(5)
    await engine.run(errand("y"), id="y")
    assert await start_of(engine, "y") == ["errand", 1, "y", '{"tenant":5}']
    await engine.aclose()
    engine = await engines.file(errand, carry=[request_id])
    fork = await engine.get("y").fork(at="0")
    assert await fork.result(5) == "none"


async def start_of(engine, run_id):
    """The first event of a run, as it is on disk."""
    sql = "SELECT body FROM durable_events JOIN durable_runs USING (run) WHERE seq = 1 AND run_id = ?"
    return json.loads(await engine._backend.read(lambda conn: conn.execute(sql, (run_id,)).fetchone()[0]))


class Reversed:
    """Hooks that make bytes of values."""

    def encode(self, data: bytes) -> bytes:
        return b"\xff" + data[::-1]

    def decode(self, data: bytes) -> bytes:
        return data[:0:-1]


async def test_codec_hooks_see_them(engines):
    """
    A secret in them is as well kept as other values.
    """
    engine = await engines.file(errand, carry=[request_id], codec=Reversed())
    request_id.set("secret")
    run = await engine.start(errand("x"))
    assert await run.result(5) == "secret"
    carried = (await start_of(engine, run.id))[-1]
    assert base64.b64decode(carried.removeprefix("base64:")) == b"\xff" + b'{"request_id":"secret"}'[::-1]


async def test_what_cannot_be_recorded_is_refused_at_the_start(engines):
    """
    With the name of the variable; nothing is started.
    """
    engine = await engines.memory(errand, carry=[request_id])
    request_id.set(object())  # type: ignore[arg-type]  # to be refused
    with pytest.raises(EncodeError, match=r"carry=.*request_id"):
        await engine.start(errand("x"))
    assert [info async for info in engine.runs()] == []


@pytest.mark.parametrize(
    "carry, words",
    [
        ("request_id", "takes a list of context variables"),
        (["request_id"], "takes context variables"),
        ([request_id, ContextVar("request_id")], "two variables called 'request_id'"),
    ],
)
def test_what_is_no_list_of_context_variables_is_refused(carry, words):
    """
    When the engine is made.
    """
    with pytest.raises(DefinitionError, match=words):
        Engine(":memory:", [errand], carry=carry)


async def test_steps_in_processes_see_them(engines):
    """
    Those that stand in a module; one run after the other in one process, each its own. What stands in none is left out.
    """

    @workflow
    async def counts() -> Flow[list[str | int | None]]:
        found: list[str | int | None] = yield in_process()
        yield Return(found)

    local: ContextVar[str] = ContextVar("local", default="")
    local.set("x")
    engine = await engines.memory(counts, carry=[request_id, tenant, local])
    request_id.set("r-1")
    tenant.set(7)
    assert await engine.run(counts()) == ["r-1", 7]
    request_id.set("r-2")
    assert await engine.run(counts()) == ["r-2", 7]
    bare = await engines.memory(counts)
    assert await bare.run(counts()) == ["none", None]
