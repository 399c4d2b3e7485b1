"""
Schedules: when they tick next, what they started last, and what holds them up.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from starlette.responses import Response

from durable._shell.handles.schedule_handle import ScheduleHandle
from durable.web.call import Call, RefusedError

CHANGES: Final[Mapping[str, Callable[[ScheduleHandle], Awaitable[Any]]]] = {
    "pause": lambda schedule: schedule.pause(),
    "resume": lambda schedule: schedule.resume(),
    "trigger": lambda schedule: schedule.trigger(),
}


async def listed(call: Call) -> Response:
    """All schedules."""
    return call.answer("schedules.html", schedules=await call.source.schedules())


async def change(call: Call) -> Response:
    """Pause, resume or trigger one."""
    form = await call.form()
    name, what = form.get("name", ""), form.get("change", "")
    if what not in CHANGES:
        raise RefusedError(400, f"{what!r:.40} cannot be done to a schedule: {', '.join(CHANGES)} can")
    async with call.journal.handle() as handle:
        await CHANGES[what](handle.schedule(name))
    return call.go_to("schedules")
