"""
Whether an answer is of the type that its workflow made the callback with: looked up before it is recorded.

Only the workflow's own code knows that type. A freed run is not in memory, so it is replayed, as it will be for the
answer anyway: once for all of its callbacks that are open, since who answers a hundred does so one after the other, or
at once.
What cannot be found out (the run has ended, its code is missing) is for others to tell.
"""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Final

from durable._core.codec.codec import Payload
from durable._core.journal.columns import from_row
from durable._core.journal.events import CallbackOpened
from durable._core.program.tokens import Place, make_token, read_token
from durable._core.run.callbacks import read_answer
from durable._core.run.execution import Execution
from durable._shell.reads.ready_rows import read_ready
from durable._shell.rows.rows import ReadyRun
from durable._shell.turns.executions import replayed
from durable._shell.turns.services import AnswerType, Services
from durable.errors import DurableError, TokenMalformedError

#: Types that are kept, of the runs that were answered last: a few MiB.
_MOST_TYPES: Final = 10_000
_OPENED: Final = """
SELECT r.run, e.kind, e.position, e.body, NULL, e.at FROM durable_runs AS r
JOIN durable_waits AS w ON w.run = r.run AND w.position = ? AND w.kind = 'callback'
JOIN durable_events AS e ON e.run = r.run AND e.position = w.position AND e.kind = ?
WHERE r.run_id = ? ORDER BY e.seq DESC LIMIT 1
"""


async def check_answer(token: str, payload: Payload, services: Services) -> None:
    """
    Raises nothing if *payload* is what the callback of *token* waits for, or if that cannot be known.

    Raises:
        CallbackValueError: It is of another type.
    """
    try:
        place = read_token(token)
    except TokenMalformedError:
        return
    if token not in services.answer_types:
        async with services.answer_locks.setdefault(place.run_id, asyncio.Lock()):
            if token not in services.answer_types:  # who was before it has not learned it, too
                await _replay(place, services)
    known = services.answer_types.get(token)
    if known is not None:
        read_answer(known.opened, place.position, known.type, payload, services.codec)
        del services.answer_types[token]  # it is answered; where the answer is refused, it may come again


async def _replay(place: Place, services: Services) -> None:
    """Learn the types of what a run waits for, if one of its callbacks at *place* is open and has one."""

    def look(conn: sqlite3.Connection) -> ReadyRun | None:
        return _typed(conn, place)

    ready = await services.read(place.run_id, look)
    if ready is None:
        return
    try:
        execution = await replayed(ready, services, lambda fn: services.read(place.run_id, fn))
    except DurableError:  # it is blocked, or will be
        return
    nodes = execution.callbacks.values() if isinstance(execution, Execution) else ()
    for node in nodes:
        if node.answer is None and node.opened.type:
            token = make_token(place.run_id, node.position, node.opened.nonce)
            services.answer_types[token] = AnswerType(node.opened, node.type)
    execution.close()
    while len(services.answer_types) > _MOST_TYPES:
        del services.answer_types[next(iter(services.answer_types))]


def _typed(conn: sqlite3.Connection, place: Place) -> ReadyRun | None:
    """The run of an open callback that wants a type."""
    row = conn.execute(_OPENED, (place.position, CallbackOpened.kind, place.run_id)).fetchone()
    if row is None:
        return None
    opened = from_row(*row[1:])
    return read_ready(conn, row[0]) if isinstance(opened, CallbackOpened) and opened.type else None
