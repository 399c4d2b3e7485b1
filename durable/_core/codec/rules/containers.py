"""
The rules of lists, tuples, sets and dicts, made of the rules of their items.
"""

from __future__ import annotations

from typing import Any

from durable._core.codec.json_text import dumps
from durable._core.codec.rule import (
    Decoder,
    Encoder,
    Refusal,
    Rule,
    TooDeep,
    convert_each,
    key_path,
    misfit,
    mismatch,
    reason_of,
    revert_each,
)
from durable._core.codec.rules.recorded_sets import RecordedFrozenSet, RecordedSet
from durable._core.codec.rules.scalars import PLAIN


def collection_rule(cls: Any, name: str, item: Rule) -> Rule:
    """*cls* is list, set, frozenset, or tuple with items of one type: any number of items, as an array."""
    convert, revert = item.encode, item.decode
    made: Any = {set: RecordedSet, frozenset: RecordedFrozenSet}.get(cls, cls)
    types_: tuple[type, ...] = (cls,) if made is cls else (cls, made)
    ordered = made is cls

    def encode(value: Any, depth: int) -> Any:
        if type(value) not in types_:
            raise mismatch(value, name)
        if depth <= 0:
            raise TooDeep
        if ordered:
            return convert_each(convert, value, depth - 1)
        # In the order of their text: the order of a set of str differs from process to process.
        return sorted((convert(each, depth - 1) for each in value), key=dumps)

    def decode(plain: Any) -> Any:
        if type(plain) is not list:
            raise misfit(plain, name)
        items = revert_each(revert, plain)
        if cls is list:
            return items
        try:
            return made(items)
        except TypeError as error:  # cannot be hashed
            raise Refusal(name, reason_of(error)) from error

    return Rule(name, encode, decode, types_, frozenset({list}))


def tuple_rule(name: str, items: list[Rule]) -> Rule:
    """A tuple with a type for each of its items."""

    def encode(value: Any, depth: int) -> Any:
        if type(value) is not tuple:
            raise mismatch(value, name)
        if depth <= 0:
            raise TooDeep
        if len(value) != len(items):
            raise Refusal("tuple", f"{name} has {len(items)} items, found {len(value)}")
        return convert_each(lambda pair, left: pair[0].encode(pair[1], left), zip(items, value, strict=True), depth - 1)

    def decode(plain: Any) -> Any:
        if type(plain) is not list:
            raise misfit(plain, name)
        if len(plain) != len(items):
            raise Refusal(name, f"found {len(plain)} items")
        return tuple(revert_each(lambda pair: pair[0].decode(pair[1]), zip(items, plain, strict=True)))

    return Rule(name, encode, decode, (tuple,), frozenset({list}))


def dict_rule(name: str, key_rule: Rule, item_rule: Rule) -> Rule:
    """An object where the keys are text (an int key as its digits), else a list of pairs."""
    convert, revert = item_rule.encode, item_rule.decode
    key_convert, key_revert = key_rule.encode, key_rule.decode
    digits = key_rule.types == PLAIN[int].types
    as_they_are = key_rule is PLAIN[str]  # the keys of an object are text

    def encode(value: Any, depth: int) -> Any:
        if type(value) is not dict:
            raise mismatch(value, name)
        if depth <= 0:
            raise TooDeep
        depth -= 1
        out: dict[str, Any] = {}
        key: Any = None
        try:
            for key, item in value.items():
                if as_they_are and type(key) is str and key.isascii():
                    out[key] = convert(item, depth)
                    continue
                plain = key_convert(key, depth)
                if digits:
                    plain = str(plain)
                if type(plain) is not str:
                    return encode_pairs(key_convert, convert, value, depth)
                out[plain] = convert(item, depth)
        except Refusal as refusal:
            refusal.path.append(key_path(key))
            raise
        return out

    revert_text = _decode_digits if digits else key_revert

    def decode(plain: Any) -> Any:
        if type(plain) is list:
            return decode_pairs(key_revert, revert, plain)
        if type(plain) is not dict:
            raise misfit(plain, name)
        out: dict[Any, Any] = {}
        text = ""
        try:
            for text, item in plain.items():
                out[text if as_they_are else revert_text(text)] = revert(item)
        except Refusal as refusal:
            refusal.path.append(key_path(text))
            raise
        except (TypeError, ValueError) as error:  # unhashable key, too many digits
            raise Refusal(name, reason_of(error)) from error
        return out

    # Pairs are written only where a key is not text, so that both kinds must be expected.
    texts_only = digits or key_rule.kinds == frozenset({str})
    return Rule(name, encode, decode, (dict,), frozenset({dict}) if texts_only else frozenset({dict, list}))


def _decode_digits(text: str) -> int:
    number = int(text) if text.removeprefix("-").isdecimal() else None
    if number is None or str(number) != text:
        raise misfit(text, "digits")
    return number


def encode_pairs(encode_key: Encoder, encode_item: Encoder, value: dict[Any, Any], depth: int) -> list[Any]:
    """A dict as a list, for keys that are no text."""
    pairs: list[Any] = []
    key: Any = None
    try:
        for key, item in value.items():
            pairs.append([encode_key(key, depth), encode_item(item, depth)])
    except Refusal as refusal:
        refusal.path.append(key_path(key))
        raise
    return pairs


def decode_pairs(decode_key: Decoder, decode_item: Decoder, plain: Any) -> dict[Any, Any]:
    """The dict that `encode_pairs` wrote as *plain*."""
    if type(plain) is not list:
        raise misfit(plain, "a list of pairs")
    out: dict[Any, Any] = {}
    for index, pair in enumerate(plain):
        try:
            if type(pair) is not list or len(pair) != 2:  # noqa: PLR2004 - a pair
                raise misfit(pair, "a pair of key and value")
            out[decode_key(pair[0])] = decode_item(pair[1])
        except Refusal as refusal:
            refusal.path.append(f"[{index}]")
            raise
        except TypeError as error:
            raise Refusal("a key", reason_of(error)) from error
    return out
