"""
Records of our own: attrs classes in files and messages, where anybody may have written.

Read by the rules of the codec, from the same annotations, with what these records need beside: numbers
are such as SQLite keeps, times such as a calendar can show, and bytes are marked. A class says what its
fields may be by the annotations alone; `record_codec` adds what a format writes in its own way.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, TypeAlias

import attrs

from durable._core.codec.codec import Codec
from durable._core.codec.resolver import Rules
from durable._core.codec.rule import Refusal, Rule, misfit
from durable._core.codec.rules.classes import KEY, GetRule, class_rule
from durable._core.codec.rules.scalars import PLAIN

#: Integers of SQLite have 64 bits.
_INT_BOUND: Final = 2**63
#: The first second of the year 9999, which Python can still show as a date.
_LAST_INSTANT: Final = 253_370_764_800.0
#: Caps are for values of users. Of a record of ours, its reader bounds the text.
_NO_CAP: Final = 2**62
_BYTES_KEY: Final = "$bytes"


def narrowed(rule: Rule, name: str, fits: Callable[[Any], bool]) -> Rule:
    """*rule*, which reads only what fits; *name* says what that is."""
    revert = rule.decode

    def decode(plain: Any) -> Any:
        value = revert(plain)
        if not fits(value):
            raise misfit(plain, name)
        return value

    return Rule(name, rule.encode, decode, rule.types, rule.kinds)


def _seconds(name: str) -> Rule:
    """Of a number of seconds that a calendar can show. Every event has one, hence the short way."""
    revert = PLAIN[float].decode

    def decode(plain: Any) -> float:
        seconds: float = plain if type(plain) is float else revert(plain)
        if -_LAST_INSTANT <= seconds <= _LAST_INSTANT:
            return seconds
        raise misfit(plain, name)

    return Rule(name, PLAIN[float].encode, decode, (float, int), frozenset({float}))


#: When something was or will be.
Instant: TypeAlias = Annotated[float, _seconds("epoch seconds of a year before 9999")]
#: How long something takes or may take.
Seconds: TypeAlias = Annotated[float, _seconds("fewer seconds than 8,000 years have")]


def _decode_int(plain: Any) -> int:
    if type(plain) is not int:
        raise misfit(plain, "int")
    if -_INT_BOUND <= plain < _INT_BOUND:
        return plain
    raise misfit(plain, "int of 64 bits")


def bytes_to_plain(value: bytes) -> dict[str, str]:
    """Bytes as JSON data, marked, so that the union with text, as payloads have it, needs no tag."""
    return {_BYTES_KEY: base64.b64encode(value).decode()}


def _decode_bytes(plain: Any) -> bytes:
    if type(plain) is not dict or len(plain) != 1 or type(plain.get(_BYTES_KEY)) is not str:
        raise misfit(plain, f'{{"{_BYTES_KEY}": base64}}')
    try:
        return base64.b64decode(plain[_BYTES_KEY], validate=True)
    except ValueError as error:
        raise Refusal("base64", str(error)) from None


_INT: Final = attrs.evolve(PLAIN[int], decode=_decode_int)
_BYTES: Final = Rule("bytes", lambda value, _: bytes_to_plain(value), _decode_bytes, (bytes,), frozenset({dict}))


def record_codec(own: Mapping[Any, Rule] | None = None, *, closed: bool = False) -> Codec:
    """
    What reads and writes records of ours. What has its default is not written.

    Args:
        own: Rules of annotations that the format writes in its own way.
        closed: Whether a field that its class does not have is refused, rather than passed over.
    """
    rules = {int: _INT, bytes: _BYTES, **(own or {})}
    return Codec(
        max_bytes=_NO_CAP, max_depth=_NO_CAP, rules=Rules(rules, of_class=functools.partial(_record, closed=closed))
    )


def _record(type_: Any, cls: Any, get: GetRule, *, closed: bool) -> Rule:
    """The rule of an attrs class."""
    rule = class_rule(type_, cls, get, closed=closed)
    fields: tuple[attrs.Attribute[Any], ...] = attrs.fields(cls)

    def encode(value: Any, depth: int) -> Any:
        plain = rule.encode(value, depth)
        for each in fields:
            if getattr(value, each.name) == each.default:
                del plain[each.metadata.get(KEY, each.name)]
        return plain

    return attrs.evolve(rule, encode=encode)
