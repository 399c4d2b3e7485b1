"""
The debugger: what a person types at its prompt, and what it shows.

It stands at one stop of a replay and moves in both directions (see `stepped_replay` for how). Everything it shows is
read from the replayed code itself: frames, locals, and the recorded events beside them.
"""

from __future__ import annotations

import cmd
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TextIO

from durable._debug import looking_around as look
from durable._debug.breakpoints import Breakpoint, parse
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

_PROMPT: Final = "(debug) "
_ALIASES: Final = {
    "n": "next",
    "b": "back",
    "c": "continue",
    "rc": "rcontinue",
    "l": "list",
    "p": "print",
    "w": "where",
    "h": "help",
    "q": "quit",
}
#: Source lines that `list` shows, and commands that `history` shows on each side.
_LINES, _NEIGHBOURS = 11, 5
#: Positions that a mistaken `goto` names.
_NAMED = 20


class CommandFailedError(Exception):
    """A command could not do what it was asked for; the message is for the person at the prompt."""


class Session(cmd.Cmd):
    """
    One debugging session on one recorded run.

    Each command is a method `do_NAME`, in the order in which `help` lists them; its docstring is what `help` says
    of it: how it is typed, and what it does.

    Args:
        definition: The workflow.
        recorded: Its history.
        codec: Decodes recorded values.
        new_pdb: Makes the debugger that `pdb` and `breakpoint()` open.
        write: Takes each line that is shown.
        script: Where commands come from; a terminal, if there is none.
    """

    prompt = _PROMPT

    def __init__(
        self,
        definition: Workflow[..., Any],
        recorded: RunHistory,
        codec: Codec,
        *,
        new_pdb: Callable[[], Pdb],
        write: Callable[[str], object],
        script: TextIO | None = None,
    ) -> None:
        super().__init__(stdin=script)
        if script is not None:
            self.use_rawinput, self.prompt = False, ""  # lines are echoed with the prompt, see `precmd`
        self.recorded = recorded
        self._codec = codec
        self._new_pdb = new_pdb
        self._write = write
        self._walker = Walker(definition, recorded, codec, new_pdb)
        self.replay, self.stops = self._walker.replay, self._walker.stops
        self._up = 0
        self._breakpoints: list[Breakpoint] = []
        self._made = 0
        #: Whether a command failed.
        self.failed = False
        if self.stops:
            self._walker.go(0)

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
            lines.append(f"it came to an end at stop #{last.number} (`last` goes there): {look.how_it_ended(last)}")
        else:
            lines.append(f"it waits at stop #{last.number} (`last` goes there)")
        return [*lines, *self.here()]

    # --- as `cmd.Cmd` asks for it ------------------------------------------------------------------------

    def precmd(self, line: str) -> str:
        """Echo a line of a script, so that the output reads like a session."""
        if not self.use_rawinput and line != "EOF" and not _is_comment(line):
            self._write(f"{_PROMPT}{line.strip()}".rstrip())
        return line

    def onecmd(self, line: str) -> bool:
        """Carry out one line; whether it was the last."""
        if _is_comment(line):
            return False
        try:
            return bool(super().onecmd(line))
        except (CommandFailedError, ExpressionError, DurableError) as error:
            self.failed = True
            self._write(f"*** {error}")
            return False

    def parseline(self, line: str) -> tuple[str | None, str | None, str]:
        """The name of the command in full, where a beginning or an alias of it was typed."""
        name, rest, line = super().parseline(line)
        return self._full_name(name) if name else name, rest, line

    def emptyline(self) -> bool:
        """An empty line continues in the same direction."""
        name, _, line = self.parseline(self.lastcmd)
        return self.onecmd(line) if name in ("next", "back") else False

    def default(self, line: str) -> None:
        """No command is called so, or several could be."""
        name = line.split(maxsplit=1)[0]
        found = self.completenames(name)
        msg = f"{name!r} could be {', '.join(found)}" if found else f"no command is called {name!r}: `help` lists them"
        raise CommandFailedError(msg)

    @staticmethod
    def commands() -> dict[str, tuple[str, str]]:
        """How each command is typed, and what it does, by its name."""
        found: dict[str, tuple[str, str]] = {}
        for name, method in vars(Session).items():
            if name.startswith("do_") and method.__doc__:
                usage, _, does = method.__doc__.partition(": ")
                found[name.removeprefix("do_")] = usage, does
        return found

    @staticmethod
    def help_lines() -> list[str]:
        """All commands."""
        commands = Session.commands().values()
        width = max(len(usage) for usage, _ in commands)
        lines = [f"  {usage:<{width}}  {does}" for usage, does in commands]
        aliases = ", ".join(f"{alias} is {name}" for alias, name in _ALIASES.items())
        return [*lines, f"Any clear beginning will do; {aliases}.", "An empty line repeats next and back."]

    def _full_name(self, name: str) -> str:
        """The command that *name* means: itself, an alias, or an unambiguous beginning; else itself."""
        if name in self.commands() or name == "EOF":
            return name
        if name in _ALIASES:
            return _ALIASES[name]
        found = self.completenames(name)
        return found[0] if len(found) == 1 else name

    def completenames(self, text: str, *_: Any) -> list[str]:
        """Commands that begin so."""
        return [name for name in self.commands() if name.startswith(text)]

    def complete_help(self, *args: Any) -> list[str]:
        return self.completenames(*args)

    def complete_goto(self, text: str, *_: Any) -> list[str]:
        found = dict.fromkeys(event.position for stop in self.stops for event in stop.opened)
        return [position for position in found if position.startswith(text)]

    def complete_break(self, text: str, *_: Any) -> list[str]:
        names = {event.name for stop in self.stops for event in stop.opened}
        return sorted(name for name in names if name and name.startswith(text))

    def completedefault(self, *ignored: Any) -> list[str]:
        """Local variables, behind any other command."""
        text, line, *_ = ignored
        place = self._place_or_none()
        if place is None or self.parseline(line)[0] not in self.commands():
            return []
        return sorted(name for name in place.frame.f_locals if name.startswith(text))

    def say(self, *lines: str) -> None:
        """Show lines."""
        for line in lines:
            self._write(line)

    # --- moving ------------------------------------------------------------------------------------------

    def do_next(self, rest: str) -> None:
        """next [N]: continue to the next stop, or N stops"""
        self._go(self._number() + _count(rest))

    def do_back(self, rest: str) -> None:
        """back [N]: go back to the stop before, or N stops"""
        self._go(self._number() - _count(rest))

    def do_goto(self, rest: str) -> None:
        """goto POSITION | #STOP: go to the command at a position (3.1.0), or to a stop (#12)"""
        if not rest.startswith("#") or not rest[1:].isdecimal():
            self._go(self._stop_of(rest))
        elif int(rest[1:]) < len(self.stops):
            self._go(int(rest[1:]))
        else:
            msg = f"there is no stop {rest}: the last is #{len(self.stops) - 1}"
            raise CommandFailedError(msg)

    def do_first(self, _rest: str) -> None:
        """first: go to the first stop"""
        self._go(0)

    def do_last(self, _rest: str) -> None:
        """last: go to the last stop: where the run ended, waits, or cannot continue"""
        self._go(len(self.stops) - 1)

    def do_continue(self, _rest: str) -> None:
        """continue: run to where a breakpoint is met; without one, to the last stop"""
        here, last = self._number(), len(self.stops) - 1
        for stop, places in self._walker.along(range(here + 1, last + 1)):
            if met := self._met(stop, places):
                self.say(f"breakpoint {met}")
                self._go(stop.number)
                return
        if here < last:
            self.say("no breakpoint was met: this is the last stop")
        self._go(max(here + 1, last))

    def do_rcontinue(self, _rest: str) -> None:
        """rcontinue: go back to where a breakpoint is met; without one, to the first stop"""
        found, number = "no breakpoint was met: this is the first stop", 0
        for stop, places in self._walker.along(range(self._number())):
            if met := self._met(stop, places):
                found, number = f"breakpoint {met}", stop.number
        self.say(found)
        self._go(number)

    def do_find(self, rest: str) -> None:
        """find EXPR: go to the first stop at which it is true; where it raises, it is not"""
        # Not bisected: one pass forward, with an evaluation at each stop, costs no more than one replay, and is
        # also right for what becomes false again, which bisecting would miss.
        condition = _expression(rest, "find total > 100")
        here = self._number()
        for stop, places in self._walker.along(range(len(self.stops))):
            if places and is_true(condition, places[-1].frame):
                self.say(f"first true at stop #{stop.number}")
                self._go(stop.number)
                return
        self._walker.go(here)
        msg = f"{condition} is true at no stop"
        raise CommandFailedError(msg)

    def _met(self, stop: Stop, places: list[Place]) -> Breakpoint | None:
        return next((each for each in self._breakpoints if each.meets(stop, places)), None)

    def _go(self, number: int) -> None:
        last = len(self.stops) - 1
        if not self.stops:
            msg = "there are no stops: the code has not run"
            raise CommandFailedError(msg)
        if not 0 <= number <= last:
            self.say("this is the first stop" if number < 0 else "this is the last stop")
        self._up = 0
        self._walker.go(min(max(0, number), last))
        self.say(*self.here())

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
        number = self._walker.stop_of(position)
        if number is not None:
            return number
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
        for event in opened:
            lines.append(f"  {self._walker.told(event)}")
            if memos := self._walker.memos.get(event.position):
                lines.append(f"         {len(memos)} memo{'s' * (len(memos) > 1)} (`memos` shows them)")
        if stop.kind != "command":
            lines += [f"  {line}" for line in look.end_lines(stop)]
        now, before = look.locals_in(place), self._walker.locals_before
        for name, text in now.items():
            if before.get(name) != text:
                was = f"  (was {before[name]})" if name in before else ""
                lines.append(f"  {name} = {text}{was}")
        return lines

    def do_list(self, rest: str) -> None:
        """list [N]: the source around here, N lines of it; the current line is marked"""
        self.say(*around(self._place(), _count(rest, _LINES)))

    def do_locals(self, _rest: str) -> None:
        """locals: local variables; * marks what changed since this code's stop before"""
        now = look.locals_in(self._place())
        before = self._walker.locals_before if self._up == 0 else now
        if not now:
            self.say("no local variables")
        for name, text in now.items():
            changed = before.get(name) != text
            was = f"  (was {before[name]})" if changed and name in before else ""
            self.say(f"{'*' if changed else ' '} {name} = {text}{was}")

    def do_event(self, _rest: str) -> None:
        """event: what is recorded of the command here, what led here, what came of it"""
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
        self.say(*(lines or ["nothing is recorded here"]))

    def do_memos(self, rest: str) -> None:
        """memos [TEXT]: what the steps here have recorded by `memo`, and used; or all of the run's that hold TEXT"""
        if rest:
            found = [memo for memos in self._walker.memos.values() for memo in memos]
            found = [memo for memo in found if rest in look.memo_text(memo, self._codec)]
        else:
            here = [memo for event in self._stop().opened for memo in self._walker.memos.get(event.position, ())]
            found = [memo for memo in here if memo.value != "null"]
        lines = [line for memo in found for line in look.memo_lines(memo, self._codec, whole=bool(rest))]
        self.say(*(lines or [f"no memo holds {rest!r}" if rest else "no step here has recorded a memo"]))

    def do_where(self, rest: str) -> None:
        """where [all]: the functions that stand here, outermost first; or those of all strands"""
        if rest != "all":
            self.say(*self._stack(self.replay.places(), marked=True))
            return
        strands = self.replay.strands()
        if not strands:
            self.say("no code stands anywhere: all strands have ended")
        for strand, position in strands:
            self.say(f"strand {strand or '(the body)'}, at {position or '-'}")
            self.say(*(f"  {line}" for line in self._stack(self.replay.places(strand))))

    def do_strands(self, _rest: str) -> None:
        """strands: the threads of control that are open, and what each waits for"""
        here, strands = self._stop().strand, self.replay.strands()
        if not strands:
            self.say("all strands have ended")
        for strand, position in strands:
            places = self.replay.places(strand)
            where = site_of(places[-1]) if places else "not begun"
            event = self.replay.history.commands.get(position)
            what = "" if event is None else f", {event.describe()}"
            mark = "*" if strand == here else " "
            self.say(f"{mark} {strand or '(the body)'}: at {position or '-'}{what}  {where}")

    def do_up(self, _rest: str) -> None:
        """up: look at the function that awaits this one"""
        self._look(self._up + 1)

    def do_down(self, _rest: str) -> None:
        """down: look at the function that this one awaits"""
        self._look(self._up - 1)

    def do_print(self, rest: str) -> None:
        """print EXPR: the value of an expression here, in one line; it changes nothing"""
        self.say(short(evaluate(_expression(rest, "print total + 1"), self._place().frame)))

    def do_pp(self, rest: str) -> None:
        """pp EXPR: all of the value of an expression"""
        self.say(*whole(evaluate(_expression(rest, "print total + 1"), self._place().frame)))

    def do_history(self, rest: str) -> None:
        """history [N]: the commands around here, N on each side"""
        here, reach = self._number(), _count(rest, _NEIGHBOURS)
        for stop in self.stops[max(0, here - reach) : here + reach + 1]:
            mark = "->" if stop.number == here else "  "
            told = [self._walker.told(event) for event in stop.opened[:1] if stop.kind == "command"]
            more = f" (and {len(stop.opened) - 1} more)" if len(stop.opened) > 1 else ""
            what = told[0] + more if told else look.how_it_ended(stop)
            self.say(f"{mark} #{stop.number:<4} {what}")

    # --- breakpoints and pdb -----------------------------------------------------------------------------

    def do_break(self, rest: str) -> None:
        """break NAME | LINE | FILE:LINE | if EXPR: where continue stops"""
        try:
            made = parse(self._made + 1, rest)
        except ValueError as error:
            raise CommandFailedError(str(error)) from None
        self._made += 1
        self._breakpoints.append(made)
        self.say(f"breakpoint {made}")

    def do_breaks(self, _rest: str) -> None:
        """breaks: the breakpoints"""
        self.say(*([f"breakpoint {each}" for each in self._breakpoints] or ["no breakpoints"]))

    def do_delete(self, rest: str) -> None:
        """delete N | all: remove breakpoints"""
        gone = [each for each in self._breakpoints if rest in ("all", str(each.number))]
        if not gone:
            msg = f"no breakpoint {rest!r}: `breaks` lists them"
            raise CommandFailedError(msg)
        self._breakpoints = [each for each in self._breakpoints if each not in gone]
        self.say(*(f"deleted breakpoint {each}" for each in gone))

    def do_pdb(self, _rest: str) -> None:
        """pdb: Python's own debugger, here: n and s advance line by line, c and q come back"""
        place, number = self._place(), self._number()
        goes_on = number < len(self.stops) - 1 and self._stop().kind == "command"
        if step_through(self._new_pdb(), place.frame, (lambda: self.replay.seek(number + 1)) if goes_on else None):
            self._walker.arrived(number + 1)
        self.say(*self.here())

    def do_help(self, arg: str) -> None:
        """help [COMMAND]: what there is"""
        if not arg:
            self.say(*self.help_lines())
            return
        name = self._full_name(arg)
        if name not in self.commands():
            self.default(arg)
        usage, does = self.commands()[name]
        self.say(f"{usage}: {does}")

    def do_quit(self, _rest: str) -> bool:
        """quit: leave"""
        return True

    def do_EOF(self, _rest: str) -> bool:  # noqa: N802 - as `cmd.Cmd` calls the end of input
        # No docstring: `help` does not list it.
        if self.use_rawinput:
            self.say("")
        return True

    # --- inside ------------------------------------------------------------------------------------------

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

    def _look(self, up: int) -> None:
        places = self.replay.places()
        if not 0 <= up < len(places):
            msg = "this is the workflow itself" if up >= 0 else "this is the innermost function"
            raise CommandFailedError(msg)
        self._up = up
        self.say(*self._stack(places, marked=True))

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


def _is_comment(line: str) -> bool:
    """Whether *line* of a script begins with ``#``, and is no stop (#12)."""
    text = line.lstrip()
    return text.startswith("#") and not text[1:2].isdecimal()


def _count(text: str, default: int = 1) -> int:
    """The number that a command was given, or *default*."""
    if not text:
        return default
    if not text.isdecimal() or len(text) > 9:  # noqa: PLR2004 - more stops than any run has
        msg = f"a number is needed, found {text!r}"
        raise CommandFailedError(msg)
    return int(text)


def _expression(text: str, usage: str) -> str:
    """The expression that a command was given."""
    if not text:
        msg = f"an expression is needed, as in: {usage}"
        raise CommandFailedError(msg)
    return text
