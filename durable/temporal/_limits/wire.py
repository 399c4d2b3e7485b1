"""
How runs and limits speak with each other: names of signals, and what they carry.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from durable._core.policies.limits import Limit

#: Signals to a limit, and one to a run.
ASKED: Final = "asked"
RELEASED: Final = "released"
GRANTED: Final = "durable.granted"
#: The activities: asks a limit that is not there yet, and looks who has ended.
ASK: Final = "durable.ask_limit"
WHICH_ENDED: Final = "durable.which_ended"
#: The type of its workflow, and its query.
LIMIT: Final = "durable.limit"
STATE: Final = "state"
#: The position of the slot of a whole run.
OF_RUN: Final = "run"


class Numbers(NamedTuple):
    """What a limit allows: the code of the run that asks says so."""

    concurrency: int | None
    #: So many may begin in so many seconds.
    begun: int | None
    seconds: float | None

    @classmethod
    def of(cls, limit: Limit) -> Numbers:
        """Those of a limit."""
        rate = limit.rate
        return cls(limit.concurrency, None, None) if rate is None else cls(limit.concurrency, rate.count, rate.per)


class Place(NamedTuple):
    """Somebody who has a slot, or waits for one."""

    run: str
    #: Of a step; None where the slot is the run's own.
    position: str | None
    #: When it got the slot; or since when it waits.
    since: float
    #: When the rate lets it in, if that is what it waits for.
    due: float | None = None


class State(NamedTuple):
    """Who is in a limit, and who waits, in order."""

    inside: list[Place]
    waiting: list[Place]

    def plain(self) -> dict[str, list[list[Any]]]:
        """As it travels."""
        return {"inside": [[*each] for each in self.inside], "waiting": [[*each] for each in self.waiting]}

    @classmethod
    def read(cls, plain: dict[str, list[list[Any]]]) -> State:
        """What `plain` wrote."""
        return cls([Place(*each) for each in plain["inside"]], [Place(*each) for each in plain["waiting"]])


def limiter_id(name: str, key: str) -> str:
    """The id of its workflow on the server."""
    return f"durable-limit:{name}:{key}" if key else f"durable-limit:{name}"
