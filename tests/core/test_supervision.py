"""
What passes is waited out, what does not ends the engine: the decision, case by case.
"""

import errno

import pytest

from durable._core.supervision import LONGEST_PAUSE, MOST_TRIES, decide, pause_before, remedy
from durable.errors import (
    ForeignJournalError,
    InternalError,
    JournalAccessError,
    JournalDamagedError,
    JournalFullError,
    JournalIOError,
    JournalLostError,
    JournalVersionError,
)

PASSING = [
    JournalAccessError("f", "database is locked (SQLITE_BUSY)"),
    JournalAccessError("f", "its folder is out of sight"),
    JournalAccessError("f", "it has a second name (hard link)"),
    JournalFullError("f", "full"),
    JournalIOError("f", "disk I/O error"),
    JournalDamagedError("f", "one page of many"),
    OSError(errno.EMFILE, "Too many open files"),
    OSError(errno.ENFILE, "Too many open files in system"),
    OSError(errno.ENOSPC, "No space left on device"),
    BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"),
    MemoryError(),
    RuntimeError("can't start new thread"),
]
FATAL = [
    JournalLostError("f", "its WAL (-wal) was deleted"),
    JournalVersionError("f", "of a newer release"),
    ForeignJournalError("f", "no database"),
    SystemExit(),
    KeyboardInterrupt(),
]
BUGS = [KeyError("x"), RuntimeError("dictionary changed size"), InternalError("x"), AssertionError()]


def called(error):
    return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("error", PASSING, ids=called)
@pytest.mark.parametrize("tries", [1, 2, MOST_TRIES, 100_000])
def test_what_passes_is_waited_out_however_long_it_takes(error, tries):
    """
    And never longer than half a second between two tries, so that work resumes within a second of relief.
    """
    pause = decide(error, tries)
    assert pause is not None
    assert 0 < pause <= LONGEST_PAUSE <= 0.5


@pytest.mark.parametrize("error", FATAL, ids=called)
def test_what_does_not_pass_ends_the_engine_at_once(error):
    """
    At the first try: nothing more may be written.
    """
    assert decide(error, 1) is None


@pytest.mark.parametrize("error", BUGS, ids=called)
def test_a_bug_gets_some_tries_and_then_ends_the_engine(error):
    """
    Most of a task's work may go well all the same; but an engine does not stand still for ever and look alive.
    """
    assert decide(error, 1) is not None
    assert decide(error, MOST_TRIES - 1) is not None
    assert decide(error, MOST_TRIES) is None


def test_pauses_grow_to_their_longest():
    """
    The first is short: most of what is short comes back at once.
    """
    pauses = [pause_before(tries) for tries in range(1, 8)]
    assert pauses == sorted(pauses)
    assert pauses[0] <= 0.05
    assert pauses[-1] == LONGEST_PAUSE
    assert 10 <= sum(map(pause_before, range(1, MOST_TRIES))) <= 120


@pytest.mark.parametrize("error", [*FATAL, *BUGS], ids=called)
def test_a_person_is_told_what_to_do(error):
    """
    Whatever ended the engine.
    """
    assert "start the program again" in remedy(error).lower()
