"""
Recorded values as payloads of the server, byte for byte, and the facts that travel beside them.

A value is the JSON text that the journal would hold, as ``json/plain``, so that the server's own tools and other
languages read it; what codec hooks made of it is ``binary/plain``. Nothing passes the rules of the SDK's data
converter; its payload codec is applied, as to everything.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Final

from temporalio.api.common.v1 import Payload as Envelope
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError

from durable._core.codec.codec import Payload
from durable._core.codec.json_text import dumps, loads

#: Metadata of a payload that is no argument of the user's: what it is instead.
_MARK: Final = "durable"

#: The update that asks a run something.
ASK: Final = "durable.ask"


def packed(value: Payload, mark: str = "") -> RawValue:
    """A recorded value on its way to the server."""
    data, encoding = (value.encode(), b"json/plain") if isinstance(value, str) else (value, b"binary/plain")
    metadata = {"encoding": encoding}
    if mark:
        metadata[_MARK] = mark.encode()
    return RawValue(Envelope(metadata=metadata, data=data))


def unpacked(raw: RawValue | Envelope) -> Payload:
    """A recorded value as it was packed; of what others have sent, the JSON that it is."""
    payload = raw.payload if isinstance(raw, RawValue) else raw
    encoding = payload.metadata.get("encoding", b"")
    if encoding == b"binary/null":
        return "null"
    return payload.data if encoding == b"binary/plain" else payload.data.decode()


def unpacked_text(raw: RawValue | Envelope) -> str:
    """As `unpacked`, of what is text: facts of ours."""
    found = unpacked(raw)
    return found if isinstance(found, str) else found.decode()


def _mark_of(raw: RawValue) -> str:
    return raw.payload.metadata.get(_MARK, b"").decode()


# --- arguments -----------------------------------------------------------------------------------


def facts(values: Mapping[str, Any]) -> RawValue:
    """What travels beside arguments and failures, less what is absent."""
    return packed(dumps({name: value for name, value in values.items() if value not in (None, {}, ())}), "facts")


def split_arguments(arguments: Payload) -> list[RawValue]:
    """Recorded arguments as one payload each, which is what other programs would send."""
    if isinstance(arguments, bytes):
        return [packed(arguments, "arguments")]
    positional, named = loads(arguments)
    found = [packed(dumps(each)) for each in positional]
    return [*found, packed(dumps(named), "named")] if named else found


def joined_arguments(payloads: Sequence[RawValue]) -> tuple[Payload, dict[str, RawValue]]:
    """What `split_arguments` split, and the marked payloads that came with it, by their marks."""
    marked = {mark: each for each in payloads if (mark := _mark_of(each))}
    if "arguments" in marked:
        return unpacked(marked.pop("arguments")), marked
    named = unpacked_text(marked.pop("named")) if "named" in marked else "{}"
    return f"[[{','.join(unpacked_text(each) for each in payloads if not _mark_of(each))}],{named}]", marked


def facts_in(marked: Mapping[str, RawValue]) -> dict[str, Any]:
    """The facts that came with arguments; none if somebody else has sent those."""
    found: dict[str, Any] = loads(unpacked_text(marked["facts"])) if "facts" in marked else {}
    return found


# --- failures ------------------------------------------------------------------------------------


def as_application_error(
    failure: Payload, message: str, type_: str, told: Mapping[str, Any] | None = None, **options: Any
) -> ApplicationError:
    """A recorded failure as the server's: message and type for everybody, the record and more facts for us."""
    return ApplicationError(message, packed(failure), facts(told or {}), type=type_, **options)


def failure_of(error: BaseException | None) -> tuple[Payload | None, dict[str, Any]]:
    """The recorded failure in what the server gives back, None if it holds none; and the facts beside it."""
    if not isinstance(error, ApplicationError) or not error.details:
        return None, {}
    first, *rest = error.details  # decoded by the SDK: plain JSON data, or bytes
    payload = first if isinstance(first, bytes) else None if first is None else dumps(first)
    return payload, rest[0] if rest and isinstance(rest[0], dict) else {}


# --- values among facts --------------------------------------------------------------------------


def plain(value: Payload) -> Any:
    """A recorded value as JSON data among facts: its text; bytes that hooks made as base64."""
    return value if isinstance(value, str) else {"b64": base64.b64encode(value).decode()}


def from_plain(told: Any) -> Payload:
    """What `plain` wrote."""
    return told if isinstance(told, str) else base64.b64decode(told["b64"])


def plain_notes(notes: Mapping[str, Payload]) -> dict[str, Any]:
    """Cursors and memos of a step, by name."""
    return {name: plain(value) for name, value in notes.items()}


def notes_in(told: Mapping[str, Any]) -> dict[str, Payload]:
    """The notes that `plain_notes` wrote, among other facts."""
    return {name: from_plain(value) for name, value in (told.get("notes") or {}).items()}
