"""
Replayed code that asks for something else than was recorded: found here, described for people.

Positions, kinds and names must match; arguments may differ (new code may pass more). The report names
both places in the source, says what seems to have changed (by what the code can still reach, see
`lookahead`), and what to do about it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any, TypeAlias

from durable._core.journal.events import (
    ChildStarted,
    CommandEvent,
    End,
    GroupOpened,
    RunRestarted,
    SlotAwaited,
    StepStarted,
    TransactionStarted,
)
from durable._core.light_frozen import light_frozen
from durable._core.run.divergence.lookahead import names_ahead, names_in
from durable.errors import NondeterminismError

#: How many commands around a divergence are searched for the one asked for.
_NEAR = 10


#: What code can come to: a command, or its end.
Requested: TypeAlias = CommandEvent | End | RunRestarted


def alike(recorded: Any, requested: CommandEvent, aliases: Sequence[str] = ()) -> bool:
    """Whether two commands of one class are the same command; *aliases* are older names of the requested one."""
    return (requested.name == recorded.name or recorded.name in aliases) and requested.repeats(recorded)


@light_frozen
class Code:
    """The code that asked, as far as guesses need it: where it stands (nowhere, once it ended), and its function."""

    frames: Sequence[FrameType]
    fn: Any

    def known(self) -> set[str]:
        """Names of all commands in it."""
        return {*names_in(self.fn), *(name for frame in self.frames for name in names_in(frame))}

    def ahead(self) -> list[str]:
        """Names of the commands that it can still reach, in the order of the code: the innermost first."""
        return [name for frame in reversed(self.frames) for name in names_ahead(frame)]


def diverged(
    run_id: str,
    position: str,
    recorded: CommandEvent | None,
    requested: Requested | None,
    commands: Mapping[str, CommandEvent],
    code: Code,
    digest: str = "",
    why: str = "",
) -> NondeterminismError:
    """
    The report of a replay that asks for *requested* (None: nothing) where *recorded* stands.

    *digest* is that of the arguments that the code gave, *why* the error by which it ended.
    """
    guess = _guess(position, recorded, requested, commands, code)
    now = "nothing there" if requested is None else requested.describe()
    return NondeterminismError(
        run_id,
        position,
        "nothing" if recorded is None else recorded.describe(),
        f"{now}: {why}" if why else now,
        "" if recorded is None else recorded.site,
        "" if requested is None else requested.site,
        guess.hint,
        guess.change,
        guess.remedy,
        "" if recorded is None else recorded.digest,
        digest,
    )


def other_arguments(run_id: str, recorded: CommandEvent, requested: CommandEvent, digest: str) -> NondeterminismError:
    """The report of a replay that gives a command other arguments than recorded, where that is not allowed."""
    return NondeterminismError(
        run_id,
        recorded.position,
        recorded.describe(),
        requested.describe(),
        recorded.site,
        requested.site,
        "It gets other arguments than recorded",
        "arguments",
        "What a workflow passes on must be the same in every replay: take times, dice and ids from durable.now(), "
        "random() and uuid4(), sort sets, and read what is outside in a step. If the code was changed on purpose, "
        "guard the change with durable.patched('change-id')",
        recorded.digest,
        digest,
    )


_GUARD_NEW = "Guard it for old runs (if durable.patched('change-id'): ...)"
_KEEP_OLD = "Keep it for old runs (if not durable.patched('change-id'): ...)"
_KEEP_BOTH = (
    "Keep both ways (if durable.patched('change-id'): ... else: ...), or the old function beside a new "
    "@workflow(version=...)"
)


@light_frozen
class _Guess:
    """What seems to have happened to the code, and what to do about it."""

    change: str
    hint: str
    remedy: str = _KEEP_BOTH


def _guess(
    position: str,
    recorded: CommandEvent | None,
    requested: Requested | None,
    commands: Mapping[str, CommandEvent],
    code: Code,
) -> _Guess:
    if requested is None or requested.category != "command":
        return _guess_end(recorded, requested, code)
    now = requested.describe()
    if recorded is None:
        return _Guess("added", f"It looks as if {now} was added here, behind all that was recorded", _GUARD_NEW)
    was = recorded.describe()
    if recorded.sought == requested.sought:
        if isinstance(recorded, GroupOpened) and isinstance(requested, GroupOpened):
            return _Guess("resized", f"It looks as if {_members(requested.size - recorded.size)} this group")
        return _Guess("changed", f"It looks as if {was} has become {now}")
    known, ahead = code.known(), code.ahead()
    if skipped := _skipped(position, requested, commands):
        lost = skipped[0].describe() + (f" and {len(skipped) - 1} more" if len(skipped) > 1 else "")
        if any(each.sought in ahead for each in skipped):
            return _Guess("reordered", f"It looks as if {now} was moved before {lost}")
        if any(each.sought in known for each in skipped):
            return _Guess("branch", f"It looks as if the branch with {lost} is not taken any more")
        return _Guess("removed", f"It looks as if {lost} was removed before {now}", _KEEP_OLD)
    if _comes_next(position, recorded, commands, ahead):
        return _Guess("inserted", f"It looks as if {now} was inserted before {was}", _GUARD_NEW)
    if recorded.sought in known:
        return _Guess("branch", f"It looks as if a branch goes another way: {was} is in the code, but not reached")
    if type(recorded) is type(requested) and isinstance(requested, _CAN_HAVE_ALIASES):
        remedy = f"If it was only renamed, say so where it is defined (aliases=({recorded.sought!r},)). {_KEEP_BOTH}"
        return _Guess("renamed", f"It looks as if {was} was renamed to {now}", remedy)
    return _Guess("changed", f"It looks as if {was} was replaced by {now}")


def _comes_next(
    position: str, recorded: CommandEvent, commands: Mapping[str, CommandEvent], ahead: Sequence[str]
) -> bool:
    """Whether code that continues to *ahead* comes to *recorded*, before what was recorded behind that."""
    if recorded.sought not in ahead:
        return False
    following = commands.get(_beside(position, 1))
    if following is None or following.sought not in ahead:
        return True
    return ahead.index(recorded.sought) <= ahead.index(following.sought)


def _guess_end(recorded: CommandEvent | None, requested: Requested | None, code: Code) -> _Guess:
    """The code ends, or waits for something else, where a command is recorded."""
    if recorded is None:
        now = "nothing" if requested is None else requested.describe()
        return _Guess("changed", f"What was recorded goes another way behind this, the code comes to {now}")
    if recorded.sought in code.known():
        return _Guess("branch", f"It looks as if {recorded.describe()} is not reached any more")
    return _Guess("removed", f"It looks as if {recorded.describe()} was removed", _KEEP_OLD)


def _members(more: int) -> str:
    count = f"{abs(more)} member{'s' if abs(more) > 1 else ''}"
    return f"{count} {'were' if abs(more) > 1 else 'was'} {'added to' if more > 0 else 'removed from'}"


def _skipped(position: str, requested: CommandEvent, commands: Mapping[str, CommandEvent]) -> list[CommandEvent]:
    """The recorded commands before the one asked for, if that is found a little further on in the same strand."""
    found: list[CommandEvent] = []
    for offset in range(_NEAR):
        later = commands.get(_beside(position, offset))
        if later is None:
            break
        if later.describe() == requested.describe():
            return found
        found.append(later)
    return []


def _beside(position: str, offset: int) -> str:
    """The position *offset* commands further on in the same strand."""
    prefix, dot, last = position.rpartition(".")
    return f"{prefix}{dot}{int(last) + offset}"


_CAN_HAVE_ALIASES = (StepStarted, SlotAwaited, TransactionStarted, ChildStarted)
