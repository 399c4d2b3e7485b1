"""
Errors and arguments as payloads: what events hold, through the codec and its hooks like every other value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from durable._core.codec.codec import Codec, Payload
from durable._core.codec.exceptions.failures import Failure, rebuild, record_exception
from durable._core.codec.json_text import dumps
from durable._core.program.ops import RunOp, Signal, StepOp, TransactionOp, kind_of
from durable._core.program.requests import Request
from durable.errors import CallbackFailedError, CapExceededError, EncodeError

#: Arguments below these are written as they are, whatever the caps.
_SMALL: Final = 2**63
_SHORT: Final = 1024


def failure_payload(error: BaseException, codec: Codec, *, with_traceback: bool = True) -> Payload:
    """*error* as the payload of a failure event."""
    return payload_of(record_exception(error, codec, with_traceback=with_traceback), codec)


def answer_failure(error: str | Exception, codec: Codec) -> Payload:
    """
    What fails a callback, as it is recorded; a text becomes a `CallbackFailedError`.

    Raises:
        TypeError: It is neither.
    """
    given: Any = error
    if not isinstance(given, (str, Exception)):
        msg = f"fail takes an exception or a text, found {given!r:.60}"
        raise TypeError(msg)
    failure = CallbackFailedError(error) if isinstance(error, str) else error
    return failure_payload(failure, codec, with_traceback=False)


def payload_of(failure: Failure, codec: Codec) -> Payload:
    """*failure* as the payload of a failure event."""
    return codec.dump_plain(failure.to_json(), where="a failure")


def failure_in(payload: Payload | None, codec: Codec) -> Failure:
    """The failure that a payload of `failure_payload` holds."""
    return Failure.from_json(codec.load_plain(payload or "null", where="a failure"))


def rebuilt(payload: Payload | None, codec: Codec) -> Exception:
    """The exception in *payload*, of its original type: equal on the first run and on every replay."""
    return rebuild(failure_in(payload, codec))


def arguments_payload(op: RunOp[Any], codec: Codec) -> Payload:
    """The arguments of a run; encoded early, so that a refusal is raised at the user's line."""
    where = f"arguments of {op.describe()}"
    return codec.encode_arguments(op.args, op.kwargs, op.definition.arguments, where=where)


def encoded_signal(signal: str | Signal[Any], payload: Any, codec: Codec) -> tuple[str, Payload]:
    """
    The name of a signal, and what it carries as it is recorded.

    Raises:
        EncodeError: The payload cannot be recorded, or is not of the signal's type.
    """
    if not isinstance(signal, Signal):
        return signal, codec.encode_by_value(payload, where=f"payload of signal {signal!r}")
    return signal.name, codec.encode(payload, signal.type, where=f"payload of signal {signal.name!r}")


def encoded_question(request: str | Request[Any, Any], question: Any, codec: Codec) -> tuple[str, Payload]:
    """
    As `encoded_signal`, of a request.

    Raises:
        EncodeError: The question cannot be recorded, or is not of the request's type.
    """
    given: Any = request
    if isinstance(given, Request):
        where = f"question of request {given.name!r}"
        return given.name, codec.encode(question, given.question, where=where)
    if not isinstance(given, str) or not given:
        msg = f"ask takes a Request, or the name of one, found {kind_of(given)}"
        raise TypeError(msg)
    return given, codec.encode_by_value(question, where=f"question of request {given!r}")


def call_digest(op: RunOp[Any], arguments: Payload, codec: Codec) -> str:
    """What equal calls share, *arguments* being those of *op*: a default that was written out makes no other call."""
    return codec.digest(_without_defaults(op, arguments, codec))


def call_forms(op: RunOp[Any], codec: Codec) -> tuple[str, ...]:
    """
    The arguments of *op* as canonical text, less defaults that are written out; then with them, if there are some.

    A history may have either: which one it has is up to the release that recorded it.
    """
    try:
        given = arguments_payload(op, codec)
        call = _without_defaults(op, given, codec)
        return tuple(map(codec.canonical_of, (call,) if call is given else (call, given)))
    except (EncodeError, CapExceededError):
        return ()


def _without_defaults(op: RunOp[Any], arguments: Payload, codec: Codec) -> Payload:
    types = op.definition.arguments
    if not op.kwargs and len(op.args) <= types.required:  # as most: nothing that has a default is given
        return arguments
    args, kwargs = types.without_defaults(op.args, op.kwargs)
    if len(args) == len(op.args) and len(kwargs) == len(op.kwargs):
        return arguments
    return codec.encode_arguments(args, kwargs, op.definition.arguments, where=f"arguments of {op.describe()}")


def keys_of(op: RunOp[Any], arguments: Payload, codec: Codec) -> tuple[str | None, str]:
    """
    The idempotency key of *op*, and the key of its limit: what functions of the user's make of its arguments.

    Raises:
        DefinitionError: A function failed, or made no usable key.
    """
    definition = op.definition
    key = definition.key_for(op, lambda: call_digest(op, arguments, codec))
    of_limit = definition.limit_key_for(op.args, op.kwargs) if definition.options.limit_key is not None else ""
    return key, of_limit


def _is_plain(value: object) -> bool:
    """Whether *value* is itself in a record, and short: under any cap."""
    if type(value) is int:
        return -_SMALL < value < _SMALL
    if type(value) is str:
        return len(value) < _SHORT
    return value is None or type(value) is bool


def step_forms(op: StepOp[Any] | TransactionOp[Any], codec: Codec) -> tuple[str, ...]:
    """As `call_forms`, of a step; none where its arguments cannot be encoded (they need not be)."""
    if not (op.args or op.kwargs):
        return ()
    args, kwargs = op.definition.arguments.without_defaults(op.args, op.kwargs)
    call = step_arguments(args, kwargs, codec)
    if call is None:
        return ()
    if len(args) == len(op.args) and len(kwargs) == len(op.kwargs):
        return (call,)
    given = step_arguments(op.args, op.kwargs, codec)
    return (call,) if given is None else (call, given)


def step_arguments(args: tuple[Any, ...], kwargs: Mapping[str, Any], codec: Codec) -> str | None:
    """A step's arguments as canonical text; None where they cannot be encoded (they need not be)."""
    if not (args or kwargs):
        return None
    if not kwargs and all(map(_is_plain, args)):  # as most are; the way through the rules takes twice as long
        return dumps([args, kwargs])
    try:
        return codec.canonical([list(args), kwargs])
    except (EncodeError, CapExceededError):
        return None
