"""
One key, one run: get-or-create under concurrency, and what `on_conflict` may say.
"""

import asyncio

import pytest

from durable import (
    Client,
    Flow,
    KeyConflictError,
    Limit,
    Return,
    RunCancelledError,
    by_arguments,
    job,
    start,
    wait_for,
    workflow,
)
from durable.errors import DefinitionError

pytestmark = pytest.mark.anyio


@workflow
async def order(number: int) -> Flow[int]:
    yield wait_for("paid")
    yield Return(number)


@job
async def quick(number: int) -> int:
    return number


async def all_runs(engine):
    return [info async for info in engine.runs()]


async def test_a_hundred_concurrent_starts_make_one_run(engines):
    """
    Get-or-create is one transaction.
    """
    engine = await engines.file(order)
    runs = await asyncio.gather(*(engine.start(order(1), key="o-1") for _ in range(100)))
    assert len({run.id for run in runs}) == 1
    assert len(await all_runs(engine)) == 1
    assert await engine.find("o-1") == runs[0]


async def test_other_arguments_under_one_key_are_a_conflict(engines):
    """
    KeyConflictError names the key and its run; so does another workflow under it.
    """
    engine = await engines.memory(order, quick)
    run = await engine.start(order(1), key="o")
    with pytest.raises(KeyConflictError, match="other arguments") as caught:
        await engine.start(order(2), key="o")
    assert caught.value.run_id == run.id
    with pytest.raises(KeyConflictError):
        await engine.start(quick(1), key="o")
    assert len(await all_runs(engine)) == 1


async def test_reject_refuses_even_the_same(engines):
    """
    `on_conflict="reject"`: the key must be free.
    """
    engine = await engines.memory(order)
    await engine.start(order(1), key="o", on_conflict="reject")
    with pytest.raises(KeyConflictError, match="reject"):
        await engine.start(order(1), key="o", on_conflict="reject")


async def test_replace_cancels_the_old(engines):
    """
    `on_conflict="replace"`: the key goes to the new run, the old one is cancelled.
    """
    engine = await engines.memory(order)
    old = await engine.start(order(1), key="o")
    new = await engine.start(order(2), key="o", on_conflict="replace")
    assert new != old
    assert await engine.find("o") == new
    with pytest.raises(RunCancelledError, match="replaced"):
        await old.result(5)
    await new.signal("paid")
    assert await new.result(5) == 2


async def test_rerun_starts_anew_only_when_the_old_has_ended(engines):
    """
    `on_conflict="rerun"`: joins a run under way, replaces one that has ended.
    """
    engine = await engines.memory(order)
    old = await engine.start(order(1), key="o", on_conflict="rerun")
    assert await engine.start(order(1), key="o", on_conflict="rerun") == old
    await old.signal("paid")
    await old.result(5)
    new = await engine.start(order(1), key="o", on_conflict="rerun")
    assert new != old
    assert await old.result(5) == 1


async def test_a_key_outlives_its_run(engines):
    """
    Joining by key gives the result of a run that ended long ago, also after reopening.
    """
    engine = await engines.file(quick)
    run = await engine.start(quick(7), key="k")
    assert await run.result(5) == 7
    await engine.aclose()
    engine = await engines.file(quick)
    assert await engine.start(quick(7), key="k") == run
    assert len(await all_runs(engine)) == 1


async def test_a_definition_can_make_the_key(engines):
    """
    `key=` of a definition is a function of the arguments, or all of them.
    """

    @workflow(key=lambda number: f"n-{number % 10}")
    async def by_digit(number: int) -> Flow[None]:
        yield wait_for("go")

    @job(key=by_arguments)
    async def whole(number: int, factor: int = 2) -> int:
        return number * factor

    engine = await engines.memory(by_digit, whole)
    first = await engine.start(by_digit(13))
    assert (await first.info()).key == "n-3"
    with pytest.raises(KeyConflictError):
        await engine.start(by_digit(23))
    assert await engine.start(whole(1)) == await engine.start(whole(1))
    assert await engine.start(whole(1)) != await engine.start(whole(2))


