"""
Batches: how many of their members have ended, and how.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from starlette.responses import Response

from durable._core.codec.codec import Codec
from durable._shell.handles.batch_info import BatchInfo, batch_info
from durable._shell.reads import batch_rows
from durable._shell.reads.run_rows import Filter, RunRow, list_runs
from durable.errors import BatchNotFoundError
from durable.web.call import Call
from durable.web.journal import at_one_moment

PAGE_LENGTH: Final = 50


async def listed(call: Call) -> Response:
    """Batches, newest first."""
    rows = await call.journal.read(batch_rows.list_batches, {}, None, call.number("after"), PAGE_LENGTH + 1)
    shown = [batch_info(row, call.journal.codec) for row in rows[:PAGE_LENGTH]]
    following = shown[-1].cursor if len(rows) > PAGE_LENGTH else None
    return call.answer("batches.html", batches=shown, following=following)


@at_one_moment
def read_batch(
    conn: sqlite3.Connection, batch_id: str, now: float, codec: Codec
) -> tuple[BatchInfo, str | None, list[RunRow]]:
    """A batch, what it waits for, and its latest members."""
    row = batch_rows.batch_by_id(conn, batch_id)
    if row is None:
        raise BatchNotFoundError("id", batch_id)
    waits = None if row.finished_at is not None else batch_rows.why_unfinished(conn, batch_id, now)
    return batch_info(row, codec), waits, list_runs(conn, Filter(batch=batch_id), None, PAGE_LENGTH)


async def one(call: Call) -> Response:
    """One batch, with its latest members."""
    info, waits, members = await call.journal.read(read_batch, call.asked("id"), call.now, call.journal.codec)
    return call.answer("batch.html", batch=info, waits=waits, members=members)
