"""
``durable ask``: ask a running run something, and write what its workflow answers.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from contextlib import closing
from typing import Any

from durable._cli.applications import Application, add_application, application_of
from durable._cli.journals.files import add_database, database_path, open_readonly
from durable._cli.journals.finding import RUN_HELP, find_run
from durable._cli.journals.owners import say_unowned
from durable._cli.terminal.arguments import json_argument, text_argument
from durable._cli.terminal.output import Output
from durable._cli.terminal.problems import FINDING, OK, CommandError
from durable._core.codec.codec import Codec
from durable.errors import RecordError

_EPILOG = """\
The workflow takes it in by wait_for(Request(NAME, ...)). It is answered once: who gave up, or was killed, and asks the
same again with the same --dedup gets the answer that there is. With --app, the JSON is read as the type that a Request
beside the workflow names; what does not fit is refused, by this command or by the run.

examples:
  durable ask 019a3b approve '{"amount": 300}'
  durable ask key:order-7 status --timeout 5
  durable ask 019a3b approve '{"amount": 300}' --dedup ann-1"""


def configure(_command: str, parser: ArgumentParser) -> None:
    """Which run, what, and for how long."""
    parser.add_argument("run", type=text_argument, metavar="RUN", help=RUN_HELP)
    parser.add_argument("name", type=text_argument, metavar="NAME", help="of the request")
    parser.add_argument("question", nargs="?", type=json_argument, metavar="JSON", help="what is asked (default: null)")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="give up after; the request stays")
    parser.add_argument("--dedup", type=text_argument, metavar="ID", help="under it, one thing is asked once")
    add_application(parser)
    add_database(parser)
    parser.epilog = _EPILOG


def run(_command: str, args: Namespace, out: Output) -> int:
    """Ask, and write the answer; FINDING if there is none."""
    path = database_path(args)
    with closing(open_readonly(path)) as conn:
        run_id = find_run(conn, args.run).run_id
    import asyncio  # noqa: PLC0415 - help answers sooner without

    try:
        found = asyncio.run(_ask(path, run_id, args))
    except TimeoutError:
        msg = f"run {run_id!r} has not answered after {args.timeout:g} s. The request stays; ask again with --dedup"
        raise CommandError(msg, FINDING) from None
    except RecordError as error:
        raise CommandError(str(error)) from error
    if out.json:
        out.value({"request": "ask", "run_id": run_id, "name": args.name, "answer": found})
    else:
        out.line(json.dumps(found, ensure_ascii=False))
    return OK


async def _ask(path: str, run_id: str, args: Namespace) -> Any:
    import asyncio  # noqa: PLC0415 - as in `run`

    from durable._shell.client.client_backend import ClientBackend  # noqa: PLC0415 - as in `run`
    from durable._shell.handles.asking import answer, put_question  # noqa: PLC0415 - as in `run`

    application = application_of(args) if args.app else None
    codec = Codec() if application is None else application.codec
    async with ClientBackend(path, codec=codec) as backend, asyncio.timeout(args.timeout):
        asked = await put_question(backend, run_id, *_question(application, codec, args), args.dedup)
        say_unowned(path, f"run {run_id} answers once one has, and this command waits for it")
        return codec.load_plain(await answer(backend, run_id, asked, args.name) or "null", where="the answer")


def _question(application: Application | None, codec: Codec, args: Namespace) -> tuple[Any, Any]:
    """The request, with the type that the application gives to its question, if it does; and the question."""
    from durable._core.program.requests import Request  # noqa: PLC0415 - as in `run`

    kind = None if application is None else application.question_type(args.name)
    if kind is None:
        return args.name, args.question
    question = codec.from_plain(args.question, kind, where=f"question of request {args.name!r}")
    return Request(args.name, kind), question
