"""
The web application over real HTTP: killed between two requests, it goes on with the rides it had.
"""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

APP = Path(__file__).parents[2] / "examples" / "webapp" / "app.py"


class Server:
    """
    The application in a process of its own, on a free port.
    """

    def __init__(self, journal):
        self.process = subprocess.Popen(
            [sys.executable, APP, "0", str(journal)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        lines = []
        for line in self.process.stderr:  # it ends when the process does
            lines.append(line)
            if bound := re.search(r"running on http://127\.0\.0\.1:(\d+)", line):
                self.port = int(bound[1])
                return
        pytest.fail(f"the server did not start:\n{''.join(lines)}")

    def ask(self, method, path, body=None, **headers):
        """
        The status and the decoded body of the answer.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        text = body if body is None or isinstance(body, str) else json.dumps(body)
        connection.request(method, path, text, headers)
        answer = connection.getresponse()
        found = answer.status, json.loads(answer.read())
        connection.close()
        return found

    def until(self, path, holds):
        """
        What *path* answers, once it *holds*.
        """
        deadline = time.monotonic() + 20
        while True:
            status, found = self.ask("GET", path)
            if status == 200 and holds(found):
                return found
            assert time.monotonic() < deadline, found
            time.sleep(0.02)

    def end(self, how):
        """
        The exit code after the signal *how*.
        """
        self.process.send_signal(how)
        self.process.communicate(timeout=20)
        return self.process.returncode


@pytest.fixture
def serve(tmp_db):
    """
    Starts the application, always on the same journal; kills what is left.
    """
    servers = []

    def start():
        servers.append(Server(tmp_db))
        return servers[-1]

    yield start
    for server in servers:
        server.end(signal.SIGKILL)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """
    One that nobody kills and whose journal stays empty: for requests that change nothing.
    """
    server = Server(tmp_path_factory.mktemp("refusing") / "app.db")
    yield server
    server.end(signal.SIGKILL)


BOOKING = {"user_id": 42, "pickup": "Main St 1"}


def test_a_ride_outlives_the_server(serve):
    """
    Killed with SIGKILL between two payments: the first one counts, once, and the second completes the ride.
    """
    server = serve()
    status, booked = server.ask("POST", "/rides", BOOKING)
    assert status == 202
    ride = f"/rides/{booked['id']}"
    waiting = server.until(ride, lambda found: found["status"] == "waiting")
    assert waiting["attributes"]["cents_due"] == 2_000
    assert "signal 'payment'" in waiting["why"]
    first = {"webhook_id": "evt-1", "cents": 1_200}
    assert server.ask("POST", f"{ride}/payment", first) == (200, {"accepted": True})
    assert server.end(signal.SIGKILL) == -signal.SIGKILL

    server = serve()
    assert server.ask("POST", f"{ride}/payment", first) == (200, {"accepted": False})
    due = server.until(ride, lambda found: found["attributes"]["cents_due"] < 2_000)
    assert (due["status"], due["attributes"]["cents_due"], due["result"]) == ("waiting", 800, None)
    second = {"webhook_id": "evt-2", "cents": 800}
    assert server.ask("POST", f"{ride}/payment", second) == (200, {"accepted": True})
    done = server.until(ride, lambda found: found["status"] == "succeeded")
    assert done["result"] == {"driver": "the driver nearest to Main St 1", "cents": 2_000}
    assert server.ask("POST", f"{ride}/payment", second) == (200, {"accepted": False})
    status, answer = server.ask("POST", f"{ride}/payment", {"webhook_id": "evt-3", "cents": 1})
    assert (status, "it is succeeded" in answer["error"]) == (409, True)


def test_killed_as_soon_as_the_ride_was_accepted(serve):
    """
    The answer 202 is a promise: the ride goes on in the next process, without another request.
    """
    server = serve()
    _, booked = server.ask("POST", "/rides", BOOKING)
    server.end(signal.SIGKILL)
    server = serve()
    server.until(f"/rides/{booked['id']}", lambda found: found["attributes"].get("stage") == "waiting for payment")


def test_a_double_click_books_one_ride(serve):
    """
    One idempotency key, one ride; the same key with another pickup is a conflict, and says so.
    """
    server = serve()
    click = {"Idempotency-Key": "click-1"}
    first, second = (server.ask("POST", "/rides", BOOKING, **click) for _ in range(2))
    assert first == second
    status, answer = server.ask("POST", "/rides", {**BOOKING, "pickup": "Elm St 2"}, **click)
    assert status == 409
    assert "'click-1' belongs to run" in answer["error"]


@pytest.mark.parametrize(
    "method, path, body, status, error",
    [
        ("GET", "/rides/nobody", None, 404, "no run with id 'nobody'"),
        ("POST", "/rides/nobody/payment", {"webhook_id": "evt-1", "cents": 1}, 404, "no run with id 'nobody'"),
        ("POST", "/rides", "no JSON", 422, "Booking with user_id, pickup"),
        ("POST", "/rides", [], 422, "Booking with user_id, pickup"),
        ("POST", "/rides", {"pickup": "Main St 1"}, 422, "Booking with user_id, pickup"),
        ("POST", "/rides/nobody/payment", {"cents": "many", "webhook_id": "x"}, 422, "Payment with webhook_id, cents"),
    ],
)
def test_what_is_refused(method, path, body, status, error, server):
    """
    A run that is not there and a body that does not fit have answers of their own.
    """
    found, answer = server.ask(method, path, body)
    assert found == status
    assert error in answer["error"]


def test_the_server_is_asked_to_stop(serve):
    """
    SIGTERM closes the engine with the application, and the next process finds the journal free.
    """
    server = serve()
    _, booked = server.ask("POST", "/rides", BOOKING)
    assert server.end(signal.SIGTERM) in {0, -signal.SIGTERM}
    serve().until(f"/rides/{booked['id']}", lambda found: found["status"] == "waiting")
