"""
Instances of exception classes, made from a record: no code of the class runs, neither now nor later.

Python acts upon some fields of its own exceptions when they are printed: it imports the module that an `ImportError`
names, asks objects of the raising frame for the ``name`` of a `NameError`, trusts the bounds in a `UnicodeError`. So
of the fields of the interpreter's classes only those in the table below are set, each to what fits it.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Final

from durable._core.codec.class_names import bases_of, namespace_of
from durable._core.codec.exceptions.parts import is_native, set_attribute, slots_of

_ARGS: Final[Any] = vars(BaseException)["args"]
_UNICODE: Final = (UnicodeDecodeError, UnicodeEncodeError, UnicodeTranslateError)
_PATH: Final = type(pathlib.Path())
_PLAIN: Final = (str, bytes, int, float, bool, _PATH)
_LONGEST_TEXT: Final = 10_000


def build(
    cls: type[Exception], args: tuple[Any, ...], state: Mapping[str, Any], members: list[Exception]
) -> Exception | None:
    """An instance of *cls* with these arguments, attributes and members; None if there can be none."""
    try:
        if issubclass(cls, ExceptionGroup):
            (message,) = args
            exc: Any = ExceptionGroup.__new__(cls, message[:_LONGEST_TEXT], members)
        elif issubclass(cls, _UNICODE):
            exc = _unicode_error(cls, args)
        else:
            exc = _empty(cls)
            _ARGS.__set__(exc, args)
        _restore(exc, state)
    except (TypeError, ValueError, AttributeError):
        # today's class cannot hold what is recorded, so there is no instance of it
        return None
    return exc if type(exc) is cls else None


def _empty(cls: type[Exception]) -> Any:
    """An instance without a call of ``__init__``, made by the native class that lays it out."""
    for base in bases_of(cls):
        if is_native(base):
            native: Any = base
            try:
                exc = native.__new__(cls)
            except TypeError:  # laid out by another of the bases, or by an extension that forbids it
                continue
            return exc
    raise TypeError


def _unicode_error(cls: type[Exception], args: tuple[Any, ...]) -> Any:
    """One with its fields filled in by the native constructor: CPython's `str` of it trusts them to be in bounds."""
    *_, data, start, end, _reason = args
    if not (type(start) is type(end) is int and 0 <= start < end <= len(data)):
        raise ValueError
    exc = _empty(cls)
    native: Any = next(base for base in bases_of(cls) if is_native(base))
    native.__init__(exc, *args)  # called by hand, since it checks the types
    return exc


def _restore(exc: Exception, state: Mapping[str, Any]) -> None:
    cls = type(exc)
    slots, bases = slots_of(cls), bases_of(cls)
    reserved = [namespace_of(base) for base in bases if is_native(base)]
    for name, value in state.items():
        slot = slots.get(name)
        if slot is None:
            if not (name.startswith("__") or any(name in each for each in reserved) or name in _of_later(cls)):
                set_attribute(exc, name, value)
        elif not is_native(slot.__objclass__):
            slot.__set__(exc, value)
        else:
            fits = _FIELDS.get(slot.__objclass__, {}).get(name)
            if fits is not None and (fitting := fits(value)) is not None:
                slot.__set__(exc, fitting)


def _of_later(cls: type) -> frozenset[str]:
    """Names of fields that Python acts upon in later versions, where they are none yet."""
    return frozenset({"name_from"}) if issubclass(cls, ImportError) else frozenset()


# --- what fits the fields of the interpreter's classes ---------------------------------------------------------


def _plain(value: Any) -> Any:
    return value if type(value) in _PLAIN else None


def _text(value: Any) -> str | None:
    return value[:_LONGEST_TEXT] if type(value) is str else None


def _number(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value <= _LONGEST_TEXT else None


def _file_name(value: Any) -> str | None:
    """As `str` shows it: what prints the lines of the file that a record names is led to no folder."""
    return os.path.basename(value)[:_LONGEST_TEXT] if type(value) is str else None


_FIELDS: Final[Mapping[type, Mapping[str, Callable[[Any], Any]]]] = {
    AttributeError: {"name": _text},
    ImportError: {"msg": _text, "path": _text},
    OSError: {"errno": _plain, "strerror": _plain, "filename": _plain, "filename2": _plain},
    StopIteration: {"value": lambda value: value},
    SyntaxError: {
        "msg": _text,
        "filename": _file_name,
        "lineno": _number,
        "offset": _number,
        "text": _text,
        "end_lineno": _number,
        "end_offset": _number,
    },
}
