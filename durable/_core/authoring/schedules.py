"""
When a schedule starts runs: its ticks, and what becomes of those that passed unseen.

Pure: instants come in and go out as epoch seconds, UTC. Cron expressions are read by `cronsim`,
which only schedules with `cron=` need; daylight saving is its business and `zoneinfo`'s.
"""

from __future__ import annotations

import inspect
import math
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import islice, takewhile
from typing import Any, Literal, TypeAlias
from zoneinfo import ZoneInfo

from attrs import field

from durable._core.light_frozen import late_frozen, light_frozen
from durable._core.program.command import Command
from durable._core.program.definition import Definition, check_name
from durable._core.program.ops import RunOp, in_seconds, kind_of
from durable.errors import DefinitionError

Overlap: TypeAlias = Literal["skip", "queue", "cancel", "allow"]
Missed: TypeAlias = Literal["none", "one", "all"]

#: Seconds after which a tick counts as missed: no engine ran, a laptop was asleep, or a clock moved.
LATE = 60.0
#: A schedule whose ticks are dealt with further ahead than this, in seconds, was driven by a clock that was wrong.
AHEAD = 86_400.0
#: Runs that `missed="all"` starts at once: those of the newest ticks. Nobody wants a year of minutes.
MOST_MISSED = 1_000
#: Shortest `every`, in seconds.
SHORTEST = 1.0
#: Seconds by which an hour may repeat when daylight saving ends, and more.
_FOLD = 3 * 3600.0
#: How far before the newest ticks one begins to look for them forwards, in seconds.
_MARGIN = 2 * 86_400.0


def _spaced(cron: str | None) -> str | None:
    return " ".join(cron.split()) if isinstance(cron, str) else cron


