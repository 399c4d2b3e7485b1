"""
The rules of classes with fields: attrs, dataclasses, NamedTuple, TypedDict, pydantic models.

All are objects with a key per field. Fields that a class does not know (any more) are ignored,
and fields that a record does not have take their default.
"""

from __future__ import annotations

import dataclasses
import json
import operator
import sys
import typing
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import attrs

from durable._core.codec.hints import class_hints
from durable._core.codec.json_text import dumps
from durable._core.codec.rule import (
    EVERY_KIND,
    Decoder,
    Encoder,
    Refusal,
    Rule,
    TooDeep,
    check_depth,
    key_path,
    misfit,
    mismatch,
    qualified,
    reason_of,
    unsupported,
)
from durable._core.light_frozen import late_frozen

GetRule: TypeAlias = Callable[[Any], Rule]
"""The rule for an annotation; of a type that is being built, one that works once it is."""

#: In the metadata of a field: its key in records, where that is another than its name.
KEY: Final = "durable: key"


def is_typed_dict(cls: type) -> bool:
    """Also of typing_extensions, which `typing.is_typeddict` does not know."""
    return issubclass(cls, dict) and hasattr(cls, "__required_keys__")


def class_rule(type_: Any, cls: Any, get: GetRule, *, closed: bool = False) -> Rule:
    """
    The rule for *type_*, which is *cls* or an alias that fills its type variables in.

    An attrs class or dataclass that is *closed* refuses fields that it does not know.
    """
    if is_typed_dict(cls):
        return _typed_dict(type_, cls, get)
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return _named_tuple(type_, cls, get)
    if attrs.has(cls) or dataclasses.is_dataclass(cls):
        return _record(type_, cls, get, closed=closed)
    pydantic = sys.modules.get("pydantic")
    # Not imported here: no program has a model without having imported pydantic itself.
    if pydantic is not None and issubclass(cls, pydantic.BaseModel) and hasattr(cls, "model_validate_json"):
        return _model(cls)
    return unsupported(type_)


def _record(type_: Any, cls: Any, get: GetRule, *, closed: bool) -> Rule:
    """An attrs class or dataclass."""
    hints = class_hints(type_)
    fields: tuple[Any, ...] = attrs.fields(cls) if attrs.has(cls) else dataclasses.fields(cls)
    rules = {f.name: get(hints.get(f.name, f.type or Any)) for f in fields}
    label = qualified(type_)
    # Pseudo-fields are not among fields(), and the annotation may be a string.
    declared: dict[str, Any] = getattr(cls, "__dataclass_fields__", {})
    if any("INITVAR" in str(getattr(field, "_field_type", "")) for field in declared.values()):
        return unsupported(type_, "it has an InitVar, whose value no instance keeps")
    # The alias, because the constructor of an attrs class knows `_x` as `x`.
    keys = {f.name: f.metadata.get(KEY, f.name) for f in fields}
    made_of = [
        _Field(keys[f.name], getattr(f, "alias", f.name), rules[f.name], required=_is_required(f))
        for f in fields
        if f.init
    ]
    generated = _generated_init(cls)
    in_order = generated and not any(f.kw_only for f in fields)
    decode = _decode_fields(cls, label, made_of, in_order=in_order, closed=closed)
    encode = _encode_fields(cls, label, [(f.name, keys[f.name], rules[f.name].encode) for f in fields])
    # A converter or a constructor of the user's may turn what was recorded into something
    # else, and a field outside of __init__ is not recorded at all: only trying tells.
    hooked = any(hasattr(cls, name) for name in ("__attrs_pre_init__", "__attrs_post_init__", "__post_init__"))
    if hooked or not generated or any(not f.init or getattr(f, "converter", None) for f in fields):
        encode = verified(encode, decode, label)
    return Rule(label, encode, decode, (cls,), frozenset({dict}))


def _named_tuple(type_: Any, cls: Any, get: GetRule) -> Rule:
    hints = class_hints(type_)
    label = qualified(type_)
    fields = [
        _Field(name, name, get(hints.get(name, Any)), required=name not in cls._field_defaults) for name in cls._fields
    ]
    encode = _encode_fields(cls, label, [(field.name, field.name, field.rule.encode) for field in fields])
    return Rule(label, encode, _decode_fields(cls, label, fields), (cls,), frozenset({dict}))


def _typed_dict(type_: Any, cls: Any, get: GetRule) -> Rule:
    hints = class_hints(type_)
    rules = {name: get(hint) for name, hint in hints.items()}
    label = qualified(type_)
    marks = {name: getattr(typing.get_origin(hint), "_name", None) for name, hint in hints.items()}
    required = {
        name
        for name in hints
        if marks[name] == "Required" or (marks[name] != "NotRequired" and name in cls.__required_keys__)
    }

    def encode(value: Any, depth: int) -> Any:
        if type(value) is not dict:
            raise mismatch(value, label)
        if depth <= 0:
            raise TooDeep
        for name in required:
            if name not in value:
                raise Refusal("dict", f"{label} requires the key {name!r}")
        out: dict[str, Any] = {}
        for key, item in value.items():
            rule = rules.get(key) if type(key) is str else None
            if rule is None:
                raise Refusal("dict", f"{label} has no key {key!r:.80}, so that it would be lost")
            try:
                out[key] = rule.encode(item, depth - 1)
            except Refusal as refusal:
                refusal.path.append(key_path(key))
                raise
        return out

    fields = [_Field(name, name, rule, required=name in required) for name, rule in rules.items()]
    return Rule(label, encode, _decode_fields(dict, label, fields), (dict,), frozenset({dict}))


