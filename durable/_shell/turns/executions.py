"""
How the execution of a run is made: from its definition, and from what is recorded of it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Container, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

from durable._core.journal.events import Event, RunStarted
from durable._core.policies.limits import limit_name
from durable._core.policies.retry import from_record
from durable._core.program.functions import Job
from durable._core.run.divergence.comparing import EVERYWHERE, Comparing
from durable._core.run.execution import Execution
from durable._core.run.job_execution import JobExecution
from durable._shell.reads.event_rows import load_run
from durable._shell.rows.rows import ReadyRun, RunState, read_events, read_more_events
from durable._shell.turns.inbox import Read
from durable._shell.turns.outside_reads import OutsideReads
from durable._shell.turns.services import Services
from durable.errors import DurableError

#: Of so many commands of a replay are arguments compared with the recorded ones, and up to so much of them: a
#: comparison costs 2 us and 0.1 us a character, where the replay of a step takes 5 us. A run of 200 steps that is woken
#: for each of many signals is to wake as fast as without, within a tenth.
_COMPARED_COMMANDS = 50
_COMPARED_CHARACTERS = 10_000

#: Rows that are decoded and verified in one iteration of the event loop: two milliseconds.
READ_AT_ONCE = 500

#: What drives the code of a run: the two have one face.
AnyExecution: TypeAlias = Execution | JobExecution


def make_execution(ready: ReadyRun, events: Sequence[Event], services: Services) -> AnyExecution:
    """
    The execution of *ready*, of which *events* are recorded. They are not replayed yet.

    Raises:
        DurableError: The engine does not have its definition.
    """
    started = events[0]
    version = started.version if isinstance(started, RunStarted) else None
    definition = services.definitions.find(ready.workflow, version)
    if definition is None:
        msg = (
            f"no {ready.kind} called {ready.workflow!r} is among the definitions given to Engine; "
            "the run resumes when an engine with it opens the file"
        )
        raise DurableError(msg)
    retry = None if ready.retry is None else from_record(ready.retry)
    if isinstance(definition, Job):
        limit = definition.options.limit
        limited = limit is not None and services.limits[limit_name(limit)].on_conflict == "wait"
        return JobExecution(
            definition,
            events,
            run_id=ready.run_id,
            codec=services.codec,
            crash_limit=services.crash_limit,
            caps=services.caps,
            limited=limited,
            retry=retry,
            timeout=ready.timeout,
        )
    execution = Execution(
        definition,
        events,
        run_id=ready.run_id,
        codec=services.codec,
        crash_limit=services.crash_limit,
        cleanup_seconds=services.cleanup_seconds,
        caps=services.caps,
        retry=retry,
        token_key=services.token_key,
    )
    if services.replay_always:
        execution.comparing = Comparing(EVERYWHERE, strict=True)
        execution.around = OutsideReads(ready.run_id)
    elif len(events) > 1:
        execution.comparing = Comparing(_some_of(execution.history.commands), budget=_COMPARED_CHARACTERS)
    return execution


def _some_of(commands: Mapping[str, object]) -> Container[str]:
    """The commands whose arguments are compared: other ones in every replay, if there are too many for all."""
    if len(commands) <= _COMPARED_COMMANDS:
        return EVERYWHERE
    return frozenset(random.sample(list(commands), _COMPARED_COMMANDS))


async def read_in_slices(path: str, state: RunState, rows: Sequence[Sequence[Any]]) -> list[Event]:
    """As `read_events`, so many in one iteration of the event loop."""
    if len(rows) <= READ_AT_ONCE:
        return read_events(path, state, rows)
    events: list[Event] = []
    seq = chain = 0
    for at in range(0, len(rows), READ_AT_ONCE):
        seq, chain = read_more_events(path, state.run_id, rows[at : at + READ_AT_ONCE], seq, chain, events)
        await asyncio.sleep(0)
    state.seq, state.chain = seq, chain
    return events


async def replayed(ready: ReadyRun, services: Services, read: Read, unrecorded: Sequence[Event] = ()) -> AnyExecution:
    """
    Another execution of *ready*, made of the journal alone, and of *unrecorded* events.

    Raises:
        NondeterminismError: The code asks for something else than it did.
    """
    state = RunState(ready.run, ready.run_id, ready.workflow, ready.queue)
    rows = (await read(partial(load_run, run=ready.run))).rows
    execution = make_execution(ready, [*read_events(services.path, state, rows), *unrecorded], services)
    try:
        execution.load()
    except DurableError:
        execution.close()
        raise
    return execution
