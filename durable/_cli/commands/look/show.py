"""
``durable show``: one run on a page.

Everything is read in one short transaction, and decoded after it. What the file cannot tell, since
an event is damaged, is named; the rest is shown all the same.
"""

from __future__ import annotations

import sqlite3
import time
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any, Final, NamedTuple

from durable._cli.commands.look.list import as_json
from durable._cli.drawing.table import commands_in
from durable._cli.journals.callback_lines import callbacks_in
from durable._cli.journals.families import Family, family_json, family_lines, family_of
from durable._cli.journals.files import add_database, database_path, open_readonly, snapshot
from durable._cli.journals.finding import RUN_HELP, find_run
from durable._cli.journals.step_lines import StepLine, attempts_of_run, steps_in
from durable._cli.terminal.output import Output, ago, instant, iso, printable
from durable._cli.terminal.problems import FINDING, OK
from durable._cli.terminal.values import call_lines, failure_lines, plain, shortened, value_in_short, value_lines
from durable._core.durations import span
from durable._core.journal.events import (
    ChildFailed,
    Event,
    RunCancelled,
    RunFailed,
    RunForked,
    RunStarted,
    RunSucceeded,
    SignalReceived,
    StepFailed,
)
from durable._core.journal.history import only, ran_since
from durable._core.recorded.memos import RecordedMemo, Used, used_by
from durable._core.statuses import HELD, OPEN
from durable._shell.ownership.outlived import in_words, still_running
from durable._shell.reads.event_rows import event_rows, memos_of, readable_events
from durable._shell.reads.run_rows import RunRow, SlotRow, followers_of, pending_signals, slots_awaited
from durable._shell.reads.stream_rows import streams_of
from durable._shell.reads.waits import WaitInfo, waits_of
from durable._shell.reads.why import why

#: Steps and followers that are shown unless all were asked for: the latest, since that is where a run stands.
_STEPS: Final = 30
_FOLLOWERS: Final = 10
#: Memos that are read, and so counted; and those that are shown.
_MEMOS: Final = 500
_MEMOS_SHOWN: Final = 30
#: Columns below which what commands came to cannot be read beside them; and characters of it that are shown.
_READABLE: Final = 30
_SHORT: Final = 80
#: So many waits are listed; a single one is in the sentence.
_SEVERAL: Final = 2
#: Commands whose failure ended a run, that are shown with their tracebacks.
_CAUSES: Final = 5


def configure(_command: str, parser: ArgumentParser) -> None:
    """Which run, and how much of it."""
    parser.add_argument("run", metavar="RUN", help=RUN_HELP)
    add_database(parser)
    parser.add_argument("--full", action="store_true", help="all of it: long values, every step and child")
    parser.epilog = (
        "examples:\n  durable show 019ac3f2b1e\n  durable show key:ride-42 --full\n  durable show p~.0.1 --json"
    )


class Page(NamedTuple):
    """A run, as it stood at one moment."""

    row: RunRow
    why: str
    events: list[Event]
    #: Names of signals -> how many the run has yet to take in.
    pending: dict[str, int]
    family: Family
    #: What it waits for.
    waits: list[WaitInfo]
    #: Slots of limits that it waits for.
    slots: list[SlotRow]
    followers: list[RunRow]
    #: What its steps have recorded by `memo`: each call of a model or tool. The newest, unless all was asked for.
    memos: list[RecordedMemo]
    #: What it has emitted: names of streams -> how many items.
    streams: dict[str, int]
    #: Why not all of its history can be read, if so.
    problem: str | None

    @property
    def started(self) -> RunStarted | None:
        """Its first event, if that can be read."""
        first = self.events[0] if self.events else None
        return first if isinstance(first, RunStarted) else None

    @property
    def end(self) -> Event | None:
        """Its last event, if that can be read."""
        return self.events[-1] if self.events and self.problem is None else None

    @property
    def seconds(self) -> float | None:
        """From its first moment of work to its end."""
        return (
            None
            if self.row.started_at is None or self.row.ended_at is None
            else self.row.ended_at - self.row.started_at
        )


def run(_command: str, args: Namespace, out: Output) -> int:
    """Write the page."""
    now = time.time()
    path = database_path(args)
    with closing(open_readonly(path)) as conn:
        page = page_of(conn, path, args.run, now, full=args.full)
    if out.json:
        out.value(_json(page))
    else:
        _write(page, out, now, full=args.full)
    return OK if page.problem is None else FINDING


