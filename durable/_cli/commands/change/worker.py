"""``durable worker``: executes an application's runs on a Temporal cluster."""

from __future__ import annotations

import asyncio
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from importlib import import_module
from typing import Any, Final

from durable._cli.applications import Application, add_application, application_of
from durable._cli.terminal.output import Output
from durable._cli.terminal.problems import OK, USAGE, CommandError

_EPILOG: Final = """\
examples:
  durable worker --temporal localhost:7233 --app rides
  durable worker --temporal temporal.internal:7233 --namespace rides --app rides --queue mail --queue audit

It works until SIGTERM or SIGINT, then lets running steps end within --grace. An application with transactions, limits
or middleware has a program of three lines instead: `await TemporalEngine(client, task_queue, ...).serve()`."""


def configure(_command: str, parser: ArgumentParser) -> None:
    """Which cluster, which application, which queues."""
    add_application(parser)
    parser.add_argument("--temporal", required=True, metavar="HOST:PORT", help="the cluster's frontend")
    parser.add_argument("--namespace", default="default", metavar="NAME", help="there (default: default)")
    parser.add_argument(
        "--task-queue", default="durable", metavar="NAME", help="of the queue `default` (default: durable)"
    )
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
    try:
        client, temporal = import_module("temporalio.client"), import_module("durable.temporal")
    except ImportError as error:
        msg = f"a worker needs the extra `temporal`: pip install 'durable-asyncio[temporal]' ({error})"
        raise CommandError(msg, USAGE) from error
    asyncio.run(_work(application_of(args), args, out, client.Client, temporal.TemporalEngine))
    return OK


async def _work(application: Application, args: Namespace, out: Output, connector: Any, engine: Any) -> None:
    try:
        client = await connector.connect(args.temporal, namespace=args.namespace)
    except RuntimeError as error:
        msg = f"no Temporal cluster answers at {args.temporal}: {error}"
        raise CommandError(msg, USAGE) from error
    worker = engine(
        client,
        args.task_queue,
        application.definitions,
        poll=args.queue,
        codec=application.codec.hooks,
        grace=args.grace,
    )
    out.line(f"{application.name} works on {args.task_queue} at {args.temporal}  (Ctrl-C ends it)")
    out.flush()
    await worker.serve()
