"""
The states of a run: one list of them, for every room; what happens to a run in each is tested in `tests/contract`.
"""

import subprocess
import sys
from typing import get_args

from durable._cli.terminal.output import STATUS_COLOURS
from durable._core.journal.events import End
from durable._core.statuses import (
    ENDS,
    HELD,
    NEW,
    OPEN,
    RUN_TRANSITIONS,
    STATUSES,
    WAITS,
    Cause,
    EndStatus,
    Status,
    WaitKind,
    changed_by,
)
from tests.core import drawn_states


def test_each_status_is_of_an_open_run_or_an_end():
    """
    The lists are the types, so that a new status is in both.
    """
    assert set(STATUSES) == set(get_args(Status))
    assert set(ENDS) == set(get_args(EndStatus)) == {each.status for each in get_args(End)}
    assert set(HELD) < set(OPEN)
    assert set(WAITS) == set(get_args(WaitKind))


def test_every_status_is_reached_and_left_unless_it_is_an_end():
    """
    No run is lost: whatever holds it, somebody can let it continue or end it.
    """
    assert set(RUN_TRANSITIONS) == {NEW, *STATUSES}
    reached = {after for row in RUN_TRANSITIONS.values() for after in row}
    assert reached == set(STATUSES)
    assert [status for status in STATUSES if not RUN_TRANSITIONS[status]] == ["succeeded"]


def test_requests_know_in_which_statuses_they_change_something():
    """
    What `durable pause`, `resume` and `retry` choose among, and what is refused.
    """
    assert changed_by(Cause.PAUSE) == ("pending", "running", "waiting")
    assert changed_by(Cause.RESUME) == HELD
    assert changed_by(Cause.RETRY) == ("failed", "cancelled")


def test_every_status_has_a_colour():
    """
    A table of runs leaves none out.
    """
    assert set(STATUS_COLOURS) == set(STATUSES)


def test_the_module_is_light():
    """
    The command line reads it before anything else is loaded: it costs what the standard library does.
    """
    code = "import sys, durable._core.statuses; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"attrs", "attr", "cattrs", "asyncio", "sqlite3", "json"} & set(loaded)


def test_the_page_shows_the_tables_as_they_are():
    """
    `durable/README.md` is drawn from the code; `python -m tests.core.drawn_states` draws it anew.
    """
    page = drawn_states.PAGE.read_text(encoding="utf-8")
    assert page == drawn_states.redrawn(page)
    for name, draw in drawn_states.DRAWN.items():
        assert f"{drawn_states.BEGIN.format(name=name)}\n\n{draw()}\n\n{drawn_states.END}\n" in page
