"""
``durable doctor``: what is wrong with a journal, or needs a person. One line a finding, each with what to do.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from durable._cli.journals.files import add_database, database_path, open_readonly, snapshot
from durable._cli.journals.owners import failure_of, owner_of
from durable._cli.terminal.output import Output, ago, iso
from durable._cli.terminal.problems import FINDING, OK
from durable._core.durations import span
from durable._shell.reads.run_rows import HELD_SQL, Filter, list_runs, paused_queues
from durable._shell.reads.schedule_rows import all_schedules, held_up_by, still_open
from durable._shell.requests.sockets import socket_path
from durable._shell.storage import run_counts, run_labels
from durable._shell.storage.copies.backups import check_wal, is_backup
from durable._shell.storage.copies.marks import SCHEMA_VERSION, holds_other_tables
from durable._shell.storage.copies.torn import is_copy_of_open
from durable.errors import JournalAccessError

Severity: TypeAlias = Literal["ok", "note", "warning", "problem"]

_EPILOG = """\
Looks at the file, its surroundings and its runs, without changing anything; exit code 1 if there is a problem.
By default it takes moments also on a large file. With --thorough all pages, all indexes, and the checksums of
all events are verified, which reads the whole file."""
#: Of each kind, how many runs are named.
_NAMED: Final = 3
#: A WAL larger than this has not been checkpointed for long: some reader, or a stopped engine, holds it.
_WAL_BYTES: Final = 64 << 20
#: Seconds that a live engine may take to say how it is.
_ANSWER_SECONDS: Final = 2.0
#: Less than this is soon full.
_FREE_BYTES: Final = 256 << 20
#: A file larger than this is not read as a whole without --thorough.
_LARGE_BYTES: Final = 512 << 20
#: As the engine's cap warns.
_LONG_HISTORY: Final = 10_000
#: Attempts from which on a step that is tried again is a storm.
_MANY_ATTEMPTS: Final = 20
#: Seconds that a timer may be overdue before somebody should ask why.
_OVERDUE: Final = 60.0
#: Runs whose checksums are verified without --thorough: the newest.
_VERIFIED: Final = 50
#: Columns before what was found: the longest severity, and a space.
_INDENT: Final = 9
_COLOURS: Final = {"ok": "32", "note": "2", "warning": "33", "problem": "31"}


class Finding(NamedTuple):
    """What was found, and what to do about it."""

    severity: Severity
    what: str
    remedy: str = ""


class _File(NamedTuple):
    """What the checks look at."""

    conn: sqlite3.Connection
    path: str
    now: float
    thorough: bool


def configure(_command: str, parser: ArgumentParser) -> None:
    """Declare the arguments."""
    add_database(parser)
    parser.add_argument("--thorough", action="store_true", help="verify every page and every event")
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.epilog = _EPILOG


def run(_command: str, args: Namespace, out: Output) -> int:
    """Write the findings, worst last; FINDING if there is a problem."""
    path = database_path(args)
    try:
        check_wal(path)
    except JournalAccessError as error:
        findings = [Finding("problem", error.reason)]
    else:
        with closing(open_readonly(path)) as conn:
            file = _File(conn, path, time.time(), args.thorough)
            findings = [finding for check in _CHECKS for finding in _found(check, file)]
    findings.sort(key=lambda finding: list(_COLOURS).index(finding.severity))
    for finding in findings:
        if out.json:
            out.value(finding._asdict())
        else:
            remedy = f": {finding.remedy}" if finding.remedy else ""
            head = out.colour(f"{finding.severity:<8}", _COLOURS[finding.severity])
            for line in out.wrapped(f"{finding.what}{remedy}", indent=_INDENT):
                out.line(f"{head} {line}")
                head = " " * (_INDENT - 1)
    return FINDING if any(finding.severity == "problem" for finding in findings) else OK


def _found(check: Callable[[_File], Iterator[Finding]], file: _File) -> list[Finding]:
    """What one check finds; in a damaged file it may get nowhere, or meet values that cannot be, and says so."""
    try:
        return list(check(file))
    except (sqlite3.DatabaseError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        what = f"{check.__name__.strip('_')} could not be checked: {error}"
        return [Finding("problem", what, "restore from a backup; `durable export` saves the runs that are good")]


# --- the file ------------------------------------------------------------------------------------------


def _pages(file: _File) -> Iterator[Finding]:
    thorough = file.thorough
    if is_copy_of_open(file.conn, file.path):
        thorough = True
        what = "the file is a copy, made while an engine had the journal open: it may lack what was recorded last"
        yield Finding("warning", what, "`durable backup` makes copies that are whole")
    if not thorough and os.path.getsize(file.path) > _LARGE_BYTES:
        yield Finding("note", "the file is large: its pages were not verified", "durable doctor --thorough")
        return
    check = "integrity_check" if thorough else "quick_check"
    try:
        rows = file.conn.execute("PRAGMA integrity_check(5)" if thorough else "PRAGMA quick_check(5)").fetchall()
    except sqlite3.DatabaseError as error:
        rows = [(str(error),)]
    bad = [str(text) for (text,) in rows if text != "ok"]
    if bad:
        remedy = "restore from a backup; `durable export` saves the runs that are good"
        yield Finding("problem", f"{check} found: {'; '.join(bad)}", remedy)
    else:
        yield Finding("ok", f"{check}: the pages are sound; schema {SCHEMA_VERSION}")


def _seals(file: _File) -> Iterator[Finding]:
    """Rows that do not fit their checksums, beside the events, which `durable check` replays."""
    from durable._shell.storage.seals import TABLES, damaged_rows  # noqa: PLC0415 - more than a list needs

    for name in TABLES:
        bad, last = damaged_rows(file.conn, name)
        while last and file.thorough:
            found, last = damaged_rows(file.conn, name, last)
            bad += found
        if bad:
            what = f"{len(bad)} rows of {name} do not match their checksums, the first at {_key(bad[0])}"
            yield Finding("problem", what, "restore from a backup; an engine that opens the file names whom it stops")


def _counts(file: _File) -> Iterator[Finding]:
    """That as many runs were counted as there are, and their labels noted; all rows are looked at."""
    if not file.thorough and os.path.getsize(file.path) > _LARGE_BYTES:
        return
    remedy = "with no engine open, DELETE FROM durable_meta WHERE name = 'counted': the next one looks anew"
    if not run_counts.are_right(file.conn):
        what = "runs are counted wrong in stats and metrics: something else than durable wrote to durable_runs"
        yield Finding("warning", what, remedy)
    if not run_labels.are_right(file.conn):
        what = "lists by label may lack runs: something else than durable wrote to durable_runs"
        yield Finding("warning", what, remedy)


def _key(key: Sequence[Any]) -> str:
    return ", ".join(part.decode(errors="replace") if isinstance(part, bytes) else str(part) for part in key)


def _surroundings(file: _File) -> Iterator[Finding]:
    from durable._shell.storage.connections import version_notices  # noqa: PLC0415 - more than a list needs
    from durable._shell.storage.location import NETWORK_FILESYSTEMS, filesystem  # noqa: PLC0415 - more than a list needs

    (mode,) = file.conn.execute("PRAGMA journal_mode").fetchone()
    if is_backup(file.conn):
        yield Finding("note", "it is a backup that no engine has opened yet")
    elif mode != "wal":
        yield Finding("problem", f"journal mode is {mode}, expected wal", "an engine sets it when it opens the file")
    permissions = stat.S_IMODE(os.stat(file.path).st_mode)
    if permissions & 0o077:
        yield Finding("warning", f"others may read or write it (mode {permissions:04o})", f"chmod 600 {file.path}")
    wal = f"{file.path}-wal"
    size = os.path.getsize(wal) if os.path.exists(wal) else 0
    if size > _WAL_BYTES:
        what = f"the WAL has {size >> 20} MiB"
        remedy = "a reader that never ends its transaction keeps it from being emptied: end that process, or let it"
        yield Finding("warning", what, f"{remedy} read in short transactions")
    free = shutil.disk_usage(os.path.dirname(os.path.abspath(file.path))).free
    if free < _FREE_BYTES:
        yield Finding("problem", f"{free >> 20} MiB are free on this disk", "make room: a full one stops all work")
    kind = filesystem(os.path.dirname(os.path.realpath(file.path)))
    if NETWORK_FILESYSTEMS.fullmatch(kind):
        yield Finding("problem", f"the file is on a network file system ({kind})", "move it: locks do not hold there")
    if holds_other_tables(file.conn):  # so that others may write to it
        for notice in version_notices(sqlite3.sqlite_version_info):
            yield Finding("warning", notice)


def _ownership(file: _File) -> Iterator[Finding]:
    owner = owner_of(file.path)
    socket_file = socket_path(file.path)
    if owner is None or owner.alive is False:
        gone = "" if owner is None else f"; the last, process {owner.pid}, did not close it"
        yield Finding("note", f"no engine has the file open{gone}")
        if failure := failure_of(file.path):
            yield Finding("problem", f"the last engine failed: {failure}", "mend that, then start the program again")
        if os.path.exists(socket_file):
            yield Finding("note", f"{socket_file} was left behind", "the next engine replaces it")
    else:
        yield Finding("ok", f"owned by process {owner.pid} on {owner.host} since {owner.since}")
        if owner.alive and owner.pid != os.getpid():  # who asks itself waits for itself
            yield _health(file.path)


def _health(path: str) -> Finding:
    """How the engine is that has the file open, as it says itself."""
    import asyncio  # noqa: PLC0415 - takes longer than most of what is looked at

    from durable._shell.client.owner_socket import OwnerSocket  # noqa: PLC0415 - brings asyncio
    from durable.errors import DurableError  # noqa: PLC0415 - with it

    try:
        told = asyncio.run(OwnerSocket(path, _ANSWER_SECONDS).health())
    except DurableError as error:
        remedy = "its event loop is blocked, or it is of another release"
        return Finding("problem", f"the engine does not say how it is: {error}", remedy)
    if told is None:
        return Finding("warning", "the engine does not listen to other processes", "it is being opened or closed")
    status, *reasons = told
    what = f"the engine is {status}{': ' if reasons else ''}{'; '.join(reasons)}"
    if status == "healthy":
        return Finding("ok", what)
    return Finding("warning" if status == "degraded" else "problem", what, "its log says since when")


# --- its runs ------------------------------------------------------------------------------------------


def _stopped(file: _File) -> Iterator[Finding]:
    for status, severity, remedy in (
        ("blocked", "problem", "`durable show RUN` says why; mend it, then `durable resume RUN`"),
        ("failed", "note", "`durable debug RUN` walks through it; mend the cause, then `durable retry RUN`"),
        ("paused", "note", "`durable resume RUN` resumes it"),
    ):
        rows = list_runs(file.conn, Filter(status=(status,)), None, _NAMED + 1)
        if rows:
            named = ", ".join(f"{row.run_id} ({row.workflow}: {(row.reason or '')[:80]})" for row in rows[:_NAMED])
            more = ", and more" if len(rows) > _NAMED else ""
            yield Finding(severity, f"{status}: {named}{more}", remedy)  # type: ignore[arg-type]  # literals, above
    yield from _compensated(file)
    if queues := paused_queues(file.conn):
        yield Finding("note", f"paused queues: {', '.join(queues)}", "`durable resume queue:NAME`")


def _compensated(file: _File) -> Iterator[Finding]:
    """Failed runs that a retry would make do something twice."""
    from durable._core.journal.history import ran_since  # noqa: PLC0415 - brings attrs
    from durable._shell.reads.event_rows import event_rows, readable_events  # noqa: PLC0415 - brings attrs

    for row in list_runs(file.conn, Filter(status=("failed",)), None, _NAMED):
        events, damage = readable_events(event_rows(file.conn, row.run), file.path, row)
        ran = ran_since(events) if damage is None else []
        if ran:
            what = f"steps of run {row.run_id} ran because of its failure, the first at {ran[0].position}"
            remedy = "a retry is refused: `durable fork RUN --at POSITION`, or start a new run"
            yield Finding("note", what, remedy)


def _hooks(file: _File) -> Iterator[Finding]:
    rows = file.conn.execute(
        "SELECT r.run_id, h.hook, h.error FROM durable_hook_errors AS h JOIN durable_runs AS r USING (run) "
        "ORDER BY h.entry DESC LIMIT ?",
        (_NAMED + 1,),
    ).fetchall()
    if rows:
        named = ", ".join(f"{hook} of {run_id} ({error[:80]})" for run_id, hook, error in rows[:_NAMED])
        more = ", and more" if len(rows) > _NAMED else ""
        yield Finding("warning", f"hooks that went wrong: {named}{more}", "mend them, then `durable retry-hooks RUN`")


def _waiting(file: _File) -> Iterator[Finding]:
    owner = owner_of(file.path)
    owned = owner is not None and owner.alive is not False
    row = file.conn.execute(
        "SELECT r.run_id, w.position, w.fire_at FROM durable_waits AS w JOIN durable_runs AS r ON r.run = w.run "  # noqa: S608
        f"WHERE w.fire_at < ? AND r.status NOT IN {HELD_SQL} ORDER BY w.fire_at LIMIT 1",
        (file.now - _OVERDUE,),
    ).fetchone()
    if row is not None:
        what = f"a timer of run {row[0]} at {row[1] or 'the run'} has been due for {ago(row[2], file.now)}"
        remedy = "is its engine's event loop blocked?" if owned else "start an engine: it fires at once"
        yield Finding("problem" if owned else "warning", what, remedy)
    oldest = file.conn.execute(
        "SELECT run_id, ready_at FROM durable_runs WHERE ready_at IS NOT NULL AND status = 'pending' "
        "ORDER BY ready_at LIMIT 1"
    ).fetchone()
    if oldest is not None and file.now - oldest[1] > _OVERDUE:
        remedy = "more concurrency, or `durable stats` for what fills the queue" if owned else "start an engine"
        yield Finding("warning", f"run {oldest[0]} has waited for a slot for {ago(oldest[1], file.now)}", remedy)


def _schedules(file: _File) -> Iterator[Finding]:
    from durable._core.authoring.schedules import AHEAD  # noqa: PLC0415 - brings attrs

    for row in all_schedules(file.conn):
        if row.paused_at is not None and row.last_error is not None:
            remedy = f"mend what it starts, then `durable resume schedule:{row.name}`"
            yield Finding("problem", f"schedule {row.name!r} starts nothing: {row.last_error}", remedy)
        if row.next_at is None:
            continue  # paused, or none of the program's any more
        if held_up := held_up_by(file.conn, still_open(file.conn, row.open_runs).values()):
            yield Finding("problem", f"schedule {row.name!r} is held up: {held_up}", "`durable resume RUN`, or cancel")
        elif row.last_error is not None:
            what = f"the latest tick of schedule {row.name!r} started no run: {row.last_error}"
            yield Finding("warning", what, "`durable schedules` counts them")
        if row.upto > file.now + AHEAD:
            what = f"schedule {row.name!r} stands still until {iso(row.upto)}: a clock was ahead once"
            yield Finding(
                "problem", what, f"open the engine anew, or `durable pause schedule:{row.name}`, then resume it"
            )


def _storms(file: _File) -> Iterator[Finding]:
    rows = file.conn.execute(
        "SELECT r.run_id, w.position, max(json_extract(e.body, '$[0]')) AS attempt FROM durable_waits AS w "
        "JOIN durable_runs AS r ON r.run = w.run "
        "JOIN durable_events AS e ON e.run = w.run AND e.position = w.position AND e.kind = 12 "
        "WHERE w.kind = 'retry' GROUP BY w.run, w.position HAVING attempt >= ? ORDER BY attempt DESC LIMIT ?",
        (_MANY_ATTEMPTS, _NAMED),
    ).fetchall()
    for run_id, position, attempt in rows:
        what = f"the step at {position} of run {run_id} has failed {attempt} times and is tried again"
        yield Finding("warning", what, "see its errors: `durable history RUN --kind StepRetrying`")


def _histories(file: _File) -> Iterator[Finding]:
    for run_id, count in file.conn.execute(
        "SELECT run_id, (SELECT max(seq) FROM durable_events AS e WHERE e.run = r.run) AS events "
        "FROM durable_runs AS r WHERE ended_at IS NULL AND events >= ? ORDER BY events DESC LIMIT ?",
        (_LONG_HISTORY, _NAMED),
    ):
        yield Finding("warning", f"run {run_id} has {count:,} events", "let endless loops `continue_as`")
    known = {kind for (kind,) in file.conn.execute("SELECT kind FROM durable_kinds")}
    from durable._core.journal.events import KIND_NAMES  # noqa: PLC0415 - brings attrs

    if strange := sorted(known - set(KIND_NAMES)):
        yield Finding("problem", f"events of kinds {strange} are written by a newer release", "upgrade durable")


def _checksums(file: _File) -> Iterator[Finding]:
    from durable._shell.reads.event_rows import event_rows, readable_events  # noqa: PLC0415 - brings attrs

    verified, before, events = 0, None, 0
    while page := list_runs(file.conn, Filter(), before, 200 if file.thorough else _VERIFIED):
        for row in page:
            with snapshot(file.conn):
                rows = event_rows(file.conn, row.run)
            _, problem = readable_events(rows, file.path, row)
            events += len(rows)
            if problem is not None:
                yield Finding("problem", str(problem), "its run is blocked when it is driven; restore it from a backup")
        verified += len(page)
        before = page[-1].run
        if not file.thorough:
            break
    yield Finding("ok", f"checksums of {events:,} events in the {'' if file.thorough else 'newest '}{verified:,} runs")


def _dangling(file: _File) -> Iterator[Finding]:
    for what, rows in (
        (
            "waits of runs that are gone",
            file.conn.execute(
                "SELECT count(*) FROM durable_waits AS w WHERE NOT EXISTS "
                "(SELECT 1 FROM durable_runs AS r WHERE r.run = w.run)"
            ),
        ),
        (
            "waits of runs that have ended",
            file.conn.execute(
                "SELECT count(*) FROM durable_waits AS w JOIN durable_runs AS r ON r.run = w.run "
                "WHERE r.ended_at IS NOT NULL"
            ),
        ),
    ):
        (count,) = rows.fetchone()
        if count:
            yield Finding("problem", f"{count:,} {what}", "this should not be: please report it")
    waits = file.conn.execute(
        "SELECT run_id, created_at FROM durable_runs WHERE ended_at IS NULL ORDER BY run LIMIT 1"
    ).fetchone()
    if waits is not None:
        yield Finding("note", f"the oldest open run is {waits[0]}, created {span(max(0.0, file.now - waits[1]))} ago")


_CHECKS: Final[tuple[Callable[[_File], Iterator[Finding]], ...]] = (
    _pages, _surroundings, _ownership, _stopped, _hooks, _waiting, _schedules, _storms, _histories, _checksums, _seals,
    _counts, _dangling,
)  # fmt: skip
