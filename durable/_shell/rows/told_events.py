"""
Which events of a journal readers of `engine.events()` hear of, and under what names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from durable._core.journal.events import (
    AttributesSet,
    SignalReceived,
    StepCancelled,
    StepFailed,
    StepInterrupted,
    StepRetrying,
    StepSnoozed,
    StepStarted,
    StepStopped,
    StepSucceeded,
    TransactionStarted,
)
from durable._shell.rows.engine_events import EventName

#: What is told of the events of a workflow, while somebody listens.
TOLD: Final[Mapping[type[Any], EventName]] = {
    StepStarted: "step.started",
    TransactionStarted: "step.started",
    StepSucceeded: "step.succeeded",
    StepFailed: "step.failed",
    StepRetrying: "step.retrying",
    StepSnoozed: "step.snoozed",
    StepInterrupted: "step.interrupted",
    StepStopped: "step.cancelled",
    StepCancelled: "step.cancelled",
    SignalReceived: "signal.received",
    AttributesSet: "run.attributes",
}
