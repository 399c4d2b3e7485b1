"""
Values without an annotation: JSON's types as they are, those of the standard library with a tag.

What comes back has the type that went in, at every level; classes of the user's are refused,
because only an annotation may say which class a record becomes.
"""

from __future__ import annotations

import datetime as dt
import math
import zoneinfo
from typing import Any, Final

from durable._core.codec.rule import TAG, Decoder, Encoder, Refusal, Rule, TooDeep, key_path, qualified, revert_each
from durable._core.codec.rules.containers import collection_rule, decode_pairs, encode_pairs
from durable._core.codec.rules.scalars import PLAIN, STDLIB, encode_str


def encode_any(value: Any, depth: int) -> Any:
    """*value* by its own type."""
    try:
        encode = _ENCODERS[type(value)]
    except KeyError:
        raise Refusal(
            qualified(type(value)),
            "there is no annotation (or none that can be resolved) to read it back by; annotate the parameter or "
            "the result with its class, or convert it to a type of the standard library",
        ) from None
    return encode(value, depth)


def decode_any(plain: Any) -> Any:
    """The value that `encode_any` wrote as *plain*."""
    cls = type(plain)
    if cls is dict:
        return _decode_tagged(plain) if TAG in plain else _decode_items(plain)
    if cls is list:
        return revert_each(decode_any, plain)
    if cls is float and not math.isfinite(plain):
        raise Refusal("float", "the number is out of range")
    return plain


def _dict_encoder(encode: Encoder) -> Encoder:
    def encode_dict(value: Any, depth: int) -> Any:
        if depth <= 0:
            raise TooDeep
        depth -= 1
        out: dict[str, Any] = {}
        key: Any = None
        try:
            for key, item in value.items():  # not a comprehension, because a refusal must name the key
                if type(key) is not str or key == TAG:
                    return {TAG: "dict", "v": encode_pairs(encode, encode, value, depth)}
                if not key.isascii():
                    encode_str(key, 0)
                out[key] = encode(item, depth)
        except Refusal as refusal:
            refusal.path.append(key_path(key))
            raise
        return out

    return encode_dict


def _decode_items(plain: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    key = ""
    try:
        for key, item in plain.items():
            out[key] = decode_any(item)
    except Refusal as refusal:
        refusal.path.append(key_path(key))
        raise
    return out


def _decode_tagged(plain: dict[str, Any]) -> Any:
    decode = _DECODERS.get(plain[TAG]) if type(plain[TAG]) is str else None
    if decode is None or "v" not in plain:
        raise Refusal("a tagged value", f"unknown tag {plain[TAG]!r:.60}")
    return decode(plain["v"])


def _tagged(rule: Rule) -> Encoder:
    tag, encode = rule.name, rule.encode
    return lambda value, depth: {TAG: tag, "v": encode(value, depth)}


def is_small(value: Any, cap: int) -> bool:
    """
    Whether *value* has about *cap* characters at most, and can be written without any code of the user's.

    For values that nobody can vouch for: only then is `encode_any` bounded in time.
    """
    pending = [value]
    while pending and cap >= 0:
        each = pending.pop()
        kind = type(each)
        cap -= 1
        if type(kind) is not type:  # refused before it is looked up, since a metaclass may define __hash__
            return False
        if kind is str or kind is bytes:
            cap -= len(each)
        elif kind is dict:
            cap -= len(each)
            if cap >= 0:
                pending += each
                pending += each.values()
        elif kind in _COLLECTIONS:
            cap -= len(each)
            if cap >= 0:
                pending += each
        elif kind is dt.datetime or kind is dt.time:
            zone = type(each.tzinfo)
            if type(zone) is not type or zone not in _ZONES:
                return False
        elif kind not in _ENCODERS:
            return False
    return cap >= 0


ANY: Final = Rule("Any", encode_any, decode_any, (), frozenset())

_ZONES: Final = frozenset((type(None), dt.timezone, zoneinfo.ZoneInfo))
_TAGGED_COLLECTIONS: Final = [collection_rule(cls, cls.__name__, ANY) for cls in (tuple, set, frozenset)]
_COLLECTIONS: Final = frozenset((list, *(type_ for rule in _TAGGED_COLLECTIONS for type_ in rule.types)))
_TAGGED: Final = [*STDLIB.values(), *_TAGGED_COLLECTIONS]


def encoders_of(item: Rule) -> dict[type, Encoder]:
    """How values of JSON's types, and of the standard library's, are written by their own type: items by *item*."""
    tagged = [*STDLIB.values(), *(collection_rule(cls, cls.__name__, item) for cls in (tuple, set, frozenset))]
    return {
        **{type_: _tagged(rule) for rule in tagged for type_ in rule.types},
        **{cls: rule.encode for cls, rule in PLAIN.items()},
        list: collection_rule(list, "list", item).encode,
        dict: _dict_encoder(item.encode),
    }


_ENCODERS: Final = encoders_of(ANY)
_DECODERS: Final[dict[str, Decoder]] = {
    **{rule.name: rule.decode for rule in _TAGGED},
    "dict": lambda plain: decode_pairs(decode_any, decode_any, plain),
}
#: What values of the standard library are tagged with.
TAGS: Final = frozenset(_DECODERS)
