"""
A bank for the shop to be tried with: it takes charges at once, and tells later, at the webhook, what became of them.
"""

import asyncio
from typing import Any

import httpx
from fastapi import FastAPI

#: Above this, cards are declined.
MOST_CENTS = 2_500


def make_bank(shop: httpx.AsyncClient, delay: float = 0.2) -> FastAPI:
    bank = FastAPI()
    charges: dict[str, int] = {}
    refunds: list[str] = []
    under_way: set[asyncio.Task[Any]] = set()

    async def decide(order: int, cents: int, token: str) -> None:
        await asyncio.sleep(delay)
        if cents > MOST_CENTS:
            await shop.post(f"/payments/{token}", json={"declined": "the card has not that much"})
            return
        charge = f"ch-{order}"
        charges[charge] = cents
        for _ in range(2):  # webhooks come twice now and then
            await shop.post(f"/payments/{token}", json={"charge": charge, "cents": cents})

    @bank.post("/charges", status_code=202)
    async def charge(asked: dict[str, Any]) -> dict[str, str]:
        task = asyncio.create_task(decide(asked["order"], asked["cents"], asked["token"]))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
        return {"state": "asked"}

    @bank.post("/refunds")
    async def refund(asked: dict[str, str]) -> dict[str, str]:
        refunds.append(asked["charge"])
        return {"state": "refunded"}

    bank.state.charges, bank.state.refunds = charges, refunds
    return bank
