"""
A web application: a request starts a ride and is answered at once; the ride continues behind it.

    pip install starlette uvicorn
    python examples/webapp/app.py 8000 rides.db

    curl -i localhost:8000/rides -d '{"user_id": 42, "pickup": "Main St 1"}' -H 'Idempotency-Key: click-1'
    curl localhost:8000/rides/ID                 how it stands, and what it waits for
    curl -i localhost:8000/rides/ID/payment -d '{"webhook_id": "evt-1", "cents": 1200}'

The engine lives as long as the application, in its lifespan. Kill the process whenever you like and
start it again: rides continue where they were. Payments come in parts, by webhooks; a webhook that is
sent twice counts once, and once it was acknowledged it is not lost.
"""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypedDict, TypeVar

import uvicorn
from anyio import sleep
from attrs import asdict, field, frozen
from attrs.validators import instance_of
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from durable import Engine, Flow, KeyConflictError, Return, RunNotFoundError, set_attributes, step, wait_for, workflow
from durable.errors import RunStateError

FARE = 2_000  # cents

# --- the ride: it knows nothing of HTTP -----------------------------------------------------------


@frozen
class Payment:
    webhook_id: str = field(validator=instance_of(str))
    cents: int = field(validator=instance_of(int))


@frozen
class Receipt:
    driver: str
    cents: int


@step
async def find_driver(pickup: str) -> str:
    await sleep(0.05)
    return f"the driver nearest to {pickup}"


@workflow
async def ride(user_id: int, pickup: str) -> Flow[Receipt]:
    set_attributes(stage="looking for a driver", user=user_id)
    driver: str = yield find_driver(pickup)
    paid = 0
    while paid < FARE:
        set_attributes(stage="waiting for payment", driver=driver, cents_due=FARE - paid)
        payment: Payment = yield wait_for("payment", Payment)  # for months, if need be: it is rows in a file
        paid += payment.cents
    set_attributes(stage="paid", cents_due=0)
    yield Return(Receipt(driver, paid))


# --- the web application: it knows nothing of steps -------------------------------------------------


@frozen
class Booking:
    user_id: int = field(validator=instance_of(int))
    pickup: str = field(validator=instance_of(str))


async def book(request: Request) -> Response:
    booking = await read(request, Booking)
    run = await request.state.engine.start(
        ride(booking.user_id, booking.pickup), key=request.headers.get("Idempotency-Key")
    )
    # The ride is on disk: whatever happens now, it will be driven.
    return JSONResponse({"id": run.id}, 202, headers={"Location": f"/rides/{run.id}"})


async def show(request: Request) -> Response:
    run = request.state.engine.get(request.path_params["id"])
    info = await run.info()
    done = info.status == "succeeded"
    return JSONResponse(
        {
            "id": run.id,
            "status": info.status,
            "attributes": dict(info.attributes),
            "result": asdict(await run.result()) if done else None,
            "why": info.reason if info.ended_at else await run.why(),
        }
    )


async def pay(request: Request) -> Response:
    payment = await read(request, Payment)
    run = request.state.engine.get(request.path_params["id"])
    accepted = await run.signal("payment", payment, dedup=payment.webhook_id)  # False: it was accepted before
    return JSONResponse({"accepted": accepted})


T = TypeVar("T")


class BadBodyError(Exception):
    pass


async def read(request: Request, kind: type[T]) -> T:
    """The request's body, which is JSON, as *kind*."""
    try:
        return kind(**await request.json())
    except (ValueError, TypeError) as error:
        raise BadBodyError(f"the body must be JSON: {kind.__name__} with {', '.join(kind.__annotations__)}") from error


def refuse(status: int) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer(request: Request, error: Exception) -> Response:  # noqa: ARG001 - Starlette's signature
        return JSONResponse({"error": str(error)}, status)

    return answer


class Shared(TypedDict):
    engine: Engine


def make_app(journal: str) -> Starlette:
    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[Shared]:
        async with Engine(journal, [ride]) as engine:  # rides of earlier processes continue from here
            yield {"engine": engine}

    routes = [
        Route("/rides", book, methods=["POST"]),
        Route("/rides/{id}", show),
        Route("/rides/{id}/payment", pay, methods=["POST"]),
    ]
    errors: Any = {
        BadBodyError: refuse(422),
        RunNotFoundError: refuse(404),
        KeyConflictError: refuse(409),
        RunStateError: refuse(409),  # a payment for a ride that is paid
    }
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers=errors)


if __name__ == "__main__":
    _, port, database = sys.argv
    uvicorn.run(make_app(database), host="127.0.0.1", port=int(port))  # port 0: any free one, named when it starts
