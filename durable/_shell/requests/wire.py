"""
Requests and answers as JSON lines, between a client and the owner of a file.

A request travels under the name of its class, with its fields (see `encoding`): what arrives fits, or is
refused with the name of the field. Errors travel by the name of their class among `durable.errors`, with
their fields; anything else becomes an InternalError. Each line says of which version it is, so that a client
of another release gets an error that says what to do.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from durable import errors
from durable._core.codec.json_text import loads
from durable._core.light_frozen import light_frozen
from durable._core.release import RELEASE
from durable._shell.requests import (
    batch_requests,
    callback_requests,
    history_requests,
    prune_requests,
    queue_requests,
    run_requests,
    schedule_requests,
)
from durable._shell.requests.encoding import encoding, error_from, plain_error, plain_result, result_from
from durable._shell.requests.once import Once
from durable._shell.requests.request import JournalRequest
from durable._shell.rows.templates import bytes_to_json
from durable.errors import DecodeError, EncodeError, UsageError

#: Of the protocol. Grows whenever a request, or what it carries, changes so that another release would take it for
#: something else, or for nothing; what is new under a name of its own is refused by name.
VERSION: Final = 1
#: Longest line: thirty-two payloads of the largest size.
LINE_BYTES = 32 << 20
#: Lines from here on are decoded in a thread: some milliseconds, in which a loop does nothing else.
LARGE_LINE: Final = 64 << 10
#: Longest id under which a request is recorded once; those of our clients have 32 characters.
_ID_LENGTH: Final = 100


@light_frozen
class WaitForEnd:
    """Answered once a run may have ended. It changes nothing, hence is not a request to be recorded."""

    run_id: str


@light_frozen
class WaitForNews:
    """Answered once something about a run is not as *mark* says, see `stream_rows.news_mark`."""

    run_id: str
    mark: str


@light_frozen
class WaitForAnswer:
    """Answered once the request of that id into a run may have been answered, or cannot be any more."""

    request: str
    run_id: str


@light_frozen
class FollowEvents:
    """Answered with events, one line after the other, until one of the two hangs up: see `WantedEvents`."""

    run_id: str | None
    workflow: str | None
    kinds: tuple[str, ...] | None


@light_frozen
class ScrubFile:
    """Answered once the file was written anew. Nothing is recorded, and no transaction can hold it."""


@light_frozen
class AskHealth:
    """Answered with how the engine is: its status, then a sentence for each thing that is wrong."""


Asked: TypeAlias = JournalRequest[Any] | WaitForEnd | WaitForNews | WaitForAnswer | FollowEvents | ScrubFile | AskHealth
#: What is no request to be recorded, and is answered with nothing, or with some texts.
UNRECORDED: Final = (WaitForEnd, WaitForNews, WaitForAnswer, FollowEvents, ScrubFile, AskHealth)

_MODULES = (
    run_requests, history_requests, queue_requests, schedule_requests, batch_requests, prune_requests,
    callback_requests,
)  # fmt: skip
#: What may be asked for, by the name under which it travels.
REQUESTS: Final[dict[str, type[Asked]]] = {
    cls.__name__: cls for cls in (*(each for module in _MODULES for each in module.REQUESTS), *UNRECORDED)
}


# --- requests ------------------------------------------------------------------------------------


def encode_request(request: Asked) -> bytes:
    """
    A request as a line.

    Raises:
        UsageError: It is longer than what an engine listens to, or a field is not what its annotation says.
    """
    request_id, asked = _unwrapped(request)
    name = name_of(asked)
    try:
        arguments = encoding().to_plain(asked, type(asked))
    except EncodeError as error:
        msg = f"{name}{error.path[1:]}: found {error.found}, {error.reason}"
        raise UsageError(msg) from error
    plain = {"version": VERSION, "release": RELEASE, "id": request_id, "request": name, "arguments": arguments}
    line = _line(plain)
    if len(line) > LINE_BYTES:
        msg = (
            f"{name} takes {len(line):,} bytes, and the engine that has the file takes {LINE_BYTES:,} at once: "
            "make several requests of it, or repeat it while no engine has the file"
        )
        raise UsageError(msg)
    return line


def decode_request(line: bytes, path: str) -> Asked:
    """
    The request in a line, for the owner of the journal at *path*.

    Raises:
        JournalVersionError: A client of another release sent it.
        UsageError: There is none, or a field of it is missing, unknown, or of another type.
    """
    plain = _parse(line)
    version, client = plain.get("version"), f"{plain.get('release', 'of an older release')!s:.40}"
    if version != VERSION:
        raise _mismatch(
            path, f"process {os.getpid()}, durable {RELEASE}: {VERSION}", f"durable {client}: {version!r:.20}"
        )
    try:
        return _decode_request(plain)
    except UsageError as error:
        # Of one version, but the newer may know a request or a field more.
        other = "" if client == RELEASE else f" (the client is durable {client}, the engine durable {RELEASE})"
        msg = f"{error}{other}"
        raise UsageError(msg) from error


def _decode_request(plain: dict[str, Any]) -> Asked:
    match plain:
        case {"request": str(name), "arguments": dict(arguments)}:
            pass
        case _:
            msg = 'expected a line of {"request": NAME, "arguments": {...}, ...}'
            raise UsageError(msg)
    request_id = plain.get("id")
    if request_id is not None and not (isinstance(request_id, str) and len(request_id) <= _ID_LENGTH):
        msg = f"id: expected a text of up to {_ID_LENGTH} characters, found {request_id!r:.40}"
        raise UsageError(msg)
    cls = REQUESTS.get(name)
    if cls is None:
        msg = f"no request is called {name!r:.80}"
        raise UsageError(msg)
    try:
        request: Asked = encoding().from_plain(arguments, cls)
    except DecodeError as error:
        raise UsageError(error.about(name)) from error
    return request if request_id is None or isinstance(request, UNRECORDED) else Once(request_id, request)


def name_of(request: Asked) -> str:
    """The name under which *request* travels."""
    return type(_unwrapped(request)[1]).__name__


def _unwrapped(request: Asked) -> tuple[str | None, Asked]:
    """The id under which *request* is recorded once, if it is, and what is asked for."""
    return (request.id, request.request) if isinstance(request, Once) else (None, request)


# --- answers -------------------------------------------------------------------------------------


def encode_answer(request: Asked, result: Any) -> bytes:
    """What *request* resulted in, as a line."""
    _, asked = _unwrapped(request)
    # what is not recorded results in nothing, or in texts, which are plain
    plain = result if isinstance(asked, UNRECORDED) else plain_result(asked, result)
    return _line({"version": VERSION, "result": plain})


def encode_error(error: BaseException) -> bytes:
    """An error as a line, in a form that clients of every release read."""
    name, args = plain_error(error)
    return _line({"version": VERSION, "error": name, "args": args}, default=str)


def decode_answer(request: Asked, line: bytes, path: str) -> Any:
    """
    The result of *request* in a line, which the owner of the journal at *path* sent; raises the error in it.

    Raises:
        JournalVersionError: The owner is of another release.
    """
    try:
        plain = _parse(line)
    except UsageError as error:
        raise _nonsense(line, path) from error
    version = plain.get("version")
    if version is None or (version != VERSION and "error" not in plain):
        raise _mismatch(path, f"durable of another release: {version}", f"durable {RELEASE}: {VERSION}")
    match plain:
        case {"error": str(name), "args": list(args)}:
            raise error_from(name, args) or _nonsense(line, path)
        case {"result": result}:
            _, asked = _unwrapped(request)
            if not isinstance(asked, UNRECORDED):
                return result_from(asked, result)
            if not isinstance(asked, (AskHealth, FollowEvents)):
                return None
            if (
                isinstance(result, list)
                and (result or isinstance(asked, FollowEvents))
                and all(isinstance(each, str) for each in result)
            ):
                return result
        case _:
            pass
    raise _nonsense(line, path)


def _nonsense(line: bytes, path: str) -> errors.InternalError:
    return errors.InternalError(f"the engine that has {path} gave no answer to that: {line!r:.200}")


# --- lines ---------------------------------------------------------------------------------------


def _line(plain: dict[str, Any], default: Callable[[Any], Any] = bytes_to_json) -> bytes:
    return json.dumps(plain, default=default).encode() + b"\n"


def _parse(line: bytes) -> dict[str, Any]:
    try:
        text = line.decode().removesuffix("\n")
        plain = loads(text)
        if "\\u" in text:  # refused, since half a character is JSON, but no text that SQLite takes
            json.dumps(plain, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:  # UnicodeError is a ValueError
        msg = f"expected a line of JSON in UTF-8: {error}"
        raise UsageError(msg) from error
    if type(plain) is not dict:
        msg = f"expected an object in a line, found {type(plain).__name__}"
        raise UsageError(msg)
    return plain


def _mismatch(path: str, engine: str, client: str) -> errors.JournalVersionError:
    return errors.JournalVersionError(
        path,
        f"the engine that has it ({engine}) and this client ({client}) speak different versions of the protocol. "
        "Use one release of durable for both: start the older of them anew with that of the other",
    )
