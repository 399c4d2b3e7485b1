"""
Every deliberate error of this library, and whose fault each one is.

    DurableError
    ├── UsageError                  your program asked for something that cannot be
    │   ├── DefinitionError             a decorator or a set of definitions is wrong
    │   ├── NotDurableError             workflow code awaited something that is no op
    │   ├── RunNotFoundError            no run with that id or key
    │   │   └── BatchNotFoundError          no batch with that id
    │   ├── ScheduleNotFoundError       no schedule of that name
    │   ├── ResourceNotFoundError       a step asks for a resource that the engine was not given
    │   ├── TokenError                  the token of a callback cannot be used
    │   │   ├── TokenMalformedError         it is none: cut off, or something else
    │   │   ├── TokenForeignError           it is of another file, or its run was pruned
    │   │   ├── TokenUsedError              the callback has another answer already
    │   │   ├── TokenExpiredError           its deadline is over, or a heartbeat was missed
    │   │   └── TokenEndedError             its run has ended, or the attempt of it that asked
    │   ├── RunExistsError              `id=` names a run that exists, with other arguments
    │   ├── KeyConflictError            the key belongs to a run with other arguments
    │   ├── LimitReachedError           no slot of the run's limit is free, and it does not wait
    │   ├── RunStateError               the run's status does not allow the request
    │   │   └── RetryRefusedError           a retry would forget what ran since the failure: refunds, messages
    │   ├── RequestConflictError        something else was asked of the run under the same `dedup=`
    │   ├── UnknownOptionError          a run was started with an option that there is not
    │   ├── MiddlewareError             a middleware broke the rules of `proceed`
    │   ├── DryRunError                 a dry run lacks a stand-in, or was given a wrong one
    │   ├── BatchClosedError            a member was added to a batch that is complete or cancelled
    │   ├── EngineClosedError           the engine is not open (or another process forked it)
    │   │   └── EngineFailedError           it ended by itself; `__cause__` says of what
    │   ├── WrongLoopError              asked on another event loop than it was opened on
    │   └── TransactionRefusedError     SQL that would break the engine's own transaction
    ├── RunFailedError              the run ended in failure; `__cause__` is the rebuilt error
    ├── RunCancelledError           the run was cancelled
    ├── RunBlockedError             the run cannot continue without a person
    ├── CallbackFailedError         a callback was failed by a text (`engine.fail`)
    ├── HeartbeatMissedError        nothing was heard of a callback for too long; a TimeoutError, too
    ├── RequestRefusedError         the run refused what it was asked
    ├── RequestUnansweredError      the run ended without answering what it was asked
    ├── RunExpiredError             the run had not begun by the time that it was given (`expires=`)
    ├── StepError                   a step failed with a type that cannot be rebuilt here
    ├── HttpStatusError             an HTTP server failed, or asks for another attempt (`retry_http`)
    ├── StepInterruptedError        the process died during a step that must not run twice
    ├── PoisonError                 a step kills the process, and is not run again
    ├── NondeterminismError         replayed code asks for something else than was recorded
    ├── RecordError                 a value cannot be recorded or read back
    │   ├── EncodeError                 refused before anything was written
    │   ├── DecodeError                 the record does not fit today's type
    │   │   ├── SignalPayloadError          nor a signal's payload the type that the workflow waits for
    │   │   └── CallbackValueError          nor the answer to a callback the type that it was made with
    │   └── CapExceededError            a value, name or history over its cap
    ├── ExportFormatError           a file that should hold exported runs does not
    ├── JournalError                the file or the machine
    │   ├── JournalLockedError          another process owns the file
    │   ├── JournalVersionError         written by a newer release, or owned by an engine of another
    │   ├── ForeignJournalError         no journal of ours
    │   ├── MigrationError              a step of the application's own schema failed; nothing was changed
    │   ├── JournalAccessError          cannot be opened, read or written
    │   │   └── JournalLostError            deleted or replaced while an engine had it open
    │   ├── JournalFullError            no space left; nothing was acknowledged
    │   ├── JournalIOError              the disk refused a read or write
    │   ├── JournalDamagedError         SQLite cannot read what the file holds
    │   └── JournalCorruptError         a recorded event does not match its checksum
    └── InternalError               a bug in this library; please report it

Four more are signals rather than failures: `Fatal`, `RetryAfter` and `Snooze` are raised *by* steps, and `RunCancelled`
(a BaseException, so that `except Exception` cannot swallow it) is raised *in* a workflow that is being cancelled.

Fields go to ``super().__init__`` so that every error survives pickling; sentences are made in ``__str__``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

__all__ = [
    "BatchClosedError",
    "BatchNotFoundError",
    "CallbackFailedError",
    "CallbackValueError",
    "CapExceededError",
    "DecodeError",
    "DefinitionError",
    "DryRunError",
    "DurableError",
    "EncodeError",
    "EngineClosedError",
    "EngineFailedError",
    "ExportFormatError",
    "Fatal",
    "ForeignJournalError",
    "HeartbeatMissedError",
    "HttpStatusError",
    "InternalError",
    "JournalAccessError",
    "JournalCorruptError",
    "JournalDamagedError",
    "JournalError",
    "JournalFullError",
    "JournalIOError",
    "JournalLockedError",
    "JournalLostError",
    "JournalVersionError",
    "KeyConflictError",
    "LimitReachedError",
    "MiddlewareError",
    "MigrationError",
    "NondeterminismError",
    "NotDurableError",
    "PoisonError",
    "RecordError",
    "RequestConflictError",
    "RequestRefusedError",
    "RequestUnansweredError",
    "ResourceNotFoundError",
    "RetryAfter",
    "RetryRefusedError",
    "RunBlockedError",
    "RunCancelled",
    "RunCancelledError",
    "RunExistsError",
    "RunExpiredError",
    "RunFailedError",
    "RunNotFoundError",
    "RunStateError",
    "ScheduleNotFoundError",
    "SignalPayloadError",
    "Snooze",
    "StepError",
    "StepInterruptedError",
    "TokenEndedError",
    "TokenError",
    "TokenExpiredError",
    "TokenForeignError",
    "TokenMalformedError",
    "TokenUsedError",
    "TransactionRefusedError",
    "UnknownOptionError",
    "UsageError",
    "WrongLoopError",
]

#: Things that a message names before it counts the rest.
_NAMED: Final = 10


class DurableError(Exception):
    """
    Base of every deliberate error of this library.

    Way out: catch it where any of them will do; each of those below is one.
    """


# --- your program asked for something that cannot be -------------------------------------


class UsageError(DurableError):
    """
    The calling program is wrong; the message says what to do instead.

    Way out: change the program as the message says.
    """


class UnknownOptionError(UsageError, TypeError):
    """
    A run was started with an option that there is not.

    Way out: the message names the options that there are.
    """

    def __init__(self, unknown: Sequence[str], known: Sequence[str]) -> None:
        super().__init__(unknown, known)
        self.unknown, self.known = unknown, known

    def __str__(self) -> str:
        options = "option" if len(self.unknown) == 1 else "options"
        return f"start got the unknown {options} {', '.join(self.unknown)}; known are {', '.join(self.known)}"


class DefinitionError(UsageError):
    """
    A decorator's options, or a set of definitions, contradict themselves.

    Way out: the message names the definition and what contradicts what; it comes when the module is imported, or
    the engine made.
    """


class NotDurableError(UsageError):
    """
    Workflow code awaited something that cannot be recorded and replayed.

    Way out: move the call into a step; for time use ``sleep``, for a limit ``timeout``, for concurrency ``gather``.
    """

    def __init__(self, found: str, run_id: str = "") -> None:
        super().__init__(found, run_id)
        self.found, self.run_id = found, run_id

    def __str__(self) -> str:
        where = f" (run {self.run_id!r})" if self.run_id else ""
        return (
            f"workflow code awaited {self.found}, which cannot be recorded{where}. "
            "Do this in a step: move the call into a function decorated with @step and `yield` (or `await`) that. "
            "For time use durable.sleep, for a limit durable.timeout, for concurrency durable.gather."
        )


class RunNotFoundError(UsageError):
    """
    No run has this id or key.

    Way out: look for it with ``engine.runs(...)`` or ``durable list``; it may have been pruned, or be in another
    file.
    """

    thing = "run"

    def __init__(self, what: str, value: str) -> None:
        super().__init__(what, value)
        self.what, self.value = what, value

    def __str__(self) -> str:
        return f"no {self.thing} with {self.what} {self.value!r} in this journal (it may have been pruned)"


class ScheduleNotFoundError(UsageError):
    """
    No schedule has this name.

    Way out: give it to the engine, ``Engine(schedules=[...])``, or make it: ``engine.schedules.create(...)``.
    """

    def __init__(self, name: str, where: str) -> None:
        super().__init__(name, where)
        self.name, self.where = name, where

    def __str__(self) -> str:
        return (
            f"no schedule is called {self.name!r} in {self.where}. "
            "Give it to the engine: Engine(path, definitions, schedules=[Schedule(...)])"
        )


class ResourceNotFoundError(UsageError):
    """
    A step asks for a resource, and the engine was given none of that type, or several.

    Way out: ``Engine(resources=[...])``; of several, ask for a narrower type, or name it: ``resources={Type:
    ...}``.
    """

    def __init__(self, wanted: str, asked_by: str, held: Sequence[str], fitting: int = 0) -> None:
        super().__init__(wanted, asked_by, held, fitting)
        self.wanted, self.asked_by, self.held, self.fitting = wanted, asked_by, list(held), fitting

    def __str__(self) -> str:
        held = ", ".join(self.held) or "none"
        if self.fitting:
            return (
                f"{self.asked_by} asks for resource({self.wanted}), of which the engine has {self.fitting} "
                f"(of {held}). "
                f"Ask for a narrower type, or say which it is: Engine(resources={{{self.wanted}: ...}})"
            )
        return (
            f"{self.asked_by} asks for resource({self.wanted}), and the engine has {held}. "
            f"Give it one: Engine(path, definitions, resources=[...])"
        )


class TokenError(UsageError):
    """
    The token of a callback cannot be used. Nothing was recorded, and nobody else got the answer.

    Way out: answer 404, 409 or 410 to the one who sent it; the errors below tell which.
    """

    def __init__(self, run_id: str, position: str, reason: str) -> None:
        super().__init__(run_id, position, reason)
        self.run_id, self.position, self.reason = run_id, position, reason

    def __str__(self) -> str:
        return f"the token of the callback at {self.position} of run {self.run_id!r} is not accepted: {self.reason}"


class TokenMalformedError(TokenError, ValueError):
    """
    It is no token of a callback.

    Way out: use ``callback.token`` as it is; it is safe in a URL without any quoting.
    """

    def __init__(self, reason: str) -> None:
        UsageError.__init__(self, reason)
        self.run_id = self.position = ""
        self.reason = reason

    def __str__(self) -> str:
        return f"this is no token of a callback: {self.reason}. Use callback.token as it is"


class TokenForeignError(TokenError):
    """
    No callback of this journal has this token: it is of another file, or its run was pruned.

    Way out: ask the journal that made it.
    """


class TokenUsedError(TokenError):
    """
    The callback was answered already, with something else. The same answer again is accepted, and does nothing.

    Way out: nothing is left to do: tell the sender that the first answer stands.
    """


class TokenExpiredError(TokenError):
    """
    The callback was to be answered by now, or kept alive.

    Way out: nothing is left to do: the workflow got its `TimeoutError`. Give the callback a longer ``timeout=`` or
    ``heartbeat=``.
    """


class TokenEndedError(TokenError):
    """
    The run of the callback has ended, or the attempt of it that asked.

    Way out: nothing is left to do: nobody waits for the answer any more.
    """


class RunExistsError(UsageError):
    """
    The id given to ``start`` names a run that exists already.

    Way out: choose another id, or take the run that is there: ``engine.get(id)``.
    """

    def __init__(self, run_id: str, reason: str) -> None:
        super().__init__(run_id, reason)
        self.run_id, self.reason = run_id, reason

    def __str__(self) -> str:
        return f"run {self.run_id!r} exists already: {self.reason}. Choose another id, or use engine.get"


class KeyConflictError(UsageError):
    """
    The key belongs to a run that was started with something else.

    Way out: another key, or ``on_conflict="replace"``, ``"rerun"`` or ``"coalesce"``.
    """

    def __init__(self, key: str, run_id: str, recorded: str, requested: str) -> None:
        super().__init__(key, run_id, recorded, requested)
        self.key, self.run_id, self.recorded, self.requested = key, run_id, recorded, requested

    def __str__(self) -> str:
        return (
            f"key {self.key!r} belongs to run {self.run_id!r}, started as {self.recorded}; "
            f"now asked for {self.requested}. Use another key, or on_conflict='replace' or 'rerun'"
        )


class LimitReachedError(UsageError):
    """
    No slot of the run's limit is free, and the limit says ``on_conflict="reject"``.

    Way out: start it again later, or leave ``on_conflict=`` out of the limit: then it waits for a slot.
    """

    def __init__(self, limit: str, key: str, run_id: str) -> None:
        super().__init__(limit, key, run_id)
        self.limit, self.key, self.run_id = limit, key, run_id

    def __str__(self) -> str:
        key = f" (key {self.key!r})" if self.key else ""
        return f"run {self.run_id!r} was not started: limit {self.limit!r}{key} is reached. Start it again later"


class RunStateError(UsageError):
    """
    The run's status does not allow what was asked.

    Way out: the message says what the run is, and often what to ask instead.
    """

    def __init__(self, run_id: str, status: str, request: str, remedy: str = "") -> None:
        super().__init__(run_id, status, request, remedy)
        self.run_id, self.status, self.request, self.remedy = run_id, status, request, remedy

    def __str__(self) -> str:
        tail = f". {self.remedy}" if self.remedy else ""
        return f"cannot {self.request} run {self.run_id!r}: it is {self.status}{tail}"


class RequestConflictError(UsageError):
    """
    Something else was asked of the run under the same ``dedup=``.

    Way out: give each question a ``dedup=`` of its own, and repeat it word for word.
    """

    def __init__(self, run_id: str, request: str, dedup: str) -> None:
        super().__init__(run_id, request, dedup)
        self.run_id, self.request, self.dedup = run_id, request, dedup

    def __str__(self) -> str:
        return (
            f"request {self.request!r} of run {self.run_id!r} was not made: dedup={self.dedup!r} was accepted for "
            "another request or question. Give each question a dedup of its own, and repeat it word for word"
        )


class RetryRefusedError(RunStateError):
    """
    A failed run is not retried unless by force: steps ran since its failure, and a retry would forget them.

    Way out: ``run.fork(at=...)`` from where all is valid, or a new run; ``retry(force=True)`` continues all the
    same.
    """

    def __init__(self, run_id: str, ran: Sequence[str], compensated: bool = False) -> None:  # noqa: FBT001, FBT002
        UsageError.__init__(self, run_id, ran, compensated)
        self.run_id, self.status, self.request, self.remedy = run_id, "failed", "retry", ""
        #: What ran, as "step 'refund' at 2".
        self.ran = list(ran)
        #: Whether a saga undid what the run had done.
        self.compensated = compensated

    def __str__(self) -> str:
        named = ", ".join(self.ran[:_NAMED]) + (f" and {len(self.ran) - _NAMED:,} more" if self.ran[_NAMED:] else "")
        if self.compensated:
            return (
                f"run {self.run_id!r} is not retried: it was compensated, that is, its saga undid what it had done by "
                f"{named}. A retry would continue as if that was still there. Start a new run; retry(force=True), or "
                "`durable retry --anyway`, continues all the same"
            )
        return (
            f"run {self.run_id!r} is not retried: since its failure there ran {named}. A retry would continue from "
            "before that as if it had not been. Use fork(at=...) from where all is valid, or a new run; "
            "retry(force=True), or `durable retry --anyway`, continues all the same"
        )


class MiddlewareError(UsageError):
    """
    A middleware that is none, or that did not call `proceed` exactly once and return what it gave.

    Way out: call ``await proceed()`` exactly once, and return what it gave.
    """

    def __init__(self, middleware: str, where: str, reason: str) -> None:
        super().__init__(middleware, where, reason)
        #: Its class and method, as "Tracing.step".
        self.middleware, self.where, self.reason = middleware, where, reason

    def __str__(self) -> str:
        return f"middleware {self.middleware} around {self.where}: {self.reason}"


class DryRunError(UsageError):
    """
    Something that a dry run would have to execute, and has no (or a wrong) stand-in for.

    Way out: give the step a stand-in with the same arguments: ``dry_run(op, stand_ins={step: function})``.
    """

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(what, reason)
        #: What it is about, as "step 'charge' at 2 of run 'r-7'".
        self.what, self.reason = what, reason

    def __str__(self) -> str:
        return f"dry run: {self.what}: {self.reason}"


class BatchNotFoundError(RunNotFoundError):
    """
    No batch has this id.

    Way out: look for it with ``engine.batches(...)``; it may have been pruned, or be in another file.
    """

    thing = "batch"


class BatchClosedError(UsageError):
    """
    A member was added to a batch that is complete or cancelled. Nothing was started.

    Way out: make a new batch, or add from a member while the batch is open.
    """

    def __init__(self, batch_id: str, status: str) -> None:
        super().__init__(batch_id, status)
        self.batch_id, self.status = batch_id, status

    def __str__(self) -> str:
        return f"batch {self.batch_id!r} takes nothing more: it is {self.status}. Make a new batch"


class EngineClosedError(UsageError):
    """
    The engine is not open, is closing, or belongs to the process this one forked from.

    Way out: open it, or answer 503 where it closes: what was recorded resumes at the next opening.
    """


class EngineFailedError(EngineClosedError):
    """
    The engine ended by itself: it could not continue. ``__cause__`` is the error that ended it.

    It has given the file up, so that another takes over. What was recorded resumes there, or when it opens again.

    Way out: look at ``__cause__``, mend it, and start the program again; a supervisor does so by itself.
    """

    def __init__(self, path: str, reason: str, remedy: str = "") -> None:
        super().__init__(path, reason, remedy)
        self.path, self.reason, self.remedy = path, reason, remedy

    def __str__(self) -> str:
        tail = f". {self.remedy}" if self.remedy else ""
        return f"the engine of {self.path} failed: {self.reason}{tail}"


class WrongLoopError(UsageError):
    """
    An engine or client was asked on another event loop (or in another thread) than it was opened on. Nothing was done.

    ``subject`` says which, ``thread`` where the call came from, and ``remedy`` what to do instead.

    Way out: in threads and on other loops ``engine.from_thread.start(...)``; in other processes a ``Client``.
    """

    def __init__(self, subject: str, thread: str, remedy: str) -> None:
        super().__init__(subject, thread, remedy)
        self.subject, self.thread, self.remedy = subject, thread, remedy

    def __str__(self) -> str:
        return (
            f"the {self.subject} was opened on another event loop than it is asked on (in thread {self.thread!r}), "
            f"so nothing was done: {self.remedy}"
        )


class TransactionRefusedError(UsageError):
    """
    SQL in a ``@transaction`` that would break the transaction it runs in.

    Way out: leave the commit to the engine, and write to tables of your own only.
    """

    def __init__(self, sql: str, reason: str) -> None:
        super().__init__(sql, reason)
        self.sql, self.reason = sql, reason

    def __str__(self) -> str:
        return f"refused in a transaction: {self.sql[:80]!r}: {self.reason}"


# --- how runs and steps end -----------------------------------------------------------------


class RunFailedError(DurableError):
    """
    The run ended in failure. ``__cause__`` is the original error, rebuilt from the journal.

    Way out: look at ``__cause__`` and ``traceback``; mend it, then ``run.retry()``.
    """

    def __init__(self, run_id: str, error: str, traceback: str = "") -> None:
        super().__init__(run_id, error, traceback)
        self.run_id, self.error = run_id, error
        #: The traceback as text, as recorded when the run failed. For people only.
        self.traceback = traceback

    def __str__(self) -> str:
        return f"run {self.run_id!r} failed: {self.error}"


class RunCancelledError(DurableError):
    """
    The run was cancelled.

    Way out: start it again if it is still wanted; its ``__cause__`` is a failure of the clean-up, if there was one.
    """

    def __init__(self, run_id: str, reason: str = "") -> None:
        super().__init__(run_id, reason)
        self.run_id, self.reason = run_id, reason

    def __str__(self) -> str:
        return f"run {self.run_id!r} was cancelled" + (f": {self.reason}" if self.reason else "")


class RunBlockedError(DurableError):
    """
    The run is blocked: it cannot continue without a person. Nothing of it is lost.

    Way out: do what ``reason`` says, then ``run.resume()``; ``result(wait=True)`` waits until somebody has.
    """

    def __init__(self, run_id: str, reason: str = "") -> None:
        super().__init__(run_id, reason)
        self.run_id, self.reason = run_id, reason

    def __str__(self) -> str:
        told = f": {self.reason}" if self.reason else ""
        return f"run {self.run_id!r} is blocked and needs a person{told}. Await result(wait=True) to wait until it ends"


class RequestRefusedError(DurableError):
    """
    The run refused what it was asked: its workflow did, or the question does not fit what that takes.

    Way out: ``reason`` is what the workflow said; ask something else.
    """

    def __init__(self, run_id: str, request: str, reason: str) -> None:
        super().__init__(run_id, request, reason)
        self.run_id, self.request, self.reason = run_id, request, reason

    def __str__(self) -> str:
        return f"run {self.run_id!r} refused request {self.request!r}: {self.reason}"


class RequestUnansweredError(DurableError):
    """
    The run has ended, and has not answered what it was asked.

    Way out: look how it ended; a retry of the run, or what it continues as, may still answer under the same
    ``dedup=``.
    """

    def __init__(self, run_id: str, request: str, status: str) -> None:
        super().__init__(run_id, request, status)
        #: How the run ended.
        self.run_id, self.request, self.status = run_id, request, status

    def __str__(self) -> str:
        return f"run {self.run_id!r} has ended ({self.status}) without an answer to request {self.request!r}"


class StepError(DurableError):
    """
    A step failed with an exception whose type cannot be rebuilt in this process, or which is no `Exception`.

    Way out: catch it by ``type_name``, or define its type where workflow and step are imported from; `aliases` for
    a renamed one.
    """

    def __init__(self, type_name: str, message: str = "", data: Any = None) -> None:
        super().__init__(type_name, message, data)
        self.type_name, self.message, self.data = type_name, message, data

    def __str__(self) -> str:
        return f"{self.type_name}: {self.message}" if self.message else self.type_name


class StepInterruptedError(DurableError):
    """
    The process died, or its engine closed, while this step ran, and it is not to run again.

    Since ``on_crash`` forbids it, or a death of the process cut off the last attempt that its retry policy allows.

    Way out: look whether the effect is there, and catch this error to go either way.
    """

    def __init__(self, position: str, name: str, attempt: int) -> None:
        super().__init__(position, name, attempt)
        self.position, self.name, self.attempt = position, name, attempt

    def __str__(self) -> str:
        return (
            f"step {self.name!r} at {self.position} was cut off (attempt {self.attempt}): the process died, or its "
            "engine closed; whether it had its effect is unknown, and on_crash='raise' forbids a repeat, or the "
            "attempts of its retry policy are used up"
        )


class PoisonError(DurableError):
    """
    A step kills the process whenever it runs, so it failed instead of running again.

    Or the code of a workflow does: then its run failed, *position* is empty, and *name* that of the workflow.

    Way out: find what kills the process (memory, C code), mend it, then ``run.retry()``.
    """

    def __init__(self, position: str, name: str, deaths: int) -> None:
        super().__init__(position, name, deaths)
        self.position, self.name, self.deaths = position, name, deaths

    def __str__(self) -> str:
        times = "once" if self.deaths == 1 else f"{self.deaths} times"
        what = f"step {self.name!r} at {self.position}" if self.position else f"the code of {self.name!r}"
        return f"{what} was running when the process died {times}: it is not run again"


class CallbackFailedError(DurableError):
    """
    Raised at a callback that somebody outside failed with a text: ``await engine.fail(token, "declined")``.

    Way out: catch it where the callback is awaited; ``reason`` is the text.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class HeartbeatMissedError(DurableError, TimeoutError):
    """
    Raised at a callback of which nothing was heard for as long as it may be silent (``heartbeat=``).

    Way out: catch it as a `TimeoutError`; the other side calls ``engine.heartbeat(token)`` more often.
    """

    def __init__(self, name: str, position: str, seconds: float) -> None:
        super().__init__(name, position, seconds)
        self.args = name, position, seconds  # an OSError takes three for something else
        self.name, self.position, self.seconds = name, position, seconds

    def __str__(self) -> str:
        named = f"callback {self.name!r}" if self.name else "the callback"
        return f"nothing was heard of {named} at {self.position} for {self.seconds:g} s"


