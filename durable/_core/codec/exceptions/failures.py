"""
Exceptions to records and back.

A workflow catches what its step raised by type, on the first run as on replay, so both get an exception rebuilt from
the record: same type, arguments, attributes, notes, cause and context. Promises: recording never fails, whatever the
exception is and holds, and takes no more bytes than there is room for; rebuilding imports nothing and runs no code of
the user's (no ``__init__``, ``__new__`` or ``__setattr__``), so that a record can only name exception classes which
this process has loaded already (any other becomes a `StepError`), and sets nothing that Python acts upon later.
"""

from __future__ import annotations

import base64
import enum
from typing import Any, Final

from attrs import evolve

from durable._core.codec.class_names import exception_once_called, loaded_class, module_of, qualname_of
from durable._core.codec.codec import Codec
from durable._core.codec.exceptions import validation_errors
from durable._core.codec.exceptions.failure import CHAIN_CAP, GROUP_CAP, Failure, describe
from durable._core.codec.exceptions.instances import build
from durable._core.codec.exceptions.parts import (
    BUILTINS,
    args_of,
    attributes_of,
    cause_of,
    chain,
    context_of,
    is_exception,
    members_of,
    notes_of,
    set_notes,
    suppresses_context,
)
from durable._core.codec.exceptions.safe_text import Ask, clean, message_of, shown
from durable._core.codec.exceptions.traceback_text import as_note, frames_of, is_traceback
from durable._core.codec.json_text import dumps
from durable._core.codec.rule import TAG, Refusal
from durable._core.codec.rules.untyped import decode_any, is_small
from durable._core.light_frozen import light_frozen
from durable.errors import RecordError, StepError

__all__ = ["MESSAGE_CAP", "TRACEBACK_CAP", "Failure", "describe", "rebuild", "record_exception"]

#: Enough to say what happened; a page of HTML in a message belongs elsewhere.
MESSAGE_CAP: Final = 4_096
#: The last frames are the ones that tell.
TRACEBACK_CAP: Final = 8_192
#: Of one argument or attribute. What is longer is kept as its head.
VALUE_CAP: Final = 65_536
#: Of a class's name.
NAME_CAP: Final = 1_000
#: Arguments, attributes, and notes.
ITEMS_CAP: Final = 100
#: Of a whole record, in bytes, however large a value may be.
RECORD_CAP: Final = 524_288
#: Below this many bytes, a cause or the member of a group is not worth recording.
LEAST_ROOM: Final = 256

_SURROGATES: Final = "surrogates"


# --- recording ---------------------------------------------------------------------------------


def record_exception(exc: BaseException, codec: Codec, *, with_traceback: bool = True, note: str = "") -> Failure:
    """
    *exc* as a record that fits the codec's cap. Never raises.

    Arguments and attributes that cannot be recorded are kept as their repr. *note* is added to its notes.
    """
    cap = codec.max_bytes // 2
    room = min(cap, RECORD_CAP)
    recorder = _Recorder(codec, codec.asking(), with_traceback)
    while room >= LEAST_ROOM:
        try:
            failure = recorder.record(exc, room, note)
            if len(dumps(failure.to_json()).encode()) <= cap:
                return failure
        except Exception:  # noqa: BLE001, S110 - no memory, no stack; or a kind of hostility that nobody thought of
            pass
        room //= 4  # by more than half, since what JSON has to escape takes up to six times as much
    return _bare(exc)


def _bare(exc: BaseException) -> Failure:
    cls = type(exc)
    return Failure(clean(qualname_of(cls)[:100]), clean(module_of(cls)[:100]), message_of(exc, 100), {})


