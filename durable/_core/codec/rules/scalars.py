"""
The rules of values that contain no others: JSON's own, and those of the standard library.
"""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import math
import pathlib
import uuid
import zoneinfo
from collections.abc import Callable
from typing import Any, Final

from durable._core.codec.rule import INT_BOUND, Encoder, NoneType, Refusal, Rule, misfit, mismatch, reason_of

#: Not computed anew for each number: that takes longer than all else.
_LEAST_INT: Final = -INT_BOUND


def _encode_int(value: Any, _: Any) -> Any:
    if type(value) is not int:
        raise mismatch(value, "int")
    if _LEAST_INT < value < INT_BOUND:
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


def _decode_float(plain: Any) -> Any:
    if type(plain) is float and math.isfinite(plain):  # as nearly always
        return plain
    if type(plain) is float or type(plain) is int:
        try:
            number = float(plain)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
        raise Refusal("float", "the number is out of range")
    raise misfit(plain, "float")


def encode_str(value: Any, _: Any) -> Any:
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

    def decode(plain: Any) -> Any:
        if type(plain) is not kind:
            raise misfit(plain, label)
        try:
            return load(plain)
        except Exception as error:  # again a tzinfo's code
            raise Refusal(label, f"found {plain!r:.60}: {reason_of(error)}") from error

    return Rule(label, encode, decode, (cls,), frozenset({kind}))


def _atom(cls: type, encode: Encoder | None = None) -> Rule:
    label = "None" if cls is NoneType else cls.__name__

    def check(value: Any, _: Any) -> Any:
        if type(value) is not cls:
            raise mismatch(value, label)
        return value

    def decode(plain: Any) -> Any:
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
    return encode_str(str(value), 0)


def _load_bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


_MICROSECOND: Final = dt.timedelta(microseconds=1)

PLAIN: Final = {
    NoneType: _atom(NoneType),
    bool: _atom(bool),
    int: _atom(int, _encode_int),
    str: _atom(str, encode_str),
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
