"""
Requests and answers as JSON lines, between a client and the owner of a file.

Errors travel by the name
of their class among `durable.errors`, with their fields; anything else becomes an InternalError.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from attrs import evolve

from durable import errors
from durable._shell.rows import NewRun
from durable._shell.templates import default, from_plain, revive, to_plain


def encode_line(request: str, arguments: dict[str, Any]) -> bytes:
    """A request as a line."""
    return json.dumps({"request": request, "arguments": arguments}, default=default).encode() + b"\n"


def decode_line(line: bytes) -> tuple[str, dict[str, Any]]:
    """The request in a line. Raises UsageError if there is none."""
    plain = json.loads(line, object_hook=revive)
    match plain:
        case {"request": str(request), "arguments": dict(arguments)}:
            return request, arguments
        case _:
            msg = "a request is an object with request and arguments"
            raise errors.UsageError(msg)


def encode_answer(result: Any) -> bytes:
    """A result as a line."""
    return json.dumps({"result": result}, default=default).encode() + b"\n"


def encode_error(error: BaseException) -> bytes:
    """An error as a line."""
    known = isinstance(error, errors.DurableError) and type(error).__module__ == "durable.errors"
    name = type(error).__name__ if known else "InternalError"
    args = list(error.args) if known else [f"{type(error).__name__}: {error}"]
    return json.dumps({"error": name, "args": args}, default=str).encode() + b"\n"


def decode_answer(line: bytes) -> Any:
    """The result in a line; raises the error in it."""
    plain = json.loads(line, object_hook=revive)
    if "error" in plain:
        cls = getattr(errors, str(plain["error"]), None)
        if isinstance(cls, type) and issubclass(cls, errors.DurableError):
            raise cls(*plain.get("args", []))
        raise errors.InternalError(str(plain))
    return plain.get("result")


def runs_to_wire(runs: list[NewRun]) -> list[dict[str, Any]]:
    """New runs as plain data."""
    return [to_plain(run) for run in runs]


def runs_from_wire(plain: list[dict[str, Any]], allocate: Callable[[], int]) -> list[NewRun]:
    """The new runs in plain data, numbered by the owner."""
    return [evolve(from_plain(each), run=allocate()) for each in plain]
