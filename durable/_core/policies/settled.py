"""
How the members of a group ended, and when a group ends before all of them have.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Generic, Literal, TypeAlias, TypeVar

from attrs import Factory, field

from durable._core.codec.exceptions.parts import Unrecorded
from durable._core.light_frozen import late_frozen, light_frozen

T = TypeVar("T")
K = TypeVar("K")

#: How a member of a group ended; one that is "not begun" never will.
SettledStatus: TypeAlias = Literal["succeeded", "failed", "cancelled", "not begun"]
#: Why a group ended.
EndReason: TypeAlias = Literal["all ended", "enough succeeded", "too many failed"]


def _status(settled: Settled[Any]) -> SettledStatus:
    return "succeeded" if settled.error is None else "failed"


@late_frozen
class Settled(Generic[T]):
    """
    How an op ended: exactly one of *value* and *error* counts, and neither if it was cancelled or never begun.

    Example:
        >>> Settled(value=3).ok, Settled(error=ValueError("tea")).ok
        (True, False)
    """

    value: T | None = None
    error: Exception | None = None
    status: SettledStatus = Factory(_status, takes_self=True)
    #: Of a member that has one.
    name: str | None = field(default=None, eq=False)

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.status == "succeeded"

    def get(self) -> T:
        """
        The value; raises the error if it failed.

        Raises:
            ValueError: It was cancelled, or not begun.
        """
        if self.error is not None:
            raise self.error
        if not self.ok:
            who = "the member" if self.name is None else f"member {self.name!r}"
            msg = f"{who} has no value: it was {self.status} (see Settled.ok)"
            raise ValueError(msg)
        return self.value  # type: ignore[return-value]  # as it succeeded, value is the T


class Outcomes(list[Settled[T]], Unrecorded):
    """How each member of a group ended, in their order; and why the group did."""

    def __init__(self, members: Iterable[Settled[T]] = (), reason: EndReason = "all ended") -> None:
        super().__init__(members)
        #: Why the group ended.
        self.reason: EndReason = reason

    @property
    def succeeded(self) -> list[T]:
        """The values of those that succeeded, in order."""
        return [each.get() for each in self if each.ok]

    @property
    def failed(self) -> list[Exception]:
        """The errors of those that failed, in order."""
        return [each.error for each in self if each.error is not None]


class NamedOutcomes(dict[K, Settled[T]], Unrecorded, Generic[K, T]):
    """How each member of a group that was given as a mapping ended, by its key; and why the group did."""

    def __init__(self, members: Mapping[K, Settled[T]] | None = None, reason: EndReason = "all ended") -> None:
        super().__init__(members or {})
        #: Why the group ended.
        self.reason: EndReason = reason

    @property
    def succeeded(self) -> dict[K, T]:
        """The values of those that succeeded."""
        return {key: each.get() for key, each in self.items() if each.ok}

    @property
    def failed(self) -> dict[K, Exception]:
        """The errors of those that failed."""
        return {key: each.error for key, each in self.items() if each.error is not None}


#: What groups put on the errors that they raise, by its name there.
SETTLED: Final = "settled"


class GroupFailedError(ExceptionGroup[Exception]):
    """
    The failures of a group's members, as an `ExceptionGroup`; `settled` has the successes, too.

    What it tells of the others stays in the run whose group it was: of one that a failed run was recorded with,
    only the failures are left.

    Way out: ``except*``, or ``error.settled``; ``return_exceptions=True`` or ``tolerate=`` where failures are expected.
    """

    __module__ = "durable"  # where users find it: journals name it so, whatever room it stands in

    @property
    def settled(self) -> Outcomes[Any] | NamedOutcomes[Any, Any]:
        """How each member ended: by its key where the members were given as a mapping, else in their order."""
        found = self.__dict__.get(SETTLED)
        if found is None:
            return Outcomes([Settled(error=error) for error in self.exceptions], "too many failed")
        known: Outcomes[Any] | NamedOutcomes[Any, Any] = found
        return known

    @property
    def reason(self) -> EndReason:
        """Why the group ended."""
        return self.settled.reason

    def derive(self, errors: Sequence[Exception], /) -> GroupFailedError:  # type: ignore[override]  # of Exceptions only
        """The same with some of the errors, as ``except*`` asks for it: what is settled stays so."""
        part = GroupFailedError(self.message, errors)
        part.__dict__.update(self.__dict__)
        return part


@light_frozen
class EndRule:
    """
    When a group ends before all of its members have.

    What is running then is cancelled, and what has not begun never will be.
    """

    #: Successes that are enough; None is no such number.
    enough: int | None = None
    #: Failures that do not end it: a count, or as a float their share of all members. None are as many as leave
    #: enough members; or where no number is enough, all.
    tolerate: int | float | None = None

    @property
    def given(self) -> bool:
        """Whether it ends a group at all."""
        return self.enough is not None or self.tolerate is not None

    def tolerated(self, size: int) -> int:
        """How many of *size* members may fail."""
        if self.tolerate is None:
            return size - (self.enough or 0)
        return int(self.tolerate * size) if isinstance(self.tolerate, float) else self.tolerate

    def reason(self, size: int, succeeded: int, failed: int) -> EndReason | None:
        """Why a group of *size* members has ended, of which this many have; None if it has not."""
        if self.enough is not None and succeeded >= self.enough:
            return "enough succeeded"
        if failed > self.tolerated(size):
            return "too many failed"
        return "all ended" if succeeded + failed == size else None


NO_RULE: Final = EndRule()
