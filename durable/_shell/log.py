"""
The log: constant event names in the past tense, with `run_id` and `workflow` where they are about a run.

The application configures logging, the library never does. Where it has configured structlog, facts go there; where
not, to the standard library's logger ``durable``: each in one line, its values as attributes of the record as well,
and nothing on stdout. Events:

    run.failed  run.blocked  run.poisoned  run.cleanup_failed  run.not_blocked  run.not_driven
    step.attempt_failed  step.snoozed  step.cleanup_failed  step.abandoned  step.outlived  step.still_running
    hook.failed  hook.not_called  follow_up.refused  log.failed  middleware.failed
    engine.opened  engine.draining  engine.closed  engine.standing_by  engine.failed  engine.degraded
    engine.relieved  engine.replaced  engine.abandoned  service.interrupted  service.ending
    commit.failed  commit.recovered  read.failed  timers.failed  drain.not_recorded  prune.failed
    journal.notice  journal.damaged  client.refused  signals.unread  replay.arguments_changed
    schedule.failed  schedule.paused  schedule.dropped  threads.unavailable  resources.not_closed
    check.done  check.finding  attributes.refused  items.lost

What a workflow logs through `durable.logger` goes to the logger ``durable.workflow``.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ClassVar, Final

from durable._core.codec.exceptions.failure import Failure, as_printed, describe
from durable._core.codec.exceptions.origin import came_from_outside
from durable._core.codec.exceptions.safe_text import one_line
from durable._core.run.decision import LogEntry

#: Texts with none of these need no quotes.
_SPECIAL: Final = frozenset(" \t\r\n\"'=\\")


class Log:
    """Where facts are told: see this module."""

    #: Of all of them: see `silenced`.
    is_silent: ClassVar[bool] = False

    def __init__(self, name: str) -> None:
        self._name = name
        self._plain = logging.getLogger(name)

    def debug(self, event: str, /, **values: Any) -> None:
        """Tell what helps to find an error."""
        self.tell("debug", event, values)

    def info(self, event: str, /, **values: Any) -> None:
        """Tell what is as it should be."""
        self.tell("info", event, values)

    def warning(self, event: str, /, **values: Any) -> None:
        """Tell what somebody should look at."""
        self.tell("warning", event, values)

    def error(self, event: str, /, **values: Any) -> None:
        """Tell what went wrong."""
        self.tell("error", event, values)

    def critical(self, event: str, /, **values: Any) -> None:
        """Tell what ended the engine."""
        self.tell("critical", event, values)

    def tell(self, level: str, event: str, values: Mapping[str, Any]) -> None:
        """Tell *event* at *level*. What is called ``exception`` among its values is the text of a traceback."""
        if Log.is_silent:
            return
        structlog = _structlog()
        if structlog is not None and structlog.is_configured():
            getattr(structlog.get_logger(self._name), level)(event, **values)
            return
        number: int = getattr(logging, level.upper())
        if self._plain.isEnabledFor(number):
            self._plain.handle(_record(self._plain, number, event, values))


@contextmanager
def silenced() -> Generator[None]:
    """Nothing is told in the block: for tests that bury an engine."""
    before, Log.is_silent = Log.is_silent, True
    try:
        yield
    finally:
        Log.is_silent = before


def _structlog() -> Any:
    """The module, if the application uses it: one that does not is spared its import."""
    return sys.modules.get("structlog")


def _record(logger: logging.Logger, level: int, event: str, values: Mapping[str, Any]) -> logging.LogRecord:
    line = " ".join((event, *(f"{name}={_shown(value)}" for name, value in values.items() if name != "exception")))
    file, number, function, _ = logger.findCaller(stacklevel=4)
    record = logger.makeRecord(logger.name, level, file, number, line, (), None, function)
    for name, value in {**values, "event": event}.items():
        record.__dict__.setdefault(name, value)  # a value of the user's may be called as a part of a record is
    record.exc_text = values.get("exception")  # which formatters print as they do that of an exception at hand
    return record


def _shown(value: Any) -> str:
    text = str(value)
    return repr(text) if not text or not _SPECIAL.isdisjoint(text) else text


log: Final = Log("durable")
_workflow_log: Final = Log("durable.workflow")


def emit(entries: Sequence[LogEntry], run_id: str, workflow: str) -> None:
    """Log what a turn's workflow code logged, now that the turn is on disk."""
    for entry in entries:
        about = {"run_id": run_id, "workflow": workflow}
        try:
            _workflow_log.tell(entry.level, entry.event, {**about, **entry.values})
        except BaseException as error:  # processors, and what values say of themselves, are the user's code
            if came_from_outside(error):
                raise
            # Without the traceback, which may ask the value once more.
            log.error("log.failed", entry=entry.event, error=one_line(error), **about)  # noqa: TRY400


def tell_failed(run_id: str, workflow: str, failure: Failure) -> None:
    """Log that a run has failed: in one entry, with the traceback that was recorded."""
    log.error("run.failed", run_id=run_id, workflow=workflow, error=describe(failure), exception=as_printed(failure))


def bind(run_id: str, workflow: str, step: str, attempt: int) -> tuple[Any, Any] | None:
    """
    Have the application's own log entries say what attempt they are of, by structlog's context variables.

    An attempt may run in the task of its run: so step and attempt are to be taken off at its end, by `unbind`, while
    the run stays, for all that is told in that task is of it.
    """
    if not (_variables or _find_variables()):
        return None
    of_run, of_workflow, of_step, of_attempt = _variables
    if of_run.get() != run_id:
        of_run.set(run_id)
        of_workflow.set(workflow)
    before = of_step.get(), of_attempt.get()
    of_step.set(step)
    of_attempt.set(attempt)
    return before


def unbind(before: tuple[Any, Any] | None) -> None:
    """The attempt, for which `bind` gave *before*, is over. A token would have kept a context for all of its time."""
    if before is not None:
        _, _, of_step, of_attempt = _variables
        of_step.set(before[0])
        of_attempt.set(before[1])


#: The context variables that `bind` sets, in its order, once structlog is used.
_variables: Final[list[ContextVar[Any]]] = []


def _find_variables() -> bool:
    """Learn them, if the application uses structlog: they are its own, but what it has bound says which they are."""
    structlog = _structlog()
    if structlog is None:
        return False
    bound = structlog.contextvars.bind_contextvars(run_id="", workflow="", step="", attempt=0)
    _variables.extend(bound[name].var for name in ("run_id", "workflow", "step", "attempt"))
    structlog.contextvars.reset_contextvars(**bound)
    return True
