"""
An approval: a run waits for a person, and is rows on disk meanwhile, not an object in memory.

Three expenses are handed in. One is approved, one is rejected, and for one nobody answers:
a reminder goes out, and then the deadline passes. The waits here are tenths of a second; days
would be no different, and a restart in between would not be noticed.
"""

import asyncio
import logging
import tempfile
from pathlib import Path
from typing import Any

import structlog
from attrs import frozen

from durable import Engine, Flow, Op, Return, Winner, race, set_attributes, sleep, step, wait_for, workflow


@frozen
class Decision:
    approved: bool
    by: str


@step
async def tell(who: str, message: str) -> None:
    print(f"  to {who}: {message}")


@workflow
async def expense(employee: str, amount: int) -> Flow[str]:
    set_attributes(stage="waiting for the manager")
    yield tell("manager", f"{employee} spent {amount}; please decide")
    waits: dict[str, Op[Any]] = {"decision": wait_for("decision", Decision), "reminder": sleep(0.2)}
    first: Winner[Any] = yield race(waits)
    try:
        if first.key == "reminder":
            yield tell("manager", f"{employee} is still waiting")
            decision: Decision = yield wait_for("decision", Decision, timeout=0.3)
        else:
            decision = first.value
        outcome = f"{'approved' if decision.approved else 'rejected'} by {decision.by}"
    except TimeoutError:
        outcome = "timed out"
    set_attributes(stage=outcome)
    yield tell(employee, outcome)
    yield Return(outcome)


async def main(path: Path) -> None:
    async with Engine(path, [expense]) as engine:
        ada = await engine.start(expense("Ada", 120), key="expense-1")
        bob = await engine.start(expense("Bob", 9_000), key="expense-2")
        cyd = await engine.start(expense("Cyd", 30), key="expense-3")

        await ada.signal("decision", Decision(approved=True, by="Mia"))  # it may come before the run waits for it
        await asyncio.sleep(0.05)
        print(f"  why is Bob's run not done? {await bob.why()}")
        found = await engine.find("expense-2")  # a sender needs the key only, from any process
        await found.signal("decision", Decision(approved=False, by="Mia"), dedup="click-1")
        await found.signal("decision", Decision(approved=False, by="Mia"), dedup="click-1")  # accepted once

        outcomes = [await run.result() for run in (ada, bob, cyd)]
        print(f"Ada, Bob, Cyd: {', '.join(outcomes)}")
        assert outcomes == ["approved by Mia", "rejected by Mia", "timed out"]


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder, "expenses.db")))
