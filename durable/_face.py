"""
All that users import, in one place, as type checkers read it.

Programs load each name by `_names` instead, from its module, and not what all the others need.
"""

from durable._cli import command_line
from durable._core.admission import Queue
from durable._core.authoring.decorators import call, job, step, transaction, workflow
from durable._core.authoring.flow import current, logger, now, patched, random, uuid4
from durable._core.authoring.op_constructors import (
    as_completed,
    cancel_run,
    continue_as,
    for_each,
    gather,
    poll_until,
    race,
    settle,
    signal_run,
    sleep,
    sleep_until,
    start,
    timeout,
    wait_first,
    wait_for,
)
from durable._core.authoring.registry import Given as Definition
from durable._core.authoring.sagas import CompensationError, saga
from durable._core.authoring.schedules import Schedule
from durable._core.codec.class_names import aliases
from durable._core.codec.codec import ValueCodec
from durable._core.codec.value_types import ValueType
from durable._core.policies.caps import Caps
from durable._core.policies.limits import Limit, Rate
from durable._core.policies.retry import Retry
from durable._core.policies.settled import GroupFailedError, NamedOutcomes, Outcomes, Settled
from durable._core.program.callbacks import Callback, callback
from durable._core.program.command import Command
from durable._core.program.definition import by_arguments
from durable._core.program.functions import Finished
from durable._core.program.group_ops import Winner
from durable._core.program.ops import Child, Flow, Op, Return, RunOp, Signal
from durable._core.program.progress import Progress
from durable._core.program.requests import Asked, Request
from durable._core.program.saying import emit, progress, set_attributes
from durable._core.program.transactions import AsyncTransaction, Transaction
from durable._core.recorded.check import CheckedRun, CheckReport
from durable._core.recorded.export_format import RunHistory
from durable._core.recorded.redaction import Redacted
from durable._debug.replay import Replay, ReplayedCommand, replay
from durable._debug.what_if import what_if
from durable._shell.attempts.context import StepContext, context, cursor, memo, resource, snooze
from durable._shell.attempts.http_outcomes import retry_http
from durable._shell.attempts.middleware import (
    Activation,
    AttemptFailed,
    Middleware,
    RunCancellation,
    RunFailure,
    RunSuccess,
    StepCall,
)
from durable._shell.client.client import Client
from durable._shell.engine.dry_run import DryRun
from durable._shell.engine.engine import Engine, Stats
from durable._shell.engine.from_thread import FromThread, RunFromThread
from durable._shell.engine.service import Service
from durable._shell.handles.batch import Batch, current_batch
from durable._shell.handles.batch_info import BatchInfo
from durable._shell.handles.handle import HistoryEvent, LimitHandle, LimitInfo, QueueHandle, QueueInfo, Run
from durable._shell.handles.queries import RunView, StepOutcome
from durable._shell.handles.run_info import Arguments, RunInfo
from durable._shell.handles.schedule_handle import ScheduleHandle, ScheduleInfo
from durable._shell.handles.step_info import AttemptInfo, StepInfo
from durable._shell.handles.stream import RunStream, StreamItem
from durable._shell.reads.run_rows import FailedHook
from durable._shell.reads.waits import WaitInfo
from durable._shell.reports.exporting import read_histories
from durable._shell.reports.limit_rows import SlotInfo
from durable._shell.requests.history_requests import Imported
from durable._shell.rows.engine_events import EngineEvent
from durable._shell.tasks.health import Health
from durable.errors import (
    BatchClosedError,
    BatchNotFoundError,
    CallbackFailedError,
    CallbackValueError,
    CapExceededError,
    DecodeError,
    DefinitionError,
    DryRunError,
    DurableError,
    EncodeError,
    EngineClosedError,
    EngineFailedError,
    ExportFormatError,
    Fatal,
    ForeignJournalError,
    HeartbeatMissedError,
    HttpStatusError,
    InternalError,
    JournalAccessError,
    JournalCorruptError,
    JournalDamagedError,
    JournalError,
    JournalFullError,
    JournalIOError,
    JournalLockedError,
    JournalLostError,
    JournalVersionError,
    KeyConflictError,
    LimitReachedError,
    MiddlewareError,
    MigrationError,
    NondeterminismError,
    NotDurableError,
    PoisonError,
    RecordError,
    RequestConflictError,
    RequestRefusedError,
    RequestUnansweredError,
    ResourceNotFoundError,
    RetryAfter,
    RetryRefusedError,
    RunBlockedError,
    RunCancelled,
    RunCancelledError,
    RunExistsError,
    RunExpiredError,
    RunFailedError,
    RunNotFoundError,
    RunStateError,
    ScheduleNotFoundError,
    SignalPayloadError,
    Snooze,
    StepError,
    StepInterruptedError,
    TokenEndedError,
    TokenError,
    TokenExpiredError,
    TokenForeignError,
    TokenMalformedError,
    TokenUsedError,
    TransactionRefusedError,
    UnknownOptionError,
    UsageError,
    WrongLoopError,
)

