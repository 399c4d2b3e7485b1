"""
`durable.replay`: workflow code run over a recorded history, without an engine.

It executes no step and writes nothing. What comes back is each command with its position, the line
of code that asked for it, what was recorded of it, and the locals at that moment; for runs that failed,
are blocked or wait, up to and including the turn where they stand.
"""

from __future__ import annotations

import copy
import os
import types
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias, assert_never

from durable._core.authoring.registry import Definitions, Runnable, collect
from durable._core.codec.codec import Codec
from durable._core.journal.events import Event, RunStarted
from durable._core.program.functions import Workflow
from durable._core.recorded.check import Verdict, verdict_of
from durable._core.recorded.export_format import RunFacts, RunHistory
from durable._debug.sources import text_at
from durable._debug.stepped_replay import Place, SteppedReplay, Stop
from durable._shell.handles.handle import HistoryEvent
from durable._shell.reports.exporting import read_histories
from durable.errors import DurableError, NondeterminismError, UsageError

#: What `replay` takes: a `RunHistory`, the path of an exported one, or events (`await run.history()`, a `DryRun`).
AnyHistory: TypeAlias = RunHistory | str | os.PathLike[str] | Iterable[HistoryEvent | Event]
#: Which code is replayed: a workflow, or several (a list, a module) of which the recorded one is taken.
AnyWorkflow: TypeAlias = Workflow[..., Any] | types.ModuleType | Iterable[Runnable | types.ModuleType] | Definitions


class SourceLine(NamedTuple):
    """A place in the user's code."""

    file: str
    line: int
    function: str

    @property
    def text(self) -> str:
        """The line itself; empty where there is no source (a frozen program)."""
        return text_at(self.file, self.line)


class ReplayedCommand:
    """
    One command of a replay, or the end of one of its strands.

    Attributes:
        position: "3", "3.1.0"; where a strand ended, that of the command which would have been next.
        command: In words: "step 'charge'", "sleep", "returned", "raised KeyError: 'x'".
        strand: Which thread of control asked: "" is the body, "3.1" a helper in group 3.
        file, line: Where its code stood.
        event: What is recorded of it; None where a strand ended.
        outcome: The arrival that ended it; None for groups, for what was cancelled, and while it is open.
        is_open: Whether its outcome is still to come.
    """

    __slots__ = ("_owner", "_stop", "command", "event", "outcome", "position")

    def __init__(
        self, owner: Replay, stop: Stop, position: str, command: str, event: Event | None, outcome: Event | None
    ) -> None:
        self._owner, self._stop = owner, stop
        self.position, self.command, self.event, self.outcome = position, command, event, outcome

    @property
    def is_open(self) -> bool:
        return self.outcome is None and self.position in self._owner.open

    @property
    def strand(self) -> str:
        return self._stop.strand

    @property
    def file(self) -> str:
        return self._stop.file

    @property
    def line(self) -> int:
        return self._stop.line

    @property
    def stop(self) -> int:
        """The stop of the replay at which it was asked for, counted from 0; members of a group share one."""
        return self._stop.number

    @property
    def source(self) -> str:
        """The line of code; empty where there is no source."""
        return text_at(self._stop.file, self._stop.line)

    @property
    def stack(self) -> list[SourceLine]:
        """The workflow's line, and those of the helpers that it awaited: outermost first."""
        return [SourceLine(each.file, each.line, each.function) for each in self._owner.places(self._stop)]

    @property
    def locals(self) -> dict[str, Any]:
        """
        Copies of the innermost function's local variables, as they were at that moment.

        The code is replayed up to here for this; in order of positions that costs one replay for all.
        """
        places = self._owner.places(self._stop)
        return {name: _copied(value) for name, value in places[-1].frame.f_locals.items()} if places else {}

    def __repr__(self) -> str:
        return f"<{self.position} {self.command} at {os.path.basename(self.file)}:{self.line}>"


