"""
What the acceptance scenarios use beside the engines of tests/conftest.py: doors, hosts that die, copies.

The numbers in the docstrings (\"Scenario 13\") are those of the list of scenarios which this engine was
asked to pass; a docstring also says where the contract decides otherwise than that list.
"""

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "crash"))
from copies import Copies

from tests import children

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


class Door:
    """A body stands before it until it is opened; says how many came, and how many were cut off there."""

    def __init__(self):
        self.came = self.cut_off = 0
        self._open, self._someone = asyncio.Event(), asyncio.Event()

    async def __call__(self):
        self.came += 1
        self._someone.set()
        try:
            await self._open.wait()
        except asyncio.CancelledError:
            self.cut_off += 1
            self._someone.set()
            raise

    def open(self):
        self._open.set()

    async def reached(self, count=1):
        """Return once *count* bodies came."""
        await self._until(lambda: self.came >= count)

    async def left(self, count=1):
        """Return once *count* bodies were cut off here: a cancelled run may end before its body does."""
        await self._until(lambda: self.cut_off >= count)

    async def _until(self, condition):
        async with asyncio.timeout(20):
            while not condition():
                self._someone.clear()
                await self._someone.wait()


@pytest.fixture
async def door():
    """
    One door a test.
    """
    return Door()


class Meter:
    """Counts bodies under way, and the most there were at once."""

    def __init__(self):
        self.now = self.peak = 0
        self.order = []

    def __call__(self, name):
        self.order.append(name)
        return self

    async def __aenter__(self):
        self.now += 1
        self.peak = max(self.peak, self.now)
        await asyncio.sleep(0)

    async def __aexit__(self, *_):
        await asyncio.sleep(0)
        self.now -= 1


@pytest.fixture
def meter():
    """
    A fresh count: `async with meter(name)` around a body.
    """
    return Meter()


@pytest.fixture
def doors():
    """
    As many doors as a test makes.
    """
    return Door


class Hosts:
    """Processes that run `host.py` on the test's file one after the other, and die as its ledger says."""

    def __init__(self, database, folder):
        spec = importlib.util.spec_from_file_location("host", HERE / "host.py")
        #: What they run, for engines of this process.
        self.module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.module)
        self.database, self.ledger = str(database), folder / "ledger"
        self.ledger.touch()

    def lines(self):
        """What the bodies wrote so far, in all lives."""
        return self.ledger.read_text().splitlines()

    def start(self, workflow, *arguments, deaths=(), run="r"):
        """A life of its own, under way."""
        command = [
            sys.executable, HERE / "host.py", self.database, workflow, run,
            json.dumps([str(self.ledger), list(deaths), *arguments]),
        ]  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return children.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def life(self, workflow, *arguments, deaths=(), run="r"):
        """A life to its end: the run's result, or "killed"."""
        process = self.start(workflow, *arguments, deaths=deaths, run=run)
        try:
            out, error = process.communicate(timeout=40)
        except subprocess.TimeoutExpired:
            process.kill()
            _, error = process.communicate()
            raise AssertionError(f"a life hung: {error}") from None
        assert process.returncode in (0, -9), error
        return "killed" if process.returncode else json.loads(out)


@pytest.fixture
def hosts(tmp_db, tmp_path):
    """
    Hosts of the test's file.
    """
    return Hosts(tmp_db, tmp_path)


@pytest.fixture
def copies(tmp_path):
    """
    Makes a recorder of copies of the file, before and after each COMMIT.
    """
    made = []

    def recording(monkeypatch):
        folder = tmp_path / f"copies-{len(made)}"
        folder.mkdir()
        made.append(folder)
        return Copies(monkeypatch, folder, before=True)

    return recording
