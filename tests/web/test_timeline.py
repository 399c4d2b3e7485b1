"""
A run over time, from its events: pure, so that every case is a list.
"""

import sqlite3

import corner_shop as shop
import pytest
from attrs import NOTHING
from attrs import fields as fields_of_class

from durable._core.journal.events import (
    ChildStarted,
    ChildSucceeded,
    RunStarted,
    SlotAwaited,
    StepRetrying,
    StepStarted,
    StepSucceeded,
    TimerFired,
    TimerSet,
)
from durable._shell.reads.event_rows import event_rows, readable_events
from durable._shell.reads.run_rows import require_run
from durable.web.timeline import axis, lines_of, span_of


def bars(line):
    return [(bar.kind, bar.status, bar.start, bar.end, bar.attempt) for bar in line.bars]


@pytest.fixture
def recorded(shop_db):
    conn = sqlite3.connect(shop_db)
    row = require_run(conn, "bad")
    events, _ = readable_events(event_rows(conn, row.run), str(shop_db), row)
    conn.close()
    return events


def test_each_command_has_a_line_and_each_attempt_a_bar(recorded):
    """
    In the order in which they were asked for; members of a group stand below it.
    """
    lines = lines_of(recorded)
    assert [(line.position, line.depth) for line in lines] == [("0", 0), ("1", 0), ("1.0", 1), ("1.1", 1), ("2", 0)]
    assert [line.label for line in lines] == ["price", "gather of 2", "tell", "cool down", "charge"]
    assert bars(lines[-1])[0][:2] == ("attempt", "failed")
    assert all(bar.end is not None and bar.end >= bar.start for line in lines for bar in line.bars)
    assert lines[2].run_id == "bad~.1.0"


def made(cls, **fields):
    """An event with what the test is about; other fields as a file would have them."""
    defaults = {"site": "a.py:1", "digest": "", "value": None, "name": "s", "position": "0", "attempt": 1}
    given = {}
    for each in fields_of_class(cls):
        name = each.name.lstrip("_")
        if name in fields:
            given[name] = fields[name]
        elif each.default is NOTHING:
            given[name] = defaults.get(name, 0)
    return cls(**given)


def test_retries_and_slots_are_seen_as_waiting(recorded):
    """
    Between two attempts there is the delay, and before the first the wait for a slot.
    """
    start = recorded[0]
    events = [
        start,
        made(SlotAwaited, at=1.0, limit="l"),
        made(StepStarted, at=2.0),
        made(StepRetrying, at=3.0, fire_at=5.0),
        made(StepStarted, at=5.0, attempt=2),
        made(StepSucceeded, at=6.0, attempt=2, value="1"),
    ]
    (line,) = lines_of(events)
    assert [(kind, start, end) for kind, _, start, end, _ in bars(line)] == [
        ("slot", 1.0, 2.0), ("attempt", 2.0, 3.0), ("retry", 3.0, 5.0), ("attempt", 5.0, 6.0),
    ]  # fmt: skip
    assert [status for _, status, *_ in bars(line)] == ["open", "failed", "retrying", "succeeded"]


def test_what_is_open_has_no_end(recorded):
    """
    A step that is running, and a timer that has not fired.
    """
    (line,) = lines_of([recorded[0], made(StepStarted, at=2.0)])
    assert bars(line) == [("attempt", "open", 2.0, None, 1)]
    assert span_of([line], 1.0, 10.0) == (1.0, 10.0)
    (line,) = lines_of([recorded[0], made(TimerSet, at=2.0, fire_at=9.0, name="sleep")])
    assert line.bars[0].end is None
    fired = [recorded[0], made(TimerSet, at=2.0, fire_at=9.0, name="sleep"), made(TimerFired, at=9.0)]
    assert bars(lines_of(fired)[0])[0][:4] == ("wait", "succeeded", 2.0, 9.0)


def test_children_stand_inside_where_their_events_were_read(recorded):
    """
    One level deeper than the command that started them.
    """
    child = [recorded[0], made(StepStarted, at=3.0, name="inner"), made(StepSucceeded, at=4.0, value="1")]
    parent = [
        recorded[0],
        made(ChildStarted, at=2.0, run_id="p~.0", name="kid", awaited=True),
        made(ChildSucceeded, at=5.0, value="1", run_id="p~.0"),
    ]
    assert [line.label for line in lines_of(parent)] == ["kid"]
    lines = lines_of(parent, {"p~.0": child})
    assert [(line.label, line.depth, line.of_run) for line in lines] == [("kid", 0, None), ("inner", 1, "p~.0")]


@pytest.mark.parametrize("length", [0.001, 0.3, 7, 61, 3_600, 90_000, 10_000_000])
def test_the_axis_has_few_marks_at_round_numbers(length):
    """
    Never more than eight, whatever the length, and each within what is shown.
    """
    marks = axis(100.0, 100.0 + length, 100.0)
    assert 2 <= len(marks) <= 8
    assert all(0 <= mark.at <= 1.0001 for mark in marks)


def test_nothing_is_no_trouble():
    """
    A run without commands, and no length at all.
    """
    assert axis(5.0, 5.0, 5.0) == []
    assert lines_of([]) == []
    assert isinstance(shop.HOSTILE, str)
    assert RunStarted.kind == 1
