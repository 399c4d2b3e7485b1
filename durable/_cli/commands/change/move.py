"""
``durable move``: a running run leaves a file for a Temporal cluster, or a cluster for a file.
"""

from __future__ import annotations

import asyncio
import os
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from contextlib import closing
from typing import Any, Final

from durable._cli.applications import add_application
from durable._cli.clusters import cluster_in, import_to_cluster, on_cluster, run_id_in
from durable._cli.commands.keep_house.transfer import import_into
from durable._cli.journals.files import add_database, database_path, open_readonly
from durable._cli.journals.finding import RUN_HELP, find_run
from durable._cli.terminal.output import Output
from durable._cli.terminal.problems import OK, USAGE, CommandError
from durable._core.recorded.export_format import RunHistory
from durable._core.statuses import ENDS
from durable._shell.client.client import Client
from durable._shell.reports.exporting import load_run_history

_EPILOG: Final = """\
examples:
  durable move 019a3b --db rides.db --to temporal://temporal.internal:7233 --task-queue rides --app rides
  durable move ride-42 --from temporal://temporal.internal:7233/rides --db rides.db --app rides

The run keeps its id and its position, and what is done is not done again. In a file it stays behind, paused, as what
it was: it must not be resumed there. On a cluster it is terminated. Children move before their parents."""


def configure(_command: str, parser: ArgumentParser) -> None:
    """From where, to where."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help=RUN_HELP)
    add_database(parser)
    add_application(parser)
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--to", metavar="URL", help="temporal://HOST:PORT, or with /NAMESPACE: from the file to there")
    way.add_argument("--from", dest="source", metavar="URL", help="likewise: from there into the file")
    parser.add_argument(
        "--task-queue", default="durable", metavar="NAME", help="there, of the queue `default` (default: durable)"
    )
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.epilog = _EPILOG


def run(_command: str, args: Namespace, out: Output) -> int:
    """Move each run."""
    for text in args.runs:
        run_id = _leave_file(text, args) if args.to is not None else _leave_cluster(text, args)
        where = args.to if args.to is not None else database_path(args)
        if out.json:
            out.value({"run_id": run_id, "moved_to": where})
        else:
            out.line(f"{run_id} continues in {where}")
    return OK


def _leave_file(text: str, args: Namespace) -> str:
    path, cluster = database_path(args), cluster_in(args.to, args)
    with closing(open_readonly(path)) as conn:
        row = find_run(conn, text)
    if row.status in ENDS:
        msg = f"run {row.run_id!r} has ended ({row.status}): it stays where it is"
        raise CommandError(msg, USAGE)

    async def paused() -> None:
        async with Client(path) as client:
            await client.get(row.run_id).pause()
            await _at_rest(path, row.run_id)

    asyncio.run(paused())
    with closing(open_readonly(path)) as conn:
        conn.execute("BEGIN")
        recorded = load_run_history(conn, path, find_run(conn, row.run_id))
    _, present = import_to_cluster(cluster, [recorded])
    if present:
        msg = f"the cluster has a run {row.run_id!r} already; the one in {path} stays paused"
        raise CommandError(msg, USAGE)

    async def resumed(engine: Any) -> None:
        await engine.get(recorded.run.key if recorded.run.key_live else row.run_id).resume()

    on_cluster(cluster, resumed)
    return row.run_id


async def _at_rest(path: str, run_id: str) -> None:
    """Return once none of its steps is running: what is cut off here would be done a second time there."""
    while True:
        with closing(open_readonly(path)) as conn:
            row = find_run(conn, run_id)
        if row.status == "paused":
            return
        if row.status in ENDS:
            msg = f"run {run_id!r} ended meanwhile ({row.status}): it stays where it is"
            raise CommandError(msg, USAGE)
        await asyncio.sleep(0.1)


def _leave_cluster(text: str, args: Namespace) -> str:
    path = str(args.db) if args.db else database_path(args)

    async def left(engine: Any) -> RunHistory:
        found: RunHistory = await engine.get(run_id_in(text)).leave()
        return found

    recorded = on_cluster(cluster_in(args.source, args), left)
    run_id = recorded.run.run_id
    asyncio.run(import_into(os.path.realpath(path), [recorded]))

    async def resumed() -> None:
        async with Client(path) as client:
            await client.get(run_id).resume()

    asyncio.run(resumed())
    return str(run_id)
