"""
``durable schedules``: when they tick next, and what became of their ticks; and what is asked of one.
"""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final

from durable._cli.journals.files import add_database, database_path, open_readonly, snapshot
from durable._cli.journals.filters import moment
from durable._cli.journals.owners import say_unowned
from durable._cli.terminal.output import Output, ago, instant, iso, printable
from durable._cli.terminal.problems import OK, CommandError
from durable._core.durations import span
from durable._shell.reads.schedule_rows import all_schedules, schedule_by_name
from durable._shell.rows.schedule_row import ScheduleRow
from durable.errors import ScheduleNotFoundError

_EPILOG: Final = """\
Times of --backfill are ISO dates, or spans before now, as of `durable list --since`. Schedules are made in the program,
or by `engine.schedules.create` and `Client`; `durable pause schedule:NAME` and `resume` let one stand still.

examples:
  durable schedules
  durable schedules nightly
  durable schedules nightly --backfill 2026-01-01 2026-01-31
  durable schedules tenant-7 --delete"""


def configure(_command: str, parser: ArgumentParser) -> None:
    """Which schedules."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="one schedule, with all that is known of it")
    parser.add_argument(
        "--backfill", nargs=2, type=moment, metavar=("SINCE", "UNTIL"),
        help="start the runs of the ticks of this time that have none",
    )  # fmt: skip
    parser.add_argument("--delete", action="store_true", help="forget it (one that was made at run time)")
    add_database(parser)
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.epilog = _EPILOG


def run(_command: str, args: Namespace, out: Output) -> int:
    """
    Write them.

    Raises:
        ScheduleNotFoundError: There is none of that name.
    """
    now = time.time()
    if args.delete or args.backfill:
        return _ask(args, out, now)
    with closing(open_readonly(database_path(args))) as conn, snapshot(conn):
        found = all_schedules(conn) if args.name is None else [schedule_by_name(conn, args.name)]
    rows = [row for row in found if row is not None]
    if args.name is not None and not rows:
        raise ScheduleNotFoundError(args.name, "this journal")
    if out.json:
        for row in rows:
            out.value(_json(row))
    elif args.name is not None:
        _write(rows[0], out, now)
    elif rows:
        _table(rows, out, now)
    else:
        out.line("no schedules")
    return OK


def _ask(args: Namespace, out: Output, now: float) -> int:
    """Make the request."""
    if args.name is None or (args.delete and args.backfill):
        msg = "name one schedule, and one of --backfill and --delete"
        raise CommandError(msg)
    import asyncio  # noqa: PLC0415 - help answers sooner without

    path = database_path(args)
    request = "delete" if args.delete else "backfill"
    runs = asyncio.run(_asked(path, args, now))
    if out.json:
        out.value({"request": request, "schedule": args.name, "runs": runs})
    elif args.delete:
        out.line(f"schedule {args.name!r}: deleted")
    else:
        out.line(f"schedule {args.name!r}: {len(runs):,} ticks have their runs" + (":" if runs else ""))
        for run_id in runs:
            out.line(f"  {printable(run_id)}")
    out.flush()
    say_unowned(path, "what was recorded takes effect once one has")
    return OK


async def _asked(path: str, args: Namespace, now: float) -> list[str]:
    from durable._shell.client.client_backend import ClientBackend  # noqa: PLC0415 - as in `_ask`
    from durable._shell.requests.schedule_requests import BackfillSchedule, DeleteSchedule  # noqa: PLC0415 - as above

    async with ClientBackend(path) as client:
        if args.delete:
            await client.request(DeleteSchedule(args.name))
            return []
        since, until = (each.before(now) for each in args.backfill)
        return await client.request(BackfillSchedule(args.name, since, until))


def _table(rows: list[ScheduleRow], out: Output, now: float) -> None:
    heads = ("SCHEDULE", "TICKS", "NEXT", "LAST", "LAST RUN", "SKIPPED", "FAILED", "LAST ERROR")
    cells = [
        (
            row.name,
            _ticks(row),
            _next(row, now),
            "" if row.last_at is None else f"{ago(row.last_at, now)} ago",
            row.last_run or "",
            f"{row.skipped:,}" if row.skipped else "",
            f"{row.failed:,}" if row.failed else "",
            (row.last_error or "").partition("\n")[0],
        )
        for row in rows
    ]
    if any(row.last_error or row.failed for row in rows):
        out.table(heads, cells)
    else:
        out.table(heads[:-2], [cell[:-2] for cell in cells], flexible=4)


def _write(row: ScheduleRow, out: Output, now: float) -> None:
    out.line(out.bold(printable(row.name)))
    for name, text in _facts(row, now):
        out.line(f"  {out.dim(f'{name:<14}')}{printable(text)}")


def _facts(row: ScheduleRow, now: float) -> Iterator[tuple[str, str]]:
    yield "ticks", f"{row.spec}, {row.timezone}"
    if row.starts is not None:
        yield "made", f"at run time; overlap {row.overlap}, missed {row.missed}"
    yield "next", f"{instant(row.next_at)} ({_next(row, now)})" if row.next_at is not None else _next(row, now)
    if row.paused_at is not None:
        yield "paused", _when(row.paused_at, now)
    yield "last tick", "none yet" if row.last_at is None else _when(row.last_at, now)
    yield "last run", row.last_run or "none yet"
    latest = "" if row.last_skipped_at is None else f", the latest {_when(row.last_skipped_at, now)}"
    yield "skipped", f"{row.skipped:,}{latest}"
    yield "failed", f"{row.failed:,}"
    yield "last error", row.last_error or "none"
    for run_id, at in row.triggers:
        yield "asked for", f"{run_id}, {_when(at, now)}: the next engine starts it"


def _when(at: float, now: float) -> str:
    return f"{instant(at)} ({ago(at, now)} ago)"


def _ticks(row: ScheduleRow) -> str:
    return row.spec if row.timezone == "UTC" else f"{row.spec}, {row.timezone}"


def _next(row: ScheduleRow, now: float) -> str:
    if row.paused_at is not None:
        return "paused"
    if row.next_at is None:
        return "none: no engine has it"
    return f"in {span(row.next_at - now)}" if row.next_at > now else f"due for {ago(row.next_at, now)}"


def _json(row: ScheduleRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "spec": row.spec,
        "timezone": row.timezone,
        "next_at": iso(row.next_at),
        "last_at": iso(row.last_at),
        "last_run": row.last_run,
        "open_runs": list(row.open_runs),
        "paused_at": iso(row.paused_at),
        "skipped": row.skipped,
        "last_skipped_at": iso(row.last_skipped_at),
        "stored": row.starts is not None,
        "overlap": row.overlap,
        "missed": row.missed,
        "failed": row.failed,
        "last_error": row.last_error,
        "triggers": [{"run_id": run_id, "at": iso(at)} for run_id, at in row.triggers],
    }
