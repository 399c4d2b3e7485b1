"""
An evening of the agent: killed with SIGKILL while it looks something up, three times; then an editor decides.
"""

import asyncio
import os
import sys
import tempfile
from pathlib import Path

from model_server import SOURCES, model_server
from researcher import Decision, decide, research

from durable import Client, Engine


async def work(journal: str) -> None:
    async with Engine(journal, [research]) as engine:
        run = await engine.start(research("Who was it?"), id="case-1", key="case-1")
        # Asked again after each crash, and one request all the same: it is answered once the agent has written.
        answer = await run.ask(decide, Decision(publish=True, editor="Mia"), dedup="mia-1")
        print(f"the editor was answered: {answer}")
        print("as it was written:", "".join([word async for word in run.stream("words", str)]))


async def a_process(journal: str, environment: dict[str, str]) -> int:
    process = await asyncio.create_subprocess_exec(sys.executable, __file__, journal, env=environment)
    return await process.wait()


async def main(folder: Path, kills: int) -> None:
    journal = str(folder / "cases.db")
    with model_server() as (url, model):
        environment = {**os.environ, "MODEL": url}
        for source in SOURCES[:kills]:
            code = await a_process(journal, {**environment, "DIES_AT": source})
            print(f"killed while it asked {source}: exit code {code}")
        assert await a_process(journal, environment) == 0
        print(f"the model was asked {sum(model.asked.values())} times, each thing once: {dict(model.asked)}")
    async with Client(journal) as client:
        info = await client.get("case-1").info()
        print(f"{info.status}, {info.attributes['model_requests']} requests, {info.attributes['tokens']} tokens")


def run(kills: int = len(SOURCES)) -> None:
    with tempfile.TemporaryDirectory(prefix="agent-") as folder:
        asyncio.run(main(Path(folder), kills))


if __name__ == "__main__":  # in a process of its own, which is killed
    asyncio.run(work(sys.argv[1]))