class RunExpiredError(DurableError):
    """
    A run had not begun by the time that its `expires` option says, so it was given up.

    Way out: a later ``expires=``, or more room in its queue.
    """

    def __init__(self, run_id: str, expires_at: float) -> None:
        super().__init__(run_id, expires_at)
        self.run_id, self.expires_at = run_id, expires_at

    def __str__(self) -> str:
        by = datetime.fromtimestamp(self.expires_at, UTC).isoformat(sep=" ", timespec="seconds")
        return f"run {self.run_id!r} had not begun by {by}, so it was given up (expires=)"


class NondeterminismError(DurableError):
    """
    Replayed code asks for something else than its journal holds.

    Nothing was executed and nothing but this report was written. Do what it suggests (restore the old
    code, or guard the change with ``durable.patched``), and resume the run.

    Way out: restore the old code, or guard the change with ``patched("change-id")``; then resume the run.

    Attributes:
        position: Of the command.
        recorded, requested: What stands in the journal, and what the code asks for now: "step 'charge'".
        recorded_site, requested_site: "file:line" of both.
        recorded_digest, requested_digest: Of their arguments; empty where there are none.
        change: What seems to have happened to the code: ``inserted``, ``removed``, ``renamed``, ``reordered``,
            ``branch`` (another one is taken), ``resized`` (a group), ``changed``, ``added`` (at the end), or
            ``arguments`` (only where other arguments are an error: tests, ``durable check --strict``).
        hint: The same in a sentence.
        remedy: What to do.
    """

    def __init__(
        self, run_id: str, position: str, recorded: str, requested: str, recorded_site: str = "",
        requested_site: str = "", hint: str = "", change: str = "", remedy: str = "", recorded_digest: str = "",
        requested_digest: str = "",
    ) -> None:  # fmt: skip
        super().__init__(
            run_id, position, recorded, requested, recorded_site, requested_site, hint, change, remedy,
            recorded_digest, requested_digest,
        )  # fmt: skip
        self.run_id, self.position, self.change, self.hint, self.remedy = run_id, position, change, hint, remedy
        self.recorded, self.recorded_site, self.recorded_digest = recorded, recorded_site, recorded_digest
        self.requested, self.requested_site, self.requested_digest = requested, requested_site, requested_digest

    def __str__(self) -> str:
        recorded = _in_brackets(self.recorded, self.recorded_site, self.recorded_digest)
        requested = _in_brackets(self.requested, self.requested_site, self.requested_digest)
        remedy = self.remedy or "Guard the change with durable.patched('change-id')"
        return (
            f"run {self.run_id!r} diverged from its journal at command {self.position}: "
            f"recorded {recorded}, workflow now asks for {requested}.{self.hint and f' {self.hint}.'} "
            f"{remedy}, or restore the old code; then resume the run"
        )


