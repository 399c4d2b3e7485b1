"""
A replay that stands somewhere: from wherever one comes, a stop is the same, with the same values.
"""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from durable._core.authoring.decorators import step, workflow
from durable._core.codec.codec import Codec
from durable._core.journal.events import CleanupTimedOut, RunFailed, RunForked, RunRetried, RunSucceeded
from durable._core.journal.history import fork, reopened
from durable._core.recorded.export_format import RunFacts, RunHistory
from durable._debug.expressions import short
from durable._debug.replay import Replay
from durable._debug.stepped_replay import SteppedReplay
from durable.errors import UsageError
from tests.core.drive import World, run
from tests.core.test_programs import coroutine_program, generator_program, orders, play, programs

FORMS = [coroutine_program, generator_program]


def recorded(world, events=None):
    definition = world.op.definition
    facts = RunFacts(
        run_id=world.run_id, workflow=definition.name, version=1, sort="workflow", status="running", created_at=1.0
    )
    return RunHistory(facts, list(world.events if events is None else events))


def cursor_on(world, events=None):
    return SteppedReplay(world.op.definition, recorded(world, events), Codec())


def seen(cursor):
    """
    All that a stop shows: where, what, and the locals as text.
    """
    stop = cursor.stop
    places = [(place.file, place.line, place.function) for place in cursor.places()]
    variables = {name: short(value) for name, value in cursor.places()[-1].frame.f_locals.items()} if places else {}
    error = None if stop.error is None else str(stop.error)
    return stop._replace(error=error, value=short(stop.value)), places, variables, cursor.strands()


@pytest.mark.parametrize("form", FORMS)
@given(programs, orders, st.one_of(st.none(), st.integers(1, 12)), st.lists(st.integers(0, 30), max_size=6))
@settings(max_examples=40, suppress_health_check=list(HealthCheck))
def test_a_stop_is_the_same_from_wherever_one_comes(form, program, order, cancel_at, visits):
    """
    Random programs with groups, helpers, children, signals and cancels: walked, then jumped about in.
    """
    world = play(form(program), order, cancel_at, freed=False)
    walker = cursor_on(world)
    walked = []
    while walker.next() is not None:
        walked.append(seen(walker))
    assert walked
    assert [each[0].number for each in walked] == list(range(len(walked)))
    jumper = cursor_on(world)
    for visit in [*visits, len(walked) - 1, 0]:
        number = visit % len(walked)
        jumper.seek(number)
        assert seen(jumper) == walked[number]
    jumper.close()


@pytest.mark.parametrize("form", FORMS)
@given(programs, orders, st.one_of(st.none(), st.integers(1, 12)))
@settings(max_examples=40, suppress_health_check=list(HealthCheck))
def test_a_replay_ends_as_it_was_recorded(form, program, order, cancel_at):
    """
    Every recorded command is come to, and the body's end is the recorded one.
    """
    world = play(form(program), order, cancel_at, freed=False)
    found = Replay(world.op.definition, recorded(world), Codec()).verify()
    assert found.verdict == "same"
    end = world.events[-1]
    if any(isinstance(event, CleanupTimedOut) for event in world.events):  # the run ended, and its code did not
        assert not found.ended
    else:
        assert found.ended
        assert (found.raised is None) == isinstance(end, RunSucceeded)
    positions = {command.position for command in found if command.event is not None}
    assert {event.position for event in world.events if event.category == "command"} <= positions
    found.close()


def test_a_stop_that_is_not_there():
    """
    The error says how many there are; before the first stop there is no place.
    """
    world = run(coroutine_program([["step", 1]]))
    cursor = cursor_on(world)
    assert cursor.stop is None
    assert cursor.places() == []
    assert cursor.arrival() is None
    with pytest.raises(UsageError, match="there is no stop 99: the replay has 2"):
        cursor.seek(99)
    cursor.close()
    cursor.close()
    with pytest.raises(UsageError, match="closed"):
        cursor.seek(0)


def test_a_retried_run_is_replayed_up_to_what_is_asked_for_again():
    """
    The failure is set aside; what comes after the recorded is the turn that the retry begins.
    """
    world = run(coroutine_program([["step", 1], ["fails", 2]]))
    assert isinstance(world.events[-1], RunFailed)
    events = [*world.events, reopened(world.events, 2000.0)]
    assert isinstance(events[-1], RunRetried)
    cursor = cursor_on(world, events)
    stops = []
    while (stop := cursor.next()) is not None:
        stops.append(stop)
    assert [stop.position for stop in stops] == ["0", "1"]
    assert stops[-1].kind == "command"


def test_a_fork_is_replayed_with_its_replaced_outcome():
    """
    What was replaced is what the code gets.
    """
    world = run(coroutine_program([["step", 1], ["step", 2]]))
    events = fork(world.events, run_id="r", at="1", replace={"0": '"other"'}, now=2000.0)
    assert isinstance(events[-1], RunForked)
    cursor = cursor_on(world, events)
    cursor.seek(1)
    assert "other" in str([place.frame.f_locals for place in cursor.places()])


def test_a_restarted_run_is_replayed_in_its_last_attempt():
    """
    Attempts of the whole run that failed before are set aside.
    """
    calls = []

    @step
    def sometimes() -> int:
        calls.append(1)
        if len(calls) < 2:
            raise ValueError("not yet")
        return len(calls)

    @workflow(retry=3)
    async def stubborn() -> int:
        return await sometimes()

    world = World(stubborn())
    world.run()
    found = Replay(stubborn, recorded(world), Codec()).verify()
    assert (found.value, found.raised) == (2, None)
