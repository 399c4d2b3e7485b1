"""
The commands by name, and what happens around each: arguments in, exit code out.

The table of commands is all that ``durable --help`` needs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

from durable._cli.table import COMMANDS, GROUPS, module_of, parser_of
from durable._cli.terminal.output import Output, printable
from durable._cli.terminal.problems import INTERRUPTED, OK, USAGE, CommandError, code_of
from durable.errors import DurableError

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
    parser = parser_of(name)
    # Options may stand between runs: `cancel a --reason x b`. (argparse then takes what follows a "--" for options.)
    args = parser.parse_args(given) if "--" in given else parser.parse_intermixed_args(given)
    out = Output(json=args.json)
    code: int = module_of(name).run(name, args, out)
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
    for group, commands in GROUPS.items():
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
