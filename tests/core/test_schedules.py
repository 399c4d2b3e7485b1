"""
Schedules: when they tick, which missed ticks start runs, and what is refused where it is written.
"""

import itertools
import math
import sys
from datetime import datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from durable import Schedule, job, step
from durable._core.authoring.schedules import LATE, MOST_MISSED, decide
from durable.errors import DefinitionError

DAY = 86_400.0


@job
def report(day: str) -> str:
    return day


def at(text):
    """
    An instant, as epoch seconds.
    """
    return datetime.fromisoformat(text).timestamp()


def walls(schedule, after, upto):
    """
    What clocks in the schedule's zone show at its ticks.
    """
    ticks = schedule.ticks(at(after), at(upto), anchor=0.0, limit=100)
    return [schedule.local(tick).isoformat() for tick in ticks]


# --- cron ---------------------------------------------------------------------------------------


def test_cron_reads_the_wall_clock_of_its_zone():
    """
    Three o'clock in Berlin is 02:00 UTC in winter and 01:00 in summer.
    """
    nightly = Schedule("nightly", report("x"), cron="0 3 * * *", timezone="Europe/Berlin")
    assert nightly.next_after(at("2026-01-10T12:00+00:00"), anchor=0.0) == at("2026-01-11T02:00+00:00")
    assert nightly.next_after(at("2026-07-10T12:00+00:00"), anchor=0.0) == at("2026-07-11T01:00+00:00")


def test_a_time_that_daylight_saving_skips_comes_at_once_after_the_gap():
    """
    On 29 March 2026 there is no 02:30 in Berlin: that day's tick is at 03:00, and it is one.
    """
    nightly = Schedule("nightly", report("x"), cron="30 2 * * *", timezone="Europe/Berlin")
    assert walls(nightly, "2026-03-27T12:00+00:00", "2026-03-30T12:00+00:00") == [
        "2026-03-28T02:30:00+01:00",
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:30:00+02:00",
    ]


def test_a_time_that_daylight_saving_repeats_comes_once():
    """
    On 25 October 2026 there are two 02:30 in Berlin: the first is the tick.
    """
    nightly = Schedule("nightly", report("x"), cron="30 2 * * *", timezone="Europe/Berlin")
    assert walls(nightly, "2026-10-23T12:00+00:00", "2026-10-26T12:00+00:00") == [
        "2026-10-24T02:30:00+02:00",
        "2026-10-25T02:30:00+02:00",
        "2026-10-26T02:30:00+01:00",
    ]


def test_looking_during_the_repeated_hour_finds_the_next_day():
    """
    In the second 02:10 of that night the wall shows a time before the tick, which is over all the same.
    """
    nightly = Schedule("nightly", report("x"), cron="30 2 * * *", timezone="Europe/Berlin")
    second = at("2026-10-25T02:10+01:00")
    assert nightly.next_after(second, anchor=0.0) == at("2026-10-26T02:30+01:00")
    assert nightly.ticks(second - 2 * 3600, second, anchor=0.0, limit=9) == [at("2026-10-25T02:30+02:00")]


def test_an_hourly_cron_ticks_in_both_repeated_hours():
    """
    A wildcard means real time: 25 hours, 25 ticks.
    """
    hourly = Schedule("hourly", report("x"), cron="0 * * * *", timezone="Europe/Berlin")
    found = hourly.ticks(at("2026-10-24T22:00+00:00"), at("2026-10-25T23:00+00:00"), anchor=0.0, limit=100)
    assert len(found) == 25
    assert {later - earlier for earlier, later in itertools.pairwise(found)} == {3600.0}


CRONS = (
    "30 2 * * *",
    "*/20 * * * *",
    "0 1,2,3 * * *",
    "15,45 0-4 * * *",
    "0 0 * * *",
    "0 3 * * SUN",
    "0 0 L * *",
    "0 */2 * * *",
    "* 2 * * *",
)
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "America/Havana", "Australia/Lord_Howe", "Asia/Kolkata")


@example("0 */2 * * *", "Australia/Lord_Howe", 1_521_558_363, 12)  # half an hour repeats
@given(st.sampled_from(CRONS), st.sampled_from(ZONES), st.integers(1_500_000_000, 1_800_000_000), st.integers(1, 90))
def test_the_ticks_of_a_span_are_those_met_one_by_one(cron, zone, after, days):
    """
    Looked for backwards from its end (for the newest), or forwards from one to the next: the same ticks.
    """
    schedule = Schedule("any", report("x"), cron=cron, timezone=zone)
    upto = after + days * DAY
    met = []
    following = schedule.next_after(after, anchor=0.0)
    while following <= upto and len(met) < 200:
        met.append(following)
        following = schedule.next_after(following, anchor=0.0)
    upto = min(upto, following - 1)
    assert schedule.ticks(after, upto, anchor=0.0, limit=200) == met
    assert schedule.ticks(after, upto, anchor=0.0, limit=3) == met[-3:]


