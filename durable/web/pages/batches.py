"""
Batches: how many of their members have ended, and how.
"""

from __future__ import annotations

from starlette.responses import Response

from durable.web.call import Call


async def listed(call: Call) -> Response:
    """Batches, newest first."""
    found = await call.source.batches(call.number("after"))
    return call.answer("batches.html", batches=found.batches, following=found.following)


async def one(call: Call) -> Response:
    """One batch, with its latest members."""
    found = await call.source.batch(call.asked("id"), call.now)
    return call.answer("batch.html", batch=found.info, waits=found.waits, members=found.members)
