"""
How a run ends: the closing event, what callers see, and whether the whole run is tried again.

Pure functions of the outcome of the body; `execution` records what they return.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from attrs import frozen

from durable._core.codec.codec import Payload
from durable._core.codec.failures import describe
from durable._core.journal.events import End, RunFailed, RunRestarted, RunSucceeded
from durable._core.journal.events import RunCancelled as RunCancelledEvent
from durable._core.journal.payloads import failure_in, failure_payload
from durable._core.program.retry import plan
from durable._core.statuses import EndStatus
from durable.errors import CapExceededError, EncodeError, NotDurableError

if TYPE_CHECKING:
    from typing import Any

    from durable._core.codec.codec import Codec
    from durable._core.journal.history import History
    from durable._core.program.functions import Workflow

#: Causes and groups nest a few deep; a cycle of them must end.
_MAX_NESTING = 20


@frozen
class Ending:
    """A run's end: the event, and what is told to whoever waits for it."""

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
    error: BaseException, definition: Workflow[..., Any], codec: Codec, history: History, now: float
) -> EndOrRestart:
    """The end of a run whose body raised *error*, or its next attempt."""
    if not isinstance(error, Exception):
        wrapped = RuntimeError(f"workflow code raised {type(error).__name__}: {error}")
        wrapped.__cause__ = error
        error = wrapped
    payload = failure_payload(error, codec)
    described = describe(failure_in(payload, codec))
    attempt = history.run_attempt
    delay = None
    if not isinstance(error, NotDurableError):  # wrong code stays wrong
        policy = history.retry or definition.options.retry
        seed = f"{history.started.seed}:run:{attempt}"
        delay = plan(policy, error, failures=attempt, elapsed=now - history.started.at, seed=seed)
    if delay is not None:
        return Restart(RunRestarted(attempt + 1, now + delay, payload, now), f"attempt {attempt} failed: {described}")
    return Ending(RunFailed(_positions_in(error), payload, now), "failed", payload, described)


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


def _positions_in(error: BaseException, found: list[str] | None = None, depth: int = 0) -> list[str]:
    """Positions of the commands whose failures *error* is, wraps, or groups."""
    found = [] if found is None else found
    position = getattr(error, "__durable_position__", None)
    if position is not None:
        if position not in found:
            found.append(position)
    elif depth < _MAX_NESTING:
        inner = error.exceptions if isinstance(error, BaseExceptionGroup) else (error.__cause__, error.__context__)
        for wrapped in inner:
            if wrapped is not None:
                _positions_in(wrapped, found, depth + 1)
    return found
