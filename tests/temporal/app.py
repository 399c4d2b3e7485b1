"""
The application that commands are given in the tests of the command line.
"""

from durable import Limit, job, step, wait_for, workflow

reserved: list[int] = []


@step
async def reserve(n: int) -> int:
    reserved.append(n)
    return n


@workflow
async def order(n: int) -> int:
    found = await reserve(n)
    paid = await wait_for("paid", int)
    return found + paid


@job(limit=Limit("belt", concurrency=2))
async def pack(n: int) -> int:
    return n


ALL = [order, pack]
