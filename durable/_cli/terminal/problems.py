"""Exit codes, and the errors that end a command with one sentence instead of a traceback."""

from __future__ import annotations

from typing import Final

from durable.errors import (
    DecodeError,
    DurableError,
    JournalAccessError,
    RunNotFoundError,
    ScheduleNotFoundError,
    UsageError,
)

#: All is well.
OK: Final = 0
#: The command did its work and found something: a divergence, a damaged file, a run that failed.
FINDING: Final = 1
#: The command could not be carried out as it was asked for.
USAGE: Final = 2
#: There is no such run, schedule or file.
NOT_FOUND: Final = 3
#: Ended by Ctrl-C, as shells count it.
INTERRUPTED: Final = 130


class CommandError(Exception):
    """Ends the command with *message* on standard error, and exit code *code*."""

    def __init__(self, message: str, code: int = USAGE) -> None:
        super().__init__(message)
        self.code = code


def misfit_error(what: str, error: DecodeError) -> CommandError:
    """That *what* was typed is not of the type that the application's code expects there."""
    place = f" at {error.path.removeprefix('$').removeprefix('.')}" if error.path != "$" else ""
    return CommandError(f"{what}{place}: expected {error.expected}: {error.reason}")


def code_of(error: DurableError) -> int:
    """The exit code for an error of the library's."""
    if isinstance(error, (RunNotFoundError, ScheduleNotFoundError)):
        return NOT_FOUND
    if isinstance(error, (UsageError, JournalAccessError)):
        return USAGE
    return FINDING
