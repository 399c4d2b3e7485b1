"""
The activity that waits for the end of a run: of one that is no child of the run that asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from temporalio import activity
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory
from temporalio.service import RPCError, RPCStatusCode

from durable._core.codec.codec import Codec
from durable._core.codec.json_text import dumps
from durable._core.journal.payloads import failure_payload
from durable.errors import KeyConflictError, RunNotFoundError
from durable.temporal._wire import ends
from durable.temporal._wire.ends import RunEnd
from durable.temporal._wire.payloads import packed, plain, unpacked
from durable.temporal._wire.starts import new_run_from, workflow_id_of

#: Seconds for which it waits each time that it is asked: no worker's slot is held for longer.
PATIENCE: Final = 20.0


async def run_end(handle: WorkflowHandle[Any, Any], codec: Codec) -> RunEnd:
    """
    The end of a run, once it has ended.

    Raises:
        RunNotFoundError: There is no such run.
    """
    try:
        return RunEnd("succeeded", unpacked(await handle.result()))
    except WorkflowFailureError as error:
        end = ends.end_in(error.cause, codec)
        if end.status == "cancelled" and not end.reason:
            return end._replace(reason=await _reason(handle))
        return end
    except RPCError as error:
        if error.status == RPCStatusCode.NOT_FOUND:
            raise RunNotFoundError("id", handle.id) from None
        raise


async def _reason(handle: WorkflowHandle[Any, Any]) -> str:
    """Why a run was cancelled: the server's end of it does not say, the request in its history does."""
    async for event in handle.fetch_history_events():
        if event.HasField("workflow_execution_cancel_requested_event_attributes"):
            return event.workflow_execution_cancel_requested_event_attributes.cause
    return ""


def wait_for_ends(client: Client, codec: Codec) -> Callable[[str, str], Coroutine[Any, Any, RawValue]]:
    """The activity."""

    @activity.defn(name="durable.end_of")
    async def end_of(run_id: str, digest: str) -> RawValue:
        handle: WorkflowHandle[Any, Any] = client.get_workflow_handle(workflow_id_of(run_id), result_type=RawValue)
        try:
            if digest:
                new = new_run_from(await (await handle.describe()).memo())
                recorded = "" if new is None else new.arguments
                if recorded != digest:
                    raise KeyConflictError(handle.id, handle.id, recorded, digest)
            async with asyncio.timeout(PATIENCE):
                end = await run_end(handle, codec)
        except TimeoutError:  # it is asked again, later
            raise ApplicationError(
                f"{run_id} is open", type=ends.OPEN, category=ApplicationErrorCategory.BENIGN
            ) from None
        except (KeyConflictError, RunNotFoundError) as error:
            end = RunEnd("failed", failure_payload(error, codec, with_traceback=False))
        told = end._asdict() | {"outcome": None if end.outcome is None else plain(end.outcome)}
        return packed(dumps(told))

    return end_of
