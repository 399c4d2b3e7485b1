"""
An evening of the agent: killed with SIGKILL in the middle of a request, of a tool, and of a word; then looked into.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from model_server import ANSWER, model_server

from durable import Client

HERE = Path(__file__).parent
#: Where it is killed, one after the other, and what is cut off there.
DEATHS = {"request 2": "request 2", "the archive": "the archive", "a word": "request 4"}


def words(said: dict[int, str]) -> str:
    """An answer that a crash cut off is said anew, by the next attempt: the last one has it whole."""
    return said[max(said)]


async def evening(folder: Path, deaths: list[str]) -> None:
    journal = str(folder / "cases.db")
    with model_server() as (url, model):
        for death in [*deaths, ""]:
            process = await asyncio.create_subprocess_exec(
                sys.executable, str(HERE / "working.py"), journal, env={**os.environ, "MODEL": url, "DIES_AT": death}
            )
            code = await process.wait()
            assert code == (-9 if death else 0), code
            if death:
                print(f"killed at {death!r}: exit code {code}")
        asked = model.asked
    async with Client(journal) as client:
        run, poor = client.get("case-1"), client.get("case-2")
        said: dict[int, str] = {}
        async for item in run.stream("words", str).items():
            said[item.attempt] = said.get(item.attempt, "") + item.value
        info, in_vain = await run.info(), await poor.info()
    cut_off = Counter(DEATHS[death] for death in deaths)
    # case-2 asks for the first two requests and one source, before it has spent what it may.
    expected = Counter(["request 1", "request 2", "request 3", "request 4", "the library", "the archive", "a witness"])
    expected += cut_off + Counter(["request 1", "the library", "request 2"])
    print(f"\n{'asked':<12} {'times':>5} {'cut off':>7} {'repeated although it had ended':>30}")
    for what in sorted(expected):
        print(f"{what:<12} {asked[what]:>5} {cut_off[what]:>7} {asked[what] - expected[what]:>30}")
    assert asked == expected, asked
    whole = words(said).strip() == ANSWER
    print(f"\nas it was written, in {len(said)} attempts: {words(said)}{'(no gap)' if whole else '(A GAP)'}")
    print(f"case-1 {info.status}: ${info.attributes['dollars']} in {info.attributes['model_requests']} requests")
    print(f"case-2 {in_vain.status}: {str(in_vain.reason).partition(' Consider')[0]}")
    assert whole
    assert in_vain.status == "failed"


def look_into(journal: Path) -> None:
    """Ask the debugger who said that it was the butler, since it was the gardener."""
    command = ["debug", "case-1", "--db", str(journal), "--app", str(HERE / "researcher.py"), "-c", "memos butler"]
    print(f"\n$ durable {' '.join(command[:2])} -c 'memos butler'", flush=True)
    subprocess.run([sys.executable, "-m", "durable", *command], check=True)


def run(deaths: list[str] | None = None) -> None:
    with tempfile.TemporaryDirectory(prefix="agent-") as folder:
        asyncio.run(evening(Path(folder), [*DEATHS] if deaths is None else deaths))
        if deaths is None:
            look_into(Path(folder) / "cases.db")
