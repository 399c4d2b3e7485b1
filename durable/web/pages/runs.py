"""
The list of runs: filtered by its address, paged by cursor; and what is done to many runs at once.
"""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from starlette.responses import Response

from durable._cli.journals.filters import moment
from durable._cli.terminal.arguments import label_argument
from durable._core.statuses import ENDS, OPEN
from durable._shell.handles.handle import Run
from durable._shell.reads.run_rows import Filter, list_runs
from durable.errors import DurableError
from durable.web.call import Call, RefusedError
from durable.web.source import FILTERS, Source

#: Runs that are changed at once, at most: a request is answered in seconds.
MOST_AT_ONCE: Final = 1_000
_GROUPS: Final[Mapping[str, tuple[str, ...]]] = {"open": tuple(OPEN), "ended": tuple(ENDS)}

#: What can be done to many runs at once, and to which of them.
BULK: Final[Mapping[str, Callable[[Run[Any]], Awaitable[object]]]] = {
    "cancel": lambda run: run.cancel("from the dashboard"),
    "pause": lambda run: run.pause(),
    "resume": lambda run: run.resume(),
    "retry": lambda run: run.retry(),
}


def filter_of(query: Mapping[str, str], source: Source, now: float) -> Filter:
    """
    What the address asks for.

    Raises:
        RefusedError: A part of it is not what it should be.
    """
    status = query.get("status", "")
    if status and status not in source.statuses:
        raise RefusedError(400, f"{status!r:.40} is not a status: there are {', '.join(source.statuses)}")
    if unknown := [name for name in FILTERS if query.get(name) and name not in source.filters]:
        raise RefusedError(400, f"runs of {source.name} cannot be chosen by {unknown[0]}")
    try:
        labels = dict([label_argument(query["label"])]) if query.get("label") else None
        since, until = (moment(query[name]).before(now) if query.get(name) else None for name in ("since", "until"))
    except ArgumentTypeError as error:
        raise RefusedError(400, str(error)) from error
    return Filter(
        workflow=query.get("workflow") or None,
        status=_GROUPS.get(status, (status,)) if status else None,
        labels=labels,
        queue=query.get("queue") or None,
        parent=query.get("parent") or None,
        batch=query.get("batch") or None,
        since=since,
        until=until,
        waiting_for=query.get("waiting_for") or None,
        text=query.get("text") or None,
    )


async def listed(call: Call) -> Response:
    """The list."""
    wanted = filter_of(call.query, call.source, call.now)
    found = await call.source.runs(wanted, call.number("after"), call.now)
    given = {name: call.query[name] for name in FILTERS if call.query.get(name)}
    return call.answer(
        "runs.html", page=found, filters=given, statuses=call.source.statuses, bulk=tuple(BULK),
        most=MOST_AT_ONCE,
    )  # fmt: skip


async def change(call: Call) -> Response:
    """
    Cancel, pause, resume or retry all runs that fit: first a page that names how many, then it is done.
    """
    form = await call.form()
    what = form.get("change", "")
    if what not in BULK:
        raise RefusedError(400, f"{what!r:.40} cannot be done to many runs: {', '.join(BULK)} can")
    given = {name: form[name] for name in FILTERS if form.get(name)}
    if not given:
        raise RefusedError(400, "choose runs by a filter first: all of a journal are not changed at once")
    wanted = filter_of(given, call.source, call.now)
    rows = await call.journal.read(list_runs, wanted, None, MOST_AT_ONCE + 1)
    if form.get("sure") != "yes":
        count = len(rows)
        return call.answer("sure.html", what=what, filters=given, count=min(count, MOST_AT_ONCE), rows=rows[:20],
                           more=count > MOST_AT_ONCE)  # fmt: skip
    done, refused = 0, dict[str, str]()
    async with call.journal.handle() as handle:
        for row in rows[:MOST_AT_ONCE]:
            try:
                done += bool(await BULK[what](handle.get(row.run_id)))
            except DurableError as error:
                refused[row.run_id] = str(error)
    return call.answer("done.html", what=what, filters=given, done=done, refused=refused, count=len(rows))
