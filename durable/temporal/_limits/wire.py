"""
How runs and limits speak with each other: names of signals, and what they carry.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from durable._core.policies.limits import Limit

#: Signals to a limit, and one to a run.
ASKED: Final = "asked"
RELEASED: Final = "released"
GRANTED: Final = "durable.granted"
#: The activities: asks a limit that is not there yet, and looks who has ended.
ASK: Final = "durable.ask_limit"
WHICH_ENDED: Final = "durable.which_ended"
#: The type of its workflow.
LIMIT: Final = "durable.limit"


class Numbers(NamedTuple):
    """What a limit allows: the code of whoever asks says so."""

    concurrency: int | None
    #: So many may begin in so many seconds.
    begun: int | None
    seconds: float | None

    @classmethod
    def of(cls, limit: Limit) -> Numbers:
        """Those of a limit."""
        rate = limit.rate
        return cls(limit.concurrency, None, None) if rate is None else cls(limit.concurrency, rate.count, rate.per)


def limiter_id(name: str, key: str) -> str:
    """The id of its workflow on the server."""
    return f"durable-limit:{name}:{key}" if key else f"durable-limit:{name}"
