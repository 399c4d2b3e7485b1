"""
How runs ended, as the server says it and as handles, parents and journals say it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from temporalio.exceptions import ApplicationError, CancelledError, TerminatedError

from durable._core.codec.codec import Codec, Payload
from durable._core.codec.exceptions.failures import describe
from durable._core.journal.payloads import failure_in, failure_payload
from durable._core.statuses import EndStatus
from durable.temporal._wire.payloads import as_application_error, failure_of

#: Types of the errors by which workflows and activities of ours end.
CANCELLED: Final = "durable.RunCancelled"
STOPPED: Final = "durable.StepStopped"
RETRYING: Final = "durable.StepRetrying"
SNOOZED: Final = "durable.StepSnoozed"
INTERRUPTED: Final = "durable.StepInterrupted"
POISON: Final = "durable.Poison"
OPEN: Final = "durable.Open"
UNKNOWN: Final = "durable.UnknownStep"


class RunEnd(NamedTuple):
    """The end of a run."""

    status: EndStatus
    #: The value, or the failure.
    outcome: Payload | None = None
    reason: str = ""


def failed_run(outcome: Payload | None, codec: Codec) -> ApplicationError:
    """What the server's workflow of a failed run raises."""
    failure = failure_in(outcome, codec)
    type_ = f"{failure.module}.{failure.type_name}"
    return as_application_error(outcome or "null", describe(failure), type_, non_retryable=True)


def cancelled_run(reason: str, outcome: Payload | None) -> ApplicationError:
    """What that of a run raises which ended as cancelled, and whom the server has not cancelled."""
    return as_application_error(outcome or "null", reason, CANCELLED, non_retryable=True)


def end_in(cause: BaseException | None, codec: Codec) -> RunEnd:
    """The end of a run that did not succeed, from what the server gives for its cause."""
    if isinstance(cause, TerminatedError):
        return RunEnd("cancelled", reason=str(cause) or "terminated")
    if isinstance(cause, CancelledError):
        return RunEnd("cancelled")
    payload, _ = failure_of(cause)
    if isinstance(cause, ApplicationError) and cause.type == CANCELLED:
        return RunEnd("cancelled", payload, cause.message)
    return RunEnd("failed", payload or foreign_failure(cause, codec))


def foreign_failure(cause: BaseException | None, codec: Codec) -> Payload:
    """The failure of what is not ours: a timeout of the server, a workflow in another language."""
    error = RuntimeError(f"{type(cause).__name__}: {cause}")
    return failure_payload(error, codec, with_traceback=False)
