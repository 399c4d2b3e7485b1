"""
The states of a step: the whole table, in a workflow and in a job; and that the two do not differ.

Each test brings a step into a state by arrivals, as the shell does, and never sets one.
"""

from collections.abc import Sequence
from typing import Any, get_args

import pytest
from attrs import frozen
from hypothesis import example, given
from hypothesis import strategies as st

from durable._core.authoring.decorators import job, step, transaction, workflow
from durable._core.authoring.op_constructors import gather, race, wait_for
from durable._core.journal.events import (
    CancelRequested,
    CancelSent,
    Event,
    LaterAttempt,
    OutcomeResolved,
    ResumeRequested,
    RunTimedOut,
    SignalReceived,
    SlotAwaited,
    SlotGranted,
    StepFailed,
    StepInterrupted,
    StepNotBegun,
    StepRetrying,
    StepSnoozed,
    StepStarted,
    StepStopped,
    StepSucceeded,
    TimerFired,
)
from durable._core.journal.history import reopened
from durable._core.journal.payloads import failure_payload, rebuilt
from durable._core.policies.limits import Limit
from durable._core.policies.retry import Retry, plan
from durable._core.run.decision import Decision
from durable._core.run.step_states import STARTED, STEP_TRANSITIONS, Choice, Phase, StepEffect, StepEvent, StepState
from durable.errors import CapExceededError, DefinitionError, NondeterminismError, PoisonError
from tests.core.drive import CODEC, START, World, execution, failure, kinds

ONE = Limit("one", concurrency=1)
FAILURE = failure_payload(ValueError("no"), CODEC, with_traceback=False)


@frozen
class Options:
    """
    What a definition and its engine say.
    """

    limited: bool = False
    on_crash: Any = "rerun"
    crash_limit: int = 3
    retry: Any = None
    on_poison: Any = "block"


PLAIN = Options()
LIMITED = Options(limited=True)
BLOCKING = Options(on_crash="block")


def in_a_workflow(options: Options, *, freed: bool = False) -> World:
    """
    A run of a workflow whose one step has *options*.
    """

    @step(
        name="works",
        on_crash=options.on_crash,
        limit=ONE if options.limited else None,
        retry=options.retry,
        on_poison=options.on_poison,
    )
    def works() -> None: ...

    @workflow(name="wf")
    async def body() -> None:
        await works()

    return _begun(body(), options, freed=freed)


def as_a_job(options: Options, *, freed: bool = False) -> World:
    """
    A run of a job with the same options.
    """

    @job(
        name="works",
        on_crash=options.on_crash,
        limit=ONE if options.limited else None,
        retry=options.retry,
        on_poison=options.on_poison,
    )
    def works() -> None: ...

    return _begun(works(), options, freed=freed)


def _begun(op: Any, options: Options, *, freed: bool) -> World:
    world = World(op, freed=freed, options={"crash_limit": options.crash_limit})
    world.begin()
    return world


def state_of(ex: Any) -> StepState:
    """
    Where the one step of a run stands.
    """
    if not hasattr(ex, "leaves"):
        found: StepState = ex.state
        return found
    return ex.leaves["0"].state if "0" in ex.leaves else STARTED._replace(phase="ended")


def succeeded() -> Event:
    return StepSucceeded("0", "null", START)


def failed(attempt: int = 1) -> Event:
    return StepFailed("0", attempt, FAILURE, START)


def retrying(attempt: int = 1) -> Event:
    return StepRetrying("0", attempt, START + 5.0, FAILURE, START)


def snoozed(attempt: int = 1) -> Event:
    return StepSnoozed("0", attempt, START + 7.0, "not yet", START)


def interrupted(attempt: int = 1, *, crashed: bool = True) -> Event:
    return StepInterrupted("0", attempt, crashed, START)


def stopped(attempt: int = 1) -> Event:
    return StepStopped("0", attempt, abandoned=False, at=START)


def cancelled() -> Event:
    return CancelRequested("no", START)


def not_begun(attempt: int = 1) -> Event:
    return StepNotBegun("0", attempt, START)


def fired() -> Event:
    return TimerFired("0", START)


def granted() -> Event:
    return SlotGranted("0", START)


def resumed() -> Event:
    return ResumeRequested(START)


# --- the whole table -------------------------------------------------------------------------------

