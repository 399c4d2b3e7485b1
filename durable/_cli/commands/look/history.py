"""
``durable history``: the recorded events of a run, also while they are being recorded.
"""

from __future__ import annotations

import sqlite3
from argparse import ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final

from durable._cli.journals.files import add_database, await_change, data_version, database_path, open_readonly, snapshot
from durable._cli.journals.finding import RUN_HELP, find_run
from durable._cli.terminal.output import Output, cut, instant, iso
from durable._cli.terminal.problems import FINDING, OK
from durable._cli.terminal.values import failure_in_short, failure_lines, plain, value_lines
from durable._core.durations import span
from durable._core.journal.columns import fields_of, from_row
from durable._core.journal.events import KIND_NAMES, Event, GroupOpened, TimerSet
from durable._core.statuses import ENDS
from durable._shell.reads.event_rows import event_rows_after
from durable._shell.reads.run_rows import RunRow, run_by_id
from durable._shell.rows.checksums import is_chained
from durable.errors import DecodeError

_EPILOG: Final = """\
examples:
  durable history 019a3b --db rides.db
  durable history 019a3b --db rides.db --follow            until the run ends, or Ctrl-C
  durable history 019a3b --db rides.db --kind StepFailed --full

Each event is compared with its checksum. A damaged history is shown as far as it is good (exit code 1)."""

#: Events read in one go: no snapshot of the file lives longer than that takes.
_PAGE: Final = 1_000
#: Characters of a value in a line, where no terminal says how many there are.
_VALUE: Final = 100
_NAMES: Final = frozenset(KIND_NAMES.values())


def configure(_command: str, parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("run", metavar="RUN", help=RUN_HELP)
    add_database(parser)
    parser.add_argument("--follow", action="store_true", help="continue with what is recorded from now on, to its end")
    parser.add_argument("--chain", action="store_true", help="continue with the runs that it continued as")
    parser.add_argument("--kind", action="append", type=_kind, metavar="EVENT", help="only these, as StepFailed")
    parser.add_argument("--after", type=int, default=0, metavar="SEQ", help="only events behind this number")
    parser.add_argument("--full", action="store_true", help="whole values and tracebacks")
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.epilog = _EPILOG


def run(_command: str, args: Namespace, out: Output) -> int:
    """Write the events; FINDING if the history is damaged."""
    path = database_path(args)
    with closing(open_readonly(path)) as conn:
        row: RunRow | None = find_run(conn, args.run)
        while row is not None:
            reader = _Reader(conn, row)
            for seq, event in reader.events(follow=args.follow):
                if seq > args.after and (not args.kind or KIND_NAMES[event.kind] in args.kind):
                    _write(row, seq, event, reader.began_at, args, out)
                if args.follow:
                    out.flush()
            if reader.problem:
                out.flush()
                if out.json:
                    out.value({"run_id": row.run_id, "problem": reader.problem})
                else:
                    out.line(out.colour(reader.problem, "31"))
                return FINDING
            successor = run_by_id(conn, row.run_id)
            following = None if successor is None else successor.successor
            row = run_by_id(conn, following) if args.chain and following is not None else None
            if row is not None and not out.json:
                out.line(out.dim(f"continued as {row.run_id}"))
    return OK


class _Reader:
    """Reads the events of one run, checked against their chain, page by page."""

    def __init__(self, conn: sqlite3.Connection, row: RunRow) -> None:
        self._conn, self._row = conn, row
        self._seq = self._chain = 0
        self.began_at = row.created_at
        #: What is wrong with the next event.
        self.problem = ""

    def events(self, *, follow: bool) -> Iterator[tuple[int, Event]]:
        """(seq, event) in order; with *follow* until the run has ended."""
        while True:
            version = data_version(self._conn)
            with snapshot(self._conn):
                rows = event_rows_after(self._conn, self._row.run, self._seq, _PAGE)
                now = run_by_id(self._conn, self._row.run_id)
            yield from self._checked(rows)
            if self.problem or (len(rows) < _PAGE and (not follow or now is None or now.status in ENDS)):
                return
            if not rows:
                await_change(self._conn, version)

    def _checked(self, rows: list[Any]) -> Iterator[tuple[int, Event]]:
        for seq, kind, position, at, body, value, recorded in rows:
            sound = is_chained(recorded, self._chain, kind, position, at, body, value)
            if seq != self._seq + 1 or not sound:
                what = "is missing" if seq != self._seq + 1 else "does not match its checksum"
                self.problem = f"damaged: event {self._seq + 1} {what}; what follows cannot be trusted"
                return
            self._seq, self._chain = seq, recorded
            try:
                event = from_row(kind, position, body, value, at)
            except DecodeError as error:
                self.problem = f"event {seq} cannot be read: {error}"
                return
            yield seq, event


def _write(row: RunRow, seq: int, event: Event, began_at: float, args: Namespace, out: Output) -> None:
    if out.json:
        out.value(_json(row, seq, event))
        return
    if seq == 1:
        out.line(out.bold(f"{row.workflow} {row.run_id}") + f"  began {instant(event.at)}")
    name, position = KIND_NAMES[event.kind], event.position or ""
    since = f"+{span(max(0.0, event.at - began_at))}"
    head = f"{seq:>5}  {since:>9}  {name:<17} {position:<8} "
    room = max(20, out.width - len(head) - 1) if out.width and not args.full else 0
    text = _told(event, args.full)
    when = out.dim(f"{seq:>5}  {since:>9}")
    out.line(f"{when}  {name:<17} {position:<8} {cut(text, room) if room else text}".rstrip())
    if args.full and event.value is not None:
        lines = failure_lines if _failed(event) else value_lines
        for line in lines(event.value, full=True):
            out.line(f"{'':>18}{line}")


def _told(event: Event, full: bool) -> str:  # noqa: FBT001 - an option of the command
    parts, fields = [], fields_of(event)
    if isinstance(event, TimerSet | GroupOpened):
        fields |= {"name": event.called, "label": ""}
    for name, found in fields.items():
        if name in ("digest", "seed") or found in (None, "", False):
            continue
        if name == "fire_at":
            parts.append(f"due {instant(found)}")
        elif name in ("name", "workflow"):
            parts.append(str(found))
        elif name == "site":
            parts.append(f"({found})")
        elif not (name in ("attempt", "version") and found == 1):
            parts.append(f"{name}={found}")
    if event.value is not None and not full:
        parts.append(failure_in_short(event.value) if _failed(event) else cut(_one_line(event.value), _VALUE))
    return " ".join(parts)


def _failed(event: Event) -> bool:
    return event.outcome in ("failed", "retrying")


def _one_line(payload: Any) -> str:
    return f"<{len(payload)} bytes, encoded>" if isinstance(payload, bytes) else str(payload)


def _json(row: RunRow, seq: int, event: Event) -> dict[str, Any]:
    return {
        "run_id": row.run_id,
        "seq": seq,
        "event": KIND_NAMES[event.kind],
        "position": event.position,
        "at": iso(event.at),
        "fields": fields_of(event),
        "value": plain(event.value),
    }


def _kind(text: str) -> str:
    if text not in _NAMES:
        msg = f"{text!r} is not an event; there are {', '.join(sorted(_NAMES))}"
        raise ArgumentTypeError(msg)
    return text
