"""
One run: what became of it and why, over time, as a graph, event by event; and what can be done about it.
"""

from __future__ import annotations

import json
import sqlite3
from argparse import ArgumentTypeError
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

import anyio.to_thread
from starlette.responses import Response

from durable._cli.commands.look.show import Page, causes_of
from durable._cli.drawing.model import nodes_of
from durable._cli.drawing.svg import svg_lines
from durable._cli.journals.step_lines import StepLine, steps_in
from durable._cli.terminal.arguments import json_argument
from durable._cli.terminal.values import bounded, call_lines, failure_lines, plain, value_lines
from durable._core.codec.codec import Codec
from durable._core.journal.columns import fields_of
from durable._core.journal.events import (
    KIND_NAMES,
    Event,
    RunCancelled,
    RunFailed,
    RunSucceeded,
)
from durable._core.program.ops import Signal
from durable._core.recorded.memos import Used, used_by
from durable._shell.handles.handle import Run
from durable._shell.reads.run_rows import RunRow, WaitRow, require_run
from durable._shell.reads.stream_rows import ItemRow, latest_items
from durable.web.call import Call, RefusedError
from durable.web.journal import at_one_moment
from durable.web.source import Recorded, Source, text_of
from durable.web.timeline import LEGEND, Bar, axis, lines_of, span_of

#: Lines of a timeline, events of a history and steps of a summary on one page.
PAGE_LENGTH: Final = 200
STEPS: Final = 60
#: Memos that are shown: the last.
MEMOS: Final = 60
#: Commands whose failure ended a run, that are shown.
CAUSES: Final = 5
#: Items of a stream that are shown: the last.
ITEMS: Final = 500
#: Children whose own lines are shown at once.
MOST_CHILDREN: Final = 20
#: Events up to which a run is drawn as a graph: more are folded into nothing that helps.
MOST_DRAWN: Final = 3_000

#: What a button does to one run.
CHANGES: Final[Mapping[str, Callable[[Run[Any]], Awaitable[object]]]] = {
    "cancel": lambda run: run.cancel("from the dashboard"),
    "pause": lambda run: run.pause(),
    "resume": lambda run: run.resume(),
    "retry": lambda run: run.retry(),
    "retry anyway": lambda run: run.retry(force=True),
}


async def summary(call: Call) -> Response:
    """Status, why it waits, input, result or error, attributes, steps, signals, children; and the buttons."""
    source = call.source
    page, waits, elsewhere = await source.run(call.asked("id"), call.now)
    steps, codec = steps_in(page.events), source.codec
    return call.answer(
        "run.html", tab="", page=page, row=page.row, waits=waits, elsewhere=elsewhere, steps=steps[-STEPS:],
        hidden=max(0, len(steps) - STEPS), input=_input(page, codec), **_outcome(page, steps, codec),
        attributes=_value(page.row.attributes, codec), changes=_changes(page), value_of=partial(_value, codec=codec),
        text_of=partial(text_of, codec=codec), memos=_memos(page, codec), signals=_awaited(waits, source),
        debuggable=source.definitions is not None,
    )  # fmt: skip


async def timeline(call: Call) -> Response:
    """The run over time."""
    now = call.now
    opened = [each for each in call.query.get("open", "").split(" ") if each][:MOST_CHILDREN]
    found = await call.source.events(call.asked("id"), opened)
    # In a thread: of ten thousand events it takes longer than a loop should be held.
    lines = await anyio.to_thread.run_sync(lines_of, found.events, found.children)
    began, ended = span_of(lines, _began(found), now)
    begin, end = _zoomed(call.query, began, ended)
    first = min(call.number("first", 0) or 0, max(0, len(lines) - 1))
    scale = _Scale(begin, end, now)
    shown = [(line, [scale.place(bar) for bar in line.bars]) for line in lines[first : first + PAGE_LENGTH]]
    return call.answer(
        "timeline.html", tab="timeline", row=found.row, lines=shown,
        marks=axis(begin, end, began), began=began, begin=begin, end=end, whole=(began, ended), problem=found.problem,
        first=first, total=len(lines), page_length=PAGE_LENGTH, opened=opened, toggled=_toggle(opened),
        legend=LEGEND,
    )  # fmt: skip


async def graph(call: Call) -> Response:
    """The run as a drawing, made where all drawings are."""
    found = await call.source.events(call.asked("id"))
    row, events, problem = found.row, found.events, found.problem
    if call.query.get("as") != "svg":
        return call.answer("graph.html", tab="graph", row=row, too_many=len(events) > MOST_DRAWN, problem=problem)
    if len(events) > MOST_DRAWN:
        raise RefusedError(409, f"{len(events):,} events are too many for a drawing: look at the timeline")
    drawing = "\n".join(svg_lines(nodes_of(events), f"{row.workflow} {row.run_id}"))
    # A picture of its own: it has its style inside, which its policy allows, and no script.
    policy = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
    return Response(drawing, media_type="image/svg+xml", headers=policy)