#: By state: the options and arrivals that lead there.
LEADS_TO: dict[str, tuple[Options, list[Event]]] = {
    "queued": (LIMITED, []),
    "running": (PLAIN, []),
    "running in a slot": (LIMITED, [granted()]),
    "cancelling": (PLAIN, [cancelled()]),
    "cancelling in a slot": (LIMITED, [granted(), cancelled()]),
    "retrying": (PLAIN, [retrying()]),
    "stuck": (BLOCKING, [interrupted()]),
}
#: Everything that can arrive for a step, and what can arrive late: of another attempt.
ARRIVALS: dict[str, Event] = {
    "succeeded": succeeded(),
    "failed": failed(),
    "retrying": retrying(),
    "snoozed": snoozed(),
    "shut down": interrupted(crashed=False),
    "not begun": not_begun(),
    "another attempt not begun": not_begun(7),
    "crashed": interrupted(),
    "another attempt crashed": interrupted(7),
    "stopped": stopped(),
    "another attempt stopped": stopped(7),
    "fired": fired(),
    "granted": granted(),
    "resumed": resumed(),
}
#: (state, arrival): the state after it, the events of the step, and what is to be done. Nothing else happens.
TABLE: dict[tuple[str, str], tuple[str, list[str], list[str]]] = {
    ("queued", "succeeded"): ("ended", [], ["release"]),
    ("queued", "granted"): ("running", ["SlotGranted", "StepStarted 1"], ["start 1"]),
    ("running", "succeeded"): ("ended", [], []),
    ("running", "failed"): ("ended", [], ["report 1"]),
    ("running", "retrying"): ("retrying", ["StepRetrying"], ["report 1", "timer 1005"]),
    ("running", "snoozed"): ("retrying", ["StepSnoozed"], ["timer 1007"]),
    ("running", "shut down"): ("running", ["StepInterrupted", "StepStarted 2"], ["start 2"]),
    ("running", "not begun"): ("running", ["StepNotBegun", "StepStarted 2"], ["start 2"]),
    ("running", "crashed"): ("running", ["StepInterrupted", "StepStarted 2"], ["start 2"]),
    ("running in a slot", "succeeded"): ("ended", [], ["release"]),
    ("running in a slot", "failed"): ("ended", [], ["report 1", "release"]),
    ("running in a slot", "retrying"): ("retrying", ["StepRetrying"], ["report 1", "timer 1005", "release"]),
    ("running in a slot", "snoozed"): ("retrying", ["StepSnoozed"], ["timer 1007", "release"]),
    ("running in a slot", "shut down"): ("queued", ["StepInterrupted", "SlotAwaited 2"], ["ask one"]),
    ("running in a slot", "not begun"): ("queued", ["StepNotBegun", "SlotAwaited 2"], ["ask one"]),
    ("running in a slot", "crashed"): ("queued", ["StepInterrupted", "SlotAwaited 2"], ["ask one"]),
    ("cancelling", "stopped"): ("ended", [], []),
    ("cancelling", "succeeded"): ("ended", [], []),
    ("cancelling", "failed"): ("ended", [], ["report 1"]),
    ("cancelling", "retrying"): ("ended", [], ["report 1"]),
    ("cancelling", "snoozed"): ("ended", [], []),
    ("cancelling", "shut down"): ("ended", [], []),
    ("cancelling", "crashed"): ("ended", [], []),
    ("cancelling", "not begun"): ("ended", [], []),
    ("cancelling in a slot", "stopped"): ("ended", [], ["release"]),
    ("cancelling in a slot", "succeeded"): ("ended", [], ["release"]),
    ("cancelling in a slot", "failed"): ("ended", [], ["report 1", "release"]),
    ("cancelling in a slot", "retrying"): ("ended", [], ["report 1", "release"]),
    ("cancelling in a slot", "snoozed"): ("ended", [], ["release"]),
    ("cancelling in a slot", "shut down"): ("ended", [], ["release"]),
    ("cancelling in a slot", "crashed"): ("ended", [], ["release"]),
    ("cancelling in a slot", "not begun"): ("ended", [], ["release"]),
    ("retrying", "succeeded"): ("ended", [], []),
    ("retrying", "fired"): ("running", ["TimerFired", "StepStarted 2"], ["start 2"]),
    ("stuck", "succeeded"): ("ended", [], []),
    ("stuck", "failed"): ("ended", [], ["report 1"]),
    ("stuck", "resumed"): ("running", ["ResumeRequested", "StepStarted 2"], ["start 2"]),
}
#: What is recorded although it does nothing to the step: a person asked for it.
TOLD = ["ResumeRequested"]


