"""
The debugger at a terminal: lines that were typed are kept, and Ctrl-C drops the one that is being typed.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Generator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from durable._debug.session import Session

#: Lines that the history file keeps.
_HISTORY_LINES = 1_000


def run_prompt(session: Session) -> None:
    """Ask for commands until the person leaves, by `quit` or Ctrl-D."""
    with _history():
        while True:
            try:
                session.cmdloop()
            except KeyboardInterrupt:
                session.say("")
            else:
                return


def history_file() -> str:
    """Where the lines that were typed are kept, mode 0600, in the user's state folder."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(state, "durable", "debug_history")


@contextlib.contextmanager
def _history() -> Generator[None]:
    """The lines of sessions before, and those of this one, where Python has readline."""
    try:
        import readline  # noqa: PLC0415 - not everywhere, and only at a prompt
    except ImportError:
        yield
        return
    path = history_file()
    with contextlib.suppress(OSError):
        readline.read_history_file(path)
    if "libedit" in (readline.__doc__ or ""):  # to which `cmd` speaks as to readline, before Python 3.13
        readline.parse_and_bind("bind ^I rl_complete")
    try:
        yield
    finally:
        readline.set_history_length(_HISTORY_LINES)
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            with open(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600), "w", encoding="utf-8"):
                pass
            readline.write_history_file(path)


def is_terminal() -> bool:
    """Whether a person can be asked."""
    return sys.stdin.isatty()
