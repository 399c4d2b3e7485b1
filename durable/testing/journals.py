"""
Journals in tests: as lines, compared, and replayed from files.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from attrs import fields as attrs_fields

from durable._core.journal.events import Event
from durable._core.recorded.export_format import RunHistory
from durable._shell.handles.handle import HistoryEvent
from durable._shell.reports.exporting import read_histories

#: Events in whatever form: of `run.history()`, a `DryRun`, a `RunHistory`.
AnyEvents: TypeAlias = Iterable[HistoryEvent | Event] | RunHistory

#: What differs from run to run without meaning anything.
_LEFT_OUT = frozenset(("at", "site", "fire_at", "seed", "digest"))


def _events(history: AnyEvents) -> list[Event]:
    if isinstance(history, RunHistory):
        return list(history.events)
    return [each.event if isinstance(each, HistoryEvent) else each for each in history]


def journal_lines(history: AnyEvents, *, ignoring: Iterable[str] = ()) -> list[str]:
    """
    A history as lines, one an event, without what differs from run to run (times, lines of source, seeds).

    Args:
        history: Events of one run.
        ignoring: Names of further fields to leave out, as ``run_id``.
    """
    left_out = _LEFT_OUT | set(ignoring)
    lines = []
    for event in _events(history):
        told = [
            f"{attribute.name}={_value(getattr(event, attribute.name))}"
            for attribute in attrs_fields(type(event))
            if attribute.name not in left_out and getattr(event, attribute.name) not in (None, "")
        ]
        lines.append(f"{type(event).__name__}({', '.join(told)})")
    return lines


def _value(value: Any) -> str:
    text = repr(value)
    # A failure's traceback is cut off, because it has lines of source in it, which change with every edit.
    return text if "traceback" not in text else f"{text.partition('traceback')[0]}...'"


def assert_same_journal(found: AnyEvents, expected: AnyEvents, *, ignoring: Iterable[str] = ()) -> None:
    """
    Fail, with a diff of the two, unless both histories are of the same commands and outcomes.

    Times, source lines and seeds are not compared, nor the fields in *ignoring*.
    """
    ignoring = list(ignoring)
    was, now = journal_lines(expected, ignoring=ignoring), journal_lines(found, ignoring=ignoring)
    if was != now:
        diff = "\n".join(difflib.unified_diff(was, now, "expected", "found", lineterm="", n=2))
        raise AssertionError(f"the journals differ:\n{diff}")


def assert_commands(history: AnyEvents, expected: Sequence[str]) -> None:
    """
    Fail, with a diff, unless the workflow asked for exactly these commands: ``["0 step 'charge'", "1 sleep"]``.
    """
    found = [f"{event.position} {event.describe()}" for event in _events(history) if event.category == "command"]
    commands = list(dict.fromkeys(found))  # later attempts are the same command
    if commands != [*expected]:
        diff = "\n".join(difflib.unified_diff([*expected], commands, "expected", "found", lineterm="", n=99))
        raise AssertionError(f"other commands were asked for:\n{diff}")


def parametrize_histories(folder: str | os.PathLike[str], *, pattern: str = "*.jsonl") -> Any:
    """
    A decorator that runs a test once for each exported run in *folder*, as its argument ``history``.

        @parametrize_histories("tests/histories")
        def test_todays_code_takes_old_runs(history):
            replay(history, workflows).verify()

    Jobs are left out: they have no code to replay.

    Raises:
        ValueError: No such file is there: the test would pass without a test.
    """
    import pytest  # noqa: PLC0415 - no dependency of the library

    found = [
        (f"{path.stem}:{history.run.run_id}", history)
        for path in sorted(Path(folder).glob(pattern))
        for history in read_histories(path)
        if history.run.kind != "job"
    ]
    if not found:
        msg = f"no exported runs of workflows in {os.fspath(folder)} ({pattern})"
        raise ValueError(msg)
    return pytest.mark.parametrize("history", [history for _, history in found], ids=[name for name, _ in found])
