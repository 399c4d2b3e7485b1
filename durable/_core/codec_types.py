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
import collections.abc
import dataclasses
import datetime as dt
import decimal
import enum
import inspect
import json
import json.encoder
import math
import operator
import pathlib
import sys
import threading
import types
import typing
import uuid
import zoneinfo
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal, TypeAlias, Union

import attrs
import cattrs
import cattrs.errors
import cattrs.gen

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
        chunks = make(None, plain.default, quote, None, ":", ",", sort_keys, False, False)
        if "".join(chunks({"a": [1, "é"]}, 0)) != '{"a":[1,"é"]}':
            return plain.encode
    except Exception:  # noqa: BLE001 - whatever an unknown interpreter says, the public way works
        return plain.encode
    join = "".join
    return lambda value: join(chunks(value, 0))


dumps: Final = _make_dumps(sort_keys=False)
dumps_sorted: Final = _make_dumps(sort_keys=True)


def _mismatch(value: Any, expected: str) -> Refusal:
    return Refusal(qualified(type(value)), f"the annotation asks for {expected}")


def _misfit(plain: Any, expected: str) -> Refusal:
    return Refusal(expected, f"the record holds {_json_kind(plain)}")


def _json_kind(plain: Any) -> str:
    text = f"{plain!r:.40}" if type(plain) in (str, int, float, bool) else ""
    return f"{type(plain).__name__} {text}".strip()


def _reason(error: Exception) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - str() of a user's exception may itself fail
        return type(error).__name__


def _each(convert: Callable[[Any, Any], Any], values: Iterable[Any], extra: Any) -> list[Any]:
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
        raise _mismatch(value, "int")
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
    raise _mismatch(value, "float")


def _decode_float(plain: Any, _: Any) -> Any:
    if type(plain) is float or type(plain) is int:
        try:
            number = float(plain)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
        raise Refusal("float", "the number is out of range")
    raise _misfit(plain, "float")


def _encode_str(value: Any, _: Any) -> Any:
    if type(value) is not str:
        raise _mismatch(value, "str")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise Refusal("str", f"character {error.start} is a lone surrogate, which UTF-8 cannot hold") from None
    return value


def _scalar(
    cls: type, kind: type, dump: Callable[[Any], Any], load: Callable[[Any], Any], name: str | None = None
) -> Rule:
    label = name or cls.__name__

    def encode(value: Any, _: Any) -> Any:
        if type(value) is not cls:
            raise _mismatch(value, label)
        try:
            return dump(value)
        except Exception as error:  # noqa: BLE001 - a tzinfo of the user's may raise anything
            raise Refusal(label, _reason(error)) from error

    def decode(plain: Any, _: Any) -> Any:
        if type(plain) is not kind:
            raise _misfit(plain, label)
        try:
            return load(plain)
        except Exception as error:  # noqa: BLE001 - as above
            raise Refusal(label, f"the record holds {plain!r:.60}: {_reason(error)}") from error

    return Rule(label, encode, decode, (cls,), frozenset({kind}))


def _atom(cls: type, encode: Encoder | None = None) -> Rule:
    label = "None" if cls is NoneType else cls.__name__

    def check(value: Any, _: Any) -> Any:
        if type(value) is not cls:
            raise _mismatch(value, label)
        return value

    def decode(plain: Any, _: Any) -> Any:
        if type(plain) is not cls:
            raise _misfit(plain, label)
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

_PLAIN: Final = {
    NoneType: _atom(NoneType),
    bool: _atom(bool),
    int: _atom(int, _encode_int),
    str: _atom(str, _encode_str),
    float: Rule("float", _encode_float, _decode_float, (float, int), frozenset({float})),
}

