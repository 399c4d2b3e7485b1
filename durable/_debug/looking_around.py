"""
What the debugger says of stops, events, outcomes and locals: values in, words out.
"""

from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING, Any, assert_never

from durable._core.codec.codec import Payload
from durable._core.journal.columns import fields_of
from durable._core.journal.events import CommandEvent, Event, GroupOpened
from durable._core.journal.payloads import failure_in
from durable._core.recorded.memos import RecordedMemo, used_by
from durable._debug.expressions import short
from durable._debug.replay import end_in_words
from durable._debug.reports import report_lines
from durable.errors import DurableError

if TYPE_CHECKING:
    from durable._core.codec.codec import Codec
    from durable._debug.stepped_replay import Place, Stop

#: Characters of a recorded value in one line.
_VALUE = 120


def locals_in(place: Place | None) -> dict[str, str]:
    """Local variables as text; those of the language's own are left out."""
    if place is None:
        return {}
    return {name: short(value) for name, value in place.frame.f_locals.items() if not name.startswith(("__", "."))}


def with_outcome(event: CommandEvent, outcome: Event | None, codec: Codec, still_open: frozenset[str]) -> str:
    """A command and what came of it: "3  step 'charge' -> 7"."""
    what = f"{event.position:<6} {event.describe()}"
    if outcome is None:
        if event.position in still_open:
            return f"{what}: still open"
        return what if isinstance(event, GroupOpened) else f"{what}: nothing recorded of it"
    return f"{what}{_came_of(outcome, codec)}"


def _came_of(outcome: Event, codec: Codec) -> str:
    match outcome.outcome:
        case "succeeded" | "received":
            return f" -> {_payload(outcome.value)}"
        case "failed":
            return f" raised {_failure(outcome.value, codec)}"
        case "retrying":
            return f" failed, and is to be tried again: {_failure(outcome.value, codec)}"
        case "fired":
            return ": fired"
        case "snoozed" | "interrupted" | "cancelling" | "cancelled" | "continued" | "over" | None:
            return f": {type(outcome).__name__}"
        case _:
            assert_never(outcome.outcome)


def _failure(payload: Payload | None, codec: Codec) -> str:
    from durable._core.codec.exceptions.failures import describe  # noqa: PLC0415 - only where something failed

    try:
        return describe(failure_in(payload, codec))
    except DurableError:
        return "an error that cannot be read"


def _payload(value: Payload | None) -> str:
    if isinstance(value, bytes):
        return f"<{len(value)} bytes, encoded by the application's codec>"
    text = "null" if value is None else value
    return text if len(text) <= _VALUE else f"{text[: _VALUE - 3]}..."


def event_in_words(event: Event) -> str:
    """An event with its fields, in one line."""
    fields: dict[str, Any] = {"position": event.position, **fields_of(event)}
    told_fields = ", ".join(
        f"{name}={_instant(value) if name == 'fire_at' else repr(value)}"
        for name, value in fields.items()
        if value not in (None, "")
    )
    payload = "" if event.value is None else f" {_payload(event.value)}"
    return f"{type(event).__name__}({told_fields}){payload}"


def event_lines(event: Event, since: float, codec: Codec) -> list[str]:
    """An event, how long after *since* it was, and of a failure the recorded traceback."""
    lines = [f"+{event.at - since:.3f} s  {event_in_words(event)}"]
    if event.outcome in ("failed", "retrying"):
        lines[0] = f"+{event.at - since:.3f} s  {type(event).__name__}: {_failure(event.value, codec)}"
        with contextlib.suppress(DurableError):
            lines += [f"    {line}" for line in failure_in(event.value, codec).traceback.splitlines()]
    return lines


def how_it_ended(stop: Stop) -> str:
    """How the strand that stopped ended, in one line."""
    return end_in_words(stop) if stop.kind != "command" else "it waits"


def end_lines(stop: Stop) -> list[str]:
    """How the strand that stopped ended; a divergence with its whole report."""
    if stop.kind in ("diverged", "stuck") and isinstance(stop.error, DurableError):
        return [stop.kind, *report_lines(stop.error)]
    return [end_in_words(stop)]


def memo_lines(memo: RecordedMemo, codec: Codec, *, whole: bool) -> list[str]:
    """What a step has recorded by `memo`: where, what it used, what it came to."""
    text = memo_text(memo, codec)
    used = used_by(text)
    return [f"{memo.position:<6} {memo.name}{f': {used}' if used else ''}", f"    {text if whole else _payload(text)}"]


def memo_text(memo: RecordedMemo, codec: Codec) -> str:
    """What a memo came to, as JSON; of one that cannot be read, its size."""
    if not isinstance(memo.value, bytes):
        return memo.value or "null"
    try:
        return json.dumps(codec.load_plain(memo.value), ensure_ascii=False)
    except DurableError:
        return _payload(memo.value)


def _instant(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
