"""
How a run ends: the closing event, what callers see, and whether the whole run is tried again.

Pure functions of the outcome of the body; `execution` records what they return.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from attrs import frozen

from durable._core.codec.codec import Payload
from durable._core.codec.exception_parts import is_exception, traceback_of
from durable._core.codec.failures import describe, record_exception
from durable._core.codec.safe_text import one_line
from durable._core.journal.events import End, RunFailed, RunRestarted, RunSucceeded
from durable._core.journal.events import RunCancelled as RunCancelledEvent
from durable._core.journal.payloads import failure_payload, payload_of
from durable._core.program.retry import next_attempt
from durable._core.run.failed_positions import positions_in
from durable._core.statuses import EndStatus
from durable.errors import CapExceededError, EncodeError, NotDurableError

if TYPE_CHECKING:
    from typing import Any

    from durable._core.codec.codec import Codec
    from durable._core.journal.history import History
    from durable._core.program.functions import Workflow


@frozen
class Ending:
    """A run's end: the event, and what those who wait for it get."""

    event: End
    status: EndStatus
    outcome: Payload | None = None
    reason: str = ""


@frozen
class Restart:
    """The run's failed attempt, of several."""

    event: RunRestarted
    reason: str


EndOrRestart: TypeAlias = Ending | Restart


def succeeded(value: Any, definition: Workflow[..., Any], codec: Codec, history: History, now: float) -> EndOrRestart:
    """The end of a run whose body returned *value*; a failure if that cannot be recorded."""
    try:
        outcome = codec.encode(value, definition.result, where=f"result of workflow {definition.name!r}")
    except (EncodeError, CapExceededError) as error:
        return failed(error, definition, codec, history, now)
    return Ending(RunSucceeded(outcome, now), "succeeded", outcome)


def failed(
    raised: BaseException, definition: Workflow[..., Any], codec: Codec, history: History, now: float
) -> EndOrRestart:
    """The end of a run whose body raised *raised*, or its next attempt."""
    if is_exception(raised):
        error: Exception = raised
    else:
        error = RuntimeError(f"workflow code raised {one_line(raised)}").with_traceback(traceback_of(raised))
    attempt = history.run_attempt
    delay, note = None, ""
    if not issubclass(type(error), NotDurableError):  # wrong code stays wrong, so another attempt would fail the same
        policy = history.retry or definition.options.retry
        seed = f"{history.started.seed}:run:{attempt}"
        delay, note = next_attempt(policy, error, failures=attempt, elapsed=now - history.started.at, seed=seed)
    failure = record_exception(error, codec, note=note)
    payload, described = payload_of(failure, codec), describe(failure)
    if delay is not None:
        return Restart(RunRestarted(attempt + 1, now + delay, payload, now), f"attempt {attempt} failed: {described}")
    return Ending(RunFailed(positions_in(raised), payload, now), "failed", payload, described)


def timed_out(seconds: float, codec: Codec, now: float) -> Ending:
    """The end of a run whose time is over, after its clean-up."""
    error = TimeoutError(f"run not done within {seconds:g} s")
    payload = failure_payload(error, codec, with_traceback=False)
    return Ending(RunFailed([], payload, now), "failed", payload, f"TimeoutError: {error}")


def cancelled(reason: str, now: float) -> Ending:
    """The end of a cancelled run, after its clean-up."""
    return Ending(RunCancelledEvent(reason, now), "cancelled", None, reason)


def successor(run_id: str) -> str:
    """The id of the run that continues *run_id*: r, r~2, r~3, ..."""
    base, _, count = run_id.rpartition("~")
    return f"{base}~{int(count) + 1}" if base and count.isdecimal() else f"{run_id}~2"