def _in_brackets(command: str, site: str, digest: str) -> str:
    told = ", ".join(part for part in (site, digest and f"arguments {digest[:8]}") if part)
    return f"{command} ({told})" if told else command


# --- values -----------------------------------------------------------------------------------


class RecordError(DurableError):
    """
    A value cannot be recorded, or a record cannot be read.

    Way out: catch it where any of those below will do.
    """


class EncodeError(RecordError):
    """
    A value that cannot make the round trip to JSON and back. Nothing was written.

    Way out: annotate the value with a type that can be recorded, or say how: ``Engine(types=[ValueType(...)])``.
    """

    def __init__(self, where: str, path: str, found: str, reason: str) -> None:
        super().__init__(where, path, found, reason)
        #: What was being recorded, as "result of step 'charge'". May be empty inside the codec.
        self.where = where
        #: Where in the value, as "$.items[2].price".
        self.path = path
        #: The type's qualified name.
        self.found, self.reason = found, reason

    def __str__(self) -> str:
        return f"cannot record {self.where or 'value'} at {self.path}: found {self.found}: {self.reason}"


class DecodeError(RecordError):
    """
    A record that does not fit the type which the code expects today.

    Way out: a default for a new field, the old type beside the new one in a union, or a codec that still reads it.
    """

    def __init__(self, where: str, path: str, expected: str, reason: str) -> None:
        super().__init__(where, path, expected, reason)
        self.where, self.path, self.expected, self.reason = where, path, expected, reason

    def __str__(self) -> str:
        return f"cannot read {self.where or 'value'} at {self.path}: expected {self.expected}: {self.reason}"

    def about(self, what: str) -> str:
        """The same of a record called *what*: ``Order.items[2].price: expected int, found 'x'``."""
        return f"{what}{self.path[1:]}: expected {self.expected}, {self.reason}"


