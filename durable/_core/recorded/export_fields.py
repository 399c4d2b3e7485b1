"""
What the fields of exported records may be, and how the values of a journal stand in a line.

The classes of `export_format` are annotated with what is defined here; `LINES` reads them by that.
"""

from __future__ import annotations

import base64
from typing import Annotated, Any, Final, TypeAlias, get_args

from attrs import evolve

from durable._core.codec.codec import Payload
from durable._core.codec.json_text import dumps, loads
from durable._core.codec.records import narrowed, record_codec
from durable._core.codec.rule import EVERY_KIND, NoneType, Refusal, Rule, TooDeep, check_depth, misfit
from durable._core.codec.rules.scalars import PLAIN
from durable._core.journal.waits import WakeOn
from durable._core.policies.retry import RECORDED_RETRY
from durable._core.statuses import STATUSES, WAITS

#: Deepest value that stands in a line as JSON; a deeper one does as text. Far below the interpreter's
#: recursion limit, and twice what the engine records unless told otherwise.
MAX_NESTING: Final = 128
#: Resuming looks at each place of a window.
_MAX_WINDOW: Final = 1_000_000


# --- values --------------------------------------------------------------------------------------


def payload_to_plain(payload: Payload | None) -> dict[str, Any]:
    """
    A recorded value as a part of a line: ``value``, the JSON that it is.

    Bytes that codec hooks made are ``bytes``, in base64. Text that JSON would not give back letter
    for letter, or that nests too deep, is ``text``.
    """
    if payload is None:
        return {}
    if isinstance(payload, bytes):
        return {"bytes": base64.b64encode(payload).decode()}
    return {"value": loads(payload)} if _is_canonical(payload) else {"text": payload}


def _payload_from_plain(plain: Any) -> Payload | None:
    """The recorded value of which *plain* has the part; None if there is none."""
    if type(plain) is not dict:
        raise misfit(plain, "an object")
    if "value" in plain:
        return _text(plain["value"])
    if plain.get("text") is not None:
        return _under("text", plain["text"])
    if plain.get("bytes") is None:
        return None
    try:
        return base64.b64decode(_under("bytes", plain["bytes"]), validate=True)
    except ValueError as error:
        raise _at("bytes", Refusal("base64", str(error))) from error


def json_to_plain(text: str) -> Any:
    """JSON, or the text itself where it is none that would come back."""
    return loads(text) if _is_canonical(text) else {"text": text}


def _json_from_plain(plain: Any) -> str:
    if type(plain) is dict and list(plain) == ["text"]:
        return _under("text", plain["text"])
    return _text(plain)


def _is_canonical(text: str) -> bool:
    try:
        plain = loads(text)
        check_depth(plain, MAX_NESTING)
        return dumps(plain) == text
    except (ValueError, RecursionError, TooDeep):
        return False


def _text(plain: Any) -> str:
    try:
        return dumps(plain)
    except ValueError as error:  # 1e999
        raise Refusal("JSON", str(error)) from error


def _under(key: str, found: Any) -> str:
    if type(found) is not str:
        raise _at(key, misfit(found, "str"))
    return found


def _at(key: str, refusal: Refusal) -> Refusal:
    refusal.path.append(f".{key}")
    return refusal


# --- annotations ---------------------------------------------------------------------------------


def _one_of(*words: str) -> Rule:
    return narrowed(PLAIN[str], f"one of {', '.join(words)}", frozenset(words).__contains__)


_JSON: Final = Rule("JSON", lambda text, _: json_to_plain(text), _json_from_plain, (str,), EVERY_KIND - {NoneType})
_PAYLOAD: Final = Rule(
    "a recorded value",
    lambda payload, _: payload_to_plain(payload),
    _payload_from_plain,
    (str, bytes),
    frozenset({dict}),
)

_RETRY: Final = evolve(_JSON, decode=lambda plain: RECORDED_RETRY.decode(_json_from_plain(plain)))

#: JSON text in a journal, and JSON in a line; and such that is a retry policy.
JsonText: TypeAlias = Annotated[str, _JSON]
RetryText: TypeAlias = Annotated[str, _RETRY]
RunId: TypeAlias = Annotated[str, narrowed(PLAIN[str], "an id", bool)]
RunKind: TypeAlias = Annotated[str, _one_of("workflow", "job")]
ExportedStatus: TypeAlias = Annotated[str, _one_of(*STATUSES)]
ExportedKind: TypeAlias = Annotated[str, _one_of(*WAITS)]
ExportedWake: TypeAlias = Annotated[str, _one_of(*get_args(WakeOn))]
ParentEnd: TypeAlias = Annotated[str, _one_of("cancel", "abandon")]
Window: TypeAlias = Annotated[
    int, narrowed(PLAIN[int], f"int from 1 to {_MAX_WINDOW:,}", lambda size: 1 <= size <= _MAX_WINDOW)
]

#: What reads records of an export.
LINES: Final = record_codec({Payload | None: _PAYLOAD})
