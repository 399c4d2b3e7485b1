"""
What a request is for: runs that are named, or that fit filters; a queue, or a schedule.
"""

from __future__ import annotations

import sqlite3
from argparse import Namespace
from collections.abc import Sequence
from typing import Final, NamedTuple

from durable._cli.journals.filters import filter_from, filtered
from durable._cli.journals.finding import find_run
from durable._cli.terminal.problems import NOT_FOUND, CommandError
from durable._core.statuses import ENDS, OPEN, Cause, changed_by
from durable._shell.reads.batch_rows import finish_of
from durable._shell.reads.run_rows import list_runs, paused_queues, run_by_id
from durable._shell.reads.schedule_rows import schedule_by_name

QUEUE: Final = "queue:"
SCHEDULE: Final = "schedule:"
BATCH: Final = "batch:"

#: Statuses in which a request does something: what filters leave of other runs is not asked for.
APPLIES: Final[dict[str, tuple[str, ...]]] = {
    "signal": OPEN,
    "cancel": OPEN,
    "pause": changed_by(Cause.PAUSE),
    "resume": changed_by(Cause.RESUME),
    "retry": ("failed",),  # and what was cancelled before it began, where that is asked for
    "retry-hooks": ENDS,
    "delete": ENDS,
}
#: Runs read in one go.
_PAGE: Final = 1_000
#: Runs that are named before somebody is asked.
_NAMED: Final = 3


class Target(NamedTuple):
    """One thing that is to be changed."""

    #: "run", "queue", "schedule" or "batch".
    kind: str
    #: The run's id, or the name.
    name: str
    #: Of a run: its workflow and status, as it was found.
    workflow: str = ""
    #: Of a queue or schedule: "paused", or "".
    status: str = ""

    def __str__(self) -> str:
        return self.name if self.kind == "run" else f"{self.kind} {self.name!r}"


def targets_of(conn: sqlite3.Connection, request: str, args: Namespace, now: float) -> list[Target]:
    """
    What the command line names, or what its filters leave: of those, runs that the request can do something with.

    Raises:
        CommandError: There is no such run, queue or schedule; or nothing was named, and no filter given.
    """
    if args.targets and filtered(args):
        msg = "name runs, or choose them by filters: not both"
        raise CommandError(msg)
    if args.targets:
        return list(
            {(each.kind, each.name): each for each in (_named(conn, request, t) for t in args.targets)}.values()
        )
    if not filtered(args):
        msg = f"which runs? Name them, or choose by filters as in `durable list`; --status {_usual(request)} takes all"
        raise CommandError(msg)
    wanted = filter_from(args, now, conn)
    if wanted.status is None:
        wanted = wanted._replace(status=APPLIES[request])
    found: list[Target] = []
    before: int | None = None
    while page := list_runs(conn, wanted, before, _PAGE):
        fit = [row for row in page if row.hook_errors] if request == "retry-hooks" else page
        found += [Target("run", row.run_id, row.workflow, row.status) for row in fit]
        before = page[-1].run
    return found


def in_words(targets: Sequence[Target]) -> str:
    """How many, and the first of them."""
    named = ", ".join(str(each) for each in targets[:_NAMED])
    left = len(targets) - _NAMED
    return f"{runs(len(targets))} ({named}{f' and {left:,} more' if left > 0 else ''})"


def runs(count: int) -> str:
    """A number of runs."""
    return f"{count:,} run" if count == 1 else f"{count:,} runs"


def _usual(request: str) -> str:
    statuses = APPLIES[request]
    return "open" if "waiting" in statuses else ",".join(statuses)


def _named(conn: sqlite3.Connection, request: str, text: str) -> Target:
    """The run called *text*; or, where that can be asked for, the queue or schedule. An id that is one wins."""
    if request == "retry" and text.startswith(BATCH) and run_by_id(conn, text) is None:
        return _batch(conn, text.removeprefix(BATCH))
    other = text.startswith((QUEUE, SCHEDULE)) and run_by_id(conn, text) is None
    if other and request in ("pause", "resume"):
        kind, _, name = text.partition(":")
        if kind == "queue":
            return _queue(conn, name)
        schedule = schedule_by_name(conn, name)
        if schedule is not None:
            return Target(kind, name, status="" if schedule.paused_at is None else "paused")
        if ":" not in name:  # else it may be the beginning of the id of a run that it started
            msg = f"no schedule is called {name!r} in this journal"
            raise CommandError(msg, NOT_FOUND)
    try:
        row = find_run(conn, text)
    except CommandError as error:
        if other and request not in ("pause", "resume"):
            msg = f"{error}. (Queues and schedules can be paused and resumed)"
            raise CommandError(msg, error.code) from None
        raise
    return Target("run", row.run_id, row.workflow, row.status)


def _batch(conn: sqlite3.Connection, name: str) -> Target:
    exists, _ = finish_of(conn, name)
    if not exists:
        msg = f"no batch has the id {name!r} in this journal"
        raise CommandError(msg, NOT_FOUND)
    return Target("batch", name)


def _queue(conn: sqlite3.Connection, name: str) -> Target:
    if not name:
        msg = "which queue? Write queue:NAME"
        raise CommandError(msg)
    return Target("queue", name, status="paused" if name in paused_queues(conn) else "")
