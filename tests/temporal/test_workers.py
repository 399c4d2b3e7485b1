"""
Workers that are killed, or closed while their steps run: another one goes on, and nothing is done twice.
"""

import asyncio
import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

from durable import RunBlockedError, command_line
from durable.temporal import TemporalEngine
from tests.temporal import worker

ROOT = Path(__file__).parents[2]


class Worker:
    """
    A worker process, and what it has said so far.
    """

    def __init__(self, process):
        self.process = process
        self.said = []

    async def until(self, words):
        """
        Return once it has said *words*.
        """
        async with asyncio.timeout(40):
            while words not in self.said:
                line = await self.process.stdout.readline()
                assert line, f"the worker has ended: {self.said}"
                self.said.append(line.decode().strip())

    async def end(self, *, kill=False):
        if kill:
            self.process.kill()
        else:
            self.process.terminate()
        rest, _ = await asyncio.wait_for(self.process.communicate(), 30)
        self.said += rest.decode().split("\n")


@pytest.fixture
async def start_worker(address, queue):
    """
    Starts worker processes, and ends those that are left.
    """
    started = []

    async def start():
        command = [sys.executable, "-m", "tests.temporal.worker", address, queue]
        process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
        started.append(Worker(process))
        await started[-1].until("ready")
        return started[-1]

    yield start
    for each in started:
        if each.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                await each.end(kill=True)


@pytest.mark.parametrize("kill", [True, False], ids=["killed", "closed"])
async def test_another_worker_goes_on_where_one_has_stopped(client, queue, start_worker, kill):
    """
    What had ended is not done again; the step that was running continues from its cursor, as its second attempt.
    """
    first = await start_worker()
    engine = TemporalEngine(client, queue, worker.ALL, poll=())
    async with engine:
        run = await engine.start(worker.long_way())
        await first.until("half way")
        await first.end(kill=kill)
        second = await start_worker()
        assert await run.result(timeout=40) == [2, 5]
        await second.end()
    said = first.said + second.said
    assert [said.count(f"quick {n}") for n in (1, 2, 3)] == [1, 1, 1]
    assert "slow 2 5" in said


async def test_the_command_line_works_until_it_is_told_to_stop(client, address, queue):
    """
    ``durable worker`` on the definitions of a module; SIGTERM lets it close.
    """
    command = [sys.executable, "-m", "durable", "worker", "--temporal", address, "--task-queue", queue]
    command += ["--app", "tests.temporal.worker", "--grace", "0.2"]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    assert b"works on" in await process.stdout.readline()
    async with TemporalEngine(client, queue, worker.ALL, poll=()) as engine:
        run = await engine.start(worker.carefully())
        while b"careful 1" not in await process.stdout.readline():
            pass
    process.terminate()
    await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0
    assert await run.status() != "succeeded"


def test_without_a_cluster_the_command_says_so(capsys):
    """
    In a sentence, with the address.
    """
    arguments = ["worker", "--temporal", "127.0.0.1:1", "--app", "tests.temporal.worker"]
    assert command_line(arguments) == 2
    assert "127.0.0.1:1" in capsys.readouterr().err


async def test_a_step_whose_outcome_is_unknown_blocks_its_run_until_a_person_says(client, queue, start_worker):
    """
    ``on_crash="block"``: it is not run again, and `resolve` gives the outcome.
    """
    first = await start_worker()
    async with TemporalEngine(client, queue, worker.ALL, poll=()) as engine:
        run = await engine.start(worker.carefully())
        await first.until("careful 1")
        await first.end(kill=True)
        second = await start_worker()
        with pytest.raises(RunBlockedError):
            await run.result()
        await run.resolve("0", value="it was done", by="a person")
        assert await run.result(timeout=20) == "it was done"
        await second.end()
    assert "careful 2" not in second.said


def test_nothing_is_lost_where_workers_and_the_server_are_killed(address):
    """
    A short soak: in full, ``python -m tests.temporal.soak`` kills thirty workers and three servers under 300 rides.
    """
    command = [sys.executable, "-m", "tests.temporal.soak", "--rides", "12", "--kills", "3", "--server-kills", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "12 rides, 3 workers and 1 servers killed: lost 0" in done.stdout
