"""
``durable ui``: the dashboard, served for one person on this machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import webbrowser
from argparse import ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from typing import Final

from durable._cli.applications import add_application
from durable._cli.clusters import engine_of
from durable._cli.journals.files import add_database, database_path
from durable._cli.terminal.arguments import add_cluster
from durable._cli.terminal.output import Output
from durable._cli.terminal.problems import OK, USAGE, CommandError

#: Seconds that the browser is given to find the server up.
_HEAD_START: Final = 0.6
_PORTS: Final = 65_535
_EPILOG = """\
examples:
  durable ui --db rides.db
  durable ui --db rides.db --app rides --write --open
  durable ui --temporal localhost:7233 --task-queue rides --app rides --temporal-ui http://localhost:8233

It reads the file beside its engine, of a copy, or of a program that is not running. With --app the debugger has the
code to walk through. Nothing can be changed without --write, which is only for this machine (--host 127.0.0.1): there
is no login. To let others in, mount `durable.web.dashboard(engine, authorize=...)` in an application that has one.
Runs of a Temporal cluster (--temporal) are only looked at; its workers tell their journals."""


def configure(_command: str, parser: ArgumentParser) -> None:
    """Where to listen, and whether anything may be changed."""
    add_database(parser)
    add_application(parser)
    add_cluster(parser)
    parser.add_argument("--temporal-ui", metavar="URL", help="where Temporal's own pages are: runs link to them")
    parser.add_argument("--write", action="store_true", help="let runs be changed: only from this machine")
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="where to listen (default 127.0.0.1)")
    parser.add_argument("--port", type=_port, default=8080, metavar="N", help="at which port (default 8080; 0: any)")
    parser.add_argument("--open", action="store_true", help="show it in the browser")
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.epilog = _EPILOG


def run(_command: str, args: Namespace, out: Output) -> int:
    """
    Serve until Ctrl-C.

    Raises:
        CommandError: The extra `web` is missing; or others could write.
    """
    try:
        import uvicorn  # noqa: PLC0415 - of the extra `web`, as the next is

        from durable.web import dashboard  # noqa: PLC0415 - as above
        from durable.web.guard import LOCAL_HOSTS  # noqa: PLC0415 - as above
    except ImportError as error:
        msg = f"the dashboard needs the extra `web`: pip install 'durable-asyncio[web]' ({error})"
        raise CommandError(msg, USAGE) from error
    local = args.host in LOCAL_HOSTS
    if args.write and not local:
        msg = f"--write is for this machine, and {args.host} is for others, too: there is no login. Leave one out"
        raise CommandError(msg, USAGE)
    if args.write and args.temporal is not None:
        msg = "--write is for journals: runs of a cluster are only looked at here"
        raise CommandError(msg, USAGE)

    async def serve() -> bool:
        shown = dashboard(
            database_path(args) if args.temporal is None else await engine_of(args, poll=(), web_ui=args.temporal_ui),
            app=args.app,
            authorize=(lambda _: "write") if args.write else None,
            hosts=LOCAL_HOSTS if local else None,
        )
        config = uvicorn.Config(shown, host=args.host, port=args.port, log_level="warning", lifespan="off")
        server = uvicorn.Server(config)
        listening = config.bind_socket()  # here: the port may be left to the system, and is told before anybody asks
        listening.listen()
        url = _url(*listening.getsockname()[:2])
        out.line(f"{url}  (Ctrl-C ends it)")
        out.flush()
        if args.open:
            threading.Timer(_HEAD_START, webbrowser.open, (url,)).start()
        await server.serve(sockets=[listening])
        return server.started

    with contextlib.suppress(KeyboardInterrupt):  # raised again by the server, once it has ended by it
        return OK if asyncio.run(serve()) else USAGE
    return OK


def _url(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > _PORTS:
        msg = f"{text!r} is not a port: a number from 0 to {_PORTS}"
        raise ArgumentTypeError(msg)
    return int(text)
