"""
An exception as it is recorded: plain data, and its JSON.

The names and kinds of its fields are on disk for ever. `failures` makes them of exceptions, and exceptions of them.
"""

from __future__ import annotations

import textwrap
from typing import Any, Final

from durable._core.codec.exceptions.safe_text import shown
from durable._core.light_frozen import late_frozen
from durable.errors import DecodeError

#: Links of a chain of causes and contexts, and levels of groups within groups.
CHAIN_CAP: Final = 5
GROUP_CAP: Final = 16
#: Of a message, in one line for people. Our own longest has about 400.
DESCRIBED_CHARACTERS: Final = 600

#: What Python prints between two tracebacks.
_CAUSE: Final = "The above exception was the direct cause of the following exception:"
_CONTEXT: Final = "During handling of the above exception, another exception occurred:"


@late_frozen
class Failure:
    """An exception as it is recorded. Everything in it is JSON."""

    #: The class's qualified name and module, as ``ValueError`` and ``builtins``.
    type_name: str
    module: str
    #: What ``str()`` gave.
    message: str
    #: ``{"args": [...], "state": {...}}``, both as under `Any`: the arguments, and the attributes.
    data: dict[str, Any]
    #: Text, for people only.
    traceback: str = ""
    cause: Failure | None = None
    #: What was being handled when it was raised, unless that is its cause.
    context: Failure | None = None
    #: Whether it was raised ``from None``.
    hides_context: bool = False
    #: Of an exception group.
    members: tuple[Failure, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data for `json`. Parts that are empty are left out."""
        out: dict[str, Any] = {
            "type": self.type_name,
            "module": self.module,
            "message": self.message,
            "data": self.data,
        }
        if self.traceback:
            out["traceback"] = self.traceback
        if self.cause:
            out["cause"] = self.cause.to_json()
        if self.context:
            out["context"] = self.context.to_json()
        if self.hides_context:
            out["hides_context"] = True
        if self.members:
            out["members"] = [member.to_json() for member in self.members]
        return out

    @classmethod
    def from_json(cls, plain: Any) -> Failure:
        """
        The failure that `to_json` made *plain* of.

        Raises:
            DecodeError: It is none.
        """
        return _from_json(plain, "$", CHAIN_CAP + GROUP_CAP + 1)


def _from_json(plain: Any, path: str, depth: int) -> Failure:
    match plain:
        case {"type": str(type_name), "module": str(module), "message": str(message), "data": dict(data)} if depth:
            cause, context, members = plain.get("cause"), plain.get("context"), plain.get("members", [])
            text = plain.get("traceback", "")
            if isinstance(members, list) and isinstance(text, str):
                return Failure(
                    type_name,
                    module,
                    message,
                    data,
                    text,
                    None if cause is None else _from_json(cause, f"{path}.cause", depth - 1),
                    None if context is None else _from_json(context, f"{path}.context", depth - 1),
                    plain.get("hides_context") is True,
                    tuple(_from_json(each, f"{path}.members[{i}]", depth - 1) for i, each in enumerate(members)),
                )
        case _:
            pass
    raise DecodeError("a failure", path, "an object with type, module, message and data", f"found {shown(plain, 60)}")


def describe(failure: Failure) -> str:
    """One line for people: ``ValueError: bad``. Of a group it names the first member, too."""
    first = failure.message.strip().partition("\n")[0]
    name = failure.type_name.rpartition(".")[2]
    if failure.members:
        first += f"; first: {describe(failure.members[0])}"
    if len(first) > DESCRIBED_CHARACTERS:
        first = f"{first[:DESCRIBED_CHARACTERS]}..."
    return f"{name}: {first}" if first else name


def as_printed(failure: Failure) -> str:
    """*failure* as Python prints an exception that nobody catches: its traceback, below those of what led to it."""
    lines: list[str] = []
    around, between = failure.cause, _CAUSE
    if around is None and not failure.hides_context:
        around, between = failure.context, _CONTEXT
    if around is not None:
        lines += [as_printed(around), "", between, ""]
    if failure.traceback.startswith("  File "):
        lines.append("Traceback (most recent call last):")
    lines.append(failure.traceback.strip("\n") or describe(failure))
    for number, member in enumerate(failure.members[:GROUP_CAP], 1):
        lines += [f"  failure {number} of {len(failure.members)}:", textwrap.indent(as_printed(member), "    ")]
    return "\n".join(lines)
