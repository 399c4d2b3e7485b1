"""
Queues and limits: who waits, who is inside.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from starlette.responses import Response

from durable._shell.reads.run_rows import LimitRow, limit_rows
from durable._shell.reports.census import QueueLine, queue_lines
from durable.web.call import Call, RefusedError
from durable.web.journal import at_one_moment

#: Limits (of a key each) that are shown: those at which most wait.
MOST_LIMITS: Final = 200


@at_one_moment
def read_queues(conn: sqlite3.Connection) -> tuple[list[QueueLine], list[LimitRow]]:
    """Queues with something to do, or paused; and limits at which somebody is."""
    return queue_lines(conn), limit_rows(conn, MOST_LIMITS)


async def listed(call: Call) -> Response:
    """Both tables."""
    queues, limits = await call.journal.read(read_queues)
    return call.answer("queues.html", queues=queues, limits=limits)


async def change(call: Call) -> Response:
    """Pause or resume a queue."""
    form = await call.form()
    name, what = form.get("name", ""), form.get("change", "")
    if what not in ("pause", "resume") or not name:
        raise RefusedError(400, f"{what!r:.40} cannot be done to a queue: pause and resume can")
    async with call.journal.handle() as handle:
        queue = handle.queue(name)
        await (queue.pause() if what == "pause" else queue.resume())
    return call.go_to("queues")
