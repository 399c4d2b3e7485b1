"""
A program that is killed in the middle of its work: runs one workflow of those below, as run RUN.

    host.py DATABASE WORKFLOW RUN ARGUMENTS

DATABASE is the path of a journal, or ``temporal://HOST:PORT/NAMESPACE``.

Run it again until it prints the result. Bodies write lines to a ledger outside of the engine, and
the process kills itself with SIGKILL right after the lines whose numbers are in *deaths*: as the
ledger grows in all lives, each death happens once.
"""

import asyncio
import json
import logging
import os
import signal
import sys
from pathlib import Path

import structlog

from durable import Engine, Flow, Return, context, cursor, job, settle, step, wait_for, workflow


def note(ledger: str, line: str, deaths: list[int]) -> None:
    """One line, on disk when this returns; or the end, if it is a deadly one."""
    with Path(ledger).open("a") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())
    if len(Path(ledger).read_text().splitlines()) in deaths:
        os.kill(os.getpid(), signal.SIGKILL)


@step
async def effect(ledger: str, deaths: list[int], name: str) -> str:
    note(ledger, f"begin {name}", deaths)
    note(ledger, f"{name} {context().idempotency_key} {context().attempt}", deaths)
    return name


@workflow
async def line(ledger: str, deaths: list[int]) -> Flow[list[str]]:
    names: list[str] = []
    for name in "abc":
        done: str = yield effect(ledger, deaths, name)
        names.append(done)
    yield Return(names)


@step
async def read_records(ledger: str, deaths: list[int], every: int) -> int:
    done = cursor(0)
    for number in range(done.value, 5):
        note(ledger, f"record {number + 1}", deaths)
        await done.advance(number + 1, every=every)
        note(ledger, f"after {number + 1}", deaths)
    return done.value


@workflow
async def records(ledger: str, deaths: list[int], every: int) -> Flow[int]:
    count: int = yield read_records(ledger, deaths, every)
    yield Return(count)


@job
async def child(ledger: str, deaths: list[int]) -> str:
    note(ledger, f"child {context().attempt}", deaths)
    return "child"


@step
async def goes_on(ledger: str) -> None:
    note(ledger, "parent goes on", [])


@workflow
async def parent(ledger: str, deaths: list[int]) -> Flow[str]:
    settled = yield settle(child(ledger, deaths))
    yield goes_on(ledger)
    yield Return(settled.value if settled.ok else f"{type(settled.error).__name__}")


@workflow
async def stalls(ledger: str, deaths: list[int]) -> Flow[str]:
    yield effect(ledger, deaths, "before")
    yield wait_for("go")
    yield effect(ledger, deaths, "after")
    yield Return("went")


WORKFLOWS = {definition.name: definition for definition in (line, records, parent, stalls)}


async def engine_of(database):
    definitions = [*WORKFLOWS.values(), child]
    if not database.startswith("temporal://"):
        return Engine(database, definitions, durability="process")
    from temporalio.client import Client

    from durable.temporal import TemporalEngine

    address, _, namespace = database.removeprefix("temporal://").partition("/")
    client = await Client.connect(address, namespace=namespace)
    return TemporalEngine(client, "q", definitions, worker_timeout=1.0, cached_runs=0)


async def main(database, name, run_id, arguments):
    async with await engine_of(database) as engine:
        run = await engine.start(WORKFLOWS[name](*arguments), id=run_id)
        return await run.result()


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    print(json.dumps(asyncio.run(main(*sys.argv[1:4], json.loads(sys.argv[4])))))
