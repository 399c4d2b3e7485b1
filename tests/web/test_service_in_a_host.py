"""
A `Service` in the state of a host, as the guide says: here Litestar's, which has its own ways; over real HTTP.
"""

import socket
from contextlib import asynccontextmanager

import anyio
import httpx
import pytest
import uvicorn
from litestar import Litestar, get, post
from litestar.datastructures import State
from litestar.params import FromPath

from durable import Flow, Return, RunNotFoundError, Service, step, workflow


@step
async def charge(cents: int) -> str:
    return f"charge-{cents}"


@workflow
async def ride(cents: int) -> Flow[str]:
    yield Return((yield charge(cents)))


@post("/rides/{cents:int}")
async def start(cents: FromPath[int], state: State) -> dict[str, str]:
    run = await state.rides.start(ride(cents), key=f"ride-{cents}")
    return {"id": run.id}


@get("/rides/{id:str}")
async def result(id: FromPath[str], state: State) -> str:
    return str(await state.rides.get(id).result(timeout=10))


# Litestar's own deprecations are not ours to judge.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
async def test_a_service_is_in_the_state_of_litestar(tmp_db):
    """
    Opened and closed by its lifespan; a request starts a run, the next has its result; an error is a status code.
    """
    from litestar.response import Response

    def missing(request, error):
        return Response({"error": str(error)}, status_code=404)

    @asynccontextmanager
    async def lifespan(app):
        async with Service(tmp_db, [ride]) as app.state.rides:
            yield

    app = Litestar([start, result], lifespan=[lifespan], exception_handlers={RunNotFoundError: missing})
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.serve, [listening])
            while not server.started:
                await anyio.sleep(0.01)
            url = f"http://127.0.0.1:{listening.getsockname()[1]}/rides"
            async with httpx.AsyncClient() as client:
                first, again = [(await client.post(f"{url}/7")).json() for _ in range(2)]
                assert first == again
                assert (await client.get(f"{url}/{first['id']}")).text == "charge-7"
                assert (await client.get(f"{url}/none")).status_code == 404
            server.should_exit = True
