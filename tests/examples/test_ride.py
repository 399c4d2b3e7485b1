"""
The ride survives the death of its process between the charge and the answer, and the rider pays once.
"""

import signal
import sqlite3
from contextlib import closing

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


def test_killed_while_charging(example, start, tmp_db, monkeypatch):
    """
    Killed after the server made the charge and before it answered: one ride, one charge, one key.
    """
    with closing(sqlite3.connect(tmp_db)) as app:
        app.execute("CREATE TABLE rides (id INTEGER PRIMARY KEY, user_id INTEGER, pickup TEXT)")
        app.execute("CREATE TABLE audit (entry TEXT)")
    children = []
    answer = example.Payments.send_response

    def kill_then_answer(self, code, message=None):
        if len(self.requests) == 1:
            children[0].send_signal(signal.SIGKILL)
            children[0].wait()
        answer(self, code, message)

    monkeypatch.setattr(example.Payments, "send_response", kill_then_answer)
    with example.payment_server() as (server, payments):
        children.append(start(BOOK, tmp_db, server))
        assert children[0].ended()[0] == -signal.SIGKILL
        _, output = start(BOOK, tmp_db, server).ended()
        assert "RECEIPT charge-1" in output
        assert len(payments.requests) == 2
        assert len(set(payments.requests)) == len(payments.charges) == 1
    with closing(sqlite3.connect(tmp_db)) as app:
        assert app.execute("SELECT count(*) FROM rides").fetchone() == (1,)
        assert app.execute("SELECT count(*) FROM audit").fetchone() == (1,)
        interrupted = app.execute("SELECT body FROM history WHERE event = 'StepInterrupted'").fetchall()
        assert len(interrupted) == 1, interrupted


def test_create_ride_works_on_any_connection(example):
    """
    A transaction's function is an ordinary one.
    """
    with closing(sqlite3.connect(":memory:")) as app:
        app.execute("CREATE TABLE rides (id INTEGER PRIMARY KEY, user_id INTEGER, pickup TEXT)")
        app.execute("CREATE TABLE audit (entry TEXT)")
        assert example.create_ride.fn(app, 42, "Main St 1") == 1
        assert app.execute("SELECT entry FROM audit").fetchall() == [("user 42 asked for a ride from Main St 1",)]
