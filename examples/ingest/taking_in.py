"""
Two thousand files, two of them spoilt; the daemon is killed with SIGKILL, started again, watched, and ended by SIGTERM.
"""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

SECONDS = 60.0


def fill(folder: Path, files: int) -> None:
    """Write files elsewhere, and move them in."""
    with tempfile.TemporaryDirectory(dir=folder) as made:
        for number in range(files):
            spoilt = number in (files // 3, files // 2)
            text = "no measurements\n" if spoilt else "".join(f"{at},{number + at % 7}\n" for at in range(100))
            Path(made, f"sensor-{number:05}.csv").write_text(text, encoding="utf-8")
        for path in sorted(Path(made).iterdir()):
            path.rename(folder / path.name)


def stored(folder: Path) -> int:
    """How many files the table has; anybody may read it."""
    try:
        with closing(sqlite3.connect(f"file:{folder}/ingest.db?mode=ro", uri=True)) as conn:
            return int(conn.execute("SELECT count(*) FROM files").fetchone()[0])
    except sqlite3.OperationalError:  # there is no table yet
        return 0


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def serving(command: list[str], folder: Path, end: signal.Signals) -> Iterator[None]:
    """Let the daemon work, and end it by *end*."""
    # In a group of its own, which dies as a whole: its pool and, of a frozen file, the process that only unpacks it.
    daemon = subprocess.Popen([*command, "serve", str(folder)], start_new_session=True, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        os.killpg(daemon.pid, end) if end == signal.SIGKILL else daemon.send_signal(end)
        print(f"ended by {end.name}: exit code {daemon.wait(SECONDS)}")


def take_in(command: list[str], folder: Path, files: int) -> None:
    fill(folder, files)
    with serving(command, folder, signal.SIGKILL):
        until(lambda: stored(folder) >= files // 4)
    print(f"killed with {stored(folder):,} of {files:,} files in the table")
    with serving(command, folder, signal.SIGTERM):
        durable = [*command, "durable"]
        listed = subprocess.run([*durable, "list", "--db", f"{folder}/ingest.db", "--workflow", "ingest", "--json"],
                                check=True, capture_output=True, text=True)  # fmt: skip
        subprocess.run([*durable, "watch", "--db", f"{folder}/ingest.db", run_in(listed.stdout)], check=True)
        until(lambda: not list(folder.glob("*.csv")))
    print(f"{stored(folder):,} files in the table, {len(list(folder.glob('done/*'))):,} done")
    print("spoilt:", ", ".join(sorted(path.name for path in folder.glob("bad/*"))))


def run_in(listed: str) -> str:
    """The id of the newest run that is listed."""
    return str(json.loads(listed.splitlines()[0])["run_id"])


def run(arguments: list[str], files: int = 2_000) -> None:
    source = [sys.executable, str(Path(__file__).with_name("ingestd.py"))]
    with tempfile.TemporaryDirectory(prefix="ingest-") as folder:
        take_in([os.path.abspath(arguments[0])] if arguments else source, Path(folder), files)