class SignalPayloadError(DecodeError):
    """
    A signal's payload does not fit the type that the workflow waits for: raised at the `wait_for`.

    The signal is consumed; its payload stays in the run's history.

    Way out: catch it and wait again; send what the workflow names.
    """

    def __init__(self, signal: str, path: str, expected: str, reason: str) -> None:
        super().__init__(f"payload of signal {signal!r}", path, expected, reason)
        self.args = signal, path, expected, reason
        self.signal = signal

    def __str__(self) -> str:
        return f"{super().__str__()}. What was sent is in run.history(), and shown by `durable history`"


class CallbackValueError(DecodeError, TypeError):
    """
    The answer to a callback is not of the type that the workflow made it with: refused, and the callback stays open.

    Where no engine had the file, so that nobody knew the type, it is raised in the workflow instead.

    Way out: answer again with a value of the type: the callback is open.
    """

    def __init__(self, callback: str, position: str, path: str, expected: str, reason: str) -> None:
        named = f"callback {callback!r}" if callback else "the callback"
        super().__init__(f"answer to {named} at {position}", path, expected, reason)
        self.args = callback, position, path, expected, reason
        self.callback, self.position = callback, position


class CapExceededError(RecordError):
    """
    A value, name or history that is larger than its cap.

    Way out: keep large things beside the journal; ``continue_as`` in endless loops; ``Engine(caps=Caps(...))``.
    """

    def __init__(self, where: str, what: str, found: int, allowed: int, remedy: str = "") -> None:
        super().__init__(where, what, found, allowed, remedy)
        self.where, self.what, self.remedy = where, what, remedy
        self.found, self.allowed = found, allowed

    def __str__(self) -> str:
        tail = f". {self.remedy}" if self.remedy else ""
        return f"{self.where}: {self.what} is {self.found}, allowed are {self.allowed}{tail}"


