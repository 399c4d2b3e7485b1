"""
What an exception holds, read and written past its class.

Whatever an exception class defines is the user's code: properties named ``args`` or ``__cause__``, a
``__getattribute__`` that raises, a ``__class__`` that lies, a metaclass. None of it runs here: the fields are those of
`BaseException` itself, reached through its descriptors, and kinds are identified by ``issubclass(type(exc), ...)``,
because ``isinstance`` asks the instance for its ``__class__``.
"""

from __future__ import annotations

import builtins
import itertools
import types
from collections.abc import Iterator
from typing import Any, Final, TypeGuard

from durable._core.codec.class_names import bases_of, namespace_of

_ARGS: Final[Any] = vars(BaseException)["args"]
_ATTRIBUTES: Final[Any] = vars(BaseException)["__dict__"]
_CAUSE: Final[Any] = vars(BaseException)["__cause__"]
_CONTEXT: Final[Any] = vars(BaseException)["__context__"]
_SUPPRESSES: Final[Any] = vars(BaseException)["__suppress_context__"]
_TRACEBACK: Final[Any] = vars(BaseException)["__traceback__"]
_MEMBERS: Final[Any] = vars(BaseExceptionGroup)["exceptions"]
_NOTES: Final = "__notes__"

#: Entries of an instance's dictionary that are looked at: far above any sane exception.
_MOST_ATTRIBUTES: Final = 1_000

#: The exception classes of the interpreter, by name.
BUILTINS: Final[dict[str, type[BaseException]]] = {
    name: each for name, each in vars(builtins).items() if type(each) is type and issubclass(each, BaseException)
}
_NATIVE: Final = frozenset(BUILTINS.values())


class Unrecorded:
    """What an exception holds for the code that catches it, and for no record: its value is a subclass of this."""


def is_native(cls: type) -> bool:
    """Whether *cls* is one of the interpreter's own exception classes."""
    return type(cls) is type and cls in _NATIVE  # first by type, because a metaclass of the user's may define __hash__


def is_exception(exc: BaseException) -> TypeGuard[Exception]:
    """Whether ``except Exception`` catches *exc*."""
    return issubclass(type(exc), Exception)


def args_of(exc: BaseException) -> tuple[Any, ...]:
    """Its arguments."""
    return _ARGS.__get__(exc) or ()


def cause_of(exc: BaseException) -> BaseException | None:
    """What it was raised ``from``."""
    cause: BaseException | None = _CAUSE.__get__(exc)
    return cause


def context_of(exc: BaseException) -> BaseException | None:
    """What was being handled when it was raised."""
    context: BaseException | None = _CONTEXT.__get__(exc)
    return context


def suppresses_context(exc: BaseException) -> bool:
    """Whether it was raised ``from`` something, or ``from None``."""
    return bool(_SUPPRESSES.__get__(exc))


def traceback_of(exc: BaseException) -> types.TracebackType | None:
    """Where it was raised, outermost frame first."""
    traceback: types.TracebackType | None = _TRACEBACK.__get__(exc)
    return traceback


def members_of(exc: BaseException) -> tuple[BaseException, ...]:
    """Those of a group; of any other exception none."""
    return tuple(_MEMBERS.__get__(exc)) if issubclass(type(exc), BaseExceptionGroup) else ()


def slots_of(cls: type) -> dict[str, types.MemberDescriptorType]:
    """What instances hold outside of their dictionary, by name: slots, and fields of C classes such as ``errno``."""
    found: dict[str, types.MemberDescriptorType] = {}
    for base in reversed(bases_of(cls)):
        found |= own_slots_of(base)
    return found


def own_slots_of(cls: type) -> dict[str, types.MemberDescriptorType]:
    """As `slots_of`, without those of its bases."""
    return _NATIVE_SLOTS[cls] if is_native(cls) else _slots_in(cls)


def _slots_in(cls: type) -> dict[str, types.MemberDescriptorType]:
    # Those of BaseException are the chain; a group's are its members, and read-only.
    if cls is object or cls is BaseException or cls is BaseExceptionGroup:
        return {}
    return {
        name: each
        for name, each in namespace_of(cls).items()
        if type(each) is types.MemberDescriptorType and type(name) is str
    }


_NATIVE_SLOTS: Final = {cls: _slots_in(cls) for cls in _NATIVE}


def attributes_of(exc: BaseException) -> Iterator[tuple[str, Any]]:
    """Everything that the instance holds besides `BaseException`'s own fields: slots, then its dictionary."""
    for name, slot in slots_of(type(exc)).items():
        try:
            value = slot.__get__(exc)
        except AttributeError:  # an empty slot has nothing to record, as an absent attribute would have
            continue
        if value is not None:
            yield name, value
    # Names that are no str, or begin like the interpreter's own, can be put there only on purpose.
    for name, value in _dictionary(exc):
        if type(name) is str and not name.startswith("__") and not issubclass(type(value), Unrecorded):
            yield name, value


def attribute(exc: BaseException, name: str) -> Any:
    """What the instance's dictionary holds as *name*; None if nothing."""
    return next((value for each, value in _dictionary(exc) if type(each) is str and each == name), None)


def set_attribute(exc: BaseException, name: str, value: Any) -> None:
    """Put *value* into the instance's dictionary."""
    dict.__setitem__(_ATTRIBUTES.__get__(exc), name, value)


def notes_of(exc: BaseException) -> list[Any]:
    """What was added by `add_note`, or put there by hand: not always text."""
    notes = attribute(exc, _NOTES)
    return list.__getitem__(notes, slice(None)) if issubclass(type(notes), list) else []


def set_notes(exc: BaseException, notes: list[Any]) -> None:
    """Give it *notes* in place of those that it has."""
    set_attribute(exc, _NOTES, notes)


def add_note(exc: BaseException, note: str) -> None:
    """As its method, which its class may have replaced."""
    set_notes(exc, [*notes_of(exc), note])


def chain(exc: BaseException, *, cause: BaseException | None, context: BaseException | None, suppress: bool) -> None:
    """Set what it was raised from, and during."""
    _CONTEXT.__set__(exc, context)
    _CAUSE.__set__(exc, cause)
    _SUPPRESSES.__set__(exc, suppress)


def _dictionary(exc: BaseException) -> Iterator[tuple[Any, Any]]:
    # By iteration, not by key: another key of it may have a hash and an __eq__ of the user's.
    return itertools.islice(dict.items(_ATTRIBUTES.__get__(exc)), _MOST_ATTRIBUTES)