class Replay:
    """
    What replaying a history came to. Iterating over it gives its commands, in the order in which they were asked for.

    Attributes:
        run_id, workflow: Of the run.
        verdict: ``same``, ``further``, ``diverged`` or ``unreadable``.
        error: How it diverged, or why it cannot be read; None for ``same`` and ``further``.
        ended: Whether the code came to its end.
        value: What the code returned.
        raised: What the code raised.
        changed_arguments: Positions of commands whose arguments differ from the recorded ones; that is allowed.
        patches: Answers of `patched`, by change id.
    """

    def __init__(self, definition: Workflow[..., Any], recorded: RunHistory, codec: Codec) -> None:
        self.recorded = recorded
        self.run_id, self.workflow = recorded.run.run_id, recorded.run.workflow
        self._stepped = SteppedReplay(definition, recorded, codec, compare=True)
        self.stops: list[Stop] = []
        while (stop := self._stepped.next()) is not None:
            self.stops.append(stop)
        execution = self._stepped.execution
        last = self.stops[-1] if self.stops else None
        stuck = last is not None and last.kind in ("diverged", "stuck")
        self.error: DurableError | None = last.error if stuck else None  # type: ignore[union-attr, assignment]
        self.verdict: Verdict = "same" if self.error is None else verdict_of(execution, self.error)
        body = [each for each in self.stops if each.strand == "" and each.kind in ("returned", "raised")]
        self.ended = bool(body)
        self.value: Any = body[-1].value if body else None
        self.raised = body[-1].error if body and body[-1].kind == "raised" else None
        #: Positions of commands that were open at the end of what is recorded.
        self.open = frozenset(execution.leaves)
        self._consumed: Mapping[str, Event] = dict(execution.consumed)
        self.changed_arguments = list(self._stepped.changed_arguments)
        self.patches: Mapping[str, bool] = dict(execution.answers.patches)
        #: What today's code asks for where the recorded run failed.
        self.further: str | None = None
        if self.verdict == "further" and isinstance(self.error, NondeterminismError):
            self.further, self.error = self.error.requested, None

    @property
    def ok(self) -> bool:
        """Whether today's code takes the recorded history as its own."""
        return self.error is None

    def verify(self) -> Replay:
        """
        The replay itself, if it is as recorded.

        Raises:
            NondeterminismError: It asks for something else.
            DecodeError: A recorded value does not fit.
        """
        if self.error is not None:
            raise self.error
        return self

    @cached_property
    def commands(self) -> list[ReplayedCommand]:
        """Every command that was asked for, members of groups included, and the end of each strand."""
        outcomes = outcomes_of(self.recorded, self._consumed)
        found: list[ReplayedCommand] = []
        for stop in self.stops:
            for event in stop.opened:
                position = event.position
                found.append(ReplayedCommand(self, stop, position, event.describe(), event, outcomes.get(position)))
            if stop.kind != "command":
                found.append(ReplayedCommand(self, stop, stop.position, end_in_words(stop), None, None))
        return found

    def at(self, position: str) -> ReplayedCommand:
        """
        The command at *position*.

        Raises:
            UsageError: If there is none; it lists those there are.
        """
        for command in self.commands:
            if command.position == str(position):
                return command
        known = ", ".join(dict.fromkeys(command.position for command in self.commands[:20]))
        msg = f"no command at position {position!r} in this replay; there are {known or 'none'}"
        raise UsageError(msg)

    def places(self, stop: Stop) -> list[Place]:
        """Where the code of the strand that stopped stood: live frames, outermost first, until the next call."""
        self._stepped.seek(stop.number)
        return self._stepped.places()

    def close(self) -> None:
        """Let go of the code; locals cannot be asked for any more."""
        self._stepped.close()

    def __iter__(self) -> Iterator[ReplayedCommand]:
        return iter(self.commands)

    def __len__(self) -> int:
        return len(self.commands)

    def __repr__(self) -> str:
        return f"<Replay of {self.workflow} {self.run_id!r}: {self.verdict}, {len(self.stops)} stops>"


