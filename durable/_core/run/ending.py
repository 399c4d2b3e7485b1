"""
How a run ends: the closing event, what callers see, and whether the whole run is tried again.

Pure functions of the outcome of the body; `execution` records what they return.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from durable._core.codec.codec import Payload
from durable._core.codec.exceptions.failures import describe, record_exception
from durable._core.codec.exceptions.parts import is_exception, traceback_of
from durable._core.codec.exceptions.safe_text import one_line
from durable._core.journal.events import (
    End,
    RunExpired,
    RunFailed,
    RunRestarted,
    RunSucceeded,
    RunTimedOut,
    StepStopped,
)
from durable._core.journal.events import RunCancelled as RunCancelledEvent
from durable._core.journal.payloads import failure_payload, payload_of, rebuilt
from durable._core.light_frozen import light_frozen
from durable._core.policies.retry import NEVER, next_attempt
from durable._core.run.failed_positions import positions_in
from durable._core.statuses import CLEANUP_FAILED, EndStatus
from durable.errors import CapExceededError, EncodeError, NotDurableError, RunExpiredError

if TYPE_CHECKING:
    from typing import Any

    from durable._core.codec.codec import Codec
    from durable._core.run.nodes import OpenRun


@light_frozen
class Ending:
    """A run's end: the event, and what those who wait for it get."""

    event: End
    status: EndStatus
    outcome: Payload | None = None
    reason: str = ""


@light_frozen
class Restart:
    """The run's failed attempt, of several."""

    event: RunRestarted
    reason: str


EndOrRestart: TypeAlias = Ending | Restart


def succeeded(value: Any, ex: OpenRun) -> EndOrRestart:
    """The end of the run *ex*, whose body returned *value*; a failure if that cannot be recorded."""
    definition = ex.definition
    try:
        outcome = ex.codec.encode(value, definition.result, where=f"result of workflow {definition.name!r}")
    except (EncodeError, CapExceededError) as error:
        return failed(error, ex)
    return Ending(RunSucceeded(outcome, ex.time), "succeeded", outcome)


def failed(raised: BaseException, ex: OpenRun) -> EndOrRestart:
    """The end of the run *ex*, whose body raised *raised*, or its next attempt."""
    error, codec, history, started, now = _as_exception(raised), ex.codec, ex.history, ex.started, ex.time
    attempt = history.run_attempt
    delay, note = None, ""
    if not issubclass(type(error), NotDurableError):  # wrong code stays wrong, so another attempt would fail the same
        policy = history.retry or ex.definition.options.retry
        seed = f"{started.seed}:run:{attempt}"
        if policy is not NEVER:  # a step's `RetryAfter` that was not caught asks for no other attempt of the run
            delay, note = next_attempt(policy, error, failures=attempt, elapsed=now - started.at, seed=seed)
    failure = record_exception(error, codec, note=note)
    payload, described = payload_of(failure, codec), codec.conceal_message(describe(failure))
    if delay is not None:
        return Restart(RunRestarted(attempt + 1, now + delay, payload, now), f"attempt {attempt} failed: {described}")
    return Ending(RunFailed(positions_in(raised), payload, now), "failed", payload, described)


def _as_exception(raised: BaseException) -> Exception:
    """*raised*, or what stands for it if it is none that a program is to catch."""
    if is_exception(raised):
        return raised
    return RuntimeError(f"workflow code raised {one_line(raised)}").with_traceback(traceback_of(raised))


def timed_out(
    asked: RunTimedOut, trouble: BaseException | None, codec: Codec, now: float, *, job_at: str | None = None
) -> Ending:
    """The end of a run whose time is over, after its clean-up, which failed by *trouble*; *job_at*: of a job."""
    error = TimeoutError(f"{'run' if job_at is None else 'job'} not done within {asked.seconds:g} s")
    error.__cause__ = trouble
    payload = failure_payload(error, codec, with_traceback=False)
    return Ending(
        RunFailed([] if job_at is None else [job_at], payload, now), "failed", payload, f"TimeoutError: {error}"
    )


def expired(asked: RunExpired, run_id: str, codec: Codec, now: float) -> Ending:
    """The end of a run that had not begun in time."""
    error = RunExpiredError(run_id, asked.expires_at)
    payload = failure_payload(error, codec, with_traceback=False)
    return Ending(RunFailed([], payload, now), "failed", payload, f"RunExpiredError: {error}")


def cancelled(reason: str, trouble: BaseException | None, codec: Codec, now: float) -> Ending:
    """The end of a cancelled run, after its clean-up, which failed by *trouble*."""
    if trouble is None:
        return Ending(RunCancelledEvent(reason, at=now), "cancelled", None, reason)
    failure = record_exception(_as_exception(trouble), codec)
    payload, said = payload_of(failure, codec), f"{CLEANUP_FAILED}{codec.conceal_message(describe(failure))}"
    return Ending(
        RunCancelledEvent(reason, payload, now), "cancelled", payload, f"{reason}; {said}" if reason else said
    )


def trouble(event: StepStopped, step: str, codec: Codec) -> BaseException:
    """What went wrong with a step that was told to end."""
    if event.abandoned:
        return TimeoutError(f"step {step!r} at {event.position} was abandoned: it did not end in time once cancelled")
    return rebuilt(event.value, codec)
