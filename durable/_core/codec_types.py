"""
One rule per type: how a value becomes plain JSON data, and how it comes back.

A rule is a pair of closures, built once per annotation and cached. Promises: nothing is
coerced in silence (``"1"`` is no int, ``True`` is no int, a subclass is not its base);
what a rule accepts, it gives back equal, and what it cannot give back it refuses; the only
code of the user's that runs is a class's own constructor and validators, through cattrs.
No rule ever imports, pickles or evaluates anything that a record names.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportUnknownLambdaType=false
# (Annotations and JSON are data here; what `type(x) is list` narrows them to has no static type.)

from __future__ import annotations

import base64
import datetime as dt
import decimal
import json
import json.encoder
import math
import pathlib
import typing
import uuid
import zoneinfo
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

import attrs

Encoder: TypeAlias = Callable[[Any, int], Any]
"""``(value, levels of nesting still allowed)`` to plain JSON data."""
Decoder: TypeAlias = Callable[[Any, Any], Any]
"""``(plain, ignored)`` to a value; the second argument makes it a structure hook of cattrs."""

NoneType: Final = type(None)

#: Python refuses to parse more than 4,300 digits (its guard against quadratic time), so that
#: a longer int could be written and never read.
_INT_BOUND: Final = 10**4000

#: The key that marks a tagged value: ``{"$": "set", "v": [1, 2]}``.
TAG: Final = "$"


class Refusal(Exception):  # noqa: N818 - internal signal; the face turns it into a RecordError
    """A value or record that a rule does not accept. Containers add to ``path`` on its way out."""

    def __init__(self, found: str, reason: str) -> None:
        super().__init__(found, reason)
        self.found = found
        self.reason = reason
        #: Innermost first.
        self.path: list[str] = []


class TooDeep(Refusal):
    """The cap on nesting is used up."""


@attrs.frozen(eq=False)
class Rule:
    """How values of one annotation are written and read."""

    name: str
    encode: Encoder
    decode: Decoder
    #: Exact types of the values it takes.
    types: tuple[type, ...]
    #: Types of the plain data it writes. Unions tell their members apart by these.
    kinds: frozenset[type]


# --- helpers -----------------------------------------------------------------------------------


def qualified(cls: Any) -> str:
    """The name of a type for people: ``int``, ``app.models.Order``, ``list[int]``."""
    if not isinstance(cls, type) or typing.get_origin(cls) is not None:
        return str(cls).removeprefix("typing.")
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def _make_dumps(*, sort_keys: bool) -> Callable[[Any], str]:
    """
    ``json.dumps`` without the set-up: building the C encoder once halves the time of a small value.

    That constructor is not documented, hence the way out when it is absent or has changed.
    """
    plain = json.JSONEncoder(
        ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False, sort_keys=sort_keys
    )
    make: Any = getattr(json.encoder, "c_make_encoder", None)
    try:
        quote = json.encoder.encode_basestring
        chunks = make(None, plain.default, quote, None, ":", ",", sort_keys, False, False)  # noqa: FBT003 - C
        if "".join(chunks({"a": [1, "é"]}, 0)) != '{"a":[1,"é"]}':
            return plain.encode
    except Exception:  # noqa: BLE001 - whatever an unknown interpreter says, the public way works
        return plain.encode
    join = "".join
    return lambda value: join(chunks(value, 0))


dumps: Final = _make_dumps(sort_keys=False)
dumps_sorted: Final = _make_dumps(sort_keys=True)


def mismatch(value: Any, expected: str) -> Refusal:
    return Refusal(qualified(type(value)), f"the annotation asks for {expected}")


def misfit(plain: Any, expected: str) -> Refusal:
    return Refusal(expected, f"the record holds {_json_kind(plain)}")


def _json_kind(plain: Any) -> str:
    text = f"{plain!r:.40}" if type(plain) in (str, int, float, bool) else ""
    return f"{type(plain).__name__} {text}".strip()


def reason_of(error: Exception) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - str() of a user's exception may itself fail
        return type(error).__name__


def convert_each(convert: Callable[[Any, Any], Any], values: Iterable[Any], extra: Any) -> list[Any]:
    """*values*, converted one by one; a refusal learns the index."""
    out: list[Any] = []
    try:
        for value in values:
            out.append(convert(value, extra))  # noqa: PERF401 - the length is the index of a refusal
    except Refusal as refusal:
        refusal.path.append(f"[{len(out)}]")
        raise
    return out


# --- scalars -----------------------------------------------------------------------------------


def _identity(value: Any, _: Any) -> Any:
    return value


def _encode_int(value: Any, _: Any) -> Any:
    if type(value) is not int:
        raise mismatch(value, "int")
    if -_INT_BOUND < value < _INT_BOUND:
        return value
    raise Refusal("int", "it has more than 4000 digits")


def _encode_float(value: Any, _: Any) -> Any:
    if type(value) is float:
        if math.isfinite(value):
            return value
        raise Refusal("float", f"{value!r} is not JSON")
    if type(value) is int:
        # PEP 484 lets an int stand for a float; it must not lose digits on the way.
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if number == value:
            return number
        raise Refusal("int", "no float has this value")
    raise mismatch(value, "float")


def _decode_float(plain: Any, _: Any) -> Any:
    if type(plain) is float or type(plain) is int:
        try:
            number = float(plain)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
        raise Refusal("float", "the number is out of range")
    raise misfit(plain, "float")


def _encode_str(value: Any, _: Any) -> Any:
    if type(value) is not str:
        raise mismatch(value, "str")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise Refusal("str", f"character {error.start} is a lone surrogate, which UTF-8 cannot hold") from None
    return value


def scalar(
    cls: type, kind: type, dump: Callable[[Any], Any], load: Callable[[Any], Any], name: str | None = None
) -> Rule:
    label = name or cls.__name__

    def encode(value: Any, _: Any) -> Any:
        if type(value) is not cls:
            raise mismatch(value, label)
        try:
            return dump(value)
        except Exception as error:  # a tzinfo of the user's may raise anything
            raise Refusal(label, reason_of(error)) from error

    def decode(plain: Any, _: Any) -> Any:
        if type(plain) is not kind:
            raise misfit(plain, label)
        try:
            return load(plain)
        except Exception as error:  # as above
            raise Refusal(label, f"the record holds {plain!r:.60}: {reason_of(error)}") from error

    return Rule(label, encode, decode, (cls,), frozenset({kind}))


def _atom(cls: type, encode: Encoder | None = None) -> Rule:
    label = "None" if cls is NoneType else cls.__name__

    def check(value: Any, _: Any) -> Any:
        if type(value) is not cls:
            raise mismatch(value, label)
        return value

    def decode(plain: Any, _: Any) -> Any:
        if type(plain) is not cls:
            raise misfit(plain, label)
        return plain

    return Rule(label, encode or check, decode, (cls,), frozenset({cls}))


def _dump_datetime(value: dt.datetime) -> str:
    text = value.isoformat()
    if type(value.tzinfo) is zoneinfo.ZoneInfo:
        # RFC 9557: without the zone's name, adding a day across a clock change would differ
        # between the value that was recorded and the one that comes back.
        if not value.tzinfo.key:
            raise ValueError("its ZoneInfo has no key")
        return f"{text}[{value.tzinfo.key}]"
    return text


def _load_datetime(text: str) -> dt.datetime:
    stamp, bracket, zone = text.partition("[")
    if len(stamp) <= len("2024-01-01"):
        raise ValueError("no time of day")
    value = dt.datetime.fromisoformat(stamp)
    if not bracket:
        return value
    if not zone.endswith("]"):
        raise ValueError("no closing bracket")
    local = value.replace(tzinfo=zoneinfo.ZoneInfo(zone[:-1]))
    if local.utcoffset() != value.utcoffset():
        local = local.replace(fold=1)
    if local.utcoffset() != value.utcoffset():
        # The zone's rules changed since. The instant is what was recorded; keep that.
        return value.astimezone(local.tzinfo)
    return local


def _dump_time(value: dt.time) -> str:
    if value.tzinfo is not None and value.utcoffset() is None:
        raise ValueError(f"a time of day cannot keep tzinfo {value.tzinfo!r}; use a fixed offset")
    return value.isoformat()


def _dump_decimal(value: decimal.Decimal) -> str:
    if value.is_nan():
        raise ValueError("a NaN is not equal to itself")
    return str(value)


def _dump_path(value: pathlib.PurePath) -> Any:
    return _encode_str(str(value), 0)


def _load_bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


_MICROSECOND: Final = dt.timedelta(microseconds=1)

PLAIN: Final = {
    NoneType: _atom(NoneType),
    bool: _atom(bool),
    int: _atom(int, _encode_int),
    str: _atom(str, _encode_str),
    float: Rule("float", _encode_float, _decode_float, (float, int), frozenset({float})),
}

STDLIB: Final = {
    dt.datetime: scalar(dt.datetime, str, _dump_datetime, _load_datetime),
    dt.date: scalar(dt.date, str, dt.date.isoformat, dt.date.fromisoformat),
    dt.time: scalar(dt.time, str, _dump_time, dt.time.fromisoformat),
    dt.timedelta: scalar(
        dt.timedelta, int, lambda span: span // _MICROSECOND, lambda count: dt.timedelta(microseconds=count)
    ),
    uuid.UUID: scalar(uuid.UUID, str, str, uuid.UUID),
    decimal.Decimal: scalar(decimal.Decimal, str, _dump_decimal, decimal.Decimal),
    bytes: scalar(bytes, str, lambda data: base64.b64encode(data).decode(), _load_bytes),
    # The annotation names the portable class, the value has the platform's.
    pathlib.Path: scalar(type(pathlib.Path()), str, _dump_path, pathlib.Path, "Path"),
    pathlib.PurePath: scalar(type(pathlib.PurePath()), str, _dump_path, pathlib.PurePath, "PurePath"),
}


# --- values without an annotation --------------------------------------------------------------


def encode_any(value: Any, depth: int) -> Any:
    """*value* by its own type: JSON's types as they are, the standard library's with a tag."""
    try:
        return _ANY_ENCODERS[type(value)](value, depth)
    except KeyError:
        pass
    raise Refusal(
        qualified(type(value)),
        "there is no annotation (or none that can be resolved) to read it back by; annotate the parameter or "
        "the result with its class, or convert it to a type of the standard library",
    )


def decode_any(plain: Any, _: Any = None) -> Any:
    """The value that `encode_any` wrote as *plain*."""
    cls = type(plain)
    if cls is dict:
        if TAG in plain:
            return _decode_tagged(plain)
        return _decode_items(decode_any, plain)
    if cls is list:
        return convert_each(decode_any, plain, None)
    if cls is float and not math.isfinite(plain):
        raise Refusal("float", "the number is out of range")
    return plain


def _encode_list(value: Any, depth: int) -> Any:
    if depth <= 0:
        raise TooDeep("list", "too deep")
    return convert_each(encode_any, value, depth - 1)


def _encode_dict(value: Any, depth: int) -> Any:
    if depth <= 0:
        raise TooDeep("dict", "too deep")
    depth -= 1
    out: dict[str, Any] = {}
    key: Any = None
    try:
        for key, item in value.items():  # a refusal names the key
            if type(key) is not str or key == TAG:
                return {TAG: "dict", "v": encode_pairs(encode_any, encode_any, value, depth)}
            if not key.isascii():
                _encode_str(key, 0)
            out[key] = encode_any(item, depth)
    except Refusal as refusal:
        refusal.path.append(key_path(key))
        raise
    return out


def encode_pairs(encode_key: Encoder, encode_item: Encoder, value: dict[Any, Any], depth: int) -> list[Any]:
    pairs: list[Any] = []
    key: Any = None
    try:
        for key, item in value.items():
            pairs.append([encode_key(key, depth), encode_item(item, depth)])
    except Refusal as refusal:
        refusal.path.append(key_path(key))
        raise
    return pairs


def _decode_items(decode: Decoder, plain: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    key = ""
    try:
        for key, item in plain.items():
            out[key] = decode(item, None)
    except Refusal as refusal:
        refusal.path.append(key_path(key))
        raise
    return out


def key_path(key: Any) -> str:
    if type(key) is str and key.isidentifier():
        return f".{key:.80}"
    if type(key) in (str, bool) or (type(key) is int and -_INT_BOUND < key < _INT_BOUND):
        return f"[{key!r:.80}]"
    return f"[<{type(key).__name__}>]"


def _tagged(tag: str, encode: Encoder) -> Encoder:
    def encode_tagged(value: Any, depth: int) -> Any:
        return {TAG: tag, "v": encode(value, depth)}

    return encode_tagged


def _encode_set(value: Any, depth: int) -> Any:
    return encode_sorted(encode_any, value, depth)


def encode_sorted(encode: Encoder, value: Any, depth: int) -> list[Any]:
    """In the order of their text: the order of a set of str differs from process to process."""
    if depth <= 0:
        raise TooDeep("set", "too deep")
    return sorted((encode(item, depth - 1) for item in value), key=dumps)


def _decode_tagged(plain: dict[str, Any]) -> Any:
    decode = _ANY_DECODERS.get(plain[TAG]) if type(plain[TAG]) is str else None
    if decode is None or "v" not in plain:
        raise Refusal("a tagged value", f"unknown tag {plain[TAG]!r:.60}")
    return decode(plain["v"], None)


def collection_decoder(make: Callable[[list[Any]], Any], decode: Decoder, label: str) -> Decoder:
    def decode_collection(plain: Any, _: Any) -> Any:
        if type(plain) is not list:
            raise misfit(plain, label)
        try:
            return make(convert_each(decode, plain, None))
        except TypeError as error:
            raise Refusal(label, reason_of(error)) from error

    return decode_collection


def decode_pairs(decode_key: Decoder, decode_item: Decoder, plain: Any) -> dict[Any, Any]:
    out: dict[Any, Any] = {}
    for index, pair in enumerate(plain):
        try:
            if type(pair) is not list or len(pair) != 2:  # noqa: PLR2004 - a pair
                raise misfit(pair, "a pair of key and value")
            out[decode_key(pair[0], None)] = decode_item(pair[1], None)
        except Refusal as refusal:
            refusal.path.append(f"[{index}]")
            raise
        except TypeError as error:
            raise Refusal("a key", reason_of(error)) from error
    return out


def _decode_any_pairs(plain: Any, _: Any) -> Any:
    if type(plain) is not list:
        raise misfit(plain, "a list of pairs")
    return decode_pairs(decode_any, decode_any, plain)


_ANY_ENCODERS: Final[dict[type, Encoder]] = {
    NoneType: _identity,
    bool: _identity,
    int: _encode_int,
    str: _encode_str,
    float: _encode_float,
    list: _encode_list,
    dict: _encode_dict,
    tuple: _tagged("tuple", _encode_list),
    set: _tagged("set", _encode_set),
    frozenset: _tagged("frozenset", _encode_set),
}
_ANY_DECODERS: Final[dict[str, Decoder]] = {
    "dict": _decode_any_pairs,
    "tuple": collection_decoder(tuple, decode_any, "tuple"),
    "set": collection_decoder(set, decode_any, "set"),
    "frozenset": collection_decoder(frozenset, decode_any, "frozenset"),
}
for _rule in STDLIB.values():
    _ANY_ENCODERS.setdefault(_rule.types[0], _tagged(_rule.name, _rule.encode))
    _ANY_DECODERS[_rule.name] = _rule.decode

ANY: Final = Rule("Any", encode_any, decode_any, (), frozenset())
