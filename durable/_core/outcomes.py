"""
Errors as payloads: what events hold, through the codec and its hooks like every other value.
"""

from __future__ import annotations

from durable._core.codec import Codec
from durable._core.events import Payload
from durable._core.failures import Failure, rebuild, record_exception


def failure_payload(error: BaseException, codec: Codec, *, with_traceback: bool = True) -> Payload:
    """*error* as the payload of a failure event."""
    return codec.dump_plain(record_exception(error, codec, with_traceback=with_traceback).to_json(), where="a failure")


def failure_in(payload: Payload | None, codec: Codec) -> Failure:
    """The failure that a payload of `failure_payload` holds."""
    return Failure.from_json(codec.load_plain(payload or "null", where="a failure"))


def rebuilt(payload: Payload | None, codec: Codec) -> Exception:
    """The exception in *payload*, of its original type: equal on the first run and on every replay."""
    return rebuild(failure_in(payload, codec))