@pytest.mark.parametrize("raised", [SystemExit(4), KeyboardInterrupt(), ZeroDivisionError()], ids=repr)
@pytest.mark.parametrize("option", ["key", "limit_key"])
async def test_a_key_function_that_fails_is_refused_where_its_run_is_started(engines, option, raised):
    """
    As a `DefinitionError` that names it and what it raised, whoever starts the run: an exit ends no process.
    """

    def fail():
        raise raised

    @job(**{option: fail}, limit=Limit("one", concurrency=1))
    async def keyed() -> None: ...

    engine = await engines.file(keyed, quick)
    says = f"{option} of job 'keyed' raised {type(raised).__name__}"
    for starts in (
        lambda: engine.start(keyed()),
        lambda: engine.run(keyed()),
        lambda: engine.start_many([quick(1), keyed()]),
        lambda: engine.start(quick(1).then(keyed())),
    ):
        with pytest.raises(DefinitionError, match=says):
            await starts()
    with pytest.raises(DefinitionError, match=says):
        async with engine.batch() as batch:
            batch.add(keyed())
    async with Client(engine.path) as client:
        with pytest.raises(DefinitionError, match=says):
            await client.start(keyed())
    assert await all_runs(engine) == []


async def test_a_default_written_out_is_the_same_call(engines):
    """
    `f(1)` and `f(1, opt=<its default>)` have one key by arguments, and do not conflict under one key.
    """

    @job(key=by_arguments)
    async def export(n: int, *, kind: str = "csv") -> str:
        return f"{n}.{kind}"

    engine = await engines.memory(export)
    first = await engine.start(export(1))
    assert await engine.start(export(1, kind="csv")) == first
    assert await engine.start(export(1, kind="pdf")) != first
    keyed = await engine.start(export(2, kind="csv"), key="two")
    assert await engine.start(export(2), key="two") == keyed


async def test_a_key_function_takes_the_arguments_that_it_names(engines):
    """
    A default counts as given, whether it is written out or not; what the function does not name makes no difference.
    """

    @job(key=lambda n, kind: f"{n}.{kind}")
    async def both(n: int, kind: str = "csv") -> None: ...

    @job(key=lambda n: f"{n}")
    async def one(n: int, *, kind: str = "csv") -> None: ...

    engine = await engines.memory(both, one)
    for first, same in ((both(1), both(1, kind="csv")), (one(1), one(1, kind="csv"))):
        assert await engine.start(first) == await engine.start(same)
    assert sorted(run.key for run in await all_runs(engine)) == ["1", "1.csv"]
    with pytest.raises(KeyConflictError):
        await engine.start(one(1, kind="pdf"))


async def test_keys_of_two_definitions_by_arguments_do_not_collide(engines):
    """
    `by_arguments` keeps equal arguments of different definitions apart.
    """

    @job(key=by_arguments)
    async def one(number: int) -> str:
        return "one"

    @job(key=by_arguments)
    async def two(number: int) -> str:
        return "two"

    engine = await engines.memory(one, two)
    assert await engine.run(one(1)) == "one"
    assert await engine.run(two(1)) == "two"


async def test_an_unknown_on_conflict_is_refused(engines):
    """
    A misspelled policy is an error where it is written.
    """
    engine = await engines.memory(order)
    with pytest.raises(ValueError, match="on_conflict"):
        await engine.start(order(1), key="o", on_conflict="ignore")


async def test_children_join_by_key(engines):
    """
    Two parents that ask for a child of one key share its run; a conflict is an error in the workflow.
    """
    ran = []

    @job
    async def shared(number: int) -> int:
        ran.append(number)
        return number

    @workflow
    async def parent(number: int) -> Flow[str]:
        try:
            value: int = yield shared(number).options(key="s")
        except KeyConflictError:
            yield Return("conflict")
        else:
            yield Return(str(value))

    engine = await engines.memory(parent, shared)
    assert await engine.run(parent(1)) == "1"
    assert await engine.run(parent(1)) == "1"
    assert await engine.run(parent(2)) == "conflict"
    assert ran == [1]


async def test_start_in_a_workflow_joins_by_key(engines):
    """
    `start(op, key=)` in a workflow gives the run that has the key, whoever started it.
    """

    @workflow
    async def parent() -> Flow[str]:
        child = yield start(order(5), key="o-5")
        yield Return(child.run_id)

    engine = await engines.memory(parent, order)
    run = await engine.start(order(5), key="o-5")
    assert await engine.run(parent()) == run.id
