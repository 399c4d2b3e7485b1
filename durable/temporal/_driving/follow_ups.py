"""
What the end of a run starts: follow-ups given by `op.then`, and what the hooks of its definition ask for.

Children of the server's run, started in its last task under derived ids, so each exactly once. A hook is user code:
what goes wrong in one is logged, and never touches the run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from temporalio import workflow
from temporalio.exceptions import WorkflowAlreadyStartedError

from durable._core import run_ids
from durable._core.codec.exceptions.origin import came_from_outside
from durable._core.codec.exceptions.safe_text import one_line
from durable._core.journal.events import RunStarted
from durable._core.journal.payloads import rebuilt
from durable._core.program.functions import Finished
from durable._core.program.ops import Op, RunOp, kind_of
from durable._core.run.decision import Decision
from durable._core.statuses import EndStatus
from durable._shell.log import log
from durable._shell.rows import templates
from durable._shell.rows.rows import NewRun
from durable.temporal._driving.here import RunHere, now
from durable.temporal._wire.starts import Start, labels_of, make_start


async def follow(here: RunHere, started: RunStarted, status: EndStatus, end: Decision) -> None:
    """Start what the end of the run starts; returns once the server has confirmed it."""
    for number, new in enumerate(_following(here, started, status, end)):
        await _begin(here, new, number)


def _following(here: RunHere, started: RunStarted, status: EndStatus, end: Decision) -> Iterator[NewRun]:
    if status == "succeeded":
        yield from here.new.follow_ups
    for statuses, hook in here.definition.hooks:
        if status not in statuses:
            continue
        try:
            ops: Any = hook(_finished(here, started, status, end))
            found = [_asked(here, op) for op in ([ops] if isinstance(ops, Op) else list(ops or ()))]
        except BaseException as error:
            if came_from_outside(error):
                raise
            if not workflow.unsafe.is_replaying():
                name = getattr(hook, "__qualname__", "?")
                told = {"run_id": here.run_id, "workflow": here.definition.name, "hook": name}
                log.error("hook.failed", error=one_line(error), **told)
            continue
        yield from found


def _asked(here: RunHere, op: Any) -> NewRun:
    if not isinstance(op, RunOp):
        msg = f"a hook returns calls of workflows and jobs, which are runs of their own; found {kind_of(op)}"
        raise TypeError(msg)
    setup = here.setup
    carried = here.new.started.carried
    return make_start(op, definitions=setup.registry.definitions, codec=setup.codec, now=now(), carried=carried).new


async def _begin(here: RunHere, template: NewRun, number: int) -> None:
    setup, run_id = here.setup, f"{here.run_id}{run_ids.CHILD_SIGN}then.{number}"
    start = Start(templates.begun(template, run=0, run_id=run_id, now=now()))
    new = start.new
    try:
        await here.surely(
            workflow.start_child_workflow(
                new.workflow,
                args=start.arguments,
                id=start.workflow_id,
                task_queue=setup.task_queue(new.queue),
                memo=start.memo,
                priority=start.priority,
                parent_close_policy=workflow.ParentClosePolicy.ABANDON,
                search_attributes=labels_of(new) if setup.searchable else None,
                id_reuse_policy=start.reuse,
            )
        )
    except WorkflowAlreadyStartedError:
        log.info("run.joined", run_id=start.workflow_id, follows=here.run_id)


def _finished(here: RunHere, started: RunStarted, status: EndStatus, end: Decision) -> Finished[Any]:
    codec, definition = here.setup.codec, here.definition
    where = f"arguments of run {here.run_id!r}"
    args, kwargs = codec.decode_arguments(started.value or "[[],{}]", definition.arguments, where=where)
    value = error = None
    if status == "succeeded":
        value = codec.decode(end.outcome or "null", definition.result, where=f"result of run {here.run_id!r}")
    elif end.outcome is not None:
        error = rebuilt(end.outcome, codec)
    arguments = definition.signature.bind(*args, **kwargs).arguments
    return Finished(
        here.run_id, definition.name, status, arguments, value, error, codec.reveal(end.reason), here.new.labels, now()
    )