_STDLIB: Final = {
    dt.datetime: _scalar(dt.datetime, str, _dump_datetime, _load_datetime),
    dt.date: _scalar(dt.date, str, dt.date.isoformat, dt.date.fromisoformat),
    dt.time: _scalar(dt.time, str, _dump_time, dt.time.fromisoformat),
    dt.timedelta: _scalar(
        dt.timedelta, int, lambda span: span // _MICROSECOND, lambda count: dt.timedelta(microseconds=count)
    ),
    uuid.UUID: _scalar(uuid.UUID, str, str, uuid.UUID),
    decimal.Decimal: _scalar(decimal.Decimal, str, _dump_decimal, decimal.Decimal),
    bytes: _scalar(bytes, str, lambda data: base64.b64encode(data).decode(), _load_bytes),
    # The annotation names the portable class, the value has the platform's.
    pathlib.Path: _scalar(type(pathlib.Path()), str, _dump_path, pathlib.Path, "Path"),
    pathlib.PurePath: _scalar(type(pathlib.PurePath()), str, _dump_path, pathlib.PurePath, "PurePath"),
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
        return _each(decode_any, plain, None)
    if cls is float and not math.isfinite(plain):
        raise Refusal("float", "the number is out of range")
    return plain


def _encode_list(value: Any, depth: int) -> Any:
    if depth <= 0:
        raise TooDeep("list", "too deep")
    return _each(encode_any, value, depth - 1)


def _encode_dict(value: Any, depth: int) -> Any:
    if depth <= 0:
        raise TooDeep("dict", "too deep")
    depth -= 1
    out: dict[str, Any] = {}
    key: Any = None
    try:
        for key, item in value.items():  # noqa: B007 - a refusal names the key
            if type(key) is not str or key == TAG:
                return {TAG: "dict", "v": _encode_pairs(encode_any, encode_any, value, depth)}
            if not key.isascii():
                _encode_str(key, 0)
            out[key] = encode_any(item, depth)
    except Refusal as refusal:
        refusal.path.append(_key_path(key))
        raise
    return out


def _encode_pairs(encode_key: Encoder, encode_item: Encoder, value: dict[Any, Any], depth: int) -> list[Any]:
    pairs: list[Any] = []
    key: Any = None
    try:
        for key, item in value.items():
            pairs.append([encode_key(key, depth), encode_item(item, depth)])
    except Refusal as refusal:
        refusal.path.append(_key_path(key))
        raise
    return pairs


def _decode_items(decode: Decoder, plain: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    key = ""
    try:
        for key, item in plain.items():
            out[key] = decode(item, None)
    except Refusal as refusal:
        refusal.path.append(_key_path(key))
        raise
    return out


def _key_path(key: Any) -> str:
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
    return _encode_sorted(encode_any, value, depth)


def _encode_sorted(encode: Encoder, value: Any, depth: int) -> list[Any]:
    """In the order of their text: the order of a set of str differs from process to process."""
    if depth <= 0:
        raise TooDeep("set", "too deep")
    return sorted((encode(item, depth - 1) for item in value), key=dumps)


def _decode_tagged(plain: dict[str, Any]) -> Any:
    decode = _ANY_DECODERS.get(plain[TAG]) if type(plain[TAG]) is str else None
    if decode is None or "v" not in plain:
        raise Refusal("a tagged value", f"unknown tag {plain[TAG]!r:.60}")
    return decode(plain["v"], None)


def _decode_collection(make: Callable[[list[Any]], Any], decode: Decoder, label: str) -> Decoder:
    def decode_collection(plain: Any, _: Any) -> Any:
        if type(plain) is not list:
            raise _misfit(plain, label)
        try:
            return make(_each(decode, plain, None))
        except TypeError as error:
            raise Refusal(label, _reason(error)) from error

    return decode_collection


def _decode_pairs(decode_key: Decoder, decode_item: Decoder, plain: Any) -> dict[Any, Any]:
    out: dict[Any, Any] = {}
    for index, pair in enumerate(plain):
        try:
            if type(pair) is not list or len(pair) != 2:  # noqa: PLR2004 - a pair
                raise _misfit(pair, "a pair of key and value")
            out[decode_key(pair[0], None)] = decode_item(pair[1], None)
        except Refusal as refusal:
            refusal.path.append(f"[{index}]")
            raise
        except TypeError as error:
            raise Refusal("a key", _reason(error)) from error
    return out


def _decode_any_pairs(plain: Any, _: Any) -> Any:
    if type(plain) is not list:
        raise _misfit(plain, "a list of pairs")
    return _decode_pairs(decode_any, decode_any, plain)


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
    "tuple": _decode_collection(tuple, decode_any, "tuple"),
    "set": _decode_collection(set, decode_any, "set"),
    "frozenset": _decode_collection(frozenset, decode_any, "frozenset"),
}
for _rule in _STDLIB.values():
    _ANY_ENCODERS.setdefault(_rule.types[0], _tagged(_rule.name, _rule.encode))
    _ANY_DECODERS[_rule.name] = _rule.decode

ANY: Final = Rule("Any", encode_any, decode_any, (), frozenset())


# --- rules for annotations ---------------------------------------------------------------------

_WRAPPERS: Final = frozenset({"Required", "NotRequired", "ReadOnly", "Final", "ClassVar"})

#: What a value annotated with an abstract collection may be. The first is written bare.
_ABSTRACT: Final[dict[Any, tuple[type, ...]]] = {
    collections.abc.Sequence: (list, tuple),
    collections.abc.MutableSequence: (list,),
    collections.abc.Set: (set, frozenset),
    collections.abc.MutableSet: (set,),
    collections.abc.Mapping: (dict,),
    collections.abc.MutableMapping: (dict,),
    collections.abc.Collection: (list, tuple, set, frozenset),
    collections.abc.Iterable: (list, tuple, set, frozenset),
}


class Rules:
    """The rules of all annotations seen so far, each built when first asked for."""

    def __init__(self) -> None:
        self.known: dict[Any, Rule] = {Any: ANY, object: ANY, None: _PLAIN[NoneType], **_PLAIN, **_STDLIB}
        self._building: dict[Any, Rule] = {}
        # Transactions run on another thread. Only building takes the lock; `known` holds
        # finished rules, or rules whose unfinished parts come back here and wait.
        self._lock = threading.RLock()
        self._converter = cattrs.Converter(detailed_validation=True)

    def get(self, type_: Any) -> Rule:
        """The rule for an annotation. Never raises: what is not supported gets a rule that refuses."""
        try:
            found = self.known.get(type_)
        except TypeError:  # e.g. Annotated[int, {}]: cannot be a key
            return self._build(type_)
        if found is not None:
            return found
        with self._lock:
            found = self.known.get(type_) or self._building.get(type_)
            if found is None:
                try:
                    found = self.known[type_] = self._build(type_)
                finally:
                    self._building.pop(type_, None)
            return found

    def _announce(self, type_: Any, name: str, types_: tuple[type, ...], kinds: frozenset[type]) -> None:
        """Let a type that contains itself find itself while its rule is being built."""
        self._building[type_] = Rule(
            name,
            lambda value, depth: self.get(type_).encode(value, depth),
            lambda plain, _: self.get(type_).decode(plain, None),
            types_,
            kinds,
        )

    def _build(self, type_: Any) -> Rule:  # noqa: C901, PLR0911, PLR0912 - one flat list of cases
        origin, args = typing.get_origin(type_), typing.get_args(type_)
        if origin is typing.Annotated:
            return self.get(args[0])
        if getattr(origin, "_name", None) in _WRAPPERS:
            return self.get(args[0])
        if origin is Union or isinstance(type_, types.UnionType):
            return self._union(type_, [self.get(member) for member in args])
        if origin is Literal:
            return _literal(type_, args)
        if hasattr(type_, "__supertype__"):
            return self.get(type_.__supertype__)
        if type(type_).__name__ == "TypeAliasType" or type(origin).__name__ == "TypeAliasType":
            self._announce(type_, str(type_), (), frozenset({dict, list, str, int, float, bool, NoneType}))
            alias: Any = origin or type_
            return self.get(substitute(alias.__value__, dict(zip(alias.__type_params__, args, strict=False))))
        base = origin or type_
        if base in _ABSTRACT:
            made = [self.get(_subscript(each, args)) for each in _ABSTRACT[base]]
            return made[0] if len(made) == 1 else self._union(type_, made, bare=made[0])
        if base is list:
            return _list(qualified(type_), self.get(args[0] if args else Any))
        if base is tuple:
            return self._tuple(type_, args)
        if base in (set, frozenset):
            return _set(base, qualified(type_), self.get(args[0] if args else Any))
        if base is dict:
            key, item = args or (Any, Any)
            return _dict(qualified(type_), self.get(key), self.get(item))
        if isinstance(base, type):
            return self._class(type_, base)
        if isinstance(type_, typing.TypeVar | typing.ForwardRef | str) or type_ in _NO_TYPE:
            return ANY
        return _unsupported(type_)

    def _class(self, type_: Any, cls: type) -> Rule:
        if issubclass(cls, enum.Enum):
            return _enum(cls)
        if issubclass(cls, dict) and hasattr(cls, "__required_keys__"):
            self._announce(type_, qualified(type_), (dict,), frozenset({dict}))
            return self._typed_dict(type_, cls)
        self._announce(type_, qualified(type_), (cls,), frozenset({dict}))
        if issubclass(cls, tuple) and hasattr(cls, "_fields"):
            return self._named_tuple(type_, cls)
        if attrs.has(cls) or dataclasses.is_dataclass(cls):
            return self._record(type_, cls)
        pydantic = sys.modules.get("pydantic")
        # Not imported here: no program has a model without having imported pydantic itself.
        if pydantic is not None and issubclass(cls, pydantic.BaseModel) and hasattr(cls, "model_validate_json"):
            return _model(cls)
        return _unsupported(type_)

    def _tuple(self, type_: Any, args: tuple[Any, ...]) -> Rule:
        if not args and type_ is not tuple and type_ is not typing.Tuple:  # noqa: UP006 - tuple[()]
            args = ()
        elif not args:
            args = (Any, ...)
        if len(args) == 2 and args[1] is ...:  # noqa: PLR2004 - tuple[T, ...]
            item = self.get(args[0])
            return _collection(tuple, qualified(type_), item)
        return _fixed(qualified(type_), [self.get(arg) for arg in args])

    def _union(self, type_: Any, members: list[Rule], *, bare: Rule | None = None) -> Rule:
        """
        Members whose JSON differs in kind are written as they are; the others with a tag.

        What is tagged must not depend on the order of the members, since ``A | B`` and
        ``B | A`` are one key of the cache; *bare* is for unions of our own making.
        """
        name = qualified(type_)
        if ANY in members:
            return ANY
        taken = [kind for rule in members for kind in rule.kinds]
        tagged = {
            index
            for index, rule in enumerate(members)
            if rule is not bare and any(taken.count(kind) > 1 for kind in rule.kinds)
        }
        if tagged:  # A bare dict could be taken for a tag.
            tagged |= {index for index, rule in enumerate(members) if dict in rule.kinds}
        tags = _tags([rule.name for rule in members])
        by_type: dict[type, list[tuple[Rule, str | None]]] = {}
        by_kind: dict[type, Rule] = {}
        by_tag: dict[str, Rule] = {}
        for index, rule in enumerate(members):
            tag = tags[index] if index in tagged else None
            for cls in rule.types:
                # An int is an int first, and a float only where no other member takes it.
                place = 0 if rule.types[0] is cls else len(by_type.get(cls, ()))
                by_type.setdefault(cls, []).insert(place, (rule, tag))
            if tag is None:
                by_kind.update(dict.fromkeys(rule.kinds, rule))
            else:
                by_tag[tag] = rule
        if float in by_kind and int not in taken:
            by_kind[int] = by_kind[float]

        def encode(value: Any, depth: int) -> Any:
            choices = by_type.get(type(value))
            if choices is None:
                raise _mismatch(value, name)
            for index, (rule, tag) in enumerate(choices):
                try:
                    plain = rule.encode(value, depth)
                except TooDeep:
                    raise
                except Refusal:
                    if index + 1 < len(choices):
                        continue
                    raise
                return plain if tag is None else {TAG: tag, "v": plain}
            raise _mismatch(value, name)

        def decode(plain: Any, _: Any) -> Any:
            if by_tag and type(plain) is dict:
                tag = plain.get(TAG)
                rule = by_tag.get(tag) if type(tag) is str and "v" in plain else None
                if rule is None:
                    raise Refusal(name, f"the record holds an object with tag {tag!r:.60}")
                return rule.decode(plain["v"], None)
            rule = by_kind.get(type(plain))
            if rule is None:
                raise _misfit(plain, name)
            return rule.decode(plain, None)

        kinds = frozenset(by_kind) | (frozenset({dict}) if by_tag else frozenset())
        return Rule(name, encode, decode, tuple(by_type), kinds)

    # --- records ---

    def _fields(self, type_: Any) -> dict[str, Rule]:
        return {name: self.get(hint) for name, hint in class_hints(type_).items()}

    def _record(self, type_: Any, cls: Any) -> Rule:
        """An attrs class or dataclass: read through the function that cattrs generates for it."""
        hints = class_hints(type_)
        fields: tuple[Any, ...] = attrs.fields(cls) if attrs.has(cls) else dataclasses.fields(cls)
        rules = {f.name: self.get(hints.get(f.name, f.type or Any)) for f in fields}
        label = qualified(type_)
        if any(isinstance(hint, dataclasses.InitVar) for hint in vars(cls).get("__annotations__", {}).values()):
            return _unsupported(type_, "it has an InitVar, whose value no instance keeps")
        # cattrs wants every type variable filled; the hooks below know the real ones.
        target: Any = cls
        if parameters := getattr(target, "__parameters__", ()):
            target = target[(Any,) * len(parameters)]
        hooks = {name: cattrs.override(struct_hook=rule.decode) for name, rule in rules.items()}
        structure = cattrs.gen.make_dict_structure_fn(target, self._converter, **hooks)  # type: ignore[arg-type]  # overrides come by field name

        def decode(plain: Any, _: Any) -> Any:
            if type(plain) is not dict:
                raise _misfit(plain, label)
            try:
                return structure(plain, cls)
            except cattrs.errors.ClassValidationError as error:
                raise _first_refusal(error, label) from error

        encode = _encode_fields(cls, label, [(f.name, rules[f.name].encode) for f in fields])
        # A converter or a constructor of the user's may turn what was recorded into something
        # else, and a field outside of __init__ is not recorded at all: only trying tells.
        hooked = any(hasattr(cls, name) for name in ("__attrs_pre_init__", "__attrs_post_init__", "__post_init__"))
        if hooked or not _generated_init(cls) or any(not f.init or getattr(f, "converter", None) for f in fields):
            encode = _verified(encode, decode, label)
        return Rule(label, encode, decode, (cls,), frozenset({dict}))

    def _named_tuple(self, type_: Any, cls: Any) -> Rule:
        rules = self._fields(type_)
        label = qualified(type_)
        names: tuple[str, ...] = cls._fields
        encoders = [(name, rules.get(name, ANY).encode) for name in names]
        decoders = [(name, rules.get(name, ANY).decode) for name in names]

        def decode(plain: Any, _: Any) -> Any:
            if type(plain) is not dict:
                raise _misfit(plain, label)
            found = _decode_present(decoders, plain)
            for name in names:
                if name not in found and name not in cls._field_defaults:
                    raise _missing(name, label)
            try:
                return cls(**found)
            except Exception as error:  # noqa: BLE001 - a subclass's own __new__
                raise Refusal(label, _reason(error)) from error

        return Rule(label, _encode_fields(cls, label, encoders), decode, (cls,), frozenset({dict}))

    def _typed_dict(self, type_: Any, cls: Any) -> Rule:
        hints = class_hints(type_)
        rules = {name: self.get(hint) for name, hint in hints.items()}
        label = qualified(type_)
        marks = {name: getattr(typing.get_origin(hint), "_name", None) for name, hint in hints.items()}
        required = {
            name
            for name in hints
            if marks[name] == "Required" or (marks[name] != "NotRequired" and name in cls.__required_keys__)
        }
        decoders = [(name, rule.decode) for name, rule in rules.items()]

        def encode(value: Any, depth: int) -> Any:
            if type(value) is not dict:
                raise _mismatch(value, label)
            if depth <= 0:
                raise TooDeep(label, "too deep")
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
                    refusal.path.append(_key_path(key))
                    raise
            return out

        def decode(plain: Any, _: Any) -> Any:
            if type(plain) is not dict:
                raise _misfit(plain, label)
            found = _decode_present(decoders, plain)
            for name in required:
                if name not in found:
                    raise _missing(name, label)
            return found

        return Rule(label, encode, decode, (dict,), frozenset({dict}))


def _subscript(cls: type, args: tuple[Any, ...]) -> Any:
    if not args:
        return cls
    return types.GenericAlias(cls, (args[0], ...) if cls is tuple else args)


def _tags(names: list[str]) -> list[str]:
    """Class names where they tell the members apart, full names where they do not."""
    short = [name.rpartition(".")[2] if "[" not in name else name for name in names]
    return [full if short.count(brief) > 1 else brief for full, brief in zip(names, short, strict=True)]


def _generated_init(cls: Any) -> bool:
    """Whether the constructor is the one that attrs or dataclasses wrote, hence only assigns."""
    if attrs.has(cls):
        # attrs compiles its methods under a file name of this form.
        return "<attrs generated" in cls.__init__.__code__.co_filename
    return bool(cls.__dataclass_params__.init) and cls.__init__.__code__.co_filename == "<string>"


def _encode_fields(cls: type, label: str, fields: list[tuple[str, Encoder]]) -> Encoder:
    names = [name for name, _ in fields]
    encoders = [encode for _, encode in fields]
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
            raise _mismatch(value, label)
        if depth <= 0:
            raise TooDeep(label, "too deep")
        depth -= 1
        try:
            items = get(value)
        except Exception as error:  # noqa: BLE001 - an unset slot, or a descriptor of the user's
            raise Refusal(label, _reason(error)) from error
        out: dict[str, Any] = {}
        try:
            for name, convert, item in zip(names, encoders, items, strict=True):
                out[name] = convert(item, depth)
        except Refusal as refusal:
            refusal.path.append(f".{names[len(out)]}")
            raise
        return out

    return encode


def _verified(encode: Encoder, decode: Decoder, label: str) -> Encoder:
    def encode_verified(value: Any, depth: int) -> Any:
        plain = encode(value, depth)
        try:
            # Once more through the text, so that the decoder may keep what it gets.
            again = encode(decode(json.loads(dumps(plain)), None), depth)
        except Refusal as refusal:
            raise Refusal(label, f"it cannot be read back: {refusal.reason}") from refusal
        if dumps(again) != dumps(plain):
            raise Refusal(label, "its constructor does not give back an equal instance from the recorded fields")
        return plain

    return encode_verified


def _first_refusal(error: cattrs.errors.ClassValidationError, label: str) -> Refusal:
    """What cattrs collected, as one refusal that knows the field."""
    inner = error.exceptions[0]
    notes = [n for n in getattr(inner, "__notes__", ()) if isinstance(n, cattrs.errors.AttributeValidationNote)]
    if isinstance(inner, Refusal) and notes:
        inner.path.append(f".{notes[-1].name}")
        return inner
    if isinstance(inner, KeyError) and notes:
        return _missing(notes[-1].name, label)
    return Refusal(label, _reason(inner))


def _missing(name: str, label: str) -> Refusal:
    refusal = Refusal(label, f"the record has no {name!r}, and it has no default")
    refusal.path.append(f".{name}")
    return refusal


def _decode_present(decoders: list[tuple[str, Decoder]], plain: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    name = ""
    try:
        for name, decode in decoders:
            if name in plain:
                found[name] = decode(plain[name], None)
    except Refusal as refusal:
        refusal.path.append(f".{name}")
        raise
    return found


def _unsupported(type_: Any, reason: str = "") -> Rule:
    name = qualified(type_)
    why = reason or (
        "no rule turns it into JSON and back; make it an attrs class, a dataclass, "
        "a TypedDict or a pydantic model, or annotate with types of the standard library"
    )

    def encode(value: Any, _: Any) -> Any:
        raise Refusal(qualified(type(value)), f"the annotation is {name}: {why}")

    def decode(_plain: Any, _: Any) -> Any:
        raise Refusal(name, why)

    return Rule(name, encode, decode, (type_,) if isinstance(type_, type) else (), frozenset({dict}))


def _model(cls: Any) -> Rule:
    label = qualified(cls)

    def encode(value: Any, depth: int) -> Any:
        if type(value) is not cls:
            raise _mismatch(value, label)
        try:
            text = value.model_dump_json(by_alias=True)
            plain = json.loads(text)
            same = cls.model_validate_json(text) == value
        except Exception as error:  # noqa: BLE001 - serializers and validators of the user's
            raise Refusal(label, _reason(error)) from error
        if not same:
            raise Refusal(label, "model_validate_json does not give back an equal model from model_dump_json")
        check_depth(plain, depth)
        return plain

    def decode(plain: Any, _: Any) -> Any:
        try:
            return cls.model_validate_json(dumps(plain))
        except Exception as error:  # noqa: BLE001 - as above
            raise Refusal(label, _reason(error)) from error

    return Rule(label, encode, decode, (cls,), frozenset({dict, list, str, int, float, bool, NoneType}))


def check_depth(plain: Any, depth: int) -> None:
    """Raise `TooDeep` if *plain* JSON nests deeper than *depth*. A loop: the data may be hostile."""
    level = [plain]
    while level:
        containers = [each for each in level if type(each) is dict or type(each) is list]
        if containers and depth <= 0:
            raise TooDeep(type(containers[0]).__name__, "too deep")
        depth -= 1
        level = [item for each in containers for item in (each.values() if type(each) is dict else each)]


def _list(name: str, item: Rule) -> Rule:
    convert, revert = item.encode, item.decode

    def encode(value: Any, depth: int) -> Any:
        if type(value) is not list:
            raise _mismatch(value, name)
        if depth <= 0:
            raise TooDeep(name, "too deep")
        return _each(convert, value, depth - 1)

    def decode(plain: Any, _: Any) -> Any:
        if type(plain) is not list:
            raise _misfit(plain, name)
        return _each(revert, plain, None)

    return Rule(name, encode, decode, (list,), frozenset({list}))


def _collection(cls: Any, name: str, item: Rule) -> Rule:
    convert = item.encode
    ordered = cls is tuple

    def encode(value: Any, depth: int) -> Any:
        if type(value) is not cls:
            raise _mismatch(value, name)
        if depth <= 0:
            raise TooDeep(name, "too deep")
        return _each(convert, value, depth - 1) if ordered else _encode_sorted(convert, value, depth)

    return Rule(name, encode, _decode_collection(cls, item.decode, name), (cls,), frozenset({list}))


_set = _collection


def _fixed(name: str, items: list[Rule]) -> Rule:
    def encode(value: Any, depth: int) -> Any:
        if type(value) is not tuple:
            raise _mismatch(value, name)
        if depth <= 0:
            raise TooDeep(name, "too deep")
        if len(value) != len(items):
            raise Refusal("tuple", f"{name} has {len(items)} items, found {len(value)}")
        return _each(lambda pair, left: pair[0].encode(pair[1], left), zip(items, value, strict=True), depth - 1)

    def decode(plain: Any, _: Any) -> Any:
        if type(plain) is not list:
            raise _misfit(plain, name)
        if len(plain) != len(items):
            raise Refusal(name, f"the record holds {len(plain)} items")
        return tuple(_each(lambda pair, _: pair[0].decode(pair[1], None), zip(items, plain, strict=True), None))

    return Rule(name, encode, decode, (tuple,), frozenset({list}))


def _dict(name: str, key_rule: Rule, item_rule: Rule) -> Rule:
    """An object where the keys are text (an int key as its digits), else a list of pairs."""
    convert, revert = item_rule.encode, item_rule.decode
    key_convert, key_revert = key_rule.encode, key_rule.decode
    digits = key_rule is _PLAIN[int]

    def encode(value: Any, depth: int) -> Any:
        if type(value) is not dict:
            raise _mismatch(value, name)
        if depth <= 0:
            raise TooDeep(name, "too deep")
        depth -= 1
        out: dict[str, Any] = {}
        key: Any = None
        try:
            for key, item in value.items():
                plain = key_convert(key, depth)
                if digits:
                    plain = str(plain)
                if type(plain) is not str:
                    return _encode_pairs(key_convert, convert, value, depth)
                out[plain] = convert(item, depth)
        except Refusal as refusal:
            refusal.path.append(_key_path(key))
            raise
        return out

    def decode_key(text: str) -> Any:
        if digits:
            number = int(text) if text.removeprefix("-").isdecimal() else None
            if str(number) != text:
                raise _misfit(text, "digits")
            return number
        return key_revert(text, None)

    def decode(plain: Any, _: Any) -> Any:
        if type(plain) is list:
            return _decode_pairs(key_revert, revert, plain)
        if type(plain) is not dict:
            raise _misfit(plain, name)
        out: dict[Any, Any] = {}
        text = ""
        try:
            for text, item in plain.items():
                out[decode_key(text)] = revert(item, None)
        except Refusal as refusal:
            refusal.path.append(_key_path(text))
            raise
        except (TypeError, ValueError) as error:  # unhashable key, too many digits
            raise Refusal(name, _reason(error)) from error
        return out

    # Pairs are written only where a key is not text, so that both kinds must be expected.
    texts_only = digits or key_rule.kinds == frozenset({str})
    return Rule(name, encode, decode, (dict,), frozenset({dict}) if texts_only else frozenset({dict, list}))


def _plain_key(plain: Any) -> Any:
    return plain if type(plain) is str else (type(plain), dumps(plain))


def _table(name: str, members: list[tuple[Any, Any]], keys: Callable[[Any], Any], types_: tuple[type, ...]) -> Rule:
    """A closed set of values. *members* are pairs of value and plain."""
    to_plain = {keys(value): plain for value, plain in members}
    to_value = {_plain_key(plain): value for value, plain in members}

    def encode(value: Any, _: Any) -> Any:
        try:
            return to_plain[keys(value)]
        except (KeyError, TypeError):
            raise _mismatch(value, name) from None

    def decode(plain: Any, _: Any) -> Any:
        try:
            return to_value[_plain_key(plain)]
        except KeyError:
            raise _misfit(plain, name) from None

    return Rule(name, encode, decode, types_, frozenset(type(plain) for _, plain in members))


def _literal(type_: Any, args: tuple[Any, ...]) -> Rule:
    name = qualified(type_)
    members: list[tuple[Any, Any]] = []
    for value in args:
        if isinstance(value, enum.Enum):
            members.append((value, _enum(type(value)).encode(value, 0)))
        else:
            members.append((value, encode_any(value, 1)))
    if len({_plain_key(plain) for _, plain in members}) < len(members):
        return _unsupported(type_, "two of its values have the same JSON")
    # By type too: True is equal to 1.
    return _table(name, members, lambda value: (type(value), value), tuple(dict.fromkeys(map(type, args))))


def _enum(cls: type[enum.Enum]) -> Rule:
    name = qualified(cls)
    if issubclass(cls, enum.Flag):
        return _flag(cls, name)
    try:
        members = [(member, encode_any(member.value, 8)) for member in cls]
    except Refusal:
        members = [(member, member.name) for member in cls]
    if len({_plain_key(plain) for _, plain in members}) < len(members):
        members = [(member, member.name) for member in cls]

    # By identity: a member may compare or hash as its value does, or not hash at all.
    return _table(name, members, lambda value: id(value) if type(value) is cls else None, (cls,))


def _flag(cls: type[enum.Flag], name: str) -> Rule:
    def load(number: int) -> enum.Flag:
        flag = cls(number)
        if type(flag) is not cls or flag.value != number:
            raise ValueError("no such flags")
        return flag

    return _scalar(cls, int, operator.attrgetter("value"), load, name)


_NO_TYPE: Final = frozenset({inspect.Parameter.empty, typing.NoReturn, typing.Never, typing.Final, typing.ClassVar})


# --- annotations -------------------------------------------------------------------------------


def resolve(
    annotations: Mapping[str, Any], globals_: Mapping[str, Any], locals_: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """*annotations* with their forward references resolved, each by itself; Any where that fails."""
    try:
        return _resolve(annotations, globals_, locals_)
    except Exception:  # noqa: BLE001 - an annotation is any expression of the user's
        pass
    out: dict[str, Any] = {}
    for name, annotation in annotations.items():
        try:
            out.update(_resolve({name: annotation}, globals_, locals_))
        except Exception:  # noqa: BLE001 - as above; names under TYPE_CHECKING are the usual case
            out[name] = Any
    return out


def _resolve(annotations: Mapping[str, Any], globals_: Any, locals_: Any) -> dict[str, Any]:
    if not any(isinstance(each, str | typing.ForwardRef) or hasattr(each, "__args__") for each in annotations.values()):
        return {name: NoneType if each is None else each for name, each in annotations.items()}
    # A class as carrier, because only there are Final and ClassVar allowed.
    carrier = type("Carrier", (), {"__annotations__": dict(annotations)})
    return typing.get_type_hints(carrier, dict(globals_), dict(locals_ or {}), include_extras=True)


def class_hints(type_: Any) -> dict[str, Any]:
    """The annotations of a class and its bases, with the type variables of each filled in."""
    cls = typing.get_origin(type_) or type_
    args = typing.get_args(type_)
    filled = dict(zip(getattr(cls, "__parameters__", ()), args, strict=False))
    out: dict[str, Any] = {}
    for base in reversed(vars(cls).get("__orig_bases__", cls.__bases__)):
        origin = typing.get_origin(base) or base
        if isinstance(origin, type) and origin not in (object, dict, tuple, typing.Generic, typing.Protocol):
            out.update(class_hints(substitute(base, filled)))
    module = sys.modules.get(cls.__module__)
    names = vars(module) if module else {}
    own = resolve(inspect.get_annotations(cls), names, {cls.__name__: cls})
    out.update({name: substitute(hint, filled) for name, hint in own.items()})
    return out


def substitute(hint: Any, filled: Mapping[Any, Any]) -> Any:
    """*hint* with its type variables replaced; Any for those that are unknown."""
    if isinstance(hint, typing.TypeVar):
        return filled.get(hint, Any)
    parameters = getattr(hint, "__parameters__", ()) if typing.get_origin(hint) else ()
    if not parameters:
        return hint
    return hint[tuple(filled.get(each, Any) for each in parameters)]
