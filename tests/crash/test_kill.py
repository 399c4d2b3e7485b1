"""
kill -9, from outside and at named points: what was acknowledged happens, and nothing happens twice.

The victim (`victim.py`) writes its effects to a ledger outside of the engine; the judge
(`judge.py`) knows that ledger and the application's own table, and nothing of the engine. That
it can tell is tested here too, on engines with bugs planted into them.

`DURABLE_SOAK_SECONDS=600` kills for ten minutes instead of a few seconds.
"""

import os
import random
import re
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from lives import Lives

SECONDS = float(os.environ.get("DURABLE_SOAK_SECONDS", "4"))
pytestmark = pytest.mark.timeout(SECONDS + 90)


def test_nothing_is_lost_or_repeated_however_often_and_whenever_the_process_is_killed(tmp_path):
    """
    Promises P1 to P4, P7 and P10: at random moments, round after round of fresh journals.

    The moment is drawn by how far the ledger has come, so that kills fall into the work and not
    into the start of the interpreter; every third falls into the recovery from the last one.
    """
    seed = int(os.environ.get("DURABLE_SOAK_SEED", time.time_ns() % 2**32))
    moments = random.Random(seed)
    deadline, rounds, kills = time.monotonic() + SECONDS, 0, 0
    while time.monotonic() < deadline:
        folder = tmp_path / str(rounds)
        folder.mkdir()
        lives = Lives(folder, runs=12)
        for number in range(5):
            lines = 1 if number % 3 == 2 else moments.randrange(1, 40)
            lives.until_killed(lines, moments.uniform(0, 0.02))
        assert lives.to_the_end() == [], f"seed {seed}, round {rounds}, {folder}"
        kills += lives.kills
        rounds += 1
    print(f"{kills} kills in {rounds} rounds, seed {seed}")
    assert kills >= rounds


@pytest.mark.parametrize(
    "point, counts",
    [
        ("before-begin", (2, 9, 30)),  # nothing of the group is there
        ("before-commit", (2, 9, 30)),  # written, and rolled back by whoever opens the file next
        ("after-commit", (2, 9, 30)),  # on disk, and nobody knows
        ("before-dispatch", (1, 8, 20)),
        ("after-dispatch", (1, 8, 20)),  # drivers are told, and no step has begun
        ("child-ended", (1, 2, 3)),  # between the end of a child and what its parent does
    ],
)
def test_it_does_not_matter_at_which_point_of_a_commit_the_process_dies(tmp_path, point, counts):
    """Record first, act second: whatever the file holds at that point is enough to go on from."""
    lives = Lives(tmp_path, runs=8)
    for count in counts:
        lives.until_point(point, count)
    assert lives.kills >= 2
    assert lives.to_the_end() == []


def test_dying_during_recovery_twice_changes_nothing(tmp_path):
    """Recovery records nothing by half: the third life does what the first would have done."""
    lives = Lives(tmp_path, runs=8)
    assert lives.until_killed(30, 0.0)
    assert lives.until_point("recovery", 1)
    assert lives.until_point("recovery", 3)
    assert lives.to_the_end() == []


@pytest.mark.parametrize(
    "bug, point, count, complaint",
    [
        ("acknowledge_early", "before-commit", 1, "no run with id|was acknowledged and never ended"),
        (
            "begin_early",
            "before-commit",
            5,
            "ran again after|ran twice in one life|nobody made the outcome|the outcome of . of",
        ),
        ("drop_inbox", None, 0, "did not end within"),
        ("repeat_steps", "after-dispatch", 25, "ran again after its outcome was seen"),
        ("double_rows", "before-commit", 12, "is there . times|is not there once"),
        ("wake_nobody", None, 0, "did not end within"),
        ("follow_late", None, 0, "was not there with the end"),
        ("let_all_in", None, 0, "are inside together"),
    ],
)
def test_the_judge_finds_planted_bugs(tmp_path, bug, point, count, complaint):
    """A judge that never complains proves nothing: each of these engines is convicted, of what was planted, soon."""
    for number in range(15):  # each is likely to be enough, on a busy machine less so
        folder = tmp_path / str(number)
        folder.mkdir()
        lives = Lives(folder, runs=8, bug=bug)
        if point is not None:
            lives.until_point(point, count + number % 3)
            lives.until_point(point, count + 2 * (number % 3))
        if re.search(complaint, "; ".join(lives.to_the_end(timeout=3 if "did not end" in complaint else 10))):
            return
    pytest.fail("the judge found nothing")
