"""
Requests and answers as JSON lines, between a client and the owner of a file.

Payloads are text, or bytes as base64 where codec hooks made them. Errors travel by the name
of their class among `durable.errors`, with their fields; anything else becomes an InternalError.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

from attrs import asdict, evolve

from durable import errors
from durable._core.events import RunStarted
from durable._shell.rows import NewRun


def _default(value: object) -> Any:
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    raise TypeError(type(value).__name__)


def _revive(plain: dict[str, Any]) -> Any:
    if len(plain) == 1 and isinstance(plain.get("$bytes"), str):
        return base64.b64decode(plain["$bytes"])
    return plain


def encode_line(request: str, arguments: dict[str, Any]) -> bytes:
    """A request as a line."""
    return json.dumps({"request": request, "arguments": arguments}, default=_default).encode() + b"\n"


def decode_line(line: bytes) -> tuple[str, dict[str, Any]]:
    """The request in a line. Raises UsageError if there is none."""
    plain = json.loads(line, object_hook=_revive)
    match plain:
        case {"request": str(request), "arguments": dict(arguments)}:
            return request, arguments
        case _:
            msg = "a request is an object with request and arguments"
            raise errors.UsageError(msg)


def encode_answer(result: Any) -> bytes:
    """A result as a line."""
    return json.dumps({"result": result}, default=_default).encode() + b"\n"


def encode_error(error: BaseException) -> bytes:
    """An error as a line."""
    known = isinstance(error, errors.DurableError) and type(error).__module__ == "durable.errors"
    name = type(error).__name__ if known else "InternalError"
    args = list(error.args) if known else [f"{type(error).__name__}: {error}"]
    return json.dumps({"error": name, "args": args}, default=str).encode() + b"\n"


def decode_answer(line: bytes) -> Any:
    """The result in a line; raises the error in it."""
    plain = json.loads(line, object_hook=_revive)
    if "error" in plain:
        cls = getattr(errors, str(plain["error"]), None)
        if isinstance(cls, type) and issubclass(cls, errors.DurableError):
            raise cls(*plain.get("args", []))
        raise errors.InternalError(str(plain))
    return plain.get("result")


def runs_to_wire(runs: list[NewRun]) -> list[dict[str, Any]]:
    """New runs as plain data."""
    return [asdict(run) for run in runs]


def runs_from_wire(plain: list[dict[str, Any]], allocate: Callable[[], int]) -> list[NewRun]:
    """The new runs in plain data, numbered by the owner."""
    return [evolve(_run(each), run=allocate()) for each in plain]


def _run(plain: dict[str, Any]) -> NewRun:
    try:
        fields: dict[str, Any] = {**plain, "started": RunStarted(**plain["started"])}
        return NewRun(**fields)
    except (TypeError, KeyError) as error:
        msg = f"a new run in another form than this release knows: {error}"
        raise errors.UsageError(msg) from error