def page_of(conn: sqlite3.Connection, path: str, text: str, now: float, *, full: bool = False) -> Page:
    """
    All about the run that *text* means.

    Raises:
        CommandError: There is none, or more than one.
    """
    with snapshot(conn):
        row = find_run(conn, text)
        said = why(conn, row, now) + in_words(still_running(path), row.run_id)
        rows = event_rows(conn, row.run)
        pending = pending_signals(conn, row.run)
        family = family_of(conn, row.run, full=full)
        waits = waits_of(conn, row)
        slots = slots_awaited(conn, row.run)
        followers = followers_of(conn, row.run, -1 if full else _FOLLOWERS + 1)
        memos = memos_of(conn, row.run, -1 if full else _MEMOS)
        streams = {name: items for name, items, _ in streams_of(conn, row.run_id)}
    events, problem = readable_events(rows, path, row)
    return Page(
        row,
        said,
        events,
        pending,
        family,
        waits,
        slots,
        followers,
        memos,
        streams,
        None if problem is None else str(problem),
    )


# --- for people -----------------------------------------------------------------------------------------


def _write(page: Page, out: Output, now: float, *, full: bool) -> None:
    row = page.row
    out.line(f"{out.bold(printable(row.workflow))}  {out.status(row.status)}")
    for name, text in _facts(page, now):
        out.line(f"  {out.dim(f'{name:<11}')}{printable(text)}")
    out.line()
    _lines(page.why.splitlines(), out, indent="")
    if page.problem is not None:
        out.line(out.colour(f"damaged: {printable(page.problem)}", "31"))
    if page.started is not None:
        _section("input", call_lines(row.workflow, page.started.value, full=full), out)
    if isinstance(page.end, RunSucceeded):
        _section("result", value_lines(page.end.value, full=full), out)
    elif isinstance(page.end, RunFailed):
        _section("error", _error(page.end, page.events, full=full), out)
        _section("ran since the failure", _ran_since(page.events), out)
    elif isinstance(page.end, RunCancelled) and page.end.value is not None:
        _section("its clean-up failed", failure_lines(page.end.value, full=full), out)
    if row.attributes is not None:
        _section("attributes", value_lines(row.attributes, full=full), out)
    _steps(page, out, now, full=full)
    _memos(page, out, full=full)
    _section("waits for", _waits(page, now), out)
    _section("signals", _signals(page), out)
    _section("callbacks", [each.in_words(now) for each in callbacks_in(row, page.events)], out)
    tree = list(family_lines(row.run_id, page.family, out))
    if tree:
        out.line()
        out.line(out.bold("children"))
        for line in tree:
            out.line(f"  {line}")
    _section("started by its end", _followers(page, full=full), out)
    _section("hooks that went wrong", _hook_errors(page.row), out)


def _facts(page: Page, now: float) -> Iterator[tuple[str, str]]:
    row = page.row
    yield "run", row.run_id
    attempt = attempts_of_run(page.events)
    yield row.kind, f"{row.workflow}, version {row.version}" + (f", attempt {attempt}" if attempt > 1 else "")
    yield "queue", row.queue + (f", priority {row.priority}" if row.priority else "")
    if row.key is not None:
        yield "key", row.key
    if row.labels:
        yield "labels", " ".join(f"{name}={value}" for name, value in row.labels.items())
    yield "created", _when(row.created_at, now)
    if row.started_at is not None:
        yield "started", _when(row.started_at, now)
    if row.ended_at is not None:
        yield "ended", _when(row.ended_at, now) + ("" if page.seconds is None else f", after {span(page.seconds)}")
    if row.parent is not None:
        yield "parent", row.parent + (f" at {row.position}" if row.position else "")
    if row.follows is not None:
        yield "follows", row.follows
    if row.batch is not None:
        yield "batch", row.batch
    forked = next(only(page.events, RunForked), None)
    if forked is not None:
        yield "fork of", f"{forked.source} at {forked.at_position}"
    if row.successor is not None:
        yield "successor", row.successor
    if row.progress is not None:
        yield "progress", f"{row.progress}; told at {row.progress.position} {ago(row.progress.at, now)} ago"
    if page.streams:
        yield "streams", ", ".join(f"{name} ({items:,})" for name, items in page.streams.items())
    if row.compensated:
        yield "compensated", "what it had done was undone by its saga; it is not retried"
    if row.abandoned:
        yield "abandoned", ", ".join(f"{name} at {position}" for position, name in row.abandoned.items())


def _when(at: float, now: float) -> str:
    return f"{instant(at)} ({ago(at, now)} ago)" if at <= now else f"{instant(at)} (in {span(at - now)})"


def _section(title: str, lines: Sequence[str], out: Output) -> None:
    if lines:
        out.line()
        out.line(out.bold(title))
        _lines(lines, out, indent="  ")


