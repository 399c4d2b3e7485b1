"""
Errors and arguments as payloads: what events hold, through the codec and its hooks like every other value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from durable._core.codec.codec import Codec, Payload
from durable._core.codec.failures import Failure, rebuild, record_exception
from durable.errors import CapExceededError, EncodeError

if TYPE_CHECKING:
    from durable._core.program.ops import RunOp


def failure_payload(error: BaseException, codec: Codec, *, with_traceback: bool = True) -> Payload:
    """*error* as the payload of a failure event."""
    return codec.dump_plain(record_exception(error, codec, with_traceback=with_traceback).to_json(), where="a failure")


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


def arguments_digest(args: tuple[Any, ...], kwargs: Mapping[str, Any], codec: Codec) -> str:
    """A short digest of a step's arguments, for reports; empty where they cannot be recorded (they need not be)."""
    if not (args or kwargs):
        return ""
    try:
        return codec.digest(codec.encode([list(args), kwargs]))
    except (EncodeError, CapExceededError):
        return ""
