"""
``durable complete``: answer a callback by its token, with a value or a failure; or keep it alive.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Final, Literal

from durable._cli.applications import add_application, application_of
from durable._cli.journals.files import add_database, database_path
from durable._cli.journals.owners import say_unowned
from durable._cli.terminal.arguments import json_argument, text_argument
from durable._cli.terminal.output import Output
from durable._cli.terminal.problems import OK, CommandError
from durable.errors import RecordError

_EPILOG = """\
A token is answered once: the same answer again changes nothing, another one is refused. So is a value that is not of
the callback's type, as long as an engine has the journal: without one nobody knows the type. `durable show` names the
callbacks of a run, with the tokens of those that are open.

examples:
  durable complete cb1_Xl... '{"id": "p-7", "cents": 500}'
  durable complete cb1_Xl... --fail 'the card was declined'
  durable complete cb1_Xl... --heartbeat"""

_Outcome = Literal["completed", "failed", "kept alive", "answered before"]
_SAID: Final[dict[_Outcome, str]] = {
    "completed": "the callback is completed",
    "failed": "the callback is failed",
    "kept alive": "the callback is kept alive",
    "answered before": "nothing to do: the callback has this very answer already",
}


def configure(_command: str, parser: ArgumentParser) -> None:
    """Which callback, and what it is answered with."""
    parser.add_argument("token", type=text_argument, metavar="TOKEN", help="of the callback, as it was handed out")
    parser.add_argument(
        "value", nargs="?", type=json_argument, metavar="JSON", help="what it is completed with (default: null)"
    )
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--fail", type=text_argument, metavar="TEXT", help="fail it: the workflow gets an error")
    other.add_argument("--heartbeat", action="store_true", help="it is still being worked on")
    add_application(parser)
    add_database(parser)
    parser.epilog = _EPILOG


def run(_command: str, args: Namespace, out: Output) -> int:
    """Make the request."""
    if args.value is not None and (args.fail is not None or args.heartbeat):
        raise CommandError(f"a value goes with neither --fail nor --heartbeat, found {args.value!r:.60}")
    path = database_path(args)
    import asyncio  # noqa: PLC0415 - help answers sooner without

    outcome = asyncio.run(_answer(path, args))
    if out.json:
        out.value({"request": "complete", "outcome": outcome})
    else:
        out.line(_SAID[outcome])
    out.flush()
    if outcome != "kept alive":
        say_unowned(path, "what was recorded takes effect once one has")
    return OK


async def _answer(path: str, args: Namespace) -> _Outcome:
    from durable._core.codec.codec import Codec  # noqa: PLC0415 - as in `run`
    from durable._shell.client.client_backend import ClientBackend  # noqa: PLC0415 - as in `run`
    from durable._shell.handles.journal import JournalHandle  # noqa: PLC0415 - as in `run`

    codec = application_of(args).codec if args.app else Codec()
    async with ClientBackend(path, codec=codec) as backend:
        client = JournalHandle(backend)
        try:
            if args.heartbeat:
                await client.heartbeat(args.token)
                return "kept alive"
            if args.fail is not None:
                return "failed" if await client.fail(args.token, args.fail) else "answered before"
            return "completed" if await client.complete(args.token, args.value) else "answered before"
        except RecordError as error:
            raise CommandError(str(error)) from error
