"""
Where a scenario runs otherwise on a Temporal server: each kind of difference, once.

A scenario to which that matters is marked ``@differs(KIND, ...)``, and asks ``engines.differs(KIND)`` where it does.
One that cannot run there is marked ``@needs_a_file(why)``. `tests/temporal/scenarios` runs all others on both.
"""

import pytest
from attrs import frozen


@frozen
class Difference:
    """A kind of difference."""

    #: How its row begins in the table of the guide (`examples/guide/temporal.md`).
    row: str
    #: What is otherwise.
    text: str


ATTEMPTS = Difference(
    "failed attempts that are tried again", "attempts that the server repeats by itself are not in the history"
)
CACHE = Difference(
    "a run that waits", "it stays in the worker's memory, so its code is not run again from its beginning"
)
ITEMS = Difference("the items of `for_each`", "code names the items again in each replay; a step's result is recorded")
LISTS = Difference("`runs(...)`", "lists are the server's visibility, which comes a moment later")
UNLISTED = Difference(
    "a job that is named and not listed", "the engine is refused when it is made; an embedded run is blocked until then"
)
MANY = Difference("`start_many`", "runs begin one by one: those before a refused one have begun")
DEDUP = Difference("`signal(dedup=)`", "who sends a signal twice is not told")
QUEUES = Difference(
    "`Queue(concurrency=)`",
    "what waits for a place has begun for the server, and may get it before a cancel",
)
CHANGED = Difference("changed code", "the server tells what it has found instead of the two source lines")
COUNTS = Difference("`prune`, `backup`, `stats`", "`stats()` is refused, and looked at on the embedded engine only")


def differs(*kinds: Difference) -> pytest.MarkDecorator:
    """A scenario that says, for each of *kinds*, what is otherwise on a server."""
    return pytest.mark.differs(*kinds)


def needs_a_file(why: str) -> pytest.MarkDecorator:
    """A scenario about an engine of a file, and *why* no server can be asked for the same."""
    return pytest.mark.needs_a_file(why)
