"""
Values whose sender does not know the annotation that they are read by: payloads of signals, replaced outcomes.

The sender writes each by its own type (`by_value`): JSON's types as they are, those of the standard library with a tag,
classes as their fields. Who reads them names the type, and so knows what a tag says already (`lenient`). Nothing is
guessed: a tag is taken off only where the annotation asks for what stands under it.
"""

from __future__ import annotations

import decimal
from collections.abc import Callable
from typing import Any, Final

from attrs import evolve

from durable._core.codec.rule import TAG, Refusal, Rule
from durable._core.codec.rules.untyped import TAGS, encode_any, encoders_of


def by_value(get: Callable[[Any], Rule]) -> Rule:
    """The rule that writes each value by its own type, classes by the rule that *get* has for them."""

    def encode(value: Any, depth: int) -> Any:
        cls = type(value)
        own = encoders.get(cls)
        if own is not None:
            return own(value, depth)
        rule = get(cls)
        if cls not in rule.types:
            return encode_any(value, depth)  # which refuses it, and says why
        return rule.encode(value, depth)

    made = Rule("its own type", encode, _never, (), frozenset())
    encoders = encoders_of(made)
    return made


def _never(_plain: Any) -> Any:
    raise AssertionError("who reads a value names its type")


def lenient(rule: Rule) -> Rule:
    """*rule*, that also reads what was written by the value's own type."""
    numbers = _NUMBERS if decimal.Decimal in rule.types else ()

    is_dict = dict in rule.types  # which would take the tag for an item

    def decode(plain: Any) -> Any:
        tagged = type(plain) is dict and plain.keys() == _TAGGED and plain[TAG] in TAGS
        if tagged and is_dict:
            return rule.decode(plain["v"])
        try:
            return rule.decode(plain)
        except Refusal:
            if tagged:
                return rule.decode(plain["v"])
            if type(plain) in numbers:
                return rule.decode(repr(plain))
            raise

    return evolve(rule, decode=decode)


_TAGGED: Final = {TAG, "v"}
#: JSON that people write for a Decimal.
_NUMBERS: Final = (int, float)
