"""
What a rule is, how it refuses, and what all rules share.

A rule is a pair of closures, built once per annotation and cached: how a value becomes plain
JSON data, and how it comes back. Promises of every rule: nothing is coerced in silence (``"1"``
is not an int, ``True`` is not an int, a subclass is not its base); what it accepts, it gives back equal,
and what it cannot give back it refuses; the only code of the user's that runs is a class's own
constructor and validators. No rule ever imports, pickles or evaluates anything that a record names.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

from durable._core.codec.class_names import module_of, qualname_of
from durable._core.codec.exceptions.safe_text import ask_directly, message_of, name_of
from durable._core.light_frozen import late_frozen

Encoder: TypeAlias = Callable[[Any, int], Any]
"""``(value, levels of nesting still allowed)`` to plain JSON data."""
Decoder: TypeAlias = Callable[[Any], Any]
"""Plain JSON data to a value."""

NoneType: Final = type(None)

#: Python refuses to parse more than 4,300 digits (its guard against quadratic time), so that
#: a longer int could be written and never read.
INT_BOUND: Final = 10**4000

#: The key that marks a tagged value: ``{"$": "set", "v": [1, 2]}``.
TAG: Final = "$"

_LONGEST_REASON: Final = 4_096

#: Of a rule that may write anything.
EVERY_KIND: Final[frozenset[type]] = frozenset({dict, list, str, int, float, bool, NoneType})


class Refusal(Exception):  # noqa: N818 - internal signal; the face turns it into a RecordError
    """A value or record that a rule does not accept. Containers add to ``path`` on its way out."""

    def __init__(self, found: str, reason: str) -> None:
        super().__init__(found, reason)
        #: The type of the value that was found; when reading, the one that was expected.
        self.found = found
        self.reason = reason
        #: Innermost first.
        self.path: list[str] = []


class TooDeep(Refusal):
    """The cap on nesting is used up."""

    def __init__(self) -> None:
        super().__init__("a container", "it is nested too deep")


@late_frozen(eq=False)
class Rule:
    """How values of one annotation are written and read."""

    name: str
    encode: Encoder
    decode: Decoder
    #: Exact types of the values it takes.
    types: tuple[type, ...]
    #: Types of the plain data it writes. Unions tell their members apart by these.
    kinds: frozenset[type]


def unsupported(type_: Any, reason: str = "") -> Rule:
    """A rule that refuses, and says what to use instead."""
    name = qualified(type_)
    why = reason or (
        "no rule turns it into JSON and back; make it an attrs class, a dataclass, "
        "a TypedDict or a pydantic model, or annotate with types of the standard library"
    )

    def encode(value: Any, _: Any) -> Any:
        raise Refusal(qualified(type(value)), f"the annotation is {name}: {why}")

    def decode(_plain: Any) -> Any:
        raise Refusal(name, why)

    return Rule(name, encode, decode, (type_,) if isinstance(type_, type) else (), frozenset({dict}))


# --- words -------------------------------------------------------------------------------------


def qualified(cls: Any) -> str:
    """The name of a type for people: ``int``, ``app.models.Order``, ``list[int]``."""
    if not issubclass(type(cls), type):
        return str(cls).removeprefix("typing.")
    module, name = module_of(cls), qualname_of(cls)
    return name if module in ("", "builtins") else f"{module}.{name}"


def mismatch(value: Any, expected: str) -> Refusal:
    hint = " (was it not awaited?)" if isinstance(value, types.CoroutineType) else ""
    return Refusal(qualified(type(value)), f"the annotation asks for {expected}{hint}")


def misfit(plain: Any, expected: str) -> Refusal:
    return Refusal(expected, f"found {json_kind(plain)}")


def json_kind(plain: Any) -> str:
    """What *plain* JSON is, for people: ``null``, ``str 'x'``, ``dict``."""
    if plain is None:
        return "null"
    text = f"{plain!r:.40}" if type(plain) in (str, int, float, bool) else ""
    return f"{type(plain).__name__} {text}".strip()


def reason_of(error: BaseException) -> str:
    """What the user's code raised, such as a validator, as the reason of a refusal."""
    message = message_of(error, _LONGEST_REASON, ask_directly)
    return f"{name_of(error)}: {message}" if message else name_of(error)


def key_path(key: Any) -> str:
    """A key as a part of a path: ``.name``, ``[1]``."""
    if type(key) is str and key.isidentifier():
        return f".{key:.80}"
    if type(key) in (str, bool) or (type(key) is int and -INT_BOUND < key < INT_BOUND):
        return f"[{key!r:.80}]"
    return f"[<{type(key).__name__}>]"


# --- loops -------------------------------------------------------------------------------------


def convert_each(convert: Encoder, values: Iterable[Any], depth: int) -> list[Any]:
    """*values*, encoded one by one; a refusal learns the index."""
    out: list[Any] = []
    try:
        for value in values:
            out.append(convert(value, depth))  # noqa: PERF401 - the length is the index of a refusal
    except Refusal as refusal:
        refusal.path.append(f"[{len(out)}]")
        raise
    return out


def revert_each(revert: Decoder, plain: Iterable[Any]) -> list[Any]:
    """What *plain* data was made of, decoded item by item; a refusal learns the index."""
    out: list[Any] = []
    try:
        for item in plain:
            out.append(revert(item))  # noqa: PERF401 - as above
    except Refusal as refusal:
        refusal.path.append(f"[{len(out)}]")
        raise
    return out


def check_depth(plain: Any, depth: int) -> None:
    """Raise `TooDeep` if *plain* JSON nests deeper than *depth*. A loop: the data may be hostile."""
    level = [plain]
    while level:
        containers = [each for each in level if type(each) is dict or type(each) is list]
        if containers and depth <= 0:
            raise TooDeep
        depth -= 1
        level = [item for each in containers for item in (each.values() if type(each) is dict else each)]
