"""
The commands by name, and what happens around each: arguments in, exit code out.

The table below is all that ``durable --help`` needs. The module of a command has two functions:
``configure(command, parser)`` declares its arguments, ``run(command, args, out)`` carries it out
and returns the exit code.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final, NamedTuple

from durable._cli.terminal.output import Output, printable
from durable._cli.terminal.problems import INTERRUPTED, OK, USAGE, CommandError, code_of
from durable.errors import DurableError


class Subcommand(NamedTuple):
    """A command: the module that has it, and what it is for."""

    module: str
    summary: str


#: Each is a room of `commands`.
_GROUPS: Final[dict[str, dict[str, Subcommand]]] = {
    "look": {
        "list": Subcommand("list", "runs, newest first"),
        "show": Subcommand("show", "one run on a page: status, result, error, why it waits, steps, children"),
        "history": Subcommand("history", "the recorded events of a run"),
        "watch": Subcommand("watch", "a run as it goes: a line for each change, with a bar for its progress"),
        "tail": Subcommand("tail", "what a run emits to a stream, from the beginning to its end"),
        "graph": Subcommand("graph", "a run as a drawing: text, mermaid, dot or svg"),
        "stats": Subcommand("stats", "counts and sizes of a journal"),
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
        "version": Subcommand("version", "versions of durable, Python, SQLite and the journal's format"),
    },
}
COMMANDS: Final = {name: (group, command) for group, commands in _GROUPS.items() for name, command in commands.items()}

#: Characters of an error that was not expected: it may quote what the file holds.
_LONGEST_COMPLAINT: Final = 500

_AFTER = """\
environment:
  DURABLE_DB    the journal, where --db is not given
  DURABLE_APP   the application, where --app is not given: pkg.mod, or pkg.mod:name
  NO_COLOR      no colours

exit codes: 0 all is well, 1 something was found, 2 wrong usage, 3 no such run or file

`durable COMMAND --help` explains a command."""


def main(argv: Sequence[str] | None = None) -> int:
    """
    Carry out one command.

    Args:
        argv: Its name and arguments; by default those of the process.

    Returns:
        The exit code: 0 well, 1 a finding, 2 wrong usage, 3 not found.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    if not given or given[0] in ("-h", "--help", "help"):
        if given[1:] and given[1] in COMMANDS:
            return main([given[1], "--help"])
        sys.stdout.write(_overview())
        return OK if given else USAGE
    if given[0] == "--version":
        given[0] = "version"
    name = given[0]
    if name not in COMMANDS:
        return _complain(f"durable: no command is called {name!r}{_meant(name)}. `durable --help` lists them", USAGE)
    try:
        return _carry_out(name, given[1:])
    except SystemExit as ended:  # argparse's, for help or wrong arguments: nothing is added, since it has said so
        return ended.code if isinstance(ended.code, int) else USAGE
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # `durable list | head`: the reader has seen enough, and an error would only be noise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return OK
    except CommandError as error:
        return _complain(f"durable {name}: {error}", error.code)
    except DurableError as error:
        return _complain(f"durable {name}: {error}", code_of(error))
    except Exception as error:  # a file may hold anything: what nobody thought of is told in a line, too
        if os.environ.get("DURABLE_TRACEBACK"):
            raise
        said = printable(f"{type(error).__name__}: {error}"[:_LONGEST_COMPLAINT])
        return _complain(f"durable {name}: {said} (DURABLE_TRACEBACK=1 shows where)", USAGE)


def _carry_out(name: str, given: Sequence[str]) -> int:
    group, command = COMMANDS[name]
    module: Any = import_module(f"durable._cli.commands.{group.replace(' ', '_')}.{command.module}")
    parser = argparse.ArgumentParser(
        prog=f"durable {name}",
        description=f"{command.summary[0].upper()}{command.summary[1:]}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.configure(name, parser)
    parser.add_argument("--json", action="store_true", help="write JSON, for programs; lists as one object a line")
    # Options may stand between runs: `cancel a --reason x b`. (argparse then takes what follows a "--" for options.)
    args = parser.parse_args(given) if "--" in given else parser.parse_intermixed_args(given)
    out = Output(json=args.json)
    code: int = module.run(name, args, out)
    out.flush()
    return code


def _overview() -> str:
    lines = [
        "usage: durable COMMAND [--db FILE] ...",
        "",
        "See every run of a journal, step through it, change it, and change its code safely.",
        "Works on a live file beside its engine, on a copy, and on exported journals.",
        "",
    ]
    for group, commands in _GROUPS.items():
        lines.append(f"{group}:")
        lines += [f"  {name:<10} {command.summary}" for name, command in commands.items()]
        lines.append("")
    return "\n".join([*lines, _AFTER, ""])


def _meant(name: str) -> str:
    import difflib  # noqa: PLC0415 - for mistakes only

    near = difflib.get_close_matches(name, COMMANDS, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _complain(message: str, code: int) -> int:
    from durable._cli.terminal.output import printable  # noqa: PLC0415 - for mistakes only

    sys.stderr.write("\n".join([*map(printable, message.split("\n")), ""]))
    return code
