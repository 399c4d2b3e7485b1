"""
Exceptions to records and back.

A workflow catches what its step raised by type, on the first run as on replay, so both get
an exception rebuilt from the record: same type, arguments, attributes, notes, cause. Promises:
recording never fails, whatever the exception holds; rebuilding imports nothing and runs no
code of the user's (no ``__init__``, ``__new__`` or ``__setattr__``), so that a record can only
name exception classes this process has loaded already; any other becomes a `StepError`.
"""

from __future__ import annotations

import base64
import builtins
import traceback as tracebacks
import types
from collections.abc import Mapping
from typing import Any, Final

import attrs

from durable._core.codec.class_names import exception_once_called, loaded_module, module_of
from durable._core.codec.codec import Codec
from durable._core.codec.json_text import dumps
from durable._core.codec.rule import TAG, Refusal
from durable._core.codec.untyped import decode_any
from durable._core.source_places import OURS, has_source
from durable.errors import DecodeError, RecordError, StepError

#: Enough to say what happened; a page of HTML in a message belongs elsewhere.
MESSAGE_CAP: Final = 4_096
#: The last frames are the ones that tell.
TRACEBACK_CAP: Final = 8_192
#: Of one argument or attribute. What is longer is kept as the head of its repr.
VALUE_CAP: Final = 65_536
#: Links of a chain of causes, and levels of groups within groups.
CHAIN_CAP: Final = 5
GROUP_CAP: Final = 16

_BUILTINS: Final[dict[str, type[Exception]]] = {
    name: each for name, each in vars(builtins).items() if isinstance(each, type) and issubclass(each, Exception)
}
_SURROGATES: Final = "surrogates"
_NATIVE: Final = frozenset(_BUILTINS.values())


