"""
Scenarios 1 to 12: steps run once, are tried again as asked, and are never repeated by a replay.
"""

import pytest

from durable import (
    Flow,
    KeyConflictError,
    Retry,
    Return,
    RunFailedError,
    Transaction,
    job,
    now,
    random,
    step,
    transaction,
    uuid4,
    wait_for,
    workflow,
)
from durable.errors import EncodeError
from tests.scenarios.differences import ATTEMPTS, CHANGED, MANY, differs, needs_a_file

pytestmark = pytest.mark.anyio

RAN: list[str] = []


@pytest.fixture(autouse=True)
def ran():
    """
    What bodies ran, in order.
    """
    RAN.clear()
    return RAN


@step
async def do(name: str) -> str:
    RAN.append(name)
    return name.upper()


@workflow
async def three() -> Flow[list]:
    a: str = yield do("a")
    b: str = yield do("b")
    c: str = yield do("c")
    yield Return([a, b, c])


def kinds(history):
    return [event.kind for event in history]


async def test_three_steps_run_once_each_in_order(engines, ran):
    """Scenario 1: no faults: succeeded, the result returned, three successes in the journal."""
    engine = await engines.file(three)
    run = await engine.start(three())
    assert await run.result(20) == ["A", "B", "C"]
    assert ran == ["a", "b", "c"]
    assert await run.status() == "succeeded"
    assert kinds(await run.history()).count("StepSucceeded") == 3


@differs(ATTEMPTS)
async def test_a_step_that_fails_twice_is_tried_three_times_and_its_neighbours_once(engines, ran):
    """Scenario 2: the history shows both errors; the run itself shows none."""

    @step(retry=Retry(attempts=3, delay=0.0))
    async def shaky() -> str:
        RAN.append("shaky")
        if RAN.count("shaky") < 3:
            raise ConnectionError(f"no {RAN.count('shaky')}")
        return "at last"

    @workflow
    async def flow() -> Flow[str]:
        yield do("first")
        value: str = yield shaky()
        yield do("last")
        yield Return(value)

    engine = await engines.file(flow)
    run = await engine.start(flow())
    assert await run.result(20) == "at last"
    assert ran == ["first", "shaky", "shaky", "shaky", "last"]
    errors = [event.value for event in await run.history() if event.kind == "StepRetrying"]
    if not engines.differs(ATTEMPTS):
        assert ["no 1" in errors[0], "no 2" in errors[1], len(errors)] == [True, True, 2]
    assert (await run.info()).reason is None


@differs(ATTEMPTS)
async def test_the_limit_of_a_retry_counts_all_attempts(engines, ran, clock):
    """Scenario 3: three attempts and two waits, then the run fails with the original error."""

    @step(retry=Retry(attempts=3, delay=10.0, factor=1.0, jitter=0.0))
    async def hopeless() -> None:
        RAN.append("hopeless")
        raise ConnectionError("for ever")

    @workflow
    async def flow() -> Flow[None]:
        yield hopeless()

    engine = await engines.file(flow, clock=clock)
    run = await engine.start(flow())
    await clock.passes_until(lambda: len(ran) == 3, 11)
    with pytest.raises(RunFailedError) as caught:
        await run.result(20)
    assert type(caught.value.__cause__) is ConnectionError
    assert str(caught.value.__cause__) == "for ever"
    await clock.passes(100)
    assert len(ran) == 3
    retried = kinds(await run.history()).count("StepRetrying")
    assert retried == (0 if engines.differs(ATTEMPTS) else 2)


def test_a_step_runs_again_only_if_the_crash_came_before_its_record(hosts):
    """
    Scenario 4: killed after the effect and before its record, the body runs once more; killed after
    the record, never again. The key of the effect is the same, the attempt's number tells.
    """
    deaths = [4, 7]  # behind "b", unrecorded; at the beginning of "c", with "b" recorded
    assert [hosts.life("line", deaths=deaths) for _ in range(3)] == ["killed", "killed", ["a", "b", "c"]]
    assert hosts.lines() == [
        "begin a", "a r:0 1",
        "begin b", "b r:1 1",  # killed here
        "begin b", "b r:1 2",
        "begin c",  # killed here
        "begin c", "c r:2 2",
    ]  # fmt: skip


async def test_falsy_results_are_results(engines, ran, reached):
    """Scenario 5: after a restart the workflow receives the same value, and the body is not run again."""
    values = [None, False, 0, "", []]
    got: list[list] = []

    @step
    async def give(index: int):
        RAN.append(str(index))
        return values[index]

    @workflow
    async def flow() -> Flow[list]:
        found = []
        for index in range(len(values)):
            value = yield give(index)
            found.append(value)
        yield wait_for("go")
        got.append(found)
        yield Return(found)

    engine = await engines.file(flow)
    run = await engine.start(flow(), id="r")
    await reached(run, "waiting")
    await engines.crash(engine)
    engine = await engines.file(flow)
    await engine.get("r").signal("go")
    assert await engine.get("r").result(20) == values
    assert [type(value) for value in got[0]] == [type(value) for value in values]
    assert got == [values]
    assert ran == ["0", "1", "2", "3", "4"]


