"""
Requests and answers as JSON lines, between a client and the owner of a file.

A request travels under the name of its class, with its fields (see `encoding`): what arrives fits, or is
refused with the name of the field. Errors travel by the name of their class among `durable.errors`, with
their fields; anything else becomes an InternalError.
"""

from __future__ import annotations

import json
from typing import Any, Final, NoReturn, TypeAlias, get_args

from attrs import frozen

from durable import errors
from durable._core.codec.rule import Refusal
from durable._shell.requests import (
    batch_requests,
    history_requests,
    prune_requests,
    queue_requests,
    run_requests,
    schedule_requests,
)
from durable._shell.requests.encoding import DEPTH, RULES
from durable._shell.requests.request import Request
from durable._shell.rows.templates import default, revive

#: Longest line: thirty-two payloads of the largest size.
LINE_BYTES = 32 << 20


@frozen
class WaitForEnd:
    """Answered once a run may have ended. It changes nothing, hence is no request to be recorded."""

    run_id: str


Asked: TypeAlias = Request[Any] | WaitForEnd

_MODULES = (run_requests, history_requests, queue_requests, schedule_requests, batch_requests, prune_requests)
#: What may be asked for, by the name under which it travels.
REQUESTS: Final[dict[str, type[Asked]]] = {
    cls.__name__: cls for cls in (*(each for module in _MODULES for each in module.REQUESTS), WaitForEnd)
}


def socket_path(path: str) -> str:
    """Where the owner of the journal at *path* listens."""
    return f"{path}.sock"


# --- requests ------------------------------------------------------------------------------------


def encode_request(request: Asked) -> bytes:
    """
    A request as a line.

    Raises:
        UsageError: It is longer than what an engine listens to, or a field is not what its annotation says.
    """
    name = type(request).__name__
    try:
        arguments = RULES.get(type(request)).encode(request, DEPTH)
    except Refusal as refusal:
        msg = f"{name}{_path(refusal)}: found {refusal.found}, {refusal.reason}"
        raise errors.UsageError(msg) from refusal
    line = json.dumps({"request": name, "arguments": arguments}, default=default).encode() + b"\n"
    if len(line) > LINE_BYTES:
        msg = (
            f"{name} takes {len(line):,} bytes, and the engine that has the file takes {LINE_BYTES:,} at once: "
            "make several requests of it, or repeat it while no engine has the file"
        )
        raise errors.UsageError(msg)
    return line


def decode_request(line: bytes) -> Asked:
    """
    The request in a line.

    Raises:
        UsageError: There is none, or a field of it is missing, unknown, or of another type.
    """
    match _parse(line):
        case {"request": str(name), "arguments": dict(arguments)}:
            pass
        case _:
            msg = 'expected a line of {"request": NAME, "arguments": {...}}'
            raise errors.UsageError(msg)
    cls = REQUESTS.get(name)
    if cls is None:
        msg = f"no request is called {name!r:.80}"
        raise errors.UsageError(msg)
    try:
        request: Asked = RULES.get(cls).decode(arguments)
    except Refusal as refusal:
        msg = f"{name}{_path(refusal)}: expected {refusal.found}, {refusal.reason}"
        raise errors.UsageError(msg) from refusal
    except RecursionError as error:
        msg = f"{name}: it is nested too deep"
        raise errors.UsageError(msg) from error
    return request


def _parse(line: bytes) -> Any:
    try:
        text = line.decode()
        plain = json.loads(text, object_hook=revive, parse_constant=_refuse_constant)
        if "\\u" in text:  # half a character is JSON, and no text that SQLite takes
            json.dumps(plain, ensure_ascii=False, default=default).encode()
    except (ValueError, RecursionError) as error:  # UnicodeError is a ValueError
        msg = f"expected a line of JSON in UTF-8: {error}"
        raise errors.UsageError(msg) from error
    return plain


def _refuse_constant(name: str) -> NoReturn:
    msg = f"{name} is not JSON"
    raise ValueError(msg)


def _path(refusal: Refusal) -> str:
    return "".join(reversed(refusal.path))


# --- answers -------------------------------------------------------------------------------------


def encode_answer(request: Asked, result: Any) -> bytes:
    """What *request* resulted in, as a line."""
    plain = RULES.get(_result_of(request)).encode(result, DEPTH)
    return json.dumps({"result": plain}, default=default).encode() + b"\n"


def encode_error(error: BaseException) -> bytes:
    """An error as a line."""
    known = isinstance(error, errors.DurableError) and type(error).__module__ == "durable.errors"
    name = type(error).__name__ if known else "InternalError"
    args = list(error.args) if known else [f"{type(error).__name__}: {error}"]
    return json.dumps({"error": name, "args": args}, default=str).encode() + b"\n"


def decode_answer(request: Asked, line: bytes) -> Any:
    """The result of *request* in a line; raises the error in it."""
    plain = json.loads(line, object_hook=revive)
    if "error" in plain:
        cls = getattr(errors, str(plain["error"]), None)
        if isinstance(cls, type) and issubclass(cls, errors.DurableError):
            raise cls(*plain.get("args", []))
        raise errors.InternalError(str(plain))
    return RULES.get(_result_of(request)).decode(plain.get("result"))


def _result_of(request: Asked) -> Any:
    """What a request results in: its class says so, as ``Request[list[str]]``."""
    if isinstance(request, WaitForEnd):
        return None
    (result,) = get_args(type(request).__orig_bases__[0])  # type: ignore[attr-defined]  # of every Request
    return result
