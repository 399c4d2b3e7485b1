"""
Events as columns of a table: (kind, position, body, value).

*body* is a short JSON list of the fixed fields, *value* the user's payload, kept apart so that
large ones can live elsewhere. What was written by an older release is read by every newer one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final, TypeAlias

from attrs import fields as attrs_fields

from durable._core.codec.codec import Payload
from durable._core.codec.json_text import dumps, loads, quote
from durable._core.journal.events import EVENT_CLASSES, KIND_NAMES, Event, StepStarted
from durable.errors import DecodeError


class _Layout:
    """How one event class maps to columns; made once a class."""

    __slots__ = ("body", "cls", "has_position", "has_value", "late", "newer", "nothing", "plain", "read", "size")

    def __init__(self, cls: type[Any]) -> None:
        names = [attribute.name for attribute in attrs_fields(cls)]
        self.cls = cls
        self.has_position = "position" in names
        self.has_value = "value" in names
        self.body = [name for name in names if name not in ("position", "value", "at")]
        self.size = len(self.body)
        #: Whether it says nothing but what happened at a position, and with which payload.
        self.plain = names == ["position", "value", "at"]
        #: Those that stand behind the time.
        self.late = len(names) - names.index("at") - 1
        #: Makers of the fields that older releases did not write: the last ones, left out where they say nothing.
        self.newer: list[Callable[[], Any]] = [
            attribute.default.factory
            for attribute in attrs_fields(cls)
            if attribute.name in self.body and hasattr(attribute.default, "factory")
        ]
        #: What these make, from the last on: to compare with.
        self.nothing = [make() for make in reversed(self.newer)]
        self.read = attrgetter(*self.body) if self.body else None

    def silent(self, values: Sequence[Any]) -> int:
        """How many of the last *values* are what a reader takes for them where they are missing."""
        count = 0
        for nothing in self.nothing:
            if values[-1 - count] != nothing:
                break
            count += 1
        return count


class _Layouts(dict[int, _Layout]):
    """Those of the kinds of events, each made when it is first asked for: few programs see them all."""

    def __missing__(self, kind: int) -> _Layout:
        self[kind] = layout = _Layout(EVENT_CLASSES[kind])
        if layout.plain:
            _PLAIN[kind] = layout.cls
        return layout


#: The classes of events that are `plain`, by their kinds, as far as those were met.
_PLAIN: Final[dict[int, Callable[[str | None, Payload | None, float], Event]]] = {}
_LAYOUTS: Final = _Layouts()
_STEP_STARTED: Final = StepStarted.kind


#: (kind, position, body, value): an event without its run, sequence and time.
EventRow: TypeAlias = tuple[int, str | None, str | None, Payload | None]


def to_row(event: Event) -> EventRow:
    """The columns of *event*; its time is `event.at`."""
    if type(event) is StepStarted:  # half of all events, and a program has few steps
        called = _step_called(event.name, event.attempt, event.site)
        return _STEP_STARTED, event.position, f"{called},{quote(event.digest)}]", None
    kind = event.kind
    layout = _LAYOUTS[kind]
    if layout.read is None:  # nearly all others
        return kind, event.position, None, event.value
    found = layout.read(event) if layout.size > 1 else (layout.read(event),)
    if layout.newer:
        found = found[: layout.size - layout.silent(found)]
    return kind, event.position, dumps(found) if found else None, event.value


@lru_cache(maxsize=4096)
def _step_called(name: str, attempt: int, site: str) -> str:
    """The body of a `StepStarted`, but for its digest and the end of the list."""
    return dumps((name, attempt, site))[:-1]


@lru_cache(maxsize=4096)
def _read_step_called(text: str) -> tuple[str, int, str]:
    """What `_step_called` was given. Raises as `from_row`."""
    found = loads(f"{text}]")
    if len(found) != 3:  # noqa: PLR2004 - name, attempt and site
        raise _other_size(StepStarted.kind, 4, len(found) + 1)
    name, attempt, site = found
    return name, attempt, site


def fields_of(event: Event) -> dict[str, Any]:
    """
    The fixed fields of *event* by name: all but its position, value and time.

    What older releases did not write stands there only if it says something: their exports stay as they were.
    """
    layout = _LAYOUTS[event.kind]
    values = [getattr(event, name) for name in layout.body]
    return dict(zip(layout.body[: layout.size - layout.silent(values)], values, strict=False))


def from_row(kind: int, position: str | None, body: str | None, value: Payload | None, at: float) -> Event:
    """
    The event that `to_row` was given.

    Raises:
        DecodeError: If the columns fit no event of this release.
    """
    if body is None:
        plain = _PLAIN.get(kind)
        if plain is not None:  # nearly all others than the next
            return plain(position, value, at)
    elif kind == _STEP_STARTED and position is not None:  # half of all events, as in `to_row`
        if body.endswith(',""]'):
            name, attempt, site = _read_step_called(body[:-4])
            return StepStarted(position, name, attempt, site, "", at)
        called, _, digest = body[:-2].rpartition(',"')
        if digest.isalnum() and body.endswith('"]'):
            name, attempt, site = _read_step_called(called)
            return StepStarted(position, name, attempt, site, digest, at)
    layout = _LAYOUTS.get(kind)
    if layout is None:
        if kind not in EVENT_CLASSES:
            found = f"found {kind}: written by a newer one?"
            raise DecodeError("event", "kind", "an event kind of this release", found)
        layout = _LAYOUTS[kind]
    arguments: list[Any] = [] if body is None else loads(body)
    if len(arguments) != layout.size:
        arguments += _newer_fields(layout, kind, len(arguments))
    late: list[Any] = []
    if layout.late:
        arguments, late = arguments[: -layout.late], arguments[-layout.late :]
    cls: Callable[..., Event] = layout.cls
    if not layout.has_position:
        return cls(*arguments, value, at, *late) if layout.has_value else cls(*arguments, at, *late)
    return cls(position, *arguments, value, at, *late) if layout.has_value else cls(position, *arguments, at, *late)


def _newer_fields(layout: _Layout, kind: int, found: int) -> list[Any]:
    """What an older release did not write, of an event with *found* fields."""
    missing = layout.size - found
    if not 0 < missing <= len(layout.newer):
        raise _other_size(kind, layout.size, found)
    return [make() for make in layout.newer[-missing:]]


def _other_size(kind: int, size: int, found: int) -> DecodeError:
    return DecodeError("event", KIND_NAMES[kind], f"{size} fields", f"found {found}")
