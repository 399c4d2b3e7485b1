"""
What the end of a run starts: follow-ups given by `op.then`, and what the hooks of its definition ask for.

Decided when the end is recorded, and written in the same transaction: started exactly once, or not
at all. Hooks are user code; whatever goes wrong in them is logged, and never touches the run.
"""

from __future__ import annotations

import contextvars
from collections.abc import Mapping
from typing import Any

from durable._core.codec.exceptions.origin import came_from_outside
from durable._core.journal.events import RunStarted
from durable._core.journal.payloads import rebuilt
from durable._core.program.functions import Finished, Hook, RunnableDefinition
from durable._core.program.ops import Op, RunOp, kind_of
from durable._core.run.decision import Decision
from durable._core.statuses import EndStatus
from durable._shell.attempts.asking import in_short
from durable._shell.log import log
from durable._shell.rows.new_runs import new_run_id, placed
from durable._shell.rows.rows import NewRun, ReadyRun
from durable._shell.rows.templates import begun, from_json
from durable._shell.turns.services import Services


def follow_ups(
    ready: ReadyRun, started: RunStarted, status: EndStatus, end: Decision, services: Services
) -> list[NewRun]:
    """The runs that the end of a run starts, which *end* has decided."""
    found: list[NewRun] = []
    now = services.clock.now()
    if status == "succeeded" and ready.follow_ups:
        for template in from_json(ready.follow_ups):
            new = begun(template, run=services.allocate(), run_id=new_run_id(now), now=now)
            found.append(placed(new, services.places).following(ready.run))
    definition = services.definitions.find(ready.workflow, started.version)
    if definition is None or not definition.hooks:
        return found
    hooks = [hook for statuses, hook in definition.hooks if status in statuses]
    for hook in hooks:
        # In a context of its own, so that what it sets there does not leak into the run's.
        try:
            finished = _finished(ready, started, definition, status, end, services, now)
            ops: Any = contextvars.copy_context().run(lambda hook=hook, finished=finished: _called(hook, finished))  # type: ignore[misc]
            found += [_started(op, ready, services, now) for op in ops]
        except BaseException as error:  # user code may raise anything; the run is over
            if came_from_outside(error):
                raise
            name, text = getattr(hook, "__qualname__", repr(hook)), in_short(error)
            log.error("hook.failed", run_id=ready.run_id, workflow=ready.workflow, hook=name, error=text)
    return found


def _called(hook: Hook[Any], finished: Finished[Any]) -> list[Any]:
    ops = hook(finished)
    return [ops] if isinstance(ops, Op) else list(ops or ())


def _started(op: Any, ready: ReadyRun, services: Services, now: float) -> NewRun:
    if not isinstance(op, RunOp):
        msg = f"a hook returns calls of workflows and jobs, which are runs of their own; found {kind_of(op)}"
        raise TypeError(msg)
    return services.new_run(op, now).following(ready.run)


def _finished(
    ready: ReadyRun,
    started: RunStarted,
    definition: RunnableDefinition[..., Any],
    status: EndStatus,
    end: Decision,
    services: Services,
    now: float,
) -> Finished[Any]:
    codec = services.codec
    where = f"arguments of run {ready.run_id!r}"
    args, kwargs = codec.decode_arguments(started.value or "[[],{}]", definition.arguments, where=where)
    arguments: Mapping[str, Any] = definition.signature.bind(*args, **kwargs).arguments
    value = error = None
    if status == "succeeded":
        value = codec.decode(end.outcome or "null", definition.result, where=f"result of run {ready.run_id!r}")
    elif end.outcome is not None:
        error = rebuilt(end.outcome, codec)
    return Finished(ready.run_id, ready.workflow, status, arguments, value, error, end.reason, ready.labels, now)