@attrs.frozen
class Failure:
    """An exception as it is recorded. Everything in it is JSON."""

    #: The class's qualified name and module, as ``ValueError`` and ``builtins``.
    type_name: str
    module: str
    #: What ``str()`` gave.
    message: str
    #: ``{"args": [...], "state": {...}}``, both as under `Any`: the arguments, and the attributes.
    data: dict[str, Any]
    #: Text, for people only.
    traceback: str = ""
    cause: Failure | None = None
    #: Of an exception group.
    members: tuple[Failure, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data for `json`. Parts that are empty are left out."""
        out: dict[str, Any] = {
            "type": self.type_name,
            "module": self.module,
            "message": self.message,
            "data": self.data,
        }
        if self.traceback:
            out["traceback"] = self.traceback
        if self.cause:
            out["cause"] = self.cause.to_json()
        if self.members:
            out["members"] = [member.to_json() for member in self.members]
        return out

    @classmethod
    def from_json(cls, plain: Any) -> Failure:
        """
        The failure that `to_json` made *plain* of.

        Raises:
            DecodeError: It is none.
        """
        return _from_json(plain, "$", CHAIN_CAP + GROUP_CAP + 1)


def _from_json(plain: Any, path: str, depth: int) -> Failure:
    match plain:
        case {"type": str(type_name), "module": str(module), "message": str(message), "data": dict(data)} if depth:
            cause, members = plain.get("cause"), plain.get("members", [])
            text = plain.get("traceback", "")
            if isinstance(members, list) and isinstance(text, str):
                return Failure(
                    type_name,
                    module,
                    message,
                    data,
                    text,
                    None if cause is None else _from_json(cause, f"{path}.cause", depth - 1),
                    tuple(_from_json(each, f"{path}.members[{i}]", depth - 1) for i, each in enumerate(members)),
                )
        case _:
            pass
    raise DecodeError("a failure", path, "an object with type, module, message and data", f"found {plain!r:.60}")


#: Of a message, in one line for people. Our own longest has about 400.
DESCRIBED_CHARACTERS: Final = 600


def describe(failure: Failure) -> str:
    """One line for people: ``ValueError: bad``. Of a group it names the first member, too."""
    first = failure.message.strip().partition("\n")[0]
    name = failure.type_name.rpartition(".")[2]
    if failure.members:
        first += f"; first: {describe(failure.members[0])}"
    if len(first) > DESCRIBED_CHARACTERS:
        first = f"{first[:DESCRIBED_CHARACTERS]}..."
    return f"{name}: {first}" if first else name


# --- recording ---------------------------------------------------------------------------------


def record_exception(exc: BaseException, codec: Codec, *, with_traceback: bool = True) -> Failure:
    """
    *exc* as a record that fits the codec's cap. Never raises.

    Arguments that cannot be recorded are kept as their repr, attributes that cannot are left out.
    """
    # A group of a thousand members has a thousand tracebacks. Rather shorter ones than no record.
    caps = ((TRACEBACK_CAP, VALUE_CAP), (1_024, 1_024), (0, 128))
    failure = Failure("", "", "", {})
    for trace_cap, value_cap in caps:
        failure = _record(exc, codec, trace_cap if with_traceback else 0, value_cap, CHAIN_CAP, GROUP_CAP)
        if len(dumps(failure.to_json()).encode()) <= codec.max_bytes // 2:
            return failure
    return attrs.evolve(failure, data={}, members=(), cause=None, message=failure.message[:200])


def _record(exc: BaseException, codec: Codec, trace_cap: int, value_cap: int, chain: int, nested: int) -> Failure:
    cls = type(exc)
    group = isinstance(exc, BaseExceptionGroup)
    state = dict(_state(exc))
    attributes: dict[str, Any] = {}
    for name, value in state.items():
        try:
            attributes[name] = _plain(value, codec, value_cap)
        except RecordError:
            continue
    args: list[Any] = []
    # The arguments of a group are its members, recorded below.
    for value in exc.args[:1] if group else exc.args:
        try:
            args.append(_plain(value, codec, value_cap))
        except RecordError:
            args.append(_surrogates(value, value_cap) or _text(repr, value, min(value_cap, MESSAGE_CAP)))
    members: tuple[Failure, ...] = ()
    if isinstance(exc, BaseExceptionGroup) and nested:
        members = tuple(
            _record(each, codec, trace_cap // len(exc.exceptions), value_cap, chain, nested - 1)
            for each in exc.exceptions
        )
    cause = exc.__cause__
    return Failure(
        type_name=_clean(cls.__qualname__),
        module=_clean(module_of(cls)),
        message=_text(str, exc, MESSAGE_CAP),
        data={"args": args, "state": attributes},
        traceback=_traceback(exc, trace_cap) if trace_cap else "",
        # Only an Exception can be rebuilt; a CancelledError as cause says nothing about the step.
        cause=_record(cause, codec, trace_cap, value_cap, chain - 1, nested)
        if isinstance(cause, Exception) and chain
        else None,
        members=members,
    )


def _state(exc: BaseException) -> list[tuple[str, Any]]:
    """Everything the instance holds: slots (those of C classes too, as ``errno``), then ``__dict__``."""
    found: list[tuple[str, Any]] = []
    for name, slot in _slots(type(exc)).items():
        try:
            found.append((name, slot.__get__(exc)))
        except AttributeError:  # an empty slot
            continue
    # Names that are no str can be put there only on purpose.
    found.extend((name, value) for name, value in BaseException.__getattribute__(exc, "__dict__").items())
    return [(name, value) for name, value in found if type(name) is str and value is not None]


def _slots(cls: type) -> dict[str, types.MemberDescriptorType]:
    found: dict[str, types.MemberDescriptorType] = {}
    for base in reversed(cls.__mro__):
        # Those of BaseException are the chain, which is kept as `cause`; a group's are read-only.
        if base is not BaseException and base is not BaseExceptionGroup:
            found |= {name: each for name, each in vars(base).items() if isinstance(each, types.MemberDescriptorType)}
    return found


def _plain(value: Any, codec: Codec, cap: int) -> Any:
    plain = codec.to_plain(value)
    try:
        text = dumps(plain)
    except ValueError as error:
        raise DecodeError("", "$", "JSON", str(error)) from error
    return plain if len(text) <= cap else _text(repr, value, cap // 2)


def _surrogates(value: Any, cap: int) -> dict[str, str] | None:
    """A str that UTF-8 cannot hold, which is what a UnicodeEncodeError is about, in a form that JSON can."""
    if type(value) is not str or len(value) > cap // 4:
        return None
    return {TAG: _SURROGATES, "v": base64.b64encode(value.encode("utf-8", "surrogatepass")).decode()}


def _arg(plain: Any) -> Any:
    match plain:
        case {"$": "surrogates", "v": str(text)}:
            return base64.b64decode(text).decode("utf-8", "surrogatepass")
        case _:
            return decode_any(plain)


def _text(render: Any, value: Any, cap: int) -> str:
    try:
        return _clean(str.__str__(render(value))[:cap])
    except Exception:  # noqa: BLE001 - __str__ and __repr__ are the user's
        return f"<{type(value).__name__} without text>"


def _clean(text: str) -> str:
    return str.encode(text, "utf-8", "backslashreplace").decode()


def _traceback(exc: BaseException, cap: int) -> str:
    try:
        frames = [
            frame if has_source(frame.filename) else _without_text(frame)
            for frame in tracebacks.extract_tb(exc.__traceback__, limit=-100)
            if not frame.filename.startswith(OURS)
        ]
        lines = tracebacks.format_list(frames) + tracebacks.format_exception_only(exc)
    except Exception:  # noqa: BLE001 - renders the exception, hence runs its __str__
        return ""
    return _clean("".join(lines)[-cap:])


def _without_text(frame: tracebacks.FrameSummary) -> tracebacks.FrameSummary:
    """With file, line and function only."""
    return tracebacks.FrameSummary(frame.filename, frame.lineno, frame.name, line="")


# --- rebuilding --------------------------------------------------------------------------------


def rebuild(failure: Failure, registry: Mapping[str, type[BaseException]] | None = None) -> Exception:
    """
    An exception of the recorded type, with the recorded arguments, attributes, notes and cause.

    Args:
        failure: What was recorded.
        registry: Classes that cannot be found through their module (local ones), by their
            ``module:qualname`` or qualified name.

    Returns:
        A `StepError` if the type is unknown here, or cannot be built without its own code.
    """
    try:
        args = tuple(_arg(each) for each in failure.data.get("args", []))
        state = {str(name): decode_any(each) for name, each in failure.data.get("state", {}).items()}
    except (Refusal, RecursionError, TypeError, ValueError, AttributeError):
        args, state = (), {}
    members = [rebuild(each, registry) for each in failure.members]
    cls = _find(failure, registry or {})
    exc = None if cls is None else _build(cls, args, state, members)
    if exc is None:
        data = {"args": list(args), **{name: value for name, value in state.items() if name != "__notes__"}}
        exc = StepError(failure.type_name, failure.message, data)
        if isinstance(notes := state.get("__notes__"), list):
            exc.__notes__ = notes
    if failure.cause is not None:
        exc.__cause__ = rebuild(failure.cause, registry)
    return exc


def _find(failure: Failure, registry: Mapping[str, type[BaseException]]) -> type[Exception] | None:
    found: Any = None
    if failure.module == "builtins":
        found = _BUILTINS.get(failure.type_name)
    else:
        # By dictionary, not getattr: a module's __getattr__ may import, a metaclass's may do anything.
        found = loaded_module(failure.module)
        for name in failure.type_name.split("."):
            found = vars(found).get(name) if isinstance(found, types.ModuleType | type) else None
    if found is None:
        found = registry.get(f"{failure.module}:{failure.type_name}", registry.get(failure.type_name))
    if found is None:
        found = exception_once_called(failure.module, failure.type_name)
    return found if isinstance(found, type) and issubclass(found, Exception) else None


def _build(
    cls: type[Exception], args: tuple[Any, ...], state: dict[str, Any], members: list[Exception]
) -> Exception | None:
    if issubclass(cls, ExceptionGroup):
        if not members or len(args) != 1 or type(args[0]) is not str:
            return None
        exc: Any = ExceptionGroup.__new__(cls, args[0], members)
    else:
        exc = _empty(cls)
        if exc is None:
            return None
        BaseException.args.__set__(exc, args)  # type: ignore[attr-defined]  # a getset descriptor at run time
    try:
        fixed: frozenset[str] = frozenset()
        if isinstance(exc, UnicodeDecodeError | UnicodeEncodeError | UnicodeTranslateError):
            if not _set_unicode(exc, args):
                return None
            fixed = _UNICODE_FIELDS
        slots = _slots(cls)
        own = BaseException.__getattribute__(exc, "__dict__")
        for name, value in state.items():
            if name in fixed:
                continue
            if name in slots:
                slots[name].__set__(exc, value)
            else:
                own[name] = value
    except (TypeError, ValueError, AttributeError):  # an attribute of another kind than today's class has
        return None
    return exc  # type: ignore[no-any-return]  # made by __new__ of cls


def _empty(cls: type[Exception]) -> Exception | None:
    """An instance without a call of ``__init__``, made by the native class that lays it out."""
    for base in cls.__mro__:
        if base in _NATIVE:
            native: Any = base
            try:
                exc: Any = native.__new__(cls)
            except TypeError:  # laid out by another of the bases, or by an extension that forbids it
                continue
            return exc if type(exc) is cls else None
    return None


#: CPython's str() of these errors trusts their fields: forged ones would read outside of the buffer.
_UNICODE_FIELDS: Final = frozenset({"encoding", "object", "start", "end", "reason"})


def _set_unicode(exc: UnicodeError, args: tuple[Any, ...]) -> bool:
    """Fill in the fields of *exc* through the native constructor, if they are in bounds."""
    native: Any = next(base for base in type(exc).__mro__ if base in _NATIVE)
    data = args[-4:-3]
    match args[-3:]:
        case (int(start), int(end), str()) if data and isinstance(data[0], str | bytes):
            if 0 <= start < end <= len(data[0]):
                native.__init__(exc, *args)  # checks the types, and raises TypeError
                return True
        case _:
            pass
    return False