class ExportFormatError(DurableError):
    """
    A file that should hold exported runs does not, or not in a form of this release. Nothing was written.

    Way out: export it again, with a release that is not newer than the one that reads it.
    """

    def __init__(self, path: str, line: int, reason: str) -> None:
        super().__init__(path, line, reason)
        #: The line is counted from 1.
        self.path, self.line, self.reason = path, line, reason

    def __str__(self) -> str:
        return f"{self.path}, line {self.line}: {self.reason}"


# --- the file and the machine -------------------------------------------------------------------


class JournalError(DurableError):
    """
    Something about the journal's file. ``path`` names it.

    Way out: ``path`` and ``reason`` tell; catch it where any of those below will do.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"journal {self.path}: {self.reason}"


class JournalLockedError(JournalError):
    """
    Another process owns the file. ``holder`` tells which: an engine or a client, pid, host, since.

    ``role`` is "engine" or "client", or empty where the holder does not say. A client has the file for one request.

    Way out: stop the holder, wait with ``standby=True``, share the file with `Service`, or ask it with `Client`.
    """

    def __init__(self, path: str, holder: str, role: str = "") -> None:
        super().__init__(path, f"owned by {holder}")
        self.args = (path, holder, role)
        self.holder = holder
        self.role = role

    def __str__(self) -> str:
        return (
            f"journal {self.path} is owned by {self.holder}. One process owns a file at a time: "
            "stop that one, or open this engine with standby=True to wait for it. Where several processes use the "
            "journal, as the workers of a web application: durable.Service is asked in all, and executes it in one "
            "of them; durable.Client asks, and never executes"
        )


class JournalVersionError(JournalError):
    """
    The file was written by a newer release, and left untouched; or an engine of another release has it open.

    Way out: use the newer release, or a backup from before; stop the engine of the other release.
    """


class ForeignJournalError(JournalError):
    """
    The file is not a journal of ours (another application's database, or no database).

    Way out: give the engine a path of its own.
    """


class JournalAccessError(JournalError):
    """
    The file or its directory cannot be opened, created or written.

    Way out: a folder on a local disk that exists, and that the program's user may write.
    """


class JournalLostError(JournalAccessError):
    """
    The file, its WAL or its lock was deleted or replaced while an engine had it open. It cannot continue without.

    Way out: stop whatever deletes or replaces it; restore a backup, or let the next opening make a new file.
    """


class MigrationError(JournalError):
    """
    A step of the application's own schema failed: nothing of it, nor of those before it, is in the file.

    Way out: mend the step and open again; ``__cause__`` is what SQLite said.
    """

    def __init__(self, path: str, step: str, reason: str) -> None:
        super().__init__(path, reason)
        self.args = (path, step, reason)
        self.step, self.reason = step, reason

    def __str__(self) -> str:
        return f"journal {self.path}: Engine({self.step}) failed, and the file is as it was: {self.reason}"


class JournalFullError(JournalError):
    """
    No space left on the device. Nothing was acknowledged; free space and it resumes.

    Way out: free space; work resumes by itself.
    """


class JournalIOError(JournalError):
    """
    The disk refused a read, write or sync.

    Way out: look at the disk; the engine opens the file again by itself, and a restart resumes.
    """


class JournalDamagedError(JournalError):
    """
    Pages of the file do not fit together. What is on others can still be read: export it, or restore a backup.

    Way out: ``durable doctor --thorough``; export what can be read, or ``durable restore`` a backup.
    """


class JournalCorruptError(JournalError):
    """
    A recorded event does not match its checksum. Other runs are not affected.

    Way out: restore a backup, or continue without that run; ``durable doctor`` names all that are hit.
    """

    def __init__(self, path: str, run_id: str, seq: int, reason: str) -> None:
        super().__init__(path, reason)
        self.args = (path, run_id, seq, reason)
        self.run_id, self.seq = run_id, seq

    def __str__(self) -> str:
        return f"journal {self.path}: run {self.run_id!r}, event {self.seq}: {self.reason}. Restore from a backup"


class InternalError(DurableError):
    """
    A bug in this library. Please report it, with the journal if you can.

    Way out: report it, with the journal if you can; a restart replays from what is recorded.
    """


# --- raised by steps, and in workflows -----------------------------------------------------------


class Fatal(DurableError):  # noqa: N818 - reads as what the step says: "this is fatal"
    """
    Raised by a step or job to fail at once, whatever its retry policy says.

    ``raise Fatal("card stolen")`` or ``raise Fatal("...") from error``.

    Way out: mend what it says, then ``run.retry()``.
    """


class HttpStatusError(DurableError):
    """
    An HTTP server answered with a status that is no success, see `retry_http`.

    Way out: for ``retry_http``: name it in ``Retry(on=HttpStatusError)``; ``status`` and ``url`` tell the rest.
    """

    def __init__(self, status: int, url: str = "") -> None:
        super().__init__(status, url)
        self.status, self.url = status, url

    def __str__(self) -> str:
        return f"HTTP status {self.status}" + (f" from {self.url}" if self.url else "")


class Snooze(DurableError):  # noqa: N818 - an instruction, not a failure
    """
    Raised by a step or job that wants to be called again later: ``raise Snooze(60)``, or ``await snooze(60)``.

    Its function begins anew then, with its cursor and memos; until then nothing of it is in memory. It uses up no
    attempt of the retry policy, and nobody is told of a failure.

    Way out: not a failure: let it leave the function.

    Args:
        seconds: How long to wait.
        message: For people; recorded.
    """

    def __init__(self, seconds: float, message: str = "") -> None:
        super().__init__(seconds, message)
        self.seconds = float(seconds)
        self.message = message

    def __str__(self) -> str:
        return self.message or f"snooze for {self.seconds:g} s"


class RetryAfter(DurableError):  # noqa: N818 - an instruction, not a failure
    """
    Raised by a step or job that knows when another attempt makes sense.

    Uses up one attempt of the retry policy, and replaces that policy's delay. Without one, it is tried again any number
    of times.

    Way out: not a failure by itself: let it leave the function; give the step ``retry=`` to bound it.

    Args:
        seconds: How long to wait before the next attempt.
        message: For people; recorded with the attempt.
    """

    def __init__(self, seconds: float, message: str = "") -> None:
        super().__init__(seconds, message)
        self.seconds = float(seconds)
        self.message = message

    def __str__(self) -> str:
        return self.message or f"retry after {self.seconds:g} s"


class RunCancelled(BaseException):
    """
    Raised in a workflow at its current command when its run is cancelled.

    A BaseException, so that ``except Exception`` does not swallow it. ``finally`` and
    ``except`` blocks may continue to yield clean-up steps; the run then ends as cancelled.

    Way out: let it pass; clean up in ``finally``.
    """

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
