"""
Converts a history of the server. No step is executed, and nothing is asked of a server.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Final

from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner

from durable._core.authoring.registry import Given
from durable._core.codec.codec import Codec, ValueCodec
from durable._core.policies.limits import Limit, collect_limits
from durable._core.recorded.export_format import RunHistory
from durable.errors import DurableError, ExportFormatError
from durable.temporal._driving.run_workflow import RunWorkflow
from durable.temporal._limits.limit_workflow import LimitWorkflow
from durable.temporal._schedules.tick_workflow import TickWorkflow
from durable.temporal._setup.registry import register
from durable.temporal._setup.setup import Setup, SetupInterceptor

#: What the SDK calls a run whose history does not say its id.
_NAMELESS: Final = "a-run"


async def journal_of(
    history: WorkflowHistory | str | os.PathLike[str],
    definitions: Iterable[Given],
    *,
    limits: Iterable[Limit] = (),
    codec: ValueCodec | None = None,
) -> RunHistory:
    """
    The journal of a run, for `durable.replay`, `what_if`, ``durable check`` or an import.

    Args:
        history: As ``handle.fetch_history()`` gives it; or the path of what ``temporal workflow show --output json``
            wrote.
        definitions: The code that the run has followed.
        limits: As those of its engine.
        codec: As that of its engine.

    Raises:
        DurableError: The code asks for something else than the history holds.
        ExportFormatError: The file is no history.
    """
    if not isinstance(history, WorkflowHistory):
        history = _read(history)
    registry = register(definitions, transactions=True)
    in_force = collect_limits([*registry.definitions.all(), *registry.steps.values()], limits)
    told: list[RunHistory] = []
    setup = Setup(registry, Codec(codec), str, in_force, told=told.append)
    replayer = Replayer(
        workflows=[RunWorkflow, LimitWorkflow, TickWorkflow],
        workflow_runner=UnsandboxedWorkflowRunner(),
        interceptors=[SetupInterceptor(setup)],
    )
    result = await replayer.replay_workflow(history, raise_on_replay_failure=False)
    if result.replay_failure is not None or not told:
        msg = f"run {history.workflow_id!r} does not replay with this code: {result.replay_failure or 'it is not ours'}"
        raise DurableError(msg)
    return told[-1]


def _read(path: str | os.PathLike[str]) -> WorkflowHistory:
    with open(path, encoding="utf-8") as file:
        text = file.read()
    try:
        return WorkflowHistory.from_json(_NAMELESS, json.loads(text))
    except Exception as error:  # whatever the SDK makes of a file that is something else
        raise ExportFormatError(os.fspath(path), 1, f"it is no history of Temporal: {error}") from error
