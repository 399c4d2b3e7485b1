"""``durable worker``: executes an application's runs on a Temporal cluster."""

from __future__ import annotations

import asyncio
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from typing import Final

from durable._cli.applications import Application, add_application, application_of
from durable._cli.clusters import engine_of
from durable._cli.terminal.arguments import add_cluster
from durable._cli.terminal.output import Output
from durable._cli.terminal.problems import OK

_EPILOG: Final = """\
examples:
  durable worker --temporal localhost:7233 --app rides
  durable worker --temporal temporal.internal:7233 --namespace rides --app rides --queue mail --queue audit

It works until SIGTERM or SIGINT, then lets running steps end within --grace. An application with transactions, limits
or middleware has a program of three lines instead: `await TemporalEngine(client, task_queue, ...).serve()`."""


def configure(_command: str, parser: ArgumentParser) -> None:
    """Which cluster, which application, which queues."""
    add_application(parser)
    add_cluster(parser, required=True)
    parser.add_argument("--queue", action="append", metavar="NAME", help="a queue to work on; by default all")
    parser.add_argument("--grace", type=float, default=5.0, metavar="S", help="seconds for running steps (default 5)")
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.epilog = _EPILOG


def run(_command: str, args: Namespace, out: Output) -> int:
    """
    Work until a signal.

    Raises:
        CommandError: The extra `temporal` is missing, or the cluster does not answer.
    """
    asyncio.run(_work(application_of(args), args, out))
    return OK


async def _work(application: Application, args: Namespace, out: Output) -> None:
    worker = await engine_of(args, poll=args.queue, grace=args.grace)
    out.line(f"{application.name} works on {args.task_queue} at {args.temporal}  (Ctrl-C ends it)")
    out.flush()
    await worker.serve()
