"""
What a program pays for having `durable` in it: the import, and whether it can still crash.

Everything here starts fresh interpreters.
"""

import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from time import time
from typing import Any

IMPORT = """
import sys, threading, time
began = time.perf_counter()
from durable import Engine
print(time.perf_counter() - began, threading.active_count(), len(sys.modules))
"""

#: Dies of an error in user code, with an engine open and a run that waits; {how} it is closed.
CRASH = """
import asyncio, sys, time
from durable import Engine, Flow, sleep, workflow

@workflow
async def parked() -> Flow[None]:
    yield sleep(3600.0)

async def managed():
    async with Engine(sys.argv[1], [parked]) as engine:
        await engine.start(parked())
        print("raising", time.time(), flush=True)
        raise ZeroDivisionError("user code")

async def abandoned():
    engine = Engine(sys.argv[1], [parked])
    await engine.open()
    await engine.start(parked())
    print("raising", time.time(), flush=True)
    raise ZeroDivisionError("user code")

asyncio.run({how}())
"""


def starting(_folder: Path, params: dict[str, Any], _durability: str) -> dict[str, Any]:
    """
    Milliseconds of `from durable import Engine` in a fresh interpreter: the median of *repeats*.
    """
    _python(IMPORT)  # compiles what is not compiled yet
    found = [_python(IMPORT).stdout.split() for _ in range(params["repeats"])]
    return {
        "import_ms": median(float(seconds) for seconds, _, _ in found) * 1e3,
        "threads_after_import": int(found[0][1]),
        "modules": int(found[0][2]),
    }


def crashing(folder: Path, _params: dict[str, Any], _durability: str) -> dict[str, Any]:
    """
    Seconds from an error in user code to the end of the process, with an engine open.
    """
    found: dict[str, Any] = {}
    for how in ("managed", "abandoned"):
        ended = _python(CRASH.replace("{how}", how), str(folder / f"{how}.db"))
        gone = time()
        assert "ZeroDivisionError: user code" in ended.stderr, ended.stderr
        assert ended.returncode == 1
        (raised,) = [line.split()[1] for line in ended.stdout.splitlines() if line.startswith("raising ")]
        found[f"{how}_exit_s"] = gone - float(raised)
    return {"exit_s": max(found.values()), **found}


def _python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": ""},
    )
