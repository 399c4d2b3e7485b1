"""
A shop: orders in the application's own tables, their runs in the same commit, payments by webhook, a screen to watch.

    pip install 'durable-asyncio[web]' fastapi sqlalchemy httpx uvicorn
    BANK=http://localhost:9000 uvicorn --app-dir examples/shop store:app

    curl -X POST localhost:8000/orders -H 'Content-Type: application/json' -d '{"customer": "ada", "items": ["tea"]}'
    curl -N localhost:8000/orders/1/events            how it goes, as it goes: server-sent events
    curl localhost:8000/admin/failed                  what needs a person; /admin/runs is the dashboard

`python examples/shop` starts it beside a bank of its own, orders three things, and shows what became of them.
"""

import json
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import httpx
from attrs import frozen
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from sqlalchemy import Column, Integer, MetaData, String, Table, insert, update
from sqlalchemy.schema import CreateTable

from durable import (
    Engine,
    Fatal,
    Flow,
    Retry,
    Return,
    RunNotFoundError,
    TokenError,
    Transaction,
    callback,
    resource,
    retry_http,
    saga,
    set_attributes,
    step,
    transaction,
    workflow,
)
from durable.web import dashboard

# --- the application's own table, in the file of the journal -----------------------------------------------------

metadata = MetaData()
orders = Table(
    "orders",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("customer", String, nullable=False),
    Column("items", String, nullable=False),
    Column("state", String, nullable=False),
)
STOCK = {"tea": 100, "lamp": 100, "piano": 0}


@transaction
def create_order(tx: Transaction, customer: str, items: list[str]) -> int:
    # The row and the run that fulfils it are one commit: neither is ever there without the other.
    row = tx.execute(insert(orders).values(customer=customer, items=json.dumps(items), state="new"))
    number = int(row.lastrowid or 0)
    tx.enqueue(fulfil(number, items), key=f"order-{number}", labels={"customer": customer})
    return number


@transaction
def mark(tx: Transaction, number: int, state: str) -> None:
    tx.execute(update(orders).where(orders.c.number == number).values(state=state))


# --- what becomes of an order ------------------------------------------------------------------------------------


@frozen
class Payment:
    charge: str
    cents: int


@step
async def reserve(item: str) -> None:
    if not STOCK.get(item):
        raise Fatal(f"no {item} is left")


@step(retry=Retry(attempts=None))
async def release(item: str) -> None:
    """Tried until it is done: what was reserved is given back."""


@step(retry=Retry(attempts=5, delay=0.2))
async def ask_bank(number: int, cents: int, token: str) -> None:
    # The bank answers when it likes, at our webhook: by then this run may have moved to another process.
    bank = resource(httpx.AsyncClient)
    retry_http(await bank.post("/charges", json={"order": number, "cents": cents, "token": token}))


@step(retry=Retry(attempts=None, delay=0.2))
async def refund(charge: str) -> None:
    retry_http(await resource(httpx.AsyncClient).post("/refunds", json={"charge": charge}))


@step
async def ship(number: int, items: list[str]) -> str:
    return f"parcel-{number} of {len(items)}"


@workflow
async def fulfil(number: int, items: list[str]) -> Flow[str]:
    try:
        async with saga() as undo:
            for item in items:
                undo(release(item))
                yield reserve(item)
            set_attributes(stage="waiting for the bank", cents=1_000 * len(items))
            payment = await callback(Payment, timeout=3 * 86_400)
            yield ask_bank(number, 1_000 * len(items), payment.token)
            paid = await payment
            undo(refund(paid.charge))
            set_attributes(stage="paid")
            parcel = await ship(number, items)
    except Exception:
        yield mark(number, "failed")
        raise
    yield mark(number, "shipped")
    set_attributes(stage="shipped")
    yield Return(parcel)


# --- the web application -------------------------------------------------------------------------------------------


class Order(BaseModel):
    customer: str
    items: list[str]


def make_engine(path: str, bank: httpx.AsyncClient) -> Engine:
    schema = [str(CreateTable(table)) for table in metadata.sorted_tables]
    return Engine(path, [fulfil], schema=schema, resources=[bank])  # it opens the client, and closes it after all runs


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    bank = httpx.AsyncClient(base_url=os.environ["BANK"])
    async with make_engine(os.environ.get("JOURNAL", "shop.db"), bank) as app.state.engine:
        app.mount("/admin/runs", dashboard(app.state.engine, title="Shop"))
        yield


def engine_of(request: Request) -> Engine:
    found: Engine = request.app.state.engine
    return found


Runs = Annotated[Engine, Depends(engine_of)]
app = FastAPI(lifespan=lifespan)


@app.post("/orders", status_code=202)
async def place(order: Order, runs: Runs) -> dict[str, int]:
    return {"number": await runs.transact(create_order(order.customer, order.items))}


@app.get("/orders/{number}")
async def show(number: int, runs: Runs) -> dict[str, object]:
    query = "SELECT state, items FROM orders WHERE number = ?"
    row = await runs.read(lambda conn: conn.execute(query, (number,)).fetchone())
    if row is None:
        raise HTTPException(404, f"there is no order {number}")
    run = await runs.find(f"order-{number}")
    return {"state": row[0], "items": json.loads(row[1]), "why": await run.why()}


@app.get("/orders/{number}/events")
async def follow(number: int, runs: Runs) -> StreamingResponse:
    try:
        run = await runs.find(f"order-{number}")
    except RunNotFoundError as error:
        raise HTTPException(404, str(error)) from error

    async def events() -> AsyncIterator[str]:
        async for info in run.watch():
            told = {"status": info.status, **info.attributes}
            yield f"data: {json.dumps(told)}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


class Answer(BaseModel):
    charge: str | None = None
    cents: int = 0
    declined: str | None = None


@app.post("/payments/{token}")
async def paid(token: str, answer: Answer, runs: Runs) -> dict[str, str]:
    try:
        if answer.charge is not None:
            await runs.complete(token, Payment(answer.charge, answer.cents))
        else:
            await runs.fail(token, Fatal(answer.declined or "declined"))
    except TokenError as error:  # used, expired, of another file: the bank is told, and nothing happens
        raise HTTPException(409, str(error)) from error
    return {"thanks": "recorded"}  # and it is: what was acknowledged is on disk


@app.get("/admin/failed")
async def failed(runs: Runs) -> list[dict[str, object]]:
    return [
        {"id": info.run_id, "customer": info.labels.get("customer"), "error": info.error, "undone": info.compensated}
        async for info in runs.runs(workflow=fulfil, status="failed", limit=100)
    ]
