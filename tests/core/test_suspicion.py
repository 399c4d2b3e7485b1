"""
Which step kills the process: suspects run one at a time, and only one that had its turn is guilty.
"""

from random import Random

import pytest

from durable._core.run.suspicion import Suspect, Suspects, counts, is_suspect


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