def events_of(decision: Decision) -> list[str]:
    """
    What is recorded of the step: not its outcome, which the closing event of a job has.
    """
    found = []
    for event in decision.events:
        match event:
            case StepStarted() | SlotAwaited():
                found.append(f"{type(event).__name__} {event.attempt}")
            case SlotGranted() | TimerFired() | StepRetrying() | StepSnoozed() | StepInterrupted() | StepNotBegun():
                found.append(type(event).__name__)
            case ResumeRequested():
                found.append(type(event).__name__)
            case _:
                pass
    return found


def done(decision: Decision) -> list[str]:
    """
    What is to be done for the step.
    """
    return [
        *(f"start {action.attempt}" for action in (*decision.steps, *decision.transactions)),
        *(f"ask {getattr(action.limit, 'name', action.limit)}" for action in decision.slots),
        *(f"report {each.attempt}" for each in decision.failed_attempts),
        *(f"timer {wait.fire_at:g}" for wait in decision.waits if wait.kind == "retry"),
        *("release" for _ in decision.slots_released),
        *("cancel" for _ in decision.cancelled_steps),
        *(["block"] if decision.blocked else []),
    ]


@pytest.mark.parametrize("arrival", ARRIVALS)
@pytest.mark.parametrize("state", LEADS_TO)
@pytest.mark.parametrize("freed", [False, True])
@pytest.mark.parametrize("made", [in_a_workflow, as_a_job])
def test_every_arrival_in_every_state(made, state, arrival, freed):
    """
    What stands in the table happens, in a workflow and in a job, live and after a replay; all else is dropped.
    """
    options, before = LEADS_TO[state]
    world = made(options, freed=freed)
    for event in before:
        world.turn(event)
    assert state_of(world.ex).phase == state.split()[0]
    decision = world.turn(ARRIVALS[arrival])
    told = TOLD if arrival == "resumed" else []
    after, events, todo = TABLE.get((state, arrival), (state.split()[0], told, []))
    assert state_of(world.ex).phase == after
    assert (events_of(decision), done(decision)) == (events, todo)


def test_the_table_has_no_entry_that_these_tests_do_not_know():
    """
    Every arrival of `STEP_TRANSITIONS` is one of the tests above, and the other way round.
    """
    known = {(state.split()[0], type(ARRIVALS[arrival])) for state, arrival in TABLE}
    assert known == {
        (phase, cause)
        for phase, causes in STEP_TRANSITIONS.items()
        for cause in causes
        if not isinstance(cause, Choice)
    }
    assert set(STEP_TRANSITIONS) == set(get_args(Phase))
    assert {cause for causes in STEP_TRANSITIONS.values() for cause in causes if isinstance(cause, Choice)} == set(
        Choice
    )
    assert {effect for row in STEP_TRANSITIONS.values() for each in row.values() for effect in each.effects} == set(
        StepEffect
    )


def test_whatever_can_happen_to_a_step_has_an_entry():
    """
    An event that joins `StepEvent` and not the table would be dropped in silence.
    """
    causes = {cause for row in STEP_TRANSITIONS.values() for cause in row if not isinstance(cause, Choice)}
    assert causes | set(get_args(LaterAttempt)) == set(get_args(StepEvent))


def test_what_leads_to_a_choice_does_nothing_itself():
    """
    Effects stand with the choice, so that none is done before it is made.
    """
    for causes in STEP_TRANSITIONS.values():
        for taken in causes.values():
            assert taken.to not in ("due", "interrupted") or taken.effects == ()


