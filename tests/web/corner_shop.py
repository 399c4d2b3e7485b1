"""
An application whose journal the dashboard shows: it fails, waits, has children, and somebody hostile among its users.
"""

from attrs import frozen

from durable import (
    Flow,
    Retry,
    Return,
    RunFailedError,
    Schedule,
    Signal,
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

#: What a name must not be able to do.
HOSTILE = "<script>document.title='owned'<script>\"'&"
#: Turns the line around it: refused in names, and not in payloads.
TURNED = "\u202e"


@frozen
class Decision:
    approved: bool
    by: str


decision = Signal("decision", Decision)


@step
async def price(item: str) -> int:
    return len(item) * 100


@step(retry=Retry(attempts=2, delay=0.01, on=ConnectionError))
async def charge(cents: int) -> str:
    if cents == 500:
        raise ValueError(f"card declined for {cents}")
    return f"receipt-{cents}"


@job(queue="mail")
async def tell(who: str) -> None:
    pass


@step
async def pack(items: list[str]) -> None:
    for number, item in enumerate(items, 1):
        emit("packed", f"{item} ")
        progress(number, len(items), f"packing {item}")


@workflow
async def order(user: str, items: list[str]) -> Flow[str]:
    total = 0
    for item in items:
        cents: int = yield price(item)
        total += cents
    set_attributes(total=total)
    yield gather(tell(user), sleep(0.01, name="cool down"))
    receipt: str = yield charge(total)
    yield pack(items)
    yield Return(receipt)


@workflow
async def approval(who: str) -> Flow[bool]:
    answer: Decision = yield wait_for(decision, timeout=86_400)
    yield Return(answer.approved)


async def happen(engine):
    """
    A bit of everything: a run that succeeded, one that failed, two that wait, and a batch.
    """
    good = await engine.start(order("ada", ["tea", "lamp"]), id="good", key="order-1", labels={"tenant": "ada"})
    bad = await engine.start(order("bob", ["piano"]), id="bad", labels={"tenant": "bob"})
    await engine.start(approval("cyd"), id="asking")
    await engine.start(approval(HOSTILE + TURNED), id=HOSTILE, key=HOSTILE, labels={HOSTILE: HOSTILE})
    assert await good.result() == "receipt-700"
    try:
        await bad.result()
    except RunFailedError:
        pass
    else:
        raise AssertionError("the card of bob is declined")
    async with engine.batch(description="letters", id="letters") as batch:
        for name in ("ada", "bob"):
            batch.add(tell(name))
    await batch.wait()


DEFINITIONS = [order, approval, tell]
SCHEDULES = [Schedule("nightly", tell("ops"), every=86_400)]
