"""
The debugger: commands in, lines out. It knows no terminal; `prompt` gives it one.

It stands at one stop of a replay and moves in both directions (see `stepped_replay` for how). Everything it shows is
read from the replayed code itself: frames, locals, and the recorded events beside them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from durable._debug import looking_around as look
from durable._debug.breakpoints import Breakpoint, parse
from durable._debug.commands import COMMANDS, CommandFailedError, count, expression, full_name, help_lines
from durable._debug.expressions import ExpressionError, evaluate, is_true, short, whole
from durable._debug.sources import around, line_of, signature_of, site_of
from durable._debug.stepped_replay import Place, Stop
from durable._debug.stepping import step_through
from durable._debug.walker import Walker
from durable.errors import DurableError

if TYPE_CHECKING:
    from pdb import Pdb

    from durable._core.codec.codec import Codec
    from durable._core.program.functions import Workflow
    from durable._core.recorded.export_format import RunHistory

#: Source lines that `list` shows, and commands that `history` shows on each side.
_LINES, _NEIGHBOURS = 11, 5
#: Positions that a mistaken `goto` names.
_NAMED = 20


class Session:
    """
    One debugging session on one recorded run.

    Args:
        definition: The workflow.
        recorded: Its history.
        codec: Decodes recorded values.
        new_pdb: Makes the debugger that `pdb` and `breakpoint()` open.
    """

    def __init__(
        self,
        definition: Workflow[..., Any],
        recorded: RunHistory,
        codec: Codec,
        *,
        new_pdb: Callable[[], Pdb],
    ) -> None:
        self.recorded = recorded
        self._codec = codec
        self._new_pdb = new_pdb
        self._walker = Walker(definition, recorded, codec, new_pdb)
        self.replay, self.stops = self._walker.replay, self._walker.stops
        self._up = 0
        self._breakpoints: list[Breakpoint] = []
        self._made = 0
        self._repeat = ""
        #: Set once `quit` was said.
        self.done = False
        #: Whether the last command failed.
        self.failed = False
        if self.stops:
            self._walker.go(0)

    # --- for the prompt --------------------------------------------------------------------------------

    def header(self) -> list[str]:
        """What is being debugged, and where its end is."""
        facts = self.recorded.run
        size = f"{len(self.stops)} stops, {len(self.recorded.events)} events"
        lines = [f"{facts.workflow} {facts.run_id}, version {facts.version}, {facts.status}: {size}"]
        if facts.reason:
            lines.append(f"  {facts.reason}")
        if not self.stops:
            return [*lines, "its code has not run: it ended before its first turn"]
        last = self.stops[-1]
        if last.kind != "command" or facts.status in ("failed", "blocked"):
            lines.append(f"it came to an end at stop #{last.number} (`last` goes there): {look.ended(last)}")
        else:
            lines.append(f"it waits at stop #{last.number} (`last` goes there)")
        return [*lines, *self.here()]

    def carry_out(self, line: str) -> list[str]:
        """Carry out one line of input; what to show."""
        words = line.strip()
        if not words:
            words = self._repeat
        if not words:
            return []
        name, _, rest = words.partition(" ")
        self.failed = False
        try:
            command = full_name(name)
            self._repeat = words if command in ("next", "back") else ""
            shown: list[str] = getattr(self, f"do_{command}")(rest.strip())
        except (CommandFailedError, ExpressionError, DurableError) as error:
            self.failed = True
            return [f"*** {error}"]
        return shown

    def completions(self, text: str, line: str) -> list[str]:
        """What *text*, the last word of *line*, may become."""
        if line.lstrip() == text:
            return [name for name in COMMANDS if name.startswith(text)]
        name = line.split(maxsplit=1)[0]
        try:
            command = full_name(name)
        except CommandFailedError:
            return []
        if command == "goto":
            found = dict.fromkeys(event.position for stop in self.stops for event in stop.opened)
            return [position for position in found if position.startswith(text)]
        if command == "break":
            names = {event.name for stop in self.stops for event in stop.opened}
            return sorted(name for name in names if name and name.startswith(text))
        if command == "help":
            return [each for each in COMMANDS if each.startswith(text)]
        place = self._place_or_none()
        return [] if place is None else sorted(each for each in place.frame.f_locals if each.startswith(text))

    # --- moving ------------------------------------------------------------------------------------------

    def do_next(self, rest: str) -> list[str]:
        return self._moved(self._number() + count(rest))

    def do_back(self, rest: str) -> list[str]:
        return self._moved(self._number() - count(rest))

    def do_first(self, _rest: str) -> list[str]:
        return self._moved(0)

    def do_last(self, _rest: str) -> list[str]:
        return self._moved(len(self.stops) - 1)

    def do_goto(self, rest: str) -> list[str]:
        if rest.startswith("#") and rest[1:].isdecimal():
            number = int(rest[1:])
            if number >= len(self.stops):
                msg = f"there is no stop #{number}: the last is #{len(self.stops) - 1}"
                raise CommandFailedError(msg)
            return self._moved(number)
        return self._moved(self._stop_of(rest))

    def do_continue(self, _rest: str) -> list[str]:
        here = self._number()
        for stop, places in self._walker.along(range(here + 1, len(self.stops))):
            if met := self._met(stop, places):
                return [f"breakpoint {met}", *self._moved(stop.number)]
        if here == len(self.stops) - 1:
            return self._moved(here + 1)
        return ["no breakpoint was met: this is the last stop", *self._moved(len(self.stops) - 1)]

    def do_rcontinue(self, _rest: str) -> list[str]:
        found: tuple[int, Breakpoint] | None = None
        for stop, places in self._walker.along(range(self._number())):
            if met := self._met(stop, places):
                found = stop.number, met
        if found is None:
            return ["no breakpoint was met: this is the first stop", *self._moved(0)]
        return [f"breakpoint {found[1]}", *self._moved(found[0])]

    def do_find(self, rest: str) -> list[str]:
        # Not bisected: one pass forward, with an evaluation at each stop, costs no more than one replay, and is
        # also right for what becomes false again.
        condition = expression(rest, "find total > 100")
        here = self._number()
        for stop, places in self._walker.along(range(len(self.stops))):
            if places and is_true(condition, places[-1].frame):
                return [f"first true at stop #{stop.number}", *self._moved(stop.number)]
        self._walker.go(here)
        msg = f"{condition} is true at no stop"
        raise CommandFailedError(msg)

    def _met(self, stop: Stop, places: list[Place]) -> Breakpoint | None:
        return next((each for each in self._breakpoints if each.meets(stop, places)), None)

    def _moved(self, number: int) -> list[str]:
        if not self.stops:
            msg = "there are no stops: the code has not run"
            raise CommandFailedError(msg)
        if number < 0:
            return ["this is the first stop", *self._at(0)]
        if number >= len(self.stops):
            return ["this is the last stop", *self._at(len(self.stops) - 1)]
        return self._at(number)

    def _at(self, number: int) -> list[str]:
        self._up = 0
        self._walker.go(number)
        return self.here()

    def _number(self) -> int:
        stop = self.replay.stop
        if stop is None:
            msg = "there are no stops: the code has not run"
            raise CommandFailedError(msg)
        return stop.number

    def _stop_of(self, position: str) -> int:
        if not position:
            msg = "go to which position? goto 3.1.0, or goto #12"
            raise CommandFailedError(msg)
        for stop in self.stops:
            if stop.position == position or any(event.position == position for event in stop.opened):
                return stop.number
        known = list(dict.fromkeys(event.position for stop in self.stops for event in stop.opened))
        named = ", ".join(known[:_NAMED]) + (", ..." if len(known) > _NAMED else "")
        msg = f"no command at position {position!r}; there are {named}"
        raise CommandFailedError(msg)

    # --- looking -----------------------------------------------------------------------------------------

    def here(self) -> list[str]:
        """Where the session stands: position, line, command, outcome, and the locals that changed."""
        stop, place = self._stop(), self._place_or_none()
        strand = f"  (strand {stop.strand})" if stop.strand else ""
        where = f"{stop.file}:{stop.line}" if place is None else site_of(place)
        lines = [f"#{stop.number}  {stop.position or '-'}{strand}  {where}"]
        if place is not None and (text := line_of(place)):
            lines.append(f"    {text}")
        if stop.kind in ("diverged", "stuck"):  # what is recorded there is not what the code asked for
            opened = [event for event in stop.opened if event.position != stop.position]
        else:
            opened = [*stop.opened]
        lines += [f"  {self._told(event)}" for event in opened]
        if stop.kind != "command":
            lines += [f"  {line}" for line in look.end_lines(stop)]
        now, before = look.locals_in(place), self._walker.locals_before
        for name, text in now.items():
            if before.get(name) != text:
                was = f"  (was {before[name]})" if name in before else ""
                lines.append(f"  {name} = {text}{was}")
        return lines

    def do_list(self, rest: str) -> list[str]:
        return around(self._place(), count(rest, _LINES))

    def do_locals(self, _rest: str) -> list[str]:
        now = look.locals_in(self._place())
        before = self._walker.locals_before if self._up == 0 else now
        if not now:
            return ["no local variables"]
        lines = []
        for name, text in now.items():
            changed = before.get(name) != text
            was = f"  (was {before[name]})" if changed and name in before else ""
            lines.append(f"{'*' if changed else ' '} {name} = {text}{was}")
        return lines

    def do_event(self, _rest: str) -> list[str]:
        stop = self._stop()
        lines: list[str] = []
        arrival = self.replay.arrival()
        if arrival is not None:
            lines.append(f"led here: {look.event_in_words(arrival)}")
        for event in stop.opened:
            lines.append(f"recorded: {look.event_in_words(event)}")
            mine = [each for each in self.recorded.events if each.position == event.position and each is not event]
            lines += [f"  {line}" for each in mine for line in look.event_lines(each, event.at, self._codec)]
            if event.position in self._walker.open:
                lines.append("  still open")
        if stop.kind != "command":
            lines += look.end_lines(stop)
        return lines or ["nothing is recorded here"]

    def do_where(self, rest: str) -> list[str]:
        if rest == "all":
            lines: list[str] = []
            for strand, position in self.replay.strands():
                lines.append(f"strand {strand or '(the body)'}, at {position or '-'}")
                lines += [f"  {line}" for line in self._stack(self.replay.places(strand))]
            return lines or ["no code stands anywhere: all strands have ended"]
        return self._stack(self.replay.places(), marked=True)

    def do_strands(self, _rest: str) -> list[str]:
        here = self._stop().strand
        lines = []
        for strand, position in self.replay.strands():
            places = self.replay.places(strand)
            where = site_of(places[-1]) if places else "not begun"
            event = self.replay.history.commands.get(position)
            what = "" if event is None else f", {event.describe()}"
            lines.append(
                f"{'*' if strand == here else ' '} {strand or '(the body)'}: at {position or '-'}{what}  {where}"
            )
        return lines or ["all strands have ended"]

    def do_up(self, _rest: str) -> list[str]:
        return self._looked(self._up + 1)

    def do_down(self, _rest: str) -> list[str]:
        return self._looked(self._up - 1)

    def do_print(self, rest: str) -> list[str]:
        return [short(evaluate(expression(rest, "print total + 1"), self._place().frame))]

    def do_pp(self, rest: str) -> list[str]:
        return whole(evaluate(expression(rest, "print total + 1"), self._place().frame))

    def do_history(self, rest: str) -> list[str]:
        here, reach = self._number(), count(rest, _NEIGHBOURS)
        lines = []
        for stop in self.stops[max(0, here - reach) : here + reach + 1]:
            mark = "->" if stop.number == here else "  "
            told = [self._told(event) for event in stop.opened[:1] if stop.kind == "command"]
            more = f" (and {len(stop.opened) - 1} more)" if len(stop.opened) > 1 else ""
            what = told[0] + more if told else look.ended(stop)
            lines.append(f"{mark} #{stop.number:<4} {what}")
        return lines

    # --- breakpoints and pdb -----------------------------------------------------------------------------

    def do_break(self, rest: str) -> list[str]:
        try:
            made = parse(self._made + 1, rest)
        except ValueError as error:
            raise CommandFailedError(str(error)) from None
        self._made += 1
        self._breakpoints.append(made)
        return [f"breakpoint {made}"]

    def do_breaks(self, _rest: str) -> list[str]:
        return [f"breakpoint {each}" for each in self._breakpoints] or ["no breakpoints"]

    def do_delete(self, rest: str) -> list[str]:
        gone = [each for each in self._breakpoints if rest in ("all", str(each.number))]
        if not gone:
            msg = f"no breakpoint {rest!r}: `breaks` lists them"
            raise CommandFailedError(msg)
        self._breakpoints = [each for each in self._breakpoints if each not in gone]
        return [f"deleted breakpoint {each}" for each in gone]

    def do_pdb(self, _rest: str) -> list[str]:
        place, number = self._place(), self._number()
        goes_on = number < len(self.stops) - 1 and self._stop().kind == "command"
        if step_through(self._new_pdb(), place.frame, (lambda: self.replay.seek(number + 1)) if goes_on else None):
            self._walker.arrived(number + 1)
        return self.here()

    def do_help(self, rest: str) -> list[str]:
        return help_lines(rest)

    def do_quit(self, _rest: str) -> list[str]:
        self.done = True
        return []

    # --- inside ------------------------------------------------------------------------------------------

    def _told(self, event: Any) -> str:
        return look.told(event, self._walker.outcomes.get(event.position), self._codec, self._walker.open)

    def _stop(self) -> Stop:
        self._number()
        assert self.replay.stop is not None
        return self.replay.stop

    def _place_or_none(self) -> Place | None:
        places = self.replay.places() if self.replay.stop is not None else []
        return places[max(0, len(places) - 1 - self._up)] if places else None

    def _place(self) -> Place:
        place = self._place_or_none()
        if place is None:
            msg = "no code stands here"
            raise CommandFailedError(msg)
        return place

    def _looked(self, up: int) -> list[str]:
        places = self.replay.places()
        if not 0 <= up < len(places):
            msg = "this is the workflow itself" if up >= 0 else "this is the innermost function"
            raise CommandFailedError(msg)
        self._up = up
        return self._stack(places, marked=True)

    def _stack(self, places: list[Place], *, marked: bool = False) -> list[str]:
        if not places:
            return ["no code stands here"]
        here = len(places) - 1 - self._up
        lines = []
        for index, place in enumerate(places):
            mark = ("-> " if index == here else "   ") if marked else ""
            lines.append(f"{mark}{site_of(place)}  {signature_of(place)}")
            if text := line_of(place):
                lines.append(f"{'   ' if marked else ''}    {text}")
        return lines