@pytest.mark.parametrize(
    "on_crash, crash_limit, outcomes",
    [
        ("rerun", 3, ["start 2", "start 3", "block"]),
        ("rerun", 1, ["block"]),
        ("block", 3, ["block"]),
        ("block", 1, ["block"]),
        ("raise", 3, ["report 1"]),
        ("raise", 1, ["report 1"]),
    ],
)
@pytest.mark.parametrize("freed", [False, True])
@pytest.mark.parametrize("made", [in_a_workflow, as_a_job])
def test_what_a_crash_means(made, on_crash, crash_limit, outcomes, freed):
    """
    Each crash after the other, until the step is stuck or has failed; a person sets the count back.
    """
    options = Options(on_crash=on_crash, crash_limit=crash_limit)
    world = made(options, freed=freed)
    for attempt, expected in enumerate(outcomes, 1):
        assert done(world.turn(interrupted(attempt))) == [expected]
    if on_crash == "raise":
        assert world.end.ended == "failed"
        return
    assert state_of(world.ex).phase == "stuck"
    assert done(world.turn(resumed())) == [f"start {len(outcomes) + 1}"]
    assert state_of(world.ex).crashes == 0


@pytest.mark.parametrize(
    "happens, calls",
    [
        ("crash crash", 2),
        ("crash fail", 2),
        ("fail crash", 2),
        ("fail fail", 2),
        ("stop stop stop fail fail", 5),
        ("snooze snooze snooze fail snooze fail", 6),
        ("crash stop snooze crash", 4),
    ],
)
@pytest.mark.parametrize("freed", [False, True])
@pytest.mark.parametrize("made", [in_a_workflow, as_a_job])
def test_a_retry_policy_counts_the_attempts_that_began(made, happens, calls, freed):
    """
    `Retry(2)` allows two calls, also where the process died in one. An orderly stop costs none, nor does a snooze.
    """
    policy = Retry(2, delay=5.0, jitter=0.0)
    world = made(Options(retry=policy, crash_limit=9), freed=freed)
    begun = 1
    for happening in happens.split():
        assert not world.ended
        failures = state_of(world.ex).failures + 1
        gives_up = plan(policy, ValueError("no"), failures=failures, elapsed=0.0, seed="") is None
        world.turn(
            {
                "crash": interrupted(begun),
                "stop": interrupted(begun, crashed=False),
                "snooze": snoozed(begun),
                "fail": failed(begun) if gives_up else retrying(begun),
            }[happening]
        )
        if not world.ended and state_of(world.ex).phase == "retrying":
            world.turn(fired())
        begun += not world.ended
    assert world.end.ended == "failed"
    assert begun == calls
    name = "StepInterruptedError" if happens.endswith("crash") else "ValueError"
    assert failure(world.events[-1]).startswith(name)


@pytest.mark.parametrize("retry", [None, Retry(None)])
@pytest.mark.parametrize("made", [in_a_workflow, as_a_job])
def test_without_a_number_of_attempts_a_crash_uses_none_up(made, retry):
    """
    What is tried once runs again after a crash all the same: only the limit of crashes ends that.
    """
    world = made(Options(retry=retry, crash_limit=4))
    assert [done(world.turn(interrupted(attempt))) for attempt in (1, 2, 3)] == [["start 2"], ["start 3"], ["start 4"]]


@pytest.mark.parametrize("freed", [False, True])
@pytest.mark.parametrize("made", [in_a_workflow, as_a_job])
def test_poison_fails_unless_it_is_to_block(made, freed):
    """
    At the third crash, whatever the retry policy says: the workflow may compensate.
    """
    world = made(Options(on_poison="fail", retry=Retry(attempts=9, delay=1.0)), freed=freed)
    assert done(world.turn(interrupted())) == ["start 2"]
    assert done(world.turn(interrupted(2))) == ["start 3"]
    assert done(world.turn(interrupted(3))) == ["report 3"]
    assert world.end.ended == "failed"
    assert isinstance(rebuilt(world.end.outcome, CODEC), PoisonError)


@pytest.mark.parametrize("crashed", [False, True])
@pytest.mark.parametrize("made", [in_a_workflow, as_a_job])
def test_an_unknown_outcome_is_one_however_the_attempt_was_cut_off(made, crashed):
    """
    `on_crash` holds for a shutdown as for a crash; and for neither where the function was never called.
    """
    assert done(made(Options(on_crash="raise")).turn(interrupted(crashed=crashed))) == ["report 1"]
    decision = made(BLOCKING).turn(interrupted(crashed=crashed))
    assert done(decision) == ["block"]
    how = "the process died" if crashed else "its engine closed"
    assert decision.blocked.endswith(f"was running when {how}: its outcome is unknown")
    for options in (BLOCKING, Options(on_crash="raise")):
        assert done(made(options).turn(not_begun())) == ["start 2"]


