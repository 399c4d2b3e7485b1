"""
``durable stats``: a journal in numbers.
"""

from __future__ import annotations

import os
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import Any, Final, NamedTuple

from durable._cli.commands.look.limits import lets_in
from durable._cli.journals.files import add_database, database_path, open_readonly, snapshot
from durable._cli.journals.owners import OwnerProcess, owner_of
from durable._cli.terminal.output import Output, ago, instant, iso, printable
from durable._cli.terminal.problems import OK
from durable._core.durations import span
from durable._core.statuses import STATUSES
from durable._shell.ownership.outlived import Outlived, still_running
from durable._shell.reports.census import Census, census
from durable._shell.reports.limit_rows import all_limit_rows
from durable._shell.reports.throughput import Throughput, throughput

#: Workflows that are shown unless all were asked for: those with the most runs.
_WORKFLOWS: Final = 10
#: Limits, each under each of its keys, likewise: those with most who wait.
_LIMITS: Final = 10
#: Seconds between two looks of --watch, and the most that may be asked for.
_PAUSE: Final = 2.0
_LONGEST_PAUSE: Final = 86_400
_UNITS: Final = ("bytes", "KiB", "MiB", "GiB", "TiB")


class Seen(NamedTuple):
    """A journal at one moment."""

    path: str
    now: float
    census: Census
    lately: Throughput
    #: Names of limits -> what they let in.
    limits: dict[str, str]
    sizes: dict[str, int]
    owner: OwnerProcess | None
    #: Functions of steps whose last attempt is over.
    functions: Sequence[Outlived]


def configure(_command: str, parser: ArgumentParser) -> None:
    """Which journal."""
    add_database(parser)
    parser.add_argument("--full", action="store_true", help=f"all workflows, not only the {_WORKFLOWS} with most runs")
    parser.add_argument(
        "--watch", nargs="?", type=_seconds, const=_PAUSE, metavar="SECONDS",
        help=f"again and again, until Ctrl-C: every {_PAUSE:g} s, or as given",
    )  # fmt: skip
    parser.epilog = "examples:\n  durable stats --db rides.db\n  durable stats --watch"


def run(_command: str, args: Namespace, out: Output) -> int:
    """Write them; with --watch until Ctrl-C."""
    while True:
        _once(args, out)
        if args.watch is None:
            return OK
        out.flush()
        time.sleep(args.watch)
        if not out.json:
            out.clear()


def _once(args: Namespace, out: Output) -> None:
    now = time.time()
    path = database_path(args)
    with closing(open_readonly(path)) as conn, snapshot(conn):
        counted, lately = census(conn), throughput(conn, now)
        limits = {each.name: lets_in(each) for each in all_limit_rows(conn)}
    sizes = {"bytes": _size(path), "wal_bytes": _size(f"{path}-wal")}
    seen = Seen(path, now, counted, lately, limits, sizes, owner_of(path), still_running(path))
    if out.json:
        out.value(_json(seen))
    else:
        _write(seen, out, full=args.full)


