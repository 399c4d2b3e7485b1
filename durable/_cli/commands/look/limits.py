"""
``durable limits``: the numbers that hold, who is inside, and who waits.
"""

from __future__ import annotations

import os
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterable
from contextlib import closing
from typing import Any, Final

from durable._cli.journals.files import APPLICATION_VARIABLE, add_database, database_path, open_readonly, snapshot
from durable._cli.terminal.arguments import add_cluster
from durable._cli.terminal.output import Output, ago, iso
from durable._cli.terminal.problems import NOT_FOUND, OK, USAGE, CommandError
from durable._core.durations import span
from durable._shell.reports.limit_rows import LimitDetails, SlotInfo, all_limit_rows

#: Of those who are inside a limit, and of those who wait, that are named.
_NAMED: Final = 10


def configure(_command: str, parser: ArgumentParser) -> None:
    """Which of them."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="one limit, with who is inside and who waits")
    add_database(parser)
    add_cluster(parser)
    parser.add_argument(
        "--app",
        metavar="MODULE[:NAME]",
        default=os.environ.get(APPLICATION_VARIABLE),
        help="the application, whose limits they are, for --temporal",
    )
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.epilog = (
        "All named limits that an engine has had; with a name, also who is inside, and who waits.\n"
        "`durable throttle limit:NAME` gives it other numbers. Of a cluster: those of the application (--app).\n\n"
        "examples:\n  durable limits\n  durable limits gateway\n"
        "  durable limits --temporal localhost:7233 --task-queue rides --app rides"
    )


def run(_command: str, args: Namespace, out: Output) -> int:
    """
    Write them.

    Raises:
        CommandError: No limit has that name; or no worker of a cluster answers.
    """
    now = time.time()
    if args.temporal is not None:
        found = _of_cluster(args)
    else:
        with closing(open_readonly(database_path(args))) as conn, snapshot(conn):
            found = all_limit_rows(conn)
    _write(found, args.name, out, now)
    return OK


def _of_cluster(args: Namespace) -> list[LimitDetails]:
    from durable._cli.clusters import on_cluster  # noqa: PLC0415 - files are read without

    async def told(engine: Any) -> list[LimitDetails]:
        return [
            LimitDetails(
                each.name, each.concurrency, each.rate and each.rate.count, each.rate and each.rate.per, each.changed,
                each.inside, each.waiting, each.holders, each.waiters,
            )
            for each in await engine.limits()
        ]  # fmt: skip

    try:
        found: list[LimitDetails] = on_cluster(args, told)
    except TimeoutError as error:
        raise CommandError(str(error), USAGE) from None
    return found


def numbers(concurrency: int | None, count: int | None, per: float | None) -> str:
    """What a queue or limit lets in: "2 at once, 100 in 1 min"."""
    at_once = "" if concurrency is None else f"{concurrency:,} at once"
    rate = "" if count is None else f"{count:,} in {span(per or 0.0)}"
    return ", ".join(filter(None, (at_once, rate))) or "any number"


def _write(limits: list[LimitDetails], name: str | None, out: Output, now: float) -> None:
    if name is not None:
        limits = [each for each in limits if each.name == name]
        if not limits:
            msg = f"no engine of this journal has had a limit called {name!r}"
            raise CommandError(msg, NOT_FOUND)
    if out.json:
        for each in limits:
            out.value(_limit_json(each))
    elif not limits:
        out.line("no limits")
    else:
        out.table(("LIMIT", "LETS IN", "INSIDE", "WAITING", "OLDEST WAIT"), [_cells(each, now) for each in limits])
        if name is not None:
            _slots("inside", limits[0].holders, limits[0].inside, out, now)
            _slots("waiting", limits[0].waiters, limits[0].waiting, out, now)


def lets_in(each: LimitDetails) -> str:
    """The numbers that hold for a limit: "2 at once, 100 in 1 min"."""
    return numbers(each.concurrency, each.grants, each.per) + (" (throttled)" if each.changed else "")


def _cells(each: LimitDetails, now: float) -> tuple[str, str, str, str, str]:
    oldest = min((slot.since for slot in each.waiters), default=None)
    return each.name, lets_in(each), f"{each.inside:,}", f"{each.waiting:,}", ago(oldest, now)


def _slots(title: str, slots: Iterable[SlotInfo], count: int, out: Output, now: float) -> None:
    if not count:
        return
    out.line()
    out.line(out.bold(title))
    for slot in list(slots)[:_NAMED]:
        at = f" at {slot.position}" if slot.position else ""
        key = f", key {slot.key}" if slot.key else ""
        due = "" if slot.due is None else f", due in {span(max(0.0, slot.due - now))}"
        out.line(f"  {slot.run}{at}{key}, for {ago(slot.since, now)}{due}")
    if count > _NAMED:
        out.line(f"  ... and {count - _NAMED:,} more")


def _limit_json(each: LimitDetails) -> dict[str, Any]:
    slots = [
        [{**slot._asdict(), "since": iso(slot.since), "due": iso(slot.due)} for slot in side]
        for side in (each.holders, each.waiters)
    ]
    return {"name": each.name, "concurrency": each.concurrency, "count": each.grants, "per": each.per,
            "changed": each.changed, "inside": each.inside, "waiting": each.waiting,
            "holders": slots[0], "waiters": slots[1]}  # fmt: skip
