"""
The arguments that choose runs: the same for ``list`` and for every command that takes many runs.
"""

from __future__ import annotations

import re
import sqlite3
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from datetime import datetime
from typing import Final, NamedTuple

from durable._cli.journals.finding import find_run
from durable._cli.terminal.arguments import label_argument, text_argument
from durable._cli.terminal.problems import NOT_FOUND, CommandError
from durable._core.statuses import ENDS, OPEN, STATUSES
from durable._shell.reads.run_rows import Filter

#: What stands for several statuses.
_GROUPS: Final = {"open": OPEN, "ended": ENDS}

_SECONDS: Final = {"s": 1, "min": 60, "h": 3_600, "d": 86_400, "w": 604_800}
#: Other spellings of the units above.
_UNITS: Final = {
    "sec": "s", "second": "s", "seconds": "s", "m": "min", "minute": "min", "minutes": "min",
    "hour": "h", "hours": "h", "day": "d", "days": "d", "week": "w", "weeks": "w",
}  # fmt: skip
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)\s*")

#: What fits a screen.
PAGE_LENGTH: Final = 20

#: For `parser.epilog`s of commands that take filters.
FILTERS_HELP: Final = """\
Times are ISO dates (2026-01-31, 2026-01-31T12:00, in local time; or with a Z or offset),
or spans before now: 30min, 2h, 7d, "1h 30min", "7d ago".

--waiting-for takes the name of a signal, request or callback, or what is waited for: signal,
request, callback, timer, child (a run that it has started), retry (the next attempt), start
(its delay, or runs before it), slot (of a limit). A signal that is called like one of these:
signal:NAME."""


class Moment(NamedTuple):
    """An instant as it was asked for: *at*, or *back* seconds before now."""

    text: str
    at: float | None
    back: float

    def before(self, now: float) -> float:
        """Epoch seconds."""
        return now - self.back if self.at is None else self.at


def add_filters(parser: ArgumentParser) -> None:
    """The options that choose runs; see `filter_from`."""
    group = parser.add_argument_group("which runs (all that is given must hold)")
    group.add_argument(
        "--status",
        action="append",
        type=_statuses,
        metavar="STATUS",
        help=f"{', '.join(STATUSES[:-1])} or {STATUSES[-1]}; open or ended for those that are; "
        "several with commas, or given again",
    )
    group.add_argument("--workflow", type=text_argument, metavar="NAME", help="of this workflow or job")
    group.add_argument(
        "--label",
        action="append",
        type=label_argument,
        metavar="NAME=VALUE",
        help="with this label; may be given again",
    )
    group.add_argument("--queue", type=text_argument, metavar="NAME", help="of this queue")
    group.add_argument("--parent", type=text_argument, metavar="RUN", help="started by this run")
    group.add_argument("--batch", type=text_argument, metavar="ID", help="members of this batch")
    group.add_argument("--since", type=moment, metavar="TIME", help="created then or later")
    group.add_argument("--until", type=moment, metavar="TIME", help="created before then")
    group.add_argument(
        "--waiting-for",
        type=text_argument,
        metavar="NAME",
        help="that wait for this signal, or for a timer, ...",
    )


def add_paging(parser: ArgumentParser) -> None:
    """How much of what was found, from where."""
    parser.add_argument(
        "--limit",
        type=_count,
        default=PAGE_LENGTH,
        metavar="N",
        help=f"at most so many (default {PAGE_LENGTH}; 0: all)",
    )
    parser.add_argument("--after", type=_count, metavar="CURSOR", help="continue behind this one, see the last line")


def filtered(args: Namespace) -> bool:
    """Whether any filter was given: what changes many runs should not take all of them by default."""
    return filter_from(args, 0.0) != Filter()


def filter_from(args: Namespace, now: float, conn: sqlite3.Connection | None = None) -> Filter:
    """
    The filter that the arguments of `add_filters` ask for.

    With a connection, --parent may be whatever `find_run` takes, and what does not exist is reported
    from what has no runs.

    Raises:
        CommandError: With a connection: there is no such parent or batch.
    """
    labels = dict(args.label or ())
    parent: str | None = args.parent
    if conn is not None:
        parent = None if parent is None else find_run(conn, parent).run_id
        if args.batch is not None and not _has_batch(conn, args.batch):
            msg = f"no batch of this journal has the id {args.batch!r}"
            raise CommandError(msg, NOT_FOUND)
    return Filter(
        workflow=args.workflow,
        status=tuple(dict.fromkeys(each for given in args.status for each in given)) if args.status else None,
        labels=labels or None,
        queue=args.queue,
        parent=parent,
        batch=args.batch,
        since=None if args.since is None else args.since.before(now),
        until=None if args.until is None else args.until.before(now),
        waiting_for=args.waiting_for,
    )


def spelled(args: Namespace) -> list[str]:
    """The arguments of `add_filters` as they would be typed again."""
    found: list[str] = []
    for given in args.status or ():
        found += ["--status", ",".join(given)]
    for name, value in args.label or ():
        found += ["--label", f"{name}={value}"]
    for option in ("workflow", "queue", "parent", "batch", "waiting_for"):
        if (value := getattr(args, option)) is not None:
            found += [f"--{option.replace('_', '-')}", value]
    for option in ("since", "until"):
        if (value := getattr(args, option)) is not None:
            found += [f"--{option}", value.text]
    return found


def moment(text: str) -> Moment:
    """
    An instant: an ISO date or datetime, or a span before now.

    Raises:
        ArgumentTypeError: It is neither.
    """
    words = text.strip().lower().removesuffix("ago").strip()
    parts: list[tuple[str, str]] = _PART.findall(words)
    units = [_UNITS.get(unit, unit) for _, unit in parts]
    if parts and not _PART.sub("", words) and all(unit in _SECONDS for unit in units):
        return Moment(text, None, sum(float(n) * _SECONDS[unit] for (n, _), unit in zip(parts, units, strict=True)))
    try:
        return Moment(text, datetime.fromisoformat(text.strip()).timestamp(), 0.0)
    except (ValueError, OverflowError, OSError):
        msg = f"{text!r} is not a time: give an ISO date (2026-01-31T12:00) or a span before now (30min, 2h, 7d)"
        raise ArgumentTypeError(msg) from None


def _statuses(text: str) -> tuple[str, ...]:
    found: list[str] = []
    for name in filter(None, (each.strip().lower() for each in text.split(","))):
        if name not in STATUSES and name not in _GROUPS:
            msg = f"{name!r} is not a status: there are {', '.join(STATUSES)}, and open or ended for several"
            raise ArgumentTypeError(msg)
        found += _GROUPS.get(name, (name,))
    if not found:
        msg = f"a status is missing: one of {', '.join(STATUSES)}"
        raise ArgumentTypeError(msg)
    return tuple(found)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:  # noqa: PLR2004 - SQLite's integers have 64 bits
        msg = f"{text!r} is not a whole number"
        raise ArgumentTypeError(msg)
    return int(text)


def _has_batch(conn: sqlite3.Connection, batch_id: str) -> bool:
    return conn.execute("SELECT 1 FROM durable_batches WHERE batch_id = ?", (batch_id,)).fetchone() is not None
