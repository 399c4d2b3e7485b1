"""
The log: structlog, constant event names in the past tense, `run_id` and `workflow` bound.

The library never configures structlog or logging; the application does. Events:

    run.started  run.succeeded  run.failed  run.cancelled  run.blocked  run.freed  run.woken  run.poisoned
    run.cleanup_failed  step.attempt_failed  step.cleanup_failed  step.abandoned
    hook.failed  follow_up.refused  log.failed  attributes.refused  items.lost
    engine.opened  engine.draining  engine.closed  engine.standing_by  engine.failed  engine.degraded
    engine.relieved  commit.failed  commit.recovered  service.interrupted  service.ending
    journal.notice  inbox.refused  signals.unread  middleware.failed
    replay.arguments_changed  threads.unavailable  step.outlived  step.still_running
    resources.not_closed

What a workflow logs through `durable.logger` goes to the logger `durable.workflow`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import structlog

from durable._core.codec.exceptions.origin import came_from_outside
from durable._core.codec.exceptions.safe_text import one_line
from durable._core.run.decision import LogEntry

log: Any = structlog.get_logger("durable")
workflow_log: Any = structlog.get_logger("durable.workflow")


def emit(entries: Sequence[LogEntry], run_id: str, workflow: str) -> None:
    """Log what a turn's workflow code logged, now that the turn is on disk."""
    for entry in entries:
        about = {"run_id": run_id, "workflow": workflow}
        try:
            getattr(workflow_log, entry.level)(entry.event, **{**about, **entry.values})
        except BaseException as error:  # processors, and what values say of themselves, are the user's code
            if came_from_outside(error):
                raise
            # Without the traceback, which may ask the value once more.
            log.error("log.failed", entry=entry.event, error=one_line(error), **about)  # noqa: TRY400
