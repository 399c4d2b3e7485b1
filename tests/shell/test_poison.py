"""
Poison is found, not guessed: of all that ran when the process died, only the step that kills it fails.

The processes are real, and die by SIGKILL.
"""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Of the neighbours of a killer; the long target tries all of them.
SEEDS = range(20) if os.environ.get("DURABLE_LONG") else (0, 7)

SCRIPT = """
    import asyncio, json, os, random, signal, sys, time
    import structlog; structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    from durable import Engine, Flow, Limit, PoisonError, Return, gather, job, step, workflow

    MENDED = os.path.exists(sys.argv[1] + ".mended")

    async def kill():
        if not MENDED:
            os.kill(os.getpid(), signal.SIGKILL)

    @job
    async def killer(after: float) -> str:
        await asyncio.sleep(after)
        await kill()
        return "mended"

    @job
    async def neighbour(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "well"

    @job(name="neighbour-in-a-thread")
    def neighbour_in_a_thread(seconds: float) -> str:
        time.sleep(seconds)
        return "well"

    @step
    async def walks(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "well"

    @step
    async def kills(after: float) -> str:
        await asyncio.sleep(after)
        await kill()
        return "mended"

    @workflow(name="neighbour-in-a-workflow")
    async def neighbour_in_a_workflow(seconds: float) -> Flow[str]:
        first: str = yield walks(seconds / 2)
        second: str = yield walks(seconds / 2)
        yield Return(second)

    @workflow
    async def compensates(after: float) -> Flow[str]:
        try:
            yield gather(*(walks(0.2) for _ in range(5)), kills(after))
        except* PoisonError as errors:
            (error,) = errors.exceptions
            told = f"compensated {error.name} after {error.deaths} deaths"
        yield Return(told)

    DEFINITIONS = [killer, neighbour, neighbour_in_a_thread, neighbour_in_a_workflow, compensates]

    async def main():
        path, what, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
        pick = random.Random(seed)
        async with Engine(path, DEFINITIONS, durability="process", grace=0.05) as engine:
            kinds = [neighbour, neighbour_in_a_thread, neighbour_in_a_workflow]
            ops = [pick.choice(kinds)(pick.uniform(0.15, 0.4)).options(key=f"n{n}") for n in range(10)]
            top = (compensates if what == "workflow" else killer)(pick.uniform(0.0, 0.1)).options(key="killer")
            ops.insert(pick.randrange(11), top)
            await engine.start_many(ops)
            told = {}
            for name in ["killer", *(f"n{n}" for n in range(10))]:
                run = await engine.find(name)
                try:
                    told[name] = await run.result(20)
                except Exception as error:
                    told[name] = f"{type(error).__name__}: {type(error.__cause__).__name__}"
            print(json.dumps(told), flush=True)
    asyncio.run(main())
"""


def lives(tmp_path, what, seed):
    """What became of each run, and how often the process died before that."""
    script = tmp_path / "app.py"
    script.write_text(textwrap.dedent(SCRIPT))
    command = [sys.executable, str(script), str(tmp_path / "app.db"), what, str(seed)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    for deaths in range(10):
        life = subprocess.run(
            command,
            check=False,
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
        )
        if life.returncode == 0:
            return json.loads(life.stdout), deaths
        assert life.returncode == -9, life.stderr
    raise AssertionError("it dies for ever")


@pytest.mark.parametrize("seed", SEEDS)
def test_the_killer_is_found_among_ten_neighbours(tmp_path, seed):
    """
    Jobs, threads and steps of workflows beside a job that kills: it fails after three deaths, and nobody else does.
    """
    told, deaths = lives(tmp_path, "job", seed)
    print(f"seed {seed}: {deaths} deaths")
    assert told.pop("killer") == "RunFailedError: PoisonError"
    assert set(told.values()) == {"well"}
    assert deaths == 3


@pytest.mark.parametrize("seed", SEEDS)
def test_a_workflow_compensates_for_the_step_that_kills(tmp_path, seed):
    """
    Among the steps of its own group, and the neighbours: it catches `PoisonError`, and ends.
    """
    told, deaths = lives(tmp_path, "workflow", seed)
    assert told.pop("killer") == "compensated kills after 3 deaths"
    assert set(told.values()) == {"well"}
    assert deaths == 3