async def test_a_result_that_cannot_be_recorded_fails_its_run_and_no_other(engines, ran):
    """Scenario 6: the error names the step, nothing of the value is in the journal; and after a restart too."""

    @step(retry=5)
    async def odd() -> dict:
        RAN.append("odd")
        return {"fine": "half-written", "bad": object()}

    @workflow
    async def flow() -> Flow[None]:
        yield odd()

    engine = await engines.file(flow, three)
    run, other = await engine.start_many([flow(), three()])
    assert await other.result(20) == ["A", "B", "C"]
    for _ in range(2):
        with pytest.raises(RunFailedError, match="'odd'") as caught:
            await run.result(20)
        assert type(caught.value.__cause__) is EncodeError
        history = await run.history()
        assert "StepSucceeded" not in kinds(history)
        assert not any("half-written" in str(event.value) for event in history)
        await engines.crash(engine)
        engine = await engines.file(flow, three)
        run = engine.get(run.id)
    assert ran.count("odd") == 1  # another attempt would bring the same


@differs(MANY)
async def test_a_step_may_be_used_again_and_a_duplicate_key_is_refused(engines, ran):
    """
    Scenario 7: steps are known by position, so each use of a name is a step of its own.

    Steps have no keys here; runs do. Two starts with one key and other arguments in one
    transaction are refused before any body runs.
    """

    @step
    async def next_number() -> int:
        RAN.append("next")
        return len(RAN)

    @workflow
    async def flow() -> Flow[list]:
        first: int = yield next_number()
        second: int = yield next_number()
        between: str = yield do("between")
        third: int = yield next_number()
        yield Return([first, second, between, third])

    @job
    async def charge(cents: int) -> None:
        RAN.append("charge")

    engine = await engines.file(flow, charge)
    assert await engine.run(flow()) == [1, 2, "BETWEEN", 4]
    with pytest.raises(KeyConflictError):
        await engine.start_many([charge(1).options(key="k"), charge(2).options(key="k")])
    if not engines.differs(MANY):
        assert [info.workflow async for info in engine.runs()] == ["flow"]
        assert ran == ["next", "next", "between", "next"]


@differs(CHANGED)
async def test_changed_code_runs_nothing_until_it_is_restored(engines, ran, reached):
    """
    Scenario 8: another step at position 1: the run is blocked with a report that names both commands,
    no body runs, the history stays as it is; with the old code back it goes on by itself.
    """

    @workflow(name="flow")
    async def old() -> Flow[list]:
        a: str = yield do("a")
        b: str = yield do("b")
        yield wait_for("go")
        c: str = yield do("c")
        yield Return([a, b, c])

    @step
    async def other() -> str:
        RAN.append("other")
        return "other"

    @workflow(name="flow")
    async def new() -> Flow[list]:
        a: str = yield do("a")
        b: str = yield other()
        yield wait_for("go")
        c: str = yield do("c")
        yield Return([a, b, c])

    engine = await engines.file(old)
    run = await engine.start(old(), id="r")
    await reached(run, "waiting")
    before = await run.history()
    await engine.aclose()
    engine = await engines.file(new)
    run = engine.get("r")
    await run.signal("go")
    await reached(run, "blocked")
    why = await run.why()
    if engines.differs(CHANGED):
        assert "'do' does not match" in why
        assert "'other'" in why
    else:
        assert "command 1" in why
        assert "step 'do'" in why
        assert "step 'other'" in why
        assert await run.history() == before
    assert ran == ["a", "b"]
    await engine.aclose()
    engine = await engines.file(old)
    assert await engine.get("r").result(40, wait=True) == ["A", "B", "C"]
    assert ran == ["a", "b", "c"]


async def test_code_between_steps_is_replayed_over_what_was_recorded(engines, ran, reached, eventually, clock):
    """Scenario 9: it runs again, and sees the recorded result, time, random number and id each time."""
    seen = []

    @step
    async def count() -> int:
        RAN.append("count")
        return len(RAN)

    @workflow
    async def flow() -> Flow[list]:
        number: int = yield count()
        found = [number, now().timestamp(), random().random(), str(uuid4())]
        seen.append(found)
        yield wait_for("go")
        yield wait_for("go")
        yield Return(found)

    engine = await engines.file(flow, clock=clock)
    run = await engine.start(flow(), id="r")
    await reached(run, "waiting")
    await clock.passes(1000)
    await engines.crash(engine)
    engine = await engines.file(flow, clock=clock)
    run = engine.get("r")
    await run.signal("go")
    await reached(run, "waiting")
    await clock.passes(1000)
    await run.signal("go")
    assert await run.result(20) == seen[0]
    assert len(seen) >= 2
    assert seen == [seen[0]] * len(seen)
    assert ran == ["count"]
    await engine.start(flow())

    async def fresh_seen():
        return seen[-1] != seen[0]

    await eventually(fresh_seen)
    assert all(mine != theirs for mine, theirs in zip(seen[0][1:], seen[-1][1:], strict=True))