@pytest.mark.parametrize("made", [in_a_workflow, as_a_job])
def test_an_unknown_outcome_is_a_failed_attempt_for_the_retry_policy(made):
    """
    With ``on_crash="raise"`` and a policy, another attempt begins after its delay, until the policy gives up.
    """
    world = made(Options(on_crash="raise", retry=Retry(attempts=2, delay=5.0, jitter=0.0)))
    assert done(world.turn(interrupted())) == ["report 1", "timer 1005"]
    world.turn(fired())
    assert done(world.turn(interrupted(2))) == ["report 2"]
    assert world.end.ended == "failed"


def test_what_a_person_says_of_a_stuck_step_is_its_outcome():
    """
    Recorded with who and why, and the outcome behind it; the replay needs no more than that.
    """
    said = OutcomeResolved("0", 1, False, "ann", "seen at the printer", "null", START)
    for made in (in_a_workflow, as_a_job):
        world = made(BLOCKING, freed=True)
        world.turn(interrupted())
        decision = world.turn(said)
        assert decision.ended == "succeeded"
        assert decision.events[0] == said
    failed_so = OutcomeResolved("0", 1, True, "ann", "", FAILURE, START)
    for made in (in_a_workflow, as_a_job):
        world = made(BLOCKING, freed=True)
        world.turn(interrupted())
        assert world.turn(failed_so).ended == "failed"


@pytest.mark.parametrize("made", [in_a_workflow, as_a_job])
def test_what_a_person_says_of_a_step_that_is_not_stuck_is_dropped(made):
    """
    An outcome may yet come.
    """
    world = made(PLAIN)
    assert world.turn(OutcomeResolved("0", 1, False, "ann", "", "null", START)).events == []
    assert state_of(world.ex).phase == "running"


@pytest.mark.parametrize("made", [in_a_workflow, as_a_job])
def test_a_value_of_another_type_leaves_the_run_blocked(made):
    """
    And the reason says who gave it, and what was expected.
    """
    world = made(BLOCKING)
    world.turn(interrupted())
    decision = world.turn(OutcomeResolved("0", 1, False, "ann", "", '"text"', START))
    assert decision.events == []
    assert decision.blocked.startswith("the value that ann gave for ")
    assert state_of(world.ex).phase == "stuck"


def test_a_run_with_another_stuck_step_stays_blocked():
    """
    Until both have an outcome.
    """

    @step(on_crash="block")
    def works() -> None: ...

    @workflow(name="wf")
    async def body() -> None:
        await gather(works(), works())

    world = World(body())
    world.begin()
    world.turn(StepInterrupted("0.0", 1, True, START), StepInterrupted("0.1", 1, True, START))
    decision = world.turn(OutcomeResolved("0.0", 1, False, "", "", "null", START))
    assert decision.blocked == "the outcome of step 'works' at 0.1 is still unknown"
    assert world.turn(OutcomeResolved("0.1", 1, False, "", "", "null", START)).ended == "succeeded"


@pytest.mark.parametrize(
    "crash_limit, on_crash, times",
    [(1, "rerun", "once"), (2, "rerun", "2 times"), (3, "block", ": its outcome is unknown")],
)
def test_a_block_names_its_step_and_says_why(crash_limit, on_crash, times):
    """
    In the same words for both; a job has only one step, and needs no position.
    """
    options = Options(crash_limit=crash_limit, on_crash=on_crash)
    for made, name in ((in_a_workflow, "step 'works' at 0"), (as_a_job, "job 'works'")):
        world = made(options)
        while (blocked := world.turn(interrupted(state_of(world.ex).attempt)).blocked) is None:
            pass
        assert blocked == f"{name} was running when the process died {times}".replace(" : ", ": ")


@pytest.mark.parametrize(
    "state, todo, recorded",
    [
        ("queued", ["release"], True),
        ("retrying", [], False),
        ("stuck", [], False),
    ],
)
@pytest.mark.parametrize("arrival", [CancelRequested("no", START), RunTimedOut(5.0, START)])
def test_what_nobody_waits_for_is_withdrawn(state, todo, recorded, arrival):
    """
    Where no attempt is running, it ends at once, and its place in line goes back; a workflow records that.
    """
    options, before = LEADS_TO[state]
    for made in (in_a_workflow, as_a_job):
        world = made(options)
        for event in before:
            world.turn(event)
        decision = world.turn(arrival)
        assert done(decision) == todo
        told = made is in_a_workflow and recorded
        assert ("StepCancelled 0" in kinds(decision.events)) is told
        assert decision.ended == ("cancelled" if isinstance(arrival, CancelRequested) else "failed")


