"""
Lives of the victim: started, killed at some moment or point, started again, judged.
"""

import contextlib
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from judge import judge

from tests import children

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


class Lives:
    """One journal, and the processes that work on it one after the other."""

    def __init__(self, folder, runs=8, bug=None):
        self.database, self.ledger = folder / "app.db", folder / "ledger"
        self.runs, self.kills, self.bug = runs, 0, bug
        with contextlib.closing(sqlite3.connect(self.database)) as app:
            app.execute("CREATE TABLE app (run TEXT NOT NULL, mark TEXT NOT NULL)")
            app.commit()
        self.ledger.touch()

    def _start(self, *point):
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        environment.pop("PLANTED_BUG", None)
        if self.bug:
            environment["PLANTED_BUG"] = self.bug
        command = [sys.executable, HERE / "victim.py", self.database, self.ledger, str(self.runs), *map(str, point)]
        return children.Popen(command, env=environment, stderr=subprocess.PIPE)

    def lines(self):
        return self.ledger.read_bytes().count(b"\n")

    def until_killed(self, after_lines, after_seconds):
        """A life that ends by SIGKILL, some seconds after some lines (or at its end, if that is earlier)."""
        wanted, deadline = self.lines() + after_lines, time.monotonic() + 20
        process = self._start()
        while self.lines() < wanted and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(after_seconds)
        process.kill()
        return self._ended(process)

    def until_point(self, point, count):
        """A life that kills itself when it comes to *point*; False if it never did and ended well."""
        return self._ended(self._start(point, count), timeout=6 if self.bug else 30)

    def to_the_end(self, timeout=30):
        """A life that nobody disturbs; what the judge says about them all."""
        process = self._start()
        try:
            _, error = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return [f"the last life did not end within {timeout} s", *judge(self.database, self.ledger)]
        if process.returncode:
            ended = f"the last life ended with {process.returncode}: {error.decode()[-2000:]}"
            return [ended, *judge(self.database, self.ledger)]
        return judge(self.database, self.ledger)

    def _ended(self, process, timeout=10):
        try:
            _, error = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            _, error = process.communicate()
            assert self.bug, f"a life hung: {error.decode()[-4000:]}"
        assert self.bug or process.returncode in (0, -9), error.decode()[-4000:]
        self.kills += process.returncode == -9
        return process.returncode == -9
