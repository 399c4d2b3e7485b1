"""
Simulation: programs that Hypothesis writes, in any order of their tasks, with faults anywhere, and time that jumps.

One seed decides the order of tasks that are ready at once, and the faults; the same seed gives the same trace. A
program and seed that fail are shrunk by Hypothesis, and kept here as an example for ever.
"""

import hashlib
import os
import random

import pytest
from attrs import define, evolve
from hypothesis import example, given, settings
from hypothesis import strategies as st

from durable._core.journal.events import GroupArranged, RunSucceeded, StepFailed, StepStarted
from durable._core.run import step_states
from durable.errors import StepInterruptedError
from durable.testing import CONSISTENT, STRICT, Scenario, journal_lines
from durable.testing._crash.faults import KINDS, UNNOTICED, Fault, pairs_of
from durable.testing._crash.invariants import same_journal
from durable.testing._crash.sites import COMMIT_AFTER, STEP_BEFORE, point
from durable.testing.strategies import coroutine_program, definitions, generator_program, programs, retried

#: Statements whose outcome is a matter of what comes first; of a fast gather, what it cancels.
TIMED = ("race", "timeout", "signal or not", "now", "fast")
#: What holds if nobody may notice a fault, and not after others.
UNCHANGED = tuple(invariant for invariant in STRICT if invariant not in CONSISTENT)
#: `make soak` simulates more.
OFTEN = int(os.environ.get("DURABLE_SIMULATIONS", "1"))
WORKFLOWS = (coroutine_program, generator_program)
#: Two of three children are enough, and which ones a crash may change.
ENOUGH = [["wait first", [[["enough children", 0], ["for each", 0]]]]]


def statements(program):
    """
    The statements of a program, and those within them.
    """
    for part in program:
        if isinstance(part, list):
            if part and isinstance(part[0], str):
                yield part
            yield from statements(part)


def is_timed(program):
    """
    Whether a fault may legally change what a program sees.

    It may where strands run side by side, and the program sees which of them ends first, goes on without the others, or
    has them cancelled by a failure; and where they wait for signals, of which the first goes to who waits first.
    """
    text = repr(program)
    return any(f"'{name}'" in text for name in TIMED) or any(
        (name in ("wait first", "as completed") and len(rest[-1]) > 1)
        or (name == "gather" and rest[0] == "tolerate" and len(rest[1]) > 2)
        or (name == "gather" and len(rest[1]) > 1 and "'signal'" in repr(rest))
        for name, *rest in statements(program)
    )


def used_up(outcome):
    """
    Whether a crash took the last attempt of a step: legally that is its failure, in place of what it would have raised.
    """
    return any(
        isinstance(event, StepFailed)
        and f'"{StepInterruptedError.__name__}"' in event.value
        and retried.options.retry.attempts
        == sum(isinstance(each, StepStarted) and each.position == event.position for each in run.events)
        for run in outcome.runs.values()
        for event in run.events
    )


def without_settled(text):
    """
    *text*, a ``repr``, without what groups returned of their members.
    """
    while (start := text.find("Settled(")) >= 0:
        depth, end = 1, start + len("Settled(")
        while depth and end < len(text):
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
        text = text[:start] + text[end:]
    return text


def outside_of_enough(outcome):
    """
    *outcome* without the members of groups that end with the first few of them, and without what is returned of these.
    """
    places = {
        (run.run_id, event.position)
        for run in outcome.runs.values()
        for event in run.events
        if isinstance(event, GroupArranged) and event.enough is not None
    }

    def is_inside(run_id, position):
        return any(run_id == run and (position or "").startswith(f"{place}.") for run, place in places)

    def outside(run):
        if not any(run.run_id == place[0] for place in places):
            return run
        events = [event for event in run.events if not is_inside(run.run_id, event.position)]
        if isinstance(events[-1], RunSucceeded):
            events[-1] = evolve(events[-1], value=without_settled(events[-1].value))
        return evolve(run, events=tuple(events), value=without_settled(run.value))

    runs = outcome.runs
    return evolve(
        outcome,
        runs={
            name: outside(run)
            for name, run in runs.items()
            if run.parent is None or not is_inside(runs[run.parent].run_id, run.position)
        },
    )


def same_outcomes(found, expected):
    """
    What comes to an end of its own, in both plays, comes to the same: steps and children anywhere.
    """
    now, was = (
        {
            (name, event.position): (event.outcome, event.value)
            for name, run in outcome.runs.items()
            for event in run.events
            if event.position and event.outcome in ("succeeded", "failed")
        }
        for outcome in (found, expected)
    )
    for name, position in sorted(now.keys() & was.keys()):
        if now[name, position] != was[name, position]:
            expects, finds = was[name, position], now[name, position]
            yield f"run {name!r} at {position} came to something else: expected {expects}, found {finds}"


@define
class AsUndisturbed:
    """
    What `STRICT` says more than `CONSISTENT`, as far as the faults of a play may not change it.

    Which members of a group are *enough* is a matter of their order, and after a crash that may be another one: who had
    begun begins again, beside those that begin only now. So others may be told to end, or never begin; one that ends
    all the same has its outcome and not that of who is cancelled. Nothing is lost or done twice, and all that is not of
    the group is as undisturbed: it is compared, as is what members come to that end in both plays.
    """

    timed: bool
    #: Whether nobody may notice the faults of this play.
    unnoticed: bool = True

    def __call__(self, found, expected):
        if self.unnoticed and not self.timed and not used_up(found):
            for invariant in UNCHANGED:
                yield from invariant(outside_of_enough(found), outside_of_enough(expected))
            yield from same_outcomes(found, expected)


