"""
The workflows whose journals are kept in this folder. Once recorded, a workflow here is never edited.

Each release must go on reading, importing and replaying what earlier ones recorded, so this is code as
it runs in production somewhere: add workflows and record them with `make.py`; change none.
"""

from attrs import frozen

from durable import (
    Flow,
    Op,
    Retry,
    Return,
    RunCancelled,
    Winner,
    context,
    continue_as,
    cursor,
    for_each,
    gather,
    job,
    memo,
    now,
    patched,
    race,
    random,
    set_attributes,
    settle,
    sleep,
    step,
    timeout,
    transaction,
    uuid4,
    wait_for,
    workflow,
)

SOON = 0.05  # seconds: long enough for a timer to be set and waited for


# --- the ride of examples/ride.py, with a payment server that fails once -------------------------------------


@frozen
class Receipt:
    ride_id: int
    charge_id: str
    drivers_told: int


@transaction
def create_ride(tx, user_id: int, pickup: str) -> int:
    tx.execute("CREATE TABLE IF NOT EXISTS rides (id INTEGER PRIMARY KEY, user_id INTEGER, pickup TEXT)")
    ride = tx.execute("INSERT INTO rides (user_id, pickup) VALUES (?, ?)", (user_id, pickup))
    return ride.lastrowid or 0


@job(queue="drivers", retry=5)
async def notify_drivers(ride_id: int) -> int:
    return 3


@job(queue="audit")
async def write_audit(ride_id: int) -> None:
    pass


@step(retry=Retry(attempts=5, on=ConnectionError, delay=SOON))
def charge(ride_id: int, cents: int) -> str:
    if context().attempt == 1:
        msg = "HTTP Error 503: Service Unavailable"
        raise ConnectionError(msg)
    return f"charge-{ride_id}"


@step
async def send_receipt(receipt: Receipt) -> None:
    pass


@workflow
async def ride(user_id: int, pickup: str) -> Flow[Receipt]:
    ride_id: int = yield create_ride(user_id, pickup)
    told, _ = yield gather(notify_drivers(ride_id), write_audit(ride_id))
    charge_id: str = yield charge(ride_id, 2_000)
    receipt = Receipt(ride_id, charge_id, told)
    yield send_receipt(receipt)
    yield Return(receipt)


# --- an approval: signals, a race, timers ---------------------------------------------------------------------


@frozen
class Decision:
    approved: bool
    by: str


@step
async def tell(who: str, message: str) -> None:
    pass


@workflow
async def expense(employee: str, amount: int, patience: float) -> Flow[str]:
    set_attributes(stage="waiting for the manager")
    yield tell("manager", f"{employee} spent {amount}; please decide")
    waits: dict[str, Op] = {"decision": wait_for("decision", Decision), "reminder": sleep(patience)}
    first: Winner = yield race(waits)
    try:
        if first.key == "reminder":
            yield tell("manager", f"{employee} is still waiting")
            decision: Decision = yield wait_for("decision", Decision, timeout=patience)
        else:
            decision = first.value
        outcome = f"{'approved' if decision.approved else 'rejected'} by {decision.by}"
    except TimeoutError:
        outcome = "timed out"
    set_attributes(stage=outcome)
    yield tell(employee, outcome)
    yield Return(outcome)


# --- a for_each of jobs, one of which fails, and is retried by a person ---------------------------------------

#: Pictures that are broken, until somebody mends them.
broken: set[str] = set()


@job(retry=Retry(attempts=2, delay=SOON))
async def resize(picture: str) -> str:
    if picture in broken:
        msg = f"cannot read {picture}"
        raise ValueError(msg)
    return f"{picture}@2x"


@workflow
async def gallery(pictures: list[str]) -> Flow[list[str]]:
    resized: list[str] = yield for_each(resize, pictures, concurrency=2)
    yield Return(resized)


# --- a for_each that is on its way, of children that wait for a person ----------------------------------------


@workflow
async def retouch(picture: str) -> Flow[str]:
    done: str = yield wait_for("done", str)
    yield Return(f"{picture}, {done}")


@workflow
async def album(pictures: list[str]) -> Flow[list[str]]:
    retouched: list[str] = yield for_each(retouch, pictures, concurrency=2)
    yield Return(retouched)


# --- a booking that is cancelled, and cleans up ---------------------------------------------------------------


@step
async def reserve(what: str) -> str:
    return f"{what}-7"


@step
async def release(reservation: str) -> None:
    pass


@workflow
async def booking() -> Flow[str]:
    hotel: str = yield reserve("hotel")
    try:
        confirmed: str = yield wait_for("confirmed", str)
        yield Return(confirmed)
    except RunCancelled:
        yield release(hotel)
        raise


# --- a change that was guarded, with now, random and uuid4 ----------------------------------------------------


@step
async def compute(number: int) -> int:
    return number * 2


async def twice(number: int) -> int:
    first = await compute(number)
    return await compute(first)


@workflow
async def changed(number: int) -> Flow[dict]:
    began = now()
    if patched("double-twice"):
        value: int = await twice(number)
    else:
        value = yield compute(number)
    drawn = random().random()
    failed = yield settle(timeout(wait_for("never"), SOON))
    both = yield gather(twice(value), compute(value))
    yield Return(
        {
            "value": value,
            "both": both,
            "began": began.isoformat(),
            "drawn": drawn,
            "id": str(uuid4()),
            "failed": type(failed.error).__name__,
        }
    )


# --- an endless loop, ended -------------------------------------------------------------------------------------


@workflow
async def countdown(left: int) -> Flow[str]:
    yield compute(left)
    if left:
        yield continue_as(countdown(left - 1))
    yield Return("landed")


# --- a step that crawls, and is cut off ---------------------------------------------------------------------------


async def fetch(page: int) -> str:
    return f"page {page}"


@step(retry=Retry(attempts=2, delay=3_600.0))
async def crawl(pages: int) -> int:
    place = cursor(0)
    for page in range(place.value, pages):
        await memo(f"page-{page}", fetch, page)
        await place.advance(page + 1)
        if page == 1 and context().attempt == 1:
            msg = "connection lost"
            raise ConnectionError(msg)
    return pages


@workflow
async def crawler(pages: int) -> Flow[int]:
    done: int = yield crawl(pages)
    word: str = yield wait_for("publish", str)
    yield Return(done + len(word))
