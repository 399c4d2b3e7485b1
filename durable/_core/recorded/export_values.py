"""
What stands in the lines of an export, checked: objects, fields, values.

Each function takes data of unknown origin and gives what this release means by it, or raises `Wrong`
saying what was expected and what was found. Fields are checked by the annotations of the classes
that they are for; keys that those do not know are passed over.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable
from typing import Any, Final, NoReturn, TypeVar

from attrs import NOTHING, frozen
from attrs import fields as attrs_fields

from durable._core.codec.json_text import dumps, loads
from durable._core.codec.rule import TooDeep, check_depth
from durable._core.journal.events import EVENT_CLASSES, Event, Payload
from durable._core.program import retry
from durable._core.recorded.export_format import (
    FORMAT,
    JSON_FACTS,
    MAGIC,
    MAX_NESTING,
    ExportedFeed,
    ExportedWait,
    FeedItem,
    Header,
    Note,
    RunFacts,
)
from durable.errors import DurableError

T = TypeVar("T")

#: Longest line: more than any value that an engine records, unless its cap was raised thirty times.
MAX_LINE_BYTES: Final = 64 << 20
#: Containers around a value in its line.
_AROUND: Final = 4
#: Integers of SQLite have 64 bits.
_INT_BOUND: Final = 2**63
#: What a clock said, and Python can show as a date. Deadlines may be beyond.
_INSTANTS: Final = ("at", "created_at", "started_at", "ended_at", "since")
_LAST_INSTANT: Final = 253_370_764_800.0
_STATUSES: Final = ("pending", "running", "waiting", "paused", "blocked", "succeeded", "failed", "cancelled")
#: Half a character, as JSON can write it and UTF-8 cannot: SQLite would refuse it.
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")


class Wrong(Exception):  # noqa: N818 - becomes an ExportFormatError once the line is known
    """What is wrong with a line."""


def wrong(reason: str) -> NoReturn:
    """Refuse a line."""
    raise Wrong(reason)


def parse_line(line: bytes) -> dict[str, Any]:
    """The object that a line is."""
    if len(line) > MAX_LINE_BYTES:
        wrong(f"the line has more than {MAX_LINE_BYTES:,} bytes")
    try:
        text = line.decode().strip("\r\n")
    except UnicodeError:
        wrong("expected text in UTF-8 (is it a journal, or compressed?)")
    try:
        plain = loads(text)
        check_depth(plain, MAX_NESTING + _AROUND)
        if _SURROGATE.search(text):
            dumps(plain).encode()
    except UnicodeError:
        wrong("half a character: a surrogate without its other half")
    except (RecursionError, TooDeep):
        wrong(f"values nest deeper than {MAX_NESTING}")
    except ValueError as error:
        wrong(f"expected a JSON object, found {text[:40]!r}: {error}")
    return object_from(plain, "the line")


def header_from(plain: dict[str, Any]) -> Header:
    """The header in a line."""
    if plain.get("durable") != MAGIC:
        wrong(f'expected the header of an export, {{"durable": "{MAGIC}", ...}}')
    found = plain.get("format")
    if found != FORMAT or type(found) is not int:
        newer = "; a newer release of durable wrote it" if isinstance(found, int) and found > FORMAT else ""
        wrong(f"format: expected {FORMAT}, found {found!r:.40}{newer}")
    return build(Header, {"release": "", "schema": 0, "exported_at": "", **plain})


def facts_from(plain: dict[str, Any]) -> RunFacts:
    """The facts of a run."""
    fields = dict(plain)
    fields["attributes"] = payload_from(object_from(plain.get("attributes") or {}, "attributes"))
    fields["labels"] = plain.get("labels") or {}
    for name in JSON_FACTS:
        fields[name] = None if plain.get(name) is None else text_from(name, plain[name])
    facts = build(RunFacts, fields)
    if facts.status not in _STATUSES:
        wrong(f"status: expected one of {', '.join(_STATUSES)}; found {facts.status!r:.40}")
    if facts.sort not in ("workflow", "job"):
        wrong(f"sort: expected workflow or job, found {facts.sort!r:.40}")
    if not facts.run_id:
        wrong("run_id: expected an id, found ''")
    if facts.retry is not None:
        _check_retry(facts.retry)
    return facts


def _check_retry(text: str) -> None:
    try:
        retry.from_record(text)
    except (DurableError, TypeError, ValueError, LookupError, AttributeError) as error:
        wrong(f"retry: expected a retry policy: {error}")


def event_from(plain: dict[str, Any]) -> Event:
    """The event in a line: told by the name of its class."""
    name = plain.get("event")
    cls = _CLASSES.get(name) if isinstance(name, str) else None
    if cls is None:
        wrong(f"event: expected the name of an event of this release, found {name!r:.40}: written by a newer one?")
    given = object_from(plain.get("fields", {}), "fields")
    values: dict[str, Any] = {"at": plain.get("at"), "value": payload_from(plain), "position": plain.get("position")}
    arguments: list[Any] = []
    for part in _PARTS[cls]:
        if part.name in values:
            found = values[part.name]
            absent = found is None and part.kind != "payload"
        else:
            found, absent = given.get(part.name), part.name not in given
        if absent and part.default is not NOTHING and part.name != "at":
            arguments.append(part.default)
        elif absent:
            wrong(f"{name}.{part.name}: expected {part.kind}, and it is absent")
        else:
            arguments.append(_CHECKS[part.kind](f"{name}.{part.name}", found))
    event: Event = cls(*arguments)
    return event


def payload_from(plain: dict[str, Any]) -> Payload | None:
    """The recorded value in a line; None if there is none."""
    if "value" in plain:
        try:
            return dumps(plain["value"])
        except ValueError as error:  # 1e999
            wrong(f"value: {error}")
    if plain.get("text") is not None:
        text: str = checked("text", "str", plain["text"])
        return text
    if plain.get("bytes") is None:
        return None
    try:
        return base64.b64decode(checked("bytes", "str", plain["bytes"]), validate=True)
    except ValueError as error:
        wrong(f"bytes: expected base64: {error}")


def text_from(name: str, found: Any) -> str:
    """A fact that is JSON text in a journal."""
    if isinstance(found, dict) and list(found) == ["text"]:
        text: str = checked(name, "str", found["text"])
        return text
    try:
        return dumps(found)
    except ValueError as error:
        wrong(f"{name}: {error}")


def object_from(found: Any, what: str) -> dict[str, Any]:
    """*found*, which must be an object."""
    if not isinstance(found, dict):
        wrong(f"{what}: expected an object, found {_shown(found)}")
    return found


def build(cls: type[T], plain: dict[str, Any]) -> T:
    """An object of a class of `export_format`, from the keys that it knows."""
    arguments: dict[str, Any] = {}
    for part in _PARTS[cls]:
        if part.name in plain:
            arguments[part.name] = _CHECKS[part.kind](part.name, plain[part.name])
        elif part.default is NOTHING:
            wrong(f"{part.name}: expected {part.kind}, and it is absent")
    return cls(**arguments)


# --- values of fields ------------------------------------------------------------------------------------


def _shown(found: Any) -> str:
    return f"{found!r:.40}" if type(found) in (str, float, bool, type(None)) else type(found).__name__


def _refuse(name: str, expected: str, found: Any) -> NoReturn:
    wrong(f"{name}: expected {expected}, found {_shown(found)}")


def checked(name: str, kind: str, found: Any) -> Any:
    """*found*, which must be of *kind*, an annotation."""
    return _CHECKS[kind](name, found)


def _a_str(name: str, found: Any) -> str:
    return found if isinstance(found, str) else _refuse(name, "a string", found)


def _an_int(name: str, found: Any) -> int:
    if type(found) is not int:
        _refuse(name, "an integer", found)
    return found if 0 <= found + _INT_BOUND < 2 * _INT_BOUND else _refuse(name, "an integer of 64 bits", found)


def _a_float(name: str, found: Any) -> float:
    if type(found) not in (int, float):
        _refuse(name, "a number", found)
    try:
        number = float(found)
    except OverflowError:
        number = math.inf
    return number if math.isfinite(number) else _refuse(name, "a finite number", number)


def _an_instant(name: str, found: Any) -> float:
    at = _a_float(name, found)
    return at if abs(at) < _LAST_INSTANT else _refuse(name, "epoch seconds of a year before 9999", at)


def _a_bool(name: str, found: Any) -> bool:
    return found if isinstance(found, bool) else _refuse(name, "true or false", found)


def _strings(name: str, found: Any) -> list[str]:
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        _refuse(name, "a list of strings", found)
    return found


def _labels(name: str, found: Any) -> dict[str, str]:
    if not isinstance(found, dict) or not all(isinstance(each, str) for each in found.values()):
        _refuse(name, "an object of strings", found)
    return found


def _optional(check: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
    return lambda name, found: None if found is None else check(name, found)


def _as_is(_: str, found: Any) -> Any:
    return found


_CHECKS: Final[dict[str, Callable[[str, Any], Any]]] = {
    "str": _a_str,
    "int": _an_int,
    "float": _a_float,
    "instant": _an_instant,
    "bool": _a_bool,
    "list[str]": _strings,
    "labels": _labels,
    "payload": _as_is,
    "str | None": _optional(_a_str),
    "int | None": _optional(_an_int),
    "float | None": _optional(_a_float),
    "instant | None": _optional(_an_instant),
}
#: Annotations that have been checked or built on the way here.
_KINDS: Final = {
    "Payload | None": "payload",
    "Mapping[str, str]": "labels",
    "tuple[FeedItem, ...]": "payload",
}


@frozen
class _Part:
    """A field of a class: how it is checked, and what it is where it is absent."""

    name: str
    kind: str
    default: Any


def _parts(cls: type[Any]) -> tuple[_Part, ...]:
    parts: list[_Part] = []
    for attribute in attrs_fields(cls):
        kind = _KINDS.get(str(attribute.type), str(attribute.type))
        if attribute.name in _INSTANTS:
            kind = kind.replace("float", "instant")
        assert kind in _CHECKS, f"{cls.__name__}.{attribute.name}"
        parts.append(_Part(attribute.name, kind, attribute.default))
    return tuple(parts)


_CLASSES: Final[dict[str, type[Any]]] = {cls.__name__: cls for cls in EVENT_CLASSES.values()}
_PARTS: Final[dict[type[Any], tuple[_Part, ...]]] = {
    cls: _parts(cls) for cls in (*EVENT_CLASSES.values(), RunFacts, Note, ExportedWait, ExportedFeed, FeedItem, Header)
}
