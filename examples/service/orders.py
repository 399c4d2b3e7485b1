"""
A web application with several workers: each answers requests, one of them executes the orders, none is in charge.

    pip install starlette uvicorn
    JOURNAL=orders.db uvicorn --workers 4 --app-dir examples/service orders:app

    curl -X POST localhost:8000/orders/1 -H 'Idempotency-Key: click-1'      202, with the id of its run
    curl localhost:8000/orders/ID                                           waits for the end, and says what it was
    curl localhost:8000/health                                              which worker answers; does it execute?

`python examples/service` kills, reloads and rolls over such workers under load, and counts what was lost or doubled.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypedDict

from anyio import sleep as pause
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from durable import EngineClosedError, Flow, Return, Service, Transaction, sleep, step, transaction, workflow

JOURNAL = os.environ.get("JOURNAL", "orders.db")


@step
async def price(number: int) -> int:
    await pause(0.02)
    return 100 + number % 7


@transaction
def book(tx: Transaction, number: int, cents: int) -> None:
    # The application's own table, in the same file: the row and what the journal says of it are one commit.
    tx.execute("CREATE TABLE IF NOT EXISTS bookings (number INTEGER NOT NULL, cents INTEGER NOT NULL)")
    tx.execute("INSERT INTO bookings VALUES (?, ?)", (number, cents))


@workflow
async def order(number: int) -> Flow[int]:
    cents: int = yield price(number)
    yield sleep(0.05)
    yield book(number, cents)
    yield Return(cents)


class Shared(TypedDict):
    orders: Service


async def place(request: Request) -> Response:
    orders: Service = request.state.orders
    number, key = request.path_params["number"], request.headers.get("Idempotency-Key")
    run = await orders.start(order(number), key=key)  # whichever worker executes it, it is on disk now
    return JSONResponse({"id": run.id}, 202)


async def result(request: Request) -> Response:
    orders: Service = request.state.orders
    try:
        return JSONResponse({"cents": await orders.get(request.path_params["id"]).result(timeout=60)})
    except EngineClosedError:  # this worker is told to end: its server waits for us, and not for the order
        return JSONResponse({"error": "ask again"}, 503, headers={"Retry-After": "0"})


async def health(request: Request) -> Response:
    orders: Service = request.state.orders
    return JSONResponse({"pid": os.getpid(), "executes": orders.is_executing})


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[Shared]:
    # In each worker, after it was forked. It is ready at once: it need not be its turn to execute.
    async with Service(JOURNAL, [order]) as orders:
        yield {"orders": orders}


app = Starlette(
    routes=[
        Route("/orders/{number:int}", place, methods=["POST"]),
        Route("/orders/{id}", result),
        Route("/health", health),
    ],
    lifespan=lifespan,
)
