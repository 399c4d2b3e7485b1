"""
Which errors of an engine's background tasks pass, and how long to wait before the task begins again.

What is short comes back (threads, descriptors, memory, room on the disk, a folder that is away for a moment), so it is
waited for, however long that takes. What is lost does not: an engine whose file, WAL or lock is another one by now
must not write a single time more. An error that nobody foresaw is a bug: the task gets some tries, since most of its
work may go well, and then the engine ends, because a process that is started anew is worth more than one that stands
still.
"""

from __future__ import annotations

from typing import Final

from durable.errors import ForeignJournalError, JournalError, JournalLostError, JournalVersionError

#: Seconds before the first try again, doubled each time. The longest is how long an engine stands still at most after
#: what was short is back.
FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 0.5
#: A task that failed so often in a row with an error that nobody foresaw is not tried again: about a minute.
MOST_TRIES: Final = 120


def pause_before(tries: int) -> float:
    """Seconds to wait after the *tries*th failure in a row."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(tries - 1, 10))


def passes(error: BaseException) -> bool | None:
    """Whether what *error* says may be over by itself; None if nobody foresaw it."""
    if isinstance(error, (JournalLostError, ForeignJournalError, JournalVersionError)):
        return False
    if isinstance(error, (JournalError, OSError, MemoryError)):
        return True
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return True
    return None if isinstance(error, Exception) else False


def decide(error: BaseException, tries: int) -> float | None:
    """Seconds after which a task that raised *error*, the *tries*th in a row, begins again; None: the engine fails."""
    passing = passes(error)
    if passing or (passing is None and tries < MOST_TRIES):
        return pause_before(tries)
    return None


def remedy(error: BaseException) -> str:
    """What a person is to do about an engine that *error* ended."""
    if isinstance(error, JournalLostError):
        return (
            "Start the program again, on the file that counts. A journal, its -wal, -shm and .lock are deleted, moved "
            "or replaced only while no engine has it open"
        )
    if isinstance(error, JournalError):
        return "Mend that, then start the program again"
    return "That is a bug in durable: please report it, and start the program again"
