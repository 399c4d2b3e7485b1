"""
Queues and limits: who waits, who is inside.
"""

from __future__ import annotations

from starlette.responses import Response

from durable.web.call import Call, RefusedError


async def listed(call: Call) -> Response:
    """Both tables."""
    queues, limits = await call.source.queues()
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
