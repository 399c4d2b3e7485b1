"""
The `ValidationError` of pydantic: made by a function of its own, and holding nothing that could be set.

As everywhere, pydantic is not imported: no program has such an error without having imported it itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from durable._core.codec.class_names import loaded_class
from durable._core.codec.exceptions.safe_text import clean, message_of

#: Errors in one: the first ones tell.
_MOST_ERRORS: Final = 100
_MESSAGE_CAP: Final = 1_000


def record(exc: BaseException, plain: Callable[[Any], Any]) -> dict[str, Any] | None:
    """What *exc* is made of, as JSON, *plain* writing one value; None if it is another error."""
    cls: Any = type(exc)
    if cls is not _class("ValidationError"):
        return None
    try:
        _, (title, errors, _, hides_input) = cls.__reduce__(exc)
        return {
            "title": clean(title[:_MESSAGE_CAP]),
            "hides_input": hides_input,
            "errors": [
                {
                    "type": clean(_type_of(error["type"])[:_MESSAGE_CAP]),
                    "loc": [part if type(part) is int else clean(str(part)[:_MESSAGE_CAP]) for part in error["loc"]],
                    "msg": clean(error["msg"][:_MESSAGE_CAP]),
                    "input": None if hides_input else plain(error.get("input")),
                    "ctx": {name: _context(value, plain) for name, value in error.get("ctx", {}).items()},
                }
                for error in errors[:_MOST_ERRORS]
            ],
        }
    except (TypeError, ValueError, KeyError, AttributeError):
        # another version of pydantic, in which errors need not look like this
        return None


def _type_of(error: Any) -> str:
    found: str = error if type(error) is str else error.type  # a `PydanticCustomError`
    return found


def _context(value: Any, plain: Callable[[Any], Any]) -> Any:
    # What a validator raised: shown by its message alone.
    return message_of(value, _MESSAGE_CAP) if issubclass(type(value), BaseException) else plain(value)


def rebuild(cls: Any, recorded: Any, value: Callable[[Any], Any]) -> Exception | None:
    """The error that `record` made *recorded* of, *value* reading what *plain* wrote; None if there can be none."""
    if cls is not _class("ValidationError"):
        return None
    try:
        errors = [
            {**_kind(each, value), "loc": tuple(each["loc"]), "input": value(each["input"])}
            for each in recorded["errors"]
        ]
        made: Exception = cls.from_exception_data(recorded["title"], errors, hide_input=recorded["hides_input"] is True)
    except Exception:  # noqa: BLE001 - a record of somebody else's, or of another version of pydantic
        return None
    return made


def _kind(recorded: Any, value: Callable[[Any], Any]) -> dict[str, Any]:
    context = {name: value(each) for name, each in recorded["ctx"].items()}
    known, custom = _class("PydanticKnownError"), _class("PydanticCustomError")
    try:
        known(recorded["type"], context or None)
    except (KeyError, TypeError, ValueError):
        return {"type": custom(recorded["type"], recorded["msg"], context or None)}
    return {"type": recorded["type"], "ctx": context}


def _class(name: str) -> Any:
    return loaded_class("pydantic_core", name)