def _lines(lines: Iterable[str], out: Output, *, indent: str) -> None:
    for line in lines:
        out.line(indent + printable(line))


def _steps(page: Page, out: Output, now: float, *, full: bool) -> None:
    steps = commands_in(page.events)
    if not steps:
        return
    shown = steps if full or len(steps) <= _STEPS + 1 else steps[-_STEPS:]
    heads = ("AT", "COMMAND", "STATUS", "TRIES", "TOOK", "ASKED FOR AT", "CAME TO")
    out.line()
    if len(shown) < len(steps):
        before = Counter(step.status for step in steps[:-_STEPS])
        counted = ", ".join(f"{count:,} {status}" for status, count in sorted(before.items()))
        out.line(out.dim(f"... {len(steps) - len(shown):,} earlier commands ({counted}): --full"))
    out.table(heads, [(*_command_cells(step, page.row, now), _came_to(step)) for step in shown], readable=_READABLE)


def _came_to(step: StepLine) -> str:
    """What a command failed with, or returned, in short; what is nothing is not told."""
    if step.error or step.value in (None, "null"):
        return step.error
    return value_in_short(step.value, _SHORT)


def _command_cells(step: StepLine, row: RunRow, now: float) -> tuple[str, str, str, str, str, str]:
    took = "" if step.ended_at is None else span(max(0.0, step.ended_at - step.started_at))
    if step.status == "running" and row.status in OPEN and row.status not in HELD:
        took = f"for {ago(step.started_at, now)}"
    elif step.fire_at is not None and step.status in ("retrying", "snoozed"):
        took = f"in {span(step.fire_at - now)}" if step.fire_at > now else "due"
    return step.position, step.name, step.status, str(step.attempt or ""), took, step.site


def _memos(page: Page, out: Output, *, full: bool) -> None:
    """Each call that a step made by `memo`, with what it used; those that came to nothing if all was asked for."""
    told = [memo for memo in page.memos if full or memo.value not in (None, "null")]
    if not told:
        return
    shown = told if full else told[-_MEMOS_SHOWN:]
    out.line()
    out.line(out.bold("memos"))
    if len(shown) < len(told):
        out.line(out.dim(f"... {len(told) - len(shown):,} earlier ones: --full"))
    used = {memo: used_by(memo.value) for memo in told}
    since = page.row.started_at or page.row.created_at
    out.table(
        ("AT", "MEMO", "AFTER", "USED", "CAME TO"),
        [
            (
                memo.position,
                memo.name if full else shortened(memo.name),
                span(max(0.0, memo.at - since)),
                str(used[memo] or ""),
                value_in_short(memo.value, _SHORT),
            )
            for memo in shown
        ],
        readable=_READABLE,
    )
    counted = [each for each in used.values() if each is not None]
    if counted:
        of = f"the latest {_MEMOS:,}" if not full and len(page.memos) == _MEMOS else f"{len(counted):,}"
        out.line(f"{of} calls used {sum(counted, Used())}")


def _error(end: RunFailed, events: Sequence[Event], *, full: bool) -> list[str]:
    """The error that the run ended by; then where it came from: the tracebacks of the commands that failed."""
    lines = failure_lines(end.value, full=full)
    names = {step.position: step.name for step in steps_in(events)}
    failed = causes_of(end, events)
    shown = failed if full else failed[:_CAUSES]
    for event in shown:
        what = f"step {names.get(event.position, '')!r}" if isinstance(event, StepFailed) else f"run {event.run_id!r}"
        lines += [f"failed at {event.position}, {what}:"]
        lines += [f"  {line}" for line in failure_lines(event.value, full=full)]
    return lines if len(shown) == len(failed) else [*lines, f"... {len(failed) - len(shown):,} more: --full"]


def causes_of(end: RunFailed, events: Sequence[Event]) -> list[StepFailed | ChildFailed]:
    """The failures of commands that a run ended by, as its end names them."""
    last = {event.position: event for event in events if isinstance(event, (StepFailed, ChildFailed))}
    return [last[position] for position in end.positions if position in last]


def _ran_since(events: Sequence[Event]) -> list[str]:
    """What a retry would forget, and what to do instead."""
    ran = [f"{event.describe()} at {event.position}" for event in ran_since(events)]
    if not ran:
        return []
    return [*ran, "a retry is refused: `durable fork RUN --at POSITION` from where all is valid, or start a new run"]


