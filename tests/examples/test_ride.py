"""
The ride survives the death of its process between the charge and the answer, and the rider pays once.
"""

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

BOOK = """
import asyncio, sys
from durable import Engine
from ride import notify_drivers, ride, write_audit

async def main(path, server):
    async with Engine(path, [ride, notify_drivers, write_audit]) as engine:
        receipt = await engine.run(ride(42, "Main St 1", server), key="ride-42")
        print("RECEIPT", receipt.charge_id)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def ride(monkeypatch):
    """
    The example as a module.
    """
    monkeypatch.syspath_prepend(EXAMPLES)
    import ride

    return ride


def book(path, server):
    return subprocess.Popen(
        [sys.executable, "-c", BOOK, str(path), server],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(EXAMPLES), *sys.path]))},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_killed_while_charging(ride, tmp_db, monkeypatch):
    """
    Killed after the server made the charge and before it answered: one ride, one charge, one key.
    """
    with closing(sqlite3.connect(tmp_db)) as app:
        app.execute("CREATE TABLE rides (id INTEGER PRIMARY KEY, user_id INTEGER, pickup TEXT)")
        app.execute("CREATE TABLE audit (entry TEXT)")
    children = []
    answer = ride.Payments.send_response

    def kill_then_answer(self, code, message=None):
        if len(self.requests) == 1:
            children[0].send_signal(signal.SIGKILL)
            children[0].wait()
        answer(self, code, message)

    monkeypatch.setattr(ride.Payments, "send_response", kill_then_answer)
    with ride.payment_server() as (server, payments):
        children.append(book(tmp_db, server))
        children[0].communicate(timeout=20)
        assert children[0].returncode == -signal.SIGKILL
        children.append(book(tmp_db, server))
        output, _ = children[1].communicate(timeout=20)
        assert "RECEIPT charge-1" in output
        assert len(payments.requests) == 2
        assert len(set(payments.requests)) == len(payments.charges) == 1
    with closing(sqlite3.connect(tmp_db)) as app:
        assert app.execute("SELECT count(*) FROM rides").fetchone() == (1,)
        assert app.execute("SELECT count(*) FROM audit").fetchone() == (1,)
        interrupted = app.execute("SELECT body FROM history WHERE event = 'StepInterrupted'").fetchall()
        assert len(interrupted) == 1, interrupted


def test_create_ride_works_on_any_connection(ride):
    """
    A transaction's function is an ordinary one.
    """
    with closing(sqlite3.connect(":memory:")) as app:
        app.execute("CREATE TABLE rides (id INTEGER PRIMARY KEY, user_id INTEGER, pickup TEXT)")
        app.execute("CREATE TABLE audit (entry TEXT)")
        assert ride.create_ride.fn(app, 42, "Main St 1") == 1
        assert app.execute("SELECT entry FROM audit").fetchall() == [("user 42 asked for a ride from Main St 1",)]
