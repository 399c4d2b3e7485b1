"""
Events as columns of a table: (kind, position, body, value).

*body* is a short JSON list of the fixed fields, *value* the user's payload, kept apart so that
large ones can live elsewhere. What was written by an older release is read by every newer one.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, TypeAlias

from attrs import fields as attrs_fields

from durable._core.codec_json import dumps, loads
from durable._core.events import EVENT_CLASSES, KIND_NAMES, Event, Payload
from durable.errors import DecodeError

#: (kind, position, body, value): an event without its run, sequence and time.
EventRow: TypeAlias = tuple[int, str | None, str | None, Payload | None]


class _Layout:
    """How one event class maps to columns; made once a class."""

    __slots__ = ("cls", "has_position", "has_value", "size", "write")

    def __init__(self, cls: type[Any]) -> None:
        names = [attribute.name for attribute in attrs_fields(cls)]
        self.cls = cls
        self.has_position = "position" in names
        self.has_value = "value" in names
        body = [name for name in names if name not in ("position", "value", "at")]
        self.size = len(body)
        self.write = _writer(cls.kind, body, has_position=self.has_position, has_value=self.has_value)


def _writer(kind: int, body: list[str], *, has_position: bool, has_value: bool) -> Callable[[Any], EventRow]:
    """What `to_row` does for one class; the two sorts that every step records are made without a question asked."""
    read: Callable[[Any], Any] = attrgetter(*body) if body else lambda _: None
    if has_position and not has_value and len(body) > 1:
        return lambda event: (kind, event.position, dumps(read(event)), None)
    if has_position and has_value and not body:
        return lambda event: (kind, event.position, None, event.value)

    def write(event: Any) -> EventRow:
        found = read(event)
        return (
            kind,
            event.position if has_position else None,
            None if not body else dumps(found if len(body) > 1 else (found,)),
            event.value if has_value else None,
        )

    return write


_LAYOUTS: dict[int, _Layout] = {kind: _Layout(cls) for kind, cls in EVENT_CLASSES.items()}


def to_row(event: Event) -> EventRow:
    """The columns of *event*; its time is `event.at`."""
    return _LAYOUTS[event.kind].write(event)


def from_row(kind: int, position: str | None, body: str | None, value: Payload | None, at: float) -> Event:
    """
    The event that `to_row` was given.

    Raises:
        DecodeError: If the columns fit no event of this release.
    """
    layout = _LAYOUTS.get(kind)
    if layout is None:
        raise DecodeError("event", "kind", "an event kind of this release", f"found {kind}: written by a newer one?")
    arguments: Any = () if body is None else loads(body)
    if len(arguments) != layout.size:
        raise DecodeError("event", KIND_NAMES[kind], f"{layout.size} fields", f"found {len(arguments)}")
    event: Event
    if layout.has_position:
        event = (
            layout.cls(position, *arguments, value, at) if layout.has_value else layout.cls(position, *arguments, at)
        )
    else:
        event = layout.cls(*arguments, value, at) if layout.has_value else layout.cls(*arguments, at)
    return event