@pytest.mark.parametrize("state", ["running", "running in a slot"])
@pytest.mark.parametrize("arrival", [CancelRequested("no", START), RunTimedOut(5.0, START)])
@pytest.mark.parametrize("made", [in_a_workflow, as_a_job])
def test_a_running_attempt_is_told_to_end_and_waited_for(made, state, arrival):
    """
    Its run has not ended before it has, nor is its slot given up.
    """
    options, before = LEADS_TO[state]
    world = made(options)
    for event in before:
        world.turn(event)
    decision = world.turn(arrival)
    assert kinds(decision.events)[1:] == ["CancelSent 0"]
    assert (done(decision), decision.ended) == (["cancel"], None)
    decision = world.turn(stopped())
    assert done(decision) == (["release"] if options.limited else [])
    assert decision.ended == ("cancelled" if isinstance(arrival, CancelRequested) else "failed")


@pytest.mark.parametrize("made", [in_a_workflow, as_a_job])
def test_what_was_to_begin_in_the_turn_that_withdraws_it_does_not_begin(made):
    """
    Neither the attempt nor the wait in line: there is nothing to cancel, either.
    """
    cancel = CancelRequested("no", START)
    decision = made(PLAIN).turn(interrupted(crashed=False), cancel)
    assert done(decision) == []
    world = made(LIMITED)
    world.turn(granted())
    assert done(world.turn(interrupted(crashed=False), cancel)) == ["release"]


# --- what is recorded stands, whatever the code says today ----------------------------------------------


@pytest.mark.parametrize("made", [in_a_workflow, as_a_job])
@pytest.mark.parametrize("today", [PLAIN, Options(crash_limit=9), BLOCKING, Options(on_crash="raise")])
def test_a_step_that_was_stuck_is_stuck_whatever_the_options_of_today(made, today):
    """
    A person resumes it: the attempt that begins then is the next one, and none was interrupted meanwhile.
    """
    world = made(Options(crash_limit=1))
    world.turn(interrupted())
    ex = execution(made(today).op, world.events, crash_limit=today.crash_limit)
    assert (state_of(ex).phase, ex.in_flight()) == ("stuck", [])
    assert done(ex.advance([resumed()], now=START)) == ["start 2"]
    ex.close()


@pytest.mark.parametrize("made", [in_a_workflow, as_a_job])
def test_a_step_that_ran_again_is_running_whatever_the_options_of_today(made):
    """
    Nobody is asked a second time, and a resume meant for something else starts no second attempt beside it.
    """
    world = made(PLAIN)
    world.turn(interrupted())
    ex = execution(made(BLOCKING).op, world.events, crash_limit=1)
    assert ex.in_flight() == [("0", 2)]
    assert done(ex.advance([resumed()], now=START)) == []
    ex.close()


def test_transactions_choose_again_when_they_are_replayed():
    """
    Their later attempts are no events: how often they were interrupted says where they stand.
    """

    @transaction(name="writes")
    def writes(tx: Any) -> None: ...

    @workflow(name="wf")
    async def body() -> None:
        await writes()

    world = World(body(), freed=True, options={"crash_limit": 2})
    world.begin()
    assert done(world.turn(interrupted(1))) == ["start 2"]
    assert world.ex.in_flight() == [("0", 2)]
    assert done(world.turn(interrupted(2))) == ["report 2"]
    assert kinds(world.events)[1:] == ["TransactionStarted 0", "StepInterrupted 0", "StepFailed 0", "RunFailed"]


