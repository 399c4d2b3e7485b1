"""
What stands in the lines of an export, read strictly: objects, records, events.

Each function takes data of unknown origin and gives what this release means by it, or raises `Wrong`
saying what was expected and what was found. Records are read by the annotations of their classes;
keys that those do not know are passed over.
"""

from __future__ import annotations

import re
from typing import Any, Final, NoReturn

from durable._core.codec.json_text import dumps, loads
from durable._core.codec.rule import TooDeep, check_depth, json_kind
from durable._core.journal.events import EVENT_CLASSES, Event
from durable._core.recorded.export_fields import LINES, MAX_NESTING
from durable._core.recorded.export_format import FORMAT, MAGIC, Header, RunFacts
from durable.errors import DecodeError

#: Longest line: more than any value that an engine records, unless its cap was raised thirty times.
MAX_LINE_BYTES: Final = 64 << 20
#: Containers around a value in its line.
_AROUND: Final = 4
#: Half a character, as JSON can write it and UTF-8 cannot: SQLite would refuse it.
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")
_CLASSES: Final[dict[str, type[Any]]] = {cls.__name__: cls for cls in EVENT_CLASSES.values()}


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
        # Most lines have too few brackets for that, those in strings included: looking takes as long as parsing.
        if text.count("[") + text.count("{") > MAX_NESTING:
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


def object_from(found: Any, what: str) -> dict[str, Any]:
    """*found*, which must be an object."""
    if not isinstance(found, dict):
        wrong(f"{what}: expected an object, found {json_kind(found)}")
    return found


def read(type_: Any, plain: Any, what: str = "") -> Any:
    """What *plain* means under an annotation; of a record, the errors name its class."""
    try:
        return LINES.from_plain(plain, type_)
    except DecodeError as error:
        wrong(error.about(what or type_.__name__))


def header_from(plain: dict[str, Any]) -> Header:
    """The header in a line."""
    if plain.get("durable") != MAGIC:
        wrong(f'expected the header of an export, {{"durable": "{MAGIC}", ...}}')
    found = plain.get("format")
    if found != FORMAT or type(found) is not int:
        newer = "; a newer release of durable wrote it" if isinstance(found, int) and found > FORMAT else ""
        wrong(f"format: expected {FORMAT}, found {found!r:.40}{newer}")
    header: Header = read(Header, {"release": "", "schema": 0, "exported_at": "", **plain})
    return header


def facts_from(plain: dict[str, Any]) -> RunFacts:
    """The facts of a run."""
    facts: RunFacts = read(RunFacts, plain)
    return facts


def event_from(plain: dict[str, Any]) -> Event:
    """The event in a line: identified by the name of its class."""
    name = plain.get("event")
    cls = _CLASSES.get(name) if isinstance(name, str) else None
    if cls is None:
        wrong(f"event: expected the name of an event of this release, found {name!r:.40}: written by a newer one?")
    event: Event = read(
        cls,
        {
            **object_from(plain.get("fields", {}), f"{name}.fields"),
            "position": plain.get("position"),
            "value": plain,
            "at": plain.get("at"),
        },
    )
    return event
