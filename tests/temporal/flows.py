"""
Workflows that run unchanged on both engines: `durable`'s public face only, no engine named.
"""

from datetime import UTC, datetime
from enum import Enum

from attrs import frozen

from durable import (
    Fatal,
    Flow,
    Request,
    Return,
    Snooze,
    as_completed,
    call,
    context,
    continue_as,
    current,
    for_each,
    gather,
    job,
    memo,
    now,
    patched,
    race,
    random,
    saga,
    set_attributes,
    settle,
    sleep,
    start,
    step,
    timeout,
    uuid4,
    wait_for,
    workflow,
)

calls: list[str] = []
Approve = Request("approve", str, bool)


class Color(Enum):
    RED = "red"


@frozen
class Thing:
    name: str
    color: Color
    at: datetime
    sizes: tuple[int, ...]


class CardRefusedError(Exception):
    def __init__(self, card: str, code: int) -> None:
        super().__init__(card, code)
        self.card, self.code = card, code


@step
async def echo(thing: Thing) -> Thing:
    return thing


@step
async def book(what: str) -> str:
    calls.append(f"book {what}")
    return f"{what}-1"


@step
async def cancel_booking(booking: str) -> None:
    calls.append(f"cancel {booking}")


@step
async def pay(card: str) -> str:
    calls.append(f"pay {card}")
    raise CardRefusedError(card, 402)


@step
def explode(text: str) -> str:
    raise KeyError(text)


@job
async def square(n: int) -> int:
    return n * n


@job(retry=2)
def broken(n: int) -> int:
    calls.append(f"broken {context().attempt}")
    return n // 0


@step
async def naps() -> int:
    if context().attempt == 1:
        raise Snooze(0.05)
    return context().attempt


async def once() -> str:
    calls.append("once")
    return "one"


@step(retry=2)
async def remembers() -> str:
    found = await memo("first", once)
    if context().attempt == 1:
        raise ValueError("after the memo")
    return found


def plain(n: int) -> int:
    return n + 1


# --- flows ------------------------------------------------------------------------------------


@workflow
async def values() -> Flow[Thing]:
    thing = Thing("a", Color.RED, datetime(2026, 1, 1, tzinfo=UTC), (1, 2))
    found: Thing = yield echo(thing)
    assert found == thing
    yield Return(found)


@workflow
async def trip() -> Flow[str]:
    done: list[str] = []
    try:
        done += [(yield book("hotel"))]
        done += [(yield book("flight"))]
        yield pay("visa")
    except CardRefusedError as error:
        for each in reversed(done):
            yield cancel_booking(each)
        yield Return(f"{error.card} {error.code}")


@workflow
async def undone() -> str:
    try:
        async with saga() as undo:
            for what in ("hotel", "flight"):
                undo(cancel_booking(await book(what)))
            await pay("visa")
    except CardRefusedError as error:
        return f"undone: {error.code}"
    return "booked"


@workflow
async def groups() -> Flow[list[object]]:
    try:
        yield gather(explode("x"), book("a"), explode("y"))
        failed = 0
    except ExceptionGroup as group:
        failed = len(group.exceptions)
    found = yield settle(explode("z"))
    won = yield race({"slow": sleep(60), "fast": book("b")})
    several: list[int] = yield for_each(square, [1, 2, 3], concurrency=2)
    yield Return([failed, type(found.error).__name__, won.key, several])


@workflow
async def helpers() -> list[int]:
    async def both(n: int) -> int:
        first = await square(n)
        return first + await call(plain, n)

    return await gather(both(1), both(2))


@workflow
async def completions() -> list[int]:
    return sorted([done async for done in as_completed(square(3), square(4))])


@workflow
async def children() -> Flow[list[object]]:
    child = yield start(square(5))
    first: int = yield child.result()
    try:
        yield broken(1)
        text = ""
    except ZeroDivisionError as error:
        text = type(error).__name__
    yield Return([first, text])


@workflow
async def times() -> Flow[list[object]]:
    before = now()
    yield sleep(0.05)
    try:
        yield timeout(wait_for("never"), 0.05)
        late = False
    except TimeoutError:
        late = True
    yield Return([late, (now() - before).total_seconds() >= 0.1, naps.name, (yield naps())])


@workflow
async def told() -> Flow[list[str]]:
    found: list[str] = []
    set_attributes(state="waiting")
    found += [(yield wait_for("word", str))]
    found += [(yield wait_for("word", str))]
    set_attributes(state="done", words=found)
    yield Return(found)


@workflow
async def dice() -> Flow[list[bool]]:
    first, second = uuid4(), uuid4()
    yield book(str(first))
    assert current().workflow == "dice"
    yield Return([first != second, 0 <= random().random() < 1, patched("a change")])


@workflow
async def counting(n: int = 0) -> Flow[int]:
    yield book(str(n))
    if n < 2:
        yield continue_as(counting(n + 1))
    yield Return(n)


@workflow
async def remembering() -> str:
    return await remembers()


@workflow
async def failing() -> None:
    await book("first")
    raise Fatal("by itself")


@workflow
async def followed() -> Flow[str]:
    yield book("followed")
    yield Return("over")


@followed.on_success
def after(finished):
    return [square(len(finished.value))]


@workflow
async def asked() -> str:
    first = await wait_for(Approve)
    await first.reply(first.value == "may I?")
    second = await wait_for(Approve)
    await second.refuse("not twice")
    return first.value


ALL = [
    values, trip, undone, groups, helpers, completions, children, times, told, dice, counting, remembering, failing,
    followed, asked, square, broken,
]  # fmt: skip
#: Those that need nobody from outside, and what they give.
ALONE = {
    values: None,
    trip: "visa 402",
    undone: "undone: 402",
    groups: [2, "KeyError", "fast", [1, 4, 9]],
    helpers: [3, 7],
    completions: [9, 16],
    children: [25, "ZeroDivisionError"],
    times: [True, True, "naps", 2],
    dice: [True, True, True],
    counting: 2,
    remembering: "one",
    followed: "over",
}
