"""
Which commands of a replay are asked whether they carry what was recorded, and which of them do not.

What was recorded stands: other arguments do not stop a replay, since new code may pass more. But code that is not
deterministic shows there first. A digest costs as much as the replay of its step, so who replays says how many are
made: all of them in a test, in production those of a short history and some of a long one.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Final, final

from durable._core.codec.codec import Codec
from durable._core.journal.events import CommandEvent


@final
class _Everywhere(Container[str]):
    """Every position."""

    def __contains__(self, position: object) -> bool:
        return True


NOWHERE: Final[Container[str]] = frozenset()
EVERYWHERE: Final[Container[str]] = _Everywhere()


class Comparing:
    """
    What of a replay is compared, and what was found.

    Args:
        positions: Of the commands that are looked at.
        strict: Whether other arguments than recorded are a divergence.
        budget: How many characters of arguments are looked at; then no more.
    """

    __slots__ = ("_budget", "changed", "positions", "strict")

    def __init__(self, positions: Container[str] = NOWHERE, *, strict: bool = False, budget: int | None = None) -> None:
        self.positions = positions
        self.strict = strict
        self._budget = budget
        #: What the code asked for, where it carries something else than recorded.
        self.changed: Sequence[CommandEvent] = ()

    def equal(self, recorded: CommandEvent, carried: str, codec: Codec) -> bool:
        """Whether *carried* is what was recorded, as far as a digest can tell."""
        if self._budget is not None:
            self._budget -= len(carried)
            if self._budget < 0:
                self.positions = NOWHERE
        return codec.fits_digest(carried, recorded.digest)


#: Of all runs that nobody looks at: it finds nothing, so it never changes.
NOT_COMPARING: Final = Comparing()