@pytest.mark.parametrize("limit", [None, ONE])
def test_a_loser_that_asks_in_the_replay_that_withdraws_it_asks_for_nothing(limit):
    """
    The replay of a reopened run asks anew: what loses its race in that very turn neither begins nor stands in line.
    """

    @step(limit=limit)
    def works() -> None: ...

    @workflow(name="wf")
    async def broken() -> None:
        await wait_for("go")
        raise ValueError

    @workflow(name="wf")
    async def mended() -> int:
        await wait_for("go")
        winner = await race(works(), wait_for("won"))
        return winner.index

    world = World(broken())
    world.begin()
    world.signal("won")
    assert world.signal("go").ended == "failed"
    again = World(mended(), now=START)
    decision = again.begin([*world.events, reopened(world.events, START)])
    assert again.value() == 1
    assert done(decision) == []


@pytest.mark.parametrize("key", [lambda: 5, lambda: "x" * 501], ids=["no key", "too long"])
def test_a_step_without_a_key_fails_where_it_is_asked_for(key):
    """
    In the workflow, which may catch it; a job fails. At a later attempt the run is blocked for whoever mends the code.
    """
    keys: list[Any] = []

    @step(name="works", limit=ONE, limit_key=lambda: keys.pop() if keys else key())
    def works() -> None: ...

    @workflow(name="wf")
    async def body() -> str:
        try:
            await works()
        except (DefinitionError, CapExceededError):
            return "caught"
        return "?"

    @job(name="works", limit=ONE, limit_key=lambda: keys.pop() if keys else key())
    def job_works() -> None: ...

    world = World(body())
    world.begin()
    assert world.value() == "caught"
    world = World(job_works())
    assert world.begin().ended == "failed"
    assert kinds(world.events) == ["RunStarted", "RunFailed"]
    for op in (body(), job_works()):
        keys.append("once")
        world = World(op)
        world.begin()
        world.turn(granted())
        with pytest.raises((DefinitionError, CapExceededError)):
            world.turn(interrupted(crashed=False))


def test_a_transaction_in_the_place_of_a_step_in_line_is_a_divergence():
    """
    Whatever it is called: transactions have no limits.
    """

    @transaction(name="works")
    def works(tx: Any) -> None: ...

    @workflow(name="wf")
    async def body() -> None:
        await works()

    world = in_a_workflow(LIMITED)
    with pytest.raises(NondeterminismError, match=r"step 'works'.*transaction 'works'"):
        execution(body(), world.events)


# --- a job is a workflow of one step ----------------------------------------------------------------

attempts = st.integers(1, 4)
arrivals = st.one_of(
    st.builds(succeeded),
    st.builds(failed, attempts),
    st.builds(retrying, attempts),
    st.builds(snoozed, attempts),
    st.builds(interrupted, attempts, crashed=st.booleans()),
    st.builds(stopped, attempts),
    st.builds(fired),
    st.builds(granted),
    st.builds(resumed),
    st.just(CancelRequested("no", START)),
    st.just(RunTimedOut(5.0, START)),
    st.just(SignalReceived("x", None, START)),
)
options = st.builds(Options, st.booleans(), st.sampled_from(["rerun", "raise", "block"]), st.integers(1, 3))


def story(world: World, turns: Sequence[Sequence[Event]]) -> list[Any]:
    """
    What each turn records and does of the one step, and where it then stands.
    """
    found: list[Any] = [(events_of(world.decisions[0]), done(world.decisions[0]), state_of(world.ex))]
    for arrived in turns:
        if world.ended:
            break
        decision = world.turn(*arrived)
        stands = None if world.ended else state_of(world.ex)
        # A job that has a value although it was cancelled has succeeded: there is no code that would be told.
        late = decision.ended == "succeeded" and any(isinstance(event, CancelSent) for event in world.events)
        found.append((events_of(decision), done(decision), stands, "cancelled" if late else decision.ended))
    return found


@given(options, st.lists(st.lists(arrivals, min_size=1, max_size=3), max_size=12))
@example(Options(), [[retrying(1), fired(), CancelRequested("no", START)]])
@example(Options(), [[snoozed(1), fired(), RunTimedOut(5.0, START)]])
@example(Options(), [[retrying(1), fired(), retrying(2), CancelRequested("no", START)]])
def test_a_job_and_a_workflow_of_one_step_do_the_same(options, turns):
    """
    The same arrivals lead to the same events, the same actions and the same state, in memory and over replays.
    """
    expected = story(in_a_workflow(options), turns)
    assert story(in_a_workflow(options, freed=True), turns) == expected
    assert story(as_a_job(options), turns) == expected
    assert story(as_a_job(options, freed=True), turns) == expected
