"""
Batches opened again: what has failed in one begins again, each as a run of its own, and the batch waits for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from attrs import frozen
from temporalio.client import WorkflowUpdateFailedError
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from durable._core.recorded.export_format import RunHistory
from durable.errors import BatchNotFoundError, RetryRefusedError, RunNotFoundError, RunStateError
from durable.temporal._batches.batch_workflow import batch_workflow_id
from durable.temporal._batches.wire import (
    BATCH,
    REOPEN,
    WHOLE,
    BatchState,
    NewBatch,
    Reopening,
    batch_in,
    batch_text,
    reopening_text,
    state_text,
)
from durable.temporal._engine.batches import CONTENTS, TemporalBatch
from durable.temporal._engine.handle import TemporalRun

if TYPE_CHECKING:
    from durable.temporal._engine.asking import Asking

#: How what is to be retried has ended.
_MENDABLE = ("failed", "cancelled")


@frozen
class _Mended:
    """A batch with what of it is begun again."""

    batch_id: str
    reopening: Reopening
    runs: Sequence[tuple[TemporalRun[Any], RunHistory]]

    @property
    def count(self) -> int:
        return len(self.runs) + len(self.reopening.unknown)


async def retry_batch(asking: Asking, batch_id: str, *, force: bool) -> int:
    """
    Begin again what failed in a batch and those nested in it; how many runs.

    Raises:
        BatchNotFoundError: There is none.
        RetryRefusedError: Steps ran because of a failure: none is retried, unless by *force*.
    """
    found = await _to_mend(asking, batch_id, force=force)  # all are asked before any is begun
    for mended in found:  # the innermost first
        for run, history in mended.runs:
            await run.begin_again(history, force=force)
        await _reopen(asking, mended.batch_id, mended.reopening)
    if found:
        await _reopen_around(asking, batch_id)
    return sum(mended.count for mended in found)


async def tell_batches(asking: Asking, batches: Sequence[str], workflow_id: str) -> None:
    """Have *batches* (the innermost first) wait for a run of theirs that was begun again."""
    if not batches:
        return
    innermost = batches[0]
    state, whole = await _told(asking, innermost)
    ids = _ids(whole, state)
    run_id = next((own for own, there in ids.items() if there == workflow_id), None)
    if run_id is not None:
        await _reopen(asking, innermost, Reopening(runs={run_id: workflow_id}))
        await _reopen_around(asking, innermost)


async def _to_mend(asking: Asking, batch_id: str, *, force: bool) -> list[_Mended]:
    state, whole = await _told(asking, batch_id)
    inner = [each for nested in state.nested for each in await _to_mend(asking, nested, force=force)]
    runs: dict[str, tuple[TemporalRun[Any], RunHistory]] = {}
    unknown: list[str] = []
    for run_id, workflow_id in _ids(whole, state).items():
        status = state.members.get(run_id) or state.callbacks.get(run_id)
        if status not in _MENDABLE:
            continue
        run = TemporalRun[Any](asking, workflow_id)
        try:
            history = await run.reopened(force=force)
        except RunNotFoundError:  # the batch was cancelled before it began
            unknown.append(run_id)
            continue
        except RetryRefusedError:
            raise
        except RunStateError:  # it was cancelled, and had begun
            continue
        if history is not None:
            runs[run_id] = run, history
    nested = [each for each in state.nested if any(mended.batch_id == each for mended in inner)]
    if not runs and not unknown and not nested:
        return inner
    reopening = Reopening({run_id: run.workflow_id for run_id, (run, _) in runs.items()}, unknown, nested)
    return [*inner, _Mended(batch_id, reopening, [*runs.values()])]


async def _told(asking: Asking, batch_id: str) -> tuple[BatchState, NewBatch]:
    """How a batch stands, and all that is in it."""
    state = await TemporalBatch(asking, batch_id).state()
    handle = asking.client.get_workflow_handle(batch_workflow_id(batch_id))
    return state, batch_in(await handle.query(WHOLE, result_type=str))


def _ids(whole: NewBatch, state: BatchState) -> dict[str, str]:
    """Ids on the server of its members and callbacks, by their own: a key stands for its run there."""
    keys = {new.run_id: new.key for new in whole.members}
    return {run_id: keys.get(run_id) or run_id for run_id in (*state.members, *state.callbacks)}


async def _reopen(asking: Asking, batch_id: str, reopening: Reopening) -> None:
    """Have a batch wait for what was begun again; one that is finished begins again, from how it stood."""
    handle, text = asking.client.get_workflow_handle(batch_workflow_id(batch_id)), reopening_text(reopening)
    while True:
        try:
            await handle.execute_update(REOPEN, text)
        except WorkflowUpdateFailedError:  # it has just finished
            pass
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise
        else:
            return
        state, whole = await _told(asking, batch_id)
        memo = await (await handle.describe()).memo()
        try:
            await asking.client.start_workflow(
                BATCH,
                args=[batch_text(whole), state_text(state), text],
                id=batch_workflow_id(batch_id),
                task_queue=asking.default_queue,
                memo={CONTENTS: memo.get(CONTENTS)},
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            )
        except WorkflowAlreadyStartedError:  # somebody else has opened it
            continue
        return


async def _reopen_around(asking: Asking, batch_id: str) -> None:
    """Have the batches around one wait for it, as far as they had seen its end."""
    state, _ = await _told(asking, batch_id)
    while (outer := state.parent) is not None:
        try:
            around, _ = await _told(asking, outer)
        except BatchNotFoundError:
            return
        if around.nested.get(state.batch_id) == "pending":
            return
        await _reopen(asking, outer, Reopening(nested=[state.batch_id]))
        state = around
