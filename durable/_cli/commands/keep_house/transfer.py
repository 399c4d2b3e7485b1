"""
``durable export``, ``import``, ``backup``, ``prune``, ``scrub``: runs and files that come and go.

Exports and backups only read, beside a running engine. Imports, prunes and scrubs go to the process that owns the file,
through `Client`.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Final

from durable._cli.journals.files import APPLICATION_VARIABLE, add_database, database_path, open_readonly
from durable._cli.journals.filters import FILTERS_HELP, Moment, add_filters, filter_from, filtered, moment
from durable._cli.journals.finding import RUN_HELP, find_run
from durable._cli.terminal.arguments import add_cluster
from durable._cli.terminal.asking import add_yes, confirm
from durable._cli.terminal.output import Output, iso, json_printable
from durable._cli.terminal.problems import NOT_FOUND, OK, USAGE, CommandError
from durable._core.release import RELEASE
from durable._core.statuses import ENDS
from durable._shell.reads.run_rows import list_runs

if TYPE_CHECKING:
    from durable._core.codec.codec import Codec
    from durable._core.recorded.export_format import RunHistory
    from durable._core.recorded.redaction import Redact

#: Runs looked for at once.
_PAGE: Final = 1_000
_STDIN: Final = "-"
#: Seconds that an owner gets to write what is imported: as long as a client may wait.
_IMPORT_SECONDS: Final = 600.0

_EXPORT_HELP: Final = f"""\
The file is text: JSON, one event a line, with its values; `durable import`, `replay`, `debug` and
`check` read it, and so do people. A redaction hook is a function (where: durable.Redacted) -> value.

{FILTERS_HELP}

examples:
  durable export 019a3b --tree --output failed.jsonl
  durable export --status failed --since 1d --redact app.privacy:redact > failed.jsonl"""
_IMPORT_HELP: Final = """\
Runs keep their ids. Those that had not ended arrive paused, since elsewhere they may be going on:
`durable resume` resumes them here. All runs are imported, or none.

