"""
Books a ride, kills the program with SIGKILL while the ride is being paid, and starts it again.

`python examples/single_binary` does that with main.py, `python examples/single_binary dist/rides` with the frozen file.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SECONDS = 30.0


class Charge:
    """A request to charge a ride, which waits for its answer."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.status: queue.Queue[int] = queue.Queue(1)

    def answer(self, status: int) -> None:
        self.status.put(status)


class Payments(BaseHTTPRequestHandler):
    """A payment service: the process that runs it takes each request from `charges`, and answers it."""

    charges: queue.Queue[Charge]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        charge = Charge(self.headers["Idempotency-Key"])
        self.charges.put(charge)
        self.send_response(charge.status.get())
        with suppress(ConnectionError):  # the process that asked may have been killed
            self.end_headers()
            self.wfile.write(json.dumps({"charge_id": "charge-1"}).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the demonstration prints what matters."""


@contextmanager
def payment_service() -> Iterator[tuple[str, queue.Queue[Charge]]]:
    Payments.charges = queue.Queue()
    with ThreadingHTTPServer(("127.0.0.1", 0), Payments) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/charges", Payments.charges
        server.shutdown()


class Program:
    """The program, from source or frozen, and the journal that it works with."""

    def __init__(self, command: list[str], db: Path) -> None:
        self.command, self.db = command, str(db)
        # A frozen file unpacks itself there, and cannot clean up when it is killed.
        self.environment = {**os.environ, "TMPDIR": str(db.parent)}

    def call(self, *arguments: str) -> str:
        """What it prints."""
        done = subprocess.run(
            [*self.command, *arguments, "--db", self.db],
            check=True,
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
            timeout=SECONDS,
        )
        return done.stdout.strip()

    @contextmanager
    def serving(self, end: signal.Signals) -> Iterator[None]:
        """Let it serve, and end it with *end*."""
        # In a group of its own: a frozen file is two processes, one of which only unpacks and waits for the other.
        server = subprocess.Popen(
            [*self.command, "serve", "--db", self.db],
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert server.stdout is not None
        try:
            print(" ", server.stdout.readline().strip())
            yield
        finally:
            os.killpg(server.pid, end)
            server.wait(SECONDS)
            server.stdout.close()


def main(command: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder, payment_service() as (url, charges):
        program = Program(command, Path(folder, "rides.db"))
        with program.serving(end=signal.SIGKILL):
            run_id = program.call("book", "42", "Main St 1", "--payments", url)
            first = charges.get(timeout=SECONDS)
            first.answer(503)
            second = charges.get(timeout=SECONDS)
            print(f"  ride {run_id}: the first attempt to charge it failed, the second is in progress")
        print("Killed. Nobody knows whether the ride was paid; the next process asks again, with the same key.")
        with program.serving(end=signal.SIGTERM):
            third = charges.get(timeout=SECONDS)
            assert first.key == second.key == third.key
            third.answer(200)
            print(" ", program.call("wait", run_id))
        second.answer(503)  # to whom it may concern
        for arguments in (["list"], ["history", run_id], ["replay", run_id]):
            print(f"\n$ rides durable {' '.join(arguments)}")
            print(program.call("durable", *arguments))


def program_of(arguments: list[str]) -> list[str]:
    return [os.path.abspath(arguments[0])] if arguments else [sys.executable, str(Path(__file__).with_name("main.py"))]