def _model(cls: Any) -> Rule:
    label = qualified(cls)

    def encode(value: Any, depth: int) -> Any:
        if type(value) is not cls:
            raise mismatch(value, label)
        try:
            text = value.model_dump_json(by_alias=True)
            plain = json.loads(text)
            same = cls.model_validate_json(text) == value
        except Exception as error:
            # serializers and validators are the user's, and may raise anything: a refusal instead
            raise Refusal(label, reason_of(error)) from error
        if not same:
            raise Refusal(label, "model_validate_json does not give back an equal model from model_dump_json")
        check_depth(plain, depth)
        return plain

    def decode(plain: Any) -> Any:
        try:
            return cls.model_validate_json(dumps(plain))
        except Exception as error:  # validators of the user's: a refusal instead
            raise Refusal(label, reason_of(error)) from error

    return Rule(label, encode, decode, (cls,), EVERY_KIND)


# --- parts -------------------------------------------------------------------------------------


def _generated_init(cls: Any) -> bool:
    """Whether the constructor is the one that attrs or dataclasses wrote, hence only assigns."""
    if attrs.has(cls):
        # attrs compiles its methods under a file name of this form.
        return "<attrs generated" in cls.__init__.__code__.co_filename
    return bool(cls.__dataclass_params__.init) and cls.__init__.__code__.co_filename == "<string>"


def _is_required(declared: Any) -> bool:
    """Whether a field of an attrs class or dataclass has no default."""
    if isinstance(declared, attrs.Attribute):
        return declared.default is attrs.NOTHING
    return declared.default is dataclasses.MISSING and declared.default_factory is dataclasses.MISSING


@late_frozen
class _Field:
    """A field as a record has it."""

    name: str
    #: What the constructor calls it.
    argument: str
    rule: Rule
    required: bool


def _decode_fields(
    make: Callable[..., Any], label: str, fields: list[_Field], *, in_order: bool = False, closed: bool = False
) -> Decoder:
    """
    What reads an object with a key per field, and calls *make* with what it holds.

    Args:
        make: The constructor.
        label: Of the class, for refusals.
        fields: What the constructor takes.
        in_order: Whether it takes them by position, in this order. That is faster than by name.
        closed: Whether fields that are not known are refused.
    """
    decoders = [(field.name, field.argument, field.rule.decode) for field in fields]
    known = {field.name for field in fields}
    required = {field.name: field.rule.name for field in fields if field.required}

    def decode(plain: Any) -> Any:
        if type(plain) is not dict:
            raise misfit(plain, label)
        left = iter(decoders)
        values: list[Any] = []
        named: dict[str, Any] = {}
        name = ""
        try:
            if in_order:
                for name, _argument, revert in left:  # not a comprehension, because a refusal must name the field
                    if name not in plain:
                        break
                    values.append(revert(plain[name]))
            if len(values) < len(plain):  # there may be some behind the first that is absent
                for name, argument, revert in left:
                    if name in plain:
                        named[argument] = revert(plain[name])
            if closed and len(values) + len(named) < len(plain):
                name = f"{next(each for each in plain if each not in known):.80}"
                raise Refusal("no field of this name", "found one")
            # fields without a default come first, so the count is enough to know that one is absent
            if len(values) < len(required):
                for name, expected in required.items():
                    if name not in plain:
                        raise Refusal(expected, "found none, and it has no default")
            return make(*values, **named)
        except Refusal as refusal:
            refusal.path.append(f".{name}")
            raise
        except Exception as error:
            # a constructor, converter or validator of the user's may raise anything: a refusal instead
            raise Refusal(label, reason_of(error)) from error

    return decode


def _encode_fields(cls: type, label: str, fields: list[tuple[str, str, Encoder]]) -> Encoder:
    """What writes an object with a key per field: *fields* are pairs of attribute and key, with their encoder."""
    names = [name for name, _, _ in fields]
    keys = [key for _, key, _ in fields]
    encoders = [encode for _, _, encode in fields]
    get: Callable[[Any], Any]
    if not names:
        get = lambda _: ()  # noqa: E731 - the empty case of attrgetter
    elif len(names) == 1:
        one = operator.attrgetter(names[0])
        get = lambda value: (one(value),)  # noqa: E731 - attrgetter of one name gives no tuple
    else:
        get = operator.attrgetter(*names)

    def encode(value: Any, depth: int) -> Any:
        if type(value) is not cls:
            if isinstance(value, cls):
                raise Refusal(
                    qualified(type(value)), f"a subclass of {label} would come back as {label}; annotate with a union"
                )
            raise mismatch(value, label)
        if depth <= 0:
            raise TooDeep
        depth -= 1
        try:
            items = get(value)
        except Exception as error:  # an unset slot, or a descriptor of the user's, which may raise anything
            raise Refusal(label, reason_of(error)) from error
        out: dict[str, Any] = {}
        try:
            for key, convert, item in zip(keys, encoders, items, strict=True):
                out[key] = convert(item, depth)
        except Refusal as refusal:
            refusal.path.append(f".{names[len(out)]}")
            raise
        return out

    return encode


def verified(encode: Encoder, decode: Decoder, label: str) -> Encoder:
    """*encode*, which refuses what *decode* does not make alike again."""

    def encode_verified(value: Any, depth: int) -> Any:
        plain = encode(value, depth)
        try:
            # Once more through the text, so that the decoder may keep what it gets.
            again = encode(decode(json.loads(dumps(plain))), depth)
        except Refusal as refusal:
            raise Refusal(label, f"it cannot be read back: {refusal.reason}") from refusal
        if dumps(again) != dumps(plain):
            raise Refusal(label, "its constructor does not give back an equal instance from the recorded fields")
        return plain

    return encode_verified
