"""
Requests and answers as JSON lines, between a client and the owner of a file.

Errors travel by the name
of their class among `durable.errors`, with their fields; anything else becomes an InternalError.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from attrs import evolve

from durable import errors
from durable._core.recorded.export_format import Header, RunHistory, header_line, lines_of
from durable._core.recorded.export_reader import read_export
from durable._shell.rows.rows import NewRun
from durable._shell.rows.templates import default, from_plain, revive, to_plain

#: Longest line: thirty-two payloads of the largest size.
LINE_BYTES = 32 << 20


def encode_line(request: str, arguments: dict[str, Any]) -> bytes:
    """
    A request as a line.

    Raises:
        UsageError: It is longer than what an engine listens to.
    """
    if "histories" in arguments:
        arguments = {**arguments, "histories": histories_to_wire(arguments["histories"])}
    line = json.dumps({"request": request, "arguments": arguments}, default=default).encode() + b"\n"
    if len(line) > LINE_BYTES:
        msg = (
            f"{request!r} takes {len(line):,} bytes, and the engine that has the file takes {LINE_BYTES:,} at once: "
            "make several requests of it, or repeat it while no engine has the file"
        )
        raise errors.UsageError(msg)
    return line


def decode_line(line: bytes) -> tuple[str, dict[str, Any]]:
    """The request in a line. Raises UsageError if there is none."""
    plain = json.loads(line, object_hook=revive)
    match plain:
        case {"request": str(request), "arguments": dict(arguments)}:
            if "histories" in arguments:
                arguments["histories"] = histories_from_wire(arguments["histories"])
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


def histories_to_wire(histories: Iterable[RunHistory]) -> list[str]:
    """Runs to be imported, as the lines of a file."""
    return [header_line(Header("", 0, "")), *(line for each in histories for line in lines_of(each))]


def histories_from_wire(lines: Iterable[str]) -> list[RunHistory]:
    """The runs in lines, as strictly checked as those in a file."""
    return list(read_export((line.encode() for line in lines), "the request"))


def socket_path(path: str) -> str:
    """Where the owner of the journal at *path* listens."""
    return f"{path}.sock"
