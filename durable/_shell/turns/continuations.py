"""
What the end of a run starts: follow-ups given by `op.then`, and what the hooks of its definition ask for.

Decided when the end is recorded, and written in the same transaction: started exactly once, or not
at all. Hooks are user code; what goes wrong in one is kept with the run, which it never touches, and
made up for when somebody asks for that: the hook is called again, with what it was called with.
"""

from __future__ import annotations

import contextvars
import sqlite3
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from durable._core.codec.codec import Payload
from durable._core.codec.exceptions.origin import came_from_outside
from durable._core.codec.exceptions.safe_text import one_line
from durable._core.journal import history
from durable._core.journal.events import RunStarted
from durable._core.journal.payloads import rebuilt
from durable._core.light_frozen import light_frozen
from durable._core.program.functions import Finished, Hook, RunnableDefinition
from durable._core.program.ops import Op, RunOp, kind_of
from durable._core.run.decision import Decision
from durable._core.statuses import EndStatus
from durable._shell.attempts.asking import in_short
from durable._shell.log import log
from durable._shell.reads.hook_rows import OwedHook, OwedHooks, owed_hooks
from durable._shell.rows.new_runs import new_run_id, placed
from durable._shell.rows.rows import BrokenHook, Effects, NewRun, ReadyRun, RunState
from durable._shell.rows.templates import begun, from_json
from durable._shell.turns.services import Services
from durable._shell.writes.hook_writes import broken_again, claim_hook, made_up_for
from durable.errors import DurableError


@light_frozen
class Continuations:
    """What the end of a run starts, and the hooks that went wrong."""

    runs: list[NewRun]
    broken: list[BrokenHook]


@light_frozen
class _Ended:
    """A run that has ended, as hooks are told of it."""

    run: int
    run_id: str
    started: RunStarted
    labels: Mapping[str, str]
    status: EndStatus
    #: The value, or the failure.
    outcome: Payload | None
    reason: str
    at: float


def continuations(
    ready: ReadyRun, started: RunStarted, status: EndStatus, end: Decision, services: Services
) -> Continuations:
    """What the end of a run starts, which *end* has decided."""
    found = Continuations([], [])
    now = services.clock.now()
    if status == "succeeded" and ready.follow_ups:
        for template in from_json(ready.follow_ups):
            new = begun(template, run=services.allocate(), run_id=new_run_id(now), now=now)
            found.runs.append(placed(new, services.places).following(ready.run))
    definition = services.definitions.find(ready.workflow, started.version)
    if definition is None or not definition.hooks:
        return found
    ended = _Ended(ready.run, ready.run_id, started, ready.labels, status, end.outcome, end.reason, now)
    for name, (statuses, hook) in _by_name(definition).items():
        if status not in statuses:
            continue
        called = _call(name, hook, ended, definition, services)
        if isinstance(called, BrokenHook):
            found.broken.append(called)
        else:
            found.runs.extend(called)
    return found


def uncalled(
    ready: ReadyRun, started: RunStarted, status: EndStatus, _end: Decision, services: Services
) -> Continuations:
    """As `continuations`, where it was the hooks that killed the process: none is called, and each says so."""
    definition = services.definitions.find(ready.workflow, started.version)
    known = {} if definition is None else _by_name(definition)
    text = "it was not called: the hooks of this run have killed the process"
    return Continuations([], [BrokenHook(name, text) for name, (statuses, _) in known.items() if status in statuses])


def _by_name(definition: RunnableDefinition[..., Any]) -> dict[str, tuple[Iterable[str], Hook[Any]]]:
    """The hooks by what they are called; of those that share a name, the second is "name (2)"."""
    found: dict[str, tuple[Iterable[str], Hook[Any]]] = {}
    for statuses, hook in definition.hooks:
        name = first = str(getattr(hook, "__qualname__", None) or repr(hook))
        number = 1
        while name in found:
            number += 1
            name = f"{first} ({number})"
        found[name] = (statuses, hook)
    return found