@light_frozen
class Timetable:
    """When something ticks, and what becomes of ticks that come too early or were missed; see `Schedule`."""

    name: str
    cron: str | None = field(default=None, kw_only=True, converter=_spaced)
    every: float | None = field(default=None, kw_only=True, converter=in_seconds)
    timezone: str = field(default="UTC", kw_only=True)
    overlap: Overlap = field(default="skip", kw_only=True)
    missed: Missed = field(default="one", kw_only=True)

    def __attrs_post_init__(self) -> None:
        check_name("a schedule", self.name)
        who = f"schedule {self.name!r}"
        if (self.cron is None) == (self.every is None):
            found = "neither" if self.cron is None else "both"
            msg = f"{who} needs exactly one of cron= and every=, found {found}"
            raise DefinitionError(msg)
        for option, found, known in (
            ("overlap", self.overlap, ("skip", "queue", "cancel", "allow")),
            ("missed", self.missed, ("none", "one", "all")),
        ):
            if found not in known:
                msg = f"{who}: {option} must be {', '.join(known[:-1])} or {known[-1]}, found {found!r}"
                raise DefinitionError(msg)
        if self.missed == "all" and self.overlap == "cancel":
            msg = f"{who}: missed='all' starts runs that overlap='cancel' would cancel at once; use 'one', or 'queue'"
            raise DefinitionError(msg)
        zone = _zone(who, self.timezone)
        if self.cron is not None:
            _check_cron(who, self.cron, zone)
        elif not _is_number(self.every) or not SHORTEST <= (self.every or 0.0) < math.inf:
            msg = f"{who}: every must be {SHORTEST:g} s or more, found {self.every!r}"
            raise DefinitionError(msg)

    @property
    def spec(self) -> str:
        """When it ticks, in words that tell whether that has changed."""
        return f"cron {self.cron}" if self.cron is not None else f"every {self.every!r} s"

    def local(self, at: float) -> datetime:
        """An instant in the schedule's zone."""
        return datetime.fromtimestamp(at, ZoneInfo(self.timezone))

    def run_id(self, at: float) -> str:
        """The id of the run that the tick *at* starts: one tick, one id, one run."""
        return tick_id(self.name, at)

    def next_after(self, after: float, *, anchor: float) -> float | None:
        """The first tick later than *after*; None if there is none in the next fifty years."""
        if self.every is not None:
            return anchor + _number_after(after, anchor, self.every) * self.every
        return next(self._forward(after), None)

    def ticks(self, after: float, upto: float, *, anchor: float, limit: int) -> list[float]:
        """The ticks later than *after*, up to and with *upto*, in order; the newest *limit* of them."""
        if upto <= after or limit < 1:
            return []
        if self.every is not None:
            first, end = (_number_after(each, anchor, self.every) for each in (after, upto))
            return [anchor + number * self.every for number in range(max(first, end - limit), end)]
        # Looked for backwards only to know about where the newest begin: around a change of the clock, what
        # the library finds backwards is not always what it found forwards, and those are the ticks.
        newest = list(islice(takewhile(lambda tick: tick > after, self._backward(upto)), limit))
        if len(newest) == limit:
            after = max(after, newest[-1] - _MARGIN)
        return list(deque(takewhile(lambda tick: tick <= upto, self._forward(after)), maxlen=limit))

    def between(self, since: float, until: float, *, anchor: float, limit: int) -> list[float]:
        """The ticks from *since* to *until*, with both, also those before the anchor; the newest *limit* of them."""
        if self.every is None:
            return self.ticks(math.ceil(since) - 0.5, until, anchor=anchor, limit=limit)  # they are whole seconds
        # Multiples from the same anchor as otherwise, lest a tick differs by a rounding: its id is its instant.
        first, last = math.floor((since - anchor) / self.every), math.ceil((until - anchor) / self.every)
        numbers = range(max(first, last - limit - 2), last + 1)
        found = [anchor + number * self.every for number in numbers]
        return [tick for tick in found if since <= tick <= until][-limit:]

    def _forward(self, after: float) -> Iterator[float]:
        from cronsim import CronSim  # noqa: PLC0415 - only schedules with cron= need it

        last = after
        for tick in CronSim(self.cron or "", self._start(after)):
            at = tick.timestamp()
            if at > last:  # in an hour that repeats, what follows on the wall may have been before
                yield at
                last = at

    def _backward(self, upto: float) -> Iterator[float]:
        from cronsim import CronSim  # noqa: PLC0415 - only schedules with cron= need it

        # The wall shows an earlier time in an hour's repetition than at some ticks before it: begin behind that.
        start = self._start(math.floor(upto) + 1 + _FOLD)
        last = math.nextafter(upto, math.inf)
        for tick in CronSim(self.cron or "", start, reverse=True):
            at = tick.timestamp()
            if at < last:
                yield at
                last = at

    def _start(self, at: float) -> datetime:
        return datetime.fromtimestamp(at, UTC if self.timezone == "UTC" else ZoneInfo(self.timezone))


@late_frozen
class Schedule(Timetable):
    """
    Starts a run at each of its ticks, exactly one a tick.

    Args:
        name: What it is called in the journal: its place in time is kept under this name.
        op: A call of a workflow or job, or a function of the tick (an aware datetime in the
            schedule's zone) that returns one. It is called on the event loop, and must not wait.
        cron: A cron expression, read in *timezone* as Debian's cron does: a fixed time that
            daylight saving skips comes at once after the gap, one that it repeats comes once. A sixth
            field, in front, is for seconds; such an expression is taken literally, without those rules.
        every: Seconds (or a timedelta) between ticks instead, counted from when the journal first
            knew the schedule, so that they do not drift.
        timezone: An IANA name.
        overlap: What happens at a tick while an earlier run of the schedule is open: ``skip`` the tick,
            ``queue`` a run behind that one, ``cancel`` that one, or ``allow`` both.
        missed: What happens to ticks that are more than a minute late, because no engine ran or it
            was asleep: ``one`` run is started for the latest of them (unless a later tick is on time),
            ``none``, or one for ``all`` (the newest 1,000), in order and, unless overlap is allowed, one
            behind the other. A tick within the minute is on time, also after a restart.

    Raises:
        DefinitionError: If it contradicts itself, or cron or zone cannot be read.

    Example:
        >>> @job
        ... async def clean_up() -> str:
        ...     return "clean"
        >>> nightly = Schedule("clean-up", clean_up(), every=86_400)
        >>> async with Engine(":memory:", [clean_up], schedules=[nightly]) as engine:
        ...     run = await engine.schedule("clean-up").trigger()  # one now
        ...     await run.result()
        'clean'
    """

    op: RunOp[Any] | Callable[[datetime], RunOp[Any]]

    def __attrs_post_init__(self) -> None:
        Timetable.__attrs_post_init__(self)
        _check_op(f"schedule {self.name!r}", self.op)