async def test_rows_of_a_transaction_that_is_tried_again_are_there_once(engines, ran):
    """Scenario 10, without a crash: what failed behind its INSERT has left no row."""

    @transaction(retry=Retry(attempts=2, delay=0.0))
    def insert(tx: Transaction) -> int:
        tx.execute("CREATE TABLE IF NOT EXISTS app (mark TEXT)")
        (rows,) = tx.execute("SELECT count(*) FROM app").fetchone()
        tx.execute("INSERT INTO app VALUES ('paid')")
        RAN.append("insert")
        if len(RAN) == 1:
            raise ConnectionError("behind the INSERT")
        return rows

    @workflow
    async def flow() -> Flow[int]:
        before: int = yield insert()
        yield Return(before)

    engine = await engines.file(flow, tables=True)
    assert await engine.run(flow()) == 0
    assert ran == ["insert", "insert"]
    assert engines.rows("SELECT mark FROM app") == [("paid",)]


@needs_a_file("it is recovered from copies of its file, made at each commit")
async def test_rows_of_a_transaction_are_there_once_whatever_fails_around_its_commit(
    engines, tmp_db, ran, monkeypatch, copies
):
    """
    Scenario 10: a transaction that fails behind its INSERT leaves no row, its retry leaves one; and so
    it is for a crash before and after every COMMIT of the run.
    """
    rows_at_retry = []

    @transaction(retry=Retry(attempts=2, delay=0.0))
    def insert(tx: Transaction) -> str:
        tx.execute("CREATE TABLE IF NOT EXISTS app (mark TEXT)")
        rows_at_retry.append(len(tx.execute("SELECT * FROM app").fetchall()))
        tx.execute("INSERT INTO app VALUES ('paid')")
        RAN.append("insert")
        if len(RAN) == 1:
            raise ConnectionError("behind the INSERT")
        return "inserted"

    @workflow
    async def flow() -> Flow[str]:
        yield do("a")
        value: str = yield insert()
        yield do("b")
        yield Return(value)

    async def rows(engine):
        return await engine._backend.read(lambda conn: conn.execute("SELECT mark FROM app").fetchall())

    @workflow
    async def only() -> Flow[str]:
        value: str = yield insert()
        yield Return(value)

    engine = await engines.file(flow, only)
    assert await engine.run(only()) == "inserted"
    assert rows_at_retry == [0, 0]
    assert await rows(engine) == [("paid",)]
    await engine.aclose()

    with monkeypatch.context() as patch:
        recorded = copies(patch)
        engines.path = tmp_db.with_name("second.db")
        engine = await engines.file(flow, only)
        assert await engine.run(flow(), id="r") == "inserted"
        await engine.aclose()
    lost = 0
    for path in recorded.paths:
        engines.path, calls = path, ran.count("insert")
        engine = await engines.file(flow, only)
        assert await engine.run(flow(), id="r") == "inserted", path
        assert await rows(engine) == [("paid",)], path
        lost += ran.count("insert") > calls
        await engine.aclose()
    assert 2 <= lost < len(recorded.paths)  # some crashes took the transaction with them, and some did not


async def test_a_workflow_that_returns_early_has_succeeded(engines, ran):
    """Scenario 11: what follows the `Return` does not run, not even after a restart."""

    @workflow
    async def flow(enough: bool) -> Flow[str | None]:
        value: str = yield do("a")
        if enough:
            yield Return(value)
        yield do("b")

    engine = await engines.file(flow)
    run = await engine.start(flow(True), id="r")
    assert await run.result(20) == "A"
    history = await run.history()
    await engines.crash(engine)
    engine = await engines.file(flow)
    run = engine.get("r")
    assert await run.status() == "succeeded"
    assert await run.result(20) == "A"
    assert await run.history() == history
    assert ran == ["a"]
    assert await engine.run(flow(False)) is None
    assert ran == ["a", "a", "b"]


async def test_starting_what_has_finished_returns_the_stored_result(engines, ran):
    """Scenario 12: with the same key, in the same life and in the next one, nothing is run."""
    engine = await engines.file(three)
    run = await engine.start(three(), key="k")
    assert await run.result(20) == ["A", "B", "C"]
    assert await engine.run(three(), key="k") == ["A", "B", "C"]
    await engines.crash(engine)
    engine = await engines.file(three)
    again = await engine.start(three(), key="k")
    assert again == run
    assert await again.result(20) == ["A", "B", "C"]
    assert ran == ["a", "b", "c"]
    assert len([info async for info in engine.runs()]) == 1
