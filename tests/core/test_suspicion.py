"""
Which step kills the process: suspects run one at a time, and only one that had its turn is guilty.
"""

from random import Random

import pytest

from durable._core.journal.events import (
    RunStarted,
    SignalReceived,
    StepInterrupted,
    StepStarted,
    StepSucceeded,
    TransactionStarted,
)
from durable._core.suspicion import (
    BODY,
    Accused,
    Suspect,
    Suspects,
    TurnMark,
    accused,
    counts,
    guilty,
    is_suspect,
    progress,
)


def suspect(run: int) -> Suspect:
    return Suspect(run, "0", 1)


@pytest.mark.parametrize(
    "crash_limit, deaths, suspected", [(1, 0, False), (1, 1, True), (2, 1, True), (3, 1, False), (3, 2, True)]
)
def test_a_step_is_a_suspect_when_the_next_death_would_be_one_too_many(crash_limit, deaths, suspected):
    """
    Never before the first death: without one there is nothing to suspect.
    """
    assert is_suspect(deaths, crash_limit) is suspected


@pytest.mark.parametrize("crash_limit", [1, 2, 3, 5])
def test_a_death_counts_for_a_suspect_only_if_it_had_its_turn(crash_limit):
    """
    And for everybody else in any case.
    """
    for crashes in range(crash_limit + 1):
        assert counts(crashes, crash_limit, was_alone=True)
        assert counts(crashes, crash_limit, was_alone=False) is not is_suspect(crashes, crash_limit)


def test_suspects_have_their_turn_one_after_the_other():
    """
    In the order in which they came; who gives up while it waits lets nobody in.
    """
    suspects = Suspects()
    assert suspects.enter(suspect(1))
    assert not suspects.enter(suspect(2))
    assert not suspects.enter(suspect(3))
    assert suspects.leave(suspect(2)) is None
    assert suspects.leave(suspect(1)) == suspect(3)
    assert suspects.leave(suspect(3)) is None
    assert suspects.enter(suspect(4))


@pytest.mark.parametrize("seed", range(200))
def test_the_killer_is_found_and_nobody_else(seed):
    """
    Among any number of neighbours, in any order, however many of them are new in each life: with `crash_limit` deaths.
    """
    random = Random(seed)
    crash_limit = random.choice([2, 3, 4])
    crashes = dict.fromkeys(range(random.randrange(1, 12)), 0)  # the first is the killer
    for death in range(1, crash_limit + 1):
        order = list(crashes)
        random.shuffle(order)
        suspects, alone = Suspects(), None
        held = [run for run in order if is_suspect(crashes[run], crash_limit)]
        for run in held:
            if suspects.enter(suspect(run)):
                alone = suspect(run)
        while 0 in held and alone is not None and alone.run != 0:
            del crashes[alone.run]  # it ended: it is innocent
            alone = suspects.leave(alone)
        for run in crashes:
            crashes[run] += counts(crashes[run], crash_limit, was_alone=alone == suspect(run))
        guilty = [run for run, count in crashes.items() if count >= crash_limit]
        assert guilty == ([0] if death == crash_limit else [])
        crashes |= {100 * death + number: 0 for number in range(random.randrange(3))}


@pytest.mark.parametrize("crash_limit, noted", [(1, 1), (2, 1), (3, 2), (5, 4)])
def test_a_turn_is_guilty_that_was_noted_at_all_deaths_but_the_first(crash_limit, noted):
    """
    Nothing was noted before that; with a limit of one there is a second death for that reason.
    """
    mark, found = TurnMark(7, BODY, 3), []
    for count in range(1, noted + 1):
        found = accused(found, [mark])
        assert guilty(found, crash_limit) == ([Accused(mark, noted)] if count == noted else [])
    assert found[0].deaths == max(2, crash_limit)


def test_deaths_count_for_the_same_place_of_the_same_run():
    """
    A run that got further is innocent so far; a death in a turn of another, or in none, says nothing of it.
    """
    found = accused([], [TurnMark(7, BODY, 3)])
    found = accused(found, [TurnMark(8, BODY, 1), TurnMark(7, "2", 3)])
    found = accused(found, [])
    assert {each.mark: each.noted for each in found} == {
        TurnMark(7, BODY, 3): 1,
        TurnMark(8, BODY, 1): 1,
        TurnMark(7, "2", 3): 1,
    }
    assert accused(found, [TurnMark(7, BODY, 4)])[0] == Accused(TurnMark(7, BODY, 4), 1)
    assert accused(found, [TurnMark(7, BODY, 3)])[0] == Accused(TurnMark(7, BODY, 3), 2)


def test_a_run_gets_further_by_outcomes_and_not_by_beginning_again():
    """
    Nor by signals, which come whatever its code does.
    """
    began = [RunStarted("w", 1, "seed"), StepStarted("0", "s", 1, "", "", 0.0)]
    again = [
        StepInterrupted("0", 1, True, 1.0),
        StepStarted("0", "s", 2, "", "", 1.0),
        SignalReceived("tick", None, 1.0),
    ]
    assert progress([*began, *again]) == progress(began)
    assert progress([*began, *again, StepSucceeded("0", None, 2.0)]) == progress(began) + 1
    assert progress([*began, TransactionStarted("1", "t", 1, "", "", 2.0)]) == progress(began) + 1
