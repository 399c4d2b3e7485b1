"""
``durable query``: what a query of its workflow says of a run, from what is recorded. Nothing of the run is woken.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from contextlib import closing
from typing import Any, Final

from durable._cli.applications import Application, add_application, application_of
from durable._cli.journals.files import add_database, database_path, open_readonly
from durable._cli.journals.finding import RUN_HELP, find_run
from durable._cli.terminal.arguments import json_argument, text_argument
from durable._cli.terminal.output import Output
from durable._cli.terminal.problems import FINDING, OK, CommandError
from durable.errors import DefinitionError, RecordError, UsageError

_EPILOG: Final = """\
A query is a plain function that the workflow has registered: @ride.query. It runs here, on what is recorded at this
moment, so the application is needed.

examples:
  durable query 019a3b progress --app app.rides
  durable query key:ride-42 stops '"2026-05-01"' --app app.rides --json"""


def configure(_command: str, parser: ArgumentParser) -> None:
    """Which run, which query, and what it is called with."""
    parser.add_argument("run", type=text_argument, metavar="RUN", help=RUN_HELP)
    parser.add_argument("name", type=text_argument, metavar="NAME", help="of the query")
    parser.add_argument("args", nargs="*", type=json_argument, metavar="JSON", help="its arguments behind the RunView")
    add_application(parser)
    add_database(parser)
    parser.epilog = _EPILOG


def run(_command: str, args: Namespace, out: Output) -> int:
    """Call it, and write what it returns."""
    path = database_path(args)
    with closing(open_readonly(path)) as conn:
        run_id = find_run(conn, args.run).run_id
    application = application_of(args)
    import asyncio  # noqa: PLC0415 - help answers sooner without

    try:
        found = asyncio.run(_ask(path, run_id, application, args))
    except (UsageError, DefinitionError, RecordError) as error:
        raise CommandError(str(error)) from error
    if out.json:
        out.value({"query": args.name, "run_id": run_id, "answer": found})
    else:
        out.line(json.dumps(found, ensure_ascii=False))
    return OK


async def _ask(path: str, run_id: str, application: Application, args: Namespace) -> Any:
    from durable._core.authoring.registry import collect  # noqa: PLC0415 - as in `run`
    from durable._core.codec.exceptions.failures import describe, record_exception  # noqa: PLC0415 - as in `run`
    from durable._core.codec.signatures import result_type  # noqa: PLC0415 - as in `run`
    from durable._shell.client.client_backend import ClientBackend  # noqa: PLC0415 - as in `run`
    from durable._shell.handles.queries import open_query  # noqa: PLC0415 - as in `run`

    known = collect(application.definitions)
    async with ClientBackend(path, definitions=known, codec=application.codec) as backend:
        query, view = await open_query(backend, run_id, args.name)
    try:
        answer = query(view, *args.args)
    except Exception as error:
        msg = f"query {args.name!r} raised {describe(record_exception(error, application.codec))}"
        raise CommandError(msg, FINDING) from error
    return application.codec.to_plain(answer, result_type(query), where=f"answer of query {args.name!r}")