__all__ = [
    "Activation",
    "Arguments",
    "Asked",
    "AsyncTransaction",
    "AttemptFailed",
    "AttemptInfo",
    "Batch",
    "BatchClosedError",
    "BatchInfo",
    "BatchNotFoundError",
    "Callback",
    "CallbackFailedError",
    "CallbackValueError",
    "CapExceededError",
    "Caps",
    "CheckReport",
    "CheckedRun",
    "Child",
    "Client",
    "Command",
    "CompensationError",
    "DecodeError",
    "Definition",
    "DefinitionError",
    "DryRun",
    "DryRunError",
    "DurableError",
    "EncodeError",
    "Engine",
    "EngineClosedError",
    "EngineEvent",
    "EngineFailedError",
    "ExportFormatError",
    "FailedHook",
    "Fatal",
    "Finished",
    "Flow",
    "ForeignJournalError",
    "FromThread",
    "GroupFailedError",
    "Health",
    "HeartbeatMissedError",
    "HistoryEvent",
    "HttpStatusError",
    "Imported",
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
    "Limit",
    "LimitHandle",
    "LimitInfo",
    "LimitReachedError",
    "Middleware",
    "MiddlewareError",
    "MigrationError",
    "NamedOutcomes",
    "NondeterminismError",
    "NotDurableError",
    "Op",
    "Outcomes",
    "PoisonError",
    "Progress",
    "Queue",
    "QueueHandle",
    "QueueInfo",
    "Rate",
    "RecordError",
    "Redacted",
    "Replay",
    "ReplayedCommand",
    "Request",
    "RequestConflictError",
    "RequestRefusedError",
    "RequestUnansweredError",
    "ResourceNotFoundError",
    "Retry",
    "RetryAfter",
    "RetryRefusedError",
    "Return",
    "Run",
    "RunBlockedError",
    "RunCancellation",
    "RunCancelled",
    "RunCancelledError",
    "RunExistsError",
    "RunExpiredError",
    "RunFailedError",
    "RunFailure",
    "RunFromThread",
    "RunHistory",
    "RunInfo",
    "RunNotFoundError",
    "RunOp",
    "RunStateError",
    "RunStream",
    "RunSuccess",
    "RunView",
    "Schedule",
    "ScheduleHandle",
    "ScheduleInfo",
    "ScheduleNotFoundError",
    "Service",
    "Settled",
    "Signal",
    "SignalPayloadError",
    "SlotInfo",
    "Snooze",
    "Stats",
    "StepCall",
    "StepContext",
    "StepError",
    "StepInfo",
    "StepInterruptedError",
    "StepOutcome",
    "StreamItem",
    "TokenEndedError",
    "TokenError",
    "TokenExpiredError",
    "TokenForeignError",
    "TokenMalformedError",
    "TokenUsedError",
    "Transaction",
    "TransactionRefusedError",
    "UnknownOptionError",
    "UsageError",
    "ValueCodec",
    "ValueType",
    "WaitInfo",
    "Winner",
    "WrongLoopError",
    "aliases",
    "as_completed",
    "by_arguments",
    "call",
    "callback",
    "cancel_run",
    "command_line",
    "context",
    "continue_as",
    "current",
    "current_batch",
    "cursor",
    "emit",
    "for_each",
    "gather",
    "job",
    "logger",
    "memo",
    "now",
    "patched",
    "poll_until",
    "progress",
    "race",
    "random",
    "read_histories",
    "replay",
    "resource",
    "retry_http",
    "saga",
    "set_attributes",
    "settle",
    "signal_run",
    "sleep",
    "sleep_until",
    "snooze",
    "start",
    "step",
    "timeout",
    "transaction",
    "uuid4",
    "wait_first",
    "wait_for",
    "what_if",
    "workflow",
]
