"""
One moment of a replay, as the debugger's page shows it: source, locals and what changed, the event, the strands.

The code is replayed for each page, silently and within a time limit: no step is executed, and nothing is kept between
two requests. What is shown of source comes from the code that was loaded, never from a path in a journal.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from attrs import frozen
from markupsafe import Markup

from durable._core.recorded.memos import used_by
from durable._debug import looking_around as look
from durable._debug.breakpoints import Breakpoint
from durable._debug.expressions import is_true
from durable._debug.replay import definition_of
from durable._debug.sources import lines_around, site_of
from durable._debug.stepped_replay import Place, Stop
from durable._debug.walker import Walker
from durable.errors import UsageError
from durable.web.colouring import coloured

if TYPE_CHECKING:
    from durable._core.authoring.registry import Definitions
    from durable._core.codec.codec import Codec
    from durable._core.journal.events import Event
    from durable._core.recorded.export_format import RunHistory

#: Seconds that the replays of one page may take.
MOST_SECONDS: Final = 5.0
#: Lines of source, and stops on each side of the current one in the list.
_LINES: Final = 60
_NEIGHBOURS: Final = 12
#: Memos that are shown: the newest.
_MEMOS: Final = 60


@frozen
class SourceLine:
    """A line of the function where the code stands."""

    number: int
    #: In colours.
    text: Markup
    current: bool
    #: The first stop of the replay that stands here; None if none does.
    stop: int | None


@frozen
class Local:
    """A local variable, as text."""

    name: str
    text: str
    #: What it was at the stop before of the same code; None if it is new, or has not changed.
    was: str | None
    changed: bool


@frozen
class StrandAt:
    """A strand that is open: where it stands, and what it waits for."""

    name: str
    position: str
    where: str
    what: str
    here: bool


@frozen
class StopAt:
    """A stop in the list of stops."""

    number: int
    position: str
    what: str
    here: bool


@frozen
class MemoAt:
    """What a step has recorded by `memo`: what that is called, what it used, and what it came to as JSON."""

    name: str
    used: str
    text: str


@frozen
class Moment:
    """Where a replay stands."""

    number: int
    #: Number of the last stop.
    last: int
    kind: str
    position: str
    where: str
    file: str
    function: str
    source: list[SourceLine]
    locals: list[Local]
    #: The functions that stand here, outermost first.
    stack: list[str]
    #: What the steps that were asked for here have recorded by `memo`.
    memos: list[MemoAt]
    #: What led here, what was asked for and what came of it; how it ended.
    led_here: str | None
    commands: list[str]
    ends: list[str]
    strands: list[StrandAt]
    stops: list[StopAt]
    #: The first stop at which something raised or did not fit; None if none did.
    failure: int | None


class NoMomentError(Exception):
    """What was asked for is at no stop; the message is for the person who asked."""


def moment_of(
    recorded: RunHistory,
    definitions: Definitions,
    codec: Codec,
    *,
    stop: int | None = None,
    at: str = "",
    line: int | None = None,
    after: int = -1,
    find: str = "",
) -> Moment:
    """
    A moment of a run.

    Args:
        recorded: Its history.
        definitions: The code at hand.
        codec: Decodes recorded values.
        stop: Which stop, counted from 0.
        at: Or the position of a command; "last", or "failure".
        line: Or the next stop behind *after* that stands on this line.
        after: As above.
        find: Or the first stop at which this expression is true. Evaluated: only for those who may.

    Raises:
        NoMomentError: There is none.
        UsageError: The run cannot be replayed, or that takes too long.
    """
    walker = Walker(definition_of(recorded, definitions), recorded, codec, seconds=MOST_SECONDS)
    try:
        if not walker.stops:
            msg = "its code has not run: it ended before its first turn"
            raise NoMomentError(msg)
        return _moment(walker, walker.go(_wanted(walker, stop, at, line, after, find)))
    finally:
        walker.replay.close()


def _wanted(walker: Walker, stop: int | None, at: str, line: int | None, after: int, find: str) -> int:
    last = len(walker.stops) - 1
    if find:
        for each, places in walker.along(range(last + 1)):
            if places and is_true(find, places[-1].frame):
                return each.number
        msg = f"{find} is true at no stop"
        raise NoMomentError(msg)
    if line is not None:
        wanted = Breakpoint(1, line=line)
        numbers = [each.number for each, places in walker.along(range(last + 1)) if wanted.meets(each, places)]
        if not numbers:
            msg = f"no stop stands on line {line}"
            raise NoMomentError(msg)
        return next((number for number in numbers if number > after), numbers[0])
    if at == "last":
        return last
    if at == "failure":
        failure = _failure(walker.stops)
        return last if failure is None else failure
    if at:
        number = walker.stop_of(at)
        if number is not None:
            return number
        msg = f"no command was asked for at position {at}"
        raise NoMomentError(msg)
    return min(max(0, stop or 0), last)


def _moment(walker: Walker, stop: Stop) -> Moment:
    replay, places = walker.replay, walker.replay.places()
    place = places[-1] if places else None
    file, line = (stop.file, stop.line) if place is None else (place.file, place.line)
    arrival = replay.arrival()
    return Moment(
        number=stop.number,
        last=len(walker.stops) - 1,
        kind=stop.kind,
        position=stop.position,
        where=f"{os.path.basename(file)}:{line}",
        file=stop.file,
        function=place.function.rpartition(".")[2] if place is not None else "",
        source=_source(place, walker.stops),
        locals=_locals(place, walker),
        stack=[site_of(each) for each in places],
        memos=_memos(walker, stop),
        led_here=None if arrival is None else _arrived(walker, arrival),
        commands=[walker.told(event) for event in stop.opened],
        ends=[] if stop.kind == "command" else look.end_lines(stop),
        strands=_strands(walker, stop),
        stops=_stops(walker, stop),
        failure=_failure(walker.stops),
    )


def _arrived(walker: Walker, arrival: Event) -> str:
    """The event that let the code continue: where it can be told so, as the outcome of its command."""
    command = walker.replay.history.commands.get(arrival.position or "")
    return look.event_in_words(arrival) if command is None else walker.told(command)


def _failure(stops: Sequence[Stop]) -> int | None:
    return next((each.number for each in stops if each.kind in ("raised", "diverged", "stuck")), None)


def _source(place: Place | None, stops: Sequence[Stop]) -> list[SourceLine]:
    if place is None:
        return []
    stands = {each.line: each.number for each in reversed(stops) if each.file == place.file}
    lines = lines_around(place, _LINES)
    return [
        SourceLine(number, text, number == place.line, stands.get(number))
        for number, text in zip(lines, coloured([*lines.values()]), strict=True)
    ]


def _locals(place: Place | None, walker: Walker) -> list[Local]:
    before = walker.locals_before
    found = []
    for name, text in look.locals_in(place).items():
        changed = before.get(name) != text
        found.append(Local(name, text, before.get(name) if changed else None, changed))
    return found


def _memos(walker: Walker, stop: Stop) -> list[MemoAt]:
    found = []
    told = [memo for event in stop.opened for memo in walker.memos.get(event.position, ()) if memo.value != "null"]
    for memo in told[-_MEMOS:]:
        text = look.memo_text(memo, walker.codec)
        found.append(MemoAt(memo.name, str(used_by(text) or ""), text))
    return found


def _strands(walker: Walker, stop: Stop) -> list[StrandAt]:
    found = []
    for strand, position in walker.replay.strands():
        places = walker.replay.places(strand)
        event = walker.replay.history.commands.get(position)
        where = site_of(places[-1]) if places else "not begun"
        what = "" if event is None else event.describe()
        found.append(StrandAt(strand or "the body", position, where, what, strand == stop.strand))
    return found


def _stops(walker: Walker, here: Stop) -> list[StopAt]:
    first = max(0, here.number - _NEIGHBOURS)
    found = []
    for stop in walker.stops[first : here.number + _NEIGHBOURS + 1]:
        opened = stop.opened[:1] if stop.kind == "command" else ()
        told = [walker.told(event).partition(" ")[2].strip() for event in opened]
        more = f" (and {len(stop.opened) - 1} more)" if len(stop.opened) > 1 else ""
        what = told[0] + more if told else look.how_it_ended(stop)
        found.append(StopAt(stop.number, stop.position, what, stop.number == here.number))
    return found


def require_code(definitions: Definitions | None) -> Definitions:
    """
    The code that was given.

    Raises:
        UsageError: None was.
    """
    if definitions is None:
        msg = "the code is replayed here, and none was given: dashboard(app=...), or durable ui --app pkg.mod"
        raise UsageError(msg)
    return definitions