def _waits(page: Page, now: float) -> list[str]:
    """All that it waits for, where that is more than the sentence above has said."""
    if len(page.waits) < _SEVERAL:
        return []
    lines: list[str] = []
    for wait in page.waits:
        at = f" at {wait.position}" if wait.position else ""
        holder = f", run {wait.holder}" if wait.holder else ""
        since = f", for {ago(wait.since, now)}" if wait.since is not None else ""
        due = "" if wait.due is None else f", due in {span(wait.due - now)}" if wait.due > now else ", due"
        lines.append(f"{wait.kind}{f' {wait.name}' if wait.name else ''}{at}{holder}{since}{due}")
    return lines


def _signals(page: Page) -> list[str]:
    lines: list[str] = []
    for name, (received, pending, unread) in _signal_counts(page).items():
        waiting = f", {pending:,} pending (recorded, not taken in yet)" if pending else ""
        left = f", {unread:,} left unread (nobody asked for it before the run ended)" if unread else ""
        lines.append(f"{name}  {received:,} received{waiting}{left}")
    return lines


def _signal_counts(page: Page) -> dict[str, tuple[int, int, int]]:
    """By name: signals that were received, that a turn has yet to take in, and that the run left unread."""
    received, waiting, unread = _received(page.events), Counter(page.pending), page.row.unread
    if page.row.ended_at is not None:  # what came too late for its last turn is counted among what it left
        received, waiting = received + waiting, Counter()
    names = sorted({*received, *waiting, *unread})
    return {name: (received[name], waiting[name], unread.get(name, 0)) for name in names}


def _received(events: Iterable[Event]) -> Counter[str]:
    return Counter(event.name for event in only(events, SignalReceived))


def _hook_errors(row: RunRow) -> list[str]:
    if not row.hook_errors:
        return []
    told = [f"{each.hook}, {instant(each.at)}: {each.error}" for each in row.hook_errors]
    return [*told, f"`durable retry-hooks {row.run_id}` makes up for them, once what is wrong has been mended"]


def _followers(page: Page, *, full: bool) -> list[str]:
    shown = page.followers if full else page.followers[:_FOLLOWERS]
    lines = [f"{row.run_id}  {row.workflow}  {row.status}" for row in shown]
    return lines if len(shown) == len(page.followers) else [*lines, "... and more: --full"]


# --- for programs ---------------------------------------------------------------------------------------


def _json(page: Page) -> dict[str, Any]:
    end, started = page.end, page.started
    return {
        **as_json(page.row, ""),
        "why": page.why,
        "waits": [{**wait._asdict(), "since": iso(wait.since), "due": iso(wait.due)} for wait in page.waits],
        "waits_for_slots": [
            {
                "position": each.position or None,
                "limit": each.name,
                "key": each.key,
                "since": iso(each.since),
                "before": each.ahead,
            }
            for each in page.slots
        ],
        "compensated": page.row.compensated,
        "abandoned": page.row.abandoned,
        "hook_errors": [{"hook": each.hook, "error": each.error, "at": iso(each.at)} for each in page.row.hook_errors],
        "seconds": page.seconds,
        "attempt": attempts_of_run(page.events),
        "attributes": plain(page.row.attributes),
        "input": None if started is None else plain(started.value),
        "result": plain(end.value) if isinstance(end, RunSucceeded) else None,
        "error": plain(end.value) if isinstance(end, (RunFailed, RunCancelled)) and end.value is not None else None,
        "ran_since_failure": [event.position for event in ran_since(page.events)] if isinstance(end, RunFailed) else [],
        "steps": [
            {
                "position": step.position,
                "name": step.name,
                "status": step.status,
                "attempts": step.attempt,
                "started_at": iso(step.started_at),
                "ended_at": iso(step.ended_at),
                "seconds": None if step.ended_at is None else step.ended_at - step.started_at,
                "next_attempt_at": iso(step.fire_at),
                "site": step.site,
                "error": step.error or None,
                "result": plain(step.value),
                "memos": [_memo_json(memo) for memo in page.memos if memo.position == step.position],
            }
            for step in steps_in(page.events)
        ],
        "signals": {
            name: {"received": received, "pending": pending, "unread": unread}
            for name, (received, pending, unread) in _signal_counts(page).items()
        },
        "callbacks": [each.as_json() for each in callbacks_in(page.row, page.events)],
        **family_json(page.family),
        "followers": [row.run_id for row in page.followers],
        "streams": page.streams,
        "events": len(page.events),
        "problem": page.problem,
    }


def _memo_json(memo: RecordedMemo) -> dict[str, Any]:
    found: dict[str, Any] = {"name": memo.name, "at": iso(memo.at), "value": plain(memo.value)}
    used = used_by(memo.value)
    if used is not None:
        cost = None if used.cost is None else float(used.cost)
        found |= {"tokens_in": used.tokens_in, "tokens_out": used.tokens_out, "cost": cost}
    return found
