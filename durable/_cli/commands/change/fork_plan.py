"""
What ``durable fork`` is to do: the copy, worked out before anything is written.

Everything of the journal is read in one snapshot, so that the run and those that it waits for fit together.
"""

from __future__ import annotations

import os
import sqlite3
import time
from argparse import ArgumentTypeError, Namespace
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any, Final, NamedTuple

from durable._cli.applications import Application
from durable._cli.journals.files import database_path, open_readonly, snapshot
from durable._cli.journals.finding import find_run
from durable._cli.terminal.arguments import json_argument, text_argument
from durable._cli.terminal.problems import NOT_FOUND, CommandError, misfit_error
from durable._core.codec.codec import Codec, Payload
from durable._core.recorded.copies import Absent, Copy, Find, command_at, copy_of
from durable._core.recorded.export_format import RunHistory
from durable._shell.reads.run_rows import run_by_id
from durable._shell.reports.exporting import load_run_history, read_histories
from durable.errors import DecodeError, RecordError

#: How exported journals are called, so that a missing one is not taken for a run.
_SUFFIXES: Final = (".jsonl", ".json")


class Plan(NamedTuple):
    """What is to be done."""

    recorded: RunHistory
    #: The journal that the run is in; None if it was exported.
    path: str | None
    #: Outcomes by position, encoded.
    replace: Mapping[str, Payload]
    #: The id of the copy.
    new_id: str
    #: The copy; None where the run's own journal makes it.
    copy: Copy | None


def planned(application: Application | None, args: Namespace) -> Plan:
    """
    What the command line asks for.

    Raises:
        CommandError: There is no such run; a replacement is not what its command returns; or a run is not at hand.
        UsageError: A position was never asked for, or its outcome cannot be given.
    """
    if os.path.isfile(args.run):
        recorded, find = _exported(args.run)
        return _plan_of(recorded, find, None, application, args)
    if args.run.endswith(_SUFFIXES):
        msg = f"there is no file {args.run}"
        raise CommandError(msg, NOT_FOUND)
    path = database_path(args)
    with closing(open_readonly(path)) as conn, snapshot(conn):
        recorded = load_run_history(conn, path, find_run(conn, args.run))
        return _plan_of(recorded, lambda run_id: _found(conn, path, run_id), path, application, args)


def _exported(file: str) -> tuple[RunHistory, Find]:
    from durable._debug.what_if import only_root  # noqa: PLC0415 - it loads asyncio

    recorded, others = only_root(read_histories(file), file)
    return recorded, {each.run.run_id: each for each in others}.get


def _found(conn: sqlite3.Connection, path: str, run_id: str) -> RunHistory | None:
    row = run_by_id(conn, run_id)
    return None if row is None else load_run_history(conn, path, row)


def _plan_of(
    recorded: RunHistory, find: Find, path: str | None, application: Application | None, args: Namespace
) -> Plan:
    from durable._debug.what_if import now_of  # noqa: PLC0415 - as above
    from durable._shell.rows.new_runs import new_run_id  # noqa: PLC0415 - it loads asyncio

    replace = _encoded(recorded, application, args.replace)
    if not args.into and not args.stand_ins:
        return Plan(recorded, path, replace, args.id or new_run_id(time.time()), None)
    now = now_of(recorded) if args.stand_ins else time.time()
    new_id = f"{recorded.run.run_id}:what-if" if args.stand_ins else args.id or new_run_id(now)
    copy = copy_of(recorded, find, run_id=new_id, at=args.at, replace=replace, now=now)
    if copy.absent:
        raise CommandError(_absent(copy.absent[0]))
    return Plan(recorded, path, replace, new_id, copy)


def _encoded(
    recorded: RunHistory, application: Application | None, given: Sequence[tuple[str, Any]]
) -> dict[str, Payload]:
    """
    Outcomes by position, as they are recorded: by what the application says that a command returns.

    Raises:
        CommandError: One is not what it returns.
    """
    from durable._debug.replay import as_definitions  # noqa: PLC0415 - help answers sooner without
    from durable._debug.what_if import types_at  # noqa: PLC0415 - it loads asyncio

    codec = Codec() if application is None else application.codec
    positions = [position for position, _ in given]
    if repeated := {position for position in positions if positions.count(position) > 1}:
        msg = f"the outcome at {', '.join(sorted(repeated))} is replaced twice"
        raise CommandError(msg)
    types = {} if application is None else types_at(recorded, positions, as_definitions(application.definitions))
    found: dict[str, Payload] = {}
    for position, value in given:
        command = command_at(recorded, position)
        what = f"the replacement at {position}" + (f" ({command.describe()})" if command is not None else "")
        type_ = types.get(position, Any)
        try:
            found[position] = codec.encode(codec.from_plain(value, type_), type_, where=what)
        except DecodeError as error:
            raise misfit_error(what, error) from None
        except RecordError as error:
            raise CommandError(str(error)) from error
    return found


def _absent(absent: Absent) -> str:
    return (
        f"child {absent.run_id} at {absent.position} of run {absent.parent} has no outcome yet, and its run is not at "
        f"hand: export with --tree, or give its outcome with --replace {absent.position}=JSON"
    )


# --- what options mean -----------------------------------------------------------------------------------


def replacement(text: str) -> tuple[str, Any]:
    """
    ``POSITION=JSON`` on the command line.

    Raises:
        ArgumentTypeError: It is none.
    """
    position, equals, value = text.partition("=")
    if not equals or not position or not all(part.isdecimal() for part in position.split(".")):
        msg = f"{text!r} replaces nothing: give POSITION=JSON, as 3.1='\"ok\"'"
        raise ArgumentTypeError(msg)
    return position, json_argument(value)


def signal(text: str) -> tuple[str, Any]:
    """
    ``NAME=JSON`` on the command line.

    Raises:
        ArgumentTypeError: It is none.
    """
    name, equals, value = text_argument(text).partition("=")
    if not name or not equals:
        msg = f"{text!r} is not a signal: give NAME=JSON"
        raise ArgumentTypeError(msg)
    return name, json_argument(value)
