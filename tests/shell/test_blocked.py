"""
A blocked run says so to everybody: who awaits its result, and whoever is behind it.
"""

import asyncio
import contextlib

import pytest

from durable import Client, Flow, Limit, Return, RunBlockedError, job, step, wait_for, workflow

pytestmark = pytest.mark.anyio


class Stuck:
    """Definitions of runs that are blocked by a step whose outcome is unknown, and of others behind them."""

    def __init__(self):
        self.began, self.calls = asyncio.Event(), 0

        @step(on_crash="block")
        async def charge() -> str:
            self.calls += 1
            self.began.set()
            if self.calls == 1:
                await asyncio.Event().wait()
            return "charged"

        @workflow(limit=Limit("per-customer", concurrency=1), limit_key=lambda customer: customer)
        async def bill(customer: str) -> Flow[str]:
            value: str = yield charge()
            yield Return(value)

        @workflow
        async def parent() -> Flow[str]:
            value: str = yield bill("ada")
            yield Return(value)

        @job
        async def after() -> None: ...

        self.bill, self.parent, self.definitions = bill, parent, [bill, parent, after]

    async def engine(self, engines, reached, op):
        engine = await engines.file(*self.definitions)
        await engine.start(op, id="r")
        await self.began.wait()
        children = await engine.get("r").children()
        await engines.crash(engine)
        engine = await engines.file(*self.definitions)
        await reached(engine.get(children[0].run_id if children else "r"), "blocked")
        return engine


@pytest.mark.parametrize("through", ["engine", "client"])
async def test_its_result_raises_why_it_is_blocked(engines, reached, through):
    """
    At once, where it would have waited for ever.
    """
    stuck = Stuck()
    engine = await stuck.engine(engines, reached, stuck.bill("ada"))
    async with contextlib.AsyncExitStack() as stack:
        journal = engine if through == "engine" else await stack.enter_async_context(Client(engine.path))
        with pytest.raises(RunBlockedError, match="run 'r' is blocked and needs a person: step 'charge'") as caught:
            await journal.get("r").result(5)
        assert caught.value.run_id == "r"
        assert "its outcome is unknown" in caught.value.reason


@pytest.mark.parametrize("through", ["engine", "client"])
async def test_who_waits_when_it_is_blocked_hears_of_it(engines, through):
    """
    Also one who awaited it before; another who said ``wait=True`` waits until it has ended.
    """

    @workflow
    async def diverges() -> Flow[str]:
        yield wait_for("go")
        yield step(fresh)() if changed else wait_for("other")
        yield Return("done")

    async def fresh() -> None: ...

    changed = False
    engine = await engines.file(diverges)
    await engine.start(diverges(), id="r")
    async with contextlib.AsyncExitStack() as stack:
        journal = engine if through == "engine" else await stack.enter_async_context(Client(engine.path))
        await engine.idle()
        await engine.get("r").signal("go")
        await engine.idle()
        told = asyncio.create_task(journal.get("r").result(10))
        waits = asyncio.create_task(journal.get("r").result(10, wait=True))
        await asyncio.sleep(0.05)
        changed = True
        await engine.get("r").signal("other")
        with pytest.raises(RunBlockedError, match="diverged"):
            await told
        assert not waits.done()
        changed = False
        await engine.get("r").resume()
        assert await waits == "done"


async def test_who_is_behind_it_names_it(engines, reached):
    """
    `why()` of its parent, and of a run that waits for the slot of its limit.
    """
    stuck = Stuck()
    engine = await stuck.engine(engines, reached, stuck.parent())
    (child,) = await engine.get("r").children()
    await engine.start(stuck.bill("ada"), id="behind")
    expected = f"run {child.run_id!r} (which is blocked and needs a person: step 'charge' at 0"
    assert expected in await engine.get("r").why()
    assert expected in await engine.get("behind").why()
    await engine.get(child.run_id).resume()
    for name in ("r", "behind"):
        assert await engine.get(name).result(5) == "charged"


@pytest.mark.parametrize("through", ["engine", "client"])
async def test_its_batch_names_it_before_members_that_only_take_long(engines, reached, through):
    """
    `why()` of the batch, which tells of the oldest where nobody is blocked, and says when it is finished.
    """
    stuck = Stuck()

    @workflow
    async def long() -> Flow[str]:
        value: str = yield wait_for("go")
        yield Return(value)

    stuck.definitions.append(long)
    engine = await engines.file(*stuck.definitions)
    async with engine.batch(id="b") as batch:
        batch.add(long().options(key="long"))
        batch.add(stuck.bill("ada").options(key="bill"))
    long_one, bill = await engine.find("long"), await engine.find("bill")
    await stuck.began.wait()
    await engines.crash(engine)
    engine = await engines.file(*stuck.definitions)
    await reached(engine.get(bill.id), "blocked")
    async with contextlib.AsyncExitStack() as stack:
        journal = engine if through == "engine" else await stack.enter_async_context(Client(engine.path))
        batch = journal.get_batch("b")
        assert f"2 of 2 members have not ended; run {bill.id!r} is blocked and needs a person" in await batch.why()
        await engine.get(bill.id).resume()
        assert await engine.get(bill.id).result(5) == "charged"
        assert f"1 of 2 members has not ended; run {long_one.id!r} waits for signal 'go'" in await batch.why()
        await engine.get(long_one.id).signal("go", "gone")
        await batch.wait(5)
        assert await batch.why() == "batch 'b' is finished"