@light_frozen
class Due:
    """What a look at the clock gives: the ticks that start runs, in order, and what was left out."""

    #: Missed ones that start a run all the same.
    late: list[float]
    on_time: list[float]
    #: Whether missed ticks were left out, by the schedule's policy or because they are too many.
    dropped: bool = False


def tick_id(name: str, at: float) -> str:
    """The id of the run that the tick *at* of the schedule called *name* starts."""
    return f"schedule:{name}:{datetime.fromtimestamp(at, UTC).isoformat()}"


def timetable_from(name: str, spec: str, timezone: str, overlap: Overlap, missed: Missed) -> Timetable:
    """The timetable of which `Timetable.spec` wrote *spec*."""
    if spec.startswith("cron "):
        return Timetable(name, cron=spec.removeprefix("cron "), timezone=timezone, overlap=overlap, missed=missed)
    every = float(spec.removeprefix("every ").removesuffix(" s"))
    return Timetable(name, every=every, timezone=timezone, overlap=overlap, missed=missed)


def decide(schedule: Timetable, *, anchor: float, after: float, now: float) -> Due:
    """Which ticks since *after* start runs *now*."""
    edge = max(after, now - LATE)
    on_time = schedule.ticks(edge, now, anchor=anchor, limit=MOST_MISSED)
    wanted = {"none": 0, "one": 0 if on_time else 1, "all": MOST_MISSED}[schedule.missed]
    missed = schedule.ticks(after, edge, anchor=anchor, limit=wanted + 1)
    late = missed[len(missed) - wanted :] if len(missed) > wanted else missed
    return Due(late if wanted else [], on_time, len(missed) > wanted)


def _number_after(after: float, anchor: float, every: float) -> int:
    """Which multiple of *every* is the first later than *after*; the first of all is 1."""
    number = max(1, math.floor((after - anchor) / every))
    while anchor + number * every <= after:
        number += 1
    return number


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_op(who: str, op: object) -> None:
    if isinstance(op, RunOp):
        return
    definition = isinstance(op, Definition)
    if definition or not callable(op) or inspect.iscoroutinefunction(op):
        hint = ": call it, or pass a function that does" if definition else ""
        if isinstance(op, Command):
            hint = ", which is not a run of its own: put it in a workflow, or make it a @job"
        msg = (
            f"{who}: op must be a call of a workflow or job, or a plain function of the tick "
            f"that returns one, found {kind_of(op) if isinstance(op, Command) else format(repr(op), '.80')}{hint}"
        )
        raise DefinitionError(msg)


def _zone(who: str, name: object) -> ZoneInfo:
    try:
        if isinstance(name, str):
            return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        pass
    msg = f"{who}: no time zone is called {name!r}; use an IANA name, such as 'Europe/Berlin' (or install tzdata)"
    raise DefinitionError(msg)


def _check_cron(who: str, cron: object, zone: ZoneInfo) -> None:
    try:
        from cronsim import CronSim, CronSimError  # noqa: PLC0415 - only schedules with cron= need it
    except ImportError as error:
        msg = f"{who}: cron= needs the library cronsim: pip install 'durable-asyncio[cron]', or use every="
        raise DefinitionError(msg) from error
    try:
        if not isinstance(cron, str):
            msg = "not a string"
            raise CronSimError(msg)
        CronSim(cron, datetime(2000, 1, 1, tzinfo=zone))
    except CronSimError as error:
        msg = f"{who}: the cron expression {cron!r} cannot be read: {error}"
        raise DefinitionError(msg) from error