async def history(call: Call) -> Response:
    """Every event, page by page."""
    found, codec = await call.source.events(call.asked("id")), call.source.codec
    only_failures = call.query.get("only") == "failures"
    numbered = [
        (seq, event)
        for seq, event in enumerate(found.events, 1)
        if not only_failures or event.outcome in ("failed", "retrying", "interrupted")
    ]
    first = min(call.number("first", 0) or 0, max(0, len(numbered) - 1))
    shown = [
        (seq, KIND_NAMES[event.kind], event, _fields(event), _event_value(event, codec))
        for seq, event in numbered[first : first + PAGE_LENGTH]
    ]
    return call.answer(
        "history.html", tab="history", row=found.row, events=shown, first=first, total=len(numbered),
        problem=found.problem, page_length=PAGE_LENGTH, only_failures=only_failures, began=_began(found),
    )  # fmt: skip


async def stream(call: Call) -> Response:
    """The end of a stream, live: what a run emits, as it comes."""
    journal, run_id, name = call.journal, call.asked("id"), call.asked("name")
    row, items = await journal.read(read_stream, run_id, name)
    values = [plain(text_of(each.value, journal.codec)) for each in items]
    text = "".join(values).splitlines() if values and all(isinstance(each, str) for each in values) else []
    shown = [(item, value_lines(text_of(item.value, journal.codec))) for item in items]
    return call.answer("stream.html", tab="", row=row, name=name, items=shown, text=text, most=ITEMS)


@at_one_moment
def read_stream(conn: sqlite3.Connection, run_id: str, name: str) -> tuple[RunRow, list[ItemRow]]:
    """A run, and the last items of a stream of it."""
    return require_run(conn, run_id), latest_items(conn, run_id, name, ITEMS)


async def value(call: Call) -> Response:
    """A recorded value, whole, as a file."""
    seq = call.number("seq", 0) or 0
    events = (await call.source.events(call.asked("id"))).events
    if not 0 < seq <= len(events):
        raise RefusedError(404, f"there is no event {seq}")
    payload = text_of(events[seq - 1].value, call.source.codec)
    body = payload if isinstance(payload, bytes) else (payload or "null").encode()
    kind = "application/octet-stream" if isinstance(payload, bytes) else "application/json"
    return Response(body, media_type=kind, headers={"Content-Disposition": f'attachment; filename="value-{seq}.json"'})


async def export(call: Call) -> Response:
    """The run and what it started, as `durable export` writes them."""
    run_id = call.asked("id")
    body = await call.source.export(run_id, tree=call.query.get("tree") == "yes")
    name = "".join(each if each.isalnum() else "-" for each in run_id if each.isascii())[:60] or "run"
    headers = {"Content-Disposition": f'attachment; filename="{name}.jsonl"'}
    return Response(body, media_type="application/jsonl", headers=headers)


# --- what changes a run -----------------------------------------------------------------------------------------


async def change(call: Call) -> Response:
    """Cancel, pause, resume, retry."""
    form = await call.form()
    run_id, what = _given(form, "id"), form.get("change", "")
    if what not in CHANGES:
        raise RefusedError(400, f"{what!r:.40} cannot be done to a run: {', '.join(CHANGES)} can")
    async with call.journal.handle() as handle:
        await CHANGES[what](handle.get(run_id))
    return call.go_to("run", id=run_id)


async def signal(call: Call) -> Response:
    """Send a signal, of the type that the application declares for its name."""
    form = await call.form()
    run_id, name = _given(form, "id"), _given(form, "name")
    payload, type_ = _json(form.get("payload", "")), call.journal.signal_type(name)
    async with call.journal.handle() as handle:
        run = handle.get(run_id)
        if type_ is None:
            await run.signal(name, payload)
        else:
            codec = call.journal.codec
            await run.signal(Signal(name, type_), codec.from_plain(payload, type_, where=f"payload of {name!r}"))
    return call.go_to("run", id=run_id)


async def fork(call: Call) -> Response:
    """A copy that continues from a position, with another outcome there if one is given."""
    form = await call.form()
    run_id, at = _given(form, "id"), _given(form, "at")
    replace = {at: _json(form["value"])} if form.get("value", "").strip() else None
    async with call.journal.handle() as handle:
        forked = await handle.get(run_id).fork(at, replace)
    return call.go_to("run", id=forked.id)


async def resolve(call: Call) -> Response:
    """Say how a step has ended of which nobody knows."""
    form = await call.form()
    run_id, position = _given(form, "id"), _given(form, "position")
    async with call.journal.handle() as handle:
        run = handle.get(run_id)
        if form.get("error", "").strip():
            await run.resolve(position, error=form["error"], reason=form.get("reason", ""))
        else:
            await run.resolve(position, value=_json(form.get("value", "")), reason=form.get("reason", ""))
    return call.go_to("run", id=run_id)


# --- in words ---------------------------------------------------------------------------------------------------


def _given(form: Mapping[str, str], name: str) -> str:
    if not form.get(name):
        raise RefusedError(400, f"the form has no {name}")
    return form[name]


