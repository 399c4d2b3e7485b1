"""
Ops made of other ops: groups, and what they evaluate to.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, TypeAlias, TypeVar

from attrs import field

from durable._core.light_frozen import late_frozen, light_frozen
from durable._core.policies.settled import NO_RULE, EndRule, Settled
from durable._core.program import current_driver
from durable._core.program.command import Command
from durable._core.program.ops import Op, RunOp, StepOp, TransactionOp

if TYPE_CHECKING:
    from typing import Self

    from durable._core.program.functions import Helper, Job, Step, TransactionStep, Workflow

T = TypeVar("T")


def discard(*members: object) -> None:
    """Close what will never run: helper coroutines, and those in ops."""
    for member in members:
        if isinstance(member, Command):
            member.discard()
        elif isinstance(member, Coroutine):
            member.close()


#: What `for_each` applies.
Applied: TypeAlias = "Step[..., Any] | TransactionStep[..., Any] | Job[..., Any] | Workflow[..., Any] | Helper[Any]"
#: A member of a group: an op, or a coroutine of a helper that awaits ops.
Member: TypeAlias = Op[T] | Coroutine[Any, Any, T]


@light_frozen
class GroupOptions:
    """What `gather` and `for_each` may be asked for besides their members."""

    #: Members that run at once; None is all.
    concurrency: int | None = None
    end: EndRule = NO_RULE
    #: Of the members, as history shows them.
    names: tuple[str, ...] | None = None


PLAIN: Final = GroupOptions()


@light_frozen(eq=False)
class GroupOp(Op[T]):
    """A command made of members."""

    #: What the code calls it, told in the history.
    name: str = field(default="", kw_only=True)

    def called(self, what: str) -> str:
        """*what* it is, with its name."""
        return f"{what} ({self.name})" if self.name else what


@light_frozen(eq=False)
class GatherOp(GroupOp[T]):
    """All of its members."""

    members: tuple[Member[Any], ...]
    fail_fast: bool = False
    return_exceptions: bool = False
    site: current_driver.CallSite | None = None
    options: GroupOptions = PLAIN
    #: Whether the result says of each member how it ended.
    settles: bool = False
    #: Of the members, where they were given as a mapping.
    keys: tuple[Any, ...] | None = None

    def discard(self) -> None:
        discard(*self.members)

    def describe(self) -> str:
        return self.called(f"gather of {len(self.members)}")


@late_frozen
class Winner(Generic[T]):
    """Which member of a `race` or `wait_first` ended first, and with what."""

    index: int
    value: T
    #: The winner's key, where the members were given as a mapping.
    key: Any = None


@light_frozen(eq=False)
class RaceOp(GroupOp[Winner[T]]):
    """The first of its members."""

    members: tuple[Member[Any], ...]
    keys: tuple[Any, ...] | None
    site: current_driver.CallSite | None = None
    #: Of the members, as history shows them.
    names: tuple[str, ...] | None = None

    def discard(self) -> None:
        discard(*self.members)

    def describe(self) -> str:
        return self.called(f"race of {len(self.members)}")


@light_frozen(eq=False)
class WaitFirstOp(GatherOp[Winner[T]]):
    """The first of its members; the others continue."""

    def describe(self) -> str:
        return self.called(f"wait_first of {len(self.members)}")


@light_frozen(eq=False)
class CompletionsOp(GatherOp[str]):
    """Begins its members, and waits for none: its position, by which `NextCompletion` asks for the outcomes."""

    def describe(self) -> str:
        return self.called(f"as_completed of {len(self.members)}")


@light_frozen(eq=False)
class NextCompletion(Op[tuple[Any] | None]):
    """The outcome of the member that ended next in the `as_completed` at a position; None once there is no more."""

    is_numbered: ClassVar[bool] = False
    position: str

    def describe(self) -> str:
        return f"the next of the as_completed at {self.position}"


class AsCompleted(Generic[T]):
    """
    What ``async for`` gives the outcomes of members by, in the order in which they ended: see `as_completed`.

    A member that failed raises its error there; ``anext()`` continues behind that.
    """

    __slots__ = ("_op", "_over", "_position")

    def __init__(self, op: CompletionsOp) -> None:
        self._op = op
        self._position: str | None = None
        self._over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if self._position is None:
            self._position = await self._op
        found = None if self._over else await NextCompletion(self._position)
        if found is None:
            self._over = True
            raise StopAsyncIteration
        (value,) = found
        outcome: T = value
        return outcome

    def __repr__(self) -> str:
        state = "not begun" if self._position is None else f"{'over' if self._over else 'begun'} at {self._position}"
        return f"<{self._op.describe()}, {state}>"


@light_frozen(eq=False)
class PollOp(GroupOp[T]):
    """A step that is called again until it returns something true."""

    op: StepOp[T] | TransactionOp[T] | RunOp[T]
    #: Seconds until the next call, and what they are multiplied by after each.
    every: float
    factor: float
    timeout: float | None
    site: current_driver.CallSite | None = None

    def describe(self) -> str:
        return self.called(f"poll_until {self.op.describe()}")


@light_frozen(eq=False)
class TimeoutOp(GroupOp[T]):
    """A member with a durable deadline."""

    member: Member[T]
    seconds: float
    site: current_driver.CallSite | None = None

    def discard(self) -> None:
        discard(self.member)

    def describe(self) -> str:
        return self.called(f"timeout {self.seconds:g} s")


@light_frozen(eq=False)
class SettleOp(GroupOp[Settled[T]]):
    """A member whose failure does not raise."""

    member: Member[T]
    site: current_driver.CallSite | None = None

    def discard(self) -> None:
        discard(self.member)

    def describe(self) -> str:
        return self.called("settle")


@light_frozen(eq=False)
class ForEachOp(GroupOp[T]):
    """A step, transaction, job, workflow or helper applied to each item of a recorded list."""

    definition: Applied
    items: tuple[Any, ...]
    options: GroupOptions
    #: Whether each item is followed by its index.
    index: bool = False
    site: current_driver.CallSite | None = None

    def describe(self) -> str:
        return self.called(f"for_each {self.definition.name!r} over {len(self.items)}")
