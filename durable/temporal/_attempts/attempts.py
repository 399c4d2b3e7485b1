"""
The activity that runs attempts of steps, transactions and jobs.

The function runs in a task of its own: what the SDK cancels is our waiting, and a function that takes no notice of its
own cancellation holds up no worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from attrs import frozen
from temporalio import activity
from temporalio.client import Client
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory
from temporalio.service import RPCError, RPCStatusCode

from durable._core.codec.codec import Payload
from durable._core.codec.exceptions.failures import describe
from durable._core.journal.events import Event, StepFailed, StepRetrying, StepSnoozed, StepStopped, StepSucceeded
from durable._core.journal.payloads import failure_in, failure_payload
from durable._core.policies.retry import from_record
from durable._core.program.functions import Job, TransactionStep
from durable._core.program.ops import Options, StepOp, TransactionOp
from durable._core.run.decision import StepAction, TransactionAction
from durable._shell.attempts.running_attempt import RunningAttempt
from durable._shell.attempts.steps import Steps
from durable._shell.log import log
from durable._shell.loops import current_task
from durable._shell.rows.carried import Carry
from durable._shell.rows.rows import RunState
from durable.errors import DecodeError
from durable.temporal._attempts.emitting import Emitter
from durable.temporal._attempts.left_behind import LeftBehind
from durable.temporal._setup.setup import Setup
from durable.temporal._transactions.app_transactions import AppTransactions, DatabaseAwayError, Staging
from durable.temporal._wire import ends
from durable.temporal._wire.items import ITEMS, Item, packed_items
from durable.temporal._wire.payloads import (
    as_application_error,
    facts_in,
    joined_arguments,
    packed,
    plain_notes,
)
from durable.temporal._wire.starts import workflow_id_of

#: The first signs of life, in seconds, and how their pace slows: that a step is told to end comes with the answer.
FIRST_BEAT: Final = 0.25
SLOWING: Final = 1.5
#: Failed attempts are no errors of the worker's: the SDK would log each with its traceback.
_BENIGN: Final = ApplicationErrorCategory.BENIGN
_AT_ONCE: Final = timedelta(0)


@frozen
class Commits:
    """Where transactions commit, and what starts the runs that they stage."""

    transactions: AppTransactions
    staging: Staging


class Attempts:
    """The attempts of one worker."""

    def __init__(self, setup: Setup, client: Client, steps: Steps, commits: Commits | None, carry: Carry) -> None:
        self._setup = setup
        self._client = client
        self._steps = steps
        self._commits = commits
        self._carry = carry
        #: Functions that were told to end, have not, and are waited for no more.
        self._abandoned: set[asyncio.Task[Event | None]] = set()

    def activity(self) -> Callable[[Sequence[RawValue]], Coroutine[Any, Any, RawValue]]:
        """What the SDK is given."""

        @activity.defn(dynamic=True)
        async def attempt(args: Sequence[RawValue]) -> RawValue:
            return await self._attempt(args)

        return attempt

    async def _attempt(self, args: Sequence[RawValue]) -> RawValue:
        info, setup = activity.info(), self._setup
        arguments, marked = joined_arguments(args)
        told = facts_in(marked)
        before = info.heartbeat_details[0] if info.heartbeat_details else {}
        handle = self._client.get_async_activity_handle(task_token=info.task_token or b"")
        emitter = Emitter(self._sends_to(info.workflow_id or ""), setup.caps.stream_buffer)
        left = LeftBehind(handle, emitter, setup.codec, setup.caps, before, told)
        by_server = told.get("by_server", True)
        number = told.get("attempt", 1) + info.attempt - 1
        died = info.attempt - 1 - left.ended
        if by_server and died >= setup.crash_limit:
            msg = f"{info.activity_type} was running when {died} workers died"
            raise as_application_error("null", msg, ends.POISON, {"crashes": died}, non_retryable=True)
        action = await self._action(arguments, told, number, left)
        state = RunState(0, told.get("run_id", info.workflow_id or ""), info.workflow_type or "", info.task_queue)
        self._carry.set_again(told.get("carried", ""), setup.codec)  # the SDK gives each attempt a context of its own
        state.labels, state.batches = told.get("labels", {}), tuple(told.get("batches", ()))
        try:
            if isinstance(action, TransactionAction):
                event: Event | None = await self._transact(action, state.run_id, left)
            else:
                event = await self._run(action, state, left)
            await emitter.flush()
        finally:
            emitter.close()
        if left.published:
            await self._publish(state.run_id, left.published)
        return await self._answer(event, left, by_server=by_server)

    async def _action(
        self, arguments: Payload, told: Mapping[str, Any], number: int, left: LeftBehind
    ) -> StepAction | TransactionAction:
        """What is to be run; raises where there is no such function, or it does not take such arguments."""
        info, codec = activity.info(), self._setup.codec
        definition = self._setup.registry.find(info.activity_type, told.get("place", ""))
        if definition is None:
            left.ended += 1  # neither a failed attempt of the user's, nor a death: another worker may know it
            await left.send()
            msg = f"no step called {info.activity_type!r} is known to this worker"
            raise ApplicationError(msg, type=ends.UNKNOWN, next_retry_delay=timedelta(seconds=2))
        step = definition.as_step if isinstance(definition, Job) else definition
        try:
            where = f"arguments of {info.activity_type!r}"
            args, kwargs = step.codec_of(codec).decode_arguments(arguments, step.arguments, where=where)
        except DecodeError as error:  # raised in the workflow, at the line that asks for the step
            raise self._error(failure_payload(error, codec), {"attempt": number}, non_retryable=True) from None
        given = Options(retry=from_record(told["retry"]) if "retry" in told else None, timeout=told.get("timeout"))
        first = told.get("first_started_at") or info.scheduled_time.timestamp()
        position = told.get("position", info.activity_id)
        if isinstance(step, TransactionStep):
            transaction: TransactionOp[Any] = TransactionOp(step, tuple(args), dict(kwargs), given)
            return TransactionAction(position, number, left.failures, first, transaction)
        op: StepOp[Any] = StepOp(step, tuple(args), dict(kwargs), given)
        return StepAction(position, number, left.failures, first, op)

    async def _transact(self, action: TransactionAction, run_id: str, left: LeftBehind) -> Event:
        """How the transaction has ended: it cannot be told to."""
        assert self._commits is not None, "without them the engine refuses to be made"
        commits, codec = self._commits, self._setup.codec
        beating = asyncio.create_task(_beat(left, self._setup.worker_timeout / 3))
        try:
            key = f"{run_id}:{action.position}"
            value = await commits.transactions.transact(action.op, key, codec, commits.staging)
        except DatabaseAwayError as error:
            log.warning("transaction.no_database", run_id=run_id, error=str(error))
            raise await self._again(None, left, timedelta(seconds=1)) from None
        except Exception as error:  # noqa: BLE001 - user code may raise anything: it is the outcome of the transaction
            return self._steps.failed(action, error, run_id)
        finally:
            beating.cancel()
        return StepSucceeded(action.position, value, time.time())

    async def _run(self, action: StepAction, state: RunState, left: LeftBehind) -> Event | None:
        """How the attempt has ended; None if it was cut off, since the worker closes."""
        running = RunningAttempt(action)

        async def attempt() -> Event | None:
            return await self._steps.attempt(running, state, left, left.notes, current_task())

        task = asyncio.create_task(attempt())
        beating = asyncio.create_task(_beat(left, self._setup.worker_timeout / 3))
        try:
            try:
                return await asyncio.shield(task)
            except asyncio.CancelledError:
                if task.done():
                    raise
            return await self._stop(running, task)
        finally:
            beating.cancel()

    async def _stop(self, running: RunningAttempt, task: asyncio.Task[Event | None]) -> Event | None:
        """Tell the function to end, and wait; not for ever."""
        closing = activity.is_worker_shutdown()
        if closing:
            running.cut_off()
        else:
            running.cancel()
        done: set[asyncio.Task[Event | None]] = set()
        with contextlib.suppress(asyncio.CancelledError):
            done, _ = await asyncio.wait({task}, timeout=self._setup.cleanup_seconds)
        if done:
            return task.result()
        told = {"step": running.op.definition.name, "position": running.position, "attempt": running.attempt}
        log.warning("step.abandoned", **told)
        self._abandoned.add(task)
        task.add_done_callback(self._abandoned.discard)
        running.end()
        return None if closing else StepStopped(running.position, running.attempt, abandoned=True, at=0.0)

    def _sends_to(self, workflow_id: str) -> Callable[[list[Item]], Awaitable[None]]:
        """What gives items to the run called *workflow_id*."""

        async def send(items: list[Item]) -> None:
            while True:
                try:
                    await self._client.get_workflow_handle(workflow_id).signal(ITEMS, packed_items(items))
                except RPCError as error:
                    if error.status == RPCStatusCode.NOT_FOUND:  # it has ended, and nobody reads them
                        return
                    log.warning("stream.not_sent", run_id=workflow_id, error=str(error))
                    await asyncio.sleep(1)
                else:
                    return

        return send

    async def _publish(self, run_id: str, values: dict[str, Any]) -> None:
        encoded = self._setup.codec.encode(values, dict[str, Any], where="attributes")
        with contextlib.suppress(RPCError):  # its run has ended
            await self._client.get_workflow_handle(workflow_id_of(run_id)).signal("durable.attributes", packed(encoded))

    # --- how it has ended ----------------------------------------------------------------------

    async def _answer(self, event: Event | None, left: LeftBehind, *, by_server: bool) -> RawValue:
        notes = plain_notes(left.notes)
        match event:
            case StepSucceeded():
                return packed(event.value or "null")
            case StepFailed():
                raise self._error(event.value, {"attempt": event.attempt, "notes": notes}, non_retryable=True)
            case StepStopped(value=None, abandoned=False):
                raise asyncio.CancelledError
            case StepStopped():
                raise self._error(event.value, {"abandoned": event.abandoned}, ends.STOPPED, non_retryable=True)
            case StepRetrying() | StepSnoozed() if by_server:
                left.failures += isinstance(event, StepRetrying)
                delay = timedelta(seconds=max(0.0, event.fire_at - event.at))
                raise await self._again(event.value, left, delay)
            case StepRetrying():
                later = {"delay": event.fire_at - event.at, "notes": notes}
                raise self._error(event.value, later, ends.RETRYING, non_retryable=True)
            case StepSnoozed():
                later = {"delay": event.fire_at - event.at, "reason": event.reason, "notes": notes}
                raise self._error(None, later, ends.SNOOZED, non_retryable=True)
            case _ if by_server:  # it was cut off
                raise await self._again(None, left, _AT_ONCE)
            case _:
                raise self._error(None, {"notes": notes}, ends.INTERRUPTED, non_retryable=True)

    async def _again(self, failure: Payload | None, left: LeftBehind, delay: timedelta) -> ApplicationError:
        """What has the server begin another attempt."""
        left.ended += 1
        await left.send()
        return self._error(failure, {}, next_retry_delay=delay)

    def _error(
        self, value: Payload | None, told: Mapping[str, Any], type_: str = "", **options: Any
    ) -> ApplicationError:
        if value is None:
            return as_application_error("null", type_ or "to be tried again", type_, told, category=_BENIGN, **options)
        failure = failure_in(value, self._setup.codec)
        type_ = type_ or f"{failure.module}.{failure.type_name}"
        return as_application_error(value, describe(failure), type_, told, category=_BENIGN, **options)


async def _beat(left: LeftBehind, slowest: float) -> None:
    seconds = min(FIRST_BEAT, slowest)
    while True:
        await asyncio.sleep(seconds)
        left.beat()
        seconds = min(seconds * SLOWING, slowest)
