"""
Programs that must not type-check. Never run; `check_wrong.py` runs mypy and pyright over it.

A line that ends in the marker must be an error for both, a line with a checker's name in brackets
for that one, and no other line may be.
"""

from typing import Literal

from durable import (
    Engine,
    Finished,
    Flow,
    Limit,
    Middleware,
    Queue,
    Rate,
    Request,
    Return,
    Run,
    RunFailure,
    RunView,
    Schedule,
    Service,
    Signal,
    Transaction,
    call,
    callback,
    emit,
    for_each,
    gather,
    job,
    progress,
    start,
    step,
    timeout,
    transaction,
    wait_for,
    workflow,
)
from durable.testing import VirtualClock, every_crash, every_glitch, replaced


@step(retry=3)
async def charge(ride_id: int) -> str:
    return str(ride_id)


@job(queue="mail")
def send(address: str, *, copies: int = 1) -> int:
    return copies


@transaction
def create(tx: Transaction, name: str) -> int:
    tx.execute("INSERT INTO t (name) VALUES (?)", (name,))
    return 1


@workflow
async def ride(user_id: int) -> Flow[str]:
    charge_id: str = yield charge(user_id)
    yield Return(charge_id)


paid = Signal("paid", int)
approve = Request("approve", int, bool)


# --- a wrong Return, a wrong yield --------------------------------------------------------------


@ride.query
def miles(run: RunView, factor: int) -> int:
    return factor * len(run.values(charge))


@workflow
async def wrong_return(user_id: int) -> Flow[int]:
    yield charge(user_id)
    yield Return("a string")  # E:


@workflow
async def no_op(user_id: int) -> Flow[None]:
    yield user_id  # E:


@workflow
async def forgot_to_call() -> Flow[None]:
    yield charge  # E:


@workflow
async def wrong_coroutine_return(user_id: int) -> int:
    return await charge(user_id)  # E:


# --- wrong arguments ----------------------------------------------------------------------------


async def wrong_arguments() -> None:
    await charge("seven")  # E:
    await charge()  # E:
    await charge(1, 2)  # E:
    await charge(ride=1)  # E:
    await send("a@b.c", copies="two")  # E:
    await create(7)  # E:
    await ride("seven")  # E:
    await call(str.upper, 7)  # E:
    await timeout(charge(1), "soon")  # E:
    await gather(charge("seven"), send("a@b.c"))  # E:
    await gather(1, 2)  # E:
    await for_each(str.upper, ["a"])  # E:
    await for_each(charge, [1], tolerate="some")  # E:
    await for_each(charge, [1], names=lambda ride: ride + 1)  # E:
    await gather(charge(1), enough=1, fail_fast=True)  # E:
    await gather({"eu": charge("seven")})  # E:


# --- wrong results ------------------------------------------------------------------------------


async def wrong_results() -> None:
    a: int = await charge(1)  # E:
    b: str = await create("x")  # E:
    c: tuple[int, int] = await gather(charge(1), send("a@b.c"))  # E:
    d: int = await wait_for("approved", bool) and "no"  # E:
    e: list[int] = await for_each(charge, [1, 2])  # E:
    f: str = await wait_for(paid)  # E:
    asked = await wait_for(approve)
    question: str = asked.value  # E:
    await asked.reply("yes")  # E:
    await asked.refuse(None)  # E:
    g: list[int] = await gather(charge(1), charge(2), enough=1)  # E:
    h: dict[int, str] = await gather({"eu": charge(1)})  # E:
    i: int = await callback("paid", int)  # E:
    named, unnamed = await callback("paid", int), await callback(int)
    j: str = await named  # E:
    k: str = await unnamed  # E:
    m: tuple[int, str] = await gather(named, unnamed)  # E:


async def wrong_answers(engine: Engine, service: Service) -> None:
    await engine.complete(7)  # E:
    await engine.fail("token", 7)  # E:
    await service.heartbeat()  # E:
    callback(int, int, int)  # E:
    callback("paid", int, timeout="60")  # E:


async def wrong_payloads(run: Run[str]) -> None:
    await run.signal(paid, "much")  # E:
    await run.signal(paid)  # E:
    await run.ask(approve, "much")  # E:
    await run.ask(approve)  # E:
    answer: str = await run.ask(approve, 1)  # E:
    await run.query(miles, "much")  # E:
    told: str = await run.query(miles, 1)  # E:


