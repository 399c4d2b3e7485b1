"""
Requests and their results as plain data, by the annotations of their fields.

Closed, since the other side is another program: an object has no keys but the fields of its class, and a
new run says nothing that is the owner's to say.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from typing import Any, Final, TypeVar, get_args

from attrs import evolve

from durable import errors
from durable._core.codec.codec import Codec
from durable._core.codec.exceptions.safe_text import one_line
from durable._core.codec.records import record_codec
from durable._core.codec.rule import Refusal
from durable._core.recorded.export_format import Header, RunHistory, export_lines, header_line
from durable._core.recorded.export_reader import read_export
from durable._shell.requests.request import JournalRequest
from durable._shell.rows.rows import NewRun
from durable._shell.rows.templates import RECORDS, to_plain, without_ties

R = TypeVar("R")


def plain_result(request: JournalRequest[R], result: R) -> Any:
    """What *request* resulted in, as plain data."""
    return encoding().to_plain(result, _result_type(request))


def result_from(request: JournalRequest[R], plain: Any) -> R:
    """
    The result of *request* that `plain_result` wrote.

    Raises:
        DecodeError: It is none.
    """
    result: R = encoding().from_plain(plain, _result_type(request))
    return result


def plain_error(error: BaseException) -> tuple[str, list[Any]]:
    """An error as the name of its class among `durable.errors`, and its fields; a stranger is an InternalError."""
    if isinstance(error, errors.DurableError) and type(error).__module__ == errors.__name__:
        return type(error).__name__, list(error.args)
    return "InternalError", [one_line(error)]


def error_from(name: str, args: list[Any]) -> errors.DurableError | None:
    """The error that `plain_error` told of; None if this release has none of that name and fields."""
    cls = getattr(errors, name, None)
    if isinstance(cls, type) and issubclass(cls, errors.DurableError):
        with suppress(TypeError):
            return cls(*args)
    return None


def _result_type(request: JournalRequest[Any]) -> Any:
    """What its class says, as ``JournalRequest[list[str]]``."""
    (result,) = get_args(type(request).__orig_bases__[0])  # type: ignore[attr-defined]  # every generic's child has it
    return result


# --- rules ---------------------------------------------------------------------------------------


def _encode_histories(histories: tuple[RunHistory, ...], _: int) -> list[str]:
    return [header_line(Header("", 0, "")), *(line for each in histories for line in export_lines(each))]


def _decode_histories(plain: Any) -> tuple[RunHistory, ...]:
    lines: list[str] = _LINES.decode(plain)
    try:
        return tuple(read_export((line.encode() for line in lines), "the request"))
    except errors.ExportFormatError as error:
        raise Refusal("exported runs", str(error)) from error


def _decode_run(plain: Any) -> NewRun:
    return without_ties(RECORDS.rule(NewRun).decode(plain))


_LINES: Final = RECORDS.rule(list[str])


@cache
def encoding() -> Codec:
    """What reads and writes requests. Made when the first one travels: most programs have no clients."""
    return record_codec(
        {
            NewRun: evolve(RECORDS.rule(NewRun), encode=lambda run, _: to_plain(run), decode=_decode_run),
            # As the lines of a file, and as strictly checked as those.
            tuple[RunHistory, ...]: evolve(_LINES, encode=_encode_histories, decode=_decode_histories),
        },
        closed=True,
    )