def _call(
    name: str, hook: Hook[Any], ended: _Ended, definition: RunnableDefinition[..., Any], services: Services
) -> list[NewRun] | BrokenHook:
    """The runs that a hook asks for, or what went wrong with it."""
    try:
        finished = _finished(ended, definition, services)
        # In a context of its own, so that what it sets there does not leak into the run's.
        ops: list[Any] = contextvars.copy_context().run(partial(_ops_of, hook, finished))
        return [_started(op, ended, services) for op in ops]
    except BaseException as error:  # user code may raise anything; the run is over
        if came_from_outside(error):
            raise
        text = services.codec.conceal_message(in_short(error))
        log.error("hook.failed", run_id=ended.run_id, workflow=ended.started.workflow, hook=name, error=text)
        return BrokenHook(name, text)


def _ops_of(hook: Hook[Any], finished: Finished[Any]) -> list[Any]:
    ops = hook(finished)
    return [ops] if isinstance(ops, Op) else list(ops or ())


def _started(op: Any, ended: _Ended, services: Services) -> NewRun:
    if not isinstance(op, RunOp):
        msg = f"a hook returns calls of workflows and jobs, which are runs of their own; found {kind_of(op)}"
        raise TypeError(msg)
    return services.new_run(op, services.clock.now(), carried=ended.started.carried).following(ended.run)


def _finished(ended: _Ended, definition: RunnableDefinition[..., Any], services: Services) -> Finished[Any]:
    codec, run_id = services.codec, ended.run_id
    where = f"arguments of run {run_id!r}"
    args, kwargs = codec.decode_arguments(ended.started.value or "[[],{}]", definition.arguments, where=where)
    arguments: Mapping[str, Any] = definition.signature.bind(*args, **kwargs).arguments
    value = error = None
    if ended.status == "succeeded":
        value = codec.decode(ended.outcome or "null", definition.result, where=f"result of run {run_id!r}")
    elif ended.outcome is not None:
        error = rebuilt(ended.outcome, codec)
    return Finished(
        run_id,
        ended.started.workflow,
        ended.status,
        arguments,
        value,
        error,
        codec.reveal(ended.reason),
        ended.labels,
        ended.at,
    )


# --- calling them again ----------------------------------------------------------------------------------


class HookCalls:
    """Calls hooks again that went wrong, where somebody asked for that."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def take(self, effects: Effects) -> None:
        """Act on what a commit group caused, or an opening found."""
        for run in effects.hooks:
            self._services.spawn(self._call_again, run)

    async def _call_again(self, run: int) -> None:
        services = self._services
        with services.activity:
            try:
                owed = await services.database.read(partial(_read, services.path, run))
                if owed is not None:
                    for each in owed.hooks:
                        await self._make_up_for(owed, each)
            except DurableError as error:  # they are still owed, and the next opening tries again
                log.error("hook.not_called", run=run, error=one_line(error))

    async def _make_up_for(self, owed: OwedHooks, each: OwedHook) -> None:
        services, row = self._services, owed.row
        # Once for each time that somebody asks: a hook that kills the process must not kill each that opens the file.
        if not await services.commits.call(lambda conn, _: claim_hook(conn, each)):
            return
        called = self._called(owed, each.hook)
        state = RunState(row.run, row.run_id, row.workflow, row.queue)
        now = services.clock.now()

        def record(conn: sqlite3.Connection, effects: Effects) -> None:
            if isinstance(called, BrokenHook):
                broken_again(conn, each, called.error, now)
            else:
                made_up_for(conn, state, each, called, effects)

        await services.commits.call(record)

    def _called(self, owed: OwedHooks, name: str) -> list[NewRun] | BrokenHook:
        services, row = self._services, owed.row
        definition = services.definitions.find(row.workflow, row.version)
        known = {} if definition is None else _by_name(definition)
        if definition is None or name not in known:
            return BrokenHook(name, f"{row.workflow!r} has no such hook any more: give it one of this name")
        statuses, hook = known[name]
        if row.status not in statuses:
            return []  # the run was retried since, and ended in another way
        started = history.start_of(owed.events)
        ended = _Ended(
            row.run,
            row.run_id,
            started,
            row.labels,
            row.status,  # type: ignore[arg-type]  # the file holds nothing else of a run that has ended
            owed.end.payload,
            owed.end.reason,
            row.ended_at or 0.0,
        )
        return _call(name, hook, ended, definition, services)


def _read(path: str, run: int, conn: sqlite3.Connection) -> OwedHooks | None:
    return owed_hooks(conn, path, run)