# --- wrong use of an engine ---------------------------------------------------------------------


async def wrong_starts(engine: Engine) -> None:
    await engine.start(charge(1))  # E:
    await engine.run(ride(1, "here"), quue="mail")  # E:
    engine.from_thread.start(charge(1))  # E:
    await engine.start(ride)  # E:
    await engine.start(ride(1), on_conflict="shrug")  # E:
    run: Run[int] = await engine.start(ride(1))  # E:
    value: int = await (await engine.start(ride(1))).result()  # E:
    await start(ride(1), priorty=1)  # E: priorty
    await start(ride(1), delay="soon")  # E: str
    await start(charge(1))  # E:
    async with engine.batch(on_success=charge(1)) as batch:  # E:
        batch.add(charge(1))  # E:
        batch.add(ride(1), dealy=3)  # E: dealy


def wrong_schedules() -> None:
    Schedule("a", ride, every=60)  # E:
    Schedule("b", charge(1), every=60)  # E:
    Schedule("c", lambda at: at.date(), every=60)  # E:
    Schedule("d", ride(1), every="60")  # E:
    Schedule("e", ride(1), every=60, overlap="never")  # E:
    Schedule("f", ride(1), "0 3 * * *")  # E:


# --- wrong definitions --------------------------------------------------------------------------


@step(retries=3)  # E:
async def unknown_option() -> None: ...


@step(on_crash="explode")  # E:
async def unknown_policy() -> None: ...


# --- wrong follow-ups ---------------------------------------------------------------------------


def wrong_follow_ups() -> None:
    ride(1).then(charge(1))  # E:
    ride(1).then(ride)  # E:
    charge(1).then(ride(1))  # E:


@ride.on_success  # E:
def of_another_type(finished: Finished[bytes]) -> None: ...


# --- wrong middleware ---------------------------------------------------------------------------


class Awaited(Middleware):
    async def run_failed(self, failure: RunFailure) -> None: ...  # E:


def wrong_middleware() -> None:
    Engine("a.db", [ride], middleware=[Middleware])  # E:


async def wrong_event(engine: Engine) -> None:
    async for event in engine.events():
        name: Literal["run.finished"] = event.name  # E:


# --- wrong dry runs -----------------------------------------------------------------------------


async def wrong_dry_runs(engine: Engine) -> None:
    await engine.dry_run(charge(1))  # E:
    await engine.dry_run(ride(1), stand_ins={charge: "ch-1"})  # E:
    await engine.dry_run(ride(1), signals={"stars": 5})  # E:
    dry_value: int | None = (await engine.dry_run(ride(1))).value  # E:


# --- wrong services -----------------------------------------------------------------------------


def wrong_service() -> None:
    Service("a.db", [ride], standby=False)  # E:
    Service("a.db", [ride], grace="5")  # E:


# --- wrong limits -------------------------------------------------------------------------------


def wrong_limits() -> None:
    Limit("api", 5)  # E:
    Limit("api", concurrency="5")  # E:
    Limit("api", rate=5)  # E:
    Limit("api", concurrency=1, on_conflict="queue")  # E:
    Rate(5, 60)  # E:
    Queue("mail", rate=5)  # E:
    step(limit=5)  # E:
    Engine("a.db", [ride], limits=["api"])  # E:


# --- wrong streams ------------------------------------------------------------------------------


def wrong_streams(run: Run[str]) -> None:
    run.stream("tokens", after="x")  # E:
    emit(5, "item")  # E:
    progress("half")  # E:
    step(stream=True)(print)  # E:
    job(stream="tokens")  # E:


# --- wrong tests --------------------------------------------------------------------------------


def wrong_tests() -> None:
    replaced(charge, lambda: "too few arguments")  # E:
    replaced(charge, lambda ride_id: 5)  # E:
    every_crash(charge(1), [ride])  # E:
    every_crash(ride(1), ["ride"])  # E:
    every_crash(ride(1), [ride], signals={"paid": 5})  # E:
    every_crash(ride(1), [ride], clock=None)  # E:
    every_glitch(ride(1), [ride], kinds=["crush"])  # E:
    VirtualClock("2026-01-01")  # E:
