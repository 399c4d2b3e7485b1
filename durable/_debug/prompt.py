"""
The debugger at a terminal, with completion and a history of its own; or fed by a script.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from durable._debug.session import Session

PROMPT = "(debug) "
#: Lines that the history file keeps.
_HISTORY_LINES = 1_000


def run_script(session: Session, commands: TextIO, write: Callable[[str], None]) -> bool:
    """
    Carry out commands, a line each, echoed so that the output reads like a session; whether all succeeded.

    What `pdb` needs is read from the same stream. Lines that begin with ``#`` are comments.
    """
    well = True
    while not session.done and (line := commands.readline()):
        text = line.strip()
        if text.startswith("#") and not text[1:2].isdecimal():
            continue
        write(f"{PROMPT}{text}".rstrip())
        for shown in session.carry_out(text):
            write(shown)
        well = well and not session.failed
    return well


def run_prompt(session: Session, write: Callable[[str], None]) -> None:
    """Ask for commands until the person leaves, by `quit` or Ctrl-D. Ctrl-C drops the line."""
    with _readline(session):
        while not session.done:
            try:
                line = input(PROMPT)
            except EOFError:
                write("")
                return
            except KeyboardInterrupt:
                write("")
                continue
            for shown in session.carry_out(line):
                write(shown)


def history_file() -> str:
    """Where the lines that were typed are kept, mode 0600, in the user's state folder."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(state, "durable", "debug_history")


@contextlib.contextmanager
def _readline(session: Session) -> Generator[None]:
    """Completion and history for the length of the block, where Python has readline."""
    try:
        import readline  # noqa: PLC0415 - not everywhere, and only at a prompt
    except ImportError:
        yield
        return
    path = history_file()
    with contextlib.suppress(OSError):
        readline.read_history_file(path)

    def complete(text: str, state: int) -> str | None:
        found = session.completions(text, readline.get_line_buffer())
        return found[state] if state < len(found) else None

    before = readline.get_completer()
    readline.set_completer(complete)
    readline.set_completer_delims(" \t\n()[]{},:=+-*/<>\"'")
    readline.parse_and_bind("bind ^I rl_complete" if "libedit" in (readline.__doc__ or "") else "tab: complete")
    try:
        yield
    finally:
        readline.set_completer(before)
        readline.set_history_length(_HISTORY_LINES)
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            with open(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600), "w", encoding="utf-8"):
                pass
            readline.write_history_file(path)


def is_terminal() -> bool:
    """Whether a person can be asked."""
    return sys.stdin.isatty()
