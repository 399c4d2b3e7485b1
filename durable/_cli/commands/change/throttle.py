"""
``durable throttle``: other numbers for a queue or a limit than the program's, until they are reset.
"""

from __future__ import annotations

import re
from argparse import ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from typing import TYPE_CHECKING, Final

from durable._cli.journals.files import add_database, database_path
from durable._cli.journals.owners import say_unowned
from durable._cli.terminal.arguments import text_argument
from durable._cli.terminal.output import Output
from durable._cli.terminal.problems import OK, CommandError

if TYPE_CHECKING:
    from durable._shell.requests.queue_requests import ChangeLimit, ChangeQueue

_EPILOG = """\
The numbers hold at once, and over restarts, until --reset lets the program's own hold again. What is not given is
no bound. What is active ends as it would have.

examples:
  durable throttle queue:mail --concurrency 1
  durable throttle limit:api --rate 100/60
  durable throttle queue:mail --reset"""
_RATE: Final = re.compile(r"(\d+)/(\d+(?:\.\d+)?)")


def configure(_command: str, parser: ArgumentParser) -> None:
    """Which queue or limit, and its numbers."""
    parser.add_argument("target", type=text_argument, metavar="queue:NAME|limit:NAME", help="what gets other numbers")
    parser.add_argument("--concurrency", type=int, metavar="N", help="how many at once")
    parser.add_argument("--rate", type=_rate, metavar="N/SECONDS", help="how many begin in a window of time")
    parser.add_argument("--reset", action="store_true", help="let the program's numbers hold again")
    add_database(parser)
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.epilog = _EPILOG


def run(_command: str, args: Namespace, out: Output) -> int:
    """Make the request."""
    path, request = database_path(args), _request(args)
    import asyncio  # noqa: PLC0415 - help answers sooner without

    asyncio.run(_ask(path, request))
    if out.json:
        out.value({"request": "throttle", "target": args.target, "outcome": "done"})
    else:
        out.line(f"{args.target}: " + ("the program's numbers hold again" if args.reset else "changed"))
    out.flush()
    say_unowned(path, "what was recorded takes effect once one has")
    return OK


def _request(args: Namespace) -> ChangeQueue | ChangeLimit:
    from durable._shell.requests.queue_requests import ChangeLimit, ChangeQueue  # noqa: PLC0415 - as in `run`

    kind, _, name = args.target.partition(":")
    if kind not in ("queue", "limit") or not name:
        msg = f"{args.target!r} is neither queue:NAME nor limit:NAME"
        raise CommandError(msg)
    given = args.concurrency is not None or args.rate is not None
    if given == args.reset:
        msg = "give --concurrency, --rate or both; or --reset alone"
        raise CommandError(msg)
    count, per = args.rate or (None, None)
    change = ChangeQueue if kind == "queue" else ChangeLimit
    return change(name, args.concurrency, count, per, args.reset)


async def _ask(path: str, request: ChangeQueue | ChangeLimit) -> None:
    from durable._shell.client.client_backend import ClientBackend  # noqa: PLC0415 - as in `run`

    async with ClientBackend(path) as client:
        await client.request(request)


def _rate(text: str) -> tuple[int, float]:
    found = _RATE.fullmatch(text)
    if found is None:
        msg = f"{text!r} is no rate: write how many in how many seconds, 100/60"
        raise ArgumentTypeError(msg)
    return int(found[1]), float(found[2])
