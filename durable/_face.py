"""
All that users import, in one place. `durable/__init__.py` loads it when the first of these names is asked for.
"""

from durable._cli import command_line
from durable._core.admission import Queue
from durable._core.caps import Caps
from durable._core.checking import CheckedRun, CheckReport
from durable._core.decorators import call, job, step, transaction, workflow
from durable._core.definition import Finished
from durable._core.exchange import RunHistory
from durable._core.flow import current, logger, now, patched, random, set_attributes, uuid4
from durable._core.group_ops import Settled, Winner
from durable._core.limits import Limit, Rate
from durable._core.making import (
    continue_as,
    for_each,
    gather,
    race,
    settle,
    sleep,
    sleep_until,
    start,
    timeout,
    wait_for,
)
from durable._core.naming import aliases
from durable._core.ops import Child, Command, Flow, Op, Return, RunOp, by_arguments
from durable._core.ports import AsyncTransaction, Transaction
from durable._core.redaction import Redacted
from durable._core.retry import Retry
from durable._core.schedules import Schedule
from durable._debug.replay import Replay, ReplayedCommand, replay
from durable._debug.what_if import what_if
from durable._shell.batch import Batch, current_batch
from durable._shell.batch_info import BatchInfo
from durable._shell.client import Client
from durable._shell.context import StepContext, context, cursor, memo
from durable._shell.dry_run import DryRun
from durable._shell.engine import Engine, Stats
from durable._shell.events import EngineEvent
from durable._shell.exporting import read_histories
from durable._shell.finding import Imported
from durable._shell.handle import HistoryEvent, QueueInfo, Run, RunInfo
from durable._shell.middleware import Activation, AttemptFailed, Middleware, RunFailure, StepCall
from durable._shell.schedule_handle import ScheduleHandle, ScheduleInfo
from durable.errors import (
    BatchClosedError,
    DurableError,
    Fatal,
    JournalError,
    JournalLockedError,
    KeyConflictError,
    LimitReachedError,
    NondeterminismError,
    NotDurableError,
    RetryAfter,
    RunCancelled,
    RunCancelledError,
    RunFailedError,
    RunNotFoundError,
    ScheduleNotFoundError,
    StepError,
)

__all__ = [
    "Activation",
    "AsyncTransaction",
    "AttemptFailed",
    "Batch",
    "BatchClosedError",
    "BatchInfo",
    "Caps",
    "CheckReport",
    "CheckedRun",
    "Child",
    "Client",
    "Command",
    "DryRun",
    "DurableError",
    "Engine",
    "EngineEvent",
    "Fatal",
    "Finished",
    "Flow",
    "HistoryEvent",
    "Imported",
    "JournalError",
    "JournalLockedError",
    "KeyConflictError",
    "Limit",
    "LimitReachedError",
    "Middleware",
    "NondeterminismError",
    "NotDurableError",
    "Op",
    "Queue",
    "QueueInfo",
    "Rate",
    "Redacted",
    "Replay",
    "ReplayedCommand",
    "Retry",
    "RetryAfter",
    "Return",
    "Run",
    "RunCancelled",
    "RunCancelledError",
    "RunFailedError",
    "RunFailure",
    "RunHistory",
    "RunInfo",
    "RunNotFoundError",
    "RunOp",
    "Schedule",
    "ScheduleHandle",
    "ScheduleInfo",
    "ScheduleNotFoundError",
    "Settled",
    "Stats",
    "StepCall",
    "StepContext",
    "StepError",
    "Transaction",
    "Winner",
    "aliases",
    "by_arguments",
    "call",
    "command_line",
    "context",
    "continue_as",
    "current",
    "current_batch",
    "cursor",
    "for_each",
    "gather",
    "job",
    "logger",
    "memo",
    "now",
    "patched",
    "race",
    "random",
    "read_histories",
    "replay",
    "set_attributes",
    "settle",
    "sleep",
    "sleep_until",
    "start",
    "step",
    "timeout",
    "transaction",
    "uuid4",
    "wait_for",
    "what_if",
    "workflow",
]
