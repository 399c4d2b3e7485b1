"""
The shop beside a bank: three orders, and what became of them.

    python examples/shop
"""

import asyncio
import os
import socket
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from bank import make_bank
from store import app


async def served(stack: AsyncExitStack, app: Any, listening: socket.socket) -> None:
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none"))
    task = asyncio.create_task(server.serve(sockets=[listening]))

    async def end() -> None:
        server.should_exit = True
        await task

    stack.push_async_callback(end)
    while not server.started:  # noqa: ASYNC110 - uvicorn tells nobody
        await asyncio.sleep(0.01)


def port_of(listening: socket.socket) -> int:
    return int(listening.getsockname()[1])


async def main(folder: Path) -> None:
    at_bank, at_shop = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
    os.environ |= {"BANK": f"http://127.0.0.1:{port_of(at_bank)}", "JOURNAL": str(folder / "shop.db")}
    async with AsyncExitStack() as stack:
        shop = await stack.enter_async_context(httpx.AsyncClient(base_url=f"http://127.0.0.1:{port_of(at_shop)}"))
        await served(stack, make_bank(shop), at_bank)
        await served(stack, app, at_shop)
        for customer, items in (("Ada", ["tea"]), ("Bob", ["tea", "piano"]), ("Cyd", ["tea", "tea", "lamp"])):
            placed = (await shop.post("/orders", json={"customer": customer, "items": items})).json()
            async with shop.stream("GET", f"/orders/{placed['number']}/events", timeout=20) as events:
                told = [line.removeprefix("data: ") async for line in events.aiter_lines() if line]
            print(f"{customer}: {told[-1]}")
            order = (await shop.get(f"/orders/{placed['number']}")).json()
            print(f"  {order['state']}: {order['why']}")
        for each in (await shop.get("/admin/failed")).json():
            print(f"failed: {each['customer']}: {each['error']}; undone: {each['undone']}")


def run() -> None:
    with tempfile.TemporaryDirectory(prefix="shop-") as made:
        asyncio.run(main(Path(made)))
