"""
An errand that uses all that makes a run seen and reached from outside; and its owner, which kills itself.

    errand.py JOURNAL BANK [POINT COUNT [transact]]

BANK is a folder: a file for each idempotency key that was used there, with a line for each time. With POINT the owner
dies when it comes there for the COUNTth time (`killing.py`), with "transact" counted from a transaction of its own on.
"""

import asyncio
import logging
import sys
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from types import SimpleNamespace

import killing
import structlog

from durable import (
    Engine,
    Fatal,
    Flow,
    Request,
    Retry,
    Return,
    Transaction,
    as_completed,
    callback,
    context,
    emit,
    job,
    logger,
    poll_until,
    progress,
    resource,
    retry_http,
    saga,
    set_attributes,
    sleep,
    step,
    transaction,
    wait_first,
    wait_for,
    workflow,
)

SCHEMA = "CREATE TABLE errands (name TEXT PRIMARY KEY)"
caller: ContextVar[str] = ContextVar("caller", default="nobody")
allowed = Request("allowed", str, bool)


class Bank:
    """Something outside, which knows by the key what was asked before."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def ask(self, what):
        """How often it was asked for that by this step."""
        path = self.folder / f"{what} {context().idempotency_key.replace('/', '_')}"
        with path.open("a") as file:
            file.write(f"{context().attempt}\n")
        return len(path.read_text().split())


@job
async def receipt(name: str) -> str:
    resource(Bank).ask("receipt")
    emit("receipts", name)
    progress(1, 1)
    return f"receipt for {name}"


@transaction
def note(tx: Transaction, name: str) -> None:
    tx.execute("INSERT INTO errands VALUES (?)", (name,))
    tx.enqueue(receipt(name), key=name)


@step(retry=Retry(attempts=None, delay=0))
async def fetch(what: str) -> str:
    """A bank that has no time at first."""
    retry_http(SimpleNamespace(status_code=200 if resource(Bank).ask(what) > 1 else 503, headers={"Retry-After": "0"}))
    emit("fetched", what)
    return f"{what} for {caller.get()}"


@step
async def is_open() -> bool:
    resource(Bank).ask("is open")
    return len(list(resource(Bank).folder.glob("is open*"))) > 2


@step
async def publish(token: str) -> None:
    resource(Bank).ask("publish")
    set_attributes(token=token)


@step
async def book(fails: bool) -> None:
    if fails:
        raise Fatal("no car is left")


@step(retry=Retry(attempts=None, delay=0))
async def unbook(what: str) -> None:
    resource(Bank).ask(f"unbook {what}")


@workflow
async def walk(name: str) -> Flow[str]:
    """What the others under `every_crash` have not: each try of that takes as long as the whole."""
    yield note(name)
    emit("said", "noted")
    logger.info("noted", name=name)
    yield sleep(60)
    yield Return((yield fetch("cash")))


@workflow
async def errand(name: str) -> Flow[list[str]]:
    """A transaction, groups by completion, a poll, a callback, a request, and a saga that is undone."""
    yield note(name)
    emit("said", "noted")
    found = [str(each) async for each in as_completed([fetch("cash"), receipt(f"{name}, a copy")])]
    first = yield wait_first([fetch("form"), wait_for("never")])
    yield poll_until(is_open, every=0.01, timeout=600)
    payment = yield callback("payment", int, timeout=3600)
    yield publish(payment.token)
    asked = yield wait_for(allowed)
    yield asked.reply(asked.value == name)
    emit("said", "allowed")
    paid: int = yield payment
    try:
        async with saga() as undo:
            for each in ("flight", "car"):
                undo(unbook(each))
                yield book(each == "car")
    except* Fatal:
        emit("said", "given back")
    yield Return([*sorted(found), first.value, str(paid)])


DEFINITIONS = (errand, walk, receipt)


@asynccontextmanager
async def opened(bank):
    """As a pool would be: entered in each life of the owner."""
    yield Bank(bank)


async def main(path, bank, point=None, count="1", *transact):
    engine = Engine(
        path, DEFINITIONS, durability="process", crash_limit=100, schema=SCHEMA, carry=[caller],
        resources={Bank: opened(bank)},
    )  # fmt: skip
    if not transact and point:
        killing.at(point, int(count))
    async with engine:
        if transact:
            killing.at(point, int(count))
            await engine.transact(note("from outside"))
        await engine.serve()


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    asyncio.run(main(*sys.argv[1:]))
