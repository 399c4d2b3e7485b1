"""
Text of any object, of bounded length, whatever the object is.

Nothing here raises, and values of the interpreter's own types are rendered without a line of the user's code, however
deep, large or circular they are. For the ``__str__`` and ``__repr__`` of other classes the caller says how they are
asked (`Ask`): the engine does so in a thread of its own and waits only so long, since they may never return.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

from durable._core.codec.class_names import bases_of, module_of, namespace_of, qualname_of
from durable._core.codec.exceptions.origin import came_from_outside
from durable._core.codec.exceptions.parts import args_of, attributes_of, is_native, own_slots_of
from durable._core.codec.rules.recorded_sets import RecordedFrozenSet, RecordedSet
from durable._core.source_places import OURS

Ask: TypeAlias = Callable[[Callable[[Any], str], Any], str]
"""``(str or repr, object)`` to what that gave. May raise anything, to say that no text could be had."""

#: Characters of a text in one line: of an error in a log.
LINE_CAP: Final = 500
#: Containers within containers that are shown.
_DEPTH: Final = 6
#: Characters of one text, and bits of one number, that native code may be given to render as a whole.
_LARGE: Final = 10_000
#: Errors whose `str` reads a few characters of what may be very long, and is safe in native code.
_UNICODE: Final = (UnicodeDecodeError, UnicodeEncodeError, UnicodeTranslateError)

_GROUP_MESSAGE: Final[Any] = vars(BaseExceptionGroup)["message"]
_ATOMS: Final = frozenset((type(None), bool, float, complex, type(...), type(NotImplemented)))
_TEXTS: Final = frozenset((str, bytes, bytearray))
_BRACKETS: Final[dict[type, tuple[str, str]]] = {
    list: ("[", "]"),
    tuple: ("(", ")"),
    set: ("{", "}"),
    RecordedSet: ("{", "}"),
    frozenset: ("frozenset({", "})"),
    RecordedFrozenSet: ("frozenset({", "})"),
}
_EMPTY: Final[dict[type, str]] = {
    set: "set()",
    RecordedSet: "set()",
    frozenset: "frozenset()",
    RecordedFrozenSet: "frozenset()",
}


def ask_directly(render: Callable[[Any], str], value: Any) -> str:
    """Call it here and now: for programs that only look."""
    return render(value)


def shown(value: Any, cap: int, ask: Ask | None = None) -> str:
    """As `repr` shows *value*, but at most *cap* characters. Without *ask*, no code of the user's runs."""
    try:
        return clean(_cut(_shown(value, cap, ask, _DEPTH), cap))
    except Exception:  # noqa: BLE001 - changed by another thread meanwhile, or no memory is left
        return f"<{name_of(value)} without text>"


def message_of(exc: BaseException, cap: int, ask: Ask | None = None) -> str:
    """As `str` gives the message of *exc*, but at most *cap* characters; of its arguments, if its class gives none."""
    try:
        return clean(_message(exc, cap, ask, _DEPTH))
    except Exception:  # noqa: BLE001 - as above
        return f"<{name_of(exc)} without text>"


def one_line(error: BaseException, ask: Ask | None = None) -> str:
    """*error* in one line, as ``ValueError: bad``, for logs and errors about errors."""
    message = message_of(error, LINE_CAP, ask).strip().partition("\n")[0]
    name = name_of(error)
    return f"{name}: {message}" if message else name


def name_of(value: object) -> str:
    """The name of its class."""
    return clean(qualname_of(type(value)).rpartition(".")[2][:_LARGE])