def test_a_cron_that_never_comes_is_refused():
    """
    There is no 30 February.
    """
    with pytest.raises(DefinitionError, match="Bad day-of-month"):
        Schedule("never", report("x"), cron="0 0 30 2 *")


# --- every --------------------------------------------------------------------------------------


def test_every_counts_from_its_anchor():
    """
    Multiples of the interval since the anchor: looking late moves none of them.
    """
    often = Schedule("often", report("x"), every=timedelta(minutes=10))
    assert often.next_after(1_000.0, anchor=1_000.0) == 1_600.0
    assert often.next_after(1_599.9, anchor=1_000.0) == 1_600.0
    assert often.next_after(1_600.0, anchor=1_000.0) == 2_200.0
    assert often.next_after(900.0, anchor=1_000.0) == 1_600.0
    assert often.ticks(1_600.0, 3_400.0, anchor=1_000.0, limit=9) == [2_200.0, 2_800.0, 3_400.0]


@given(st.floats(1.0, 1e6), st.floats(0.0, 2e9), st.floats(0.0, 1e8))
def test_the_next_tick_is_always_later(every, anchor, elapsed):
    """
    Whatever floating point makes of it: never the same tick twice.
    """
    schedule = Schedule("any", report("x"), every=every)
    first = schedule.next_after(anchor + elapsed, anchor=anchor)
    second = schedule.next_after(first, anchor=anchor)
    assert anchor + elapsed < first < second
    assert schedule.ticks(anchor + elapsed, second, anchor=anchor, limit=9) == [first, second]


def test_a_century_of_seconds_is_not_walked_through():
    """
    The newest ticks are found without counting up to them.
    """
    often = Schedule("often", report("x"), every=1)
    century = 100 * 365 * DAY
    assert often.ticks(0.0, century, anchor=0.0, limit=2) == [century - 1, century]


@pytest.mark.parametrize("when", [{"every": 60}, {"every": 7.3}, {"cron": "* * * * *"}])
@pytest.mark.parametrize(
    "since, until", [(0.0, 600.0), (-300.0, 299.9), (120.0, 120.0), (-1e6, -999_910.0), (61.0, 60.0)]
)
def test_ticks_of_the_past_are_those_that_were_due(when, since, until):
    """
    Both ends included, from before the anchor on, and by the same instants as ticks of the future.
    """
    schedule = Schedule("x", report("x"), **when)
    found = schedule.between(since, until, anchor=0.0, limit=10_000)
    assert all(since <= tick <= until for tick in found)
    step = 60.0 if "cron" in when else when["every"]
    first, last = math.ceil(since / step), math.floor(until / step)
    assert found == [number * step for number in range(first, last + 1)]
    assert found[-3:] == schedule.between(since, until, anchor=0.0, limit=3)


# --- what is started ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "missed, started, dropped",
    [("none", [], True), ("one", [3_000.0], True), ("all", [1_000.0, 2_000.0, 3_000.0], False)],
)
def test_ticks_without_an_engine_start_runs_as_the_policy_says(missed, started, dropped):
    """
    Every tick since the last one that is more than a minute ago was missed.
    """
    schedule = Schedule("x", report("x"), every=1_000, missed=missed)
    due = decide(schedule, anchor=0.0, after=0.0, now=3_000.0 + LATE)
    assert (due.late, due.on_time, due.dropped) == (started, [], dropped)


@pytest.mark.parametrize("missed", ["none", "one", "all"])
def test_a_tick_a_little_late_is_on_time(missed):
    """
    A minute is nothing: no longer than a restart takes.
    """
    schedule = Schedule("x", report("x"), every=1_000, missed=missed)
    due = decide(schedule, anchor=0.0, after=500.0, now=1_000.0 + LATE - 1)
    assert (due.late, due.on_time, due.dropped) == ([], [1_000.0], False)


def test_after_a_long_sleep_the_policy_holds_for_what_is_over_a_minute_late():
    """
    The tick of the moment starts its run in any case; the one run for those that were missed is then not needed.
    """
    for missed, late in (("none", []), ("one", []), ("all", [1_000.0, 2_000.0, 3_000.0, 4_000.0])):
        schedule = Schedule("x", report("x"), every=1_000, missed=missed)
        due = decide(schedule, anchor=0.0, after=500.0, now=5_010.0)
        assert (due.late, due.on_time, due.dropped) == (late, [5_000.0], not late)


