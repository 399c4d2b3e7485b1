"""
The commands of the debugger: how each is typed, and what it does.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Command(NamedTuple):
    """How it is typed, and what it does."""

    usage: str
    does: str


#: In the order in which `help` lists them.
COMMANDS: Final[dict[str, Command]] = {
    "next": Command("next [N]", "go on to the next stop, or N stops"),
    "back": Command("back [N]", "go back to the stop before, or N stops"),
    "goto": Command("goto POSITION | #STOP", "go to the command at a position (3.1.0), or to a stop (#12)"),
    "first": Command("first", "go to the first stop"),
    "last": Command("last", "go to the last stop: where the run ended, waits, or cannot go on"),
    "continue": Command("continue", "go on to where a breakpoint is met; without one, to the last stop"),
    "rcontinue": Command("rcontinue", "go back to where a breakpoint is met; without one, to the first stop"),
    "find": Command("find EXPR", "go to the first stop at which it is true; where it raises, it is not"),
    "list": Command("list [N]", "the source around here, N lines of it; the current line is marked"),
    "locals": Command("locals", "local variables; * marks what changed since this code's stop before"),
    "print": Command("print EXPR", "the value of an expression here, in one line; it changes nothing"),
    "pp": Command("pp EXPR", "all of the value of an expression"),
    "event": Command("event", "what is recorded of the command here, what led here, what came of it"),
    "where": Command("where [all]", "the functions that stand here, outermost first; or those of all strands"),
    "up": Command("up", "look at the function that awaits this one"),
    "down": Command("down", "look at the function that this one awaits"),
    "strands": Command("strands", "the threads of control that are open, and what each waits for"),
    "history": Command("history [N]", "the commands around here, N on each side"),
    "break": Command("break NAME | LINE | FILE:LINE | if EXPR", "where continue stops"),
    "breaks": Command("breaks", "the breakpoints"),
    "delete": Command("delete N | all", "remove breakpoints"),
    "pdb": Command("pdb", "Python's own debugger, here: n and s go on line by line, c and q come back"),
    "help": Command("help [COMMAND]", "what there is"),
    "quit": Command("quit", "leave"),
}
ALIASES: Final = {
    "n": "next",
    "b": "back",
    "c": "continue",
    "rc": "rcontinue",
    "l": "list",
    "p": "print",
    "w": "where",
    "h": "help",
    "q": "quit",
}


class CommandFailedError(Exception):
    """A command could not do what it was asked for; the message is for the person at the prompt."""


def full_name(name: str) -> str:
    """
    The command that *name* means: itself, an alias, or an unambiguous beginning.

    Raises:
        CommandFailedError: It means none, or several.
    """
    if name in COMMANDS:
        return name
    if name in ALIASES:
        return ALIASES[name]
    found = [each for each in COMMANDS if each.startswith(name)]
    if len(found) == 1:
        return found[0]
    msg = f"{name!r} could be {', '.join(found)}" if found else f"no command is called {name!r}: `help` lists them"
    raise CommandFailedError(msg)


def help_lines(name: str = "") -> list[str]:
    """What `help` shows: all commands, or one."""
    if name:
        command = COMMANDS[full_name(name)]
        return [f"{command.usage}: {command.does}"]
    width = max(len(command.usage) for command in COMMANDS.values())
    lines = [f"  {command.usage:<{width}}  {command.does}" for command in COMMANDS.values()]
    aliases = ", ".join(f"{alias} is {name}" for alias, name in ALIASES.items())
    return [*lines, f"Any clear beginning will do; {aliases}.", "An empty line repeats next and back."]


def count(text: str, default: int = 1) -> int:
    """
    The number that a command was given, or *default*.

    Raises:
        CommandFailedError: It is none.
    """
    if not text:
        return default
    if not text.isdecimal() or len(text) > 9:  # noqa: PLR2004 - more stops than any run has
        msg = f"a number is needed, found {text!r}"
        raise CommandFailedError(msg)
    return int(text)


def expression(text: str, usage: str) -> str:
    """
    The expression that a command was given.

    Raises:
        CommandFailedError: There is none.
    """
    if not text:
        msg = f"an expression is needed, as in: {usage}"
        raise CommandFailedError(msg)
    return text
