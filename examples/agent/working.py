"""
``python working.py FILE``: the process that executes the agent, and in which an editor decides. It is killed meanwhile.
"""

import asyncio
import sys
from contextlib import suppress
from decimal import Decimal

from researcher import Decision, decide, research

from durable import Engine, RunFailedError


async def main(journal: str) -> None:
    async with Engine(journal, [research]) as engine:
        # One that may cost almost nothing: what it had spent before a crash counts.
        poor = await engine.start(research("Who was it?", most_dollars=Decimal("0.0003")), id="case-2", key="case-2")
        with suppress(RunFailedError):
            await poor.result()
        run = await engine.start(research("Who was it?"), id="case-1", key="case-1")
        # Asked again after each crash, and one request all the same: it is answered once the agent has written.
        await run.ask(decide, Decision(publish=True, editor="Mia"), dedup="mia-1")
        await run.result()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
