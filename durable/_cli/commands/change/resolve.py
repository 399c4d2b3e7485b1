"""
``durable resolve``: say how a step has ended that blocks its run because nobody knows.

The run continues as if the step had ended so. Who said it, and why, stands in its history.
"""

from __future__ import annotations

import getpass
from argparse import ArgumentParser, Namespace
from contextlib import closing

from durable._cli.applications import add_application, application_of
from durable._cli.journals.files import add_database, database_path, open_readonly
from durable._cli.journals.finding import RUN_HELP, find_run
from durable._cli.journals.owners import say_unowned
from durable._cli.terminal.arguments import json_argument, text_argument
from durable._cli.terminal.output import Output
from durable._cli.terminal.problems import OK, CommandError
from durable._core.codec.codec import Codec
from durable.errors import Fatal, RecordError

_EPILOG = """\
Only a step can be resolved that was running when the process died (or its engine closed), with on_crash="block",
or which is taken for what kills the process. `durable show` names it, and its position.

examples:
  durable resolve 019a3b 2 --value '"label-17"' --reason 'seen at the printer'
  durable resolve 019a3b 2 --error 'the card was not charged'"""


def configure(_command: str, parser: ArgumentParser) -> None:
    """Which step, and how it has ended."""
    parser.add_argument("run", type=text_argument, metavar="RUN", help=RUN_HELP)
    parser.add_argument("position", type=text_argument, metavar="POSITION", help="of the step; 0 in a job")
    outcome = parser.add_mutually_exclusive_group(required=True)
    outcome.add_argument("--value", type=json_argument, metavar="JSON", help="what it returned")
    outcome.add_argument("--error", type=text_argument, metavar="TEXT", help="what it failed with")
    parser.add_argument("--reason", type=text_argument, default="", metavar="TEXT", help="recorded with the outcome")
    parser.add_argument("--by", type=text_argument, metavar="NAME", help="who says so (default: your user's name)")
    add_application(parser)
    add_database(parser)
    parser.epilog = _EPILOG


def run(_command: str, args: Namespace, out: Output) -> int:
    """Make the request."""
    path = database_path(args)
    with closing(open_readonly(path)) as conn:
        run_id = find_run(conn, args.run).run_id
    import asyncio  # noqa: PLC0415 - help answers sooner without

    asyncio.run(_resolve(path, run_id, args))
    said = f"{run_id}: position {args.position} is resolved"
    if out.json:
        out.value({"request": "resolve", "run_id": run_id, "position": args.position, "outcome": "done"})
    else:
        out.line(said)
    out.flush()
    say_unowned(path, "what was recorded takes effect once one has")
    return OK


async def _resolve(path: str, run_id: str, args: Namespace) -> None:
    from durable._core.journal.payloads import failure_payload  # noqa: PLC0415 - as in `run`
    from durable._shell.client.client_backend import ClientBackend  # noqa: PLC0415 - as in `run`
    from durable._shell.requests.run_requests import ResolveStep  # noqa: PLC0415 - as in `run`

    codec = application_of(args).codec if args.app else Codec()
    by = getpass.getuser() if args.by is None else args.by
    if args.error is not None:
        payload = failure_payload(Fatal(args.error), codec, with_traceback=False)
    else:
        try:
            payload = codec.encode_by_value(args.value, where=f"outcome at {args.position}")
        except RecordError as error:
            raise CommandError(str(error)) from error
    async with ClientBackend(path) as client:
        await client.request(
            ResolveStep(run_id, args.position, payload, args.error is not None, by, codec.conceal(args.reason))
        )
