"""
``durable debug``: walk through a recorded run, forward and backward.
"""

from __future__ import annotations

import io
import os
import sys
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from typing import TYPE_CHECKING, TextIO

from durable._cli.applications import add_application, application_of
from durable._cli.clusters import recorded_anywhere
from durable._cli.journals.files import add_database
from durable._cli.journals.finding import named_in
from durable._cli.journals.recorded import Damaged
from durable._cli.terminal.arguments import add_cluster
from durable._cli.terminal.output import Output
from durable._cli.terminal.problems import FINDING, NOT_FOUND, OK, USAGE, CommandError
from durable._core.recorded.export_format import RunHistory
from durable._debug.prompt import is_terminal, run_prompt
from durable._debug.replay import as_definitions, definition_of
from durable._debug.session import Session
from durable._debug.stepping import ReplayPdb
from durable._shell.reports.exporting import read_histories

if TYPE_CHECKING:
    from pdb import Pdb

_EPILOG = """\
examples:
  durable debug 019a3b --db rides.db --app rides
  durable debug failed.jsonl --app rides --at 3.1.0
  durable debug failed.jsonl --app rides -c last -c 'print total' -c back

The workflow's code is replayed over its recorded history: no step is executed, nothing is written, and the
locals are the real ones. The journal is read once, and not held.

commands:
"""


def configure(_command: str, parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("run", metavar="RUN|FILE", help="a run of the journal, or an exported journal")
    parser.add_argument("of_file", nargs="?", metavar="RUN", help="which run, of an exported journal with several")
    add_database(parser)
    add_cluster(parser)
    add_application(parser)
    parser.add_argument("--at", metavar="POSITION", help="begin at this command")
    parser.add_argument("--script", metavar="FILE", help="commands, one a line (- is standard input)")
    parser.add_argument("-c", dest="commands", action="append", metavar="COMMAND", help="a command; may be given again")
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.epilog = _EPILOG + "\n".join(Session.help_lines())


def run(_command: str, args: Namespace, out: Output) -> int:
    """Debug one run; FINDING if a command of a script failed."""
    if args.json:
        msg = "a session is for people; for programs there is `durable trace --json`"
        raise CommandError(msg, USAGE)
    recorded = _recorded(args)
    application = application_of(args)
    definition = definition_of(recorded, as_definitions(application.definitions))
    script = _script(args)

    def new_pdb() -> Pdb:
        out.flush()
        return ReplayPdb() if script is None else ReplayPdb(script, sys.stdout)

    session = Session(definition, recorded, application.codec, new_pdb=new_pdb, write=out.line, script=script)
    session.say(*session.header())
    if args.at:
        session.onecmd(f"goto {args.at}")
        if session.failed:
            return FINDING
    if script is None:
        run_prompt(session)
        return OK
    session.cmdloop()
    return FINDING if session.failed else OK


def _recorded(args: Namespace) -> RunHistory:
    if os.path.isfile(args.run):
        found = read_histories(args.run)
        if args.of_file is None:
            named = [each for each in found if each.run.kind != "job"] or found
        else:
            named = named_in(found, args.of_file)
        if len(named) != 1:
            names = ", ".join(each.run.run_id for each in (named or found)[:5])
            msg = f"{args.run} has {len(named)} such runs; name one of: {names}"
            raise CommandError(msg, USAGE if named else NOT_FOUND)
        return named[0]
    args.runs = [args.run]
    for recorded in recorded_anywhere(args, time.time(), filters=False):
        if isinstance(recorded, Damaged):
            raise recorded.error
        return recorded
    raise AssertionError  # pragma: no cover - one was asked for


def _script(args: Namespace) -> TextIO | None:
    if args.commands:
        return io.StringIO("\n".join(args.commands) + "\n")
    if args.script and args.script != "-":
        try:
            with open(args.script, encoding="utf-8") as file:
                return io.StringIO(file.read())
        except OSError as error:
            msg = f"cannot read {args.script}: {error.strerror}"
            raise CommandError(msg, NOT_FOUND) from None
    return None if is_terminal() and not args.script else sys.stdin