def _json(text: str) -> Any:
    if not text.strip():
        return None
    try:
        return json_argument(text)
    except ArgumentTypeError as error:
        raise RefusedError(400, str(error)) from error


def _began(found: Recorded) -> float:
    return found.events[0].at if found.events else found.row.created_at


def _value(payload: Any, codec: Codec) -> list[str]:
    return [] if payload is None else value_lines(text_of(payload, codec))


def _input(page: Page, codec: Codec) -> list[str]:
    started = page.started
    return [] if started is None else call_lines(page.row.workflow, text_of(started.value, codec))


def _memos(page: Page, codec: Codec) -> dict[str, Any]:
    """What steps have recorded by `memo`, each with what it used: the newest, and the sum of all that were read."""
    texts = [(memo, text_of(memo.value, codec)) for memo in page.memos]
    told = [(memo, text, used_by(text)) for memo, text in texts if text not in (None, "null")]
    counted = [used for *_, used in told if used is not None]
    total = str(sum(counted, Used())) if counted else ""
    return {"shown": told[-MEMOS:], "hidden": max(0, len(told) - MEMOS), "calls": len(counted), "total": total}


def _outcome(page: Page, steps: list[StepLine], codec: Codec) -> dict[str, Any]:
    """The result or error of a run that has ended; of an error, also where it came from."""
    end = page.end
    found: dict[str, Any] = {"result": [], "error": [], "causes": []}
    if isinstance(end, RunSucceeded):
        found["result"] = _value(end.value, codec) or ["null"]
    elif isinstance(end, RunFailed | RunCancelled) and end.value is not None:
        found["error"] = failure_lines(text_of(end.value, codec))
    if isinstance(end, RunFailed):
        names = {step.position: (step.name, step.site) for step in steps}
        causes = [
            (event.position, *names.get(event.position, ("", "")), failure_lines(text_of(event.value, codec)))
            for event in causes_of(end, page.events)[:CAUSES]
        ]
        # One cause that went through the workflow as it was: its traceback is the end of the run's.
        same = len(causes) == 1 and causes[0][3][-1:] == found["error"][-1:]
        found["causes"] = [(*cause[:3], []) for cause in causes] if same else causes
    return found


def _event_value(event: Event, codec: Codec) -> list[str]:
    if event.value is None:
        return []
    text = text_of(event.value, codec)
    if event.outcome in ("failed", "retrying") or isinstance(event, RunFailed):
        return bounded(failure_lines(text), full=False)
    return value_lines(text)


def _fields(event: Event) -> str:
    told = {name: each for name, each in fields_of(event).items() if each not in (None, "", (), [])}
    return ", ".join(f"{name}={json.dumps(each, default=str, ensure_ascii=False)}" for name, each in told.items())


def _changes(page: Page) -> list[str]:
    """The buttons that mean something for a run as it stands."""
    match page.row.status:
        case "pending" | "running" | "waiting":
            return ["pause", "cancel"]
        case "paused" | "blocked":
            return ["resume", "cancel"]
        case "failed":
            return ["retry"]
        case _:
            return []


def _awaited(waits: list[WaitRow], source: Source) -> list[tuple[str, str]]:
    """Names of the signals that it waits for, each with what it is to carry."""
    names = dict.fromkeys(wait.name for wait in waits if wait.kind == "signal" and wait.name)
    types = [(name, source.signal_type(name)) for name in names]
    return [(name, "" if type_ is None else getattr(type_, "__name__", str(type_))) for name, type_ in types]


class _Scale:
    """Where a moment stands between the beginning and the end of what is shown."""

    def __init__(self, begin: float, end: float, now: float) -> None:
        self._begin, self._length, self._now = begin, max(end - begin, 1e-9), now

    def place(self, bar: Bar) -> dict[str, Any]:
        """Left edge and width of a bar in percent, at least as wide as can be seen; and what it is."""
        end = self._now if bar.end is None else bar.end
        left = (bar.start - self._begin) / self._length * 100
        right = (end - self._begin) / self._length * 100
        shown = right >= 0 and left <= 100  # noqa: PLR2004 - percent
        left, right = max(0.0, left), min(100.0, right)
        width = max(0.35, right - left)
        return {"bar": bar, "x": f"{min(left, 99.65):.3f}", "width": f"{width:.3f}", "shown": shown,
                "seconds": end - bar.start}  # fmt: skip


def _zoomed(query: Mapping[str, str], began: float, ended: float) -> tuple[float, float]:
    """The stretch that the address asks for, as two shares of the whole: ``zoom=0.25-0.5``."""
    length = ended - began
    try:
        low, high = (float(each) for each in query.get("zoom", "").split("-"))
    except ValueError:
        return began, ended
    if not 0 <= low < high <= 1:
        return began, ended
    return began + low * length, began + high * length


def _toggle(opened: list[str]) -> Callable[[str], str]:
    """What ``open=`` is once a child was opened, or closed again."""
    return lambda run_id: " ".join(
        [each for each in opened if each != run_id] if run_id in opened else [*opened, run_id]
    )