def clean(text: str) -> str:
    """*text* such that UTF-8 can hold it."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


# --- messages --------------------------------------------------------------------------------------------------


def _message(exc: BaseException, cap: int, ask: Ask | None, depth: int) -> str:
    owner, render = _defined(type(exc), "__str__")
    args = args_of(exc)
    if owner is BaseException:
        return _of_args(args, cap, ask, depth)
    text = None
    if is_native(owner):  # KeyError, OSError, ...: safe, if nothing is large or has code of its own
        if issubclass(type(exc), _UNICODE) or _are_simple(_fields(exc)):
            text = _asked(ask_directly, render, exc, cap)
    elif _is_ours(type(exc), render) and _are_simple(value for _, value in attributes_of(exc)) and _are_simple(args):
        text = _asked(ask_directly, render, exc, cap)
    else:
        text = _asked(ask, str, exc, cap)
    if text is None:
        text = _of_args(args, cap, None, depth) if args else f"<{name_of(exc)} without text>"
    return text


def _of_args(args: tuple[Any, ...], cap: int, ask: Ask | None, depth: int) -> str:
    """As ``BaseException.__str__``."""
    if len(args) != 1:
        return _shown(args, cap, ask, depth) if args else ""
    value = args[0]
    kind = type(value)
    if issubclass(kind, str):
        return str.__getitem__(value, slice(cap))
    if depth and issubclass(kind, BaseException):
        return _message(value, cap, ask, depth - 1)
    owner, _ = _defined(kind, "__str__")
    if owner is object or ask is None:
        return _shown(value, cap, ask, depth)
    text = _asked(ask, str, value, cap)
    return f"<{name_of(value)} without text>" if text is None else text


def _fields(exc: BaseException) -> Iterable[Any]:
    """What native code makes a message of."""
    if issubclass(type(exc), BaseExceptionGroup):
        yield _GROUP_MESSAGE.__get__(exc)
        return
    yield from args_of(exc)
    for base in bases_of(type(exc)):
        if is_native(base):
            for slot in own_slots_of(base).values():
                try:
                    yield slot.__get__(exc)
                except AttributeError:
                    continue


def _are_simple(values: Iterable[Any]) -> bool:
    """Whether native code renders all of *values* at once, and no other code runs for it."""
    for value in values:
        kind = type(value)
        if type(kind) is not type:
            return False
        if kind in _TEXTS:
            if len(value) > _LARGE:
                return False
        elif kind is int:
            if value.bit_length() > _LARGE:
                return False
        elif kind not in _ATOMS:
            return False
    return True


def _is_ours(cls: type, render: Any) -> bool:
    """Whether *render* is a method of this library's, and *cls* no class of somebody else's that inherits it."""
    ours = type(render) is types.FunctionType and render.__code__.co_filename.startswith(OURS)
    return ours and module_of(cls).partition(".")[0] == "durable"


# --- representations -------------------------------------------------------------------------------------------


def _shown(value: Any, cap: int, ask: Ask | None, depth: int) -> str:
    kind = type(value)
    if type(kind) is type:  # else a metaclass, which may define __hash__
        if kind in _ATOMS:
            return repr(value)[:cap]
        if kind in _TEXTS:
            return _cut(repr(value[:cap]), cap, whole=len(value) <= cap)
        if kind is int:
            bits = value.bit_length()
            return _cut(repr(value), cap) if bits <= _LARGE else f"<int of {bits} bits>"
        if kind is dict or kind in _BRACKETS:
            return _container(value, cap, ask, depth)
    if issubclass(kind, BaseException):
        args = _container(args_of(value), cap, ask, depth)
        return _cut(f"{name_of(value)}{args[:-2]})" if args.endswith(",)") else f"{name_of(value)}{args}", cap)
    if issubclass(kind, type):
        return _cut(f"<class '{_full_name(value)}'>", cap)
    owner, _ = _defined(kind, "__repr__")
    if owner is object or ask is None:
        return _cut(f"<{_full_name(kind)} object>", cap)
    text = _asked(ask, repr, value, cap)
    return f"<{name_of(value)} without text>" if text is None else text


def _container(value: Any, cap: int, ask: Ask | None, depth: int) -> str:
    kind = type(value)
    opening, closing = _BRACKETS.get(kind, ("{", "}"))
    if not value:
        return _EMPTY.get(kind, f"{opening}{closing}")
    if not depth:
        return f"{opening}...{closing}"
    parts: list[str] = []
    left = cap - len(opening) - len(closing)
    for item in value.items() if kind is dict else value:
        if left <= 0:
            parts.append("...")
            break
        if kind is dict:
            key = _shown(item[0], left, ask, depth - 1)
            parts.append(f"{key}: {_shown(item[1], max(left - len(key), 1), ask, depth - 1)}")
        else:
            parts.append(_shown(item, left, ask, depth - 1))
        left -= len(parts[-1]) + 2
    trailing = "," if kind is tuple and len(value) == 1 else ""
    return f"{opening}{', '.join(parts)}{trailing}{closing}"


def _full_name(cls: type) -> str:
    module, name = module_of(cls), qualname_of(cls)[:_LARGE]
    return name if module in ("", "builtins") else f"{module}.{name}"


def _defined(cls: type, name: str) -> tuple[type, Any]:
    """The first class that defines *name*, and what it defines."""
    for base in bases_of(cls):
        found = namespace_of(base).get(name)
        if found is not None:
            return base, found
    return object, None


def _asked(ask: Ask | None, render: Callable[[Any], str], value: Any, cap: int) -> str | None:
    """What the object says; None if it gives no text."""
    if ask is None:
        return None
    try:
        return _cut(str.__getitem__(ask(render, value), slice(cap + 1)), cap)
    except BaseException as error:
        if came_from_outside(error):
            raise
        return None


def _cut(text: str, cap: int, *, whole: bool = True) -> str:
    if whole and len(text) <= cap:
        return text
    return f"{text[: max(cap - 3, 0)]}..."