examples:
  durable import failed.jsonl --db desk.db --create
  durable import tests/histories/*.jsonl --dry-run"""
_BACKUP_HELP: Final = """\
The copy is taken while the journal is in use, verified, and complete in one file.

example:
  durable backup /backups/rides-monday.db --db rides.db"""
_PRUNE_HELP: Final = """\
Whole trees go: a run stays as long as one that it started does, or one that waits for it. Of a run with a key
a small row stays, so that what was done once is not done again; --free-keys deletes that, too.

examples:
  durable prune --older-than 30d --dry-run
  durable prune --older-than 2026-01-31 --yes"""


_SCRUB_HELP: Final = """\
What was deleted stays in free pages of the file, and in its WAL, until it is written over. This writes the file anew
and empties the WAL; nothing is recorded meanwhile. Copies, backups and what the disk itself keeps are beyond it.

examples:
  durable scrub --db rides.db
  durable prune --older-than 30d --secure --yes"""


def configure(command: str, parser: ArgumentParser) -> None:
    """The arguments of each of them."""
    if command == "export":
        parser.add_argument("runs", nargs="*", metavar="RUN", help=RUN_HELP)
        parser.add_argument("--all", action="store_true", help="every run of the journal")
        parser.add_argument("--tree", action="store_true", help="also what they have started, and continued as")
        parser.add_argument("--output", "-o", metavar="FILE", help="a new file (default: standard output)")
        parser.add_argument("--redact", metavar="MODULE:NAME", help="a function that each value passes through")
        parser.add_argument(
            "--app",
            metavar="MODULE[:NAME]",
            default=os.environ.get(APPLICATION_VARIABLE),
            help="the application, where its codec must read values for --redact",
        )
        add_filters(parser)
        add_cluster(parser)
        parser.epilog = _EXPORT_HELP
    elif command == "import":
        parser.add_argument("files", nargs="+", metavar="FILE", help="an exported file; - is standard input")
        parser.add_argument("--create", action="store_true", help="make the journal, if there is none")
        parser.add_argument("--dry-run", action="store_true", help="check, and say what would be imported")
        add_cluster(parser)
        parser.add_argument(
            "--app",
            metavar="MODULE[:NAME]",
            default=os.environ.get(APPLICATION_VARIABLE),
            help="the application, whose definitions are those of the runs, for --temporal",
        )
        parser.epilog = _IMPORT_HELP
    elif command == "backup":
        parser.add_argument("target", metavar="TARGET", help="the copy; an existing file is refused")
        parser.epilog = _BACKUP_HELP
    elif command == "scrub":
        parser.epilog = _SCRUB_HELP
    else:
        parser.add_argument(
            "--older-than",
            type=moment,
            required=True,
            metavar="TIME",
            help="ended before this: a span (30d) or an ISO date",
        )
        parser.add_argument("--free-keys", action="store_true", help="let the keys of these runs be used again")
        parser.add_argument("--secure", action="store_true", help="leave no trace, nor keys: see `durable scrub`")
        parser.add_argument("--dry-run", action="store_true", help="say how many runs would go")
        add_yes(parser)
        parser.epilog = _PRUNE_HELP
    add_database(parser)


def run(command: str, args: Namespace, out: Output) -> int:
    """Carry out one of them."""
    return _COMMANDS[command](args, out)


# --- export ----------------------------------------------------------------------------------------


def _export(args: Namespace, out: Output) -> int:
    from durable._shell.reports.exporting import export_runs, write_file  # noqa: PLC0415 - the others need none of it

    if args.temporal is not None:
        return _export_from_cluster(args, out)
    path, now = database_path(args), time.time()
    redact, codec = _redaction(args)
    with closing(open_readonly(path)) as conn:
        conn.execute("BEGIN")
        run_ids = _chosen(conn, args, now)
        lines = export_runs(conn, path, run_ids, now=now, release=RELEASE, tree=args.tree, redact=redact, codec=codec)
        if args.output is None:
            for line in lines:
                sys.stdout.buffer.write(f"{json_printable(line)}\n".encode())
            sys.stdout.buffer.flush()
            return OK
        if os.path.lexists(args.output):
            raise CommandError(_exists(args.output))
        count, lines = _counted(lines)
        write_file(args.output, lines)
        if out.json:
            out.value({"path": args.output, "runs": count()})
        else:
            out.line(f"{_runs(count())} exported to {args.output}")
    return OK


def _export_from_cluster(args: Namespace, out: Output) -> int:
    """What the workers of a cluster tell of runs there."""
    from durable._cli.clusters import histories_on_cluster  # noqa: PLC0415 - it loads asyncio
    from durable._core.recorded.export_format import Header, export_lines, header_line  # noqa: PLC0415 - as above
    from durable._shell.reports.exporting import write_file  # noqa: PLC0415 - as above
    from durable._shell.storage.copies.marks import SCHEMA_VERSION  # noqa: PLC0415 - as above

    if args.redact is not None or args.tree or filtered(args):
        msg = "runs of a cluster are named, or all open ones: without --redact, --tree and filters"
        raise CommandError(msg, USAGE)
    histories = histories_on_cluster(args, args.runs, whole=args.all)
    lines = [header_line(Header(RELEASE, SCHEMA_VERSION, iso(time.time()) or "", runs=len(histories)))]
    for each in histories:
        lines += export_lines(each)
    if args.output is None:
        for line in lines:
            out.line(json_printable(line))
        return OK
    if os.path.lexists(args.output):
        raise CommandError(_exists(args.output))
    write_file(args.output, iter(lines))
    if out.json:
        out.value({"path": args.output, "runs": len(histories)})
    else:
        out.line(f"{_runs(len(histories))} exported to {args.output}")
    return OK


def _chosen(conn: sqlite3.Connection, args: Namespace, now: float) -> list[str]:
    """Ids of the runs that were asked for."""
    if args.runs and (args.all or filtered(args)):
        msg = "name runs, or choose them by filters: not both"
        raise CommandError(msg)
    if args.runs:
        return [find_run(conn, text).run_id for text in args.runs]
    if not args.all and not filtered(args):
        msg = "which runs? Name them, or choose by filters as --status failed; --all takes every run"
        raise CommandError(msg)
    wanted = filter_from(args, now, conn)
    found: list[str] = []
    before: int | None = None
    while page := list_runs(conn, wanted, before, _PAGE):
        found += [row.run_id for row in page]
        before = page[-1].run
    return found


def _counted(lines: Iterator[str]) -> tuple[Callable[[], int], Iterator[str]]:
    """*lines*, and how many runs have passed in them."""
    count = 0

    def passing() -> Iterator[str]:
        nonlocal count
        for line in lines:
            count += line.startswith('{"run":')
            yield line

    return lambda: count, passing()


def _redaction(args: Namespace) -> tuple[Redact | None, Codec | None]:
    """The hook that was asked for, and what reads values for it. The application is loaded for that alone."""
    if args.redact is None:
        return None, None
    from durable._cli.applications import application_of, load_object  # noqa: PLC0415 - it loads asyncio

    redact = load_object(args.redact)
    if not callable(redact):
        msg = f"{args.redact!r} is not a function, but {type(redact).__name__}"
        raise CommandError(msg)
    return redact, application_of(args).codec if args.app else None


# --- import ----------------------------------------------------------------------------------------


def _import(args: Namespace, out: Output) -> int:
    if args.temporal is not None:
        return _import_to_cluster(args, _read(args.files), out)
    path = _journal(args)
    histories = _read(args.files)
    open_ones = {each.run.run_id for each in histories if each.run.status not in ENDS}
    if args.dry_run:
        new, present = _would_write(path, histories)
    else:
        new, present = _write(path, histories)
    if out.json:
        out.value({"imported": new, "present": present, "dry_run": args.dry_run})
        return OK
    would = "would be " if args.dry_run else ""
    out.line(f"{_runs(len(new))} {would}imported" + (f", {len(present)} already here" if present else ""))
    if paused := open_ones.intersection(new):
        out.line(f"{_runs(len(paused))} had not ended: paused here, until `durable resume` resumes them")
    return OK


def _import_to_cluster(args: Namespace, histories: Sequence[RunHistory], out: Output) -> int:
    from durable._cli.clusters import import_to_cluster  # noqa: PLC0415 - it loads asyncio

    if args.dry_run or args.create:
        msg = "--dry-run and --create are about files, not about a cluster"
        raise CommandError(msg, USAGE)
    new, present = import_to_cluster(args, histories)
    if out.json:
        out.value({"imported": new, "present": present, "dry_run": False})
        return OK
    out.line(f"{_runs(len(new))} imported" + (f", {len(present)} already there" if present else ""))
    if new:
        out.line("paused there, until `await engine.get(id).resume()`")
    return OK


def _journal(args: Namespace) -> str:
    """The journal to import into. Unlike others, it may be made."""
    if args.create and args.db and not os.path.exists(args.db):
        return str(args.db)
    try:
        return database_path(args)
    except CommandError as error:
        if error.code == NOT_FOUND:
            msg = f"{error}; --create makes it"
            raise CommandError(msg, NOT_FOUND) from None
        raise


def _read(files: Sequence[str]) -> list[RunHistory]:
    """All runs of all files; nothing is written before the last line of the last one was read."""
    from durable._core.recorded.export_reader import read_export  # noqa: PLC0415 - the others need none of it
    from durable._shell.reports.exporting import lines_in, read_histories  # noqa: PLC0415 - as above

    found: list[RunHistory] = []
    for file in files:
        if file == _STDIN:
            found += read_export(lines_in(sys.stdin.buffer), "standard input")
        elif not os.path.exists(file):
            msg = f"there is no file {file}"
            raise CommandError(msg, NOT_FOUND)
        else:
            found += read_histories(file)
    return found


def _would_write(path: str, histories: Sequence[RunHistory]) -> tuple[list[str], list[str]]:
    """As `_write`, but only looks."""
    from durable._shell.importing.importing import each_once, find_present  # noqa: PLC0415 - the others need none of it

    present: set[str] = set()
    if os.path.exists(path):
        with closing(open_readonly(path)) as conn:
            present = find_present(conn, path, histories)
    new = [each.run.run_id for each in each_once(histories) if each.run.run_id not in present]
    return new, sorted(present)


def _write(path: str, histories: Sequence[RunHistory]) -> tuple[list[str], list[str]]:
    """Import them: ids of those that are new, and of those that were here."""
    import asyncio  # noqa: PLC0415 - what only reads answers sooner without

    return asyncio.run(import_into(path, histories))


async def import_into(path: str, histories: Sequence[RunHistory]) -> tuple[list[str], list[str]]:
    """Import runs into a journal, which is made if need be: ids of those that are new, and of those that were here."""
    from durable._shell.client.client import Client  # noqa: PLC0415 - what only reads answers sooner without
    from durable._shell.ownership.opening import owned_briefly  # noqa: PLC0415 - as above

    if not os.path.exists(path):  # noqa: ASYNC240 - one stat
        async with owned_briefly(path, durability="full", now=time.time):
            pass
    async with Client(path, timeout=_IMPORT_SECONDS) as client:
        found = await client.import_runs(histories)
    return found.runs, found.present


# --- backup ----------------------------------------------------------------------------------------


def _backup(args: Namespace, out: Output) -> int:
    from durable._shell.storage.copies.backups import back_up  # noqa: PLC0415 - the others need none of it

    path, target = database_path(args), os.path.realpath(args.target)
    if os.path.lexists(target):
        raise CommandError(_exists(args.target))
    with closing(open_readonly(path)) as conn:
        back_up(conn, os.path.realpath(path), target, overwrite=False)
    size = os.stat(target).st_size
    if out.json:
        out.value({"path": target, "bytes": size})
    else:
        out.line(f"copied to {args.target} and verified: {size:,} bytes")
    return OK


def _exists(target: str) -> str:
    return f"{target} exists already: it is not overwritten. Choose another name"


# --- prune -----------------------------------------------------------------------------------------


def _prune(args: Namespace, out: Output) -> int:
    from durable._shell.requests.prune_requests import count_prunable  # noqa: PLC0415 - the others need none of it

    path, now = database_path(args), time.time()
    older_than: Moment = args.older_than
    before = older_than.before(now)
    with closing(open_readonly(path)) as conn:
        count = count_prunable(conn, before)
    if args.dry_run or not count:
        _tell_pruned(out, count, before, "would be deleted" if count else "ended", dry_run=args.dry_run)
        return OK
    if not confirm(f"Delete {_runs(count)} that ended before {iso(before)} from {path}?", args):
        out.line("nothing was deleted")
        return OK
    _tell_pruned(out, _delete(path, before, args), before, "deleted", dry_run=False)
    return OK


def _tell_pruned(out: Output, count: int, before: float, what: str, *, dry_run: bool) -> None:
    if out.json:
        out.value({"runs": count, "before": iso(before), "dry_run": dry_run})
    elif what == "ended":
        out.line(f"no runs to delete that ended before {iso(before)}")
    else:
        out.line(f"{_runs(count)} that ended before {iso(before)} {what}")


def _delete(path: str, before: float, args: Namespace) -> int:
    import asyncio  # noqa: PLC0415 - what only reads answers sooner without

    from durable._shell.client.client import Client  # noqa: PLC0415 - as above

    async def delete() -> int:
        async with Client(path) as client:
            keep_keys = False if args.free_keys else None
            return await client.prune(older_than=time.time() - before, keep_keys=keep_keys, secure=args.secure)

    return asyncio.run(delete())


# --- scrub -----------------------------------------------------------------------------------------


def _scrub(args: Namespace, out: Output) -> int:
    import asyncio  # noqa: PLC0415 - what only reads answers sooner without

    from durable._shell.client.client import Client  # noqa: PLC0415 - as above

    path = database_path(args)
    before = os.stat(path).st_size

    async def scrub() -> None:
        async with Client(path, timeout=_IMPORT_SECONDS) as client:
            await client.scrub()

    asyncio.run(scrub())
    after = os.stat(path).st_size
    if out.json:
        out.value({"bytes": after, "bytes_before": before})
    else:
        out.line(f"written anew: {after:,} bytes, {before:,} before")
    return OK


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count:,} runs"


_COMMANDS: Final[dict[str, Callable[[Namespace, Output], int]]] = {
    "export": _export,
    "import": _import,
    "backup": _backup,
    "prune": _prune,
    "scrub": _scrub,
}
