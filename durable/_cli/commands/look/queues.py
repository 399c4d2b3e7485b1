"""
``durable queues``: what waits in them, what runs, and which are paused or throttled.
"""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from contextlib import closing

from durable._cli.commands.look.limits import numbers
from durable._cli.journals.files import add_database, database_path, open_readonly, snapshot
from durable._cli.terminal.output import Output, ago
from durable._cli.terminal.problems import OK
from durable._core.admission import Queue
from durable._shell.reads.queue_rows import numbers_of_queue
from durable._shell.reports.census import QueueLine, queue_lines


def configure(_command: str, parser: ArgumentParser) -> None:
    """Which journal."""
    add_database(parser)
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.epilog = (
        "Queues with runs that are due, and those that are paused. `durable pause queue:NAME` lets none begin, and\n"
        "`durable throttle queue:NAME --concurrency N` fewer at once.\n\n"
        "example:\n  durable queues"
    )


def run(_command: str, args: Namespace, out: Output) -> int:
    """Write them."""
    now = time.time()
    with closing(open_readonly(database_path(args))) as conn, snapshot(conn):
        found = [(each, _throttled(numbers_of_queue(conn, each.name))) for each in queue_lines(conn)]
    _write(found, out, now)
    return OK


def _throttled(own: Queue | None) -> str:
    """The numbers that hold in place of the program's."""
    if own is None:
        return ""
    rate = own.rate
    return numbers(own.concurrency, rate.count if rate else None, rate.per if rate else None)


def _write(queues: list[tuple[QueueLine, str]], out: Output, now: float) -> None:
    if out.json:
        for each, changed in queues:
            waited = None if each.oldest_ready_at is None else max(0.0, now - each.oldest_ready_at)
            out.value({"name": each.name, "depth": each.depth, "running": each.running, "paused": each.paused,
                       "oldest_wait_seconds": waited, "changed": changed or None})  # fmt: skip
    elif not queues:
        out.line("no queue has anything to do")
    else:
        rows = [
            (each.name, f"{each.depth:,}", f"{each.running:,}", ago(each.oldest_ready_at, now),
             ", ".join(filter(None, ("paused" if each.paused else "", changed and f"throttled: {changed}"))))
            for each, changed in queues
        ]  # fmt: skip
        out.table(("QUEUE", "WAITING", "RUNNING", "OLDEST WAIT", ""), rows, flexible=0)