def _seconds(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found <= _LONGEST_PAUSE:
        msg = f"{text!r} is no pause: a number of seconds, at most {_LONGEST_PAUSE:,}"
        raise ArgumentTypeError(msg)
    return found


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


# --- for people -----------------------------------------------------------------------------------------


def _write(seen: Seen, out: Output, *, full: bool) -> None:
    found, now = seen.census, seen.now
    out.line(out.bold(printable(seen.path)))
    for name, text in _facts(seen):
        out.line(f"  {out.dim(f'{name:<13}')}{printable(text)}")
    out.line()
    _runs(found, out, full=full)
    if found.queues:
        out.line()
        out.table(
            ("QUEUE", "WAITING", "RUNNING", "OLDEST WAIT", ""),
            [
                (
                    queue.name,
                    f"{queue.depth:,}",
                    f"{queue.running:,}",
                    ago(queue.oldest_ready_at, now),
                    "paused" if queue.paused else "",
                )
                for queue in found.queues
            ],
            flexible=0,
        )
    if found.limits:
        out.line()
        shown = found.limits if full else found.limits[:_LIMITS]
        out.table(
            ("LIMIT", "KEY", "LETS IN", "INSIDE", "WAITING", "OLDEST WAIT"),
            [
                (
                    each.name,
                    each.key,
                    seen.limits.get(each.name, ""),
                    f"{each.inside:,}",
                    f"{each.waiting:,}",
                    ago(each.oldest_since, now),
                )
                for each in shown
            ],
            flexible=0,
        )
        if len(shown) < len(found.limits):
            out.line(out.dim(f"... {len(found.limits) - len(shown):,} more: --full"))


def _facts(seen: Seen) -> Iterable[tuple[str, str]]:
    found, sizes = seen.census, seen.sizes
    free = f", {_readable(found.bytes_free)} of it free to be used again" if found.bytes_free else ""
    yield "size", f"{_readable(sizes['bytes'])}{free}"
    yield "wal", _readable(sizes["wal_bytes"])
    yield "schema", str(found.schema)
    yield "owner", _owner(seen.owner)
    yield "events", f"{found.events:,}"
    yield "ended", _lately(seen.lately)
    waits = ", ".join(f"{count:,} {kind}" for kind, count in found.waits.items())
    yield "waits", f"{sum(found.waits.values()):,}" + (f" ({waits})" if waits else "")
    if found.inbox:
        yield "inbox", f"{found.inbox:,} recorded, but taken in by no turn yet"
    if found.batches_open:
        yield "batches", f"{found.batches_open:,} open"
    if found.schedules:
        yield "schedules", f"{found.schedules:,}"
    for function in seen.functions:
        where = f"step {function.name!r} at {function.position} of run {function.run_id}"
        yield "in a thread", f"the last attempt of {where} is over, and its function still runs"
    oldest = found.oldest_open
    if oldest is not None:
        when = f"{instant(oldest.created_at)}, {ago(oldest.created_at, seen.now)} ago"
        yield "oldest open", f"{oldest.run_id} ({oldest.workflow}, {oldest.status}), created {when}"


def _lately(lately: Throughput) -> str:
    """How many runs ended in the last hour, and in the last minute."""
    total = lately.ended
    failed = f", {total.failed:,} failed" if total.failed else ""
    return f"{sum(total):,} in {span(lately.seconds)}{failed}; {sum(lately.minutes[-1]):,} in the last minute"


def _owner(owner: OwnerProcess | None) -> str:
    if owner is None:
        return "nobody"
    said = f"pid {owner.pid} on host {owner.host} since {owner.since}"
    return f"nobody; last {said}, which is gone" if owner.alive is False else said


def _runs(found: Census, out: Output, *, full: bool) -> None:
    """Workflows by statuses, those with most runs first; a column for each status that there is."""
    statuses = [status for status in STATUSES if status in found.statuses]
    if not statuses:
        out.line("no runs")
        return
    ranked = sorted(found.workflows.items(), key=lambda item: (-sum(item[1].values()), item[0]))
    shown = ranked if full or len(ranked) <= _WORKFLOWS + 1 else ranked[:_WORKFLOWS]
    rows = [_row(name, counts, statuses) for name, counts in shown]
    if len(shown) < len(ranked):
        rest: dict[str, int] = {}
        for _, counts in ranked[len(shown) :]:
            rest = {status: rest.get(status, 0) + counts.get(status, 0) for status in statuses}
        rows.append(_row(f"... {len(ranked) - len(shown):,} more: --full", rest, statuses))
    if len(ranked) > 1:
        rows.append(_row("all", found.statuses, statuses))
    out.table(("WORKFLOW", "RUNS", *(status.upper() for status in statuses)), rows, flexible=0)


def _row(name: str, counts: dict[str, int], statuses: Sequence[str]) -> tuple[str, ...]:
    cells = (f"{counts[status]:,}" if counts.get(status) else "" for status in statuses)
    return (name, f"{sum(counts.values()):,}", *cells)


def _readable(size: float) -> str:
    for unit in _UNITS[:-1]:
        if size < 1024:  # noqa: PLR2004 - of the next unit
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} {_UNITS[-1]}"


# --- for programs ---------------------------------------------------------------------------------------


def _json(seen: Seen) -> dict[str, Any]:
    found, now, owner = seen.census, seen.now, seen.owner
    oldest = found.oldest_open
    return {
        "path": seen.path,
        "schema": found.schema,
        **seen.sizes,
        "bytes_free": found.bytes_free,
        "owner": None if owner is None else owner._asdict(),
        "runs": found.statuses,
        "workflows": found.workflows,
        "events": found.events,
        "ended": {"seconds": seen.lately.seconds, **seen.lately.ended._asdict()},
        "waits": found.waits,
        "inbox": found.inbox,
        "batches_open": found.batches_open,
        "schedules": found.schedules,
        "still_running": [function._asdict() for function in seen.functions],
        "queues": [
            {
                "name": queue.name,
                "depth": queue.depth,
                "running": queue.running,
                "oldest_wait_seconds": None if queue.oldest_ready_at is None else max(0.0, now - queue.oldest_ready_at),
                "paused": queue.paused,
            }
            for queue in found.queues
        ],
        "limits": [
            {
                "name": each.name,
                "key": each.key,
                "lets_in": seen.limits.get(each.name),
                "inside": each.inside,
                "waiting": each.waiting,
                "oldest_wait_seconds": None if each.oldest_since is None else max(0.0, now - each.oldest_since),
            }
            for each in found.limits
        ],
        "oldest_open": None
        if oldest is None
        else {
            "run_id": oldest.run_id,
            "workflow": oldest.workflow,
            "status": oldest.status,
            "created_at": iso(oldest.created_at),
        },
    }
