"""
A trip that fails leaves nothing booked, whenever the process dies and whatever goes wrong beside it.
"""

import inspect

import pytest

from durable.testing import CONSISTENT, STRICT, Scenario, every_crash


@pytest.fixture
def all_or_nothing(example):
    """
    An invariant: whose trip succeeded has three bookings, whose failed none.
    """

    def check(found, _expected):
        booked = sorted(example.BOOKED.values())
        [run] = found.runs.values()
        wanted = ["car", "flight", "hotel"] if run.status == "succeeded" else []
        if booked != wanted:
            yield f"the trip is {run.status} and there is booked {booked}"

    return check


@pytest.mark.parametrize("traveller", ["Ada", "Bob"])
def test_a_trip_survives_a_crash_at_every_commit(example, traveller, all_or_nothing):
    """
    All of it is booked, or nothing.
    """
    every_crash(
        example.trip(traveller),
        [example.trip],
        before=example.BOOKED.clear,
        invariants=[*STRICT, all_or_nothing],
    )


@pytest.mark.long
def test_what_failed_is_undone_whatever_else_goes_wrong(example, all_or_nothing):
    """
    An error and a cancellation at each line, but for that of the block itself: where Python leaves it, nothing guards.

    What strikes as a frame is left (a yield, a return) strikes behind every handler, too.
    """
    played = Scenario(
        example.trip("Bob"), [example.trip], before=example.BOOKED.clear, invariants=[*CONSISTENT, all_or_nothing]
    )
    source = inspect.getsource(example).splitlines()
    faults = [
        fault
        for fault in played.faults(("exception", "cancellation"))
        if fault.site.event == "line" and "saga()" not in source[fault.site.line - 1]
    ]
    assert len(faults) > 20
    for fault in faults:
        played.strike(fault)