def scenario_of(program, seed):
    dice = random.Random(seed)
    judge = AsUndisturbed(is_timed(program))
    scenario = Scenario(
        dice.choice(WORKFLOWS)(program),
        definitions,
        signals={"a": list(range(100)), "b": list(range(100, 200))},
        order=seed,
        concurrency=dice.choice([1, 3, 100]),
        keep_resident=dice.choice([0, 5]),
        invariants=[*CONSISTENT, judge],
    )
    return scenario, judge, dice


def simulate(program, seed, faults=4, pairs=2):
    """
    Play *program* with faults drawn by *seed*; a hash of all the journals that it left.
    """
    scenario, judge, dice = scenario_of(program, seed)
    everywhere = scenario.faults(KINDS)
    plays = [(fault,) for fault in dice.sample(everywhere, min(faults, len(everywhere)))]
    trace = hashlib.sha256()
    for each in [*plays, *pairs_of(everywhere, pairs, seed)]:
        judge.unnoticed = all(fault.kind in UNNOTICED for fault in each)
        outcome = scenario.strike(*each)
        for name, run in outcome.runs.items():
            trace.update(f"{name} {each} {journal_lines(run.events)}".encode())
    return trace.hexdigest()


@settings(max_examples=12 * OFTEN)
@given(programs(), st.integers(0, 2**32))
@example([["step", 1], ["sleep", 5], ["child", 2]], 0)
@example([["gather", "fast", [[["broken child", 0]], [["for each", 0], ["broken child", 0]]]]], 0)
@example(ENOUGH, 0)
def test_any_program_survives_faults_anywhere_in_any_order(program, seed):
    """
    Faults that nobody may notice change nothing; after others the journal and its runs agree.
    """
    simulate(program, seed)


@settings(max_examples=3 * OFTEN)
@given(programs(), st.integers(0, 2**32))
def test_the_same_seed_gives_the_same_trace(program, seed):
    """
    To the byte, attempts and instants included: what was found once is found again.
    """
    assert simulate(program, seed, 2, 1) == simulate(program, seed, 2, 1)


def test_a_seed_decides_the_order():
    """
    Children of one parent end in another order under another seed; under none in that of asyncio.
    """
    program = [["gather", "all", [[["child", n]], [["child", n + 10]], [["child", n + 20]]]] for n in range(3)]
    traces = set()
    for seed in range(6):
        scenario = Scenario(generator_program(program), definitions, order=seed, invariants=STRICT)
        outcome = scenario.undisturbed().outcome
        traces.add("\n".join(journal_lines(outcome.root.events)))
    assert len(traces) > 1


def crashes_of_enough():
    """
    What a crash at each commit of `ENOUGH` comes to, as far as `CONSISTENT` holds; and what it comes to undisturbed.
    """
    scenario, judge, _ = scenario_of(ENOUGH, 0)
    judge.timed = True
    found = [scenario.strike(crash) for crash in scenario.faults(["crash"]) if crash.site.name == COMMIT_AFTER]
    return found, scenario.undisturbed().outcome


def test_which_members_are_enough_may_change():
    """
    Some crash has others come first. `STRICT` would convict it.
    """
    found, expected = crashes_of_enough()
    assert any([*same_journal(each, expected)] for each in found)
    for each in found:
        assert [*AsUndisturbed(timed=False)(each, expected)] == []


def test_that_others_are_enough_excuses_no_member_that_fails(monkeypatch):
    """
    Planted: a crash fails the step that it cuts off. The run ends as ever, since the others are enough.
    """
    real = step_states._judged

    def judged(state, event, rules):
        return step_states.Choice.FORBIDDEN if event.crashed else real(state, event, rules)

    monkeypatch.setattr(step_states, "_judged", judged)
    found, expected = crashes_of_enough()
    assert any("StepInterruptedError" in problem for each in found for problem in AsUndisturbed(False)(each, expected))


def test_a_crash_in_the_last_attempt_is_its_failure():
    """
    An attempt that a crash cut off has begun, and counts: none is left to raise what it would have raised.
    """
    scenario, _, _ = scenario_of([["retried", 1]], 0)
    assert "LookupError" in scenario.strike(Fault("crash", point(STEP_BEFORE), 2)).root.value
    assert "StepInterruptedError" in scenario.strike(Fault("crash", point(STEP_BEFORE), 3)).root.value


@pytest.mark.parametrize(
    "wrong",
    [
        lambda run: evolve(run, status="failed"),
        lambda run: evolve(run, value=run.value.replace("[0, None, 0]", "[0, None]")),
        lambda run: evolve(run, events=tuple(e for e in run.events if e.position != "0.0.1.1")),
        lambda run: evolve(
            run, events=tuple(evolve(e, position="0.0.2") if e.position == "0.0.1" else e for e in run.events)
        ),
    ],
    ids=["end", "result", "step", "position"],
)
def test_what_is_not_of_the_group_is_compared(wrong):
    """
    Tampered with, behind the group, in a run that other members were enough for.
    """
    found, expected = crashes_of_enough()
    for each in found:
        tampered = evolve(each, runs={**each.runs, "run": wrong(each.root)})
        assert [*AsUndisturbed(timed=False)(tampered, expected)]