@light_frozen
class _Recorder:
    """Records one exception, and what is around and in it."""

    codec: Codec
    ask: Ask
    with_traceback: bool

    def record(
        self, exc: BaseException, room: int, note: str = "", links: int = CHAIN_CAP, nested: int = GROUP_CAP
    ) -> Failure:
        """
        *exc* in about *room* characters.

        Half of them are its own, if it has a cause, a context or members: these share the rest.
        """
        cause, context = _around(exc) if links else (None, None)
        members = members_of(exc) if nested else ()
        links_here = (cause is not None) + (context is not None)
        inner = links_here + len(members)
        own = room // 2 if inner else room
        fitting = min(inner, (room - own) // LEAST_ROOM)
        share = (room - own) // fitting if fitting else 0
        if fitting < links_here:
            cause = context = None
        fitting = max(0, fitting - links_here)
        notes = self._notes(exc)
        if note:
            notes.append(note)
        if fitting < len(members):
            notes.append(f"{len(members) - fitting} more were not recorded")
        failure = self._alone(exc, own, notes)
        if not inner:
            return failure
        return evolve(
            failure,
            cause=None if cause is None else self.record(cause, share, "", links - 1, nested),
            context=None if context is None else self.record(context, share, "", links - 1, nested),
            members=tuple(self.record(each, share, "", links, nested - 1) for each in members[:fitting]),
        )

    def _alone(self, exc: BaseException, room: int, notes: list[str]) -> Failure:
        cls = type(exc)
        type_name, module = clean(qualname_of(cls)[:NAME_CAP]), clean(module_of(cls)[:NAME_CAP])
        message = message_of(exc, min(MESSAGE_CAP, room // 4), self.ask)
        return Failure(
            type_name,
            module,
            message,
            self._data(exc, notes, room // 2),
            self._traceback(exc, [message, *notes], min(TRACEBACK_CAP, room // 4)) if self.with_traceback else "",
            hides_context=cause_of(exc) is None and suppresses_context(exc),
        )

    def _notes(self, exc: BaseException) -> list[str]:
        notes = [note for note in notes_of(exc)[:ITEMS_CAP] if not is_traceback(note)]
        return [
            clean(note[:MESSAGE_CAP]) if type(note) is str else shown(note, MESSAGE_CAP, self.ask) for note in notes
        ]

    def _traceback(self, exc: BaseException, lines: list[str], cap: int) -> str:
        cls = type(exc)
        name = qualname_of(cls) if module_of(cls) == "builtins" else f"{module_of(cls)}.{qualname_of(cls)}"
        text = clean(f"{name[:NAME_CAP]}: " if lines[0] else name[:NAME_CAP]) + "\n".join(lines) + "\n"
        text = text[:cap]
        try:
            frames = frames_of(exc, cap - len(text))
        except Exception:  # noqa: BLE001 - source files, and Python's own formatting of them: it is for people only
            frames = ""
        return frames + text

    def _data(self, exc: BaseException, notes: list[str], room: int) -> dict[str, Any]:
        """The arguments and attributes, as under `Any`."""
        state: dict[str, Any] = {"__notes__": notes} if notes else {}
        found = validation_errors.record(exc, lambda value: self._plain(value, MESSAGE_CAP)[0])
        if found is not None:
            return {"args": [], "state": state, "validation": found}
        args: list[Any] = []
        given = args_of(exc)
        if members_of(exc):  # a group's second argument is its members, which must not be recorded twice
            given = given[:1]
        elif issubclass(type(exc), UnicodeError):
            given = _up_to_its_end(given)
        for value in given[:ITEMS_CAP]:
            plain, size = self._plain(value, min(VALUE_CAP, max(room, LEAST_ROOM)))
            args.append(plain)
            room -= size
        if len(given) > ITEMS_CAP:
            args.append(f"... and {len(given) - ITEMS_CAP} more")
        for name, value in attributes_of(exc):
            if room <= 0 or len(state) >= ITEMS_CAP:
                break
            if len(name) <= NAME_CAP and not (name == "obj" and issubclass(type(exc), AttributeError)):
                state[clean(name)], size = self._plain(value, min(VALUE_CAP, room))
                room -= size + len(name)
        return {"args": args, "state": state}

    def _plain(self, value: Any, cap: int) -> tuple[Any, int]:
        """*value* as JSON, and its size; as text if it cannot be recorded, or is larger than *cap*."""
        if is_small(value, cap):
            try:
                plain = self.codec.to_plain(value)
                size = len(dumps(plain))
            except (RecordError, ValueError):  # a NaN, a lone surrogate; nested too deep
                pass
            else:
                if size <= cap:
                    return plain, size
        if issubclass(type(value), str) and not issubclass(type(value), enum.Enum):
            text = str.__getitem__(value, slice(cap))
            if len(text) > cap // 4 or text.isascii():
                return clean(text), len(text)
            # What a UnicodeEncodeError is about, in a form that JSON can hold.
            encoded = base64.b64encode(text.encode("utf-8", "surrogatepass")).decode()
            return {TAG: _SURROGATES, "v": encoded}, len(encoded)
        text = shown(value, min(MESSAGE_CAP, cap), self.ask)
        return text, len(text)


def _up_to_its_end(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Of what could not be decoded, perhaps a whole file, what lies behind the place is not needed."""
    if len(args) < len(("object", "start", "end", "reason")):
        return args
    *first, data, start, end, reason = args
    if not (type(data) is str or type(data) is bytes) or type(end) is not int:
        return args
    return (*first, data[:end], start, end, reason)


def _around(exc: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """Its cause and its context, as far as they are worth recording."""
    cause, context = cause_of(exc), context_of(exc)
    if context is cause:
        context = None
    # Only an Exception can be rebuilt; a CancelledError as cause says nothing about the step.
    return (
        cause if cause is not None and is_exception(cause) else None,
        context if context is not None and is_exception(context) else None,
    )


# --- rebuilding --------------------------------------------------------------------------------


def rebuild(failure: Failure) -> Exception:
    """
    An exception of the recorded type, with the recorded arguments, attributes, notes, cause and context.

    The recorded traceback is its last note, so that a log of it shows the line.

    Returns:
        A `StepError` if the type is unknown here, or cannot be built without its own code.
    """
    data = failure.data
    args, state = _arguments(data.get("args")), _attributes(data.get("state"))
    notes = state.pop("__notes__", [])
    members = [rebuild(each) for each in failure.members]
    cls = _find(failure)
    exc = None
    if cls is not None:
        found = data.get("validation")
        exc = build(cls, args, state, members) if found is None else validation_errors.rebuild(cls, found, _value)
    if exc is None:
        exc = StepError(failure.type_name, failure.message, {"args": list(args), **state})
    notes = [note for note in notes if type(note) is str] if type(notes) is list else []
    frames = as_note(failure.traceback)
    if frames is not None:
        notes.append(frames)
    if notes:
        set_notes(exc, notes)
    cause = None if failure.cause is None else rebuild(failure.cause)
    # Where only a cause is recorded, it was raised from what it handled.
    context = cause if failure.context is None else rebuild(failure.context)
    chain(exc, cause=cause, context=context, suppress=cause is not None or failure.hides_context)
    return exc


def _arguments(recorded: Any) -> tuple[Any, ...]:
    try:
        return tuple(_value(each) for each in recorded)
    except (Refusal, RecursionError, TypeError, ValueError):
        return ()


def _attributes(recorded: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if type(recorded) is dict:
        for name, plain in recorded.items():
            try:
                found[name] = _value(plain)
            except (Refusal, RecursionError, TypeError, ValueError):
                continue
    return found


def _value(plain: Any) -> Any:
    match plain:
        case {"$": "surrogates", "v": str(text)}:
            return base64.b64decode(text).decode("utf-8", "surrogatepass")
        case _:
            return decode_any(plain)


def _find(failure: Failure) -> type[Exception] | None:
    module, name = failure.module, failure.type_name
    found = BUILTINS.get(name) if module == "builtins" else loaded_class(module, name)
    if found is None:
        found = exception_once_called(module, name)
    return found if found is not None and issubclass(found, Exception) else None
