"""
The commands by name: what each is for, and where it is.

The module of a command has two functions: ``configure(command, parser)`` declares its arguments,
``run(command, args, out)`` carries it out and returns the exit code.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from typing import Any, Final, NamedTuple

from durable._cli.terminal.problems import USAGE, CommandError


class Subcommand(NamedTuple):
    """A command: the module that has it, and what it is for."""

    module: str
    summary: str


#: Each is a room of `commands`.
GROUPS: Final[dict[str, dict[str, Subcommand]]] = {
    "look": {
        "list": Subcommand("list", "runs, newest first"),
        "show": Subcommand("show", "one run on a page: status, result, error, why it waits, steps, children"),
        "history": Subcommand("history", "the recorded events of a run"),
        "watch": Subcommand("watch", "a run as it goes: a line for each change, with a bar for its progress"),
        "query": Subcommand("query", "what a query of its workflow says of a run, from what is recorded"),
        "tail": Subcommand("tail", "what a run emits to a stream, from the beginning to its end"),
        "graph": Subcommand("graph", "a run as a drawing: text, mermaid, dot or svg"),
        "stats": Subcommand("stats", "counts and sizes of a journal"),
        "queues": Subcommand("queues", "queues: what waits, what runs, which are paused"),
        "limits": Subcommand("limits", "limits: their numbers, who is inside, who waits"),
        "schedules": Subcommand("schedules", "schedules: when they tick next, what they started last"),
        "doctor": Subcommand("doctor", "look for what is wrong with a journal, or needs a person"),
    },
    "debug": {
        "debug": Subcommand("debug", "walk through a run, forward and backward, with its real locals"),
        "replay": Subcommand("replay", "run workflow code over recorded histories; execute nothing"),
        "trace": Subcommand("replay", "every command of a run, with its source line, outcome and locals"),
        "check": Subcommand("check", "which runs would today's code break? For CI, before a deploy"),
        "ui": Subcommand("ui", "a dashboard in the browser: runs, timelines, the debugger"),
        "diff": Subcommand("diff", "two runs side by side, from where they part"),
    },
    "change": {
        "start": Subcommand("start", "start a run"),
        "signal": Subcommand("requests", "send a signal to a run"),
        "ask": Subcommand("ask", "ask a running run something, and write its answer"),
        "complete": Subcommand("complete", "answer a callback by its token, or keep it alive"),
        "cancel": Subcommand("requests", "ask runs to end"),
        "pause": Subcommand("requests", "let runs begin nothing more until they are resumed"),
        "resume": Subcommand("requests", "resume paused or blocked runs"),
        "resolve": Subcommand("resolve", "say how a step has ended whose outcome is unknown"),
        "retry": Subcommand("requests", "resume failed runs from what failed"),
        "move": Subcommand("move", "runs between a file and a Temporal cluster"),
        "worker": Subcommand("worker", "execute an application's runs on a Temporal cluster"),
        "throttle": Subcommand("throttle", "other numbers for a queue or a limit than the program's"),
        "retry-hooks": Subcommand("requests", "call hooks of ended runs again that went wrong"),
        "delete": Subcommand("requests", "delete runs that have ended, and what they started"),
        "fork": Subcommand("fork", "what if: a copy of a run that continues from a position, with other outcomes"),
    },
    "keep house": {
        "export": Subcommand("transfer", "runs as a text file, one event a line"),
        "import": Subcommand("transfer", "exported runs into a journal"),
        "backup": Subcommand("transfer", "a verified copy of a journal, while it is in use"),
        "restore": Subcommand("restore", "a backup into the place of a journal, which is kept"),
        "prune": Subcommand("transfer", "delete runs that ended long ago"),
        "scrub": Subcommand("transfer", "write the file anew, without traces of what was deleted"),
        "completion": Subcommand("completion", "what a shell needs to complete commands: bash, zsh or fish"),
        "version": Subcommand("version", "versions of durable, Python, SQLite and the journal's format"),
    },
}
COMMANDS: Final = {name: (group, command) for group, commands in GROUPS.items() for name, command in commands.items()}


def parser_of(name: str) -> argparse.ArgumentParser:
    """What reads the arguments of a command."""
    summary = COMMANDS[name][1].summary
    parser = argparse.ArgumentParser(
        prog=f"durable {name}",
        description=f"{summary[0].upper()}{summary[1:]}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module_of(name).configure(name, parser)
    parser.add_argument("--json", action="store_true", help="write JSON, for programs; lists as one object a line")
    return parser


def module_of(name: str) -> Any:
    """
    The module that has it: it is loaded by who asks for it.

    Raises:
        CommandError: This is a program in one file, which was built without it.
    """
    group, command = COMMANDS[name]
    try:
        return import_module(f"durable._cli.commands.{group.replace(' ', '_')}.{command.module}")
    except ModuleNotFoundError as error:
        if not getattr(sys, "frozen", False):
            raise
        msg = "this program was built without a dashboard: let it `import durable.web`, and build it again"
        raise CommandError(msg, USAGE) from error
