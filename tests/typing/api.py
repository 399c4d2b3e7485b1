"""
The contract of the annotations. Never run: `make types` checks it with mypy and pyright.

First the example of the README, then one line for each op, then what an engine gives.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, assert_type

from attrs import frozen

import durable.testing
from durable import (
    Activation,
    Asked,
    AttemptFailed,
    Batch,
    BatchInfo,
    Callback,
    Definition,
    DryRun,
    Engine,
    Fatal,
    Finished,
    Flow,
    GroupFailedError,
    Limit,
    Middleware,
    NamedOutcomes,
    Op,
    Outcomes,
    Progress,
    Queue,
    Rate,
    Request,
    Retry,
    RetryAfter,
    Return,
    Run,
    RunFailure,
    RunFromThread,
    RunInfo,
    RunOp,
    RunSuccess,
    RunView,
    Schedule,
    ScheduleInfo,
    Service,
    Settled,
    Signal,
    Stats,
    StepCall,
    StreamItem,
    Transaction,
    Winner,
    as_completed,
    call,
    callback,
    cancel_run,
    context,
    continue_as,
    current_batch,
    emit,
    for_each,
    gather,
    job,
    memo,
    now,
    patched,
    poll_until,
    progress,
    race,
    set_attributes,
    settle,
    signal_run,
    sleep,
    sleep_until,
    start,
    step,
    timeout,
    transaction,
    uuid4,
    wait_first,
    wait_for,
    what_if,
    workflow,
)
from durable._core.program.callbacks import CallbackOp
from durable.testing import (
    Call,
    Ledger,
    Outcome,
    Scenario,
    StepRun,
    Survived,
    VirtualClock,
    every_crash,
    every_glitch,
    replaced,
    run_step,
)

# --- the example --------------------------------------------------------------------------------


@frozen
class Receipt:
    ride_id: int
    charge_id: str


decided = Signal("decided", Receipt)
approve = Request("approve", Receipt, bool)
untyped = Request("approve")


@transaction
def create_ride(tx: Transaction, user_id: int, pickup: str) -> int:
    row = tx.execute("INSERT INTO rides (user_id, pickup) VALUES (?, ?)", (user_id, pickup))
    assert row.lastrowid is not None
    return row.lastrowid


@job(queue="drivers", retry=5)
async def notify_drivers(ride_id: int) -> int:
    return ride_id


@job(queue="audit")
async def write_audit(ride_id: int) -> None: ...


@step(retry=Retry(attempts=5, on=ConnectionError))
async def charge(ride_id: int) -> str:
    if ride_id < 0:
        raise Fatal("no such ride")
    if context().attempt == 1:
        raise RetryAfter(2.5)
    return f"ch-{ride_id}"


@workflow
async def ride(user_id: int, pickup: str) -> Flow[Receipt]:
    ride_id: int = yield create_ride(user_id, pickup)
    yield gather(notify_drivers(ride_id), write_audit(ride_id))
    charge_id: str = yield charge(ride_id)
    yield Return(Receipt(ride_id, charge_id))


async def main() -> None:
    async with Engine("rides.db", [ride, notify_drivers, write_audit]) as engine:
        run = await engine.start(ride(42, "Main St 1"), key="ride-42")
        assert_type(run, Run[Receipt])
        assert_type(await run.result(), Receipt)


# --- definitions of every form ------------------------------------------------------------------


@step
def plain(name: str, *, loud: bool = False) -> bytes:
    return (name.upper() if loud else name).encode()


@step
async def tokens(prompt: str) -> AsyncIterator[str]:
    await emit("prompts", prompt, sync=True)
    progress(1, 3, "thinking")
    yield prompt


@step(stream=True, retry=2)
async def latest(prompt: str) -> AsyncGenerator[int, None]:
    emit("prompts", prompt)
    yield len(prompt)


@job(queue="pages")
async def pages(number: int) -> AsyncIterator[bytes]:
    yield b"x" * number


async def follow(run: Run[Any]) -> None:
    assert_type(pages(3), RunOp[list[bytes]])
    assert_type(await tokens("x"), list[str])
    assert_type(await latest("x"), int | None)
    async for token in run.stream("tokens", str, after=3):
        assert_type(token, str)
    async for item in run.stream("tokens", str).items():
        assert_type(item, StreamItem[str])
    told = (await run.info()).progress
    assert_type(told, Progress | None)


@step(retry=3, timeout=30, on_crash="raise", name="count", process=True)
def count(text: str) -> int:
    return len(text)


@job
def thumbnail(path: str) -> bytes:
    return path.encode()


@transaction(name="top-up")
def top_up(tx: Transaction, amount: int) -> None:
    tx.execute("UPDATE account SET balance = balance + ?", (amount,))


@ride.query
def miles(run: RunView, factor: int) -> int:
    assert_type(run.values(charge), list[str])
    assert_type(run.value("charge"), Any)
    return factor * len(run.values(create_ride))


@workflow(version=2, queue="slow", timeout=3600, retry=2, priority=5, labels={"team": "a"})
async def coroutine_form(name: str) -> int:
    return await count(name)


@workflow(name="endless")
async def generator_form(rounds: int = 0) -> Flow[None]:
    yield sleep(timedelta(hours=1))
    yield continue_as(generator_form(rounds + 1))


def undecorated(a: int, b: str = "") -> float:
    return a + len(b)


async def undecorated_async(a: int) -> list[str]:
    return ["x"] * a


# --- every op -----------------------------------------------------------------------------------


async def helper(ride_id: int) -> str:
    return await charge(ride_id)


async def every_op() -> None:
    assert_type(await charge(1), str)
    assert_type(await charge(1).options(retry=2, timeout=5.0), str)
    assert_type(await plain("a", loud=True), bytes)
    assert_type(await create_ride(1, "here"), int)
    assert_type(await top_up(5), None)
    assert_type(await notify_drivers(1), int)
    assert_type(await notify_drivers(1).options(delay=5, priority=1, key="k", labels={"a": "b"}), int)
    assert_type(await thumbnail("a.png"), bytes)
    assert_type(await coroutine_form("a"), int)
    assert_type(await ride(1, "here"), Receipt)
    assert_type(await generator_form(), None)

    assert_type(await call(undecorated, 1, b="x"), float)
    assert_type(await call(undecorated_async, 2), list[str])

    assert_type(await gather(charge(1)), tuple[str])
    assert_type(await gather(count("a"), charge(1)), tuple[int, str])
    assert_type(await gather(count("a"), charge(1), plain("b")), tuple[int, str, bytes])
    assert_type(await gather(count("a"), charge(1), plain("b"), top_up(1)), tuple[int, str, bytes, None])
    assert_type(
        await gather(count("a"), charge(1), plain("b"), top_up(1), ride(1, "x")),
        tuple[int, str, bytes, None, Receipt],
    )
    assert_type(await gather(*[charge(n) for n in range(3)]), list[str])
    assert_type(await gather(helper(1), count("a"), fail_fast=True), tuple[str, int])
    assert_type(await gather(gather(charge(1), count("a")), charge(2)), tuple[tuple[str, int], str])

    winner = await race(charge(1), helper(2))
    assert_type(winner.index, int)
    assert_type(winner.value, str)
    assert_type((await race({"yes": wait_for("yes", bool), "no": wait_for("no", bool)})).value, bool)

    assert_type(await timeout(charge(1), 5), str)
    assert_type(await timeout(helper(1), timedelta(seconds=5)), str)
    assert_type(await for_each(count, ["a", "b"]), list[int])
    assert_type(await for_each(thumbnail, ["a", "b"], concurrency=None), list[bytes])
    assert_type(await sleep(1.5), None)
    assert_type(await sleep_until(datetime.now(UTC)), None)
    assert_type(await wait_for("approved", bool), bool)
    assert_type(await wait_for("decided", Receipt, timeout=60), Receipt)
    assert_type(await wait_for("anything"), Any)
    assert_type(await wait_for(decided), Receipt)
    assert_type(await wait_for(decided, timeout=60), Receipt)
    asked = await wait_for(approve)
    assert_type(asked, Asked[Receipt, bool])
    assert_type(asked.value, Receipt)
    assert_type(await asked.reply(True), None)
    assert_type(await asked.refuse("no"), None)
    assert_type(await wait_for(untyped, timeout=60), Asked[Any, Any])
    assert_type(await race(wait_for(approve), sleep(1)), Winner[Asked[Receipt, bool] | None])

    assert_type(callback("paid", Receipt), CallbackOp[Receipt])
    assert_type(await callback(Receipt, timeout=60, heartbeat=timedelta(seconds=5)), Callback[Receipt])
    paid = await callback("paid", Receipt)
    assert_type(paid.token, str)
    assert_type(await paid, Receipt)
    assert_type(await (await callback(type=Receipt)), Receipt)
    assert_type(await (await callback("paid")), Any)
    assert_type(await (await callback()), Any)
    assert_type(await gather(paid, await callback(int)), tuple[Receipt, int])
    assert_type((await race(paid, charge(1))).value, Receipt | str)
    assert_type(await timeout(paid, 5), Receipt)
    assert_type(await settle(paid), Settled[Receipt])
    assert_type((await wait_first([paid, paid])).value, Receipt)

    assert_type(await signal_run("ride-1", decided, Receipt(1, "x")), None)
    assert_type(await signal_run("ride-1", "approved", payload=True), None)
    assert_type(await cancel_run("ride-1", "too late"), bool)
    child = await start(ride(1, "here"), key="ride-1")
    assert_type(await child.result(), Receipt)
    settled = await settle(charge(1))
    assert_type(settled.value, str | None)

    assert_type(now(), datetime)
    assert_type(uuid4().hex, str)
    assert_type(patched("charge-first"), bool)
    set_attributes(progress=0.5)
    assert_type(await memo("pages", undecorated_async, 3), list[str])


def ops_of_one_type_share_a_variable() -> Op[str]:
    op: Op[str] = charge(1)
    if patched("with-a-deadline"):
        op = timeout(op, 5)
    return op


async def the_undecorated_function_is_kept() -> None:
    await charge.fn(1)


# --- what an engine gives -----------------------------------------------------------------------


async def every_call(engine: Engine) -> None:
    assert_type(await engine.start(notify_drivers(1), delay=3, on_conflict="rerun"), Run[int])
    assert_type(await engine.start(notify_drivers(1).options(on_conflict="coalesce"), key="k"), Run[int])
    assert_type(await engine.prune(older_than=60, keep_keys=False), int)
    assert_type(await engine.delete("r"), int)
    assert_type(await engine.get_batch("b").retry(force=True), int)
    assert_type(await engine.get("r").retry(force=True), bool)
    assert_type(await engine.run(coroutine_form("a")), int)
    print(await engine.run(coroutine_form("a")))  # where an object is wanted, an int will do
    assert_type(engine.from_thread.start(notify_drivers(1), key="k"), RunFromThread[int])
    assert_type(engine.from_thread.start(notify_drivers(1)).result(5), int)
    assert_type(engine.from_thread.run(coroutine_form("a"), priority=1), int)
    assert_type(engine.from_thread.call(engine.stats), Stats)
    assert_type(engine.from_thread.call(engine.find, "k"), Run[Any])
    dry = await engine.dry_run(
        ride(1, "here"),
        stand_ins={charge: lambda ride_id: "ch", create_ride: lambda *_: 1, "notify_drivers": len},
        signals={"stars": [5]},
    )
    assert_type(dry, DryRun[Receipt])
    by_name: dict[str, list[Any]] = {"stars": [5]}
    by_signal: dict[Signal[int], list[int]] = {Signal("stars", int): [5]}
    assert_type(await engine.dry_run(ride(1, "here"), signals=by_name), DryRun[Receipt])
    assert_type(await engine.dry_run(ride(1, "here"), signals=by_signal), DryRun[Receipt])
    assert_type(await engine.dry_run(ride(1, "here"), signals={Signal("stars", int): [5], "go": []}), DryRun[Receipt])
    assert_type(await what_if("ride.json", ride, signals=by_signal), DryRun[Any])
    assert_type(await engine.get("r").fork(1, {1: "by hand"}), Run[Any])
    assert_type(await engine.get("r").fork(1, {"1": "by hand"}), Run[Any])
    assert_type(dry.value, Receipt | None)
    assert_type([event.kind for event in dry], list[str])
    run = await engine.start(ride(1, "here"))
    assert_type(await run.signal(decided, Receipt(1, "c")), bool)
    assert_type(await run.ask(approve, Receipt(1, "c"), timeout=5, dedup="d"), bool)
    assert_type(await run.ask("approve", 3), Any)
    print(await run.ask(approve, Receipt(1, "c")))
    assert_type(await run.query(miles, 3), int)
    assert_type(await run.query("miles", 3), Any)
    assert_type(engine.from_thread.get("r").ask(approve, Receipt(1, "c")), bool)
    assert_type(await run.signal("anything", {"by": "Ann"}), bool)
    assert_type(run.run_id, str)
    assert_type(await run.result(timeout=5), Receipt)
    assert_type(await run.info(), RunInfo)
    assert_type(await run.why(), str)
    async for info in engine.runs(workflow="ride", limit=10):
        assert_type(info, RunInfo)
    schedule = engine.schedule("nightly")
    assert_type(await schedule.info(), ScheduleInfo)
    assert_type(await schedule.pause(), bool)
    assert_type(await schedule.trigger(), Run[Any])
    assert_type(await engine.schedules(), list[ScheduleInfo])


def every_schedule() -> list[Schedule]:
    return [
        Schedule("nightly", ride(1, "here"), cron="0 3 * * *", timezone="Europe/Berlin", missed="one"),
        Schedule("thumbnails", lambda at: thumbnail(f"{at.date()}.png"), every=timedelta(minutes=5), overlap="queue"),
        Schedule("often", notify_drivers(1), every=2.5),
    ]


# --- what follows a run -------------------------------------------------------------------------


@notify_drivers.on_success
def tell(finished: Finished[int]) -> list[RunOp[None]]:
    assert_type(finished.value, int | None)
    assert_type(finished.error, Exception | None)
    return [write_audit(finished.arguments["ride_id"]).options(delay=timedelta(minutes=5), retry=3)]


@ride.on_finish
def nothing(finished: Finished[Receipt]) -> None:
    assert_type(finished.value, Receipt | None)


async def followed(engine: Engine) -> None:
    run = await engine.start(notify_drivers(1).then(write_audit(1), thumbnail("a")), key="k", key_ttl=60)
    assert_type(run, Run[int])


@workflow
async def quorum(names: list[str]) -> Flow[None]:
    assert_type(await gather([notify_drivers(1), notify_drivers(2)]), list[int])
    assert_type(await gather(thumbnail(name) for name in names), list[bytes])
    assert_type(await gather(notify_drivers(1), notify_drivers(2), notify_drivers(3), at_least=2), list[int])
    yield gather(None)


async def shortened(name: str, index: int) -> str:
    return f"{index} {await charge(len(name))}"


@workflow
async def groups(names: list[str]) -> Flow[None]:
    async for charged in as_completed(charge(n) for n in range(3)):
        assert_type(charged, str)
    async for either in as_completed(charge(1), count("a")):
        assert_type(either, str | int)
    async for name, told in as_completed({"eu": charge(1), "us": charge(2)}):
        assert_type((name, told), tuple[str, str])
    async for settled in as_completed([charge(1), charge(2)], enough=1):
        assert_type(settled, Settled[str])
    assert_type(await wait_first([charge(1), charge(2)]), Winner[str])
    assert_type(await wait_first(charge(1), count("a")), Winner[str | int])
    assert_type(await wait_first({"eu": charge(1)}), Winner[str])
    assert_type(await poll_until(count("a"), every=5, timeout=timedelta(hours=1), factor=2), int)
    assert_type(await poll_until(notify_drivers(1), every=5), int)
    assert_type(await gather(charge(1), count("a"), concurrency=1), tuple[str, int])
    assert_type(await gather([helper(1), helper(2)], concurrency=1), list[str])
    assert_type(await gather({"eu": charge(1), "us": charge(2)}), dict[str, str])
    assert_type(await gather({1: helper(1), 2: helper(2)}, concurrency=1, fail_fast=True), dict[int, str])
    assert_type(await gather({"eu": charge(1)}, return_exceptions=True), dict[str, str | Exception])
    mixed: dict[str, str | int] = await gather({"eu": charge(1), "us": count("b")})
    assert_type(mixed["eu"], str | int)

    found = await gather((charge(n) for n in range(5)), enough=2, tolerate=1)
    assert_type(found, Outcomes[str])
    assert_type(found[0], Settled[str])
    assert_type(found[0].value, str | None)
    assert_type(found.succeeded, list[str])
    assert_type(found.failed, list[Exception])
    assert_type(found.reason, Literal["all ended", "enough succeeded", "too many failed"])
    assert_type(await gather(charge(1), charge(2), enough=1), Outcomes[str])
    assert_type(await gather(charge(1), charge(2), tolerate=0.5, concurrency=1), Outcomes[str])
    named = await gather({"eu": charge(1), "us": charge(2)}, tolerate=1)
    assert_type(named, NamedOutcomes[str, str])
    assert_type(named["eu"].get(), str)
    assert_type(named.succeeded, dict[str, str])

    assert_type(await for_each(helper, [1, 2], concurrency=3), list[str])
    assert_type(await for_each(shortened, names, index=True, names=names), list[str])
    assert_type(await for_each(notify_drivers, [1], names=lambda ride: f"ride {ride + 1}", enough=1), Outcomes[int])
    assert_type(await for_each(helper, [1, 2], tolerate=0.1), Outcomes[str])
    try:
        yield for_each(ride, [1, 2], concurrency=2)
    except GroupFailedError as error:
        assert_type(error.settled, Outcomes[Any] | NamedOutcomes[Any, Any])
        assert_type(error.reason, Literal["all ended", "enough succeeded", "too many failed"])
        assert_type(error.exceptions, tuple[Exception | ExceptionGroup[Exception], ...])


# --- middleware ---------------------------------------------------------------------------------


class Tracing(Middleware):
    async def step(self, call: StepCall, proceed: Callable[[], Awaitable[Any]]) -> Any:
        assert_type(call.attempt, int)
        return await proceed()

    async def run(self, activation: Activation, proceed: Callable[[], Awaitable[None]]) -> None:
        assert_type(activation.run_id, str)
        await proceed()

    def attempt_failed(self, failure: AttemptFailed) -> None:
        assert_type(failure.error, Exception)
        assert_type(failure.retry_at, float | None)

    def run_failed(self, failure: RunFailure) -> None:
        assert_type(failure.reason, str)

    def run_succeeded(self, success: RunSuccess) -> None:
        assert_type(success.run_id, str)


async def with_middleware() -> None:
    async with Engine("rides.db", [ride], middleware=[Tracing()]) as engine:
        async for event in engine.events():
            if event.name == "step.attempt_failed":
                assert_type(event.step, str | None)


async def every_batch(engine: Engine) -> None:
    async with engine.batch(on_success=ride(1, "here"), on_complete=[write_audit(1), thumbnail("a")]) as batch:
        assert_type(batch, Batch)
        assert_type(await batch.add(notify_drivers(1), key="k", delay=3), Run[int])
        assert_type(await batch.add_many([thumbnail("a"), thumbnail("b")]), list[Run[bytes]])
        async with batch.batch(description="nested", labels={"a": "b"}) as nested:
            nested.add(ride(1, "here"))
    assert_type(await batch.wait(timeout=5), BatchInfo)
    assert_type(await engine.get_batch("b").info(), BatchInfo)
    assert_type(await batch.members(), list[RunInfo])
    assert_type(await batch.cancel("enough"), bool)
    assert_type(current_batch().parent, Batch | None)
    async for info in engine.batches(labels={"a": "b"}, limit=10):
        assert_type(info, BatchInfo)


# --- limits ---------------------------------------------------------------------------------------

api_limit = Limit("api", concurrency=5, rate=Rate(100, per=timedelta(minutes=1)))


@step(limit=api_limit)
async def limited(number: int) -> str:
    return str(number)


@step(limit="api", limit_key=lambda host, **_: host)
def limited_by_name(host: str, page: int) -> bytes:
    return b""


@job(limit=api_limit, limit_key=str)
async def limited_job(number: int) -> str:
    return str(number)


@workflow(limit=Limit("per-customer", concurrency=1, on_conflict="replace"), limit_key=lambda customer: customer)
async def limited_workflow(customer: str) -> int:
    assert_type(await limited(1), str)
    assert_type(await limited_by_name("a", 2), bytes)
    assert_type(await limited_job(1), str)
    return 1


async def limited_engine() -> None:
    definitions: list[Definition] = [ride, notify_drivers, durable.testing]
    Engine("a.db", definitions)
    engine = Engine("a.db", [limited_workflow], limits=[api_limit], queues=[Queue("mail", rate=Rate(5, per=1))])
    assert_type(await engine.run(limited_workflow("c")), int)


async def limited_service() -> None:
    async with Service("a.db", [limited_workflow], limits=[api_limit], grace=5, timeout=10) as service:
        assert_type(service, Service)
        assert_type(await service.run(limited_workflow("c")), int)
        assert_type(await service.start(limited_workflow("c"), key="k"), Run[int])


async def test_kit() -> None:
    with replaced(charge, lambda ride_id: f"charge-{ride_id}") as calls:
        assert_type(calls, list[Call])
    assert_type(await run_step(charge(1)), StepRun[str])
    ledger = Ledger()
    found = every_crash(ride(1, "a"), [ride], tables="", signals={"paid": [1]}, ledger=ledger, concurrency=1)
    assert_type(found, Survived)
    assert_type(found.undisturbed, Outcome)
    assert_type(every_glitch(ride(1, "a"), [ride], kinds=["crash", "cancel"], pairs=10), Survived)
    assert_type(Scenario(ride(1, "a"), [ride]).strike(), Outcome)
    clock = VirtualClock(datetime.now(UTC))
    async with Engine(":memory:", [ride], clock=clock, replay_always=True) as engine:
        await clock.advance(timedelta(days=1))
        await engine.idle()