def test_one_run_is_started_for_missed_ticks_unless_told_otherwise():
    """
    A nightly job of a machine that was off at night must not be left out in silence.
    """
    due = decide(Schedule("x", report("x"), every=1_000), anchor=0.0, after=500.0, now=3_500.0)
    assert (due.late, due.on_time) == ([3_000.0], [])


def test_all_is_bounded():
    """
    Of a month of seconds the newest thousand start runs, and it is told that there were more.
    """
    schedule = Schedule("x", report("x"), every=1, missed="all")
    due = decide(schedule, anchor=0.0, after=0.0, now=30 * DAY)
    assert len(due.late) == MOST_MISSED
    assert due.late[-1] == 30 * DAY - LATE
    assert due.dropped


def test_nothing_is_due_when_the_clock_was_set_back():
    """
    What was dealt with stays so.
    """
    schedule = Schedule("x", report("x"), every=10, missed="all")
    due = decide(schedule, anchor=0.0, after=1_000.0, now=500.0)
    assert (due.late, due.on_time, due.dropped) == ([], [], False)


def test_a_tick_has_one_id_whatever_the_zone():
    """
    The id is in UTC.
    """
    schedule = Schedule("nightly", report("x"), cron="0 4 * * *", timezone="Europe/Berlin")
    tick = schedule.next_after(at("2026-11-20T12:00+00:00"), anchor=0.0)
    assert schedule.run_id(tick) == "schedule:nightly:2026-11-21T03:00:00+00:00"


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, message",
    [
        ({}, "exactly one of cron= and every=, found neither"),
        ({"cron": "0 3 * * *", "every": 5}, "found both"),
        ({"cron": "61 3 * * *"}, r"'61 3 \* \* \*' cannot be read: Bad minute"),
        ({"cron": "0 3"}, "'0 3' cannot be read: Wrong number of fields"),
        ({"cron": 5}, "5 cannot be read: not a string"),
        ({"every": 0}, "every must be 1 s or more, found 0"),
        ({"every": float("nan")}, "every must be"),
        ({"every": "5"}, "every must be"),
        ({"every": True}, "every must be"),
        ({"every": 5, "timezone": "Europe/Atlantis"}, "no time zone is called 'Europe/Atlantis'"),
        ({"every": 5, "timezone": "../etc"}, "no time zone"),
        ({"every": 5, "timezone": None}, "no time zone"),
        ({"every": 5, "overlap": "never"}, "overlap must be skip, queue, cancel or allow, found 'never'"),
        ({"every": 5, "missed": "some"}, "missed must be none, one or all, found 'some'"),
        ({"every": 5, "missed": "all", "overlap": "cancel"}, "use 'one', or 'queue'"),
    ],
)
def test_contradictions_are_refused_where_they_are_written(options, message):
    """
    The error names the schedule and what was found.
    """
    with pytest.raises(DefinitionError, match=message) as refused:
        Schedule("nightly", report("x"), **options)
    assert "schedule 'nightly'" in str(refused.value)


async def coroutine_function(at):
    return report("x")


@step
async def a_step():
    return 1


@pytest.mark.parametrize("op", [report, "report", None, coroutine_function, a_step, a_step()])
def test_op_is_a_call_or_a_function(op):
    """
    A definition that was not called is the usual slip.
    """
    with pytest.raises(DefinitionError, match="op must be a call of a workflow or job"):
        Schedule("nightly", op, every=5)


def test_a_step_is_nothing_to_schedule():
    """
    It is no run; the error says so, and what to do.
    """
    with pytest.raises(
        DefinitionError, match="found a call of step 'a_step', which is not a run of its own: put it in a"
    ):
        Schedule("nightly", a_step(), every=5)


@pytest.mark.parametrize("name", ["", None, "a\nb"])
def test_a_name_is_printable(name):
    """
    It stands in ids and logs.
    """
    with pytest.raises(DefinitionError, match="a schedule must be"):
        Schedule(name, report("x"), every=5)


def test_without_the_library_cron_names_the_extra(monkeypatch):
    """
    `every` needs nothing; `cron` says what to install.
    """
    monkeypatch.setitem(sys.modules, "cronsim", None)
    Schedule("often", report("x"), every=5)
    with pytest.raises(DefinitionError, match=r"pip install 'durable-asyncio\[cron\]'"):
        Schedule("nightly", report("x"), cron="0 3 * * *")


def test_spaces_do_not_make_another_cron():
    """
    What a schedule is compared by has one space between fields.
    """
    assert Schedule("x", report("x"), cron=" 0  3 * * *").spec == Schedule("x", report("x"), cron="0 3 * * *").spec