def replay(history: AnyHistory, workflow: AnyWorkflow, *, codec: Codec | None = None) -> Replay:
    """
    Run workflow code over a recorded history. Executes no step, needs no engine, writes nothing.

    Args:
        history: A `RunHistory`, the path of an exported journal with one run of *workflow*, or events: what
            ``await run.history()`` gave, or a `DryRun`.
        workflow: The workflow; or several (a list, a module), of which the one that was recorded is taken.
        codec: Decodes recorded values, where the journal was written with ``codec=`` hooks.

    Raises:
        UsageError: There is nothing to replay: a job, another workflow's history, no such definition.
        ExportFormatError: The file is not an exported journal.

    Example:
        >>> @step
        ... async def price(item: str) -> int:
        ...     return len(item)
        >>> @workflow
        ... async def order(item: str) -> int:
        ...     cents = await price(item)
        ...     return cents + 1
        >>> async with Engine(":memory:", [order]) as engine:
        ...     run = await engine.start(order("tea"))
        ...     await run.result()
        ...     for command in replay(await run.history(), order):
        ...         print(command.position, command.locals)
        4
        0 {'item': 'tea'}
        1 {'item': 'tea', 'cents': 3}
    """
    definitions = as_definitions(workflow)
    recorded = recorded_run(history, definitions)
    return Replay(definition_of(recorded, definitions), recorded, codec or Codec())


def as_definitions(workflow: AnyWorkflow) -> Definitions:
    """One workflow or several, in whatever form, by name."""
    if isinstance(workflow, Definitions):
        return workflow
    if isinstance(workflow, Workflow):
        return Definitions([workflow])
    return collect([workflow] if isinstance(workflow, types.ModuleType) else workflow)


def definition_of(recorded: RunHistory, definitions: Definitions) -> Workflow[..., Any]:
    """
    The workflow among *definitions* that executes a recorded run.

    Raises:
        UsageError: There is none, or it is a job.
    """
    definition = definitions.find(recorded.run.workflow, recorded.run.version)
    if definition is None:
        what = f"run {recorded.run.run_id!r} is of {recorded.run.kind} {recorded.run.workflow!r}"
        msg = f"{what}, which is not among {', '.join(sorted(definitions)) or 'no definitions'}"
        raise UsageError(msg)
    if not isinstance(definition, Workflow):
        msg = f"run {recorded.run.run_id!r} is of job {recorded.run.workflow!r}: a job is one step and has no code"
        raise UsageError(msg)
    return definition


def recorded_run(history: AnyHistory, definitions: Definitions) -> RunHistory:
    """*history*, in whatever form, as one run's."""
    if isinstance(history, RunHistory):
        return history
    if isinstance(history, (str, os.PathLike)):
        runs = read_histories(history)
        found = [each for each in runs if isinstance(definitions.find(each.run.workflow, each.run.version), Workflow)]
        if len(found) != 1:
            msg = (
                f"{os.fspath(history)} has {len(found)} runs of {sorted(definitions)}, expected one: "
                "read it with durable.read_histories(path) and replay each"
            )
            raise UsageError(msg)
        return found[0]
    events = [each.event if isinstance(each, HistoryEvent) else each for each in history]
    started = events[0] if events else None
    if not isinstance(started, RunStarted):
        msg = f"a history begins with RunStarted, found {started!r:.80}"
        raise UsageError(msg)
    facts = RunFacts(
        run_id=started.seed, workflow=started.workflow, version=started.version, sort="workflow", status="running",
        created_at=started.at,
    )  # fmt: skip
    return RunHistory(facts, events)


def end_in_words(stop: Stop) -> str:
    """How a strand ended, in words."""
    match stop.kind:
        case "returned":
            return f"returned {stop.value!r:.200}"
        case "raised":
            return f"raised {type(stop.error).__name__}: {stop.error}".rstrip(": ")
        case "diverged" if isinstance(stop.error, NondeterminismError):
            return f"diverged: asks for {stop.error.requested}, recorded is {stop.error.recorded}"
        case "command" | "diverged" | "stuck":
            return f"{stop.kind}: {stop.error}"
        case _:
            assert_never(stop.kind)


def outcomes_of(recorded: RunHistory, consumed: Mapping[str, Event]) -> dict[str, Event]:
    """The latest arrival by position: what came of each command. *consumed* are the signals."""
    arrived = {event.position: event for event in recorded.events if event.category == "arrival" and event.position}
    return {**arrived, **consumed}


def _copied(value: Any) -> Any:
    try:
        return copy.deepcopy(value)
    except Exception:  # noqa: BLE001 - the user's own classes may refuse; better the thing itself than nothing
        return value
