"""
Which run is meant: by its id, by the beginning of it, or by its key.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from durable._cli.terminal.problems import NOT_FOUND, CommandError
from durable._core import run_ids
from durable._shell.reads.run_rows import RunRow, first_and_last_id, run_by_id, run_by_key, runs_by_prefix

if TYPE_CHECKING:  # it brings attrs, and the commands that list read without
    from durable._core.recorded.export_format import RunHistory

#: For ``help=`` wherever a command takes a run.
RUN_HELP: Final = "its id, the beginning of it, or key:KEY"
#: Candidates that an ambiguous beginning names: enough to choose from, and a line or two.
_NAMED: Final = 5
_KEY: Final = "key:"
#: Ids as `new_run_id` makes them, and what begins with one; and such a one without what is there by chance.
_MADE: Final = re.compile("(?P<root>(?P<moment>[0-9a-f]{11})-[0-9a-f]{10})(?=[~/:]|$)")
_SHORT: Final = re.compile("[0-9a-f]{11}(?=[~/:]|$)")


def find_run(conn: sqlite3.Connection, text: str) -> RunRow:
    """
    The run that *text* means: an id, the beginning of one, or ``key:KEY``.

    The runs that a run has started have ids that begin as its own does, and do not make it ambiguous.

    Raises:
        CommandError: There is none (exit code 3), or more than one (exit code 2).
    """
    if not text or not _storable(text):
        msg = f"no run can be called {text!r}"
        raise CommandError(msg, NOT_FOUND)
    if text.startswith(_KEY):
        return _by_key(conn, text.removeprefix(_KEY))
    found = run_by_id(conn, text)
    if found is not None:
        return found
    found = _by_short_id(conn, text)
    if found is not None:
        return found
    near = runs_by_prefix(conn, text, _NAMED + 1)
    if len(near) == 1:
        return near[0]
    if near:
        raise CommandError(_ambiguous(text, near))
    hint = f". A run has this key: name it as {_KEY}{text}" if run_by_key(conn, text) else " (it may have been pruned)"
    msg = f"no run of this journal has an id that is, or begins with, {text!r}{hint}"
    raise CommandError(msg, NOT_FOUND)


def short_ids(conn: sqlite3.Connection, run_ids: Iterable[str]) -> dict[str, str]:
    """
    For each id a shorter one that means the same run to `find_run`, where there is one.

    Ids that are made begin with a moment, to the millisecond, which mostly tells a run from all others; and those of
    what it started, continued as, or has for members begin with its id.
    """
    found: dict[str, str] = {}
    for run_id in run_ids:
        made = _MADE.match(run_id)
        if made and _root(conn, made["moment"]) == made["root"]:
            found[run_id] = made["moment"] + run_id[made.end() :]
    return found


def named_in(runs: Iterable[RunHistory], text: str) -> list[RunHistory]:
    """Those of some runs, of an exported journal, that *text* may mean, by the rules of `find_run`."""
    if text.startswith(_KEY):
        return [each for each in runs if each.run.key == text.removeprefix(_KEY)]
    near = {each.run.run_id: each for each in runs if each.run.run_id.startswith(text)}
    if text in near:
        return [near[text]]
    return [each for run_id, each in near.items() if not run_ids.parent(run_id[len(text) :])]


def _by_short_id(conn: sqlite3.Connection, text: str) -> RunRow | None:
    """The run that `short_ids` calls so."""
    short = _SHORT.match(text)
    root = None if short is None else _root(conn, short[0])
    return None if short is None or root is None else run_by_id(conn, root + text[short.end() :])


def _root(conn: sqlite3.Connection, moment: str) -> str | None:
    """The one id that was made at *moment*, and that all others from then begin with; None if there are several."""
    first, last = first_and_last_id(conn, f"{moment}-", f"{moment}.")
    made = None if first is None else _MADE.match(first)
    return made["root"] if made and last is not None and last.startswith(made["root"]) else None


def _by_key(conn: sqlite3.Connection, key: str) -> RunRow:
    found = run_by_key(conn, key)
    if found is None:
        msg = f"no run of this journal has the key {key!r} (it may have been pruned)"
        raise CommandError(msg, NOT_FOUND)
    return found


def _ambiguous(text: str, near: list[RunRow]) -> str:
    named = ", ".join(f"{row.run_id!r} ({row.workflow!r}, {row.status})" for row in near[:_NAMED])
    more = ", and more" if len(near) > _NAMED else ""
    return f"{text!r} could be more than one run: {named}{more}. Type more of the id"


def _storable(text: str) -> bool:
    """Whether SQLite can be asked for it: not so where the command line's bytes were no text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
